"""Limits in the stream: what they do to creations, and what types are registered with."""

from functools import partial
from typing import Any

import pytest
from msgspec.structs import replace

from gql_jobs.jetstream.connection import Connection
from gql_jobs.jobs.limits import UNLIMITED, Limits, limits_of
from gql_jobs.jobs.model import Gate, JobStatus
from gql_jobs.jobs.registry import JobType
from gql_jobs.log import codec, stored_limits
from gql_jobs.log.commands import JobCommands
from gql_jobs.log.job_log import JobLog
from gql_jobs.log.steering import SteeringLog, as_value
from gql_jobs.log.stored_limits import store_type_limits
from gql_jobs.settings import Settings
from tests.by_hand import stored
from tests.deadline import until
from tests.stories import request

TWO = Limits.of(concurrency=2)


@pytest.fixture(autouse=True)
def kept_for_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each creation ask."""
    monkeypatch.setattr(stored_limits, "LIMITS_KEPT", 0.0)


def _said(answer: bool, _queue: str, _type: str) -> bool:
    return answer


async def limit(job_log: JobLog, what: str, name: str, limits: Limits) -> None:
    """Store limits, or remove them."""
    value = None if limits.is_none else as_value(limits)
    await SteeringLog(job_log).change(what, name, lambda _: value)


async def limits_in_stream(job_log: JobLog, name: str) -> Limits:
    """Return what a type is limited to."""
    message = await SteeringLog(job_log).read(codec.TYPE_LIMITS, name)
    return limits_of(message.value if message is not None else None)


async def test_a_job_that_nothing_limits_is_created_as_ever(commands: JobCommands, connection: Connection) -> None:
    job = (await commands.create(request())).job
    assert (job.status, job.spec.gate) == (JobStatus.QUEUED, None)
    (message,) = await stored(connection)
    assert b'"v":' not in message.data
    assert message.kind is not None
    assert message.subject == f"jobs.{job.id}.queued.default.normal"


@pytest.mark.parametrize(("what", "name"), [(codec.QUEUE_LIMITS, "default"), (codec.TYPE_LIMITS, "probe")])
async def test_a_job_waits_that_is_created_while_its_queue_or_its_type_has_limits(
    commands: JobCommands, job_log: JobLog, what: str, name: str
) -> None:
    before = (await commands.create(request())).job
    await limit(job_log, what, name, TWO)
    limited = (await commands.create(request())).job
    await limit(job_log, what, name, UNLIMITED)
    after = (await commands.create(request())).job
    assert [job.status for job in (before, limited, after)] == [JobStatus.QUEUED, JobStatus.WAITING, JobStatus.QUEUED]
    found = await commands.find(limited.id)
    assert found is not None
    assert (found.status, found.spec.gate) == (JobStatus.WAITING, Gate())


async def test_limits_of_other_queues_and_types_are_not_those_of_a_job(commands: JobCommands, job_log: JobLog) -> None:
    await limit(job_log, codec.QUEUE_LIMITS, "mail", TWO)
    await limit(job_log, codec.TYPE_LIMITS, "default", TWO)
    await limit(job_log, codec.QUEUE_LIMITS, "probe", TWO)
    assert (await commands.create(request())).job.status is JobStatus.QUEUED


async def test_a_process_that_follows_the_stream_asks_the_leader_nothing(
    job_log: JobLog, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def asked(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(SteeringLog, "read", asked)
    for is_limited, status in ((True, JobStatus.WAITING), (False, JobStatus.QUEUED)):
        commands = JobCommands(job_log, settings, is_limited=partial(_said, is_limited))
        assert (await commands.create(request())).job.status is status


async def test_what_the_leader_has_said_is_used_for_a_second(
    commands: JobCommands, job_log: JobLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_limits, "LIMITS_KEPT", 1.0)
    reads = 0
    read = SteeringLog.read

    async def counted(self: SteeringLog, what: str, name: str) -> Any:
        nonlocal reads
        reads += 1
        return await read(self, what, name)

    monkeypatch.setattr(SteeringLog, "read", counted)
    await commands.create_many([request() for _ in range(20)])
    await commands.create(request())
    assert reads == 2
    await limit(job_log, codec.QUEUE_LIMITS, "default", TWO)

    async def waits() -> bool | None:
        return (await commands.create(request())).job.status is JobStatus.WAITING or None

    await until(waits, "a job that waits")


def of_type(**options: Any) -> JobType:
    """Return the type of probes, limited so."""
    return replace(request().job_type, **options)


async def test_the_limits_of_types_are_stored_where_they_differ(job_log: JobLog, connection: Connection) -> None:
    await store_type_limits(job_log, [of_type()])
    assert await stored(connection) == []
    await store_type_limits(job_log, [of_type(concurrency=2, rate="30/min")])
    assert await limits_in_stream(job_log, "probe") == Limits.of(concurrency=2, per_second=0.5)
    (first,) = await SteeringLog(job_log).all(codec.TYPE_LIMITS)
    await store_type_limits(job_log, [of_type(concurrency=2, rate="30/min")])
    assert await SteeringLog(job_log).all(codec.TYPE_LIMITS) == [first]


async def test_the_process_that_started_last_says_what_a_type_is_limited_to(job_log: JobLog) -> None:
    await store_type_limits(job_log, [of_type(concurrency=2)])
    await store_type_limits(job_log, [of_type(concurrency=1, concurrency_key=str)])
    assert await limits_in_stream(job_log, "probe") == Limits.of(concurrency_per_key=1)
    await store_type_limits(job_log, [of_type()])
    assert (await limits_in_stream(job_log, "probe")).is_none


async def test_the_limits_of_types_that_a_process_does_not_know_stay(job_log: JobLog) -> None:
    await limit(job_log, codec.TYPE_LIMITS, "others", TWO)
    await store_type_limits(job_log, [of_type(concurrency=1)])
    assert await limits_in_stream(job_log, "others") == TWO


async def test_a_retry_by_hand_passes_the_gate_if_there_are_limits_by_now(
    commands: JobCommands, job_log: JobLog
) -> None:
    job = (await commands.create(request())).job
    await commands.cancel(job.id)
    await limit(job_log, codec.QUEUE_LIMITS, "default", TWO)
    retried = await commands.retry(job.id)
    assert (retried.status, retried.spec.gate) == (JobStatus.WAITING, Gate())
    found = await commands.find(job.id)
    assert found is not None
    assert (found.status, found.spec, found.last_seq) == (JobStatus.WAITING, retried.spec, retried.last_seq)
