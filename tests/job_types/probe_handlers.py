"""The handlers of the probe types."""

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

from gql_jobs import ChildJob, JobContext, PermanentError, TransientError
from tests.job_types.probe_jobs import ProbePayload, ProbeResult

_POLL = 0.01


async def run(context: JobContext, payload: ProbePayload) -> ProbeResult:
    """Do what the payload says."""
    _trace(context, payload)
    if payload.saves is not None and context.saved is None:
        await context.checkpoint(payload.saves)
    for step in range(payload.children):
        await _create(context, payload, step)
    if payload.crash:
        os.kill(os.getpid(), signal.SIGKILL)
    _raise(context, payload)
    await _save(context, payload)
    if payload.blocks:
        time.sleep(payload.blocks)  # noqa: ASYNC251
    while payload.gate is not None and not await asyncio.to_thread(Path(payload.gate).exists):
        await _pause(_POLL, deaf=payload.deaf)
    for step in range(payload.steps):
        context.progress(100 * (step + 1) / payload.steps, f"step {step + 1}")
        await asyncio.sleep(payload.seconds / payload.steps)
    if not payload.steps:
        await _pause(payload.seconds, deaf=payload.deaf)
    text = "x" * payload.result_bytes
    return ProbeResult(attempt=context.attempt, saved=context.saved, text=_url(context, payload) or text)


def run_in_thread(context: JobContext, payload: ProbePayload) -> ProbeResult:
    """Do what the payload says, in a thread."""
    _trace(context, payload)
    if payload.saves is not None and context.saved is None:
        context.wait(context.checkpoint(payload.saves))
    for step in range(payload.children):
        context.wait(_create(context, payload, step))
    _raise(context, payload)
    began = time.monotonic()
    while (payload.gate is not None and not Path(payload.gate).exists()) or time.monotonic() - began < payload.seconds:
        context.progress(50, "in a thread")
        time.sleep(_POLL)
    return ProbeResult(attempt=context.attempt, saved=context.saved)


async def compute(context: JobContext, payload: ProbePayload) -> ProbeResult:
    """Do what the payload says, computing all the while."""
    _trace(context, payload)
    if payload.saves is not None and context.saved is None:
        await context.checkpoint(payload.saves)
    for step in range(payload.children):
        await _create(context, payload, step)
    if payload.crash:
        os.kill(os.getpid(), signal.SIGKILL)
    _raise(context, payload)
    await _save(context, payload)
    began = time.monotonic()
    while (payload.gate is not None and not Path(payload.gate).exists()) or time.monotonic() - began < payload.seconds:  # noqa: ASYNC240
        context.progress(50, "computing")
        sum(range(100_000))
    text = _url(context, payload) or str(os.getpid())
    return ProbeResult(attempt=context.attempt, saved=context.saved, text=text)


async def _create(context: JobContext, payload: ProbePayload, steps: int) -> ChildJob[Any]:
    child = ProbePayload(steps=steps, saves="x" * payload.result_bytes or None)
    return await context.create(child, key=payload.child_key, type="probe")


def _url(context: JobContext, payload: ProbePayload) -> str | None:
    return context.artifact_url(payload.artifact) if payload.artifact is not None else None


async def _save(context: JobContext, payload: ProbePayload) -> None:
    if payload.artifact is not None:
        await context.save_artifact(payload.artifact, bytes(payload.artifact_bytes))


def _raise(context: JobContext, payload: ProbePayload) -> None:
    if payload.permanent:
        raise PermanentError("This can never work.")
    if context.attempt <= payload.fail_attempts:
        raise TransientError(f"Attempt {context.attempt} fails.")


def _trace(context: JobContext, payload: ProbePayload) -> None:
    if payload.trace is not None:
        with Path(payload.trace).open("a") as file:
            file.write(f"{context.job_id} {context.attempt}\n")


async def _pause(seconds: float, *, deaf: bool) -> None:
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        if not deaf:
            raise
