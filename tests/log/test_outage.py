"""NATS away: an answer within five seconds, and nothing told to have failed is stored later unannounced."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable
from typing import Any

import pytest

from gql_jobs.jetstream.connection import Connection
from gql_jobs.jetstream.server import EmbeddedServer
from gql_jobs.jobs.errors import QueueUnavailable
from gql_jobs.jobs.messages import Completed, Kind, Started
from gql_jobs.jobs.model import JobStatus
from gql_jobs.log import codec
from gql_jobs.log import job_log as job_log_module
from gql_jobs.log.commands import JobCommands
from gql_jobs.log.job_log import JobLog, Write, job_events
from tests.by_hand import RestartingServer, bring_to, frozen, stored
from tests.deadline import until
from tests.job_types.probe_jobs import ProbePayload
from tests.stories import attempt_body, request


@pytest.fixture
async def nats(server: RestartingServer) -> EmbeddedServer:
    """The server's first run."""
    return await server.start()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writers that give up after a second instead of four."""
    monkeypatch.setattr(job_log_module, "WRITE_TIMEOUT", 1.0)
    monkeypatch.setattr(job_log_module, "ACK_TIMEOUT", 0.5)


async def _refusal(asked: Awaitable[Any]) -> QueueUnavailable:
    began = time.monotonic()
    with pytest.raises(QueueUnavailable) as refused:
        await asked
    assert time.monotonic() - began < 5.0
    return refused.value


async def _ids(connection: Connection) -> set[str]:
    await until(lambda: connection.connected, "the client is connected again")
    return {message.subject.split(".")[1] for message in await stored(connection)}


async def test_everything_answers_within_five_seconds_while_the_server_is_frozen(
    commands: JobCommands, job_log: JobLog, nats: EmbeddedServer, connection: Connection
) -> None:
    queued = (await commands.create(request())).job
    dead = await bring_to(job_log, commands, (await commands.create(request())).job, JobStatus.DEAD_LETTER)
    large = ProbePayload(gate="x" * 20_000)
    with frozen(nats):
        refusals = await asyncio.gather(
            _refusal(commands.create(request())),
            _refusal(commands.create_many([request(large) for _ in range(1000)])),
            _refusal(commands.cancel(queued.id)),
            _refusal(commands.retry(dead.id)),
            _refusal(commands.find(queued.id)),
        )
    created, batch, *decisions = [refusal.extensions for refusal in refusals]
    assert created["jobId"]
    assert batch["acceptedIds"] == []
    assert len(set(batch["uncertainIds"])) == 1000
    assert all("jobId" not in extensions for extensions in decisions)
    # What was on its way may be stored now, before what comes later; whoever was told "unknown" holds its id.
    await commands.cancel(queued.id)
    kept = await _ids(connection)
    known = {queued.id, dead.id}
    assert known <= kept <= known | {created["jobId"], *batch["uncertainIds"]}
    assert (await commands.find(created["jobId"]) is not None) is (created["jobId"] in kept)


@pytest.mark.usefixtures("impatient")
async def test_everything_is_answered_and_nothing_stored_while_the_server_is_gone(
    commands: JobCommands, server: RestartingServer, connection: Connection, job_log: JobLog
) -> None:
    queued = (await commands.create(request())).job
    await server.stop()
    await until(lambda: not connection.connected, "the client has noticed")
    refusals = await asyncio.gather(
        _refusal(commands.create(request())),
        _refusal(commands.create_many([request() for _ in range(100)])),
        _refusal(commands.cancel(queued.id)),
        _refusal(job_log.append(_started(queued.id, queued.submission_seq), timeout=0.5)),
    )
    assert all("jobId" not in refusal.extensions for refusal in refusals)
    await server.start()
    assert await _ids(connection) == {queued.id}
    assert len(await stored(connection)) == 1


@pytest.mark.usefixtures("impatient")
async def test_what_was_sent_into_a_dying_server_is_stored_only_if_its_writer_was_told_that_it_might(
    commands: JobCommands, server: RestartingServer, nats: EmbeddedServer, connection: Connection
) -> None:
    asked = [asyncio.create_task(commands.create(request())) for _ in range(50)]
    await asyncio.sleep(0)
    os.kill(nats.pid, signal.SIGKILL)
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    await server.stop()
    announced = {o.extensions.get("jobId") for o in outcomes if isinstance(o, QueueUnavailable)}
    created = {o.job.id for o in outcomes if not isinstance(o, BaseException)}
    await server.start()
    kept = await _ids(connection)
    assert created <= kept <= created | announced


async def test_a_write_without_a_limit_to_its_time_is_stored_once_when_the_server_is_back(
    commands: JobCommands, job_log: JobLog, server: RestartingServer, connection: Connection
) -> None:
    job = (await commands.create(request())).job
    started = await job_log.append(_started(job.id, job.submission_seq))
    await server.stop()
    body = attempt_body(Completed, 1, job.submission_seq)
    write = Write(job.id, codec.event_subject(job.id, Kind.COMPLETED), body, job_events(job.id, started))
    outcome = asyncio.create_task(job_log.append(write, timeout=None))
    await until(lambda: not connection.connected, "the client has noticed")
    assert not outcome.done()
    await server.start()
    assert await asyncio.wait_for(outcome, 10) == started + 1
    assert len(await stored(connection, codec.event_subjects(job.id))) == 2


async def test_a_write_in_doubt_is_settled_within_its_time_when_the_server_is_back_in_time(
    commands: JobCommands, nats: EmbeddedServer
) -> None:
    with frozen(nats):
        asked = asyncio.create_task(commands.create(request()))
        done, _ = await asyncio.wait([asked], timeout=1.0)
        assert not done
    assert (await asked).deduplicated is False


def _started(job_id: str, submission: int) -> Write:
    body = attempt_body(Started, 1, submission)
    return Write(job_id, codec.event_subject(job_id, Kind.STARTED), body, job_events(job_id, 0))
