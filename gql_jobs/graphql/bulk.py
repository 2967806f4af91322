"""Bulk actions as clients see them: plans, runs, and the fields that make, begin, follow and stop them."""

# Strawberry types its decorators as Any.
# mypy: disable-error-code="untyped-decorator"

from datetime import datetime
from typing import Annotated, Any, Self

import strawberry
from msgspec.structs import replace

from gql_jobs.graphql.context import Info
from gql_jobs.graphql.inputs import JobFilterInput, filter_of
from gql_jobs.graphql.job_lists import presented_jobs
from gql_jobs.graphql.job_types import Job
from gql_jobs.jobs import bulk
from gql_jobs.jobs.bulk import BulkAction, BulkState
from gql_jobs.jobs.errors import InvalidArgument
from gql_jobs.live.bulk_runs import FASTEST_RUN
from gql_jobs.live.bulk_watches import RunWatch

_MOST = 2**31 - 1

RunId = Annotated[strawberry.ID, strawberry.argument(description="The run's id, as `runBulk` gave it.")]


@strawberry.type(description="What a bulk action would do: which jobs it touches, as of the moment it was planned.")
class BulkPlan:
    """A plan, as whoever made it sees it."""

    token: str = strawberry.field(description="Stands for the plan; `runBulk` takes it, from whoever made it only.")
    action: BulkAction = strawberry.field(description="What is done to each job.")
    count: int = strawberry.field(
        description="How many jobs match and are in a state to which the action can be done. Those that move before "
        "their turn are skipped, and no others come in."
    )
    sample: list[Job] = strawberry.field(description="Up to five of them, the oldest, with which a run begins.")
    expires_at: datetime = strawberry.field(description="Until when it may be run: a day after it was made.")


@strawberry.type(description="A run of a plan, and how far it is.")
class BulkRun:
    """A run, or a state of it as an event of whoever follows it."""

    key: strawberry.Private[str]
    """Tells it from the other states of the run."""
    cursor = None
    """Whoever comes back is told the present state: there is nothing to go on after."""
    id: strawberry.ID = strawberry.field(description="Names the run for a day; its maker can ask for it and stop it.")
    action: BulkAction = strawberry.field(description="What is done to each of its jobs.")
    state: BulkState = strawberry.field(description="Whether it goes on, and how it has ended.")
    planned: int = strawberry.field(
        description="How many jobs were left to do when it began; no more than `first`, where that was given."
    )
    done: int = strawberry.field(description="To how many the action was done.")
    skipped: int = strawberry.field(description="How many had moved since they were planned, and were left alone.")
    failed: int = strawberry.field(description="How many were left as they were because of an unexpected error.")
    started_at: datetime = strawberry.field(description="When it began.")
    finished_at: datetime | None = strawberry.field(description="When it ended, or was last heard of; null before.")


def shown_run(run: bulk.BulkRun, key: str = "") -> BulkRun:
    """Return a run as clients see it.

    :param key: tells this state from others, where it is one of several.
    """
    return BulkRun(
        key=key,
        id=strawberry.ID(run.id),
        action=run.action,
        state=run.state,
        planned=min(run.planned, _MOST),
        done=min(run.done, _MOST),
        skipped=min(run.skipped, _MOST),
        failed=min(run.failed, _MOST),
        started_at=run.started_at,
        finished_at=run.finished_at,
    )


async def bulk_run(info: Info, id: RunId) -> BulkRun | None:  # noqa: A002 -- the schema's name
    """Return a run of the viewer's, or None."""
    context = info.context
    found = await context.services().bulk_runs.find(id, context.session.viewer)
    return shown_run(found) if found is not None else None


async def _plan_bulk(
    info: Info,
    action: Annotated[BulkAction, strawberry.argument(description="What is to be done to each job.")],
    filter: Annotated[  # noqa: A002 -- the schema's name
        dict[str, Any] | None,
        strawberry.argument(
            description="Which jobs; all to which it can be done where left out.",
            graphql_type=JobFilterInput | None,
        ),
    ] = strawberry.UNSET,
    dead_letter_group: Annotated[
        str | None,
        strawberry.argument(description="Only dead letters of the group with this key, as `deadLetterGroups` has it."),
    ] = strawberry.UNSET,
) -> BulkPlan:
    context = info.context
    wanted = filter_of(filter, context.session.visibility)
    if dead_letter_group:
        if len(dead_letter_group) > _LONGEST_KEY:
            raise InvalidArgument("deadLetterGroup", "No group of dead letters has so long a key.")
        wanted = replace(wanted, failure_group=dead_letter_group)
    made = await context.services().bulk_runs.plan(action, wanted, context.session.viewer)
    shown = await presented_jobs(made.sample, info)
    return BulkPlan(
        token=made.token,
        action=action,
        count=made.plan.jobs,
        sample=[shown[job_id] for job_id in made.sample if job_id in shown],
        expires_at=made.plan.expires_at,
    )


_LONGEST_KEY = 64


async def _run_bulk(
    info: Info,
    token: Annotated[str, strawberry.argument(description="The plan, as `planBulk` gave it.")],
    max_per_second: Annotated[
        float | None,
        strawberry.argument(description="Jobs a second at most: above 0, up to 1000; as fast as it goes without."),
    ] = strawberry.UNSET,
    first: Annotated[
        int | None,
        strawberry.argument(
            description="Only so many of the plan's jobs, the oldest, as a trial; a later run of the same plan does "
            "the rest."
        ),
    ] = strawberry.UNSET,
) -> BulkRun:
    rate, most = max_per_second or None, first if first is not strawberry.UNSET else None
    if max_per_second is not strawberry.UNSET and max_per_second is not None and not 0 < max_per_second <= FASTEST_RUN:
        raise InvalidArgument("maxPerSecond", f"maxPerSecond must be above 0, and {FASTEST_RUN:g} at most.")
    if most is not None and most < 1:
        raise InvalidArgument("first", "first must be at least 1.")
    context = info.context
    runs = context.services().bulk_runs
    viewer, client = context.session.viewer, context.client()
    return shown_run(await runs.run(token, viewer, per_second=rate, first=most, client=client))


async def _stop_bulk(info: Info, id: RunId) -> BulkRun:  # noqa: A002 -- the schema's name
    context = info.context
    return shown_run(await context.services().bulk_runs.stop(id, context.session.viewer))


BULK_FIELDS = [
    strawberry.mutation(
        _plan_bulk,
        name="planBulk",
        description="Plan an action on all jobs that match, or on a group of dead letters. Nothing is done yet: "
        "`count` says how many jobs `runBulk` would touch.",
    ),
    strawberry.mutation(
        _run_bulk,
        name="runBulk",
        description="Begin to run a plan, and answer at once: `bulkProgress` follows it. Jobs that were done by an "
        "earlier run, or have moved since the plan was made, are left alone.",
    ),
    strawberry.mutation(
        _stop_bulk,
        name="stopBulk",
        description="Have a run end before its next job. A run of another process may be RUNNING for two more seconds.",
    ),
]


class PresentedRuns:
    """An async iterator over the states of a run, as GraphQL objects."""

    __slots__ = ("_states",)

    def __init__(self, states: RunWatch) -> None:
        self._states = states

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> BulkRun:
        state = await self._states.__anext__()
        return shown_run(state.run, state.key)

    def step_back(self) -> None:
        """Bring the last state once more."""
        self._states.step_back()

    async def aclose(self) -> None:
        """Close the watch whose states these are."""
        await self._states.aclose()
