"""A full store: new jobs are refused, running ones finish."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gql_jobs.jetstream.connection import Connection
from gql_jobs.jetstream.server import EmbeddedServer, embedded_server
from gql_jobs.jobs.errors import QueueFull
from gql_jobs.jobs.model import JobStatus
from gql_jobs.jobs.viewer import Scope
from gql_jobs.log.commands import JobCommands
from gql_jobs.log.job_log import JobLog
from gql_jobs.settings import Settings
from tests.by_hand import bring_to, stored
from tests.job_types.probe_jobs import ProbePayload
from tests.stories import request
from tests.viewers import viewer

LARGE = ProbePayload(gate="x" * 200_000)


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    """A server whose store holds one MiB."""
    async with embedded_server(tmp_path / "store", max_store_bytes=1 << 20) as server:
        yield server


async def test_over_its_share_of_the_store_new_jobs_are_refused_and_running_ones_finish(
    job_log: JobLog, settings: Settings, connection: Connection
) -> None:
    half = settings.model_copy(update={"max_store_bytes": 1 << 20, "queue_full_ratio": 0.5})
    before = JobCommands(job_log, half)
    jobs = [(await before.create(request(LARGE))).job for _ in range(3)]
    full = JobCommands(job_log, half)
    count = len(await stored(connection))
    for asked in (full.create(request()), full.create_many([request(), request()])):
        with pytest.raises(QueueFull, match="of at most 524288 bytes"):
            await asked
    assert len(await stored(connection)) == count
    await bring_to(job_log, full, jobs[0], JobStatus.COMPLETED)
    dead = await bring_to(job_log, full, jobs[1], JobStatus.CANCELLED)
    await full.retry(dead.id)


async def test_how_full_the_store_is_is_told_to_those_alone_who_see_all_jobs(
    job_log: JobLog, settings: Settings
) -> None:
    await JobCommands(job_log, settings).create(request(LARGE))
    full = JobCommands(job_log, settings.model_copy(update={"max_store_bytes": 1000}))
    with pytest.raises(QueueFull, match=r"The store holds \d+ of at most"):
        await full.create(request())
    for limited in viewer("ada", "red"), viewer(types=["probe"]), viewer("eve", None, Scope.CREATE):
        with pytest.raises(QueueFull) as told:
            await full.create(request(), limited)
        assert told.value.message == "The queue is full. The store has no room. Try again when jobs have expired."


async def test_a_store_without_room_refuses_at_once_and_says_that_it_is_full(
    job_log: JobLog, settings: Settings
) -> None:
    greedy = JobCommands(job_log, settings.model_copy(update={"queue_full_ratio": 1.0}))
    began = time.monotonic()
    with pytest.raises(QueueFull, match="The queue is full") as refused:
        await greedy.create_many([request(LARGE)] * 10)
    assert time.monotonic() - began < 5
    assert refused.value.extensions["code"] == "QUEUE_FULL"
