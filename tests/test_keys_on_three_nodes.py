"""On three nodes with three copies: of those that want one key at once one has it, also while the leader is killed."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from benchmarks.chaos.servers import Node
from gql_jobs.jobs.errors import InvalidState, KeyTaken, NotFound, QueueUnavailable
from gql_jobs.jobs.messages import Started
from gql_jobs.jobs.model import Job, JobStatus
from gql_jobs.jobs.unique_keys import KeyPolicy, UniqueKey
from gql_jobs.log.commands import Created
from gql_jobs.log.job_log import JobLog
from gql_jobs.settings import Settings
from tests.job_types.probe_jobs import ProbePayload
from tests.stories import request
from tests.test_cluster import LATE, Racers, _kill_the_leader, cluster, settings, two_logs

__all__ = ["cluster", "settings", "two_logs"]
RACES = 15
"""Of each pair."""
REFUSALS = (KeyTaken, InvalidState, NotFound)
Race = Callable[[Racers, int, Job], Awaitable[Any]]


def _key(racers: Racers, policy: KeyPolicy) -> UniqueKey:
    return UniqueKey(f"key {len(racers.jobs)}", policy)


async def _create(racers: Racers, number: int, job: Job) -> Any:
    key = UniqueKey(job.spec.key or "", KeyPolicy.REJECT)
    return await racers.commands[number].create(request(key=key))


async def _replace(racers: Racers, number: int, job: Job) -> Any:
    key = UniqueKey(job.spec.key or "", KeyPolicy.REPLACE)
    return await racers.commands[number].create(request(ProbePayload(steps=7), key=key))


async def _retry(racers: Racers, number: int, job: Job) -> Any:
    return await racers.commands[number].retry(job.id, wait_for_copy=False)


async def _start(racers: Racers, number: int, job: Job) -> Any:
    return await racers.event(number, job, Started)


async def _expire(racers: Racers, number: int, job: Job) -> Any:
    return await racers.expire(number, job)


async def _cross(racers: Racers, pair: tuple[Race, Race], job: Job) -> list[Any]:
    async def late(number: int, racer: Race) -> Any:
        await asyncio.sleep(random.uniform(0, LATE))  # noqa: S311 - no secret
        return await racer(racers, number, job)

    return await asyncio.gather(*(late(n, one) for n, one in enumerate(pair)), return_exceptions=True)


async def _with_key(racers: Racers, key: str) -> list[Job]:
    """The jobs with a key that have not ended, whoever knows them."""
    found = [await racers.commands[0].find(job_id) for job_id in racers.jobs]
    return [job for job in found if job is not None and job.spec.key == key and not job.status.is_terminal]


def _note(racers: Racers, outcomes: list[Any]) -> None:
    for outcome in outcomes:
        assert isinstance(outcome, (Created, Job, *REFUSALS)), outcome
        racers.jobs += [outcome.id] if isinstance(outcome, Created) else []


async def test_of_those_that_want_a_key_at_once_one_has_it(settings: Settings, two_logs: tuple[JobLog, JobLog]) -> None:
    racers = Racers(settings, two_logs)
    for pair in ((_create, _create), (_retry, _create), (_retry, _retry)):
        for _ in range(RACES):
            job = await racers.job(JobStatus.DEAD_LETTER, key=_key(racers, KeyPolicy.REJECT))
            outcomes = await _cross(racers, pair, job)
            _note(racers, outcomes)
            assert [isinstance(one, REFUSALS) for one in outcomes].count(True) == 1, outcomes
            assert len(await _with_key(racers, job.spec.key or "")) == 1


async def test_a_replacement_that_crosses_a_start_or_another_one_is_not_lost(
    settings: Settings, two_logs: tuple[JobLog, JobLog]
) -> None:
    racers = Racers(settings, two_logs)
    for pair in ((_replace, _start), (_replace, _replace)):
        for _ in range(RACES):
            job = await racers.job(JobStatus.QUEUED, key=_key(racers, KeyPolicy.REPLACE))
            outcomes = await _cross(racers, pair, job)
            (made, *_) = [one for one in outcomes if isinstance(one, Created)]
            _note(racers, [one for one in outcomes if isinstance(one, Created)])
            found = await racers.commands[0].find(made.id)
            assert found is not None
            assert b'"steps":7' in bytes(found.spec.payload)
            waiting = [one for one in await _with_key(racers, job.spec.key or "") if one.attempt == 0]
            assert len({one.id for one in waiting}) <= 1


async def test_a_retry_that_crosses_the_expiry_of_its_job_makes_no_ghost(
    settings: Settings, two_logs: tuple[JobLog, JobLog]
) -> None:
    racers = Racers(settings, two_logs)
    for _ in range(RACES):
        job = await racers.job(JobStatus.DEAD_LETTER, key=_key(racers, KeyPolicy.REJECT))
        retried, expired = await _cross(racers, (_retry, _expire), job)
        found = await racers.commands[0].find(job.id)
        if isinstance(retried, Job):
            assert expired == 0
            assert found is not None
            assert found.status is JobStatus.QUEUED
        else:
            assert isinstance(retried, REFUSALS)
            assert found is None or found.status is JobStatus.DEAD_LETTER
        assert not isinstance(await _create(racers, 0, job) if found is None else None, Exception)


@pytest.mark.timeout(180)
async def test_creators_of_one_key_make_one_job_while_the_leader_is_killed(
    cluster: list[Node], settings: Settings, two_logs: tuple[JobLog, JobLog]
) -> None:
    racers = Racers(settings, two_logs)
    made: list[str] = []

    async def create(number: int) -> None:
        key = UniqueKey(f"key {number % 3}")
        while True:
            try:
                created = await racers.commands[number % 2].create(request(key=key, idempotency_key=f"once {number}"))
            except QueueUnavailable:
                await asyncio.sleep(0.2)
                continue
            made.append(created.id)
            return

    async with asyncio.TaskGroup() as group:
        for number in range(30):
            group.create_task(create(number))
        await _kill_the_leader(cluster, settings)
    racers.jobs += made
    for number in range(3):
        assert len({job.id for job in await _with_key(racers, f"key {number}")}) == 1
    assert len(set(made)) == 3
