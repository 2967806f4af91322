"""The transport ``nats://``: creations are written into the log itself, and what becomes of jobs is read from it.

No API process is needed once the streams are there, and none answers: a creation is one durable write, decided by the
same commands, with the same ids, keys and limits. Whoever may connect like that is trusted like an operator: tenants,
scopes and limits are not for it (docs/security.md).
"""

import asyncio
import logging
import tempfile
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from hashlib import sha256
from io import BufferedIOBase
from typing import cast

from msgspec.structs import replace
from pydantic import ValidationError

from gql_jobs.client.creation import key_for, request_of_creation
from gql_jobs.client.editing import changes_of, refused_edit
from gql_jobs.client.errors import BadRequest, ClientError, DamagedArtifact, InvalidState, NotFound, PartlyCreated
from gql_jobs.client.job_follower import FollowedJob, JobFollower, JobWatch
from gql_jobs.client.nats_connection import CLOSED, PAUSE, NatsConnection, NatsSession, client_error, may_be_stored
from gql_jobs.client.nats_schedules import NatsSchedules
from gql_jobs.client.snapshots import artifact_info, brief_snapshot, client_event, shown_payload, snapshot_of
from gql_jobs.client.transport import ArtifactInfo, CreatedJob, Creation, Edit, JobEvent, JobPage, JobSnapshot
from gql_jobs.jobs import errors as job_errors
from gql_jobs.jobs.errors import (
    ErrorCode,
    GqlJobsError,
    InvalidArgument,
    QueueUnavailable,
    no_such_job,
    no_such_queue,
)
from gql_jobs.jobs.fold import Event
from gql_jobs.jobs.limits import Limits
from gql_jobs.jobs.model import Artifact, Cursor, Job, JobStatus, parse_job_id
from gql_jobs.jobs.pause import Pause
from gql_jobs.jobs.payload_codec import CodecFailure, StoredPayloads, load_codec
from gql_jobs.jobs.registry import is_queue_name, load_job_types
from gql_jobs.jobs.requests import MAX_AFTER, InvalidRequest, JobFilter, JobRequest
from gql_jobs.log.commands import Created
from gql_jobs.log.paused_consumers import has_queue
from gql_jobs.log.streams import stream_info
from gql_jobs.settings import Settings, setting_problems

log = logging.getLogger(__name__)

PATIENCE = 30.0
"""Seconds for which what passes by itself is tried again."""
_LOOKUPS_AT_ONCE = 20
"""Jobs that are looked up at once."""
_VALIDATION_TURN = 0.01
"""Seconds of validating payloads after which other tasks run."""
_IN_MEMORY = 4 << 20
"""Bytes of a file up to which it is kept in memory until it is whole."""
_CHUNK = 128 << 10
"""Bytes of a file that are handed out at once."""


def nats_settings(address: str) -> Settings:
    """Return the settings of this environment with another server; user, TLS and codec are those of the API's settings.

    :param address: ``nats://…`` or ``tls://…``, or several with commas in between.
    :raises ValueError: naming what is wrong with them.
    """
    try:
        return Settings(nats_url=address)
    except ValidationError as error:
        raise ValueError(" ".join(setting_problems(error))) from None


class NatsTransport:
    """A client that writes into the log, and reads from it, over one connection. It opens that at its first use.

    The streams have to be there: API processes make them, and this neither makes nor changes any.
    """

    largest_batch = 1000
    largest_batch_bytes = 16 << 20

    def __init__(self, settings: Settings, *, patience: float = PATIENCE, stored: StoredPayloads | None = None) -> None:
        """Use these settings, once something is asked for.

        :param settings: those of API processes: their server, codec, defaults and limits of the store count here too.
        :param patience: seconds for which what passes by itself is tried again.
        :param stored: how payloads are stored; by default as the settings say.
        :raises ImportError: | ValueError: if the codec that they name cannot be had.
        """
        self._patience = patience
        self._stored = stored or load_codec(settings.codec)
        self._nats = NatsConnection(settings, self._stored, patience)
        self.schedules = NatsSchedules(self._nats, self._stored)

    async def create(self, creations: Sequence[Creation]) -> list[CreatedJob]:
        """Store jobs in this order: all inputs are checked before anything is stored, then they are written pipelined.

        What was not stored, because NATS did not answer, is written again for as long as patience has it. So is
        what may have been: its key, the caller's or one that is drawn for it, keeps it from being stored twice.
        """
        session = await self._nats.session()
        await self._check_named(session, creations)
        requests = await _requests(creations)
        outcomes = await self._stored_outcomes(session, requests)
        created = [
            CreatedJob(outcome.id, outcome.deduplicated and creation.has_key) if isinstance(outcome, Created) else None
            for creation, outcome in zip(creations, outcomes, strict=True)
        ]
        stored = [job for job in created if job is not None]
        if len(stored) == len(created):
            return stored
        place, first = next((at, one) for at, one in enumerate(outcomes) if not isinstance(one, Created))
        error = client_error(first, place if len(creations) > 1 else None)
        uncertain = [at for at, one in enumerate(outcomes) if may_be_stored(one)]
        if len(creations) == 1 or not (stored or uncertain):
            raise error from first
        said = f"{len(stored)} of {len(created)} jobs were stored. The first that was not: {error.message}"
        raise PartlyCreated(said, created, uncertain) from error

    async def _stored_outcomes(self, session: NatsSession, requests: list[JobRequest]) -> list[Created | BaseException]:
        """Return what became of each request, once all are stored, refused, or given up."""
        deadline = time.monotonic() + self._patience
        try:
            outcomes = await self._once(session, requests)
        except (GqlJobsError, CodecFailure) as error:
            raise client_error(error) from error
        while left := [at for at, one in enumerate(outcomes) if isinstance(one, QueueUnavailable)]:
            if time.monotonic() + PAUSE > deadline or self._nats.is_closed:
                break
            await asyncio.sleep(PAUSE)
            again = [requests[at] for at in left]
            made: Sequence[Created | BaseException]
            try:
                made = await self._once(session, again)
            except (GqlJobsError, CodecFailure) as error:
                made = [error] * len(left)
            for at, outcome in zip(left, made, strict=True):
                outcomes[at] = outcome
        return outcomes

    async def _once(self, session: NatsSession, requests: list[JobRequest]) -> list[Created | BaseException]:
        """Return what became of each request at one try.

        :raises GqlJobsError: | CodecFailure: for what is found before anything is stored, but that NATS did not answer.
        """
        try:
            await self._nats.know_hash_key(is_confidential=any(request.is_secret for request in requests))
            return await session.commands.create_each(requests)
        except QueueUnavailable as error:
            return [error for _ in requests]

    async def _check_named(self, session: NatsSession, creations: Sequence[Creation]) -> None:
        known: set[str] = set()
        for place, creation in enumerate(creations):
            named = {"origin": creation.origin} if creation.origin is not None else {}
            named |= {f"after.{number}": job_id for number, job_id in enumerate(creation.after[: MAX_AFTER + 1])}
            unknown = [(field, job_id) for field, job_id in named.items() if job_id not in known]
            for start in range(0, len(unknown), _LOOKUPS_AT_ONCE):
                some = unknown[start : start + _LOOKUPS_AT_ONCE]
                found = await asyncio.gather(*(self._is_there(session, job_id) for _, job_id in some))
                for (field, job_id), is_there in zip(some, found, strict=True):
                    if not is_there:
                        raise client_error(InvalidArgument(field, no_such_job(job_id)), place)
                    known.add(job_id)

    async def _is_there(self, session: NatsSession, named: str) -> bool:
        job_id = parse_job_id(named)
        return job_id is not None and await self._nats.patiently(partial(session.commands.find, job_id)) is not None

    # One job.

    async def find(self, job_id: str) -> JobSnapshot | None:
        """Return the job as the leader has it; None if there is none."""
        known = parse_job_id(job_id)
        if known is None:
            return None
        session = await self._nats.session()
        job = await self._nats.patiently(lambda: session.commands.find(known))
        return self._snapshot(job) if job is not None else None

    async def cancel(self, job_id: str) -> JobSnapshot:
        """Cancel a job that has not ended, and return it."""
        session, known = await self._nats.session(), _known(job_id)
        doubts: list[QueueUnavailable] = []
        try:
            return brief_snapshot(await self._nats.patiently(lambda: session.commands.cancel(known), doubts))
        except InvalidState:
            # A try that was not acknowledged may have cancelled it.
            if doubts and (job := await self.find(known)) is not None and job.status is JobStatus.CANCELLED:
                return job
            raise

    async def update(self, job_id: str, changes: Edit) -> JobSnapshot:
        """Change a job that has not started; again after a lost answer, which changes nothing more."""
        session, known = await self._nats.session(), _known(job_id)
        with _refused_edits():
            wanted = changes_of(changes)
            return brief_snapshot(await self._nats.patiently(lambda: session.commands.update(known, wanted), []))

    async def retry(self, job_id: str, payload: Creation | None = None) -> JobSnapshot:
        """Run a dead letter or a cancelled job again, and return it."""
        session, known = await self._nats.session(), _known(job_id)
        with _refused_edits():
            wanted = changes_of(Edit(payload=payload))
            return brief_snapshot(await self._nats.patiently(lambda: session.commands.retry(known, payload=wanted)))

    async def delete(self, job_id: str) -> bool:
        """Delete a job that does not run; again after a try that was not acknowledged, which may have deleted it."""
        session, known = await self._nats.session(), _known(job_id)
        doubts: list[QueueUnavailable] = []
        outcome = await self._nats.patiently(lambda: session.deletions.delete(known), doubts)
        return outcome.deleted or bool(doubts)

    async def pause_queue(self, queue: str, reason: str | None, until: datetime | None) -> Pause:
        """Pause a queue, and return its pause; again after a lost answer, which changes nothing more."""
        session = await self._nats.session()
        await self._check_queue(session, queue)
        pause, _ = await self._nats.patiently(lambda: session.pauses.pause(queue, reason, until), [])
        return pause

    async def resume_queue(self, queue: str) -> None:
        """End the pause of a queue; again after a lost answer, which changes nothing more."""
        session = await self._nats.session()
        await self._check_queue(session, queue)
        await self._nats.patiently(lambda: session.pauses.resume(queue), [])

    async def set_queue_limits(self, queue: str, limits: Limits) -> None:
        """Limit a queue; again after a lost answer, which changes nothing more."""
        session = await self._nats.session()
        await self._check_queue(session, queue)
        await self._nats.patiently(lambda: session.commands.set_queue_limits(queue, limits), [])

    async def _check_queue(self, session: NatsSession, queue: str) -> None:
        """Look whether there is such a queue: a type of this process has it, or a job was submitted to it, or a pause.

        :raises InvalidArgument: if not.
        """
        if queue in load_job_types().queues:
            return
        if not is_queue_name(queue) or not await self._nats.patiently(lambda: has_queue(session.job_log, queue)):
            raise client_error(InvalidArgument("name", no_such_queue(queue, load_job_types().queues)))

    async def ended(self, job_id: str) -> JobSnapshot:
        """Wait until the job has ended; all who wait share one consumer of the stream."""
        session, known = await self._nats.session(), _known(job_id)
        with session.ends.watch(known) as watch:
            followed = await self._followed(session, session.ends, known)
            while not _present(followed.job, known).status.is_terminal:
                await self._read_on(session, watch, followed)
            return self._snapshot(_present(followed.job, known))

    async def events(self, job_id: str, after: str | None) -> AsyncGenerator[JobEvent, None]:
        """Yield the job's latest event and all later ones, or those behind a cursor; ends after the terminal event."""
        session, known = await self._nats.session(), _known(job_id)
        cursor = _cursor(after) if after is not None else None
        with session.moves.watch(known) as watch:
            followed = await self._followed(session, session.moves, known)
            events = followed.events
            if cursor is None:
                events = events[-1:]
            else:
                await self._check_cursor(session, cursor, followed)
                events = [event for event in events if event.cursor > cursor]
            while True:
                for event in events:
                    yield client_event(event)
                if _present(followed.job, known).status.is_terminal:
                    return
                events = await self._read_on(session, watch, followed)

    async def _followed(self, session: NatsSession, follower: JobFollower, job_id: str) -> FollowedJob:
        """Return the job with all that is stored of it now; whatever comes behind that wakes its watch.

        :raises NotFound: if there is no such job.
        """
        await self._nats.patiently(follower.begin)
        followed = FollowedJob(session.job_log, job_id)
        await self._nats.patiently(followed.read_on)
        _present(followed.job, job_id)
        return followed

    async def _read_on(self, session: NatsSession, watch: JobWatch, followed: FollowedJob) -> list[Event]:
        """Wait until the job has moved and return its new events, once the server answers."""
        if await watch.moved():
            followed.forget()
        while True:
            try:
                return await followed.read_on()
            except QueueUnavailable as error:
                if session.connection.closed:
                    raise RuntimeError(CLOSED) from None
                log.debug("what is new of a job cannot be read yet: %s", error)
                await asyncio.sleep(PAUSE)

    async def _check_cursor(self, session: NatsSession, cursor: Cursor, followed: FollowedJob) -> None:
        if cursor.seq <= followed.position:
            return
        last = (await self._nats.patiently(lambda: stream_info(session.connection))).state.last_seq
        if cursor.seq > last:
            raise client_error(InvalidArgument("after", "The cursor is ahead of every event there is."))

    def _snapshot(self, job: Job) -> JobSnapshot:
        try:
            payload = self._stored.payload(job.id, job.spec)
            result = self._stored.result(job)
        except CodecFailure as error:
            raise client_error(error) from error
        return snapshot_of(job, shown_payload(job.spec, payload), bytes(result) if result is not None else None)

    # Its files.

    async def artifacts(self, job_id: str) -> list[ArtifactInfo]:
        """Return the files that are complete, by name."""
        session, known = await self._nats.session(), _known(job_id)
        history = await self._nats.patiently(lambda: session.commands.history(known, lambda: None))
        _present(history.job, known)
        return [artifact_info(saved) for saved in history.artifacts]

    async def artifact(self, job_id: str, name: str) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of a file, once all of them are here and their digest is checked."""
        session, known = await self._nats.session(), _known(job_id)
        found = await self._nats.patiently(lambda: session.artifacts.find(known, name))
        if found is None:
            raise _no_file(known, name)
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as file:
            await self._fetch(session, found, known, cast("BufferedIOBase", file))
            file.seek(0)
            while chunk := await asyncio.to_thread(file.read, _CHUNK):
                yield chunk

    async def _fetch(self, session: NatsSession, artifact: Artifact, job_id: str, file: BufferedIOBase) -> None:
        async def read() -> None:
            file.seek(0)
            file.truncate()
            await session.artifacts.read(artifact, file)

        try:
            await self._nats.patiently(read)
        except KeyError:
            raise _no_file(job_id, artifact.name) from None
        file.seek(0)
        if await asyncio.to_thread(_digest, file) != artifact.sha256:
            raise DamagedArtifact(f"The bytes of the file {artifact.name!r} are not those that were saved.")

    # What there is no way to.

    async def jobs(self, wanted: JobFilter, first: int, after: str | None) -> JobPage:  # noqa: ARG002
        """Refuse: lists are made from the index of an API process.

        :raises BadRequest: always.
        """
        raise BadRequest(
            "Lists of jobs come from the index of an API process: ask for them with a client of its address, http://…"
        )

    async def close(self) -> None:
        """Close the connection, and end what waits with ``RuntimeError``."""
        await self._nats.close()


# Creations as requests.


async def _requests(creations: Sequence[Creation]) -> list[JobRequest]:
    """Return the requests of creations, and let other tasks run in between.

    :raises ClientError: for the first that is outside its limits.
    """
    requests = []
    pause_at = time.monotonic() + _VALIDATION_TURN
    for place, creation in enumerate(creations):
        try:
            requests.append(request_of_creation(replace(creation, key=key_for(creation))))
        except GqlJobsError as error:
            raise client_error(error, place) from None
        if time.monotonic() > pause_at:
            await asyncio.sleep(0)
            pause_at = time.monotonic() + _VALIDATION_TURN
    return requests


# Refusals.


@contextmanager
def _refused_edits() -> Iterator[None]:
    """Raise what is wrong with an edit as a client gets it."""
    try:
        yield
    except InvalidRequest as invalid:
        raise client_error(refused_edit(invalid)) from None
    except (GqlJobsError, CodecFailure) as error:
        raise client_error(error) from error


def _not_found(job_id: str) -> ClientError:
    return client_error(job_errors.NotFound(job_id))


def _known(job_id: str) -> str:
    known = parse_job_id(job_id)
    if known is None:
        raise _not_found(job_id)
    return known


def _present(job: Job | None, job_id: str) -> Job:
    if job is None:
        raise _not_found(job_id)
    return job


def _no_file(job_id: str, name: str) -> NotFound:
    extensions = {"code": ErrorCode.NOT_FOUND.value, "jobId": job_id}
    return NotFound(f"The job {job_id} has no file {name!r}.", extensions)


def _cursor(text: str) -> Cursor:
    try:
        return Cursor.parse(text)
    except ValueError as error:
        raise client_error(InvalidArgument("after", str(error))) from None


def _digest(file: BufferedIOBase) -> str:
    digest = sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()
