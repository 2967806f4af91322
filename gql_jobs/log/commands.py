"""The commands of clients: create, cancel, retry and change jobs.

Each decides on the fold of the job's history, read from the stream's leader, and writes with a fence. If two commands
cross, the server stores one, and the other is decided again on the new history.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import groupby

import msgspec
from msgspec.structs import replace
from pydantic.alias_generators import to_camel

from gql_jobs import clock
from gql_jobs.jetstream.errors import ApiError
from gql_jobs.jobs.changes import JobChanges
from gql_jobs.jobs.errors import (
    Forbidden,
    GqlJobsError,
    IdempotencyConflict,
    InvalidArgument,
    InvalidState,
    NotFound,
    PayloadTooLarge,
    QueueFull,
    QueueUnavailable,
)
from gql_jobs.jobs.fold import fold
from gql_jobs.jobs.limits import Limits
from gql_jobs.jobs.messages import VERSION, Cancelled, Kind, Message, Submission
from gql_jobs.jobs.model import NOBODYS_ID, DependencyPolicy, Gate, Job, JobStatus, Spec
from gql_jobs.jobs.payload_codec import StoredPayloads
from gql_jobs.jobs.requests import InvalidRequest, JobRequest
from gql_jobs.jobs.viewer import ANYBODY, Viewer, Visibility
from gql_jobs.log import codec
from gql_jobs.log.codec import JobMessage
from gql_jobs.log.edits import (
    edit,
    ended_schedule,
    is_ahead,
    kind_of,
    schedule_headers,
    submission,
    version_of_end,
)
from gql_jobs.log.job_log import (
    Fence,
    History,
    JobLog,
    Superseded,
    Write,
    after_write,
    decidable,
    folded,
    job_events,
    last_event_seq,
    read_history,
    whole_job,
)
from gql_jobs.log.keyed_creation import create_keyed, in_turn, taken
from gql_jobs.log.keys import JobKeys, KeptKey
from gql_jobs.log.retention import expired_event, half_expired, may_be_copied_yet, remove_dead_letter
from gql_jobs.log.stored_limits import StoredLimits, set_queue_limits
from gql_jobs.log.streams import StoreUse, store_use
from gql_jobs.settings import Settings

HEADROOM = 128 * 1024
"""Bytes of the largest message that no payload may take, so that a dead letter with its errors always fits."""
MAX_BESIDE_PAYLOAD = HEADROOM // 2
"""Bytes that the rest of what is asked for may take of them: tags, names of other jobs, marks of secrets."""
STORE_USE_KEPT = 1.0
"""Seconds for which the server's answer how full the store is is used again."""
STORE_USE_TIMEOUT = 0.5
"""Seconds to wait for that answer at most, because a creation waits for it."""
_LARGEST_LEAD = timedelta(seconds=1)
"""How far creation times may be ahead of the clock, so that the jobs of large batches keep their order."""
_LOOKUPS_AT_ONCE = 20
"""Jobs that are looked up at once."""
_KEYS_AT_ONCE = 16
"""Keys of a batch that are claimed at once."""
_MICROSECOND = timedelta(microseconds=1)
_TRIES = 10
"""How often a command is decided again because others have written to the job."""


class Created:
    """The outcome of a creation: a new job, or the existing one that has one of its keys (``deduplicated``).

    ``id`` is the job's, ``last_seq`` the sequence of its last message at that time: an index that has applied that
    has the job.
    """

    __slots__ = ("_job", "_write", "deduplicated", "id", "last_seq")

    def __init__(self, write: Write, last_seq: int, job: Job | None = None, *, deduplicated: bool = False) -> None:
        """Describe the outcome of ``write``, which was stored, or found its id or its key taken.

        :param job: the existing job; None if ``write`` was stored: ``job`` is then folded from it when it is read.
        """
        self.id = write.job_id if job is None else job.id
        self.last_seq = last_seq
        self.deduplicated = deduplicated
        self._write = write
        self._job = job

    @property
    def job(self) -> Job:
        """The job as of ``last_seq``."""
        if self._job is None:
            self._job = _first_state(self._write, self.last_seq)
        return self._job

    def repeated(self) -> "Created":
        """Return the outcome for a further request of the same batch with the same key."""
        return Created(self._write, self.last_seq, self._job, deduplicated=True)


class JobCommands:
    """The commands of one process.

    Their creation times strictly increase, so that a batch keeps its order, unless the clock is set back.
    """

    def __init__(
        self,
        job_log: JobLog,
        settings: Settings,
        first_seq: Callable[[str], int] = lambda _: 1,
        shows: Callable[[str, Visibility], bool | None] = lambda _, __: None,
        stored: StoredPayloads | None = None,
        *,
        is_limited: Callable[[str, str], bool | None] = lambda _, __: None,
    ) -> None:
        """Read from and write to ``job_log``.

        :param first_seq: returns where a job's history begins, 1 if unknown; spares the server a search.
        :param shows: returns whether a job that an index has is there for those who see so much; None if it has none.
        :param stored: how payloads are stored; as they are by default.
        :param is_limited: returns whether jobs of a queue and a type are limited; None if the leader is to be asked.
        """
        self._stored = stored or StoredPayloads()
        self._log = job_log
        self._first_seq = first_seq
        self._shows = shows
        self._settings = settings
        self._is_limited = is_limited
        self._stored_limits = StoredLimits(job_log)
        self._store_use = StoreUse(0, settings.max_store_bytes)
        self._store_use_known_until = 0.0
        self._last_created = datetime.min.replace(tzinfo=UTC)
        self._keys = JobKeys(job_log, first_seq)

    async def find(self, job_id: str, charge: Callable[[], None] = lambda: None) -> Job | None:
        """Return the job as the leader has it, or None.

        :param charge: called for each message that is read for it; what it raises ends the read.
        :raises QueueUnavailable: if the leader does not answer.
        """
        return folded(await self._log.history(job_id, charge=charge))

    async def history(self, job_id: str, charge: Callable[[], None]) -> History:
        """Return the job, its events and its files as the leader has them.

        :param charge: called for each message that is read for it; what it raises ends the read.
        :raises QueueUnavailable: if the leader does not answer.
        """
        return read_history(await self._log.history(job_id, charge=charge))

    async def missing(self, job_ids: Sequence[str], tenant: str | None) -> str | None:
        """Return the first of several ids that is that of no job of a tenant; None if all are.

        :param tenant: None for jobs of any.
        :raises QueueUnavailable: if the leader does not answer.
        """
        for start in range(0, len(job_ids), _LOOKUPS_AT_ONCE):
            some = job_ids[start : start + _LOOKUPS_AT_ONCE]
            for job_id, job in zip(some, await asyncio.gather(*map(self.find, some)), strict=True):
                if job is None or tenant not in {None, job.spec.tenant}:
                    return job_id
        return None

    async def create(self, request: JobRequest, viewer: Viewer = ANYBODY) -> Created:
        """Store a job with one write; it exists as soon as that is acknowledged.

        :param viewer: who creates it: the job is of the same tenant, and has to be within its limits.
        :raises PayloadTooLarge: | QueueFull | IdempotencyConflict | KeyTaken | Forbidden | CodecFailure: nothing was
            stored.
        :raises QueueUnavailable: if the server does not answer; with ``extensions.jobId`` if it may have been stored.
        """
        outcome = (await self._create_in_order([request], viewer))[0]
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    async def create_many(self, requests: list[JobRequest], viewer: Viewer = ANYBODY) -> list[Created]:
        """Store jobs in order, pipelined. An idempotency key that repeats within the batch makes one job.

        Jobs that have a key no two may have are stored one after the other where it is the same, and else at once.

        :param viewer: who creates them, as for ``create``; none is stored if one is outside the limits.
        :raises GqlJobsError: as ``create`` does, with ``extensions.acceptedIds`` naming what was stored and
            ``extensions.uncertainIds`` what may have been, and the places of their requests as ``acceptedInputs`` and
            ``uncertainInputs``.
        """
        outcomes = await self.create_each(requests, viewer)
        created = [outcome for outcome in outcomes if isinstance(outcome, Created)]
        if len(created) == len(outcomes):
            return created
        raise _told(next(one for one in outcomes if isinstance(one, BaseException)), outcomes)

    async def create_each(self, requests: list[JobRequest], viewer: Viewer = ANYBODY) -> list[Created | BaseException]:
        """Store jobs as ``create_many`` does; return for each request its job, or the error of ``create``.

        :raises GqlJobsError: for what is found before anything is stored, as ``create`` does.
        """
        firsts: dict[str, JobRequest] = {}
        for request in requests:
            key = request.idempotency_key
            if key is not None and not request.repeats(firsts.setdefault(key, request)):
                existing = await self.find(request.job_id(viewer.tenant))
                shown = existing is not None and viewer.visibility.shows(existing)
                raise IdempotencyConflict(key, existing.id if existing is not None and shown else None)
        distinct = [r for r in requests if r.idempotency_key is None or firsts[r.idempotency_key] is r]
        outcomes = await self._create_in_order(distinct, viewer)
        if len(distinct) == len(requests):
            return outcomes
        made = {id(request): outcome for request, outcome in zip(distinct, outcomes, strict=True)}
        return [
            made[id(request)] if id(request) in made else _again(made[id(firsts[request.idempotency_key or ""])])
            for request in requests
        ]

    async def _create_in_order(self, requests: list[JobRequest], viewer: Viewer) -> list[Created | BaseException]:
        now = await self._time_for(requests)
        writes: list[Write] = []
        for request in requests:
            job_id = request.job_id(viewer.tenant)
            is_limited = await self._passes_gate(request.job_type.queue, request.job_type.name)
            spec = request.spec(self._creation_time(), self._settings, now, viewer, is_limited=is_limited)
            if not viewer.limits.admit(job_id, spec):
                raise Forbidden("A job would be outside of what this key or token is for; nothing was stored.")
            writes.append(creation(job_id, storable(request, job_id, spec, self._stored, self._log.max_payload)))
        await self._refuse_if_full(viewer.visibility)
        asked = list(zip(requests, writes, strict=True))
        outcomes: list[Created | BaseException] = []
        for is_keyed, run in groupby(asked, lambda one: one[0].key is not None):
            outcomes += await (self._keyed_outcomes if is_keyed else self._outcomes)(list(run), viewer)
        return outcomes

    async def _outcomes(self, asked: list[tuple[JobRequest, Write]], viewer: Viewer) -> list[Created | BaseException]:
        outcomes = await self._log.append_in_order([write for _, write in asked])
        return [
            Created(write, outcome)
            if isinstance(outcome, int)
            else await self._created(request, write, outcome, viewer.visibility)
            for (request, write), outcome in zip(asked, outcomes, strict=True)
        ]

    # Creations with a key: the ``KeyedCommands`` that ``keyed_creation`` decides with.

    async def _keyed_outcomes(
        self, asked: list[tuple[JobRequest, Write]], viewer: Viewer
    ) -> list[Created | BaseException]:
        """Store jobs with keys: those with the same key in their order."""
        at_once = asyncio.Semaphore(_KEYS_AT_ONCE)
        groups: dict[str, list[int]] = {}
        for place, (request, _) in enumerate(asked):
            assert request.key is not None
            groups.setdefault(request.key.value, []).append(place)
        made: dict[int, Created | BaseException] = {}

        async def create(places: list[int]) -> None:
            async with at_once:
                for place in places:
                    try:
                        made[place] = await self._create_keyed(*asked[place], viewer)
                    except Exception as error:  # noqa: BLE001 - returned among the outcomes of the others
                        made[place] = error

        await asyncio.gather(*map(create, groups.values()))
        return [made[place] for place in range(len(asked))]

    async def _create_keyed(self, request: JobRequest, write: Write, viewer: Viewer) -> Created:
        outcome = await create_keyed(self._log, self._keys, self, request=request, write=write, viewer=viewer)
        if isinstance(outcome, Job):
            is_own = outcome.id == write.job_id
            return Created(write, outcome.last_seq, outcome, deduplicated=not is_own or request.is_repeatable)
        return Created(*outcome)

    async def repeated(self, request: JobRequest, write: Write, viewer: Viewer) -> Job | Write:
        """Return the job whose creation a request repeats, or the write that creates it; see ``KeyedCommands``."""
        history = await self._expired_whole(write.job_id)
        existing = decidable(write.job_id, history)
        if existing is not None:
            self._check_repeated(request, existing, viewer.visibility)
            return existing
        return renewal(write, history) if history else write

    async def replaced(self, request: JobRequest, holder: Job, viewer: Viewer) -> Job:
        """Give a job the payload and the time of a request; see ``KeyedCommands``."""
        key = request.key
        assert key is not None
        run_at = key.pushed_back(request.run_at, holder.spec.created_at)
        try:
            changes = JobChanges.of(payload=request.accepted, job_type=request.job_type, run_at=run_at)
            return await self.update(holder.id, changes, viewer)
        except InvalidRequest as invalid:
            raise InvalidArgument(invalid.field, invalid.problem.format(to_camel(invalid.field))) from None

    def succeeding(self, write: Write, holder: Job) -> Write:
        """Return the creation of a job that runs after another one; see ``KeyedCommands``."""
        body = write.body
        assert isinstance(body, Submission)
        spec = body.spec
        policy = spec.after_policy if spec.after else DependencyPolicy.RUN
        gate = spec.gate or Gate(run_at=spec.run_at)
        after = tuple(dict.fromkeys((*spec.after, holder.id)))
        return creation(write.job_id, replace(spec, after=after, after_policy=policy, gate=gate, run_at=None))

    async def set_queue_limits(self, queue: str, limits: Limits, viewer: Viewer = ANYBODY) -> int:
        """Limit a queue from now on, and return the position in the stream as of which it is.

        :param viewer: who limits it.
        :raises QueueUnavailable: | QueueFull: if that was not stored.
        """
        return await set_queue_limits(self._log, queue, limits, viewer.actor)

    async def _passes_gate(self, queue: str, type_name: str) -> bool:
        """Return whether jobs that are submitted now have to be let go by the gate, because their number is limited.

        :raises QueueUnavailable: if the leader has to be asked, and does not answer.
        """
        known = self._is_limited(queue, type_name)
        return await self._stored_limits.are_there(queue, type_name) if known is None else known

    async def _refuse_if_full(self, visibility: Visibility) -> None:
        """Refuse a creation if the store is too full; events, retries and firings of schedules are never refused.

        If the server does not answer, nothing is raised here: the write that follows fails by itself.

        :param visibility: of whoever creates; only those who see all jobs are told how much the store holds.

        :raises QueueFull: if the account, or a server of it, is over its share of the store.
        """
        now = asyncio.get_running_loop().time()
        if now >= self._store_use_known_until:
            # Set before asking, so that one caller asks and the others meanwhile use the last answer.
            self._store_use_known_until = now + STORE_USE_KEPT
            try:
                async with asyncio.timeout(STORE_USE_TIMEOUT):
                    self._store_use = await store_use(self._log.connection, self._settings)
            except (ApiError, QueueUnavailable, TimeoutError):
                return
        limit = round(self._store_use.limit * self._settings.queue_full_ratio)
        if self._store_use.used > limit:
            figures = f"The store holds {self._store_use.used} of at most {limit} bytes."
            raise QueueFull("The store has no room." if visibility.is_partial else figures)

    async def _time_for(self, requests: list[JobRequest]) -> datetime:
        """Return the time by which a ``run_at`` has passed: that of the server, which is asked if one seems to have."""
        now = self._now()
        if any(request.run_at is not None and request.run_at <= now for request in requests):
            with suppress(QueueUnavailable):
                return await self._log.server_time()
        # One that lies ahead is held by the server, which fires it at once if it has passed there.
        return now

    def _now(self) -> datetime:
        return clock.now()

    def _creation_time(self) -> datetime:
        """Return the present time, or one that is later than that of the last creation.

        Where the clock has been set back, order begins anew: jobs should not seem to come from the future.
        """
        now = self._now()
        if now > self._last_created or self._last_created - now > _LARGEST_LEAD:
            self._last_created = now
        else:
            self._last_created += _MICROSECOND
        return self._last_created

    async def _created(
        self, request: JobRequest, write: Write, outcome: BaseException, visibility: Visibility
    ) -> Created | BaseException:
        if isinstance(outcome, Superseded):
            try:
                return await self._existing_or_renewed(request, write, visibility)
            except QueueUnavailable as error:
                # The id is taken, perhaps by this very write, whose acknowledgement was lost.
                return QueueUnavailable(error.message, write.job_id)
            except Exception as error:  # noqa: BLE001 - returned among the outcomes of the others
                return error
        return outcome

    async def _existing_or_renewed(self, request: JobRequest, write: Write, visibility: Visibility) -> Created:
        """Return the outcome of a creation whose id is taken: by the same creation, another one, or an expired job.

        A random id can only be taken by this very write, if its acknowledgement was lost.

        :raises IdempotencyConflict: if the id belongs to another creation.
        :raises NotFound: if it is that of a tick whose job was made, and has expired.
        :raises QueueUnavailable: if the job is being expired, or the server does not answer.
        """
        history = await self._log.history(write.job_id, self._first_seq(write.job_id))
        existing = decidable(write.job_id, history)
        if existing is None and history and request.tick is not None:
            # A tick is made once, even if its job has expired since.
            raise NotFound(write.job_id)
        if existing is None and half_expired(history):
            history = await self._expired_whole(write.job_id)
        if existing is None and history:
            renewed = renewal(write, history)
            try:
                return Created(renewed, await self._log.append(renewed))
            except Superseded:
                existing = await self.find(write.job_id)
        if existing is None:
            raise QueueUnavailable(f"Job {write.job_id} expires just now; try again.")
        if request.tick is not None:
            return Created(write, existing.last_seq, existing, deduplicated=True)
        self._check_repeated(request, existing, visibility)
        return Created(write, existing.last_seq, existing, deduplicated=request.is_repeatable)

    async def _expired_whole(self, job_id: str) -> list[JobMessage]:
        """Return a job's messages; of one that maintenance has begun to expire, those after its end.

        :raises QueueUnavailable: if the leader does not answer.
        """
        history = await self._log.history(job_id, self._first_seq(job_id))
        if decidable(job_id, history) is not None or not half_expired(history):
            return history
        # Indexes that have the old job must see its end before a new one.
        with suppress(Superseded):
            await self._log.append(expired_event(job_id, last_event_seq(history), history[-1].seq))
        return await self._log.history(job_id, history[0].seq)

    def _check_repeated(self, request: JobRequest, existing: Job, visibility: Visibility) -> None:
        """Check that a job is the one that a request asks for.

        :raises IdempotencyConflict: if it is another one.
        """
        if not visibility.shows(existing):
            raise IdempotencyConflict(request.idempotency_key or "", None, is_hidden=True)
        if not request.repeats(self._stored.comparable(existing.id, existing.spec), self._stored.alike):
            raise IdempotencyConflict(request.idempotency_key or "", existing.id)

    async def cancel(
        self, job_id: str, viewer: Viewer = ANYBODY, *, moved_by: int | None = None, reason: str | None = None
    ) -> Job:
        """Cancel a job that has not ended; the worker that runs it follows the event.

        :param viewer: who cancels it.
        :param reason: why the system does, in a sentence; None where somebody asked for it.
        :param moved_by: the position behind which it must not have moved.
        :raises NotFound: if there is no such job, or none for the viewer, which takes as long.
        :raises InvalidState: if it has ended, or has moved.
        :raises QueueUnavailable: if the server does not answer, or others keep writing to the job.
        """
        for number in range(_TRIES):
            history, job = await self.existing(job_id, viewer, whole=number > 0)
            if job.status.is_terminal or _has_moved(job, moved_by):
                raise InvalidState(job_id, job.status.name, "cancelled")
            # What ends a schedule tells of the job in its place.
            spec = job.spec if job.status is JobStatus.SCHEDULED else None
            version = VERSION if spec is None else version_of_end(history)
            body = Cancelled(v=version, submission=job.submission_seq, spec=spec, actor=viewer.actor, reason=reason)
            subject = codec.event_subject(job_id, Kind.CANCELLED)
            fence = job_events(job_id, last_event_seq(history))
            try:
                seq = await self._log.append(Write(job_id, subject, body, fence, ended_schedule(job_id, history)))
            except Superseded:
                continue
            return after_write(job, Kind.CANCELLED, seq, body)
        raise QueueUnavailable(f"Job {job_id} keeps changing; it was not cancelled. Try again.")

    async def retry(
        self,
        job_id: str,
        viewer: Viewer = ANYBODY,
        *,
        payload: JobChanges | None = None,
        wait_for_copy: bool = True,
        moved_by: int | None = None,
    ) -> Job:
        """Submit a dead-lettered or cancelled job again, with all its retries; its history is kept.

        It is queued, or scheduled again if its ``run_at`` still lies ahead; one that passes the gate waits for that.

        :param viewer: who retries it.
        :param payload: another payload in the place of its own.
        :param wait_for_copy: whether a dead letter that has just been written may be waited for in jobs-dlq, up to a
            second; if not, and it comes there later, maintenance removes it.
        :param moved_by: the position behind which it must not have moved.
        :raises NotFound: if there is no such job, or none for the viewer, which takes as long.
        :raises InvalidState: if it is in any other state.
        :raises KeyTaken: if another job that has not ended has its key.
        :raises InvalidRequest: | PayloadTooLarge | CodecFailure: if it cannot have that payload.
        :raises QueueUnavailable: if the server does not answer, or others keep writing to the job.
        """
        for number in range(_TRIES):
            history, job = await self.existing(job_id, viewer, whole=number > 0)
            if job.status not in {JobStatus.DEAD_LETTER, JobStatus.CANCELLED} or _has_moved(job, moved_by):
                raise InvalidState(job_id, job.status.name, "retried")
            if job.spec.key is None:
                found = await self._resubmitted(history, job, payload, viewer)
            else:
                found = await self._resubmitted_with_key(job, payload, viewer, moved_by)
            if found is None:
                continue
            history, write, seq = found
            if job.status is JobStatus.DEAD_LETTER:
                wait = wait_for_copy and may_be_copied_yet(history[-1].at)
                await remove_dead_letter(self._log.connection, job_id, job.event_seq, wait=wait)
            return after_write(job, kind_of(write), seq, write.body)
        raise QueueUnavailable(f"Job {job_id} keeps changing; it was not retried. Try again.")

    async def _resubmitted(
        self,
        history: list[JobMessage],
        job: Job,
        payload: JobChanges | None,
        viewer: Viewer,
        fence: Fence | None = None,
    ) -> tuple[list[JobMessage], Write, int] | None:
        """Store the submission of a retry; return the messages before it, what was stored and its sequence.

        :param fence: None for that over the whole job.
        :returns: None if another writer came first.
        """
        body = self._retried(job, payload, viewer)
        if body.spec.gate is None and await self._passes_gate(body.spec.queue, body.spec.type):
            body = replace(body, spec=gated(body.spec))
        held = await is_ahead(self._log, body.spec.run_at)
        write = submission(job.id, body, fence or whole_job(job.id, history[-1].seq), history, held=held)
        try:
            return history, write, await self._log.append(write)
        except Superseded:
            return None

    async def _resubmitted_with_key(
        self, job: Job, payload: JobChanges | None, viewer: Viewer, moved_by: int | None
    ) -> tuple[list[JobMessage], Write, int] | None:
        """Claim a job's key and store the submission of its retry, fenced on the key as creations are.

        :returns: None if another writer came first.
        :raises KeyTaken: if another job has the key.
        :raises NotFound: if the job has expired meanwhile.
        """
        key = KeptKey.of(job)
        assert key is not None
        async with in_turn(self._keys, key):
            claimed = await self._keys.claim(key, job.id, job.spec.after)
            if isinstance(claimed, Job):
                raise taken(key.value, claimed, viewer)
            # Other retries claim the key as well: what they have stored is known now.
            history, now = await self.existing(job.id, viewer, whole=True)
            if now.moved_at != job.moved_at or _has_moved(now, moved_by):
                return None
            found = await self._resubmitted(history, now, payload, viewer, claimed)
        if found is not None and ((made := await self.find(job.id)) is None or made.submission_seq < found[2]):
            # An expiry, which is not fenced on the key, came before it.
            raise NotFound(job.id)
        return found

    def _retried(self, job: Job, payload: JobChanges | None, viewer: Viewer) -> Submission:
        """Return the submission of a retry: with all attempts before it, and no limit until when it has to start.

        :raises InvalidRequest: | PayloadTooLarge | CodecFailure: if it cannot have that payload.
        """
        spec, changed = (payload or JobChanges()).applied(job, self._stored, clock.now())
        spec = replace(spec.never_too_late, start_before=None)
        if changed:
            checked_size(spec, self._log.max_payload)
        return Submission(spec=spec, event_seq=job.event_seq, actor=viewer.actor)

    async def update(self, job_id: str, changes: JobChanges, viewer: Viewer = ANYBODY) -> Job:
        """Change a job that has not started. Where nothing would be another, nothing is stored.

        The job is queued again, or scheduled if it is to run later; one that passes the gate waits for that.

        :param viewer: who changes it; it has to be within its limits afterwards, too.
        :raises NotFound: if there is no such job, or none for the viewer, which takes as long.
        :raises InvalidState: if it has started, or ended.
        :raises InvalidRequest: if the changes are none for this job.
        :raises PayloadTooLarge: | Forbidden | CodecFailure: nothing was stored.
        :raises QueueUnavailable: if the server does not answer, or others keep writing to the job; with
            ``extensions.jobId`` if the change may have been stored: to repeat it does no harm.
        """

        async def existing(number: int) -> tuple[list[JobMessage], Job]:
            return await self.existing(job_id, viewer, whole=number > 0)

        def changed(job: Job, now: datetime) -> tuple[Spec, tuple[str, ...]]:
            spec, names = changes.applied(job, self._stored, now)
            if names and not viewer.limits.admit(job_id, spec):
                raise Forbidden("The job would be outside of what this key or token is for; nothing was stored.")
            return checked_size(spec, self._log.max_payload) if names else spec, names

        return await edit(self._log, existing, changed, viewer.actor)

    async def existing(self, job_id: str, viewer: Viewer, *, whole: bool) -> tuple[list[JobMessage], Job]:
        """Return a job's messages and the job.

        :param whole: read from the stream's first message on, not from ``first_seq``.
        :raises NotFound: if there is no such job for the viewer.
        :raises QueueUnavailable: if the leader does not answer.
        """
        if not codec.is_job_id(job_id):
            raise NotFound(job_id)
        visibility = viewer.visibility
        if visibility.is_partial and self._shows(job_id, visibility) is False:
            # The time that reading its messages takes would tell that there are some.
            await self._log.history(NOBODYS_ID, self._first_seq(NOBODYS_ID))
            raise NotFound(job_id)
        first_seq = 1 if whole else self._first_seq(job_id)
        history = await self._log.history(job_id, first_seq, since_edit=not whole)
        if visibility.is_partial and ((found := folded(history)) is None or not visibility.shows(found)):
            # Before anything is said of a message that cannot be read: it may be of a hidden job.
            raise NotFound(job_id)
        job = decidable(job_id, history)
        if job is None:
            raise NotFound(job_id)
        return history, job


def gated(spec: Spec) -> Spec:
    """Return the spec of a job that passes the gate, which is its timer then."""
    return replace(spec, gate=Gate(run_at=spec.run_at), run_at=None)


def _again(outcome: Created | BaseException) -> Created | BaseException:
    return outcome.repeated() if isinstance(outcome, Created) else outcome


def _told(failure: BaseException, outcomes: list[Created | BaseException]) -> BaseException:
    """Return a failure of a batch that says which of its jobs were stored, and which may have been.

    Each job is told of once, with the place of the first request that asked for it.
    """
    if isinstance(failure, GqlJobsError):
        accepted: dict[str, int] = {}
        uncertain: dict[str, int] = {}
        for place, outcome in enumerate(outcomes):
            if isinstance(outcome, Created):
                accepted.setdefault(outcome.id, place)
            elif isinstance(outcome, QueueUnavailable) and (job_id := outcome.extensions.get("jobId")) is not None:
                uncertain.setdefault(job_id, place)
        for name, found in (("accepted", accepted), ("uncertain", uncertain)):
            if found or name == "accepted":
                failure.extensions[f"{name}Ids"] = list(found)
                failure.extensions[f"{name}Inputs"] = list(found.values())
    return failure


def _has_moved(job: Job, moved_by: int | None) -> bool:
    return moved_by is not None and job.moved_at > moved_by


def storable(request: JobRequest, job_id: str, spec: Spec, stored: StoredPayloads, max_message: int) -> Spec:
    """Return the spec of a request as it is stored: encoded, if a codec is set, and without hashes that tell secrets.

    :param max_message: bytes of the largest message that the server takes.
    :raises CodecFailure: if the codec fails.
    :raises PayloadTooLarge: if the payload would leave no room for what has to be stored with it.
    """
    if stored.encodes or request.is_secret:
        spec = stored.sealed(job_id, spec)
    return checked_size(spec, max_message)


def checked_size(spec: Spec, max_message: int) -> Spec:
    """Return what is asked for, if a message with it leaves room for what has to be stored with it later.

    :param max_message: bytes of the largest message that the server takes.
    :raises PayloadTooLarge: if it does not.
    """
    limit = max_message - HEADROOM
    if len(spec.payload) > limit:
        raise PayloadTooLarge("The payload", len(spec.payload), limit)
    beside = len(msgspec.json.encode(spec)) - len(spec.payload)
    if beside > MAX_BESIDE_PAYLOAD:
        raise PayloadTooLarge("What is asked for beside the payload", beside, MAX_BESIDE_PAYLOAD)
    return spec


def creation(job_id: str, spec: Spec) -> Write:
    """Return the write of a job's first message: queued, held by the server until ``run_at``, or left to the gate."""
    body = Submission(spec=spec)
    if spec.gate is not None:
        return Write(job_id, codec.scheduled_subject(job_id), body, whole_job(job_id, 0))
    target = codec.queued_subject(job_id, spec.queue, spec.priority)
    if spec.run_at is None:
        return Write(job_id, target, body, whole_job(job_id, 0))
    return Write(job_id, codec.scheduled_subject(job_id), body, whole_job(job_id, 0), schedule_headers(spec, target))


def renewal(write: Write, history: list[JobMessage]) -> Write:
    """Return the same creation for an id of which only the ``expired`` event of an earlier job is left."""
    body = write.body
    assert isinstance(body, Submission)
    again = Submission(spec=body.spec, event_seq=last_event_seq(history), after_expiry=True)
    return write._replace(body=again, fence=whole_job(write.job_id, history[-1].seq))


def _first_state(write: Write, seq: int) -> Job:
    body = write.body
    assert isinstance(body, Submission)
    job = fold(None, Message(write.job_id, kind_of(write), seq, body.spec.created_at, body))
    assert job is not None
    return job
