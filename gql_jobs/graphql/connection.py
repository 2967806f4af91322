"""A page of jobs in the connection form that Relay-style clients know."""

# Strawberry types its decorators as Any.
# mypy: disable-error-code="untyped-decorator"

import strawberry

from gql_jobs.graphql.context import Info, services
from gql_jobs.graphql.hooks import compute, computed
from gql_jobs.graphql.job_types import Job
from gql_jobs.graphql.registered import registered_types
from gql_jobs.jobs.filter import JobFilter
from gql_jobs.views.page import Page


@strawberry.type(description="A job and its place in the list.")
class JobEdge:
    cursor: str = strawberry.field(description="The job's place; give it as `after` to go on from here.")
    node: Job = strawberry.field(description="The job.")


@strawberry.type(description="Where a page lies in its list.")
class PageInfo:
    has_next_page: bool = strawberry.field(description="Whether jobs follow this page.")
    has_previous_page: bool = strawberry.field(description="Whether jobs precede this page.")
    start_cursor: str | None = strawberry.field(description="The cursor of the first job; null for an empty page.")
    end_cursor: str | None = strawberry.field(description="The cursor of the last job; null for an empty page.")


@strawberry.type(description="A page of jobs.")
class JobConnection:
    filter: strawberry.Private[JobFilter]
    page: strawberry.Private[Page]
    nodes: list[Job] = strawberry.field(description="The jobs of this page.")
    edges: list[JobEdge] = computed(description="The jobs of this page, each with its cursor.")
    page_info: PageInfo = computed(description="Where this page lies in the list.")

    @strawberry.field(description="How many jobs match the filter, on all pages together; counted only if asked for.")
    async def total_count(self, info: Info) -> int:
        return await services(info).reader.count(self.filter)


def _edges(shown: JobConnection) -> list[JobEdge]:
    return [JobEdge(cursor=shown.page.cursor(n), node=node) for n, node in enumerate(shown.nodes)]


def _page_info(shown: JobConnection) -> PageInfo:
    page = shown.page
    return PageInfo(
        has_next_page=page.has_next,
        has_previous_page=page.has_previous,
        start_cursor=page.cursor(0) if page.jobs else None,
        end_cursor=page.cursor(-1) if page.jobs else None,
    )


compute(JobConnection, edges=_edges, page_info=_page_info)


def connection_of(page: Page, filter_: JobFilter, info: Info) -> JobConnection:
    """The page as clients see it."""
    return JobConnection(filter=filter_, page=page, nodes=list(map(registered_types(info).present, page.jobs)))
