"""The handlers of the load. Each run is written down outside the system, in a file per process, before it does a thing.

A line is one ``write``: a kill leaves it whole or not there at all.
"""

import asyncio
import os
import signal
import time
from functools import cache
from pathlib import Path

from benchmarks.chaos.probe_jobs import ProbePayload, ProbeResult
from gql_jobs import JobContext, PermanentError, TransientError

RUNS = "GQL_JOBS_CHAOS_RUNS"
"""Environment variable: the folder of the files."""


async def run(context: JobContext, payload: ProbePayload) -> ProbeResult:
    """Wait as long as the payload says."""
    _begin(context, payload)
    if not payload.steps:
        await asyncio.sleep(payload.seconds)
    for step in range(payload.steps):
        await asyncio.sleep(payload.seconds / payload.steps)
        context.progress(100 * (step + 1) / payload.steps, f"step {step + 1}")
    return ProbeResult(token=payload.token, attempt=context.attempt)


def run_in_thread(context: JobContext, payload: ProbePayload) -> ProbeResult:
    """The same in a thread."""
    _begin(context, payload)
    for step in range(max(payload.steps, 1)):
        time.sleep(payload.seconds / max(payload.steps, 1))
        context.progress(100 * (step + 1) / max(payload.steps, 1), f"step {step + 1}")
    return ProbeResult(token=payload.token, attempt=context.attempt)


async def compute(context: JobContext, payload: ProbePayload) -> ProbeResult:
    """Compute all that time, in a process."""
    _begin(context, payload)
    began = time.monotonic()
    while time.monotonic() - began < payload.seconds:
        sum(range(50_000))
    return ProbeResult(token=payload.token, attempt=context.attempt)


def _begin(context: JobContext, payload: ProbePayload) -> None:
    os.write(_file(os.getpid()), f"{context.job_id} {context.attempt}\n".encode())
    if payload.poison:
        os.kill(os.getpid(), signal.SIGKILL)
    if payload.permanent:
        raise PermanentError("This can never work.")
    if context.attempt <= payload.fail_attempts:
        raise TransientError(f"Attempt {context.attempt} fails.")


@cache
def _file(pid: int) -> int:
    return os.open(Path(os.environ[RUNS]) / f"{pid}.runs", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
