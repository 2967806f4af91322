"""Workers in tests: a pool within this process, or a real process to be killed."""

import asyncio
import os
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gql_jobs.jobs.registry import Registry, load_job_types
from gql_jobs.settings import Settings
from gql_jobs_worker.pool import run_pool
from tests.child_processes import running_process

JOB_TYPES = ("tests.job_types.probe_jobs",)
ROOT = Path(__file__).parents[1]


def python_path(root: Path) -> str:
    """Where processes of a checkout find its packages, whichever one is installed."""
    return os.pathsep.join((str(root), str(root / "workers")))


PYTHON_PATH = python_path(ROOT)
"""For processes of this checkout."""


class RunningWorker:
    """A pool and the two stages of its end."""

    def __init__(self) -> None:
        self.stop_fetching = asyncio.Event()
        self.hand_back = asyncio.Event()
        self.started = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    async def stop(self) -> None:
        """Stage one, and wait for the end."""
        self.stop_fetching.set()
        if self.task is not None:
            await self.task


@asynccontextmanager
async def running_worker(
    settings: Settings, queues: tuple[str, ...] | None = None, registry: Registry | None = None
) -> AsyncIterator[RunningWorker]:
    """A pool within this process; running jobs are handed back when the block ends.

    :param registry: the job types that it knows; by default those of this process.
    """
    worker = RunningWorker()
    pool = run_pool(
        settings,
        registry or load_job_types(),
        queues or (),
        stop_fetching=worker.stop_fetching,
        hand_back=worker.hand_back,
        started=worker.started,
    )
    worker.task = asyncio.create_task(pool)
    try:
        yield worker
    finally:
        worker.stop_fetching.set()
        worker.hand_back.set()
        await worker.task


@asynccontextmanager
async def worker_process(
    settings: Settings,
    *arguments: str,
    program: tuple[str, ...] = ("gql_jobs_worker",),
    root: Path = ROOT,
    **options: Any,
) -> AsyncIterator[Process]:
    """``python -m gql_jobs_worker`` with the test job types, as a process of its own; killed when the block ends.

    :param program: what Python is to run instead, and its first arguments.
    :param root: another checkout, from which it is run.
    :param options: those of ``asyncio.create_subprocess_exec``.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": python_path(root),
        "GQL_JOBS_NATS_URL": settings.nats_url or "",
        "GQL_JOBS_ACK_WAIT": str(settings.ack_wait),
        "GQL_JOBS_NUM_WORKERS": str(settings.num_workers),
        "GQL_JOBS_BASE_RETRY_DELAY": str(settings.base_retry_delay),
        "GQL_JOBS_SHUTDOWN_GRACE": str(settings.shutdown_grace),
    }
    command = (sys.executable, "-m", *program, "--import", *JOB_TYPES, *arguments)
    # What lies in the working directory is imported before all else.
    async with running_process(*command, env=environment, **{"cwd": root, **options}) as process:
        yield process
