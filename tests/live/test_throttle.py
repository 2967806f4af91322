"""Few reports of progress for who wants few: the newest come, and nothing else waits or is told out of order."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from msgspec import Raw

from gql_jobs.jobs.fold import Event
from gql_jobs.jobs.messages import Cancelled, Completed, Failed, Kind, Message, Progress, Started
from gql_jobs.jobs.model import Cursor, new_job_id
from gql_jobs.live.bus import LARGE, Subscriber
from gql_jobs.live.throttle import HELD_JOBS, HELD_REPORT_BYTES, Throttle
from tests.deadline import until
from tests.library import Library
from tests.stories import JOB, OTHER, at, job_after, queued, said, scheduled, tell

SELDOM, OFTEN = 0.1, 10.0


class Told:
    """What a subscriber has been told, and when."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.times: list[float] = []

    @property
    def kinds(self) -> list[Kind]:
        return [event.kind for event in self.events]

    @property
    def lifecycle(self) -> list[Cursor]:
        return [event.cursor for event in self.events if event.kind is not Kind.PROGRESS]

    async def follow(self, subscriber: Subscriber) -> None:
        async for event in subscriber:
            self.events.append(event)
            self.times.append(asyncio.get_running_loop().time())


@asynccontextmanager
async def following(subscriber: Subscriber, per_second: float) -> AsyncIterator[Told]:
    """What that subscriber is told, while the block runs."""
    subscriber.limit_progress(per_second)
    told = Told()
    async with subscriber:
        task = asyncio.create_task(told.follow(subscriber))
        try:
            yield told
        finally:
            subscriber.close()
            await task


async def _turn() -> None:
    """Let whoever reads do so."""
    for _ in range(5):
        await asyncio.sleep(0)


def _started(seq: int, job_id: str, submission: int) -> Message:
    return Message(job_id, Kind.STARTED, seq, at(seq), said(seq, Started, 1, submission).body)


def _report(seq: int, job_id: str, submission: int, percent: int = 50) -> Message:
    return Message(job_id, Kind.PROGRESS, seq, at(seq), said(seq, Progress, 1, submission, progress=percent).body)


async def test_progress_is_merged_to_so_many_reports_and_the_newest_comes(library: Library) -> None:
    async with following(library.bus.subscribe(JOB), OFTEN) as told:
        library.tell(queued(1), said(2, Started))
        for seq in range(3, 103):
            library.tell(said(seq, Progress, progress=seq - 3))
            await _turn()
        await until(lambda: told.events[-1].job.progress == 99, "the newest report comes")
        assert told.kinds[:2] == [Kind.QUEUED, Kind.STARTED]
        percents = [event.job.progress for event in told.events[2:]]
        assert percents[0] == 0
        assert len(percents) < 10
        reported = told.times[2:]
        assert all(later - earlier > 0.09 for earlier, later in pairwise(reported))


async def test_what_else_happens_comes_at_once_and_takes_the_place_of_a_report_that_waits(library: Library) -> None:
    async with following(library.bus.subscribe_all(), SELDOM) as told:
        library.tell(queued(1), said(2, Started), said(3, Progress, progress=1))
        await _turn()
        library.tell(said(4, Progress, progress=2))
        await _turn()
        library.tell(queued(5, job_id=OTHER))
        await _turn()
        library.tell(said(6, Completed))
        await _turn()
        assert told.kinds == [Kind.QUEUED, Kind.STARTED, Kind.PROGRESS, Kind.QUEUED, Kind.COMPLETED]
        assert [event.cursor.seq for event in told.events] == [1, 2, 3, 5, 6]
        throttle = told_by(library)
        assert throttle.due is None


def told_by(library: Library) -> Throttle:
    """The throttle of the one subscriber."""
    (subscriber,) = library.bus._all  # noqa: SLF001
    assert subscriber._throttle is not None  # noqa: SLF001
    return subscriber._throttle  # noqa: SLF001


async def test_a_report_that_others_have_overtaken_has_a_cursor_behind_theirs_from_which_nothing_comes_twice(
    library: Library,
) -> None:
    async with following(library.bus.subscribe_all(), OFTEN) as told:
        library.tell(queued(1), said(2, Started), said(3, Progress, progress=1))
        await _turn()
        library.tell(said(4, Progress, progress=2))
        await _turn()
        library.tell(queued(5, job_id=OTHER))
        await until(lambda: len(told.events) == 5, "the report comes")
        assert [event.cursor.seq for event in told.events] == [1, 2, 3, 5, 5]
        late = told.events[-1]
        assert (late.kind, late.job.id, late.job.progress) == (Kind.PROGRESS, JOB, 2)
        assert Cursor.parse(str(late.cursor)) > told.events[-2].cursor
    async with library.bus.subscribe_all() as resumed:
        resumed.start_after(late.cursor)
        library.tell(_started(6, OTHER, 5))
        assert (await anext(resumed)).cursor == Cursor(6)


async def test_events_of_one_message_are_told_together(library: Library) -> None:
    async with following(library.bus.subscribe_all(), OFTEN) as told:
        library.tell(queued(1), said(2, Started), said(3, Progress, progress=1))
        await _turn()
        library.tell(said(4, Progress, progress=2))
        await until(lambda: len(told.events) == 4, "the report comes")
        library.tell(said(5, Progress, progress=3))
        await _turn()
        cancelled = Cancelled(spec=scheduled(6).body.spec)
        made = library.tell(tell(6, cancelled, OTHER))
        assert [event.cursor for event in made] == [Cursor(6), Cursor(6, 1)]
        await until(lambda: len(told.events) == 7, "everything is told")
        assert [event.cursor.seq for event in told.events] == [1, 2, 3, 4, 6, 6, 6]
        assert told.kinds[4:] == [Kind.SCHEDULED, Kind.CANCELLED, Kind.PROGRESS]


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_happens_all_but_progress_is_told_in_order_and_the_last_of_each_job_is_its_newest(
    library: Library, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311
    jobs: dict[str, int] = {}
    open_jobs: list[str] = []
    lifecycle: list[Cursor] = []
    newest: dict[str, Event] = {}
    async with following(library.bus.subscribe_all(), OFTEN) as told:
        for _ in range(400):
            seq = library.index.position + 1
            if len(open_jobs) < 3:
                job_id = new_job_id()
                jobs[job_id] = seq
                open_jobs.append(job_id)
                messages = [queued(seq, job_id=job_id), _started(seq + 1, job_id, seq)]
            else:
                job_id = chance.choice(open_jobs)
                kind, body = (Kind.PROGRESS, Progress) if chance.random() < 0.9 else (Kind.COMPLETED, Completed)
                messages = [Message(job_id, kind, seq, at(seq), said(seq, body, 1, jobs[job_id]).body)]
                if kind is Kind.COMPLETED:
                    open_jobs.remove(job_id)
            for event in library.tell(*messages):
                newest[event.job.id] = event
                if event.kind is not Kind.PROGRESS:
                    lifecycle.append(event.cursor)
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
        await until(lambda: told_by(library).due is None and told.lifecycle == lifecycle, "everything is told")
        cursors = [event.cursor for event in told.events]
        assert cursors == sorted(set(cursors))
        last = {event.job.id: event.job for event in told.events}
        assert last == {job_id: event.job for job_id, event in newest.items()}


async def test_a_reader_that_is_throttled_and_left_behind_loses_no_lifecycle_event(library: Library) -> None:
    lifecycle: list[Cursor] = []
    async with library.bus.subscribe_all() as events:
        events.limit_progress(SELDOM)
        for _ in range(600):
            seq, job_id = library.index.position + 1, new_job_id()
            made = library.tell(
                queued(seq, job_id=job_id), _started(seq + 1, job_id, seq), _report(seq + 2, job_id, seq)
            )
            lifecycle += [event.cursor for event in made if event.kind is not Kind.PROGRESS]
        seen: list[Cursor] = []
        async with asyncio.timeout(20):
            while len(seen) < len(lifecycle):
                event = await anext(events)
                if event.kind is not Kind.PROGRESS:
                    seen.append(event.cursor)
        assert seen == lifecycle


async def test_a_report_that_was_made_for_another_viewer_is_told_again_if_it_still_matches(library: Library) -> None:
    async with library.bus.subscribe_all() as events:
        events.limit_progress(SELDOM)
        library.tell(queued(1), said(2, Started), said(3, Progress, progress=1))
        first = [(await anext(events)).cursor for _ in range(3)]
        events.step_back()
        assert (await anext(events)).cursor > first[-1]
        events.step_back()
        events.matches = lambda event: event.kind is Kind.FAILED
        library.tell(said(4, Failed))
        assert (await anext(events)).kind is Kind.FAILED
        events.step_back()
        assert (await anext(events)).cursor == Cursor(4)


async def test_reports_that_wait_are_bounded_in_number_and_bytes(library: Library) -> None:
    async with library.bus.subscribe_all() as events:
        events.limit_progress(SELDOM)
        throttle = told_by(library)
        for number in range(HELD_JOBS + 1):
            job = job_after(queued(1, job_id=str(number)), _started(2, str(number), 1))
            throttle.hold(Event(Kind.PROGRESS, Cursor(3 + number), job))
        taken = throttle.take()
        assert taken is not None
        assert taken.job.id == "1"
        throttle.clear()
        large = Raw(b'"%s"' % (b"x" * (HELD_REPORT_BYTES // 3)))
        seq = 1
        for _ in range(6):
            job_id = new_job_id()
            library.tell(queued(seq, job_id=job_id, payload=large.copy()), _started(seq + 1, job_id, seq))
            library.tell(_report(seq + 2, job_id, seq))
            seq += 3
        # The first report is told at once, the others wait.
        assert [(await anext(events)).kind for _ in range(13)].count(Kind.PROGRESS) == 1
        held = list(throttle._held.values())  # noqa: SLF001
        assert 0 < sum(event.job.weight for event in held) <= HELD_REPORT_BYTES
        assert all(event.job.weight > LARGE for event in held)
        assert library.bus.held.bytes >= sum(event.job.weight for event in held)
    assert library.bus.held.bytes == 0
