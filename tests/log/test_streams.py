"""Streams and consumers: made once, brought up to date, never deleted."""

import json
from typing import Any

import pytest

from gql_jobs.jetstream.connection import Connection, connect
from gql_jobs.jetstream.errors import ApiError
from gql_jobs.jobs.errors import ErrorCode, QueueUnavailable
from gql_jobs.jobs.model import JobPriority, JobStatus
from gql_jobs.log import codec
from gql_jobs.log.commands import JobCommands
from gql_jobs.log.job_log import JobLog
from gql_jobs.log.streams import (
    UnsuitableServer,
    dead_letter_stream,
    ensure_consumers,
    ensure_streams,
    jobs_stream,
    look_for_streams,
    stream_info,
    unsuitable_streams,
)
from gql_jobs.settings import Settings
from tests.by_hand import bring_to, report
from tests.stories import request

CONSUMERS = sorted(codec.consumer_name(queue, priority) for queue in ("default", "threads") for priority in JobPriority)


async def _config(connection: Connection, call: str) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(await connection.api(call))["config"]
    return config


async def _consumers(connection: Connection) -> list[str]:
    names = json.loads(await connection.api(f"CONSUMER.NAMES.{codec.JOBS_STREAM}"))["consumers"]
    return sorted(names)


async def test_whoever_only_looks_for_the_streams_makes_none(settings: Settings) -> None:
    async with connect(settings, "client") as connection:
        with pytest.raises(QueueUnavailable, match="streams are made by API processes"):
            await look_for_streams(connection)
        assert json.loads(await connection.api("STREAM.NAMES"))["streams"] is None
        await ensure_streams(connection, settings)
        await look_for_streams(connection)


async def test_no_limit_of_the_stream_can_drop_a_job(connection: Connection) -> None:
    config = await _config(connection, f"STREAM.INFO.{codec.JOBS_STREAM}")
    assert (config["max_age"], config["max_bytes"], config["max_msgs"]) == (0, -1, -1)
    assert config["max_msgs_per_subject"] == -1
    assert (config["retention"], config["storage"]) == ("limits", "file")
    for feature in ("allow_rollup_hdrs", "allow_msg_ttl", "allow_msg_schedules"):
        assert config[feature]


async def test_the_server_itself_copies_dead_letters(connection: Connection) -> None:
    config = await _config(connection, f"STREAM.INFO.{codec.DEAD_LETTERS_STREAM}")
    (source,) = config["sources"]
    assert (source["name"], source["filter_subject"]) == (codec.JOBS_STREAM, codec.ALL_DEAD_LETTERS)
    assert not config.get("subjects")


@pytest.mark.parametrize("consumer", CONSUMERS)
async def test_deliveries_that_wait_for_their_retry_hold_up_no_consumer(connection: Connection, consumer: str) -> None:
    config = await _config(connection, f"CONSUMER.INFO.{codec.JOBS_STREAM}.{consumer}")
    assert (config["max_ack_pending"], config["max_deliver"]) == (-1, -1)
    assert "backoff" not in config
    assert (config["ack_policy"], config["deliver_policy"]) == ("explicit", "all")
    assert config["ack_wait"] == 30_000_000_000


async def test_ensuring_twice_changes_nothing(connection: Connection, settings: Settings) -> None:
    await connection.request(codec.note_subject("any"), b"kept")
    before = await stream_info(connection)
    consumers = await _consumers(connection)
    await ensure_streams(connection, settings)
    await ensure_consumers(connection, ("default", "threads"), settings.ack_wait)
    after = await stream_info(connection)
    assert (after.created, after.state.last_seq, after.state.messages) == (before.created, 1, 1)
    assert await _consumers(connection) == consumers
    assert set(CONSUMERS) <= set(consumers)


async def test_an_older_configuration_is_brought_up_to_date(connection: Connection, settings: Settings) -> None:
    old = jobs_stream(1) | {"max_age": 3_600_000_000_000, "max_bytes": 1 << 20}
    await connection.api(f"STREAM.UPDATE.{codec.JOBS_STREAM}", old)
    await ensure_streams(connection, settings)
    config = await _config(connection, f"STREAM.INFO.{codec.JOBS_STREAM}")
    assert (config["max_age"], config["max_bytes"]) == (0, -1)
    await ensure_consumers(connection, ("default",), 7.0)
    consumer = codec.consumer_name("default", JobPriority.LOW)
    assert (await _config(connection, f"CONSUMER.INFO.{codec.JOBS_STREAM}.{consumer}"))["ack_wait"] == 7_000_000_000


async def test_a_narrower_stream_is_widened_and_keeps_its_jobs_and_what_an_operator_has_set(
    connection: Connection, settings: Settings, job_log: JobLog
) -> None:
    for name in (codec.JOBS_STREAM, codec.DEAD_LETTERS_STREAM):
        await connection.api(f"STREAM.DELETE.{name}")
    old = {
        "name": codec.JOBS_STREAM,
        "subjects": [codec.ALL_SUBMISSIONS, codec.ALL_EVENTS],
        "storage": "file",
        "max_age": 3_600_000_000_000,
        "compression": "s2",
        "description": "the shop's jobs",
    }
    await connection.api(f"STREAM.CREATE.{codec.JOBS_STREAM}", old)
    job = (await JobCommands(job_log, settings).create(request())).job
    before = await stream_info(connection)
    await ensure_streams(connection, settings)
    after = await stream_info(connection)
    assert (after.created, after.state) == (before.created, before.state)
    assert (after.config["compression"], after.config["description"]) == ("s2", "the shop's jobs")
    assert await unsuitable_streams(connection, settings) is None
    await ensure_consumers(connection, ("default",), settings.ack_wait)
    running = await bring_to(job_log, JobCommands(job_log, settings), job, JobStatus.PROCESSING)
    await report(job_log, running, 50)
    assert await job_log.last(codec.progress_subject(job.id)) is not None


async def test_copies_of_a_stream_are_never_given_up(
    connection: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[str] = []
    for config in (jobs_stream(1), dead_letter_stream(1)):
        await connection.api(f"STREAM.UPDATE.{config['name']}", config | {"description": "the shop's jobs"})
    api = Connection.api

    async def three_copies(self: Connection, call: str, *arguments: Any, **options: Any) -> bytes:
        """What a cluster says of its streams."""
        asked.append(call)
        answer = await api(self, call, *arguments, **options)
        return answer.replace(b'"num_replicas":1', b'"num_replicas":3')

    monkeypatch.setattr(Connection, "api", three_copies)
    await ensure_streams(connection, settings)
    assert not [call for call in asked if call.startswith("STREAM.UPDATE")]
    assert "the stream JOBS keeps its 3 copies" in caplog.text
    assert await unsuitable_streams(connection, settings) is None


async def test_a_stream_that_the_server_cannot_change_is_refused_in_a_sentence(
    connection: Connection, settings: Settings
) -> None:
    await connection.api(f"STREAM.DELETE.{codec.DEAD_LETTERS_STREAM}")
    in_memory = dead_letter_stream(1) | {"storage": "memory"}
    await connection.api(f"STREAM.CREATE.{codec.DEAD_LETTERS_STREAM}", in_memory)
    with pytest.raises(UnsuitableServer, match=r"The NATS server refuses the stream jobs-dlq: .*storage type"):
        await ensure_streams(connection, settings)


async def test_a_server_that_is_too_old_is_refused_in_a_sentence(
    connection: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Connection, "server_version", "2.11.9")
    sentence = r"The NATS server is version 2\.11\.9; gql-jobs needs 2\.12\.0 or newer, because .* schedules\."
    with pytest.raises(UnsuitableServer, match=sentence) as refused:
        await ensure_streams(connection, settings)
    assert refused.value.code is ErrorCode.INTERNAL


async def test_a_consumer_that_the_server_refuses_is_named(connection: Connection) -> None:
    await connection.api(f"STREAM.DELETE.{codec.JOBS_STREAM}")
    with pytest.raises(UnsuitableServer, match="refuses the consumer queue-default-low: stream not found"):
        await ensure_consumers(connection, ("default",), 30.0)


async def test_a_stream_with_schedules_cannot_refuse_new_messages_when_it_is_full(connection: Connection) -> None:
    """Why the size limit is ours and not the stream's."""
    with pytest.raises(ApiError) as refused:
        await connection.api(f"STREAM.UPDATE.{codec.JOBS_STREAM}", jobs_stream(1) | {"discard": "new"})
    assert refused.value.err_code == 10052
