"""The subscriptions. What is wrong with the arguments is an error of the operation, before its first event."""

# Strawberry types its decorators as Any.
# mypy: disable-error-code="untyped-decorator"

from collections.abc import AsyncIterator
from typing import Annotated, Any, Self

import strawberry

from gql_jobs.graphql.context import Info
from gql_jobs.graphql.engine.budget import Budget
from gql_jobs.graphql.inputs import JobFilterInput, filter_of
from gql_jobs.graphql.job_types import JobEvent, Presenter, presented_event, presenter
from gql_jobs.jobs.errors import InvalidArgument, NotFound
from gql_jobs.jobs.model import Cursor, parse_job_id
from gql_jobs.live.bus import Subscriber


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
    ) -> AsyncIterator[JobEvent]:
        """Open the events of one job.

        :raises NotFound: if there is no such job.
        :raises InvalidArgument: if the cursor is of no event that is kept.
        :raises QueueUnavailable: if the index cannot be brought to the cursor or the job.
        """
        job_id = parse_job_id(id)
        if job_id is None:
            raise NotFound(id)
        context, services, session = info.context, info.context.services, info.context.session

        async def recheck() -> None:
            if await services().job(job_id, session.visibility, Budget()) is None:
                raise NotFound(job_id)

        # Set first: the viewer may become another one while the events are opened.
        context.recheck = recheck
        events = await services().watch.job(job_id, session, _cursor(info, after))
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
        filter: Annotated[  # noqa: A002 -- the schema's name
            dict[str, Any] | None,
            strawberry.argument(
                description="Which jobs; all of them where left out.", graphql_type=JobFilterInput | None
            ),
        ] = strawberry.UNSET,
        after: Annotated[
            str | None, strawberry.argument(description="The cursor of the last event seen.")
        ] = strawberry.UNSET,
    ) -> AsyncIterator[JobEvent]:
        """Open the events of all jobs that match.

        :raises InvalidArgument: if the filter is invalid, or the cursor is of no event that is kept.
        :raises QueueUnavailable: if the index cannot be brought to the cursor.
        """
        session = info.context.session
        wanted = filter_of(filter, session.visibility)
        events = await info.context.services().watch.all(wanted, session, _cursor(info, after))
        events.turn = info.context.turn
        return PresentedEvents(presenter(info), events)


def _cursor(info: Info, after: str | None) -> Cursor | None:
    after = info.context.resume_after or after
    if after is None or after is strawberry.UNSET:
        return None
    try:
        return Cursor.parse(after)
    except ValueError as error:
        raise InvalidArgument("after", str(error)) from None
