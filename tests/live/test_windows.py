"""Lists that are watched: whatever happens, whoever applies the changes has what a page answers."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.structs import replace

from gql_jobs.index.index import LARGEST_LIST, ListTooLarge
from gql_jobs.index.page import KeysRead, count_jobs, read_page
from gql_jobs.index.tables import UNREAD, for_a_list, open_read_only
from gql_jobs.jobs.errors import QueueUnavailable, RateLimited
from gql_jobs.jobs.messages import (
    Cancelled,
    Completed,
    Edited,
    Expired,
    Failed,
    Message,
    Progress,
    Receipt,
    Saved,
    Started,
)
from gql_jobs.jobs.model import Job, JobPriority, JobStatus, new_job_id
from gql_jobs.jobs.requests import JobFilter, JobOrder, OrderField
from gql_jobs.jobs.viewer import EVERYTHING, ViewLimits, Visibility
from gql_jobs.live import windows
from gql_jobs.live.windows import ListChange, ListSubscriber, Move, Windows, in_place, open_windows
from tests.deadline import until
from tests.library import Library, open_library
from tests.stories import BEGAN, artifact, noted, queued, said, spec, tell

_TYPES = ("probe", "email")
_TAGS = ("a", "b")
_TENANTS = (None, "red")


class Watcher:
    """Somebody with a visibility, who applies what comes to a list, and notes it as of each position."""

    def __init__(self, visibility: Visibility = EVERYTHING) -> None:
        self.visibility = visibility
        self.jobs: list[Job] = []
        self.total = 0
        self.groups: list[tuple[int, list[Job], int]] = []
        self.changes: list[ListChange] = []
        self.reads = asyncio.Event()
        self.reads.set()

    async def watch(self, changes: ListSubscriber) -> None:
        """Apply changes while reading is not held up."""
        async for change in changes:
            self.apply(change)
            await self.reads.wait()

    def apply(self, change: ListChange) -> None:
        """What a client does with a change."""
        self.changes.append(change)
        self.total = change.total
        if change.jobs is not None:
            self.jobs = list(change.jobs)
        elif change.move is Move.LEFT:
            assert change.job_id in [job.id for job in self.jobs], "only what was shown leaves"
            self.jobs = [job for job in self.jobs if job.id != change.job_id]
        elif change.move is Move.UPDATED:
            assert change.job is not None
            (place,) = [n for n, job in enumerate(self.jobs) if job.id == change.job_id]
            self.jobs[place] = change.job
        else:
            assert change.job is not None
            self.jobs = [job for job in self.jobs if job.id != change.job_id]
            ids = [job.id for job in self.jobs]
            # What it stands before is there: placements come from the end backwards.
            self.jobs.insert(ids.index(change.before) if change.before is not None else len(ids), change.job)
        if not change.more:
            self.groups.append((change.position, self.jobs.copy(), self.total))


def _some(values: tuple[Any, ...]) -> st.SearchStrategy[frozenset[Any] | None]:
    return st.none() | st.none() | st.lists(st.sampled_from(values), unique=True).map(frozenset)


_facts = st.fixed_dictionaries(
    {
        "type": st.sampled_from(_TYPES),
        "queue": st.sampled_from(("default", "threads")),
        "priority": st.sampled_from(JobPriority),
        "tags": st.lists(st.sampled_from(_TAGS), unique=True).map(tuple),
        "tenant": st.sampled_from(_TENANTS),
        "created_by": st.sampled_from((None, "ada")),
        "created_at": st.integers(0, 3).map(lambda number: BEGAN + timedelta(microseconds=number)),
    }
)
_changes = st.fixed_dictionaries(
    {
        "priority": st.sampled_from(JobPriority),
        "tags": st.lists(st.sampled_from(_TAGS), unique=True).map(tuple),
    }
)
_moves = st.sampled_from([Started, Progress, Progress, Completed, Failed, Cancelled, Expired])
_happens = (
    st.tuples(st.just("new"), _facts)
    | st.tuples(st.tuples(st.just("again"), st.integers(0, 20)), _facts)
    | st.tuples(st.tuples(st.just("edit"), st.integers(0, 20)), _changes)
    | st.tuples(_moves, st.integers(0, 20))
)
_batches = st.lists(st.lists(_happens, min_size=1, max_size=6), max_size=12)
_filters = st.builds(
    JobFilter,
    status=_some((JobStatus.QUEUED, JobStatus.PROCESSING, JobStatus.COMPLETED, JobStatus.CANCELLED)),
    type=_some(_TYPES),
    queue=_some(("default", "threads")),
    priority=_some((JobPriority.HIGH, JobPriority.NORMAL)),
    tags=_some(_TAGS),
    created_after=st.none() | st.integers(-1, 3).map(lambda number: BEGAN + timedelta(microseconds=number)),
)
_orders = st.builds(JobOrder, field=st.sampled_from(OrderField), descending=st.booleans())
_visibilities = st.sampled_from(
    [
        EVERYTHING,
        Visibility("red"),
        Visibility(limits=ViewLimits(tags=frozenset({"a"}))),
        Visibility(limits=ViewLimits(types=frozenset({"probe"}))),
        Visibility(created_by="ada"),
        Visibility("red", ViewLimits(tags=frozenset(_TAGS)), "ada"),
    ]
)
_watched = st.lists(st.tuples(_filters, _orders, st.integers(1, 4), _visibilities), min_size=1, max_size=4)


class _History:
    """Jobs that come, change and go at random; messages that are not legal are ignored by the fold."""

    def __init__(self) -> None:
        self.seq = 0
        self.ids: list[str] = []
        self.submissions: dict[str, int] = {}
        self.expired: set[str] = set()
        self.facts: dict[str, dict[str, Any]] = {}
        self.edited: dict[str, int] = {}
        """The events of those that were changed and are not submitted again."""

    def messages(self, batch: list[tuple[Any, Any]]) -> list[Message]:
        """The messages of a batch."""
        return [message for what, detail in batch if (message := self._message(what, detail)) is not None]

    def _message(self, what: Any, detail: Any) -> Message | None:
        self.seq += 1
        if what == "new":
            job_id = new_job_id()
            self.ids.append(job_id)
            self.submissions[job_id] = self.seq
            self.facts[job_id] = detail
            return queued(self.seq, job_id=job_id, **detail)
        if not self.ids:
            return None
        if isinstance(what, tuple) and what[0] == "edit":
            return self._edit(self.ids[what[1] % len(self.ids)], detail)
        if isinstance(what, tuple):
            # Where a job has expired, its id may be used again; where it has not, the fold ignores this.
            job_id = self.ids[what[1] % len(self.ids)]
            if job_id in self.expired:
                self.expired.discard(job_id)
                self.submissions[job_id] = self.seq
                self.facts[job_id] = detail
            return queued(self.seq, job_id=job_id, after_expiry=True, **detail)
        job_id = self.ids[detail % len(self.ids)]
        submission = self.submissions[job_id]
        if what in {Expired, Cancelled}:
            if what is Expired:
                self.expired.add(job_id)
            return tell(self.seq, what(submission=submission), job_id)
        facts: dict[str, Any] = {"progress": detail} if what is Progress else {}
        return replace(said(self.seq, what, 1, submission, **facts), job_id=job_id)

    def _edit(self, job_id: str, changes: dict[str, Any]) -> Message:
        """A change of a job, or the submission after the last one."""
        if (event_seq := self.edited.pop(job_id, None)) is not None:
            self.submissions[job_id] = self.seq
            return queued(self.seq, job_id=job_id, event_seq=event_seq, **self.facts[job_id])
        self.edited[job_id] = self.seq
        self.facts[job_id] = {**self.facts[job_id], **changes}
        return tell(self.seq, Edited(submission=self.submissions[job_id], spec=spec(**self.facts[job_id])), job_id)


def _page(library: Library, changes: ListSubscriber) -> tuple[list[Job], int]:
    """What ``jobs`` answers now."""
    window = changes.window
    with closing(open_read_only(library.index.path)) as database:
        page = read_page(database, window.filter, window.order, first=window.first, after=None, offset=0, largest=0)
        jobs = [for_a_list(job, with_payload=False) for job in page.jobs]
        return jobs, count_jobs(database, window.filter)


def _is_up_to_date(changes: ListSubscriber) -> bool:
    window = changes.window
    return window.is_ready and changes.since == window.generation and not changes._pending  # noqa: SLF001


async def _play(watched: list[Any], batches: list[Any], pauses: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            library = await stack.enter_async_context(open_library(Path(folder) / "index.sqlite"))
            opened = stack.enter_context(open_windows(library.index, library.reader))
            watchers: list[tuple[Watcher, ListSubscriber, dict[int, tuple[list[Job], int]]]] = []
            tasks = []
            for wanted, order, first, visibility in watched:
                watcher = Watcher(visibility)
                changes = opened.subscribe(wanted, order, watcher, first=first, per_second=1e9)
                watchers.append((watcher, changes, {0: _page(library, changes)}))
                tasks.append(asyncio.create_task(watcher.watch(changes)))
            history = _History()
            for number, batch in enumerate(batches):
                messages = history.messages(batch)
                if messages:
                    library.index.apply(messages, history.seq)
                for watcher, changes, expected in watchers:
                    expected[library.index.position] = _page(library, changes)
                    slow = pauses[number % len(pauses)] if pauses else 0
                    (watcher.reads.clear if slow == 1 else watcher.reads.set)()
                for _ in range(pauses[number % len(pauses)] * 3 if pauses else 0):
                    await asyncio.sleep(0)
            for watcher, changes, expected in watchers:
                watcher.reads.set()
                await until(partial(_is_up_to_date, changes), "it has caught up")
                assert (watcher.jobs, watcher.total) == _page(library, changes)
                for position, jobs, total in watcher.groups:
                    assert (jobs, total) == expected[position], "each group leads to what a page answers then"
                    assert len(jobs) <= changes.first
                changes.close()
            await asyncio.gather(*tasks)
            assert len(opened) == 0
            assert library.index.on_change == []


@settings(max_examples=150, deadline=None)
@given(watched=_watched, batches=_batches, pauses=st.lists(st.integers(0, 3), max_size=4))
def test_after_each_group_the_list_is_what_a_page_answers_whatever_happened(
    watched: list[Any], batches: list[Any], pauses: list[int]
) -> None:
    asyncio.run(_play(watched, batches, pauses))


@given(st.lists(st.integers(0, 12), unique=True), st.lists(st.integers(0, 12), unique=True))
def test_what_stays_in_place_is_as_much_as_possible_and_in_order(before: list[int], after: list[int]) -> None:
    staying = in_place([str(one) for one in before], [str(one) for one in after])
    places = [before.index(int(one)) for one in map(str, after) if one in staying]
    assert places == sorted(places)
    common = [before.index(one) for one in after if one in before]
    longest = [1] * len(common)
    for later in range(len(common)):
        longest[later] += max((longest[e] for e in range(later) if common[e] < common[later]), default=0)
    assert len(staying) == max(longest, default=0)


def _new(seq: int, job_id: str, *, created: int | None = None, **facts: Any) -> Message:
    return queued(
        seq, job_id=job_id, created_at=BEGAN + timedelta(seconds=seq if created is None else created), **facts
    )


def _gone(seq: int, job_id: str) -> Message:
    return tell(seq, Expired(submission=1), job_id)


def _ids(number: int) -> list[str]:
    return [f"00000000-0000-4000-8000-{n:012}" for n in range(number)]


@pytest.fixture
async def opened(library: Library) -> AsyncIterator[Windows]:
    """The windows over an empty index."""
    with open_windows(library.index, library.reader) as opened:
        yield opened


def _watch(opened: Windows, watcher: Watcher | None = None, first: int = 2, **options: Any) -> ListSubscriber:
    options = {"per_second": 1e9, **options}
    wanted, order = options.pop("wanted", JobFilter()), options.pop("order", JobOrder())
    return opened.subscribe(wanted, order, watcher or Watcher(), first=first, **options)


async def _group(changes: ListSubscriber, watcher: Watcher | None = None) -> list[ListChange]:
    """The next group."""
    found = []
    async with asyncio.timeout(10):
        async for change in changes:
            found.append(change)
            if watcher is not None:
                watcher.apply(change)
            if not change.more:
                break
    return found


def _told(group: list[ListChange]) -> list[tuple[str, str, str | None]]:
    return [(change.move.value if change.move else "snapshot", change.job_id, change.before) for change in group]


async def test_a_job_behind_those_that_are_known_does_not_come_before_others_that_are_not(
    library: Library, opened: Windows
) -> None:
    ids = _ids(7)
    library.tell(*[_new(n, job_id) for n, job_id in enumerate(ids[:6], 1)])
    oldest_first = JobOrder(descending=False)
    async with _watch(opened, first=2, order=oldest_first) as changes:
        (snapshot,) = await _group(changes)
        assert [job.id for job in snapshot.jobs or ()] == ids[:2]
        # Four are known; of those two go, and one comes at the very end.
        library.tell(_gone(7, ids[0]), _gone(8, ids[1]), _new(9, ids[6]))
        library.tell(_gone(10, ids[2]))
        watcher = Watcher()
        watcher.apply(snapshot)
        await _group(changes, watcher)
        assert [job.id for job in watcher.jobs] == ids[3:5]


async def test_a_job_that_was_pushed_out_changed_and_came_back_is_shown_as_it_is(
    library: Library, opened: Windows
) -> None:
    old, *others = _ids(4)
    library.tell(_new(1, old))
    async with _watch(opened, first=1) as changes:
        await _group(changes)
        library.tell(*[_new(n, job_id) for n, job_id in enumerate(others, 2)])
        library.tell(replace(said(5, Started), job_id=old))
        library.tell(*[_gone(n, job_id) for n, job_id in enumerate(others, 6)])
        (update,) = await _group(changes)
        assert (update.move, update.job_id, update.total) == (Move.UPDATED, old, 1)
        assert update.job is not None
        assert update.job.status is JobStatus.PROCESSING


async def test_within_a_group_those_that_leave_come_first_and_places_from_the_end(
    library: Library, opened: Windows
) -> None:
    a, b, c, d = _ids(4)
    library.tell(_new(1, a), _new(2, b), _new(3, c))
    async with _watch(opened, first=4) as changes:
        (snapshot,) = await _group(changes)
        assert [job.id for job in snapshot.jobs or ()] == [c, b, a]
        library.tell(_gone(4, b), _new(5, d), replace(said(6, Started), job_id=a))
        group = await _group(changes)
        assert _told(group) == [("left", b, None), ("updated", a, None), ("entered", d, c)]
        assert [change.more for change in group] == [True, True, False]
        assert {(change.position, change.total) for change in group} == {(6, 3)}


async def test_a_job_that_stands_elsewhere_now_has_entered_before_its_new_neighbour(
    library: Library, opened: Windows
) -> None:
    a, b, c = _ids(3)
    library.tell(_new(1, a), _new(2, b), _new(3, c))
    async with _watch(opened, first=3, order=JobOrder(OrderField.UPDATED_AT)) as changes:
        await _group(changes)
        library.tell(replace(said(4, Started), job_id=a))
        assert _told(await _group(changes)) == [("entered", a, c)]


async def test_more_changes_than_the_list_has_places_come_as_the_whole_list(library: Library, opened: Windows) -> None:
    ids = _ids(5)
    library.tell(_new(1, ids[0]), _new(2, ids[1]))
    async with _watch(opened, first=2) as changes:
        await _group(changes)
        library.tell(*[_new(n, job_id) for n, job_id in enumerate(ids[2:], 3)])
        (snapshot,) = await _group(changes)
        assert [job.id for job in snapshot.jobs or ()] == [ids[4], ids[3]]
        assert (snapshot.total, snapshot.position) == (5, 5)


async def test_a_new_number_comes_although_nothing_that_is_shown_has_changed(library: Library, opened: Windows) -> None:
    a, b = _ids(2)
    library.tell(_new(1, a))
    async with _watch(opened, first=1) as changes:
        await _group(changes)
        library.tell(_new(2, b, created=0))
        (update,) = await _group(changes)
        assert (update.move, update.job_id, update.total) == (Move.UPDATED, a, 2)


async def test_what_is_about_other_jobs_brings_nothing(library: Library, opened: Windows) -> None:
    a, b, c = _ids(3)
    library.tell(_new(1, a, tags=("mine",)))
    async with _watch(opened, wanted=JobFilter(tags=frozenset({"mine"}))) as changes:
        await _group(changes)
        library.tell(_new(2, b, tags=("other",)))
        generation = changes.window.generation
        library.tell(replace(said(3, Started, submission=2), job_id=b))
        assert changes.window.generation == generation
        library.tell(_new(4, c, tags=("other", "mine")))
        assert _told(await _group(changes)) == [("entered", c, a)]


async def test_all_who_watch_the_same_share_a_window_and_its_groups(library: Library, opened: Windows) -> None:
    async with AsyncExitStack() as stack:
        watching = [await stack.enter_async_context(_watch(opened)) for _ in range(20)]
        for changes in watching:
            await _group(changes)
        assert len(opened) == 1
        (a,) = _ids(1)
        library.tell(_new(1, a))
        groups = [await _group(changes) for changes in watching]
        assert len({id(change) for group in groups for change in group}) == 1
        assert len({change.key for group in groups for change in group}) == 1
    assert len(opened) == 0


async def test_groups_come_no_more_often_than_was_asked_for_and_bring_what_happened_since(
    library: Library, opened: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    now = loop.time()
    a, b = _ids(2)
    async with _watch(opened, per_second=4) as changes:
        await _group(changes)
        library.tell(_new(1, a))
        reading = asyncio.create_task(_group(changes))
        monkeypatch.setattr(loop, "time", lambda: now)
        await asyncio.sleep(0)
        library.tell(_new(2, b))
        monkeypatch.undo()
        assert _told(await reading) == [("entered", a, None), ("entered", b, a)]
        assert loop.time() - now >= 0.25


async def test_somebody_who_may_see_something_else_by_now_is_shown_the_list_of_now(
    library: Library, opened: Windows
) -> None:
    red, blue = _ids(2)
    library.tell(_new(1, red, tenant="red"), _new(2, blue, tenant="blue"))
    watcher = Watcher(Visibility("red"))
    async with _watch(opened, watcher) as changes:
        (snapshot,) = await _group(changes)
        assert [job.id for job in snapshot.jobs or ()] == [red]
        reading = asyncio.create_task(_group(changes))
        await asyncio.sleep(0)
        watcher.visibility = Visibility("blue")
        changes.wake()
        (snapshot,) = await reading
        assert [job.id for job in snapshot.jobs or ()] == [blue]
        assert len(opened) == 1


async def test_the_jobs_are_read_without_their_payloads_unless_those_are_wanted(
    library: Library, opened: Windows
) -> None:
    (a,) = _ids(1)
    library.tell(_new(1, a, payload=Raw(b'{"x":1}')))
    async with _watch(opened) as bare, _watch(opened, with_payloads=True) as whole:
        for changes, payload in (bare, UNREAD), (whole, Raw(b'{"x":1}')):
            (snapshot,) = await _group(changes)
            assert [job.spec.payload for job in snapshot.jobs or ()] == [payload]


async def test_payloads_that_do_not_fit_together_are_refused(library: Library, opened: Windows) -> None:
    large = Raw(b'"' + b"x" * (LARGEST_LIST // 4) + b'"')
    for n, job_id in enumerate(_ids(5), 1):
        library.tell(_new(n, job_id, payload=large))
    async with _watch(opened, first=5, with_payloads=True) as changes:
        with pytest.raises(ListTooLarge):
            await _group(changes)
    async with _watch(opened, first=5) as changes:
        assert len((await _group(changes))[0].jobs or ()) == 5


async def test_one_list_too_many_is_refused_and_one_that_is_watched_already_is_not(
    opened: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "MAX_WINDOWS", 2)
    async with _watch(opened, first=1), _watch(opened, first=2), _watch(opened, first=2):
        with pytest.raises(RateLimited):
            _watch(opened, first=3)
    async with _watch(opened, first=3):
        assert len(opened) == 1


async def test_one_client_watches_so_many_lists_and_leaves_the_others_to_others(
    opened: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "MAX_WINDOWS_OF_CLIENT", 2)
    async with AsyncExitStack() as stack:
        for first in 1, 2, 2:
            await stack.enter_async_context(_watch(opened, first=first, client="a"))
        async with _watch(opened, first=3, client="b"):
            # Also of a list that is there because another one watches it.
            for first in 3, 4:
                with pytest.raises(RateLimited, match="client"):
                    _watch(opened, first=first, client="a")
        async with _watch(opened, first=4, client="b"), _watch(opened, first=2, client="a"):
            assert len(opened) == 3
    async with _watch(opened, first=4, client="a"), _watch(opened, first=5, client="a"):
        pass
    assert (len(opened), opened._of_clients) == (0, {})  # noqa: SLF001


async def test_a_watcher_who_may_not_watch_the_list_of_now_is_refused_and_leaves_nothing(
    opened: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "MAX_WINDOWS", 1)
    watcher = Watcher()
    async with _watch(opened), _watch(opened, watcher, client="a") as changes:
        await _group(changes)
        watcher.visibility = Visibility("red")
        with pytest.raises(RateLimited):
            await _group(changes)
    assert (len(opened), opened._of_clients) == (0, {})  # noqa: SLF001


async def test_a_file_or_a_receipt_of_a_job_that_is_shown_is_a_change_of_it(library: Library, opened: Windows) -> None:
    a, b = _ids(2)
    library.tell(_new(1, a), _new(2, b))
    async with _watch(opened, first=1) as changes:
        await _group(changes)
        library.tell(tell(3, Saved(artifact=artifact()), b))
        assert _told(await _group(changes)) == [("updated", b, None)]
        library.tell(tell(4, Cancelled(submission=2), b))
        await _group(changes)
        library.tell(noted(5, Receipt.STOPPED, 4, b))
        (update,) = await _group(changes)
        assert (update.move, update.job_id, update.position) == (Move.UPDATED, b, 5)


async def test_what_happens_before_the_keys_of_a_list_are_read_is_not_kept_for_it(
    library: Library, opened: Windows
) -> None:
    a, b = _ids(2)
    async with _watch(opened) as changes:
        async with opened._one_at_a_time:  # noqa: SLF001
            library.tell(_new(1, a))
            library.tell(_new(2, b))
            assert changes.window._gap is not None  # noqa: SLF001
            assert changes.window._gap.batches == []  # noqa: SLF001
        (snapshot,) = await _group(changes)
        assert [job.id for job in snapshot.jobs or ()] == [b, a]


async def test_a_list_whose_keys_cannot_be_read_ends_for_those_who_watch_it_and_not_for_others(
    library: Library, opened: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any) -> KeysRead:
        raise RuntimeError("it broke")

    async with _watch(opened) as other:
        await _group(other)
        with monkeypatch.context() as patched:
            patched.setattr(library.reader, "keys", broken)
            changes = _watch(opened, first=1)
            with pytest.raises(QueueUnavailable, match="could not be read"):
                await _group(changes)
        (a,) = _ids(1)
        library.tell(_new(1, a))
        assert _told(await _group(other)) == [("entered", a, None)]
    assert len(opened) == 0


async def test_a_message_out_of_its_turn_while_the_keys_are_read_has_them_read_again(
    library: Library, opened: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = _ids(2)
    library.tell(_new(1, a), _new(2, b))
    keys = library.reader.keys

    async def keys_and_then_a_message(*arguments: Any) -> KeysRead:
        read = await keys(*arguments)
        if library.index.job(a) is not None:
            # As where messages were deleted from the stream: what is left is applied at the same position.
            library.index.apply([_gone(2, a)], 2)
        return read

    monkeypatch.setattr(library.reader, "keys", keys_and_then_a_message)
    async with _watch(opened) as changes:
        (snapshot,) = await _group(changes)
        assert [job.id for job in snapshot.jobs or ()] == [b]
        assert snapshot.total == 1


async def test_a_failed_index_ends_those_who_watch_with_a_sentence(library: Library) -> None:
    with open_windows(library.index, library.reader) as opened:
        changes = _watch(opened)
        await _group(changes)
        reading = asyncio.create_task(_group(changes))
        await asyncio.sleep(0)
    with pytest.raises(QueueUnavailable, match="is ending"):
        await reading


async def test_whoever_holds_most_for_longest_begins_again_with_the_whole_list(
    library: Library, opened: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = _ids(4)
    library.tell(*[_new(n, job_id) for n, job_id in enumerate(ids[:2], 1)])
    async with _watch(opened, first=4) as slow, _watch(opened, first=3) as other:
        for changes in slow, other:
            await _group(changes)
        monkeypatch.setattr(windows, "HELD_GROUP_BYTES", 1)
        library.tell(_new(3, ids[2]), replace(said(4, Started), job_id=ids[0]))
        first = await anext(slow)
        assert (first.move, first.more) == (Move.UPDATED, True)
        assert opened.held.bytes > 0
        await _group(other)
        (snapshot,) = await _group(slow)
        assert [job.id for job in snapshot.jobs or ()] == [ids[2], ids[1], ids[0]]
    assert opened.held.bytes == 0


async def test_a_list_that_is_opened_anew_names_no_change_as_an_earlier_one_did(
    library: Library, opened: Windows
) -> None:
    names = set()
    for _ in range(2):
        async with _watch(opened) as changes:
            names |= {change.key for change in await _group(changes)}
    with open_windows(opened.index, library.reader) as later:
        changes = _watch(later)
        names |= {change.key for change in await _group(changes)}
    assert len(names) == 3, "also after the runtime was opened anew, when results of the earlier one may be kept"
