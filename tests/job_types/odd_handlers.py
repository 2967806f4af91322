"""Handlers of the type ``probe`` for workers that are given them: one says odd texts, one fails twice behind a gate."""

import asyncio
from pathlib import Path

from gql_jobs import JobContext, PermanentError, TransientError
from gql_jobs.jobs.registry import JobType, Registry
from tests.job_types.probe_jobs import ProbePayload, ProbeResult


async def say(context: JobContext, payload: ProbePayload) -> ProbeResult:
    """Say what the payload has as ``saves``, and fail with it."""
    context.progress(50, payload.saves)
    raise PermanentError(payload.saves)


async def fail_twice(context: JobContext, payload: ProbePayload) -> ProbeResult:
    """Wait for the gate, fail twice, leave a trace."""
    assert payload.gate is not None
    assert payload.trace is not None
    while not await asyncio.to_thread(Path(payload.gate).exists):  # noqa: ASYNC110 - a test opens it
        await asyncio.sleep(0.01)
    if context.attempt <= 2:
        raise TransientError("Not yet.")
    Path(payload.trace).touch()  # noqa: ASYNC240
    return ProbeResult(attempt=context.attempt)


def probe_with(handler: str) -> Registry:
    """A registry whose ``probe`` is run by that function of this module."""
    registry = Registry()
    registry.add(JobType("probe", payload=ProbePayload, result=ProbeResult, handler=f"{__name__}:{handler}"))
    return registry


async def spread(context: JobContext, payload: ProbePayload) -> ProbeResult:
    """Put the text that the payload has as ``saves`` wherever a handler can, then fail or succeed as it says."""
    text = str(payload.saves)
    await context.checkpoint({"kept": text})
    await context.save_artifact(f"{text}.txt", text.encode() * 10_000)
    context.progress(50, text)
    if payload.permanent:
        raise PermanentError(text)
    if context.attempt <= payload.fail_attempts:
        raise TransientError(text)
    return ProbeResult(attempt=context.attempt, text=text)
