"""The commands of clients: create, cancel and retry jobs.

Each decides on the fold of the job's history, read from the stream's leader, and writes with a fence. If two commands
cross, the server stores one, and the other is decided again on the new history.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from gql_jobs.jetstream.client import SCHEDULE_HEADER, SCHEDULE_TARGET_HEADER
from gql_jobs.jetstream.errors import ApiError
from gql_jobs.jobs.errors import (
    Forbidden,
    IdempotencyConflict,
    InvalidState,
    NotFound,
    PayloadTooLarge,
    QueueFull,
    QueueUnavailable,
)
from gql_jobs.jobs.fold import fold
from gql_jobs.jobs.messages import Cancelled, Kind, Message, Submission
from gql_jobs.jobs.model import NOBODYS_ID, Job, JobStatus, Spec
from gql_jobs.jobs.payload_codec import StoredPayloads
from gql_jobs.jobs.requests import JobRequest
from gql_jobs.jobs.viewer import ANYBODY, Viewer, Visibility
from gql_jobs.log import codec
from gql_jobs.log.codec import JobMessage
from gql_jobs.log.job_log import History, JobLog, Superseded, Write, folded, job_events, read_history, whole_job
from gql_jobs.log.retention import expired_event, half_expired, may_be_copied_yet, remove_dead_letter
from gql_jobs.log.streams import StoreUse, store_use
from gql_jobs.logs import job_fields
from gql_jobs.settings import Settings

log = logging.getLogger(__name__)

HEADROOM = 128 * 1024
"""Bytes of the largest message that no payload may take, so that a dead letter with its errors always fits."""
STORE_USE_KEPT = 1.0
"""Seconds for which the server's answer how full the store is is used again."""
STORE_USE_TIMEOUT = 0.5
"""Seconds to wait for that answer at most, because a creation waits for it."""
_LARGEST_LEAD = timedelta(seconds=1)
"""How far creation times may be ahead of the clock, so that the jobs of large batches keep their order."""
_TRIES = 10
"""How often a command is decided again because others have written to the job."""


class Created:
    """The outcome of a creation: a new job, or the existing one of the same idempotency key (``deduplicated``).

    ``id`` is the job's, ``last_seq`` the sequence of its last message at that time: an index that has applied that
    has the job.
    """

    __slots__ = ("_job", "_write", "deduplicated", "id", "last_seq")

    def __init__(self, write: Write, last_seq: int, job: Job | None = None, *, deduplicated: bool = False) -> None:
        """Describe the outcome of ``write``, which was stored or found its id taken by the same creation.

        :param job: the existing job; None if ``write`` was stored: ``job`` is then folded from it when it is read.
        """
        self.id = write.job_id
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
    ) -> None:
        """Read from and write to ``job_log``.

        :param first_seq: returns where a job's history begins, 1 if unknown; spares the server a search.
        :param shows: returns whether a job that an index has is there for those who see so much; None if it has none.
        :param stored: how payloads are stored; as they are by default.
        """
        self._stored = stored or StoredPayloads()
        self._log = job_log
        self._first_seq = first_seq
        self._shows = shows
        self._settings = settings
        self._store_use = StoreUse(0, settings.max_store_bytes)
        self._store_use_known_until = 0.0
        self._last_created = datetime.min.replace(tzinfo=UTC)

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

    async def create(self, request: JobRequest, viewer: Viewer = ANYBODY) -> Created:
        """Store a job with one write; it exists as soon as that is acknowledged.

        :param viewer: who creates it: the job is of the same tenant, and has to be within its limits.
        :raises PayloadTooLarge: | QueueFull | IdempotencyConflict | Forbidden | CodecFailure: nothing was stored.
        :raises QueueUnavailable: if the server does not answer; with ``extensions.jobId`` if it may have been stored.
        """
        outcome = (await self._create_in_order([request], viewer))[0]
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    async def create_many(self, requests: list[JobRequest], viewer: Viewer = ANYBODY) -> list[Created]:
        """Store jobs in order, pipelined. A key that repeats within the batch makes one job.

        :param viewer: who creates them, as for ``create``; none is stored if one is outside the limits.
        :raises GqlJobsError: as ``create`` does, with ``extensions.acceptedIds`` naming what was stored and
            ``extensions.uncertainIds`` what may have been.
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
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        created = [outcome for outcome in outcomes if isinstance(outcome, Created)]
        if failures:
            first = failures[0]
            if hasattr(first, "extensions"):
                first.extensions["acceptedIds"] = [outcome.id for outcome in created]
                uncertain = [f.extensions.get("jobId") for f in failures if isinstance(f, QueueUnavailable)]
                if any(uncertain):
                    first.extensions["uncertainIds"] = [job_id for job_id in uncertain if job_id is not None]
            raise first
        made = {id(request): outcome for request, outcome in zip(distinct, created, strict=True)}
        return [
            made.get(id(request)) or made[id(firsts[request.idempotency_key or ""])].repeated() for request in requests
        ]

    async def _create_in_order(self, requests: list[JobRequest], viewer: Viewer) -> list[Created | BaseException]:
        now = await self._time_for(requests)
        writes: list[Write] = []
        for request in requests:
            job_id = request.job_id(viewer.tenant)
            spec = request.spec(self._creation_time(), self._settings, now, viewer)
            if not viewer.limits.admit(job_id, spec):
                raise Forbidden("A job would be outside of what this key or token is for; nothing was stored.")
            if self._stored.encodes or request.is_secret:
                spec = self._stored.sealed(job_id, spec)
            self._check_size(spec)
            writes.append(creation(job_id, spec))
        await self._refuse_if_full(viewer.visibility)
        outcomes = await self._log.append_in_order(writes)
        return [
            await self._created(request, write, outcome, viewer.visibility)
            for request, write, outcome in zip(requests, writes, outcomes, strict=True)
        ]

    def _check_size(self, spec: Spec) -> None:
        limit = self._log.max_payload - HEADROOM
        if len(spec.payload) > limit:
            raise PayloadTooLarge("The payload", len(spec.payload), limit)

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
        return datetime.now(UTC)

    def _creation_time(self) -> datetime:
        """Return the present time, or one that is later than that of the last creation.

        Where the clock has been set back, order begins anew: jobs should not seem to come from the future.
        """
        now = self._now()
        if self._last_created - now > _LARGEST_LEAD:
            self._last_created = now
        else:
            self._last_created = max(now, self._last_created + timedelta(microseconds=1))
        return self._last_created

    async def _created(
        self, request: JobRequest, write: Write, outcome: int | BaseException, visibility: Visibility
    ) -> Created | BaseException:
        if isinstance(outcome, Superseded):
            try:
                return await self._existing_or_renewed(request, write, visibility)
            except QueueUnavailable as error:
                # The id is taken, perhaps by this very write, whose acknowledgement was lost.
                return QueueUnavailable(error.message, write.job_id)
            except Exception as error:  # noqa: BLE001 - returned among the outcomes of the others
                return error
        if isinstance(outcome, BaseException):
            return outcome
        return Created(write, outcome)

    async def _existing_or_renewed(self, request: JobRequest, write: Write, visibility: Visibility) -> Created:
        """Return the outcome of a creation whose id is taken: by the same creation, another one, or an expired job.

        A random id can only be taken by this very write, if its acknowledgement was lost.

        :raises IdempotencyConflict: if the id belongs to another creation.
        :raises QueueUnavailable: if the job is being expired, or the server does not answer.
        """
        history = await self._log.history(write.job_id, self._first_seq(write.job_id))
        existing = _decidable(write.job_id, history)
        if existing is None and half_expired(history):
            # Maintenance has begun to expire it. Indexes that have the old job must see its end before the new one.
            with suppress(Superseded):
                await self._log.append(expired_event(write.job_id, _last_event(history), history[-1].seq))
            history = await self._log.history(write.job_id, history[0].seq)
        if existing is None and history:
            renewed = renewal(write, history)
            try:
                return Created(renewed, await self._log.append(renewed))
            except Superseded:
                existing = await self.find(write.job_id)
        if existing is None:
            raise QueueUnavailable(f"Job {write.job_id} expires just now; try again.")
        if not visibility.shows(existing):
            raise IdempotencyConflict(request.idempotency_key or "", None, is_hidden=True)
        if not request.repeats(self._stored.comparable(existing.id, existing.spec), self._stored.alike):
            raise IdempotencyConflict(request.idempotency_key or "", existing.id)
        return Created(write, existing.last_seq, existing, deduplicated=request.idempotency_key is not None)

    async def cancel(self, job_id: str, viewer: Viewer = ANYBODY, *, moved_by: int | None = None) -> Job:
        """Cancel a job that has not ended; the worker that runs it follows the event.

        :param viewer: who cancels it.
        :param moved_by: the position behind which it must not have moved.
        :raises NotFound: if there is no such job, or none for the viewer, which takes as long.
        :raises InvalidState: if it has ended, or has moved.
        :raises QueueUnavailable: if the server does not answer, or others keep writing to the job.
        """
        for number in range(_TRIES):
            history, job = await self._existing(job_id, viewer, whole=number > 0)
            if job.status.is_terminal or _has_moved(job, moved_by):
                raise InvalidState(job_id, job.status.name, "cancelled")
            scheduled = job.status is JobStatus.SCHEDULED
            spec = job.spec if scheduled else None
            body = Cancelled(submission=job.submission_seq, spec=spec, actor=viewer.actor)
            subject = codec.event_subject(job_id, Kind.CANCELLED)
            try:
                seq = await self._log.append(Write(job_id, subject, body, job_events(job_id, _last_event(history))))
            except Superseded:
                continue
            if scheduled:
                await self._delete_schedule(job_id, job.submission_seq)
            return self._job_after(job, Kind.CANCELLED, seq, body)
        raise QueueUnavailable(f"Job {job_id} keeps changing; it was not cancelled. Try again.")

    async def retry(
        self, job_id: str, viewer: Viewer = ANYBODY, *, wait_for_copy: bool = True, moved_by: int | None = None
    ) -> Job:
        """Queue a dead-lettered or cancelled job again, with all its retries; its history is kept.

        :param viewer: who retries it.
        :param wait_for_copy: whether a dead letter that has just been written may be waited for in jobs-dlq, up to a
            second; if not, and it comes there later, maintenance removes it.
        :param moved_by: the position behind which it must not have moved.
        :raises NotFound: if there is no such job, or none for the viewer, which takes as long.
        :raises InvalidState: if it is in any other state.
        :raises QueueUnavailable: if the server does not answer, or others keep writing to the job.
        """
        for number in range(_TRIES):
            history, job = await self._existing(job_id, viewer, whole=number > 0)
            if job.status not in {JobStatus.DEAD_LETTER, JobStatus.CANCELLED} or _has_moved(job, moved_by):
                raise InvalidState(job_id, job.status.name, "retried")
            body = Submission(spec=job.spec, event_seq=job.event_seq, actor=viewer.actor)
            subject = codec.queued_subject(job_id, job.spec.queue, job.spec.priority)
            try:
                seq = await self._log.append(Write(job_id, subject, body, whole_job(job_id, history[-1].seq)))
            except Superseded:
                continue
            if job.status is JobStatus.DEAD_LETTER:
                wait = wait_for_copy and may_be_copied_yet(history[-1].at)
                await remove_dead_letter(self._log.connection, job_id, job.event_seq, wait=wait)
            return self._job_after(job, Kind.QUEUED, seq, body)
        raise QueueUnavailable(f"Job {job_id} keeps changing; it was not retried. Try again.")

    async def _existing(self, job_id: str, viewer: Viewer, *, whole: bool) -> tuple[list[JobMessage], Job]:
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
        history = await self._log.history(job_id, 1 if whole else self._first_seq(job_id))
        if visibility.is_partial and ((found := folded(history)) is None or not visibility.shows(found)):
            # Before anything is said of a message that cannot be read: it may be of a hidden job.
            raise NotFound(job_id)
        job = _decidable(job_id, history)
        if job is None:
            raise NotFound(job_id)
        return history, job

    async def _delete_schedule(self, job_id: str, scheduled_seq: int) -> None:
        """Delete the schedule of a job whose cancellation is stored.

        Not before, because a crash in between would lose the job. If the schedule fires meanwhile, nothing starts.
        """
        try:
            await self._log.delete_one(scheduled_seq)
        except (ApiError, QueueUnavailable) as error:
            message = "the schedule of cancelled job %s stays until it fires: %s"
            log.warning(message, job_id, error, extra=job_fields(job_id=job_id))

    def _job_after(self, job: Job, kind: Kind, seq: int, body: Cancelled | Submission) -> Job:
        """Return the job after the message that was just stored, which the index may not have applied yet."""
        return fold(job, Message(job.id, kind, seq, max(datetime.now(UTC), job.updated_at), body)) or job


def _has_moved(job: Job, moved_by: int | None) -> bool:
    return moved_by is not None and job.moved_at > moved_by


def creation(job_id: str, spec: Spec) -> Write:
    """Return the write of a job's first message: queued, or held by the server until ``run_at``."""
    body = Submission(spec=spec)
    target = codec.queued_subject(job_id, spec.queue, spec.priority)
    if spec.run_at is None:
        return Write(job_id, target, body, whole_job(job_id, 0))
    at = spec.run_at.astimezone(UTC).isoformat().replace("+00:00", "Z")
    headers = {SCHEDULE_HEADER: f"@at {at}", SCHEDULE_TARGET_HEADER: target}
    return Write(job_id, codec.scheduled_subject(job_id), body, whole_job(job_id, 0), headers)


def renewal(write: Write, history: list[JobMessage]) -> Write:
    """Return the same creation for an id of which only the ``expired`` event of an earlier job is left."""
    body = write.body
    assert isinstance(body, Submission)
    again = Submission(spec=body.spec, event_seq=_last_event(history), after_expiry=True)
    return write._replace(body=again, fence=whole_job(write.job_id, history[-1].seq))


def _first_state(write: Write, seq: int) -> Job:
    body = write.body
    assert isinstance(body, Submission)
    kind = Kind.SCHEDULED if SCHEDULE_HEADER in write.headers else Kind.QUEUED
    job = fold(None, Message(write.job_id, kind, seq, body.spec.created_at, body))
    assert job is not None
    return job


def _decidable(job_id: str, history: list[JobMessage]) -> Job | None:
    """Return the job that its messages make.

    :raises QueueUnavailable: if some of them are of a newer release: what they say of the job is not known here.
    """
    job, _, _, is_newer = read_history(history)
    if is_newer:
        raise QueueUnavailable(f"Job {job_id} was written by a newer release than this process has; try again.")
    return job


def _last_event(history: list[JobMessage]) -> int:
    """Return the sequence that a fence over the job's events expects."""
    return max((message.seq for message in history if message.is_event), default=0)
