"""A CPU-bound handler in tests, and what is made for it in each of its processes; see ``life_trace``."""

import logging
import os
import signal
import time
from typing import Protocol

from gql_jobs import JobContext, worker_shutdown, worker_startup
from tests.job_types.life_jobs import LifePayload, LifeResult
from tests.job_types.life_trace import LifeState, Pool, misdeed, trace


class LargeState(LifeState, Protocol):
    """With what takes much memory."""

    weights: bytes


class KeptLines(logging.Handler):
    """A handler of the log that traces a line."""

    def emit(self, record: logging.LogRecord) -> None:
        trace(record.getMessage())


@worker_startup
def load_large_model(state: LargeState) -> None:
    trace("load_large_model")
    logging.getLogger().addHandler(KeptLines(logging.ERROR))
    match misdeed("load_large_model"):
        case "raises":
            raise OSError("no such file: /secrets/model")
        case "is slow":
            time.sleep(2)
        case "hangs":
            time.sleep(60)
    state.model = "in a process"
    state.weights = b"w" * (200 << 20)


@worker_startup
async def open_own_pool(state: LifeState) -> None:
    state.pool = Pool()


@worker_shutdown
async def save_statistics(state: LifeState) -> None:
    assert await state.pool.is_usable()
    trace("save_statistics")


async def compute(context: JobContext[LifeState], payload: LifePayload) -> LifeResult:
    if payload.crash:
        os.kill(os.getpid(), signal.SIGKILL)
    context.log.error("computing")
    usable = await context.state.pool.is_usable()
    return LifeResult(pid=os.getpid(), model=context.state.model, pool_is_usable=usable)
