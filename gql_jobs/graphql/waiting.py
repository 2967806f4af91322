"""Why a job does not run yet, in words for who waits for it.

The figures of all jobs that one operation asks about are read together, once they have all been asked for.
"""

# Strawberry types its decorators as Any.
# mypy: disable-error-code="untyped-decorator"

import asyncio
from datetime import datetime
from enum import StrEnum

import strawberry

from gql_jobs import clock
from gql_jobs.graphql.context import Context
from gql_jobs.graphql.engine.strawberry_internals import describe_enum
from gql_jobs.index.reader import QueuePlace, Reader
from gql_jobs.jobs.gate_lines import Hold
from gql_jobs.jobs.limits import rate_text
from gql_jobs.jobs.model import Job, JobStatus
from gql_jobs.log.heartbeats import WorkerSeen

_NAMED = 3
"""Jobs that are named at most, where one waits for several."""


class WaitReason(StrEnum):
    """What a job waits for."""

    SCHEDULED = "scheduled"
    BACKING_OFF = "backing_off"
    NO_WORKER = "no_worker"
    WORKERS_BUSY = "workers_busy"
    QUEUE_PAUSED = "queue_paused"
    LIMIT = "limit"
    DEPENDENCY = "dependency"


describe_enum(
    WaitReason,
    "What a job waits for before it runs.",
    {
        "SCHEDULED": "The time that it was created for, its `runAt`.",
        "BACKING_OFF": "The pause after a failed attempt is not over: it is tried again at `nextAttemptAt`.",
        "NO_WORKER": "No worker that is running serves its queue, or none of those can run its type. It starts once "
        "one is started that can.",
        "WORKERS_BUSY": "Those workers that can run it are busy with other jobs, or others start before it.",
        "QUEUE_PAUSED": "Its queue is paused: nothing of it starts until it is resumed.",
        "LIMIT": "A limit of its queue: as many of its jobs run as may run at a time, or have started as may start in "
        "a second.",
        "DEPENDENCY": "Other jobs, after which it is to run, have not ended.",
    },
)


@strawberry.type(description="Why a job does not run yet.")
class JobWait:
    """What a job waits for, for how long, and how many are before it."""

    reason: WaitReason = strawberry.field(description="What it waits for.")
    detail: str = strawberry.field(description="The same in words that a user understands.")
    until: datetime | None = strawberry.field(
        description="When the wait is over at the earliest; null if that is not known."
    )
    ahead: int | None = strawberry.field(
        description="How many waiting jobs of its queue start before it: those of a higher priority, and those of its "
        "own that were queued earlier. Null for a job that is not queued, and for a viewer with a tenant or limits, "
        "who is told nothing about the jobs of others."
    )


class Places:
    """How many jobs start before those that one operation asks about."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._asked: set[QueuePlace] = set()
        self._read: asyncio.Task[dict[QueuePlace, int]] | None = None

    async def ahead(self, place: QueuePlace) -> int:
        """Return how many jobs start before the one at that place.

        All that is asked for in the same turn of the event loop is read together.
        """
        self._asked.add(place)
        if self._read is None:
            self._read = asyncio.create_task(self._read_all())
        return (await self._read)[place]

    async def _read_all(self) -> dict[QueuePlace, int]:
        asked, self._asked, self._read = self._asked, set(), None
        return await self._reader.ahead(asked)


async def wait_of(job: Job, context: Context) -> JobWait | None:
    """Return why the job does not run yet, for whoever asks; None if it runs, has ended, or starts at once.

    :raises OverBudget: if the operation may read no more.
    """
    if job.status is JobStatus.SCHEDULED:
        return _scheduled(job)
    if job.status is JobStatus.RETRYING:
        return _backing_off(job, context)
    if job.status is JobStatus.WAITING:
        return _held_back(job, context)
    return await _wait_in_queue(job, context) if job.status is JobStatus.QUEUED else None


def _scheduled(job: Job) -> JobWait:
    return JobWait(
        reason=WaitReason.SCHEDULED,
        detail="it is not to start before the time that it was scheduled for",
        until=job.run_at,
        ahead=None,
    )


async def _wait_in_queue(job: Job, context: Context) -> JobWait | None:
    context.budget.take(1)
    is_partial = context.session.visibility.is_partial
    place = QueuePlace(job.spec.queue, job.spec.priority.rank, job.updated_at)
    ahead = await context.shared(Places, lambda: Places(context.services().reader)).ahead(place)
    told = None if is_partial else ahead
    if (paused := _paused(job, context, told)) is not None:
        return paused
    able = [worker for worker in _workers(context) if worker.can_run(job.spec.queue, job.spec.type)]
    if not able:
        return _no_worker(job, context, told)
    slots = sum(worker.concurrency for worker in able)
    busy = min(sum(worker.running for worker in able), slots)
    if ahead < slots - busy:
        return None
    return JobWait(
        reason=WaitReason.WORKERS_BUSY,
        detail="it waits for a worker" if is_partial else f"{busy} of {slots} slots busy, {ahead} ahead",
        until=None,
        ahead=told,
    )


def _paused(job: Job, context: Context, ahead: int | None) -> JobWait | None:
    queue = job.spec.queue
    pause = context.services().pauses.of(queue)
    if pause is None:
        return None
    said = pause.described(names_whom=not context.session.visibility.is_partial)
    return JobWait(reason=WaitReason.QUEUE_PAUSED, detail=f"the queue `{queue}` {said}", until=pause.until, ahead=ahead)


def _held_back(job: Job, context: Context) -> JobWait | None:
    """Return what the gate waits for before it lets a job go; None if it is about to."""
    if job.status is JobStatus.WAITING and job.run_at is not None and job.run_at > clock.now():
        return _scheduled(job)
    hold = context.services().gate.state.hold(job.id)
    if hold is not None and hold.needs:
        return _of_gate(WaitReason.DEPENDENCY, _needs_in_words(hold.needs, context))
    if (paused := _paused(job, context, None)) is not None:
        return paused
    if not any(worker.can_run(job.spec.queue, job.spec.type) for worker in _workers(context)):
        return _no_worker(job, context, None)
    if hold is None:
        return None
    return _of_gate(WaitReason.LIMIT, _limit_in_words(hold, is_partial=context.session.visibility.is_partial))


def _of_gate(reason: WaitReason, detail: str) -> JobWait:
    return JobWait(reason=reason, detail=detail, until=None, ahead=None)


def _needs_in_words(needs: tuple[str, ...], context: Context) -> str:
    """Return which jobs another one is to run after, a few by their ids: of those that there are for the viewer."""
    services, visibility = context.services(), context.session.visibility
    named = needs[:_NAMED]
    if visibility.is_partial:
        named = tuple(job_id for job_id in named if services.index.shows(job_id, visibility))
    jobs = "the job" if len(needs) == 1 else f"{len(needs)} jobs"
    listed = " " + ", ".join(named) if named else ""
    more = ", …" if 0 < len(named) < len(needs) else ""
    return f"it is to run after {jobs}{listed}{more}"


def _limit_in_words(hold: Hold, *, is_partial: bool) -> str:
    """Return which limit holds a job back.

    :param is_partial: whether nothing is said of how many jobs of others there are.
    """
    of_what = f"the {hold.what} `{hold.name}`"
    if hold.per_second is not None:
        return f"{rate_text(hold.per_second)} jobs of {of_what} may start"
    keyed = "" if hold.key is None else f" with the key {hold.key}"
    if is_partial:
        return f"as many jobs of {of_what}{keyed} run as may run at a time"
    return f"{hold.number} of {hold.most} jobs of {of_what}{keyed} run"


def _backing_off(job: Job, context: Context) -> JobWait | None:
    due = job.next_attempt_at
    is_due = due is not None and due <= clock.now()
    if is_due and (paused := _paused(job, context, None)) is not None:
        return paused
    if is_due and job.spec.gate is not None:
        return _held_back(job, context)
    if is_due and not any(worker.can_run(job.spec.queue, job.spec.type) for worker in _workers(context)):
        return _no_worker(job, context, None)
    return JobWait(
        reason=WaitReason.BACKING_OFF,
        detail=f"attempt {job.attempt} of {job.spec.max_retries + 1} failed, and the next one follows after a pause",
        until=due,
        ahead=None,
    )


def _no_worker(job: Job, context: Context, ahead: int | None) -> JobWait:
    queue = job.spec.queue
    is_served = any(queue in worker.queues for worker in _workers(context))
    detail = (
        f"no worker of the queue `{queue}` can run all jobs of the type `{job.spec.type}`"
        if is_served
        else f"no worker serves the queue `{queue}`"
    )
    return JobWait(reason=WaitReason.NO_WORKER, detail=detail, until=None, ahead=ahead)


def _workers(context: Context) -> list[WorkerSeen]:
    return context.shared(WorkerSeen, context.services().presence.workers)
