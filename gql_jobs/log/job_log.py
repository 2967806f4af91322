"""The job log: fenced appends to a job's history, each with a nonce, and that history read from the leader.

A decision is made on the leader's messages and written with a fence, which fails if others have written since. This
module also translates the errors of ``jetstream`` into those of ``jobs.errors``: ``queue_errors`` and ``queue_error``.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import datetime
from itertools import count
from typing import NamedTuple

import msgspec

from gql_jobs import clock
from gql_jobs.jetstream.client import EXPECTED_SEQ_HEADER, EXPECTED_SUBJECT_HEADER, ROLLUP_HEADER, Outgoing, Publisher
from gql_jobs.jetstream.connection import Connection, open_publisher
from gql_jobs.jetstream.errors import (
    ApiError,
    FenceRefused,
    JetStreamError,
    PublicationError,
    PublicationRefused,
    StoreFull,
    Unacknowledged,
    Unavailable,
)
from gql_jobs.jetstream.stored_messages import (
    delete_message,
    deletion_body,
    deletion_call,
    is_already_deleted,
    last_message,
    messages_of,
)
from gql_jobs.jobs.errors import QueueFull, QueueUnavailable
from gql_jobs.jobs.fold import Event, events_of, fold
from gql_jobs.jobs.messages import Body, Edited, Kind, Message, Saved, Submission
from gql_jobs.jobs.model import Artifact, Job
from gql_jobs.log import codec
from gql_jobs.log.codec import JobMessage

log = logging.getLogger(__name__)

ACK_TIMEOUT = 2.0
"""Seconds to wait for one acknowledgement."""
WRITE_TIMEOUT = 3.5
"""Seconds that a client's write may take in all."""
RETRY_PAUSE = 0.1
"""Seconds between two tries of a write."""
DELETIONS_AT_ONCE = 500
"""Deletions sent before their answers are awaited; the server drops API calls when thousands of them wait."""
DELETIONS_TIMEOUT = 10.0
"""Seconds to wait for the answers to so many deletions."""
_UNREADABLE_STREAM = "The stream could not be read"


@contextmanager
def queue_errors(refusal: str | None = None) -> Iterator[None]:
    """Raise ``QueueUnavailable`` in place of ``Unavailable``, and of ``ApiError`` if ``refusal`` is given.

    :param refusal: the beginning of the message for an ``ApiError``; None lets that error pass.
    """
    try:
        yield
    except Unavailable as error:
        raise queue_error(error) from error
    except ApiError as error:
        if refusal is None:
            raise
        raise QueueUnavailable(f"{refusal}: {error.description}.") from error


def queue_error(error: JetStreamError) -> QueueUnavailable | QueueFull:
    """Return the error that the caller of a failed write gets: ``QueueFull`` if the store has no room."""
    if isinstance(error, StoreFull):
        return QueueFull(f"The store of the NATS server is full ({error}).")
    if isinstance(error, PublicationRefused):
        return QueueUnavailable(f"The stream refused the write: {error}.")
    return QueueUnavailable(str(error))


class History(NamedTuple):
    """The job that its messages make, the events that clients see, oldest first, and its files, sorted by name.

    ``is_newer``: whether messages of a newer release are among them, so that nothing may be decided on what is known.
    """

    job: Job | None
    events: list[Event]
    artifacts: list[Artifact]
    is_newer: bool = False


def read_history(history: list[JobMessage], job: Job | None = None) -> History:
    """Return what a job's messages, oldest first, make, as the index has it; unreadable ones are left out.

    :param job: what those before them have made.
    """
    events: list[Event] = []
    files: dict[str, Artifact] = {}
    is_newer = False
    expired_seq = 0
    for stored in history:
        try:
            message = stored.read()
        except codec.Unreadable as error:
            is_newer = is_newer or isinstance(error, codec.Newer)
            continue
        if message is None:
            continue
        if job is not None and isinstance(message.body, Saved):
            files[message.body.artifact.name] = message.body.artifact
        before, job = job, fold(job, message, expired_seq)
        if message.kind is Kind.EXPIRED:
            expired_seq = message.seq
        if before is not None and job is None:
            events, files = [], {}
        events += events_of(before, message, job)
    return History(job, events, [files[name] for name in sorted(files)], is_newer)


def folded(history: list[JobMessage]) -> Job | None:
    """Return the job that its messages, oldest first, make; unreadable ones are left out."""
    return read_history(history).job


def last_event_seq(history: Iterable[JobMessage]) -> int:
    """Return the sequence that a fence over the job's events expects; 0 if it has none."""
    return max((message.seq for message in history if message.is_event), default=0)


def decidable(job_id: str, history: list[JobMessage]) -> Job | None:
    """Return the job that its messages make.

    :raises QueueUnavailable: if some of them are of a newer release: what they say of the job is not known here.
    """
    job, _, _, is_newer = read_history(history)
    if is_newer:
        raise QueueUnavailable(f"Job {job_id} was written by a newer release than this process has; try again.")
    return job


def after_write(job: Job, kind: Kind, seq: int, body: Body) -> Job:
    """Return the job after a message that was just stored, which the index may not have applied yet."""
    return fold(job, Message(job.id, kind, seq, max(clock.now(), job.updated_at), body)) or job


class Fence(NamedTuple):
    """A write with it is stored only if ``seq`` is the last sequence of the subjects that ``over`` matches."""

    over: str
    seq: int

    @property
    def headers(self) -> dict[str, str]:
        """The headers of a message with this fence."""
        return {EXPECTED_SEQ_HEADER: str(self.seq), EXPECTED_SUBJECT_HEADER: self.over}


def whole_job(job_id: str, seq: int) -> Fence:
    """Return the fence that fails if the job has any message after ``seq``."""
    return Fence(codec.job_subjects(job_id), seq)


def job_events(job_id: str, seq: int) -> Fence:
    """Return the fence that fails if the job has an event after ``seq``."""
    return Fence(codec.event_subjects(job_id), seq)


class Superseded(Exception):
    """The fence has failed: nothing was stored. ``last``: the newest message of the fenced subjects, or None."""

    def __init__(self, last: JobMessage | None) -> None:
        super().__init__("superseded")
        self.last = last


class Contended(QueueUnavailable):
    """Others keep writing to the job: nothing was stored, although the server answers."""


class Write(NamedTuple):
    """A message to be appended; ``headers`` are those beside the fence's and the nonce."""

    job_id: str
    subject: str
    body: Body
    fence: Fence
    headers: Mapping[str, str] = {}


class JobLog:
    """Appends to and reads the stream of jobs. One instance per process."""

    def __init__(self, connection: Connection, publisher: Publisher) -> None:
        self.connection = connection
        self._publisher = publisher
        self._writer = secrets.token_hex(6)
        self._nonces = count()

    @property
    def max_payload(self) -> int:
        """Bytes of the largest message the server takes."""
        return self._publisher.max_payload

    def new_nonce(self) -> str:
        """Return an identifier that no other write of any process has.

        A counter behind a random prefix, because a random number for each write would take a system call.
        """
        return f"{self._writer}{next(self._nonces):x}"

    async def append(self, write: Write, *, timeout: float | None = WRITE_TIMEOUT) -> int:  # noqa: ASYNC109
        """Store one message and return its sequence.

        :param timeout: seconds; None tries until the server has answered, for as long as it takes.
        :raises Superseded: if the fence fails because of another writer's message.
        :raises QueueUnavailable: after ``timeout``; with ``job_id`` if the message may have been stored.
        :raises QueueFull: if the server has no room; never if ``timeout`` is None.
        :raises MessageTooLarge: if the server would refuse its size; also if ``timeout`` is None.
        """
        deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
        return await _Append(self, self._publisher, write, deadline).outcome()

    async def append_in_order(self, writes: list[Write]) -> list[int | BaseException]:
        """Store many messages, pipelined, in order; return for each its sequence or the error of ``append``."""
        deadline = asyncio.get_running_loop().time() + WRITE_TIMEOUT
        appends = [_Append(self, self._publisher, write, deadline) for write in writes]
        sent = await self._publisher.publish_all([append.message for append in appends], ACK_TIMEOUT)
        # A task each only for those that have to be tried again.
        again = [
            append.outcome_after(error)
            for append, error in zip(appends, sent, strict=True)
            if not isinstance(error, int)
        ]
        outcomes = iter(await asyncio.gather(*again, return_exceptions=True) if again else ())
        return [outcome if isinstance(outcome, int) else next(outcomes) for outcome in sent]

    async def rollup(self, subject: str, body: bytes, fence: Fence, marks: Mapping[str, str] | None = None) -> None:
        """Store a message that replaces the older ones of its subject. It is tried once.

        :param marks: further headers.
        :raises FenceRefused: if the fence fails.
        :raises QueueUnavailable: if it was not acknowledged.
        :raises MessageTooLarge: if the server would refuse its size.
        """
        headers = {ROLLUP_HEADER: "sub", **fence.headers, **(marks or {})}
        try:
            await self._publisher.publish(subject, body, headers, ACK_TIMEOUT)
        except FenceRefused:
            raise
        except PublicationError as error:
            raise QueueUnavailable(f"{subject} was not stored: {error}") from error
        except Unavailable as error:
            raise queue_error(error) from error

    async def delete(self, seqs: Sequence[int], *, erase: bool = False) -> None:
        """Remove messages, pipelined, in that order; one that does not exist any more is no error.

        :param erase: whether their bytes are overwritten where the server has stored them, which costs it a write each.
        :raises QueueUnavailable: if some may still be there.
        """
        call = deletion_call(codec.JOBS_STREAM)
        for start in range(0, len(seqs), DELETIONS_AT_ONCE):
            with queue_errors():
                sent = [
                    await self._publisher.send(
                        call, msgspec.json.encode(deletion_body(seq, erase=erase)), None, DELETIONS_TIMEOUT
                    )
                    for seq in seqs[start : start + DELETIONS_AT_ONCE]
                ]
            for answer in await asyncio.gather(*sent, return_exceptions=True):
                gone = isinstance(answer, PublicationRefused) and is_already_deleted(
                    answer.err_code, answer.description
                )
                if isinstance(answer, BaseException) and not gone:
                    raise QueueUnavailable(f"A message was not deleted: {answer}.") from answer

    async def delete_one(self, seq: int) -> None:
        """Remove a message; one that does not exist any more is no error.

        :raises ApiError: if the server refuses.
        :raises QueueUnavailable: if it does not answer.
        """
        with queue_errors():
            await delete_message(self.connection, codec.JOBS_STREAM, seq)

    async def history(
        self,
        job_id: str,
        first_seq: int = 1,
        charge: Callable[[], None] = lambda: None,
        *,
        since_edit: bool = False,
    ) -> list[JobMessage]:
        """Return every message of a job from ``first_seq`` on, oldest first.

        If ``first_seq`` is far before the job's first message, the server has to search for that.

        :param charge: called for each message, before the next one is read; what it raises ends the read.
        :param since_edit: leave out what was before the newest edit, if nothing has come after that but its submission:
            that makes the same job. One that is replaced again and again has a history as long as that.
        :raises QueueUnavailable: if the leader does not answer.
        """
        # Which is the last one the server knows by the subjects: to ask for one behind that would be another search.
        last = await self.last(codec.job_subjects(job_id))
        history: list[JobMessage] = []
        if last is None or last.seq < first_seq:
            return history
        if since_edit:
            first_seq = max(first_seq, _edited_at(last))
        subjects = codec.job_subjects(job_id)
        with queue_errors(_UNREADABLE_STREAM):
            async for message in messages_of(self.connection, codec.JOBS_STREAM, subjects, first_seq, last.seq):
                charge()
                history.append(JobMessage.of(message))
        return history

    async def server_time(self) -> datetime:
        """Return the present time by the clock of the server, which decides what is due.

        :raises QueueUnavailable: if the leader does not answer.
        """
        with queue_errors(_UNREADABLE_STREAM):
            answer = await self.connection.api(f"STREAM.INFO.{codec.JOBS_STREAM}")
        # Servers before 2.10 do not tell.
        told = msgspec.json.decode(answer, type=_Told).ts
        return clock.told_by_server(told) if told is not None else clock.now()

    async def last(self, subject_filter: str) -> JobMessage | None:
        """Return the newest message that matches, as the leader has it.

        :raises QueueUnavailable: if the leader does not answer.
        """
        with queue_errors(_UNREADABLE_STREAM):
            stored = await last_message(self.connection, codec.JOBS_STREAM, subject_filter)
        return JobMessage.of(stored) if stored is not None else None


def _edited_at(last: JobMessage) -> int:
    """Return the sequence of the edit that a job's last message is, or is the submission of; 0 if it is neither."""
    try:
        message = last.read()
    except codec.Unreadable:
        return 0
    body = message.body if message is not None else None
    if isinstance(body, Edited):
        # One that changes nothing takes a release back: how often the job was tried stands before it.
        return last.seq if body.changed else 0
    return body.event_seq if isinstance(body, Submission) and body.after_edit else 0


class _Told(msgspec.Struct):
    """What the server says of a stream: when it said so."""

    ts: datetime | None = None


class _Append:
    """One write until its outcome is known.

    :param deadline: the time of the event loop at which it is over; None for never.
    """

    __slots__ = ("_deadline", "_failure", "_in_doubt", "_log", "_nonce", "_publisher", "_sent", "_write", "message")

    def __init__(self, job_log: JobLog, publisher: Publisher, write: Write, deadline: float | None) -> None:
        self._log = job_log
        self._publisher = publisher
        self._write = write
        self._nonce = job_log.new_nonce()
        headers = {**write.headers, codec.NONCE_HEADER: self._nonce, **write.fence.headers}
        self.message = Outgoing(write.subject, codec.encode_body(write.body), headers)
        self._deadline = deadline
        self._in_doubt = False
        self._sent: asyncio.Future[int] | None = None
        self._failure: Exception | None = None

    async def outcome_after(self, error: JetStreamError) -> int:
        """Return what ``outcome`` does, if the message has been sent once already, and failed with that error."""
        log.debug("not stored at once on %s: %s", self.message.subject, error)
        self._sent = asyncio.get_running_loop().create_future()
        self._sent.set_exception(error)
        return await self.outcome()

    async def outcome(self) -> int:
        """Try until the outcome is known or the time is over; return the sequence or raise as ``JobLog.append``."""
        if self._deadline is None:
            return await self._retry()
        try:
            async with asyncio.timeout_at(self._deadline):
                return await self._retry()
        except TimeoutError:
            raise (self._unknown_outcome() if self._in_doubt else self._failure or _not_stored()) from None

    async def _retry(self) -> int:
        while True:
            try:
                return await self._try()
            except (QueueUnavailable, QueueFull) as error:
                if isinstance(error, QueueFull) and self._deadline is not None and not self._in_doubt:
                    raise
                self._failure = error
            if self._log.connection.closed:
                raise self._unknown_outcome() if self._in_doubt else self._failure
            await asyncio.sleep(RETRY_PAUSE)
            # Hundreds of writes may wait for the server: none is tried while there is no connection.
            while not self._log.connection.connected:  # noqa: ASYNC110 - the client has no event for it
                await asyncio.sleep(RETRY_PAUSE)

    async def _try(self) -> int:
        sent, self._sent = self._sent or await self._send(), None
        was_in_doubt, self._in_doubt = self._in_doubt, True
        try:
            return await sent
        except FenceRefused:
            self._in_doubt = was_in_doubt
        except Unacknowledged:
            log.debug("no acknowledgement of %s", self._write.subject)
        except (Unavailable, PublicationRefused, StoreFull) as error:
            self._in_doubt = was_in_doubt
            raise queue_error(error) from error
        return await self._stored()

    async def _send(self) -> asyncio.Future[int]:
        try:
            subject, data, headers, _ = self.message
            return await self._publisher.send(subject, data, headers, ACK_TIMEOUT)
        except Unavailable as error:
            raise queue_error(error) from error

    async def _stored(self) -> int:
        """Return the sequence of this write if the leader has it, by its nonce.

        :raises Superseded: if it has not, and the fence fails.
        :raises QueueUnavailable: if it has not, and the write may be tried again.
        """
        own = await self._log.last(self._write.subject)
        last = await self._log.last(self._write.fence.over)
        for message in (own, last):
            if message is not None and message.nonce == self._nonce:
                return message.seq
        if (last.seq if last is not None else 0) != self._write.fence.seq:
            raise Superseded(last)
        raise QueueUnavailable("The stream has no settled leader.")

    def _unknown_outcome(self) -> QueueUnavailable:
        return QueueUnavailable(
            f"NATS did not acknowledge the write for job {self._write.job_id} in time: whether it was stored is "
            "unknown. Look the job up before trying again.",
            self._write.job_id,
        )


def _not_stored() -> QueueUnavailable:
    return QueueUnavailable("NATS did not answer in time; nothing was stored.")


@asynccontextmanager
async def open_job_log(connection: Connection) -> AsyncIterator[JobLog]:
    """Yield the log over a connection, until the block ends.

    :raises QueueUnavailable: if the server is away.
    """
    async with AsyncExitStack() as stack:
        with queue_errors():
            publisher = await stack.enter_async_context(open_publisher(connection))
        yield JobLog(connection, publisher)
