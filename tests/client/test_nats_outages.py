"""A client beside the broker while NATS goes away and comes back, and when its own process is killed."""

import asyncio
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest

from gql_jobs.client import errors, job_follower
from gql_jobs.client.nats_transport import NatsTransport
from gql_jobs.client.transport import JobEvent
from gql_jobs.jetstream.connection import Connection
from gql_jobs.jetstream.server import EmbeddedServer
from gql_jobs.jobs.messages import Completed, Started
from gql_jobs.jobs.model import Job, JobStatus, job_id_for_key
from gql_jobs.log import codec
from gql_jobs.log import job_log as job_log_module
from gql_jobs.log.commands import JobCommands
from gql_jobs.log.job_log import JobLog
from gql_jobs.log.streams import ensure_streams
from gql_jobs.settings import Settings
from tests.by_hand import RestartingServer, bring_to, frozen, report, say, stored
from tests.child_processes import running_process
from tests.client.nats_clients import client_of, created_one, creation, followers
from tests.deadline import until


@pytest.fixture
async def nats(server: RestartingServer) -> EmbeddedServer:
    """The server's first run."""
    return await server.start()


@pytest.fixture
async def client(settings: Settings, connection: Connection) -> AsyncIterator[NatsTransport]:
    """A client of a server with streams and no API process."""
    assert connection.connected
    async with client_of(settings) as transport:
        yield transport


@pytest.fixture
def commands(job_log: JobLog, settings: Settings) -> JobCommands:
    """What another process decides."""
    return JobCommands(job_log, settings)


async def _job(commands: JobCommands, job_id: str) -> Job:
    job = await commands.find(job_id)
    assert job is not None
    return job


async def test_who_waits_for_a_result_gets_it_although_nats_was_away(
    client: NatsTransport, server: RestartingServer, job_log: JobLog, commands: JobCommands
) -> None:
    before, meanwhile = [await created_one(client) for _ in range(2)]
    waiting = [asyncio.create_task(client.ended(job_id)) for job_id in (before, meanwhile)]
    await until(lambda: followers(job_log.connection), "the stream is followed")
    await bring_to(job_log, commands, await _job(commands, before), JobStatus.PROCESSING)
    await server.stop()
    await until(lambda: not job_log.connection.connected, "NATS is away")
    await server.start()
    await until(lambda: job_log.connection.connected, "NATS is back")
    await say(job_log, await _job(commands, before), Completed)
    await bring_to(job_log, commands, await _job(commands, meanwhile), JobStatus.DEAD_LETTER)
    ended = await asyncio.gather(*waiting)
    assert [job.status for job in ended] == [JobStatus.COMPLETED, JobStatus.DEAD_LETTER]


async def test_events_go_on_over_restarts_of_nats_without_a_gap_and_none_comes_twice(
    client: NatsTransport, server: RestartingServer, job_log: JobLog, commands: JobCommands
) -> None:
    job_id = await created_one(client)
    told: list[JobEvent] = []

    async def follow() -> None:
        async for event in client.events(job_id, None):
            told.append(event)  # noqa: PERF401 - what has come so far is looked at meanwhile

    following = asyncio.create_task(follow())
    await until(lambda: told, "the first event")
    job = await _job(commands, job_id)
    await say(job_log, job, Started)
    for percent in (20, 40, 60):
        await until(partial(_has_come, told, percent - 20), "what was said before")
        await server.stop()
        await until(lambda: not job_log.connection.connected, "NATS is away")
        await server.start()
        await until(lambda: job_log.connection.connected, "NATS is back")
        await report(job_log, job, percent)
    await until(partial(_has_come, told, 60), "all that was reported")
    await say(job_log, job, Completed)
    await following
    assert [(event.job.status, event.job.progress) for event in told] == [
        (JobStatus.QUEUED, 0),
        *((JobStatus.PROCESSING, percent) for percent in (0, 20, 40, 60)),
        (JobStatus.COMPLETED, 100),
    ]


def _has_come(told: list[JobEvent], percent: int) -> bool:
    return told[-1].job.progress == percent


async def test_who_waits_is_told_when_the_stream_was_deleted_and_the_job_with_it(
    client: NatsTransport, connection: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_follower, "COMPARED_EVERY", 0.05)
    job_id, other = await created_one(client), await created_one(client)
    waiting = asyncio.create_task(client.ended(job_id))
    following = asyncio.create_task(_all(client, other))
    await until(lambda: _two(connection), "the stream is followed")
    await connection.api(f"STREAM.DELETE.{codec.JOBS_STREAM}")
    await ensure_streams(connection, settings)
    for task in (waiting, following):
        with pytest.raises(errors.NotFound):
            await task
    again = await created_one(client)
    assert (await client.cancel(again)).status is JobStatus.CANCELLED
    assert (await client.ended(again)).status is JobStatus.CANCELLED


async def _two(connection: Connection) -> bool:
    return len(await followers(connection)) == 2


async def _all(client: NatsTransport, job_id: str) -> list[JobEvent]:
    return [event async for event in client.events(job_id, None)]


async def test_what_is_created_while_nats_is_away_is_stored_once_it_is_back(
    client: NatsTransport, server: RestartingServer, connection: Connection
) -> None:
    first = await created_one(client)
    await server.stop()
    await until(lambda: not connection.connected, "NATS is away")
    creating = asyncio.create_task(client.create([creation("k"), creation()]))
    finding = asyncio.create_task(client.find(first))
    await server.start()
    assert len(await creating) == 2
    assert await finding is not None
    assert len(await stored(connection)) == 3


async def test_one_call_makes_one_job_without_a_key_too_while_nats_does_not_acknowledge(
    client: NatsTransport, nats: EmbeddedServer, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []
    create_each = JobCommands.create_each

    async def noting(self: JobCommands, requests: Any, *rest: Any) -> Any:
        tries.append(len(requests))
        return await create_each(self, requests, *rest)

    monkeypatch.setattr(JobCommands, "create_each", noting)
    monkeypatch.setattr(job_log_module, "ACK_TIMEOUT", 0.3)
    await created_one(client)
    with frozen(nats):
        creating = [asyncio.create_task(client.create([creation() for _ in range(number)])) for number in (1, 3)]
        await until(lambda: len(tries) >= 1 + 2 * 2, "both calls have been tried again")
    made = [job for jobs in await asyncio.gather(*creating) for job in jobs]
    assert [job.deduplicated for job in made] == [False] * 4
    assert len({job.id for job in made}) == 4
    assert len(await stored(connection)) == 5


async def test_without_nats_a_creation_is_refused_when_patience_is_over(
    settings: Settings, server: RestartingServer, connection: Connection
) -> None:
    async with client_of(settings, patience=0.2) as client:
        await created_one(client)
        await server.stop()
        await until(lambda: not connection.connected, "NATS is away")
        with pytest.raises(errors.QueueUnavailable) as refused:
            await client.create([creation("k")])
        assert "jobId" not in refused.value.extensions
        with pytest.raises(errors.QueueUnavailable):
            await client.find(job_id_for_key("k"))


_WRITER = """
import asyncio, sys
from gql_jobs.jobs.registry import load_job_types
from gql_jobs.client.nats_transport import NatsTransport, nats_settings
from gql_jobs.log import stored_limits
from tests.client.nats_clients import creation
from tests.running import JOB_TYPES

async def main():
    load_job_types(JOB_TYPES)
    client = NatsTransport(nats_settings(sys.argv[1]))
    await client.find("no-id")
    session = await client._nats.session()
    # Asked for before a creation, and known for a while then.
    stored_limits.LIMITS_KEPT = 3600
    await session.commands._stored_limits.are_there(creation("k").job_type.queue, creation("k").job_type.name)
    print("open", flush=True)
    sys.stdin.readline()
    sent = session.connection.client.stats["out_msgs"]
    creating = asyncio.create_task(client.create([creation("k")]))
    while session.connection.client.stats["out_msgs"] < sent + 2:
        await asyncio.sleep(0)
    await session.connection.client._flush_pending()
    await asyncio.sleep(0.05)
    print("sent", flush=True)
    await creating

asyncio.run(main())
"""


async def test_a_client_that_was_killed_before_the_acknowledgement_repeats_by_its_key_and_makes_one_job(
    client: NatsTransport, nats: EmbeddedServer, connection: Connection
) -> None:
    async with running_process(sys.executable, "-c", _WRITER, nats.url, stdin=PIPE, stdout=PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert await process.stdout.readline() == b"open\n"
        with frozen(nats):
            process.stdin.write(b"\n")
            assert await process.stdout.readline() == b"sent\n"
            process.kill()
            await process.wait()
    await until(lambda: _is_stored(connection), "what was sent is stored")
    (again,) = await client.create([creation("k")])
    assert (again.id, again.deduplicated) == (job_id_for_key("k"), True)
    assert len(await stored(connection)) == 1


async def _is_stored(connection: Connection) -> bool:
    return bool(await stored(connection))
