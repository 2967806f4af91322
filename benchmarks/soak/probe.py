"""Imported into the processes that are measured: the job types of the load, and how many tasks asyncio has.

SIGUSR1 makes a process write that number into a file of its own; the file's existence says that the signal is safe.
"""

import asyncio
import os
import signal
from pathlib import Path
from types import FrameType

import benchmarks.chaos.probe_jobs  # noqa: F401  # registers the types
from benchmarks.chaos.probe_handlers import RUNS


def tasks_file(folder: Path, pid: int) -> Path:
    """Where the process of that id writes."""
    return folder / f"{pid}.tasks"


def _count(_signal: int, _frame: FrameType | None) -> None:
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        return
    tasks_file(Path(os.environ[RUNS]), os.getpid()).write_text(str(len(asyncio.all_tasks(running))))


if RUNS in os.environ:  # not in the process that measures
    signal.signal(signal.SIGUSR1, _count)
    tasks_file(Path(os.environ[RUNS]), os.getpid()).write_text("")
