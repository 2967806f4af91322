"""Following the stream: everything, in order, once, whatever happens to the server or the consumer."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

import msgspec
import pytest

from gql_jobs.jetstream import ordered_consumer
from gql_jobs.jetstream.client import Publisher, Received
from gql_jobs.jetstream.connection import Connection, open_publisher
from gql_jobs.jetstream.errors import ApiError
from gql_jobs.jetstream.ordered_consumer import OrderedConsumer, StreamMessage, ack_tokens, time_of
from gql_jobs.jetstream.server import EmbeddedServer
from gql_jobs.log import codec
from gql_jobs.log.paused_consumers import NO_CONSUMER
from tests.by_hand import RestartingServer
from tests.deadline import until
from tests.stories import JOB, OTHER


@pytest.fixture
async def nats(server: RestartingServer) -> EmbeddedServer:
    """The server's first run."""
    return await server.start()


@asynccontextmanager
async def _following(connection: Connection, filters: tuple[str, ...] = (codec.ALL_JOBS,)) -> AsyncIterator[list[int]]:
    """The sequences that a consumer has brought so far."""
    seen: list[int] = []

    async def follow() -> None:
        async for batch in OrderedConsumer(connection, codec.JOBS_STREAM, filters, 1).batches():
            seen.extend(message.seq for message in batch)

    task = asyncio.create_task(follow())
    try:
        yield seen
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _publish(publisher: Publisher, count: int, subject: str = codec.note_subject(JOB)) -> None:
    futures = [await publisher.send(subject, b"x" * 100, {}, 5.0) for _ in range(count)]
    await asyncio.gather(*futures)


async def _ephemerals(connection: Connection) -> list[str]:
    consumers = json.loads(await connection.api(f"CONSUMER.NAMES.{codec.JOBS_STREAM}"))["consumers"] or []
    return [name for name in consumers if not name.startswith("queue-")]


async def test_a_tail_that_hears_nothing_more_is_not_behind(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last delivery may have counted messages that are removed before they are sent."""
    monkeypatch.setattr(ordered_consumer, "IDLE_HEARTBEAT", 0.1)
    following = OrderedConsumer(connection, codec.JOBS_STREAM, (codec.ALL_JOBS,), 1)
    batches = following.batches()
    assert await anext(batches) == []
    async with open_publisher(connection) as publisher:
        await _publish(publisher, 1)
        assert len(await anext(batches)) == 1
        following._behind = 2  # noqa: SLF001
        assert await anext(batches) == []
        assert following.lag == 0
    await batches.aclose()


async def test_subjects_alone_can_be_followed(connection: Connection) -> None:
    async with open_publisher(connection) as publisher:
        await _publish(publisher, 2)
        following = OrderedConsumer(connection, codec.JOBS_STREAM, (codec.ALL_JOBS,), 2, headers_only=True)
        batches = following.batches()
        brought = [await anext(batches)]
        await _publish(publisher, 1)
        while sum(map(len, brought)) < 2:
            brought.append(await anext(batches))
        await batches.aclose()
    told = [(message.seq, message.subject, message.data) for batch in brought for message in batch]
    assert told == [(seq, codec.note_subject(JOB), b"") for seq in (2, 3)]


async def test_a_batch_of_large_messages_is_shorter(connection: Connection) -> None:
    async with open_publisher(connection) as publisher:
        sent = [await publisher.send(codec.note_subject(JOB), b"x" * 900_000, {}, 20.0) for _ in range(30)]
        await asyncio.gather(*sent)
    batches = OrderedConsumer(connection, codec.JOBS_STREAM, (codec.ALL_JOBS,), 1).batches()
    sizes: list[int] = []
    async for batch in batches:
        sizes.append(sum(len(message.data) for message in batch))
        if sum(sizes) == 30 * 900_000:
            break
    await batches.aclose()
    assert max(sizes) <= ordered_consumer.BATCH_BYTES + 900_000


async def test_what_is_there_comes_first_and_an_empty_batch_says_that_nothing_is_behind(
    connection: Connection,
) -> None:
    batches = OrderedConsumer(connection, codec.JOBS_STREAM, (codec.ALL_JOBS,), 1).batches()
    assert await anext(batches) == []
    async with open_publisher(connection) as publisher:
        await _publish(publisher, 1)
    (message,) = await anext(batches)
    assert isinstance(message, StreamMessage)
    assert (message.subject, message.seq, message.pending) == (codec.note_subject(JOB), 1, 0)
    await batches.aclose()
    again = OrderedConsumer(connection, codec.JOBS_STREAM, (codec.ALL_JOBS,), 1).batches()
    assert [m.seq for m in await anext(again)] == [1]
    await again.aclose()


async def test_only_what_matches_comes_from_the_first_sequence_wanted(connection: Connection) -> None:
    async with open_publisher(connection) as publisher:
        for subject in (
            codec.note_subject(JOB),
            codec.note_subject(OTHER),
            codec.progress_subject(JOB),
            codec.note_subject(JOB),
        ):
            await _publish(publisher, 1, subject)
    batches = OrderedConsumer(connection, codec.JOBS_STREAM, (codec.note_subject(JOB), codec.ALL_PROGRESS), 2).batches()
    seen: list[int] = []
    while len(seen) < 2:
        seen += [message.seq for message in await anext(batches)]
    await batches.aclose()
    assert seen == [3, 4]


async def test_fifteen_thousand_messages_flow_in_order(connection: Connection) -> None:
    async with open_publisher(connection) as publisher, _following(connection) as seen:
        await _publish(publisher, 7_500)
        await until(lambda: len(seen) >= 100, "the first ones have come")
        await _publish(publisher, 7_500)
        await until(lambda: len(seen) >= 15_000, "all have come", within=20)
    assert seen == list(range(1, 15_001))


async def test_a_restart_of_the_server_leaves_no_gap(connection: Connection, server: RestartingServer) -> None:
    async with open_publisher(connection) as publisher, _following(connection) as seen:
        await _publish(publisher, 50)
        await until(lambda: len(seen) == 50, "all have come")
        for round_ in (2, 3):
            await server.stop()
            await until(lambda: not connection.connected, "the client has noticed")
            await server.start()
            await until(lambda: connection.connected, "the client is connected again")
            await _publish(publisher, 50)
            await until(lambda expected=50 * round_: len(seen) == expected, "all have come")  # type: ignore[misc]
        assert seen == list(range(1, 151))


async def _is_deleted(connection: Connection) -> bool:
    """Whether this has deleted the consumer: another one may take its place at any time, as after a late heartbeat."""
    for consumer in await _ephemerals(connection):
        try:
            await connection.api(f"CONSUMER.DELETE.{codec.JOBS_STREAM}.{consumer}")
        except ApiError as error:
            if error.err_code != NO_CONSUMER:
                raise
        else:
            return True
    return False


async def test_the_loss_of_its_consumer_leaves_no_gap(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordered_consumer, "IDLE_HEARTBEAT", 0.1)
    async with open_publisher(connection) as publisher, _following(connection) as seen:
        for count in (50, 100, 150):
            await _publish(publisher, 50)
            await until(lambda expected=count: len(seen) == expected, "all have come")  # type: ignore[misc]
            await until(lambda: _is_deleted(connection), "its consumer is deleted")
        await _publish(publisher, 50)
        await until(lambda: len(seen) == 200, "all have come")
        assert seen == list(range(1, 201))


async def test_a_message_lost_on_the_way_is_fetched_again(connection: Connection) -> None:
    lost = {3, 17, 18}
    follower = OrderedConsumer(connection, codec.JOBS_STREAM, (codec.ALL_JOBS,), 1)
    receive = follower._on_message  # noqa: SLF001

    def lossy(message: Received) -> None:
        number = int(ack_tokens(message.reply)[2]) if message.reply.startswith("$JS.ACK.") else 0
        if number in lost:
            lost.discard(number)
            return
        receive(message)

    follower._on_message = lossy  # type: ignore[method-assign]  # noqa: SLF001
    async with open_publisher(connection) as publisher:
        await _publish(publisher, 30)
    seen: list[int] = []
    batches = follower.batches()
    while len(seen) < 30:
        seen += [message.seq for message in await anext(batches)]
    await batches.aclose()
    assert seen == list(range(1, 31))
    assert not lost


async def test_it_leaves_no_consumer_and_no_subscription_behind(connection: Connection) -> None:
    async with open_publisher(connection) as publisher, _following(connection) as seen:
        await _publish(publisher, 1)
        await until(lambda: seen, "the consumer is there and this side knows it")
    assert await _ephemerals(connection) == []
    assert connection.on_reconnect == []


async def test_it_waits_for_a_stream_that_is_not_there_yet(connection: Connection) -> None:
    await connection.api(f"STREAM.DELETE.{codec.JOBS_STREAM}")
    async with open_publisher(connection) as publisher, _following(connection) as seen:
        await asyncio.sleep(0)
        assert seen == []
        await connection.api(f"STREAM.CREATE.{codec.JOBS_STREAM}", {"name": codec.JOBS_STREAM, "subjects": ["jobs.>"]})
        await _publish(publisher, 3)
        await until(lambda: seen == [1, 2, 3], "all have come")


def test_a_delivery_is_read_from_servers_with_and_without_domains() -> None:
    tokens = ["consumer", "1", "22", "3", "1700000000123456789", "4"]
    assert ack_tokens(".".join(["$JS", "ACK", "JOBS", *tokens])) == tokens
    assert ack_tokens(".".join(["$JS", "ACK", "hub", "ACCOUNT", "JOBS", *tokens, "random"])) == tokens


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (1_700_000_000_123_456_789, "2023-11-14T22:13:20.123456789Z"),
        (1_700_000_000_123_456_499, "2023-11-14T22:13:20.123456499Z"),
        (1_700_000_000_123_456_500, "2023-11-14T22:13:20.1234565Z"),
        (1_700_000_000_999_999_999, "2023-11-14T22:13:20.999999999Z"),
        (1_700_000_000_000_000_000, "2023-11-14T22:13:20Z"),
    ],
)
def test_a_time_is_the_same_wherever_it_was_read(nanoseconds: int, text: str) -> None:
    assert time_of(nanoseconds) == msgspec.json.decode(f'"{text}"', type=datetime)
