"""What steers jobs, written to and read from the stream's leader: limits, pauses, schedules, keys, and leases.

Each is one rollup message on a subject of its own, replaced under a fence on that very subject: of two writers that
cross, one is stored, and the other decides again on what that has written. A value that is removed leaves a message
that says so, for as long as every index needs to hear of it.
"""

from collections.abc import Callable, Mapping

import msgspec
from msgspec import Raw

from gql_jobs import clock
from gql_jobs.jetstream.client import ROLLUP_HEADER, TTL_HEADER
from gql_jobs.jetstream.stored_messages import messages_of
from gql_jobs.jobs.errors import QueueUnavailable
from gql_jobs.jobs.messages import REMOVED, Steered, SteeringMessage
from gql_jobs.log import codec
from gql_jobs.log.job_log import Fence, JobLog, Superseded, Write, queue_errors

REMOVAL_TTL = 7 * 86_400
"""Seconds for which the server keeps the message that something is removed, as it does with ``expired`` events."""
_NOBODY = "gate"
"""Stands for the id of the job where a write is about none."""
_TRIES = 10
"""How often a change is decided again because others have written."""
_UNKNOWN = "NATS did not acknowledge the write of {} {} in time: whether it was stored is unknown. Try again."


def steering_fence(what: str, name: str, seq: int) -> Fence:
    """Return the condition that the newest message on a steering subject is that of ``seq``; 0 for none."""
    return Fence(codec.steering_subject(what, name), seq)


class SteeringLog:
    """Reads and writes steering messages. One instance per process."""

    def __init__(self, job_log: JobLog) -> None:
        self._log = job_log

    async def read(self, what: str, name: str) -> SteeringMessage | None:
        """Return the newest message, as the leader has it; None if there is none.

        :raises QueueUnavailable: if the leader does not answer, or the message is of a newer release.
        """
        stored = await self._log.last(codec.steering_subject(what, name))
        if stored is None:
            return None
        try:
            return codec.read_steering(stored)
        except codec.Newer as error:
            raise QueueUnavailable(
                f"The {what} {name} was written by a newer release than this process has."
            ) from error
        except codec.Unreadable:
            # Whatever it was, it can be replaced.
            return SteeringMessage(what, name, stored.seq, stored.at, None)

    async def all(self, what: str) -> list[SteeringMessage]:
        """Return the newest messages of one kind, oldest first; unreadable ones are left out.

        :raises QueueUnavailable: if the leader does not answer.
        """
        found = []
        with queue_errors("The stream could not be read"):
            async for stored in messages_of(self._log.connection, codec.JOBS_STREAM, codec.steering_subjects(what)):
                try:
                    message = codec.read_steering(stored)
                except codec.Unreadable:
                    continue
                if message is not None:
                    found.append(message)
        return found

    async def write(
        self,
        what: str,
        name: str,
        value: Raw | None,
        expected_seq: int,
        *,
        actor: str | None = None,
        fence: Fence | None = None,
        removal_ttl: int = REMOVAL_TTL,
    ) -> int:
        """Store a value in place of the message that ``expected_seq`` names, and return the new sequence.

        :param value: its JSON; None to remove it.
        :param expected_seq: 0 if there is none.
        :param fence: another condition than that one.
        :param removal_ttl: seconds for which the server keeps the message that it is removed.
        :raises Superseded: if another message has taken its place.
        :raises QueueUnavailable: if the server does not answer; the value may have been stored then.
        :raises QueueFull: if the server has no room.
        """
        headers = {ROLLUP_HEADER: "sub"}
        if value is None:
            headers[TTL_HEADER] = f"{removal_ttl}s"
        body = Steered(value=value if value is not None else REMOVED, actor=actor)
        condition = fence or steering_fence(what, name, expected_seq)
        write = Write(_NOBODY, codec.steering_subject(what, name), body, condition, headers)
        try:
            return await self._log.append(write)
        except QueueUnavailable as error:
            if "jobId" not in error.extensions:
                raise
            raise QueueUnavailable(_UNKNOWN.format(what, name)) from error

    async def change(
        self,
        what: str,
        name: str,
        decide: Callable[[SteeringMessage | None], Raw | SteeringMessage | None],
        *,
        actor: str | None = None,
    ) -> SteeringMessage | None:
        """Decide on the newest message and store what follows; decide again if another writer comes first.

        :param decide: returns the new value, None to remove it, or what it was given to leave everything as it is.
        :returns: the newest message afterwards, of one that was just stored with this machine's time; None if there is
            none.
        :raises QueueUnavailable: if the server does not answer, or others keep writing.
        :raises QueueFull: if the server has no room.
        """
        for _ in range(_TRIES):
            present = await self.read(what, name)
            value = decide(present)
            if isinstance(value, SteeringMessage) or (value is None and (present is None or present.value is None)):
                return present
            try:
                seq = await self.write(what, name, value, present.seq if present is not None else 0, actor=actor)
            except Superseded:
                continue
            # As in after_write: it is stored, and no further request should be able to fail.
            return SteeringMessage(what, name, seq, clock.now(), value, actor)
        raise QueueUnavailable(f"The {what} {name} keeps changing; nothing was changed. Try again.")


def as_value(value: msgspec.Struct | Mapping[str, object]) -> Raw:
    """Return a value as the JSON that is stored."""
    return Raw(msgspec.json.encode(value))
