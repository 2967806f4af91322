"""A handler in tests whose module is not imported when its worker starts, which serves another queue."""

import os

from gql_jobs import JobContext, worker_startup
from tests.job_types.life_jobs import LifePayload, LifeResult
from tests.job_types.life_trace import LifeState, misdeed, trace


@worker_startup
async def come_late(state: LifeState) -> None:
    trace("come_late")
    if misdeed("come_late") == "raises":
        raise OSError("late")
    state.model = "late"


async def use_late(context: JobContext[LifeState], _: LifePayload) -> LifeResult:
    return LifeResult(pid=os.getpid(), model=context.state.model, pool_is_usable=False)
