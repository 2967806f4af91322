"""Runs all checks, and formats their findings as text or as JSON."""

import asyncio
from contextlib import AsyncExitStack

import msgspec

from gql_jobs.doctor.indexes import check_indexes, check_losses
from gql_jobs.doctor.inspection import has_stream
from gql_jobs.doctor.installation import Finding, open_installation
from gql_jobs.doctor.jobs import check_jobs, check_orphans, check_workers
from gql_jobs.doctor.streams import check_consumers, check_streams
from gql_jobs.jetstream.connection import connect
from gql_jobs.jobs.errors import QueueUnavailable
from gql_jobs.jobs.registry import Registry
from gql_jobs.logs import redact
from gql_jobs.settings import Settings

CONNECT_TIMEOUT = 5.0
"""Seconds to wait for the connection to NATS."""
_CHECKS = (check_consumers, check_workers, check_jobs, check_indexes, check_losses, check_orphans)
_SYNC_NOTE = (
    "Whether the server flushes to disk before it acknowledges (sync_interval: always) cannot be asked for over a "
    "client connection: see its configuration. The embedded server does so with GQL_JOBS_SYNC_ALWAYS=true."
)
_ACCESS_NOTE = (
    "The bucket of credentials is not looked at: with GQL_JOBS_AUTH=required, /readyz of each API process says whether "
    "it follows that."
)


async def examine(settings: Settings, registry: Registry) -> list[Finding]:
    """Return the findings of all checks; nothing is changed.

    :raises QueueUnavailable: if the NATS server does not answer.
    """
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                connection = await stack.enter_async_context(connect(settings, "gql-jobs doctor"))
        except TimeoutError:
            raise QueueUnavailable("The NATS server cannot be reached; see GQL_JOBS_NATS_URL.") from None
        found = await check_streams(connection, settings)
        if await has_stream(connection):
            installation = await stack.enter_async_context(open_installation(settings, registry, connection))
            for check in _CHECKS:
                found += await check(installation)
        return [_without_secrets(finding) for finding in found]


def _without_secrets(finding: Finding) -> Finding:
    """Return the finding as a console may show it: what it quotes was stored by anybody."""
    return msgspec.structs.replace(
        finding,
        problem=redact(finding.problem),
        advice=redact(finding.advice),
        examples=tuple(redact(example) for example in finding.examples),
    )


def as_text(findings: list[Finding]) -> str:
    """Return the findings as lines of text."""
    lines: list[str] = []
    for finding in findings:
        lines += [f"[{finding.check}] {finding.problem}", f"    {finding.advice}"]
        lines += [f"    - {example}" for example in finding.examples]
        if finding.count > len(finding.examples) > 0:
            lines.append(f"    … and {finding.count - len(finding.examples)} more")
    return "\n".join([*(lines or ["Everything is as it should be."]), "", _SYNC_NOTE, _ACCESS_NOTE])


def in_json(findings: list[Finding]) -> str:
    """Return the JSON ``{"sound": …, "findings": [{check, problem, advice, count, examples}], "notes": […]}``."""
    report = {"sound": not findings, "findings": findings, "notes": [_SYNC_NOTE, _ACCESS_NOTE]}
    return msgspec.json.encode(report).decode()
