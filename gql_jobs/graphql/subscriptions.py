"""What can be watched. A refusal comes before the first event, as an error of the operation itself."""

# Strawberry types its decorators as Any.
# mypy: disable-error-code="untyped-decorator"

from collections.abc import AsyncIterator
from typing import Annotated, Self

import strawberry

from gql_jobs.graphql.context import Context, Info, services
from gql_jobs.graphql.inputs import JobFilterInput
from gql_jobs.graphql.job_types import JobEvent, Presenter, event_of, presenter
from gql_jobs.jobs.errors import NotFound
from gql_jobs.jobs.model import Cursor, parse_job_id
from gql_jobs.jobs.requests import JobFilter
from gql_jobs.live.bus import Subscriber


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
    ) -> AsyncIterator[JobEvent]:
        job_id = parse_job_id(id)
        if job_id is None:
            raise NotFound(id)
        present = presenter(info)
        return _Presented(info.context, present, await services(info).watch.job(job_id, _cursor(info, after)))

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
    ) -> AsyncIterator[JobEvent]:
        meant = filter.value() if filter else JobFilter()
        present = presenter(info)
        return _Presented(info.context, present, await services(info).watch.all(meant, _cursor(info, after)))


def _cursor(info: Info, after: str | None) -> Cursor | None:
    after = info.context.resume_after or after
    return None if after is None or after is strawberry.UNSET else Cursor.parse(after)


class _Presented:
    """The events of a subscriber as the objects that clients see."""

    def __init__(self, context: Context, present: Presenter, events: Subscriber) -> None:
        self._context = context
        self._present = present
        self._events = events

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> JobEvent:
        shown = event_of(await anext(self._events), self._present)
        self._context.cursor = shown.cursor
        return shown

    async def aclose(self) -> None:
        await self._events.aclose()
