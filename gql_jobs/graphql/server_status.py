"""How the process that answers stands: whether it reaches the store. The same for everybody; it tells of no job."""

# Strawberry types its decorators as Any.
# mypy: disable-error-code="untyped-decorator"

from datetime import datetime
from itertools import count
from typing import Self

import strawberry

from gql_jobs import clock
from gql_jobs.graphql.context import Info
from gql_jobs.live.store_reach import ReachState, ReachWatch

_answers = count(1)


@strawberry.type(
    description="How the process that answers stands. It is told while NATS is away too; jobs that this process knows "
    "can be read then, but none can be created or moved."
)
class ServerStatus:
    """A state of the process, as an answer or as an event of whoever follows it."""

    key: strawberry.Private[str]
    """Tells it from all other answers: what another one was told says the time at which that was."""
    cursor = None
    """Whoever comes back is told the present state: there is nothing to go on after."""
    store_reachable: bool = strawberry.field(
        description="Whether the process reaches NATS and its JetStream, which keeps the jobs, answers in time."
    )
    since: datetime = strawberry.field(
        description="Since when that is so, by the clock of the process and as far as it has noticed."
    )
    now: datetime = strawberry.field(
        description="The moment of the answer by the clock of the process, by which a client finds how far its own "
        "differs."
    )


def _shown(state: ReachState) -> ServerStatus:
    return ServerStatus(
        key=f"status.{next(_answers)}",
        store_reachable=state.reachable,
        since=state.since,
        now=clock.now(),
    )


async def server_status(info: Info) -> ServerStatus:
    """Return the state of this process, after asking NATS; never fails because that is away."""
    return _shown(await info.context.store_reach().now())


class PresentedStatus:
    """An async iterator over the states of this process, as GraphQL objects."""

    __slots__ = ("_states",)

    def __init__(self, states: ReachWatch) -> None:
        self._states = states

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ServerStatus:
        return _shown(await self._states.__anext__())

    def step_back(self) -> None:
        """Bring the present state once more."""
        self._states.step_back()

    async def aclose(self) -> None:
        """Close the watch whose states these are."""
        await self._states.aclose()
