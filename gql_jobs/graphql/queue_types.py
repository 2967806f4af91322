"""Queues as clients see them: where their jobs stand, what happened in them, and whether they are paused.

The mutations that are about a whole queue are here, too.
"""

# Strawberry types its decorators as Any.
# mypy: disable-error-code="untyped-decorator"

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any

import strawberry
from pydantic.alias_generators import to_camel

from gql_jobs import clock
from gql_jobs.graphql.context import Context, Info, Services
from gql_jobs.graphql.engine.budget import Budget
from gql_jobs.index.minutes import KEPT_MINUTES, Minute
from gql_jobs.index.tables import minute_of
from gql_jobs.jobs import registry
from gql_jobs.jobs.errors import Forbidden, InvalidArgument, no_such_queue
from gql_jobs.jobs.limits import MAX_CONCURRENCY, MAX_PER_SECOND, InvalidLimit, Limits
from gql_jobs.jobs.model import JobStatus
from gql_jobs.jobs.pause import MAX_PAUSE_REASON, Pause
from gql_jobs.jobs.viewer import Visibility
from gql_jobs.live.feed import READ_BACK_TIMEOUT
from gql_jobs.log.heartbeats import unserved_types

DEFAULT_MINUTES = 60
"""Minutes of a queue's history where none are asked for."""


@strawberry.type(description="How many jobs are in one state.")
class StatusCount:
    """The number of a queue's jobs in one state."""

    status: JobStatus = strawberry.field(description="The state.")
    count: int = strawberry.field(description="How many jobs are in it.")


@strawberry.type(
    description="What happened in a queue in one minute, by the clock of the NATS server. Times are counted in steps "
    "of about a fifth: a figure is what at least so many did not exceed."
)
class QueueMinute:
    """The figures of a queue in one minute."""

    at: datetime = strawberry.field(description="When the minute began.")
    created: int = strawberry.field(
        description="How many jobs were created; those for later by the clock of the server that created them."
    )
    started: int = strawberry.field(description="How many attempts started.")
    completed: int = strawberry.field(description="How many jobs completed.")
    failed: int = strawberry.field(description="How many attempts failed that another one was to follow.")
    dead_lettered: int = strawberry.field(description="How many jobs failed for good.")
    start_delay_p50_ms: int | None = strawberry.field(
        description="How long half of those that started had waited in the queue at most, in milliseconds; repeated "
        "attempts do not count. Null if none started."
    )
    start_delay_p95_ms: int | None = strawberry.field(description="The same for 95 of 100.")
    run_p50_ms: int | None = strawberry.field(
        description="How long half of the attempts that ended had run at most, in milliseconds; null if none ended."
    )
    run_p95_ms: int | None = strawberry.field(description="The same for 95 of 100 of these attempts.")


def _queue_minute(minute: Minute) -> QueueMinute:
    return QueueMinute(
        at=minute.at,
        created=minute.created,
        started=minute.started,
        completed=minute.completed,
        failed=minute.failed,
        dead_lettered=minute.dead_lettered,
        start_delay_p50_ms=minute.start_delay_p50,
        start_delay_p95_ms=minute.start_delay_p95,
        run_p50_ms=minute.run_p50,
        run_p95_ms=minute.run_p95,
    )


@strawberry.type(
    description="A queue is paused: nothing of it starts on any worker, and jobs that are created wait. What runs when "
    "the pause begins may finish."
)
class QueuePause:
    """Since when, by whom, why and until when."""

    at: datetime = strawberry.field(description="When it was paused, by the clock of the NATS server.")
    by: str | None = strawberry.field(
        description="The subject of whoever has paused it, or has changed the pause last; null if nobody was "
        "authenticated, and for a viewer with a tenant or limits."
    )
    reason: str | None = strawberry.field(description="Why, in their words; null if they gave none.")
    until: datetime | None = strawberry.field(
        description="When the pause ends by itself; null if it lasts until somebody ends it with `resumeQueue`."
    )


@strawberry.type(
    description="What jobs of a queue, or of a type, are limited to, on all workers together; null is no limit. Jobs "
    "that are created under a limit are WAITING until they may go."
)
class QueueLimits:
    """How many run at a time, and how many start in a second."""

    concurrency: int | None = strawberry.field(
        description="How many run at a time, those among them that were let go and have not started yet."
    )
    concurrency_per_key: int | None = strawberry.field(
        description="The same of those with one `concurrencyKey`; jobs of different tenants have no key in common."
    )
    per_second: float | None = strawberry.field(
        description="How many start in a second, on average: 0.1 is one in ten seconds."
    )


@strawberry.type(description="A queue that workers serve.")
class Queue:
    """A queue and the numbers of its jobs."""

    name: str = strawberry.field(description="What job types and workers call it.")
    counts: list[StatusCount] = strawberry.field(description="How many of its jobs are in each state, zeros included.")
    oldest_queued_at: datetime | None = strawberry.field(
        description="Since when its oldest waiting job waits; null if none does."
    )
    workers: int = strawberry.field(
        description="How many workers serve it at the moment; for a viewer with a tenant or limits 1 stands for any "
        "number. Jobs of a queue that none serves wait until one is started with the queue's name, also where no job "
        "type uses that queue any more."
    )
    unserved_types: list[str] = strawberry.field(
        description="The types of its waiting jobs of which none of these workers says it can run all, sorted by name: "
        "they do not know the type, or have met a payload that they cannot read."
    )
    paused: QueuePause | None = strawberry.field(
        description="Its pause; null if it is not paused. Workers obey it within a second."
    )
    limits: QueueLimits = strawberry.field(
        description="What its jobs are limited to; those of a type may be limited further, as `JobType.limits` says."
    )

    @strawberry.field(
        description="What happened in it, minute by minute, the present one at last. Minutes in which nothing happened "
        "are there with zeros; those that this server does not know, because it has built its index anew after jobs of "
        "that time had expired, are left out. Empty for a viewer with a tenant or limits."
    )
    async def history(
        self,
        info: Info,
        minutes: Annotated[
            int | None,
            strawberry.argument(description=f"How many: 1 to {KEPT_MINUTES}, the last day; null means the default."),
        ] = DEFAULT_MINUTES,
    ) -> list[QueueMinute]:
        """Return the figures of the index for the last minutes.

        :raises InvalidArgument: for a number out of range.
        """
        minutes = DEFAULT_MINUTES if minutes is None else minutes
        if not 1 <= minutes <= KEPT_MINUTES:
            raise InvalidArgument("minutes", f"minutes must be between 1 and {KEPT_MINUTES}.")
        context = info.context
        if context.session.visibility.is_partial:
            return []
        context.budget.take(minutes)
        now = minute_of(clock.now())
        found = await context.services().reader.minutes(self.name, now - minutes + 1, now)
        return [_queue_minute(minute) for minute in found]


async def read_queues(
    services: Services, visibility: Visibility, budget: Budget, *, also: str | None = None
) -> list[Queue]:
    """Return the queues that there are for those who see so much, sorted by name.

    :param also: a queue that is listed in any case.
    """
    reader, workers = services.reader, services.presence.workers()
    counts, oldest = await reader.queue_counts(visibility), await reader.oldest_queued_at(visibility)
    waiting = await reader.waiting_types(visibility)
    pauses = services.pauses.now()
    names = _names_of_queues(services, visibility, counts)
    if also is not None and also not in names:
        names = sorted([*names, also])
    budget.take(len(names) * (1 + len(JobStatus)) + sum(map(len, waiting.values())))
    return [
        Queue(
            name=name,
            counts=[StatusCount(status=s, count=counts.get(name, {}).get(s, 0)) for s in JobStatus],
            oldest_queued_at=oldest.get(name),
            workers=_told(sum(name in worker.queues for worker in workers), visibility),
            unserved_types=unserved_types(name, waiting.get(name, ()), workers),
            paused=_shown_pause(pauses.get(name), visibility),
            limits=shown_limits(services.feed.steering.limits_of_queue(name)),
        )
        for name in names
    ]


def _names_of_queues(services: Services, visibility: Visibility, counted: Iterable[str]) -> list[str]:
    """Return the queues that there are for those who see so much, sorted.

    :param counted: those that have jobs which they see.
    """
    kinds, pauses = kinds_for(services, visibility), services.pauses.now()
    return sorted({*(kind.queue for kind in kinds), *counted, *_shown(pauses, visibility)})


def _shown(pauses: Iterable[str], visibility: Visibility) -> Iterable[str]:
    """Return the paused queues that are listed though they have no jobs and no types: others may see that they are."""
    return () if visibility.is_partial else pauses


def _shown_pause(pause: Pause | None, visibility: Visibility) -> QueuePause | None:
    if pause is None:
        return None
    by = None if visibility.is_partial else pause.by
    return QueuePause(at=pause.at, by=by, reason=pause.reason, until=pause.until)


def shown_limits(limits: Limits) -> QueueLimits:
    """Return limits as clients see them."""
    return QueueLimits(
        concurrency=limits.concurrency,
        concurrency_per_key=limits.concurrency_per_key,
        per_second=limits.per_second,
    )


@strawberry.type(description="A queue after a mutation that is about all of it.")
class QueuePayload:
    """What mutations of queues return."""

    queue: Queue = strawberry.field(description="As it is now.")

    @strawberry.field(
        description="How many of its jobs were submitted before it had limits, and have not ended: they start whatever "
        "these say, and those that run are counted. Jobs that are held until their `runAt` are among them."
    )
    async def ungated(self, info: Info) -> int:
        """Return the number of them in the index."""
        info.context.budget.take(1)
        return await info.context.services().reader.ungated(self.queue.name)


QueueName = Annotated[str, strawberry.argument(description="The queue's name, as `queues` lists it.")]


async def known_queue(name: str, argument: str, context: Context) -> str:
    """Return the name of a queue that there is: a type has it, the server knows it, or it is paused.

    :param argument: where the name stands in the arguments.
    :raises Forbidden: for a viewer with a tenant or limits, because a queue has the jobs of all.
    :raises InvalidArgument: for any other name.
    :raises QueueUnavailable: if the server has to be asked, and does not answer.
    """
    if not context.session.viewer.may_operate_all:
        raise Forbidden("A queue has the jobs of all: whoever has a tenant or limits may not steer it.")
    services = context.services()
    is_known = name in services.registry.queues or name in services.pauses.now()
    if not is_known and not (registry.is_queue_name(name) and await services.pauses.is_stored(name)):
        counts = await services.reader.queue_counts(context.session.visibility)
        listed = _names_of_queues(services, context.session.visibility, counts)
        context.budget.take(len(listed))
        raise InvalidArgument(argument, no_such_queue(name, listed))
    return name


async def queue_payload(name: str, context: Context) -> QueuePayload:
    """Return a queue as it is now, also if nothing but its consumers is left of it.

    :raises OverBudget: if the operation may read no more.
    """
    found = await read_queues(context.services(), context.session.visibility, context.budget, also=name)
    return QueuePayload(queue=next(queue for queue in found if queue.name == name))


async def _pause_queue(
    info: Info,
    name: QueueName,
    reason: Annotated[
        str | None,
        strawberry.argument(
            description=f"Why, for all who wonder why their jobs wait: 1 to {MAX_PAUSE_REASON} printable characters."
        ),
    ] = strawberry.UNSET,
    until: Annotated[
        datetime | None,
        strawberry.argument(
            description="When the queue goes on by itself, in UTC where no offset is given; left out it stays paused "
            "until `resumeQueue`."
        ),
    ] = strawberry.UNSET,
) -> QueuePayload:
    context = info.context
    name = await known_queue(name, "name", context)
    await context.services().pauses.pause(name, reason or None, until or None, context.session.viewer.actor)
    return await queue_payload(name, context)


async def _resume_queue(info: Info, name: QueueName) -> QueuePayload:
    context = info.context
    name = await known_queue(name, "name", context)
    await context.services().pauses.resume(name, context.session.viewer.actor)
    return await queue_payload(name, context)


@strawberry.input(
    description="What a queue is to be limited to, all at once: a limit that is null or left out is taken away."
)
class QueueLimitsInput:
    """The limits that take the place of those that there are."""

    concurrency: int | None = strawberry.field(
        default=strawberry.UNSET, description=f"How many of its jobs run at a time: 1 to {MAX_CONCURRENCY}."
    )
    concurrency_per_key: int | None = strawberry.field(
        default=strawberry.UNSET,
        description=f"How many of those with one `concurrencyKey` run at a time: 1 to {MAX_CONCURRENCY}.",
    )
    per_second: float | None = strawberry.field(
        default=strawberry.UNSET,
        description=f"How many start in a second, on average: up to {MAX_PER_SECOND:.0f}, and at least one a day.",
    )


async def _set_queue_limits(
    info: Info,
    name: QueueName,
    limits: Annotated[
        dict[str, Any],
        strawberry.argument(description="The limits from now on.", graphql_type=QueueLimitsInput),
    ],
) -> QueuePayload:
    context = info.context
    name = await known_queue(name, "name", context)
    try:
        wanted = Limits.of(**limits)
    except InvalidLimit as invalid:
        field = to_camel(invalid.field)
        raise InvalidArgument(f"limits.{field}", invalid.problem.format(field)) from None
    services = context.services()
    seq = await services.commands.set_queue_limits(name, wanted, context.session.viewer)
    await services.feed.wait_for(seq, READ_BACK_TIMEOUT)
    return await queue_payload(name, context)


QUEUE_FIELDS = [
    strawberry.mutation(
        _set_queue_limits,
        name="setQueueLimits",
        description="Limit how many jobs of a queue run at a time, how many of those with one key do, and how many "
        "start in a second: in effect at once, on all workers, without a restart. What runs goes on. Jobs that are "
        "created from now on wait until they may go; those that were submitted before start as ever, and `ungated` "
        "says how many they are.",
    ),
    strawberry.mutation(
        _pause_queue,
        name="pauseQueue",
        description="Have no job of a queue start any more, on any worker: in effect within a second, and until "
        "`resumeQueue` or `until`. What runs may finish, what a worker had taken and not started is handed back, and "
        "jobs can be created as ever. A queue that is paused already gets this reason and this end; to ask for the "
        "same again changes nothing.",
    ),
    strawberry.mutation(
        _resume_queue,
        name="resumeQueue",
        description="End the pause of a queue: its jobs start again, in the order that they would have had. Of a queue "
        "that is not paused nothing changes.",
    ),
]


def kinds_for(services: Services, visibility: Visibility) -> list[registry.JobType]:
    """Return the registered types of which there can be jobs for the viewer: of some jobs, those that they have."""
    limits = visibility.limits
    kinds = [
        kind
        for kind in services.registry
        if (limits.types is None or kind.name in limits.types)
        and (limits.queues is None or kind.queue in limits.queues)
    ]
    if limits.ids is None:
        return kinds
    specs = [services.index.spec(job_id) for job_id in limits.ids if services.index.shows(job_id, visibility)]
    types = {spec.type for spec in specs if spec is not None}
    return [kind for kind in kinds if kind.name in types]


def _told(number: int, visibility: Visibility) -> int:
    """Return how many there are of what serves the jobs of all: only whether there are any where these are unknown."""
    return min(number, 1) if visibility.is_partial else number
