"""Appending with a fence and a nonce: whoever was refused stored nothing, whoever was not told did."""

import asyncio
from collections import Counter

import pytest

from gql_jobs.jetstream.client import EXPECTED_SEQ_HEADER, Publisher
from gql_jobs.jetstream.connection import Connection, connect, open_publisher
from gql_jobs.jetstream.errors import (
    ApiError,
    FenceRefused,
    JetStreamError,
    MessageTooLarge,
    PublicationRefused,
    StoreFull,
    Unavailable,
)
from gql_jobs.jobs.errors import GqlJobsError, QueueFull, QueueUnavailable
from gql_jobs.jobs.messages import Completed, Kind, Progress, Started, Submission
from gql_jobs.jobs.model import JobPriority, JobStatus, new_job_id
from gql_jobs.log import codec
from gql_jobs.log import job_log as job_log_module
from gql_jobs.log.codec import encode_body
from gql_jobs.log.commands import JobCommands, creation
from gql_jobs.log.job_log import (
    Fence,
    JobLog,
    Superseded,
    Write,
    folded,
    job_events,
    open_job_log,
    queue_error,
    queue_errors,
    whole_job,
)
from gql_jobs.log.streams import ensure_streams
from gql_jobs.settings import Settings
from tests.by_hand import bring_to, report, say, stored, tailed
from tests.deadline import until
from tests.stories import JOB, OTHER, attempt_body, request, spec


def _started(job_id: str, event_seq: int, worker_id: str = "w1", submission: int = 1) -> Write:
    body = attempt_body(Started, 1, submission, worker_id=worker_id)
    return Write(job_id, codec.event_subject(job_id, Kind.STARTED), body, job_events(job_id, event_seq))


async def test_an_append_returns_the_sequence_under_which_it_is_stored(job_log: JobLog) -> None:
    assert await job_log.append(creation(JOB, spec())) == 1
    assert await job_log.append(_started(JOB, 0)) == 2
    history = await job_log.history(JOB)
    assert [message.seq for message in history] == [1, 2]
    assert all(message.nonce for message in history)
    job = folded(history)
    assert job is not None
    assert job.status is JobStatus.PROCESSING
    last = await job_log.last(codec.event_subjects(JOB))
    assert last is not None
    assert last.seq == 2
    assert await job_log.last(codec.event_subjects(OTHER)) is None


async def test_a_message_that_no_server_takes_is_refused_at_once_and_those_beside_it_are_stored(
    job_log: JobLog, connection: Connection
) -> None:
    too_large = "x" * connection.max_payload
    writes = [creation(new_job_id(), spec(tags=(tag,))) for tag in ("a", too_large, "b")]
    first, refused, last = await job_log.append_in_order(writes)
    assert (first, last) == (1, 2)
    assert isinstance(refused, MessageTooLarge)
    with pytest.raises(MessageTooLarge, match=rf"{connection.max_payload}$"):
        await job_log.append(writes[1], timeout=None)


async def test_headers_count_towards_the_size_of_a_message(connection: Connection) -> None:
    async with open_publisher(connection) as publisher:
        headers = {codec.NONCE_HEADER: "n" * 100}
        block = len(f"NATS/1.0\r\n{codec.NONCE_HEADER}: {'n' * 100}\r\n\r\n")
        body = b"x" * (connection.max_payload - block)
        await publisher.publish(codec.note_subject(JOB), body, headers, timeout=5)
        with pytest.raises(MessageTooLarge):
            await publisher.publish(codec.note_subject(JOB), body + b"x", headers, timeout=5)
        # The server would have closed the connection.
        await publisher.publish(codec.note_subject(JOB), b"x", headers, timeout=5)


async def test_a_superseded_worker_cannot_change_the_record(job_log: JobLog, connection: Connection) -> None:
    await job_log.append(creation(JOB, spec()))
    first = await job_log.append(_started(JOB, 0, "lost"))
    heir = await job_log.append(_started(JOB, first, "heir"))
    body = attempt_body(Completed, 1, 1, worker_id="lost")
    late = Write(JOB, codec.event_subject(JOB, Kind.COMPLETED), body, job_events(JOB, first))
    with pytest.raises(Superseded) as refused:
        await job_log.append(late)
    assert refused.value.last is not None
    assert refused.value.last.seq == heir
    assert len(await stored(connection)) == 3


async def test_a_fence_over_events_is_not_moved_by_progress_or_notes(job_log: JobLog, commands: JobCommands) -> None:
    job = (await commands.create(request())).job
    started = await say(job_log, job, Started)
    await report(job_log, job, 50)
    assert await job_log.append(_started(job.id, started)) == started + 2
    with pytest.raises(Superseded):
        await job_log.append(_started(job.id, 0)._replace(fence=whole_job(job.id, started)))


async def test_a_write_whose_acknowledgement_was_lost_is_recognised_as_stored(
    job_log: JobLog, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await job_log.append(creation(JOB, spec()))
    monkeypatch.setattr(job_log_module, "ACK_TIMEOUT", 0.1)
    deaf = JobLog(connection, Publisher(connection.client, connection.new_inbox()))
    assert await deaf.append(_started(JOB, 0)) == 2
    assert len(await stored(connection)) == 2


async def test_a_write_that_is_under_way_when_the_connection_closes_names_its_job(settings: Settings) -> None:
    async with connect(settings, "test") as connection:
        await ensure_streams(connection, settings)
        deaf = Publisher(connection.client, connection.new_inbox())
        job_log = JobLog(connection, deaf)
        writing = asyncio.create_task(job_log.append(creation(JOB, spec())))
        await until(lambda: deaf._waiting, "the write is sent")  # noqa: SLF001
        await connection.client.close()
        deaf.close()
    with pytest.raises(QueueUnavailable, match=JOB) as unknown:
        await asyncio.wait_for(writing, 10)
    assert unknown.value.extensions["jobId"] == JOB


class _Twice(Publisher):
    """Sends everything a second time, as a writer does who heard nothing."""

    async def send(
        self,
        subject: str,
        data: bytes,
        headers: dict[str, str] | None,
        timeout: float,  # noqa: ASYNC109
    ) -> "asyncio.Future[int]":
        first = await super().send(subject, data, headers, timeout)
        second = await super().send(subject, data, headers, timeout)
        await first
        return second


async def test_the_refusal_of_ones_own_repetition_is_success(connection: Connection) -> None:
    async with open_publisher(connection) as heard:
        twice = _Twice(connection.client, heard._inbox)  # noqa: SLF001
        twice._waiting = heard._waiting  # noqa: SLF001
        job_log = JobLog(connection, twice)
        assert await job_log.append(creation(JOB, spec())) == 1
        assert await job_log.append(_started(JOB, 0)) == 2
        with pytest.raises(FenceRefused):
            await twice.publish(codec.note_subject(JOB), b"", {EXPECTED_SEQ_HEADER: "9"}, 2.0)
    assert len(await stored(connection)) == 2


async def test_of_two_writers_exactly_one_wins_a_hundred_times(
    job_log: JobLog, connection: Connection, other_connection: Connection
) -> None:
    ids = [new_job_id() for _ in range(100)]
    await job_log.append_in_order([creation(job_id, spec()) for job_id in ids])
    async with open_job_log(other_connection) as rival:
        outcomes = await asyncio.gather(
            *(log.append(_started(job_id, 0, name)) for job_id in ids for log, name in ((job_log, "a"), (rival, "b"))),
            return_exceptions=True,
        )
    kinds = Counter(type(outcome) for outcome in outcomes)
    assert kinds == {int: 100, Superseded: 100}
    events = await tailed(connection, (codec.ALL_EVENTS,))
    assert Counter(subject for _, subject in events) == {codec.event_subject(job_id, Kind.STARTED): 1 for job_id in ids}


async def test_a_batch_is_stored_in_its_order_and_a_refusal_stays_in_its_place(
    job_log: JobLog, connection: Connection
) -> None:
    ids = [new_job_id() for _ in range(300)]
    await job_log.append(creation(ids[100], spec()))
    outcomes = await job_log.append_in_order([creation(job_id, spec()) for job_id in ids])
    assert isinstance(outcomes.pop(100), Superseded)
    assert outcomes == list(range(2, 301))
    in_stream = [subject for _, subject in await tailed(connection)]
    assert in_stream == [
        codec.queued_subject(job_id, "default", JobPriority.NORMAL) for job_id in (ids[100], *ids[:100], *ids[101:])
    ]


async def test_what_the_stream_refused_reaches_a_core_subscriber_but_no_ordered_consumer(
    job_log: JobLog, connection: Connection
) -> None:
    heard: list[str] = []

    async def hear(message: object) -> None:
        heard.append(getattr(message, "subject", ""))

    await job_log.append(creation(JOB, spec()))
    await job_log.append(_started(JOB, 0))
    subscription = await connection.subscribe(codec.ALL_JOBS, hear)
    with pytest.raises(Superseded):
        await job_log.append(_started(JOB, 0))
    await connection.drain(subscription)
    assert heard == [codec.event_subject(JOB, Kind.STARTED)]
    assert [seq for seq, _ in await tailed(connection)] == [1, 2]


async def test_a_rollup_keeps_only_the_newest_and_yields_to_any_event(
    job_log: JobLog, commands: JobCommands, connection: Connection
) -> None:
    job = await bring_to(job_log, commands, (await commands.create(request())).job, JobStatus.PROCESSING)
    for percent in (10, 20, 30):
        await report(job_log, job, percent)
    kept = await stored(connection, codec.progress_subject(job.id))
    assert [message.data for message in kept] == [
        encode_body(attempt_body(Progress, 1, job.submission_seq, progress=30))
    ]
    with pytest.raises(FenceRefused):
        await job_log.rollup(codec.progress_subject(job.id), b"{}", job_events(job.id, 0))


async def test_a_subject_that_no_stream_takes_is_refused_at_once_and_nothing_is_in_doubt(job_log: JobLog) -> None:
    write = Write(JOB, "nobody.listens", Submission(spec=spec()), Fence("nobody.>", 0))
    with pytest.raises(QueueUnavailable, match="No JetStream stream takes this message") as refused:
        await job_log.append(write, timeout=0.3)
    assert "jobId" not in refused.value.extensions


async def test_a_server_without_the_stream_is_said_to_be_unavailable(job_log: JobLog, connection: Connection) -> None:
    await connection.api(f"STREAM.DELETE.{codec.JOBS_STREAM}")
    with pytest.raises(QueueUnavailable, match="The stream could not be read"):
        await job_log.history(JOB)
    with pytest.raises(QueueUnavailable, match="The stream could not be read"):
        await job_log.last(codec.ALL_JOBS)


def test_an_absent_server_makes_the_queue_unavailable_in_the_same_words() -> None:
    with pytest.raises(QueueUnavailable, match=r"^NATS did not answer in time\.$"), queue_errors():
        raise Unavailable("NATS did not answer in time.")


def test_a_refused_call_makes_the_queue_unavailable_only_where_it_is_said_what_it_means() -> None:
    refused = ApiError("STREAM.INFO.JOBS", 404, 10059, "stream not found")
    with pytest.raises(ApiError), queue_errors():
        raise refused
    with pytest.raises(QueueUnavailable, match=r"^It is gone: stream not found\.$"), queue_errors("It is gone"):
        raise refused


@pytest.mark.parametrize(
    ("refused", "meant", "text"),
    [
        (StoreFull("no room"), QueueFull, "The store of the NATS server is full (no room)."),
        (PublicationRefused("why", 7), QueueUnavailable, "The stream refused the write: why (7)."),
        (Unavailable("NATS is not reachable."), QueueUnavailable, "NATS is not reachable."),
    ],
)
def test_each_failure_of_a_write_has_one_meaning(refused: JetStreamError, meant: type[GqlJobsError], text: str) -> None:
    told = queue_error(refused)
    assert isinstance(told, meant)
    assert text in told.message
