"""Lists of jobs as clients see them: pages, and how a watched list changes."""

# Strawberry types its decorators as Any.
# mypy: disable-error-code="untyped-decorator"

from collections.abc import Sequence
from operator import attrgetter
from typing import cast

import strawberry

from gql_jobs.graphql.context import Info
from gql_jobs.graphql.engine.budget import OverBudget
from gql_jobs.graphql.engine.strawberry_internals import compute, computed
from gql_jobs.graphql.job_types import Job, Needed, Presenter, PresentsJobs, needed_of_jobs, page_nodes
from gql_jobs.index.index import LARGEST_LIST, ListTooLarge
from gql_jobs.index.page import Page
from gql_jobs.jobs.requests import JobFilter
from gql_jobs.live.windows import ListChange, Move

# Pages of jobs.


@strawberry.type(description="A job and its place in the list.")
class JobEdge:
    """A job in a connection, with its cursor, as Relay defines it."""

    cursor: str = strawberry.field(description="The job's place; give it as `after` to go on from here.")
    node: Job = strawberry.field(description="What stands at this place of the list.")


@strawberry.type(description="Where a page lies in its list.")
class PageInfo:
    """The place of a connection in its list."""

    has_next_page: bool = strawberry.field(description="Whether jobs follow this page.")
    has_previous_page: bool = strawberry.field(description="Whether jobs precede this page.")
    start_cursor: str | None = strawberry.field(description="The cursor of the first job; null for an empty page.")
    end_cursor: str | None = strawberry.field(description="The cursor of the last job; null for an empty page.")


@strawberry.type(description="A page of jobs.")
class JobConnection:
    """A page of jobs as a connection, as Relay defines it."""

    filter: strawberry.Private[JobFilter]
    page: strawberry.Private[Page]
    nodes: list[Job] = strawberry.field(description="The jobs of this page.")
    edges: list[JobEdge] = computed(description="The jobs of this page, each with its cursor.")
    page_info: PageInfo = computed(description="Where this page lies in the list.")

    @strawberry.field(description="How many jobs match the filter, on all pages together; counted only if asked for.")
    async def total_count(self, info: Info) -> int:
        """Return the number of jobs in the index that match."""
        return await info.context.services().reader.count(self.filter)


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


async def presented_page(page: Page, job_filter: JobFilter, info: Info, needed: Needed) -> JobConnection:
    """Return the page as a connection.

    :param job_filter: the filter of the page, for the total count.
    :param needed: what the page was read for.
    """
    return JobConnection(filter=job_filter, page=page, nodes=await page_nodes(page, info, needed))


async def presented_jobs(job_ids: Sequence[str], info: Info) -> dict[str, Job]:
    """Return by id those jobs that the index has, as objects, read with as much as is selected of them.

    :raises OverBudget: if they have more bytes together than an operation may read.
    """
    needed, services = needed_of_jobs(info), info.context.services()
    try:
        jobs = services.index.listed(job_ids, with_payloads=needed is Needed.VALUES)
    except ListTooLarge as error:
        raise OverBudget("number of bytes read", LARGEST_LIST, error.size) from None
    schema = cast("PresentsJobs", info.schema)
    if needed is Needed.TYPES:
        return {key: await schema.present_by_type(job, services.reader) for key, job in jobs.items()}
    present = schema.present if needed is Needed.VALUES else schema.present_unread
    return {key: present(job) for key, job in jobs.items()}


# Changes of a list of jobs.


@strawberry.interface(
    description="A change of a watched list. Changes come in groups: after the last of one, with `more` false, the "
    "list and `totalCount` are what `jobs` answers."
)
class JobsChange:
    """The fields that every change has, read from ``source`` when they are selected."""

    source: strawberry.Private[ListChange]
    present: strawberry.Private[Presenter]
    key: strawberry.Private[str]
    """Tells it from all other changes of its list."""
    cursor = None
    """A list begins anew with a snapshot: there is nothing to go on after. Clients see ``position`` as the cursor."""
    position: str = strawberry.field(
        name="cursor",
        description="The place in the history of all jobs that the list is of: a decimal number, the same for all "
        "changes of a group.",
    )
    total_count: int = computed(description="How many jobs match the filter then, those that are not shown included.")
    more: bool = computed(description="Whether further changes of this group follow at once.")


@strawberry.type(
    description="The whole list: the first thing that comes, and again whenever its changes would be more than the "
    "list."
)
class JobsSnapshot(JobsChange):
    """The list as of a position."""

    nodes: list[Job] = computed(description="The first jobs of the order that match.")


@strawberry.type(description="A job has come into the list; one that was in it already has moved.")
class JobEntered(JobsChange):
    """A job at a new place."""

    job: Job = computed(description="What stands at the new place.")
    before: strawberry.ID | None = computed(
        description="The id of the job in front of which it stands now; null at the end of the list."
    )


@strawberry.type(description="A job has changed and stands where it stood.")
class JobUpdated(JobsChange):
    """A job at the place that it had."""

    job: Job = computed(description="What stands there now, in the place of what was shown of it.")


@strawberry.type(
    description="A job is no longer in the list: it does not match any more, others have pushed it out at the end, or "
    "it has expired."
)
class JobLeft(JobsChange):
    """A job that was shown, and is no more."""

    id: strawberry.ID = computed(description="Which of the jobs that were shown it was.")


compute(JobsChange, total_count=attrgetter("source.total"), more=attrgetter("source.more"))
compute(JobsSnapshot, nodes=lambda shown: list(map(shown.present, shown.source.jobs)))
compute(JobEntered, job=lambda shown: shown.present(shown.source.job), before=attrgetter("source.before"))
compute(JobUpdated, job=lambda shown: shown.present(shown.source.job))
compute(JobLeft, id=attrgetter("source.job_id"))

CHANGE_TYPES: dict[Move | None, type[JobsChange]] = {
    None: JobsSnapshot,
    Move.ENTERED: JobEntered,
    Move.UPDATED: JobUpdated,
    Move.LEFT: JobLeft,
}


async def presented_change(change: ListChange, info: Info, needed: Needed) -> JobsChange:
    """Return the change as an object of its kind.

    :param needed: what its jobs were read for.
    """
    schema = cast("PresentsJobs", info.schema)
    present = schema.present_unread if needed is Needed.NOTHING else schema.present
    if needed is Needed.TYPES:
        reader = info.context.services().reader
        jobs = change.jobs or ((change.job,) if change.job is not None else ())
        shown = {job.id: await schema.present_by_type(job, reader) for job in jobs}
        present = _found_in(shown)
    return CHANGE_TYPES[change.move](source=change, present=present, key=change.key, position=str(change.position))


def _found_in(shown: dict[str, Job]) -> Presenter:
    return lambda job: shown[job.id]
