"""What tests of the workers tell: a job is made, is waited for, and its history is looked at."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydantic.alias_generators import to_camel

from gql_jobs.jetstream.connection import Connection
from gql_jobs.jetstream.stored_messages import StoredMessage, last_message, messages_of
from gql_jobs.jobs.handler import JobContext
from gql_jobs.jobs.messages import Kind, Message
from gql_jobs.jobs.model import Job, JobPriority, JobStatus
from gql_jobs.jobs.payloads import accept
from gql_jobs.jobs.requests import JobRequest
from gql_jobs.jobs.viewer import ANYBODY
from gql_jobs.log import codec
from gql_jobs.log.codec import JobMessage
from gql_jobs.web.runtime import Runtime
from gql_jobs_worker import execution
from tests.deadline import until

Handler = Callable[[JobContext, Any], Any]

TERMINAL = {Kind.COMPLETED, Kind.DEAD_LETTER, Kind.CANCELLED}


def handled_by(monkeypatch: pytest.MonkeyPatch, handler: Handler) -> None:
    """Have the pools of this process run ``handler`` for every job."""
    monkeypatch.setattr(execution, "load_handler", lambda _: handler)


def request(
    runtime: Runtime,
    type_name: str = "probe",
    *,
    priority: JobPriority = JobPriority.NORMAL,
    max_retries: int | None = None,
    timeout: float | None = None,
    run_at: datetime | None = None,
    **payload: Any,
) -> JobRequest:
    """What a client asks for; ``payload`` are the fields of the type's model, paths as text."""
    job_type = runtime.registry.get(type_name)
    assert job_type is not None
    fields = {to_camel(key): str(value) if isinstance(value, Path) else value for key, value in payload.items()}
    return JobRequest.of(
        job_type,
        accept(job_type.payload, fields),
        priority=priority,
        max_retries=max_retries,
        timeout=timeout,
        run_at=run_at,
    )


async def create(runtime: Runtime, type_name: str = "probe", **asked: Any) -> str:
    """Create a job and return its id."""
    return (await runtime.commands.create(request(runtime, type_name, **asked))).job.id


async def create_many(runtime: Runtime, number: int, **asked: Any) -> list[str]:
    """Create so many jobs that ask for the same."""
    requests = [request(runtime, **asked) for _ in range(number)]
    return [created.job.id for created in await runtime.commands.create_many(requests)]


async def ended(runtime: Runtime, job_id: str, *, within: float = 15.0) -> Job:
    """The job once a watcher has been told its end."""
    async with asyncio.timeout(within), await runtime.watch.job(job_id, ANYBODY) as events:
        async for event in events:
            if event.is_terminal:
                return event.job
    raise AssertionError(f"the events of {job_id} ended without its end")


async def all_ended(runtime: Runtime, job_ids: list[str], *, within: float = 15.0) -> list[Job]:
    """Every job once it has ended."""
    return await asyncio.gather(*(ended(runtime, job_id, within=within) for job_id in job_ids))


async def reached(runtime: Runtime, job_id: str, status: JobStatus, *, attempt: int = 0, within: float = 15.0) -> Job:
    """The job once the index has it in that state, in that attempt or a later one."""

    def there() -> Job | None:
        job = runtime.index.job(job_id)
        return job if job is not None and job.status is status and job.attempt >= attempt else None

    found = await until(there, f"{job_id} is {status}", within=within)
    assert found is not None
    return found


async def running(runtime: Runtime, *job_ids: str, attempt: int = 1, within: float = 15.0) -> None:
    """Wait until every job runs, in that attempt or a later one."""
    for job_id in job_ids:
        await reached(runtime, job_id, JobStatus.PROCESSING, attempt=attempt, within=within)


async def history(connection: Connection, job_id: str) -> list[Message]:
    """The job's messages as the stream has them, oldest first; checkpoints left out."""
    stored = [message async for message in messages_of(connection, codec.JOBS_STREAM, codec.job_subjects(job_id))]
    return [message for message in (JobMessage.of(one).read() for one in stored) if message is not None]


async def kinds(connection: Connection, job_id: str) -> list[Kind]:
    """What happened to the job, oldest first, but for progress and receipts."""
    outside = {Kind.PROGRESS, Kind.NOTE}
    return [message.kind for message in await history(connection, job_id) if message.kind not in outside]


async def assert_one_end(connection: Connection, job_id: str) -> None:
    """Exactly one terminal event, nothing but a submission after it, and no attempt without an outcome."""
    happened = await kinds(connection, job_id)
    assert [kind for kind in happened if kind in TERMINAL] == happened[-1:], f"{job_id}: {happened}"


async def dead_letter(connection: Connection, job_id: str) -> dict[str, Any]:
    """What ``jobs-dlq`` holds of the job."""
    subject = codec.event_subject(job_id, Kind.DEAD_LETTER)

    async def copied() -> StoredMessage | None:
        return await last_message(connection, codec.DEAD_LETTERS_STREAM, subject)

    copy = await until(copied, f"the server copies the dead letter of {job_id}")
    assert copy is not None
    decoded: dict[str, Any] = msgspec.json.decode(copy.data)
    return decoded


class Delivered(msgspec.Struct):
    """How far a consumer has come: ``consumer_seq`` counts deliveries, redeliveries included."""

    consumer_seq: int = 0


class LaneInfo(msgspec.Struct):
    """What the server says of a lane's consumer."""

    delivered: Delivered
    num_ack_pending: int
    num_redelivered: int
    num_waiting: int
    num_pending: int


async def lane_info(
    connection: Connection, queue: str = "default", priority: JobPriority = JobPriority.NORMAL
) -> LaneInfo:
    """The consumer of a lane, now."""
    call = f"CONSUMER.INFO.{codec.JOBS_STREAM}.{codec.consumer_name(queue, priority)}"
    return msgspec.json.decode(await connection.api(call), type=LaneInfo)


async def lane_is(connection: Connection, what: str, condition: Callable[[LaneInfo], bool], **lane: Any) -> None:
    """Wait until the server says so of a lane."""

    async def asked() -> bool:
        return condition(await lane_info(connection, **lane))

    await until(asked, what)


async def done_with(connection: Connection, **lane: Any) -> None:
    """Wait until every delivery of a lane has been acked."""
    await lane_is(connection, "every delivery is acked", lambda i: not i.num_ack_pending and not i.num_pending, **lane)


async def pulls_closed(connection: Connection) -> None:
    """Wait until no worker asks for jobs any more."""
    await lane_is(connection, "no pull is open", lambda info: info.num_waiting == 0)


def waiting_for(event: asyncio.Event, result: Any) -> Callable[[JobContext, Any], Awaitable[Any]]:
    """A handler that returns ``result`` once the event is set."""

    async def handler(_: JobContext, __: Any) -> Any:
        await event.wait()
        return result

    return handler
