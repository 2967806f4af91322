"""Handlers of types in tests, and what is made for them when a worker starts; see ``life_trace``."""

import asyncio
import os
import time
from pathlib import Path

from gql_jobs import JobContext, TransientError, WorkerState, worker_shutdown, worker_startup
from tests.deadline import until
from tests.job_types.life_jobs import LifePayload, LifeResult
from tests.job_types.life_trace import LifeState, Pool, misdeed, trace


@worker_startup
async def open_pool(state: LifeState) -> None:
    trace("open_pool")
    if misdeed("open_pool") == "raises":
        raise OSError("cannot connect to postgres://shop:hunter2@db")
    if misdeed("open_pool") == "hangs":
        await asyncio.sleep(60)
    state.pool = Pool()


@worker_startup
def load_model(state: WorkerState) -> None:
    trace("load_model")
    if misdeed("load_model") == "raises":
        raise TransientError("the model is being replaced")
    if misdeed("load_model") == "hangs":
        time.sleep(60)
    state.model = "large"


@worker_shutdown
async def close_pool(state: LifeState) -> None:
    assert await state.pool.is_usable()
    trace("close_pool")


@worker_shutdown
def unload_model(state: LifeState) -> None:
    trace("unload_model")
    if misdeed("unload_model") == "raises":
        raise RuntimeError("no longer there")
    del state.model


async def use_state(context: JobContext[LifeState], payload: LifePayload) -> LifeResult:
    trace("handler")
    try:
        if payload.gate is not None:
            await until(Path(payload.gate).exists, "the gate is open", within=60)
    finally:
        trace("handler ends")
    usable = await context.state.pool.is_usable()
    return LifeResult(pid=os.getpid(), model=context.state.model, pool_is_usable=usable)


def use_state_in_thread(context: JobContext[LifeState], _: LifePayload) -> LifeResult:
    usable = context.wait(context.state.pool.is_usable())
    return LifeResult(pid=os.getpid(), model=context.state.model, pool_is_usable=usable)
