"""Retrying many jobs at once: a few at a time, passing over those that somebody else has moved meanwhile."""

from asyncio import TaskGroup
from collections.abc import Iterator

from msgspec.structs import replace

from gql_jobs.graphql.context import Services
from gql_jobs.jobs.errors import InvalidState, NotFound
from gql_jobs.jobs.filter import JobFilter
from gql_jobs.jobs.model import Job, JobStatus
from gql_jobs.log.commands import JobCommands

AT_A_TIME = 32
RETRYABLE = (JobStatus.DEAD_LETTER, JobStatus.CANCELLED)


async def retry_all(services: Services, meant: JobFilter) -> list[Job]:
    """Retry what matches and can be retried; returns the jobs that were.

    :raises QueueUnavailable: if NATS stops answering; what was retried before that stays so.
    """
    wanted = RETRYABLE if meant.status is None else tuple(s for s in RETRYABLE if s in meant.status)
    if not wanted:
        return []
    waiting = iter(await services.reader.ids(replace(meant, status=wanted)))
    retried: list[Job] = []
    try:
        async with TaskGroup() as group:
            for _ in range(AT_A_TIME):
                group.create_task(_retry_in_turn(services.commands, waiting, retried))
    except ExceptionGroup as failures:
        # One sentence for the client: all of them failed for the same reason.
        raise failures.exceptions[0] from failures
    return retried


async def _retry_in_turn(commands: JobCommands, waiting: Iterator[str], retried: list[Job]) -> None:
    for job_id in waiting:
        try:
            retried.append(await commands.retry(job_id))
        except (InvalidState, NotFound):
            continue
