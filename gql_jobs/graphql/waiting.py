"""Why a job does not run yet, in words for who waits for it.

The figures of all jobs that one operation asks about are read together, once they have all been asked for.
"""

# Strawberry types its decorators as Any.
# mypy: disable-error-code="untyped-decorator"

import asyncio
from datetime import UTC, datetime
from enum import StrEnum

import strawberry

from gql_jobs.graphql.context import Context
from gql_jobs.graphql.engine.strawberry_internals import describe_enum
from gql_jobs.index.reader import QueuePlace, Reader
from gql_jobs.jobs.model import Job, JobStatus
from gql_jobs.log.heartbeats import WorkerSeen


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
        return JobWait(
            reason=WaitReason.SCHEDULED,
            detail="it is not to start before the time that it was scheduled for",
            until=job.run_at,
            ahead=None,
        )
    if job.status is JobStatus.RETRYING:
        return _backing_off(job, context)
    if job.status is not JobStatus.QUEUED:
        return None
    context.budget.take(1)
    is_partial = context.session.visibility.is_partial
    place = QueuePlace(job.spec.queue, job.spec.priority.rank, job.updated_at)
    ahead = await context.shared(Places, lambda: Places(context.services().reader)).ahead(place)
    able = [worker for worker in _workers(context) if worker.can_run(job.spec.queue, job.spec.type)]
    if not able:
        return _no_worker(job, context, None if is_partial else ahead)
    slots = sum(worker.concurrency for worker in able)
    busy = min(sum(worker.running for worker in able), slots)
    if ahead < slots - busy:
        return None
    return JobWait(
        reason=WaitReason.WORKERS_BUSY,
        detail="it waits for a worker" if is_partial else f"{busy} of {slots} slots busy, {ahead} ahead",
        until=None,
        ahead=None if is_partial else ahead,
    )


def _backing_off(job: Job, context: Context) -> JobWait:
    due = job.next_attempt_at
    is_due = due is not None and due <= datetime.now(UTC)
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
