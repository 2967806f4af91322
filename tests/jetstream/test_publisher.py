"""Publishing into streams: many messages at once, and an outcome for each of them."""

import asyncio
from collections.abc import Sequence

from gql_jobs.jetstream.client import EXPECTED_SEQ_HEADER, SENT_AT_ONCE, Outgoing, Publisher
from gql_jobs.jetstream.connection import Connection, open_publisher
from gql_jobs.jetstream.errors import FenceRefused, JetStreamError, MessageTooLarge, Unacknowledged, Unavailable
from gql_jobs.log import codec
from tests.by_hand import stored
from tests.deadline import until
from tests.stories import JOB

NOTE = codec.note_subject(JOB)
TIMEOUT = 5.0


def _kinds(outcomes: Sequence[int | JetStreamError]) -> list[object]:
    return [outcome if isinstance(outcome, int) else type(outcome) for outcome in outcomes]


async def test_a_batch_is_stored_in_order_and_each_message_has_an_outcome_of_its_own(connection: Connection) -> None:
    count = 3 * SENT_AT_ONCE + 5
    messages = [Outgoing(NOTE, str(number).encode(), {"Number": str(number)}) for number in range(count)]
    messages[1] = Outgoing(NOTE, b"fenced", {EXPECTED_SEQ_HEADER: "0"})
    messages[2] = Outgoing(NOTE, b"x" * connection.max_payload, {"Number": "2"})
    messages[3] = Outgoing("nobody.takes.this", b"3", {"Number": "3"})
    messages[4] = Outgoing(NOTE, b"4", {"Number": "4\r\n"})
    async with open_publisher(connection) as publisher:
        outcomes = await publisher.publish_all(messages, TIMEOUT)
        assert _kinds(outcomes) == [1, FenceRefused, MessageTooLarge, Unavailable, *range(2, count - 2)]
        assert await publisher.publish_all([], TIMEOUT) == []
        assert await publisher.publish(NOTE, b"alone", {}, TIMEOUT) == count - 2
    assert [message.data for message in await stored(connection)] == [
        *(message.data for message in messages if message not in messages[1:4]),
        b"alone",
    ]


async def test_what_is_not_acknowledged_in_time_or_before_the_end_says_so(connection: Connection) -> None:
    deaf = Publisher(connection.client, connection.new_inbox())
    outcomes = await deaf.publish_all([Outgoing(NOTE, b"1", {"a": "b"})], 0.05)
    assert _kinds(outcomes) == [Unacknowledged]
    sending = asyncio.create_task(deaf.publish_all([Outgoing(NOTE, b"2", {"a": "b"})], TIMEOUT))
    while not deaf._batched:  # noqa: ASYNC110, SLF001 - one turn of the loop
        await asyncio.sleep(0)
    deaf.close()
    assert _kinds(await sending) == [Unacknowledged]
    cancelled = asyncio.create_task(deaf.publish_all([Outgoing(NOTE, b"3", {"a": "b"})], TIMEOUT))
    while not deaf._batched:  # noqa: ASYNC110, SLF001
        await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.wait([cancelled])
    assert deaf._batched == {}  # noqa: SLF001

    async def numbers() -> bool:
        return [message.data for message in await stored(connection)] == [b"1", b"2", b"3"]

    await until(numbers, "all three are stored, though nobody was told")
