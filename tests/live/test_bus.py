"""The bus: nobody waits for a slow reader, and a slow reader loses nothing but outdated progress."""

import asyncio
from itertools import count

import pytest
from msgspec import Raw

from gql_jobs.jobs.errors import QueueUnavailable
from gql_jobs.jobs.fold import Event
from gql_jobs.jobs.messages import Completed, Kind, Message, Progress, Started
from gql_jobs.jobs.model import Cursor, new_job_id
from gql_jobs.live.bus import BUFFER, BUFFER_BYTES, HELD_BYTES, Subscriber
from tests.library import Library
from tests.stories import JOB, OTHER, at, queued, said

Told = tuple[Cursor, Kind]


async def _read(subscriber: Subscriber, until_seq: int) -> list[Event]:
    """The events up to that sequence."""
    events: list[Event] = []
    async with asyncio.timeout(10):
        while not events or events[-1].cursor.seq < until_seq:
            events.append(await anext(subscriber))
    return events


def _told(events: list[Event]) -> list[Told]:
    return [(event.cursor, event.kind) for event in events]


def _lifecycles(first_seq: int, jobs: int) -> list[Message]:
    """Jobs that are queued, started and completed, one after the other."""
    seqs = count(first_seq)
    messages: list[Message] = []
    for _ in range(jobs):
        job_id, submission = new_job_id(), next(seqs)
        messages.append(queued(submission, job_id=job_id))
        for kind, body in ((Kind.STARTED, Started), (Kind.PROGRESS, Progress), (Kind.COMPLETED, Completed)):
            seq = next(seqs)
            messages.append(Message(job_id, kind, seq, at(seq), said(seq, body, 1, submission).body))
    return messages


async def test_each_subscriber_sees_its_job_or_all_from_now_on(library: Library) -> None:
    library.tell(queued(1))
    async with library.bus.subscribe(JOB) as one, library.bus.subscribe_all() as every:
        assert library.bus.subscribers == 2
        library.tell(queued(2, job_id=OTHER), said(3, Started))
        assert _told(await _read(one, 3)) == [(Cursor(3), Kind.STARTED)]
        assert _told(await _read(every, 3)) == [(Cursor(2), Kind.QUEUED), (Cursor(3), Kind.STARTED)]
    assert library.bus.subscribers == 0


async def test_a_reader_that_waits_is_woken(library: Library) -> None:
    async with library.bus.subscribe(JOB) as events:
        reading = asyncio.create_task(_read(events, 1))
        await asyncio.sleep(0)
        library.tell(queued(1))
        assert _told(await reading) == [(Cursor(1), Kind.QUEUED)]


async def test_progress_that_was_not_read_is_merged_to_the_newest(library: Library) -> None:
    async with library.bus.subscribe(JOB) as events:
        library.tell(queued(1), said(2, Started))
        library.tell(*(said(seq, Progress, progress=seq // 100) for seq in range(3, 10_000)))
        seen = await _read(events, 9_999)
        assert _told(seen) == [
            (Cursor(1), Kind.QUEUED),
            (Cursor(2), Kind.STARTED),
            (Cursor(9_999), Kind.PROGRESS),
        ]
        assert seen[-1].job.progress == 99


async def test_progress_stays_in_its_place_before_the_end(library: Library) -> None:
    async with library.bus.subscribe(JOB) as events:
        library.tell(queued(1), said(2, Started), said(3, Progress), said(4, Progress), said(5, Completed))
        assert [event.kind for event in await _read(events, 5)] == [
            Kind.QUEUED,
            Kind.STARTED,
            Kind.PROGRESS,
            Kind.COMPLETED,
        ]


async def test_a_reader_that_is_left_far_behind_loses_no_lifecycle_event_and_keeps_its_memory(
    library: Library,
) -> None:
    async with library.bus.subscribe_all() as slow, library.bus.subscribe_all() as fast:
        expected: list[Told] = []
        seen_fast: list[Event] = []
        for _ in range(40):
            messages = _lifecycles(library.index.position + 1, 50)
            expected += _told(library.tell(*messages))
            seen_fast += await _read(fast, messages[-1].seq)
            assert len(slow._buffer) <= BUFFER  # noqa: SLF001
        assert _told(seen_fast) == expected
        seen = await _read(slow, library.index.position)
        assert _told(seen) == expected
        assert len(slow._replayed) <= BUFFER  # noqa: SLF001
        # And it goes on live.
        more = library.tell(*_lifecycles(library.index.position + 1, 1))
        assert _told(await _read(slow, library.index.position)) == _told(more)


MEGABYTE = Raw(b'"%s"' % (b"x" * 1_000_000))


def _large(first_seq: int, jobs: int) -> list[Message]:
    """New jobs, each with a payload of a megabyte of its own."""
    return [queued(seq, job_id=new_job_id(), payload=MEGABYTE.copy()) for seq in range(first_seq, first_seq + jobs)]


async def test_a_reader_of_large_jobs_that_is_left_behind_keeps_few_of_them_in_memory_and_loses_none(
    library: Library,
) -> None:
    async with library.bus.subscribe_all() as slow:
        expected: list[Told] = []
        for _ in range(4):
            expected += _told(library.tell(*_large(library.index.position + 1, 8)))
            assert sum(event.job.weight for event in slow._buffer.values()) <= BUFFER_BYTES  # noqa: SLF001
        seen: list[Event] = []
        while len(seen) < len(expected):
            seen.append(await anext(slow))
            assert sum(event.job.weight for event in slow._replayed) <= BUFFER_BYTES  # noqa: SLF001
        assert _told(seen) == expected
    assert library.bus.held.bytes == 0


async def test_many_readers_of_large_jobs_that_all_stand_still_share_a_bound_and_lose_nothing(
    library: Library,
) -> None:
    jobs = _large(1, 60)
    library.tell(*jobs)
    watching = [library.bus.subscribe(job.job_id) for job in jobs]
    started = [
        Message(job.job_id, Kind.STARTED, seq, at(seq), said(seq, Started, 1, job.seq).body)
        for seq, job in enumerate(jobs, 61)
    ]
    for message in started:
        library.tell(message)
    # Each of them has one event that it has not read, and all together more than may be held.
    held = {id(event): event.job.weight for one in watching for event in one._buffer.values()}  # noqa: SLF001
    assert 0 < sum(held.values()) <= HELD_BYTES
    for message, one in zip(started, watching, strict=True):
        assert _told([await anext(one)]) == [(Cursor(message.seq), Kind.STARTED)]
        await one.aclose()
    assert library.bus.held.bytes == 0


async def test_readers_that_stand_still_in_what_was_read_for_them_share_a_bound_and_lose_nothing(
    library: Library,
) -> None:
    told = _told(library.tell(*_large(1, 3)))
    watching = [library.bus.subscribe_all() for _ in range(50)]
    first: list[list[Event]] = []
    for one in watching:
        one.start_after(Cursor(0))
        first.append([await anext(one)])
        assert library.bus.held.bytes <= HELD_BYTES
    for one, seen in zip(watching, first, strict=True):
        assert _told([*seen, await anext(one), await anext(one)]) == told
        one.close()
    assert library.bus.held.bytes == 0


async def test_the_latest_event_that_was_dropped_before_it_was_read_comes_first_all_the_same(library: Library) -> None:
    (first,) = library.tell(*_large(1, 1))
    async with library.bus.subscribe(first.job.id) as events:
        events.start_with(first)
        events.drop()
        assert _told([await anext(events)]) == [(Cursor(1), Kind.QUEUED)]


async def test_an_overflow_while_the_index_is_being_read_is_not_lost(library: Library) -> None:
    async with library.bus.subscribe_all() as slow:
        expected = _told(library.tell(*_lifecycles(1, 300)))
        seen: list[Event] = []
        while len(seen) < 100:
            seen.append(await anext(slow))
        reading = asyncio.create_task(_read(slow, 8 * 1200))
        for _ in range(7):
            await asyncio.sleep(0)
            expected += _told(library.tell(*_lifecycles(library.index.position + 1, 300)))
        assert _told(seen + await reading) == expected


async def test_one_that_starts_after_a_cursor_gets_what_the_index_holds_and_then_what_comes(library: Library) -> None:
    library.tell(queued(1), said(2, Started), said(3, Progress), said(4, Progress))
    async with library.bus.subscribe(JOB) as events:
        events.start_after(Cursor(1))
        library.tell(said(5, Completed))
        assert _told(await _read(events, 5)) == [
            (Cursor(2), Kind.STARTED),
            (Cursor(4), Kind.PROGRESS),
            (Cursor(5), Kind.COMPLETED),
        ]


async def test_events_that_could_not_be_read_from_the_index_come_when_they_can(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.tell(queued(1), said(2, Started))

    async def refuse(*_: object) -> list[Event]:
        raise QueueUnavailable("Try again.")

    async with library.bus.subscribe(JOB) as events:
        events.start_after(Cursor(0))
        with monkeypatch.context() as away:
            away.setattr(library.bus, "replay", refuse)
            with pytest.raises(QueueUnavailable):
                await anext(events)
        library.tell(said(3, Completed))
        assert [event.cursor.seq for event in await _read(events, 3)] == [1, 2, 3]


async def test_whoever_waits_for_an_event_when_the_subscriber_is_closed_gets_none(library: Library) -> None:
    events = library.bus.subscribe_all()
    waiting = asyncio.create_task(anext(events, None))
    await asyncio.sleep(0)
    await events.aclose()
    await events.aclose()
    assert await waiting is None
    assert library.bus.subscribers == 0
    library.tell(queued(1))
    assert [event async for event in events] == []
