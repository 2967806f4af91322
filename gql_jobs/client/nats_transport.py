"""The transport ``nats://``: creations are written into the log itself, and what becomes of jobs is read from it.

No API process is needed once the streams are there, and none answers: a creation is one durable write, decided by the
same commands, with the same ids, keys and limits. Whoever may connect like that is trusted like an operator: tenants,
scopes and limits are not for it (docs/security.md).
"""

import asyncio
import logging
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from datetime import datetime
from functools import partial
from hashlib import sha256
from io import BufferedIOBase
from typing import TypeVar, cast

from msgspec import Struct
from msgspec.structs import replace
from pydantic import ValidationError

from gql_jobs.access.store import known_hash_key
from gql_jobs.client.creation import key_for, request_of_creation
from gql_jobs.client.editing import changes_of, refused_edit
from gql_jobs.client.errors import (
    BadRequest,
    ClientError,
    DamagedArtifact,
    InternalError,
    InvalidState,
    NotFound,
    PartlyCreated,
    Unreachable,
    refusal,
)
from gql_jobs.client.job_follower import FollowedJob, JobFollower, JobWatch
from gql_jobs.client.snapshots import artifact_info, brief_snapshot, client_event, shown_payload, snapshot_of
from gql_jobs.client.transport import ArtifactInfo, CreatedJob, Creation, Edit, JobEvent, JobPage, JobSnapshot
from gql_jobs.jetstream.connection import Connection, connect
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
from gql_jobs.jobs.messages import Kind
from gql_jobs.jobs.model import Artifact, Cursor, Job, JobStatus, parse_job_id
from gql_jobs.jobs.pause import Pause
from gql_jobs.jobs.payload_codec import CodecFailure, StoredPayloads, load_codec
from gql_jobs.jobs.registry import is_queue_name, load_job_types
from gql_jobs.jobs.requests import MAX_AFTER, InvalidRequest, JobFilter, JobRequest
from gql_jobs.log import codec
from gql_jobs.log.artifacts import ArtifactStore
from gql_jobs.log.commands import Created, JobCommands
from gql_jobs.log.deletion import JobDeletions
from gql_jobs.log.job_log import JobLog, open_job_log
from gql_jobs.log.paused_consumers import PauseCommands, has_queue
from gql_jobs.log.streams import UnsuitableServer, look_for_streams, stream_info
from gql_jobs.processes.event_loop import in_background
from gql_jobs.settings import Settings, setting_problems

log = logging.getLogger(__name__)
_T = TypeVar("_T")

PATIENCE = 30.0
"""Seconds for which what passes by itself is tried again."""
PAUSE = 0.25
"""Seconds between two tries."""
_LOOKUPS_AT_ONCE = 20
"""Jobs that are looked up at once."""
_VALIDATION_TURN = 0.01
"""Seconds of validating payloads after which other tasks run."""
_IN_MEMORY = 4 << 20
"""Bytes of a file up to which it is kept in memory until it is whole."""
_CHUNK = 128 << 10
"""Bytes of a file that are handed out at once."""
_ENDS = frozenset({Kind.COMPLETED, Kind.DEAD_LETTER, Kind.CANCELLED, Kind.EXPIRED})
_CLOSED = "The client was closed."


def nats_settings(address: str) -> Settings:
    """Return the settings of this environment with another server; user, TLS and codec are those of the API's settings.

    :param address: ``nats://…`` or ``tls://…``, or several with commas in between.
    :raises ValueError: naming what is wrong with them.
    """
    try:
        return Settings(nats_url=address)
    except ValidationError as error:
        raise ValueError(" ".join(setting_problems(error))) from None


class _Session(Struct):
    """What is open while the client is connected."""

    connection: Connection
    job_log: JobLog
    commands: JobCommands
    deletions: JobDeletions
    pauses: PauseCommands
    artifacts: ArtifactStore
    ends: JobFollower
    """Wakes those who wait for the end of a job."""
    moves: JobFollower
    """Wakes those who want to know all that happens to a job."""


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
        self._settings = settings
        self._patience = patience
        self._stored = stored or load_codec(settings.codec)
        self._runner: asyncio.Task[None] | None = None
        self._opened: asyncio.Future[_Session] | None = None
        self._is_closed = False
        self._trouble = "NATS did not answer."

    async def create(self, creations: Sequence[Creation]) -> list[CreatedJob]:
        """Store jobs in this order: all inputs are checked before anything is stored, then they are written pipelined.

        What was not stored, because NATS did not answer, is written again for as long as patience has it. So is
        what may have been: its key, the caller's or one that is drawn for it, keeps it from being stored twice.
        """
        session = await self._session()
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
        error = _client_error(first, place if len(creations) > 1 else None)
        uncertain = [at for at, one in enumerate(outcomes) if _is_uncertain(one)]
        if len(creations) == 1 or not (stored or uncertain):
            raise error from first
        said = f"{len(stored)} of {len(created)} jobs were stored. The first that was not: {error.message}"
        raise PartlyCreated(said, created, uncertain) from error

    async def _stored_outcomes(self, session: _Session, requests: list[JobRequest]) -> list[Created | BaseException]:
        """Return what became of each request, once all are stored, refused, or given up."""
        deadline = time.monotonic() + self._patience
        try:
            outcomes = await self._once(session, requests)
        except (GqlJobsError, CodecFailure) as error:
            raise _client_error(error) from error
        while left := [at for at, one in enumerate(outcomes) if isinstance(one, QueueUnavailable)]:
            if time.monotonic() + PAUSE > deadline or self._is_closed:
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

    async def _once(self, session: _Session, requests: list[JobRequest]) -> list[Created | BaseException]:
        """Return what became of each request at one try.

        :raises GqlJobsError: | CodecFailure: for what is found before anything is stored, but that NATS did not answer.
        """
        try:
            await self._know_hash_key(session, requests)
            return await session.commands.create_each(requests)
        except QueueUnavailable as error:
            return [error for _ in requests]

    async def _know_hash_key(self, session: _Session, requests: list[JobRequest]) -> None:
        """Have the key that all API processes hash confidential payloads with, if some of these are confidential.

        :raises QueueUnavailable: if it cannot be had.
        """
        stored = self._stored
        if stored.hash_key is not None or not (stored.encodes or any(request.is_secret for request in requests)):
            return
        stored.hash_key = await known_hash_key(session.connection)
        if stored.hash_key is None:
            raise QueueUnavailable(
                "The key that confidential payloads are hashed with is not there yet: it is made by API processes, so "
                "one of these has to be started first."
            )

    async def _check_named(self, session: _Session, creations: Sequence[Creation]) -> None:
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
                        raise _client_error(InvalidArgument(field, no_such_job(job_id)), place)
                    known.add(job_id)

    async def _is_there(self, session: _Session, named: str) -> bool:
        job_id = parse_job_id(named)
        return job_id is not None and await self._patiently(partial(session.commands.find, job_id)) is not None

    # One job.

    async def find(self, job_id: str) -> JobSnapshot | None:
        """Return the job as the leader has it; None if there is none."""
        known = parse_job_id(job_id)
        if known is None:
            return None
        session = await self._session()
        job = await self._patiently(lambda: session.commands.find(known))
        return self._snapshot(job) if job is not None else None

    async def cancel(self, job_id: str) -> JobSnapshot:
        """Cancel a job that has not ended, and return it."""
        session, known = await self._session(), _known(job_id)
        doubts: list[QueueUnavailable] = []
        try:
            return brief_snapshot(await self._patiently(lambda: session.commands.cancel(known), doubts))
        except InvalidState:
            # A try that was not acknowledged may have cancelled it.
            if doubts and (job := await self.find(known)) is not None and job.status is JobStatus.CANCELLED:
                return job
            raise

    async def update(self, job_id: str, changes: Edit) -> JobSnapshot:
        """Change a job that has not started; again after a lost answer, which changes nothing more."""
        session, known = await self._session(), _known(job_id)
        with _refused_edits():
            wanted = changes_of(changes)
            return brief_snapshot(await self._patiently(lambda: session.commands.update(known, wanted), []))

    async def retry(self, job_id: str, payload: Creation | None = None) -> JobSnapshot:
        """Run a dead letter or a cancelled job again, and return it."""
        session, known = await self._session(), _known(job_id)
        with _refused_edits():
            wanted = changes_of(Edit(payload=payload))
            return brief_snapshot(await self._patiently(lambda: session.commands.retry(known, payload=wanted)))

    async def delete(self, job_id: str) -> bool:
        """Delete a job that does not run; again after a try that was not acknowledged, which may have deleted it."""
        session, known = await self._session(), _known(job_id)
        doubts: list[QueueUnavailable] = []
        outcome = await self._patiently(lambda: session.deletions.delete(known), doubts)
        return outcome.deleted or bool(doubts)

    async def pause_queue(self, queue: str, reason: str | None, until: datetime | None) -> Pause:
        """Pause a queue, and return its pause; again after a lost answer, which changes nothing more."""
        session = await self._session()
        await self._check_queue(session, queue)
        pause, _ = await self._patiently(lambda: session.pauses.pause(queue, reason, until), [])
        return pause

    async def resume_queue(self, queue: str) -> None:
        """End the pause of a queue; again after a lost answer, which changes nothing more."""
        session = await self._session()
        await self._check_queue(session, queue)
        await self._patiently(lambda: session.pauses.resume(queue), [])

    async def set_queue_limits(self, queue: str, limits: Limits) -> None:
        """Limit a queue; again after a lost answer, which changes nothing more."""
        session = await self._session()
        await self._check_queue(session, queue)
        await self._patiently(lambda: session.commands.set_queue_limits(queue, limits), [])

    async def _check_queue(self, session: _Session, queue: str) -> None:
        """Look whether there is such a queue: a type of this process has it, or a job was submitted to it, or a pause.

        :raises InvalidArgument: if not.
        """
        if queue in load_job_types().queues:
            return
        if not is_queue_name(queue) or not await self._patiently(lambda: has_queue(session.job_log, queue)):
            raise _client_error(InvalidArgument("name", no_such_queue(queue, load_job_types().queues)))

    async def ended(self, job_id: str) -> JobSnapshot:
        """Wait until the job has ended; all who wait share one consumer of the stream."""
        session, known = await self._session(), _known(job_id)
        with session.ends.watch(known) as watch:
            followed = await self._followed(session, session.ends, known)
            while not _present(followed.job, known).status.is_terminal:
                await self._read_on(session, watch, followed)
            return self._snapshot(_present(followed.job, known))

    async def events(self, job_id: str, after: str | None) -> AsyncGenerator[JobEvent, None]:
        """Yield the job's latest event and all later ones, or those behind a cursor; ends after the terminal event."""
        session, known = await self._session(), _known(job_id)
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

    async def _followed(self, session: _Session, follower: JobFollower, job_id: str) -> FollowedJob:
        """Return the job with all that is stored of it now; whatever comes behind that wakes its watch.

        :raises NotFound: if there is no such job.
        """
        await self._patiently(follower.begin)
        followed = FollowedJob(session.job_log, job_id)
        await self._patiently(followed.read_on)
        _present(followed.job, job_id)
        return followed

    async def _read_on(self, session: _Session, watch: JobWatch, followed: FollowedJob) -> list[Event]:
        """Wait until the job has moved and return its new events, once the server answers."""
        if await watch.moved():
            followed.forget()
        while True:
            try:
                return await followed.read_on()
            except QueueUnavailable as error:
                if session.connection.closed:
                    raise RuntimeError(_CLOSED) from None
                log.debug("what is new of a job cannot be read yet: %s", error)
                await asyncio.sleep(PAUSE)

    async def _check_cursor(self, session: _Session, cursor: Cursor, followed: FollowedJob) -> None:
        if cursor.seq <= followed.position:
            return
        last = (await self._patiently(lambda: stream_info(session.connection))).state.last_seq
        if cursor.seq > last:
            raise _client_error(InvalidArgument("after", "The cursor is ahead of every event there is."))

    def _snapshot(self, job: Job) -> JobSnapshot:
        try:
            payload = self._stored.payload(job.id, job.spec)
            result = self._stored.result(job)
        except CodecFailure as error:
            raise _client_error(error) from error
        return snapshot_of(job, shown_payload(job.spec, payload), bytes(result) if result is not None else None)

    # Its files.

    async def artifacts(self, job_id: str) -> list[ArtifactInfo]:
        """Return the files that are complete, by name."""
        session, known = await self._session(), _known(job_id)
        history = await self._patiently(lambda: session.commands.history(known, lambda: None))
        _present(history.job, known)
        return [artifact_info(saved) for saved in history.artifacts]

    async def artifact(self, job_id: str, name: str) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of a file, once all of them are here and their digest is checked."""
        session, known = await self._session(), _known(job_id)
        found = await self._patiently(lambda: session.artifacts.find(known, name))
        if found is None:
            raise _no_file(known, name)
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as file:
            await self._fetch(session, found, known, cast("BufferedIOBase", file))
            file.seek(0)
            while chunk := await asyncio.to_thread(file.read, _CHUNK):
                yield chunk

    async def _fetch(self, session: _Session, artifact: Artifact, job_id: str, file: BufferedIOBase) -> None:
        async def read() -> None:
            file.seek(0)
            file.truncate()
            await session.artifacts.read(artifact, file)

        try:
            await self._patiently(read)
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

    # The connection.

    async def close(self) -> None:
        """Close the connection, and end what waits with ``RuntimeError``."""
        self._is_closed = True
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.cancel()
            await asyncio.wait({runner})

    async def _session(self) -> _Session:
        """Return what is open, opened now if it is not.

        :raises Unreachable: if that takes longer than patience has it.
        """
        if self._is_closed:
            raise RuntimeError(_CLOSED)
        if self._runner is None or self._runner.done():
            self._opened = asyncio.get_running_loop().create_future()
            self._runner = asyncio.create_task(self._run(self._opened))
        assert self._opened is not None
        if self._opened.done():
            return self._opened.result()
        try:
            async with asyncio.timeout(self._patience):
                return await asyncio.shield(self._opened)
        except TimeoutError:
            raise Unreachable(self._trouble) from None

    async def _run(self, opened: asyncio.Future[_Session]) -> None:
        """Keep everything open until the client is closed."""
        failure: Exception = RuntimeError(_CLOSED)
        try:
            async with AsyncExitStack() as stack:
                opened.set_result(await self._open(stack))
                await asyncio.get_running_loop().create_future()
        except UnsuitableServer as error:
            failure = Unreachable(error.message)
        except Exception as error:
            log.exception("the connection to NATS has to be opened anew")
            failure = Unreachable(f"The client could not be opened: {type(error).__name__}.")
        finally:
            if not opened.done():
                opened.set_exception(failure)
                # Perhaps nobody waits for it any more.
                opened.exception()

    async def _open(self, stack: AsyncExitStack) -> _Session:
        connection = await stack.enter_async_context(connect(self._settings, "gql-jobs client", self._note_trouble))
        while True:
            try:
                await look_for_streams(connection)
                job_log = await stack.enter_async_context(open_job_log(connection))
                break
            except QueueUnavailable as error:
                self._note_trouble(error.message)
                await asyncio.sleep(PAUSE)
        ends = JobFollower(connection, codec.ALL_EVENTS, _ENDS)
        moves = JobFollower(connection, codec.ALL_JOBS)
        for follower in (ends, moves):
            await stack.enter_async_context(in_background(follower.run()))
        commands = JobCommands(job_log, self._settings, stored=self._stored)
        artifacts = ArtifactStore(job_log, self._settings, makes_bucket=False)
        deletions = JobDeletions(job_log, commands, artifacts)
        return _Session(connection, job_log, commands, deletions, PauseCommands(job_log), artifacts, ends, moves)

    def _note_trouble(self, trouble: str) -> None:
        self._trouble = trouble

    async def _patiently(self, ask: Callable[[], Awaitable[_T]], doubts: list[QueueUnavailable] | None = None) -> _T:
        """Return what is asked for, and ask again where NATS does not answer.

        :param doubts: gets the errors of the tries that may have been done; None if it must not be done twice.
        :raises ClientError: what is left of that once patience is over.
        """
        deadline = time.monotonic() + self._patience
        while True:
            try:
                return await ask()
            except QueueUnavailable as error:
                is_uncertain = _is_uncertain(error)
                if is_uncertain and doubts is not None:
                    doubts.append(error)
                    is_uncertain = False
                if is_uncertain or time.monotonic() + PAUSE > deadline or self._is_closed:
                    raise _client_error(error) from error
            except GqlJobsError as error:
                raise _client_error(error) from error
            await asyncio.sleep(PAUSE)


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
            raise _client_error(error, place) from None
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
        raise _client_error(refused_edit(invalid)) from None
    except (GqlJobsError, CodecFailure) as error:
        raise _client_error(error) from error


def _client_error(error: BaseException, place: int | None = None) -> ClientError:
    """Return the error that a client gets.

    :param place: of the creation at fault.
    """
    if isinstance(error, GqlJobsError):
        at = {} if place is None else {"input": place}
        return refusal(error.message, {**error.extensions, **at})
    if isinstance(error, CodecFailure):
        return InternalError(str(error))
    log.error("something unexpected went wrong", exc_info=error)
    return InternalError(f"Something unexpected went wrong: {type(error).__name__}. The log has the details.")


def _is_uncertain(outcome: object) -> bool:
    """Return whether it is not known if something was stored."""
    return isinstance(outcome, QueueUnavailable) and outcome.extensions.get("jobId") is not None


def _not_found(job_id: str) -> ClientError:
    return _client_error(job_errors.NotFound(job_id))


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
        raise _client_error(InvalidArgument("after", str(error))) from None


def _digest(file: BufferedIOBase) -> str:
    digest = sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()
