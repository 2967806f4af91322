"""What steers jobs is one message a thing, replaced under a fence on itself and followed at its place in the stream."""

import asyncio
from pathlib import Path

import pytest
from msgspec import Raw, Struct

from gql_jobs.index.index import open_index
from gql_jobs.index.reader import open_reader
from gql_jobs.jetstream.connection import Connection
from gql_jobs.jetstream.stored_messages import messages_of
from gql_jobs.jobs.errors import QueueUnavailable
from gql_jobs.jobs.messages import SteeringMessage
from gql_jobs.live.bus import EventBus
from gql_jobs.live.feed import run_feed
from gql_jobs.live.tally import Tally
from gql_jobs.log import codec
from gql_jobs.log.commands import JobCommands
from gql_jobs.log.job_log import JobLog, Superseded
from gql_jobs.log.steering import SteeringLog, as_value
from gql_jobs.log.streams import stream_info
from tests.stories import BEGAN, request


class Cap(Struct):
    """A value of these tests."""

    most: int


@pytest.fixture
def steering(job_log: JobLog) -> SteeringLog:
    """What steers the jobs of a stream."""
    return SteeringLog(job_log)


async def test_the_newest_value_is_all_that_is_kept(steering: SteeringLog, connection: Connection) -> None:
    assert await steering.read("caps", "a") is None
    first = await steering.write("caps", "a", as_value(Cap(1)), 0, actor="ada")
    second = await steering.write("caps", "a", as_value(Cap(2)), first)
    found = await steering.read("caps", "a")
    assert found is not None
    assert (found.seq, found.value, found.actor) == (second, Raw(b'{"most":2}'), None)
    subject = codec.steering_subject("caps", "a")
    assert [m.seq async for m in messages_of(connection, codec.JOBS_STREAM, subject)] == [second]


async def test_of_two_writers_that_know_the_same_one_is_stored(steering: SteeringLog) -> None:
    known = await steering.write("caps", "a", as_value(Cap(1)), 0)
    writes = (steering.write("caps", "a", as_value(Cap(n)), known) for n in (2, 3))
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Superseded", "int"]
    with pytest.raises(Superseded):
        await steering.write("caps", "a", as_value(Cap(4)), 0)


async def test_changes_that_cross_are_all_made(steering: SteeringLog) -> None:
    def more(present: SteeringMessage | None) -> Raw:
        most = int(bytes(present.value or b"0")) if present is not None else 0
        return Raw(str(most + 1).encode())

    await asyncio.gather(*(steering.change("caps", "a", more) for _ in range(4)))
    found = await steering.read("caps", "a")
    assert found is not None
    assert found.value == Raw(b"4")


async def test_a_change_to_what_is_there_writes_nothing_and_a_removal_says_so(steering: SteeringLog) -> None:
    assert await steering.change("caps", "a", lambda _: None) is None
    seq = await steering.write("caps", "a", as_value(Cap(1)), 0)
    same = await steering.change("caps", "a", lambda present: present)
    assert same is not None
    assert same.seq == seq
    removed = await steering.change("caps", "a", lambda _: None)
    assert removed is not None
    assert (removed.value, removed.seq) == (None, seq + 1)
    again = await steering.change("caps", "a", lambda _: None)
    assert again is not None
    assert again.seq == removed.seq
    assert [m.value for m in await steering.all("caps")] == [None]


async def test_a_value_of_a_newer_release_is_neither_read_nor_replaced(
    steering: SteeringLog, connection: Connection
) -> None:
    await connection.request(codec.steering_subject("caps", "a"), b'{"v":99,"value":1}')
    with pytest.raises(QueueUnavailable, match="newer release"):
        await steering.change("caps", "a", lambda _: as_value(Cap(1)))
    assert await steering.all("caps") == []


async def test_an_index_has_them_at_their_place_and_after_a_restart(
    steering: SteeringLog, commands: JobCommands, connection: Connection, tmp_path: Path
) -> None:
    stream = await stream_info(connection)
    told: list[SteeringMessage] = []
    for number in (1, 2):
        with open_index(tmp_path / "index", stream.created, 99, 86_400) as index:
            async with (
                open_reader(index) as reader,
                run_feed(connection, index, EventBus(reader.events_after, 0), Tally((), 0)) as feed,
            ):
                if number == 1:
                    feed.steering.on_change.append(told.append)
                    seq = await steering.write("caps", "a", as_value(Cap(7)), 0, actor="ada")
                    await steering.write(codec.KEYS, "b", as_value({"id": "x"}), 0)
                    gone = await steering.write("caps", "c", None, 0)
                    last = (await commands.create(request())).last_seq
                assert await feed.wait_for(last, 5)
                assert feed.steering.values("caps", Cap) == {"a": Cap(7)}
                assert {name: m.seq for name, m in feed.steering.all("caps").items()} == {"a": seq, "c": gone}
                assert feed.steering.all("caps")["a"].actor == "ada"
                assert feed.steering.value(codec.KEYS, "b", dict) is None
                assert index.unreadable == 0
    assert [(message.name, message.seq) for message in told] == [("a", seq), ("c", gone)]


async def test_subjects_of_steering_pass_for_checkpoints_where_they_are_not_known(
    steering: SteeringLog, connection: Connection
) -> None:
    for what, name in ((codec.GATE_LEASES, "0"), (codec.QUEUE_LIMITS, "default"), (codec.PAUSES, "a-b_c")):
        subject = codec.steering_subject(what, name)
        seq = await steering.write(what, name, as_value(Cap(1)), 0)
        assert codec.steering_name(subject) == (what, name)
        assert codec.read_message(subject, b"whatever", seq, BEGAN) is None
        assert codec.job_and_kind(subject) is None
    assert (await stream_info(connection)).config["subjects"] == [codec.ALL_JOBS]
