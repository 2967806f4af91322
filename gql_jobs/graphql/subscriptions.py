"""The subscriptions. What is wrong with the arguments is an error of the operation, before its first event."""

# Strawberry types its decorators as Any.
# mypy: disable-error-code="untyped-decorator"

from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Any, Literal, Self

import strawberry

from gql_jobs.graphql.bulk import BulkRun, PresentedRuns, RunId
from gql_jobs.graphql.context import Info
from gql_jobs.graphql.engine.budget import Budget, OverBudget
from gql_jobs.graphql.inputs import FilterArgument, OrderArgument, filter_of, order_of
from gql_jobs.graphql.job_lists import JobsChange, presented_change
from gql_jobs.graphql.job_types import JobEvent, Needed, Presenter, needed_of_jobs, presented_event, presenter
from gql_jobs.graphql.queries import Worker, read_workers
from gql_jobs.graphql.queue_types import Queue, read_queues
from gql_jobs.graphql.server_status import PresentedStatus, ServerStatus
from gql_jobs.index.index import LARGEST_LIST, ListTooLarge
from gql_jobs.jobs.errors import InvalidArgument, NotFound
from gql_jobs.jobs.model import Cursor, parse_job_id
from gql_jobs.live.bus import Subscriber
from gql_jobs.live.polled import FiguresWatch, PolledFigures
from gql_jobs.live.windows import ListSubscriber

LARGEST_WINDOW = 100
"""Jobs of the largest list that can be watched."""
DEFAULT_WINDOW = 50
DEFAULT_GROUPS = 4.0
DEFAULT_FIGURES = 1.0
SLOWEST, FASTEST = 0.1, 10
"""Groups of changes, or reports of progress, that may be asked for in a second."""


class PresentedEvents:
    """An async iterator over the events of one subscriber, as GraphQL objects of their kinds.

    A class and no generator, because each generator on the way of an event costs time, and nothing is cleaned up here.
    """

    __slots__ = ("_events", "_present")

    def __init__(self, present: Presenter, events: Subscriber) -> None:
        self._events = events
        self._present = present

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> JobEvent:
        return presented_event(await self._events.__anext__(), self._present)

    def step_back(self) -> None:
        """Bring the last event once more, if it is still for whoever watches."""
        self._events.step_back()

    async def aclose(self) -> None:
        """Close the subscriber whose events these are."""
        await self._events.aclose()


class PresentedChanges:
    """An async iterator over the changes of one list, as GraphQL objects of their kinds."""

    __slots__ = ("_changes", "_info", "_needed")

    def __init__(self, changes: ListSubscriber, info: Info, needed: Needed) -> None:
        self._changes = changes
        self._info = info
        self._needed = needed

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> JobsChange:
        try:
            change = await self._changes.__anext__()
        except ListTooLarge as error:
            raise OverBudget("number of bytes read", LARGEST_LIST, error.size) from None
        return await presented_change(change, self._info, self._needed)

    def step_back(self) -> None:
        """Begin again, with a snapshot for whoever watches now."""
        self._changes.step_back()

    async def aclose(self) -> None:
        """Close the subscriber whose changes these are."""
        await self._changes.aclose()


@strawberry.type(description="Everything that can be watched.")
class Subscription:
    """The root of all subscriptions."""

    @strawberry.subscription(
        description=(
            "The events of one job: first its latest, so that a late subscriber knows the state at once, then every "
            "later one; completes after the terminal event. With `after`, what came after that cursor instead."
        )
    )
    async def job_progress(
        self,
        info: Info,
        id: Annotated[strawberry.ID, strawberry.argument(description="The job's id.")],  # noqa: A002 -- the schema's name
        after: Annotated[
            str | None, strawberry.argument(description="The cursor of the last event seen.")
        ] = strawberry.UNSET,
        max_per_second: Annotated[
            float | None,
            strawberry.argument(
                description="Reports of progress that come in a second at most: 0.1 to 10; without it "
                "all come. The newest of a job comes as soon as it may; all else is never held back."
            ),
        ] = strawberry.UNSET,
    ) -> AsyncIterator[JobEvent]:
        """Open the events of one job.

        :raises NotFound: if there is no such job.
        :raises InvalidArgument: if the cursor is of no event that is kept, or for a rate that is not valid.
        :raises QueueUnavailable: if the index cannot be brought to the cursor or the job.
        """
        job_id = parse_job_id(id)
        if job_id is None:
            raise NotFound(id)
        context, services, session = info.context, info.context.services, info.context.session
        rate = _rate_of_progress(max_per_second)

        async def recheck() -> None:
            if await services().job(job_id, session.visibility, Budget()) is None:
                raise NotFound(job_id)

        # Set first: the viewer may become another one while the events are opened.
        context.recheck = recheck
        charge = partial(context.budget.take, 1)
        events = await services().watch.job(job_id, session, _cursor(info, after), charge)
        if rate is not None:
            events.limit_progress(rate)
        events.turn = context.turn
        return PresentedEvents(presenter(info), events)

    @strawberry.subscription(
        description=(
            "The events of all jobs that match, from now on or from after a cursor. The filter looks at the job as of "
            "each event. Never completes by itself."
        )
    )
    async def job_events(
        self,
        info: Info,
        filter: FilterArgument = strawberry.UNSET,  # noqa: A002 -- the schema's name
        after: Annotated[
            str | None, strawberry.argument(description="The cursor of the last event seen.")
        ] = strawberry.UNSET,
        max_per_second: Annotated[
            float | None,
            strawberry.argument(
                description="Reports of progress that come in a second at most, of all jobs together: 0.1 to 10; "
                "all come without it. The newest of a job comes as soon as it may; all else is never held back."
            ),
        ] = strawberry.UNSET,
        latest: Annotated[
            bool | None,
            strawberry.argument(
                description="Begin with the latest event of each job that `filter.ids` names, if it matches, so that "
                "whoever waits for several jobs knows at once how they stand. Left alone where there is a cursor."
            ),
        ] = False,
    ) -> AsyncIterator[JobEvent]:
        """Open the events of all jobs that match.

        :raises InvalidArgument: if the filter or the rate is invalid, the cursor is of no event that is kept, or no
            jobs are named whose latest events are asked for.
        :raises QueueUnavailable: if the index cannot be brought to the cursor.
        """
        session = info.context.session
        wanted, rate = filter_of(filter, session.visibility), _rate_of_progress(max_per_second)
        if latest and wanted.ids is None:
            raise InvalidArgument("latest", "latest is about the jobs of filter.ids, which have to be given.")
        info.context.budget.take(len(wanted.ids or ()) if latest else 0)
        events = await info.context.services().watch.all(wanted, session, _cursor(info, after), latest=latest is True)
        if rate is not None:
            events.limit_progress(rate)
        events.turn = info.context.turn
        return PresentedEvents(presenter(info), events)

    @strawberry.subscription(
        description=(
            "The first jobs that match, as `jobs` lists them, and how that list changes: first a `JobsSnapshot`, then "
            "groups of changes. Whoever applies them has after each group what `jobs` answers. Never completes by "
            "itself."
        )
    )
    async def jobs_changed(
        self,
        info: Info,
        *,
        filter: FilterArgument = strawberry.UNSET,  # noqa: A002 -- the schema's name
        order_by: OrderArgument = strawberry.UNSET,
        first: Annotated[
            int | None, strawberry.argument(description=f"How many jobs are listed: 1 to {LARGEST_WINDOW}.")
        ] = DEFAULT_WINDOW,
        max_per_second: Annotated[
            float | None,
            strawberry.argument(description="Groups of changes that come in a second at most: 0.1 to 10."),
        ] = DEFAULT_GROUPS,
    ) -> AsyncIterator[JobsChange]:
        """Open the changes of the list.

        :raises InvalidArgument: for a filter, a size or a rate that is not valid.
        :raises RateLimited: if too many different lists are watched, by the client or in all.
        """
        context = info.context
        first = DEFAULT_WINDOW if first is None else first
        if not 1 <= first <= LARGEST_WINDOW:
            raise InvalidArgument("first", f"first must be between 1 and {LARGEST_WINDOW}.")
        needed = needed_of_jobs(info)
        changes = context.services().windows.subscribe(
            filter_of(filter, context.session.visibility),
            order_of(order_by),
            context.session,
            first=first,
            per_second=_rate(DEFAULT_GROUPS if max_per_second is None else max_per_second),
            with_payloads=needed is Needed.VALUES,
            client=context.client(),
        )

        async def recheck() -> None:
            # There may be another list for the viewer of now.
            changes.wake()

        context.recheck = recheck
        changes.turn = context.turn
        return PresentedChanges(changes, info, needed)

    @strawberry.subscription(
        description="How far a run of a bulk action is, to whoever began it: its state at once, and again when it "
        "changes, up to four times a second; completes after the state in which it has ended."
    )
    async def bulk_progress(self, info: Info, id: RunId) -> AsyncIterator[BulkRun]:  # noqa: A002 -- the schema's name
        """Open the states of a run.

        :raises UnknownRun: if there is none of the viewer's.
        :raises QueueUnavailable: if NATS does not answer.
        """
        session = info.context.session
        return PresentedRuns(await info.context.services().bulk_runs.watch(id, lambda: session.viewer))

    @strawberry.subscription(
        description="The queues as `queues` has them: at once, and again when any of their figures has changed."
    )
    async def queues_changed(
        self,
        info: Info,
        max_per_second: Annotated[
            float | None, strawberry.argument(description="How often in a second at most: 0.1 to 10.")
        ] = DEFAULT_FIGURES,
    ) -> AsyncIterator[list[Queue]]:
        """Open the queues; refuse a rate that is not valid with INVALID_ARGUMENT."""
        return _figures(info, "queues", max_per_second)

    @strawberry.subscription(
        description="The workers as `workers` has them: at once, and again when one comes, goes, falls silent, or says "
        "something new of itself, as each does every five seconds."
    )
    async def workers_changed(
        self,
        info: Info,
        max_per_second: Annotated[
            float | None, strawberry.argument(description="How often in a second at most: 0.1 to 10.")
        ] = DEFAULT_FIGURES,
    ) -> AsyncIterator[list[Worker]]:
        """Open the workers; refuse a rate that is not valid with INVALID_ARGUMENT."""
        return _figures(info, "workers", max_per_second)

    @strawberry.subscription(
        description="Whether the process that answers reaches the store of the jobs: at once, and again within two "
        "seconds when that changes, also when NATS hangs. Never completes by itself."
    )
    async def server_status_changed(self, info: Info) -> AsyncIterator[ServerStatus]:
        """Open the states of this process."""
        watch = info.context.store_reach().watch()
        watch.turn = info.context.turn
        return PresentedStatus(watch)


def _figures(info: Info, kind: Literal["queues", "workers"], max_per_second: float | None) -> FiguresWatch:
    context, services = info.context, info.context.services()
    rate = _rate(DEFAULT_FIGURES if max_per_second is None else max_per_second)

    def of_now() -> PolledFigures:
        visibility = context.session.visibility

        async def read() -> list[Any]:
            if kind == "queues":
                return await read_queues(services, visibility, Budget())
            return read_workers(services, visibility, Budget())

        return services.polled.of(kind, visibility, read, lambda: services.feed.position)

    watch = FiguresWatch(of_now, 1 / rate)

    async def recheck() -> None:
        # There may be other figures for the viewer of now.
        watch.wake()

    context.recheck = recheck
    watch.turn = context.turn
    return watch


def _rate_of_progress(given: float | None) -> float | None:
    return None if given is None or given is strawberry.UNSET else _rate(given)


def _rate(rate: float) -> float:
    if not SLOWEST <= rate <= FASTEST:
        raise InvalidArgument("maxPerSecond", f"maxPerSecond must be between {SLOWEST} and {FASTEST}.")
    return rate


def _cursor(info: Info, after: str | None) -> Cursor | None:
    after = info.context.resume_after or after
    if after is None or after is strawberry.UNSET:
        return None
    try:
        return Cursor.parse(after)
    except ValueError as error:
        raise InvalidArgument("after", str(error)) from None
