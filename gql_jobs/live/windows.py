"""Windows: the first jobs of a filter in an order, kept up to date, for subscribers who show such a list.

A window holds the keys of twice the jobs that are shown, and how many match. The index tells of each batch which jobs
it has changed, as they were and as they are; only the windows that such a job can be in look at it. When too many jobs
have left, the keys are read again in a thread, and what the index applies meanwhile is applied to what was read.

One window serves all who watch the same. A subscriber remembers what it has shown, and compares when it reads: however
slow it is, nothing piles up for it, and whoever is at the same place gets the same group of changes.
"""

import asyncio
import logging
from bisect import bisect_left, insort
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from functools import partial
from itertools import count
from typing import Any, NamedTuple, Self, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from gql_jobs.index.index import Index, JobChange
from gql_jobs.index.page import KeysRead, SortKey, sort_key
from gql_jobs.index.reader import Reader
from gql_jobs.jobs.errors import QueueUnavailable, RateLimited
from gql_jobs.jobs.model import Job
from gql_jobs.jobs.requests import JobFilter, JobOrder
from gql_jobs.live.bus import WaitingReader
from gql_jobs.live.watch import Watcher

log = logging.getLogger(__name__)

MAX_WINDOWS = 256
"""Windows at most; each may have any number of subscribers."""
MAX_WINDOWS_OF_CLIENT = 64
"""Windows that the subscribers of one client may be in."""
HELD_GROUP_BYTES = 32 << 20
"""Bytes of groups that all subscribers together may hold."""
_MAX_GROUPS = 16
"""Groups of a window that are kept for others, at most; whoever has been away for long has one of its own."""
_SHARED_BYTES = 256 << 10
"""Bytes of a group that is kept."""
_RETRY_AFTER = 5
"""Seconds after which somebody who was refused a window may try again."""

_JobsOf: TypeAlias = Callable[[Sequence[str]], dict[str, Job]]
_NUMBERS = count(1)
"""For the windows of all runtimes of this process: results that were made for an earlier one may still be kept."""


class Move(Enum):
    """What happened to a job in a list."""

    ENTERED = "entered"
    UPDATED = "updated"
    LEFT = "left"


class ListChange(Struct, frozen=True):
    """One change of a list, or the whole list.

    A snapshot has ``jobs``, the others ``job_id``. ``job`` is the job as of ``position``, None where it has left.
    ``before`` is the id of the job in front of which it stands now, None for the end of the list. With the last of a
    group, where ``more`` is false, the list and ``total`` are what the index has at ``position``.
    """

    key: str
    """Tells it from all other changes of its list, and is the same for all to whom this change is told."""
    position: int
    total: int
    more: bool
    jobs: tuple[Job, ...] | None = None
    move: Move | None = None
    job_id: str = ""
    job: Job | None = None
    before: str | None = None

    @property
    def weight(self) -> int:
        """About how many bytes its jobs take in memory."""
        jobs = self.jobs if self.jobs is not None else (self.job,) if self.job is not None else ()
        return sum([job.weight for job in jobs])


class _KeyChange(NamedTuple):
    """What a change of a job is to a window: its key before and after, None where the job did not or does not match."""

    was: SortKey | None
    now: SortKey | None


class _Gap(Struct):
    """What is applied while the keys of a window are read: the position after each batch, and its changes.

    No jobs, whose payloads would be kept for as long as a read takes.
    """

    batches: list[tuple[int, list[_KeyChange]]] = []
    is_read: bool = False
    """Whether the read has begun; what is applied before that will be in it."""
    is_void: bool = False
    """Whether a change came at no new position, so that nobody knows whether it was read."""


class Window:
    """The first jobs of one filter in one order. Used on the event loop only."""

    def __init__(self, job_filter: JobFilter, order: JobOrder, first: int, *, number: int = 0) -> None:
        """:param number: tells it from all others of this process, earlier ones of the same list included."""
        self._number = number
        self.filter = job_filter
        self.order = order
        self.first = first
        self.total = 0
        self.generation = 0
        """Grows with each batch that may have changed what is shown."""
        self.subscribers: set[ListSubscriber] = set()
        self.loading: asyncio.Task[None] | None = None
        self._keys: list[SortKey] = []
        """In ascending order; with a descending order what is shown stands at the end."""
        self._is_whole = False
        """Whether the keys are those of all jobs that match."""
        self._updated: dict[str, int] = {}
        """The generation in which each job of the keys was changed last, if that was since they were read."""
        self._gap: _Gap | None = None
        self._groups: dict[tuple[int | None, bool], list[ListChange]] = {}
        """The changes that lead to this generation from an earlier one, or from nothing; with payloads, and without."""

    @property
    def is_ready(self) -> bool:
        """Whether what is shown is known as of the index's position; else its keys have to be read."""
        return self._gap is None and not self.is_short

    @property
    def is_short(self) -> bool:
        """Whether fewer keys are known than are shown although more jobs match."""
        return not self._is_whole and len(self._keys) < self.first

    @property
    def lookups(self) -> list[tuple[str, Hashable]] | None:
        """Return under which properties of a job it is found; None if any job may be in it."""
        wanted, limits = self.filter, self.filter.visibility.limits
        # Of those that all have to hold the narrowest is enough.
        for kind, values in (
            ("id", wanted.ids),
            ("id", limits.ids),
            ("tag", None if wanted.tags is None else sorted(wanted.tags)[:1]),
            ("tag", limits.tags),
            ("tenant", None if wanted.visibility.tenant is None else (wanted.visibility.tenant,)),
            ("type", wanted.type),
            ("type", limits.types),
            ("queue", wanted.queue),
            ("queue", limits.queues),
        ):
            if values is not None:
                return [(kind, value) for value in values]
        return None

    def shown(self) -> list[str]:
        """Return the ids of the jobs that are shown, in the order."""
        keys = self._keys[: -self.first - 1 : -1] if self.order.descending else self._keys[: self.first]
        return [str(key[-1]) for key in keys]

    # Keeping the keys.

    def begin_loading(self) -> None:
        """Note from here on what the index applies: the keys are read now."""
        self._gap = _Gap(is_read=True)

    def wait_for_load(self) -> None:
        """Apply nothing until the keys are read."""
        self._gap = _Gap()

    def end_loading(self, read: KeysRead) -> bool:
        """Take what was read, and apply what has been noted since; return False if it has to be read again."""
        gap, self._gap = self._gap, None
        if gap is None or gap.is_void:
            return False
        known = {str(key[-1]) for key in self._keys}
        self._keys = sorted(read.keys)
        self._is_whole, self.total = read.is_whole, read.total
        present = {str(key[-1]) for key in self._keys}
        # Nobody knows of those that were not among the keys whether they have changed since somebody was shown them.
        changed = (present - known) | {str(now[-1]) for _, batch in gap.batches for _, now in batch if now is not None}
        kept = {job_id: since for job_id, since in self._updated.items() if job_id in present}
        self._updated = kept | dict.fromkeys(changed & present, self.generation + 1)
        self._advance()
        for position, changes in gap.batches:
            if position > read.position:
                self._apply(changes)
        if self.is_ready:
            self.wake()
        return not self.is_short

    def void(self) -> None:
        """Have the keys read once more, if they are being read."""
        if self._gap is not None:
            self._gap.is_void = True

    def apply(self, position: int, changes: list[JobChange]) -> None:
        """Apply what a batch has changed of jobs that may be in this window."""
        found = [_KeyChange(self._key_of(before), self._key_of(after)) for before, after in changes]
        if found := [change for change in found if change != _NEITHER]:
            if self._gap is None:
                self._apply(found)
            elif self._gap.is_read:
                self._gap.batches.append((position, found))

    def _key_of(self, job: Job | None) -> SortKey | None:
        return sort_key(job, self.order.field) if job is not None and self.filter.matches(job) else None

    def _apply(self, changes: list[_KeyChange]) -> None:
        for was, now in changes:
            self.total += (now is not None) - (was is not None)
            if was is not None:
                self._remove(was)
            if now is not None:
                self._insert(now)
                self._updated[str(now[-1])] = self.generation + 1
        self._trim()
        self._advance()
        if self.is_ready:
            self.wake()

    def _advance(self) -> None:
        self.generation += 1
        self._groups = {}

    def _remove(self, key: SortKey) -> None:
        place = bisect_left(self._keys, key)
        if place < len(self._keys) and self._keys[place] == key:
            del self._keys[place]
            self._updated.pop(str(key[-1]), None)

    def _insert(self, key: SortKey) -> None:
        if not self._is_whole:
            # What stands behind the last known key is not known, and whether the job is in front of that neither.
            if not self._keys:
                return
            if key < self._keys[0] if self.order.descending else key > self._keys[-1]:
                return
        insort(self._keys, key)

    def _trim(self) -> None:
        surplus = len(self._keys) - 2 * self.first
        if surplus > 0:
            dropped = self._keys[:surplus] if self.order.descending else self._keys[-surplus:]
            self._keys = self._keys[surplus:] if self.order.descending else self._keys[:-surplus]
            self._is_whole = False
            for key in dropped:
                self._updated.pop(str(key[-1]), None)
        if len(self._updated) > len(self._keys):
            kept = {str(key[-1]) for key in self._keys}
            self._updated = {job_id: since for job_id, since in self._updated.items() if job_id in kept}

    def wake(self) -> None:
        """Have subscribers look whether there is something for them."""
        for subscriber in self.subscribers:
            subscriber.wake()

    # What a subscriber is told.

    def group(
        self, since: int | None, shown: Sequence[str], total: int, index: Index, *, with_payloads: bool
    ) -> list[ListChange]:
        """Return the changes that lead from a list to the present one; none if they are equal.

        :param since: the generation of that list; None for no list, which leads to a snapshot.
        :param shown: the ids of that list.
        :param total: how many jobs matched then.
        :param index: has the jobs as they are now.
        :param with_payloads: whether jobs are wanted with their payloads and results.
        :raises ListTooLarge: if these do not fit into memory together.
        :raises QueueUnavailable: if the index cannot be read any more.
        """
        key = since, with_payloads
        found = self._groups.get(key)
        if found is None:
            jobs_of = partial(index.listed, with_payloads=with_payloads)
            found = self._group(since, shown, total, index.position, jobs_of)
            if len(self._groups) < _MAX_GROUPS and sum([change.weight for change in found]) <= _SHARED_BYTES:
                self._groups[key] = found
        return found

    def _group(
        self, since: int | None, shown: Sequence[str], total: int, position: int, jobs_of: _JobsOf
    ) -> list[ListChange]:
        now = self.shown()
        if since is None:
            return [self._snapshot(now, position, jobs_of)]
        present = set(now)
        left = [job_id for job_id in shown if job_id not in present]
        staying = in_place(shown, now)
        moved = [job_id for job_id in now if job_id not in staying]
        updated = {job_id for job_id in staying if self._updated.get(job_id, 0) > since}
        if len(left) + len(moved) + len(updated) > self.first:
            return [self._snapshot(now, position, jobs_of)]
        if not (left or moved or updated):
            if total == self.total or not now:
                return []
            # Only the number has changed, which needs something to come with.
            updated = {now[0]}
        jobs = jobs_of([*moved, *updated])
        entries: list[dict[str, Any]] = [{"move": Move.LEFT, "job_id": job_id} for job_id in left]
        for place in range(len(now) - 1, -1, -1):
            job_id = now[place]
            if job_id in updated:
                entries.append({"move": Move.UPDATED, "job_id": job_id, "job": jobs[job_id]})
            elif job_id not in staying:
                before = now[place + 1] if place + 1 < len(now) else None
                entries.append({"move": Move.ENTERED, "job_id": job_id, "job": jobs[job_id], "before": before})
        return [
            ListChange(
                key=f"{self._number}.{self.generation}.{since}.{number}",
                position=position,
                total=self.total,
                more=number < len(entries),
                **entry,
            )
            for number, entry in enumerate(entries, 1)
        ]

    def _snapshot(self, now: Sequence[str], position: int, jobs_of: _JobsOf) -> ListChange:
        jobs = jobs_of(now)
        return ListChange(
            key=f"{self._number}.{self.generation}",
            position=position,
            total=self.total,
            more=False,
            jobs=tuple(jobs[job_id] for job_id in now),
        )


class ListSubscriber(WaitingReader):
    """The changes of one list: an async iterator for one reader, which never ends by itself.

    ``async with``, or ``aclose``, takes it out of its window. Iterating raises ``QueueUnavailable`` if the index cannot
    be read any more, and ``RateLimited`` if the watcher has become another one and there is no window for them.
    """

    def __init__(
        self,
        windows: "Windows",
        watcher: Watcher,
        wanted: JobFilter,
        order: JobOrder,
        first: int,
        *,
        pause: float,
        with_payloads: bool,
        client: str | None,
    ) -> None:
        super().__init__()
        self._windows = windows
        self.client = client
        self._watcher = watcher
        self._wanted = wanted
        self.order = order
        self.first = first
        self._pause = pause
        self._with_payloads = with_payloads
        self._next_at = 0.0
        self.since: int | None = None
        """The generation that was shown last; None before the first."""
        self._shown: list[str] = []
        self._total = 0
        self._pending: deque[ListChange] = deque()
        self._closed = False
        self._failure: Exception | None = None
        self.window = windows.enter(self, self._filter)

    @property
    def _filter(self) -> JobFilter:
        return replace(self._wanted, visibility=self._watcher.visibility)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ListChange:
        while not self._closed:
            if self._watcher.visibility != self.window.filter.visibility:
                self._change_window()
            if not self._pending and not self._has_changed:
                await self._wait(None)
            elif not self._pending and asyncio.get_running_loop().time() < self._next_at:
                # What changes meanwhile comes with the same group.
                await self._wait(self._next_at)
            else:
                if self.turn is not None:
                    await self.turn.begin()
                # While it was another reader's turn, the watcher may have become another one, or a group too large.
                if self._watcher.visibility == self.window.filter.visibility and (self._pending or self._compare()):
                    return self._taken()
        raise StopAsyncIteration if self._failure is None else self._failure

    @property
    def _has_changed(self) -> bool:
        return self.window.is_ready and self.window.generation != self.since

    def _compare(self) -> bool:
        """Put down what leads from the list that was shown to the present one; return whether that is anything."""
        window = self.window
        if not self._has_changed:
            return False
        group = window.group(
            self.since, self._shown, self._total, self._windows.index, with_payloads=self._with_payloads
        )
        self.since, self._shown, self._total = window.generation, window.shown(), window.total
        if group:
            self._pending.extend(group)
            self._next_at = asyncio.get_running_loop().time() + self._pause
            self._windows.held.hold(self, sum([change.weight for change in group]))
        return bool(group)

    def _taken(self) -> ListChange:
        change = self._pending.popleft()
        if not self._pending:
            self._windows.held.release(self)
        return change

    def _change_window(self) -> None:
        self._windows.leave(self)
        self.step_back()
        self.window = self._windows.enter(self, self._filter)

    def step_back(self) -> None:
        """Drop what has not been handed out, and begin again with the whole list."""
        self._pending.clear()
        self._windows.held.release(self)
        self.since = None

    def fail(self, error: Exception) -> None:
        """Leave the window and end the iteration with that error."""
        if not self._closed:
            self._failure = error
            self.close()

    def close(self) -> None:
        """Leave the window and end the iteration, also of a reader that waits now."""
        if not self._closed:
            self._closed = True
            self.step_back()
            self._windows.leave(self)
            self.wake()

    async def aclose(self) -> None:
        """Close it as ``close`` does."""
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


class HeldGroups:
    """What subscribers hold of groups that they have begun to hand out.

    If all together take more than ``HELD_GROUP_BYTES``, whoever has held longest drops its group, and begins again.
    """

    def __init__(self) -> None:
        self.bytes = 0
        """Bytes that are held now; what several hold counts for each."""
        self._holders: OrderedDict[ListSubscriber, int] = OrderedDict()

    def hold(self, subscriber: ListSubscriber, weight: int) -> None:
        """Count the group that a subscriber holds from now on."""
        self._holders[subscriber] = weight
        self.bytes += weight
        while self.bytes > HELD_GROUP_BYTES:
            # The newest may keep what it has just got, however large: else it would never hand it out.
            oldest = next(iter(self._holders))
            if oldest is subscriber:
                return
            oldest.step_back()

    def release(self, subscriber: ListSubscriber) -> None:
        """Count it no longer."""
        self.bytes -= self._holders.pop(subscriber, 0)


class Windows:
    """The windows of this process: opens them, keeps them up to date, and drops those that nobody watches."""

    def __init__(self, index: Index, reader: Reader) -> None:
        self.index = index
        self._reader = reader
        self._windows: dict[tuple[JobFilter, JobOrder, int], Window] = {}
        self._by_property: dict[tuple[str, Hashable], set[Window]] = {}
        self._by_none: set[Window] = set()
        self._of_clients: dict[str, Counter[Window]] = {}
        """By client, the windows that its subscribers are in, and how many of them."""
        self.held = HeldGroups()
        self._one_at_a_time = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._windows)

    def subscribe(
        self,
        wanted: JobFilter,
        order: JobOrder,
        watcher: Watcher,
        *,
        first: int,
        per_second: float,
        with_payloads: bool = False,
        client: str | None = None,
    ) -> ListSubscriber:
        """Return a subscriber to the first jobs of a filter, which has to be closed. A snapshot comes first.

        :param wanted: its visibility is that of the watcher at each moment.
        :param per_second: groups of changes that come in a second at most.
        :param with_payloads: whether payloads and results are needed.
        :param client: who watches, as one of those who may watch only some of the lists; None for nobody.
        :raises RateLimited: if too many different lists are watched, or too many by the client.
        """
        pause = 1 / per_second
        return ListSubscriber(
            self, watcher, wanted, order, first, pause=pause, with_payloads=with_payloads, client=client
        )

    def enter(self, subscriber: ListSubscriber, job_filter: JobFilter) -> Window:
        """Return the window of a filter with the subscriber in it; it is opened if it is not there.

        :raises RateLimited: if there are too many others, or the client of the subscriber is in too many others.
        """
        key = (job_filter, subscriber.order, subscriber.first)
        window = self._windows.get(key)
        own = self._of_clients.get(subscriber.client, _NONE_YET) if subscriber.client is not None else _NONE_YET
        if len(own) >= MAX_WINDOWS_OF_CLIENT and window not in own:
            message = f"A client watches {MAX_WINDOWS_OF_CLIENT} different lists at most; end one of them first."
            raise RateLimited(message, _RETRY_AFTER)
        if window is None:
            if len(self._windows) >= MAX_WINDOWS:
                message = f"{MAX_WINDOWS} different lists are watched here, which is the limit; try again later."
                raise RateLimited(message, _RETRY_AFTER)
            window = self._windows[key] = Window(*key, number=next(_NUMBERS))
            self._file(window)
            if self._apply not in self.index.on_change:
                self.index.on_change.append(self._apply)
            self._load(window)
        window.subscribers.add(subscriber)
        if subscriber.client is not None:
            self._of_clients.setdefault(subscriber.client, Counter())[window] += 1
        return window

    def leave(self, subscriber: ListSubscriber) -> None:
        """Take a subscriber out of its window, and drop that if nobody else is in it."""
        window = subscriber.window
        if subscriber not in window.subscribers:
            return
        window.subscribers.discard(subscriber)
        if subscriber.client is not None:
            own = self._of_clients[subscriber.client]
            own[window] -= 1
            if not own[window]:
                del own[window]
            if not own:
                del self._of_clients[subscriber.client]
        key = (window.filter, window.order, window.first)
        if window.subscribers or self._windows.get(key) is not window:
            return
        del self._windows[key]
        self._unfile(window)
        if window.loading is not None:
            window.loading.cancel()
        if not self._windows:
            # Batches are only looked at while somebody watches.
            self.index.on_change.remove(self._apply)

    def close(self) -> None:
        """End all subscribers: the index is about to be closed."""
        self._fail(list(self._windows.values()), QueueUnavailable("This process of the server is ending; try again."))

    def _file(self, window: Window) -> None:
        for lookup in window.lookups or ():
            self._by_property.setdefault(lookup, set()).add(window)
        if window.lookups is None:
            self._by_none.add(window)

    def _unfile(self, window: Window) -> None:
        for lookup in window.lookups or ():
            found = self._by_property[lookup]
            found.discard(window)
            if not found:
                del self._by_property[lookup]
        self._by_none.discard(window)

    def _apply(self, changes: list[JobChange], position: int, *, in_turn: bool) -> None:
        concerned: dict[Window, list[JobChange]] = {}
        for change in changes:
            for window in self._windows_of(change):
                concerned.setdefault(window, []).append(change)
        for window, its_changes in concerned.items():
            if not in_turn:
                window.void()
            window.apply(position, its_changes)
            if window.is_short and window.loading is None:
                self._load(window)

    def _windows_of(self, change: JobChange) -> set[Window]:
        found = set(self._by_none)
        if self._by_property:
            for job in change:
                if job is not None:
                    for lookup in _properties(job):
                        found |= self._by_property.get(lookup, _NOBODY)
        return found

    def _load(self, window: Window) -> None:
        window.wait_for_load()
        window.loading = asyncio.create_task(self._read(window))

    async def _read(self, window: Window) -> None:
        try:
            is_read = False
            while not is_read:
                async with self._one_at_a_time:
                    window.begin_loading()
                    read = await self._reader.keys(window.filter, window.order, 2 * window.first)
                is_read = window.end_loading(read)
        except QueueUnavailable as error:
            self._fail([window], error)
        except Exception:
            log.exception("a list that is watched could not be read")
            self._fail([window], QueueUnavailable("The list could not be read; try again."))
        finally:
            window.loading = None

    def _fail(self, windows: list[Window], error: Exception) -> None:
        for window in windows:
            for subscriber in list(window.subscribers):
                subscriber.fail(error)


_NOBODY: frozenset[Window] = frozenset()
_NONE_YET: Counter[Window] = Counter()
_NEITHER = _KeyChange(None, None)


def _properties(job: Job) -> Iterator[tuple[str, Hashable]]:
    spec = job.spec
    yield "id", job.id
    yield "type", spec.type
    yield "queue", spec.queue
    yield "tenant", spec.tenant
    for tag in spec.tags:
        yield "tag", tag


@contextmanager
def open_windows(index: Index, reader: Reader) -> Iterator[Windows]:
    """Open the windows over an index until the block ends, with whatever watches them."""
    windows = Windows(index, reader)
    try:
        yield windows
    finally:
        windows.close()


def in_place(before: Sequence[str], after: Sequence[str]) -> set[str]:
    """Return as many ids as possible that are in both lists and stand in the same order in both."""
    places = {job_id: place for place, job_id in enumerate(before)}
    ends: list[int] = []
    """The smallest place that an increasing row of each length can end with."""
    rows: list[int] = []
    """For each of those, which of the common ids it is."""
    common = [job_id for job_id in after if job_id in places]
    previous: list[int] = []
    for number, job_id in enumerate(common):
        place = places[job_id]
        length = bisect_left(ends, place)
        ends[length : length + 1] = [place]
        rows[length : length + 1] = [number]
        previous.append(rows[length - 1] if length else -1)
    found: set[str] = set()
    number = rows[-1] if rows else -1
    while number >= 0:
        found.add(common[number])
        number = previous[number]
    return found
