"""The handlers of the measured job types. Times are those of the machine's monotonic clock, one for all processes."""

import asyncio
import os
import time
from pathlib import Path

from benchmarks.job_types import Letter, Nothing, Ticks
from gql_jobs import JobContext

MARKS = "BENCHMARKS_MARKS"
"""The environment variable that names the file of times."""


class _Marks:
    def __init__(self) -> None:
        self._file = Path(os.environ.get(MARKS, os.devnull)).open("a", buffering=1)  # noqa: SIM115 - until the end
        self.begun = False

    def add(self, value: float) -> None:
        self._file.write(f"{value!r}\n")


_marks = _Marks()


async def noop(context: JobContext, payload: Letter) -> Nothing:  # noqa: ARG001
    """Note when the first of these began in this process."""
    if not _marks.begun:
        _marks.begun = True
        _marks.add(time.monotonic())
    return Nothing()


async def stamp(context: JobContext, payload: Letter) -> Nothing:  # noqa: ARG001
    """Note how long after the moment in the body this line is reached, in seconds."""
    _marks.add(time.monotonic() - float(payload.body))
    return Nothing()


async def ticker(context: JobContext, payload: Ticks) -> Nothing:
    """Report progress; watchers find the moment of each report in its message."""
    await asyncio.sleep(payload.first)
    for number in range(payload.reports):
        context.progress(1 + 98 * number / payload.reports, repr(time.monotonic()))
        await asyncio.sleep(payload.pause)
    return Nothing()
