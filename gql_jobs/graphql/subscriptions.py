"""What can be watched. A refusal comes before the first event, as an error of the operation itself."""

# Strawberry types its decorators as Any.
# mypy: disable-error-code="untyped-decorator"

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

import strawberry

from gql_jobs.graphql.context import Context, Info, services
from gql_jobs.graphql.inputs import JobFilterInput
from gql_jobs.graphql.job_types import JobEvent, Presenter, event_of, presenter
from gql_jobs.jobs.errors import NotFound
from gql_jobs.jobs.fold import Event
from gql_jobs.jobs.model import Cursor, parse_job_id
from gql_jobs.jobs.requests import JobFilter


@strawberry.type(description="Everything that can be watched.")
class Subscription:
    @strawberry.subscription(
        description=(
            "The events of one job: first its latest, so that a late subscriber knows the state at once, then every "
            "later one; completes after the terminal event. With `after`, what came after that cursor instead."
        )
    )
    async def job_progress(
        self,
        info: Info,
        id: Annotated[strawberry.ID, strawberry.argument(description="The job's id.")],  # noqa: A002
        after: Annotated[
            str | None, strawberry.argument(description="The cursor of the last event seen.")
        ] = strawberry.UNSET,
    ) -> AsyncGenerator[JobEvent, None]:
        job_id = parse_job_id(id)
        if job_id is None:
            raise NotFound(id)
        return await _begun(info, services(info).watch.job(job_id, _cursor(info, after)))

    @strawberry.subscription(
        description=(
            "The events of all jobs that match, from now on or from after a cursor. The filter looks at the job as of "
            "each event. Never completes by itself."
        )
    )
    async def job_events(
        self,
        info: Info,
        filter: Annotated[  # noqa: A002
            JobFilterInput | None, strawberry.argument(description="Which jobs; all of them where left out.")
        ] = strawberry.UNSET,
        after: Annotated[
            str | None, strawberry.argument(description="The cursor of the last event seen.")
        ] = strawberry.UNSET,
    ) -> AsyncGenerator[JobEvent, None]:
        meant = filter.value() if filter else JobFilter()
        # Not from its first event on, which may be hours away: the resolver would be kept waiting, with all it holds.
        events = await services(info).watch.open_all(meant, _cursor(info, after))
        return _presented(info.context, presenter(info), None, events)


def _cursor(info: Info, after: str | None) -> Cursor | None:
    after = info.context.resume_after or after
    return None if after is None or after is strawberry.UNSET else Cursor.parse(after)


async def _begun(info: Info, events: AsyncGenerator[Event, None]) -> AsyncGenerator[JobEvent, None]:
    """The stream from its first event on.

    A stream is refused at its first step. Waiting for that step here makes the refusal an error of the operation
    (``error`` over a WebSocket) and not of a first result that never was.
    """
    first = await anext(events, None)
    return _presented(info.context, presenter(info), first, events)


async def _presented(
    context: Context, present: Presenter, first: Event | None, events: AsyncGenerator[Event, None]
) -> AsyncGenerator[JobEvent, None]:
    async with aclosing(events):
        if first is not None:
            yield _noted(context, event_of(first, present))
        async for event in events:
            yield _noted(context, event_of(event, present))


def _noted(context: Context, shown: JobEvent) -> JobEvent:
    context.cursor = shown.cursor
    return shown
