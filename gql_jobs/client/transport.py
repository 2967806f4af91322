"""What a client says to a server, and what it hears: the interface of transports, and the values that pass through it.

Every transport gives the same answers: the same ids for the same keys, the same refusals, the same order of events.
Results travel as the JSON that is stored; a handle reads it by the result model of the job's type.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Protocol, TypeAlias

from msgspec import UNSET, Struct, UnsetType
from pydantic import BaseModel

from gql_jobs.jobs.limits import Limits
from gql_jobs.jobs.model import DependencyPolicy, JobError, JobPriority, JobStatus, OverlapPolicy
from gql_jobs.jobs.pause import Pause
from gql_jobs.jobs.registry import JobType
from gql_jobs.jobs.requests import JobFilter
from gql_jobs.jobs.unique_keys import UniqueKey

Token: TypeAlias = str | Callable[[], str | Awaitable[str]] | None
"""A key or token, what returns a valid one whenever it is asked, or None to ask as nobody."""

# What is asked for.


class Creation(Struct, frozen=True):
    """A job to create.

    ``payload`` is JSON: what the payload model was given, under the keys that the model reads it by. ``sent`` is that
    without what factories of defaults drew, by which creations with one key are compared; None for the payload itself.
    ``timeout`` is in seconds; None stands for the default of the type, then the server's. ``origin``: the id of the job
    that it is made of. ``value``: what the model has read from ``payload`` in this process, which spares it to do so
    again; None if nobody has asked it to. ``key`` is the idempotency key, and ``job_key`` what no other job may have
    until this one has ended. ``concurrency_key``, ``start_before``, ``after`` and ``after_policy``: as of requests.
    """

    job_type: JobType
    payload: bytes
    key: str | None = None
    priority: JobPriority = JobPriority.NORMAL
    run_at: datetime | None = None
    max_retries: int | None = None
    timeout: float | None = None
    tags: tuple[str, ...] = ()
    origin: str | None = None
    sent: bytes | None = None
    value: BaseModel | None = None
    job_key: UniqueKey | None = None
    concurrency_key: str | None = None
    start_before: datetime | None = None
    after: tuple[str, ...] = ()
    after_policy: DependencyPolicy = DependencyPolicy.CANCEL

    @property
    def has_key(self) -> bool:
        """Whether the caller gave a key, so that another creation than this one may have made its job."""
        return self.key is not None or self.job_key is not None

    @property
    def weight(self) -> int:
        """About how many bytes a request takes for it."""
        texts = len(self.payload) + len(self.sent or b"") + sum(map(len, self.tags))
        return texts + sum(map(len, self.after)) if self.after else texts


class AskedRecurrence(Struct, frozen=True):
    """When a schedule is to be due: by a cron expression in a time zone, UTC for None, or every so many seconds."""

    cron: str | None = None
    every: int | None = None
    time_zone: str | None = None


class AskedSchedule(Struct, frozen=True, kw_only=True):
    """A schedule that is to be defined; its durations are in seconds, and what is None is as by default.

    ``payload`` is held by a creation with it, whose options play no part.
    """

    name: str
    payload: Creation
    recurrence: AskedRecurrence
    overlap: OverlapPolicy | None = None
    catch_up: int | None = None
    spread: int | None = None
    paused: bool | None = None
    priority: JobPriority | None = None
    tags: tuple[str, ...] | None = None


# What is answered.


class CreatedJob(Struct, frozen=True):
    """A stored job. ``deduplicated``: whether a key had made it before."""

    id: str
    deduplicated: bool = False


class JobSnapshot(Struct, frozen=True):
    """A job as of one moment.

    ``progress`` is in percent, 0 to 100, and ``message`` what the handler said it is doing. ``attempts``: how many have
    started since the creation or the last retry by hand. ``error``: the latest failure, None once the job has
    completed; ``errors``: the failures of all these attempts, oldest first, also of a completed job. ``timeout`` is in
    seconds. ``payload``: the JSON of the payload as it is stored, without its secrets; ``result``: that of the result,
    None until the job has completed. Of events and lists, and of what ``cancel`` and ``retry`` return, both are None,
    and ``errors`` has ``error`` alone. ``cancel_reason``: why the system has cancelled it, None where somebody did.
    """

    id: str
    type: str
    queue: str
    status: JobStatus
    priority: JobPriority
    progress: int
    message: str | None
    attempts: int
    max_retries: int
    timeout: float
    created_at: datetime
    updated_at: datetime
    error: JobError | None = None
    errors: tuple[JobError, ...] = ()
    tags: tuple[str, ...] = ()
    tenant: str | None = None
    created_by: str | None = None
    worker_id: str | None = None
    run_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    next_attempt_at: datetime | None = None
    payload: bytes | None = None
    result: bytes | None = None
    key: str | None = None
    concurrency_key: str | None = None
    schedule: str | None = None
    start_before: datetime | None = None
    cancel_reason: str | None = None


class JobPage(Struct, frozen=True):
    """Some jobs of a list. ``next``: what to ask for the page behind it with; None if it is the last one."""

    jobs: tuple[JobSnapshot, ...]
    next: str | None


class ScheduleSnapshot(Struct, frozen=True, kw_only=True):
    """A schedule at one moment; its durations are in seconds.

    ``payload``: the JSON of it, without secrets. ``next_runs``: when it is due next, none while it is paused.
    ``last_job``: the id of the job of its latest tick that came to run. ``skipped``: how many ticks had no run.
    ``defined_by``: the program whose code defines it, None for one that clients have defined.
    """

    name: str
    type: str
    cron: str | None
    every: int | None
    time_zone: str
    overlap: OverlapPolicy
    catch_up: int
    spread: int
    paused: bool
    priority: JobPriority
    tags: tuple[str, ...]
    payload: bytes
    created_at: datetime
    created_by: str | None
    changed_at: datetime
    defined_by: str | None
    next_runs: tuple[datetime, ...]
    last_job: str | None
    skipped: int


class ArtifactInfo(Struct, frozen=True):
    """What is known of a file of a job. ``sha256`` is in hexadecimal digits."""

    name: str
    content_type: str
    size_bytes: int
    sha256: str
    created_at: datetime


# What is told of a job while it goes on.


class JobEvent(Struct, frozen=True):
    """Something that happened to a job.

    ``cursor``: its place in the history of all jobs; given as ``after``, what follows comes. ``actor``: the subject
    that created, cancelled or retried the job, None for what the system did. ``job``: as of this event, without its
    result.
    """

    cursor: str
    at: datetime
    actor: str | None
    job: JobSnapshot


class ScheduledEvent(JobEvent, frozen=True):
    """The job was created and is held back until ``run_at``."""

    run_at: datetime


class WaitingEvent(JobEvent, frozen=True):
    """The job was created, or retried by hand, and is held back by a limit, by other jobs, or until its time."""


class EditedEvent(JobEvent, frozen=True):
    """The job was changed before it has started, and is queued again."""


class QueuedEvent(JobEvent, frozen=True):
    """The job waits for a worker: created, due, handed back, or retried by hand."""


class StartedEvent(JobEvent, frozen=True):
    """A worker began an attempt; ``supersedes`` is the one that it replaces because its worker was lost."""

    worker_id: str
    attempt: int
    supersedes: int | None = None


class ProgressEvent(JobEvent, frozen=True):
    """The handler said how far it is, in percent, and what it is doing."""

    progress: int
    message: str | None = None


class FailedEvent(JobEvent, frozen=True):
    """An attempt failed, and another one follows at ``next_attempt_at``."""

    error: JobError
    next_attempt_at: datetime


class CompletedEvent(JobEvent, frozen=True):
    """The job is done; ``duration`` is that of its last attempt. Nothing follows."""

    duration: timedelta


class CancelledEvent(JobEvent, frozen=True):
    """The job was cancelled. Nothing follows, unless it is retried by hand."""


class DeadLetterEvent(JobEvent, frozen=True):
    """The job failed for good, with ``error`` at last. Nothing follows, unless it is retried by hand."""

    error: JobError


class Edit(Struct, frozen=True):
    """What is to be another about a job; UNSET and None leave it as it is, but that a ``run_at`` of None is at once.

    ``payload`` is held by a creation with it, whose options play no part.
    """

    payload: Creation | None = None
    run_at: datetime | UnsetType | None = UNSET
    priority: JobPriority | None = None
    tags: tuple[str, ...] | None = None


class Schedules(Protocol):
    """What a transport does about schedules; all that changes them needs the right to operate the installation."""

    async def upsert(self, asked: AskedSchedule) -> ScheduleSnapshot:
        """Define a schedule, or replace the one of this name, and return it; to ask for the same changes nothing.

        :raises InvalidArgument: | InvalidPayload: if it can be no schedule; fields are named as options are.
        """

    async def pause(self, name: str, *, paused: bool) -> ScheduleSnapshot:
        """Have a schedule be without ticks, or have ticks again from now on, and return it.

        :raises NotFound: if there is none.
        """

    async def delete(self, name: str) -> bool:
        """Delete a schedule, and cancel its jobs that have not been queued; return whether it was there."""

    async def run(self, name: str) -> str:
        """Create a job of a schedule at once, outside of its ticks, and return its id.

        :raises NotFound: if there is none.
        :raises InvalidArgument: if no job can be made of it where that is done.
        """

    async def all(self) -> list[ScheduleSnapshot]:
        """Return all schedules, sorted by name."""

    async def find(self, name: str) -> ScheduleSnapshot | None:
        """Return a schedule; None if there is none."""

    async def preview(self, asked: AskedRecurrence, first: int | None, after: datetime | None) -> list[datetime]:
        """Return when a schedule would be due, in UTC.

        :param first: how many moments, 1 to 100; None for the usual number.
        :param after: those after this moment, UTC where it has no offset; None for now.
        :raises InvalidArgument: if it could be no schedule.
        """


class Transport(Protocol):
    """A way to a server, used on one event loop by as many tasks as like.

    It tries again what passes by itself (a connection that is refused or cut, a store that does not answer) for as long
    as it was told to, if that can do no harm, and raises what is left. All errors are ``ClientError``.
    """

    largest_batch: int
    """Creations that ``create`` takes at once, at most."""
    largest_batch_bytes: int
    """Bytes of their payloads and all else of them together, at most.

    A single one may have more, and is refused if it is too large.
    """

    @property
    def schedules(self) -> Schedules:
        """Return what is done about schedules."""

    async def create(self, creations: Sequence[Creation]) -> list[CreatedJob]:
        """Store jobs in this order, and return them in it; each is durable then.

        It may be called again while an earlier call has not returned; order holds within one call.

        :raises PartlyCreated: if some were stored, or may have been.
        :raises ClientError: any other one means that nothing was stored; ``extensions["input"]`` is the place of the
            creation at fault, from 0, where it was one of them. Of a single creation, ``QueueUnavailable`` and
            ``Unreachable`` with ``extensions["jobId"]`` or without a key leave open whether it was stored.
        """

    async def find(self, job_id: str) -> JobSnapshot | None:
        """Return the job, with its errors and its result; None if there is none."""

    async def ended(self, job_id: str) -> JobSnapshot:
        """Wait until the job has ended, and return it with its errors and its result.

        Thousands may wait at once: they share a few connections.

        :raises NotFound: if there is no such job, or not any more.
        """

    def events(self, job_id: str, after: str | None) -> AsyncGenerator[JobEvent, None]:
        """Yield the job's latest event and all later ones, or those behind a cursor; ends after the terminal event.

        Each comes once and none is left out, whatever becomes of connections and servers meanwhile.

        :raises NotFound: if there is no such job, or not any more.
        :raises InvalidArgument: if the cursor is of no event that is kept.
        """

    async def cancel(self, job_id: str) -> JobSnapshot:
        """Cancel a job that has not ended, and return it.

        :raises NotFound: | InvalidState: if there is no such job, or it has ended.
        """

    async def update(self, job_id: str, changes: Edit) -> JobSnapshot:
        """Change a job that has not started, and return it.

        :raises NotFound: | InvalidState: if there is no such job, or it has started or ended.
        :raises InvalidPayload: | InvalidArgument: if it cannot be changed so.
        """

    async def retry(self, job_id: str, payload: Creation | None = None) -> JobSnapshot:
        """Run a dead letter or a cancelled job again, and return it.

        :param payload: with the payload that it gets in the place of its own; None leaves it that.
        :raises NotFound: | InvalidState: if there is no such job, or it is neither.
        :raises InvalidPayload: | InvalidArgument: if the payload does not fit, or is of another type.
        """

    async def delete(self, job_id: str) -> bool:
        """Delete a job that does not run, with all that is stored of it; return whether it was there.

        :raises NotFound: | InvalidState: if there never was such a job that is known, or it runs.
        :raises Forbidden: for whoever may not delete jobs.
        """

    async def pause_queue(self, queue: str, reason: str | None, until: datetime | None) -> Pause:
        """Have nothing of a queue start until it is resumed, or until a moment; return its pause.

        :raises InvalidArgument: if there is no such queue, or a pause cannot have this reason or this end.
        :raises Forbidden: for whoever may not steer queues.
        """

    async def resume_queue(self, queue: str) -> None:
        """End the pause of a queue.

        :raises InvalidArgument: if there is no such queue.
        :raises Forbidden: for whoever may not steer queues.
        """

    async def set_queue_limits(self, queue: str, limits: Limits) -> None:
        """Limit a queue from now on, in the place of the limits that it has.

        :raises InvalidArgument: if there is no such queue.
        :raises Forbidden: for whoever may not steer queues.
        """

    async def artifacts(self, job_id: str) -> list[ArtifactInfo]:
        """Return the files that are complete, by name.

        :raises NotFound: if there is no such job.
        """

    def artifact(self, job_id: str, name: str) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of a file: what is cut off in between goes on, and the digest is checked at the end.

        :raises NotFound: if there is no such job or file.
        :raises DamagedArtifact: if it is not what was saved, or has been replaced meanwhile.
        """

    async def jobs(self, wanted: JobFilter, first: int, after: str | None) -> JobPage:
        """Return a page of jobs, newest first, without results.

        :param first: how many at most, 1 to 500.
        :param after: the ``next`` of the page before.
        """

    async def close(self) -> None:
        """Close all connections. What waits ends with ``RuntimeError``; may be called again."""
