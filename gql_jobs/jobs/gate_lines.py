"""The jobs that the gate knows, and the lines in which they wait: for a limit, a rate, a pause, or a worker.

Jobs of one queue, type and key are a group with the same bounds, of which only the first waits. Every change that may
give a bound room is noted, and then the first group of its line is looked at again; so nothing is looked through in
vain, and ten thousand jobs that wait cost nothing while nothing changes.
"""

import heapq
from collections import defaultdict, deque
from collections.abc import Callable
from datetime import datetime
from typing import TypeAlias

from msgspec import Struct

from gql_jobs.jobs.limits import UNLIMITED, Limits
from gql_jobs.jobs.model import Job, JobStatus

_S = JobStatus
_PLACED = frozenset({_S.QUEUED, _S.PROCESSING})
"""In these states a job holds a place."""

Bound: TypeAlias = tuple[str, ...]
"""Something that bounds a group of jobs: what it is, then of which queue or type, and of which key."""
_Line: TypeAlias = list[tuple[tuple[int, datetime, str], int, "JobGroup"]]
"""Groups by the order of their first jobs, with the number of that place."""
_QUEUE, _QUEUE_KEY, _QUEUE_RATE = "queue", "queue-key", "queue-rate"
_TYPE, _TYPE_KEY, _TYPE_RATE = "type", "type-key", "type-rate"
_PAUSE, _WORKERS = "pause", "workers"


class Hold(Struct, frozen=True):
    """What a job waits for at the gate, as far as it is known here; only the holder knows when a rate lets one go.

    ``needs``: the ids of jobs that it is to run after. Otherwise a limit of a ``queue`` or ``type``, by its ``name``:
    ``number`` jobs, with the same ``key`` if it is one per key, have the ``most`` places that there are. ``per_second``
    is given in the place of these if it is a rate.
    """

    needs: tuple[str, ...] = ()
    what: str = ""
    name: str = ""
    key: str | None = None
    number: int = 0
    most: int = 0
    per_second: float | None = None


class World:
    """What the gate asks about the rest of the system; each answer is as of now.

    ``standing``: the state of any job, None if it is gone; ``occupied``: how many jobs of a ``queue`` or ``type``
    are queued or run by the index, whether they passed the gate or not; ``is_paused``: whether a queue is;
    ``is_able``: whether a worker can run jobs of a type in a queue, or none serves the queue at all; ``idle``: how many
    seconds ago anything has happened to a released job of a ``queue`` or ``type``, at least, None for never.
    """

    def __init__(
        self,
        standing: Callable[[str], JobStatus | None],
        occupied: Callable[[str, str], int],
        is_paused: Callable[[str], bool] = lambda _: False,
        is_able: Callable[[str, str], bool] = lambda _, __: True,
        idle: Callable[[str, str], float | None] = lambda _, __: 0.0,
    ) -> None:
        self.standing = standing
        self.occupied = occupied
        self.is_paused = is_paused
        self.is_able = is_able
        self.idle = idle


class JobGroup:
    """Jobs with the same bounds: of one queue, type and key. The first of those that are ready stands for all."""

    __slots__ = ("bounds", "heap", "key", "number", "queue", "size", "type", "via")

    def __init__(self, queue: str, type_name: str, key: str | None) -> None:
        self.queue = queue
        self.type = type_name
        self.key = key
        self.size = 0
        """How many jobs it has, whatever their state."""
        self.heap: list[tuple[tuple[int, datetime, str], int, HeldJob]] = []
        """With a number that decides between two records of one job, of which the older is void."""
        self.number = 0
        """Of its newest place in a line; older ones are void."""
        self.via: Bound | None = None
        """The bound that has let it go last, while it is looked at again."""
        keyed = [(_QUEUE_KEY, queue, key), (_TYPE_KEY, type_name, key)] if key is not None else []
        self.bounds: list[Bound] = [
            (_PAUSE, queue),
            (_WORKERS, queue, type_name),
            *keyed,
            (_QUEUE, queue),
            (_TYPE, type_name),
            (_QUEUE_RATE, queue),
            (_TYPE_RATE, type_name),
        ]

    def head(self) -> "HeldJob | None":
        """Return the first job that is ready, or None; what is no longer ready is dropped."""
        while self.heap and not self.heap[0][2].is_ready:
            heapq.heappop(self.heap)
        return self.heap[0][2] if self.heap else None


class HeldJob:
    """What the gate knows of one job."""

    __slots__ = (
        *("id", "order", "group", "status", "moved_at", "is_gated", "due", "needs", "unknown", "is_strict", "outlasts"),
        *(
            "start_before",
            "schedule",
            "overlap",
            "is_by_hand",
            "release_before",
            "is_in_time",
            "is_late_by_turn",
            "is_missed",
            "is_ready",
            "is_busy",
            "is_sent",
            "verdict",
        ),
    )

    def __init__(self, job: Job, group: JobGroup) -> None:
        spec = job.spec
        self.id = job.id
        self.group = group
        self.status = job.status
        self.moved_at = job.moved_at
        self.order = (-spec.priority.rank, spec.created_at, job.id)
        self.is_gated = spec.gate is not None
        self.due: datetime | None = None
        """When it may be released at the earliest; None for at once."""
        self.needs: set[str] = set()
        """The ids of jobs that it waits for."""
        self.unknown: set[str] = set()
        """Those that were not known when it was looked at: gone, or told of later."""
        self.is_strict = False
        """Whether it is cancelled if one of these does not complete, but for those that it ``outlasts``."""
        self.outlasts: set[str] = set()
        """Those whose end it waits for, whatever that is."""
        self.start_before = spec.start_before if _has_not_started(job) else None
        self.schedule = spec.schedule
        self.overlap = spec.gate.overlap if spec.gate is not None else None
        # Whoever retries the job of a tick by hand wants it to run, however late, and no other one to end for that.
        self.is_by_hand = job.again
        # Nor is a job too late that was in time before it failed.
        has_latest = spec.gate is not None and job.status is _S.WAITING and not job.again
        self.release_before = spec.gate.release_before if spec.gate is not None and has_latest else None
        self.is_in_time = False
        """Whether it was looked at before that: whatever holds it back then, it waits for its turn."""
        self.is_late_by_turn = False
        """Whether its turn came after that: it is released whenever that can be stored."""
        self.is_missed = job.is_missed
        self.is_ready = False
        """Whether only bounds hold it back."""
        self.is_busy = False
        """Whether something that was decided about it is on its way."""
        self.is_sent = False
        """Whether that is a release."""

    @property
    def made_at(self) -> tuple[datetime, str]:
        """When it was created, and its id, which decides between two of one moment."""
        return self.order[1], self.id

    @property
    def is_held(self) -> bool:
        """Whether it is one that a release would queue."""
        return self.is_gated and self.status in {_S.WAITING, _S.RETRYING}

    @property
    def has_place(self) -> bool:
        """Whether it holds a place."""
        return self.status in _PLACED or self.is_sent

    @property
    def is_unstarted(self) -> bool:
        """Whether it is released and no attempt of it has started."""
        return self.is_gated and (self.status is _S.QUEUED or (self.is_sent and self.status is not _S.PROCESSING))

    @property
    def needs_holder(self) -> bool:
        """Whether somebody has to hold the gate for it."""
        return self.is_gated or self.start_before is not None or self.is_missed


class _Rate:
    """The releases of a queue or type in the last while: at most ``most`` in ``length`` seconds.

    One counts from when it is sent until ``length`` seconds after it is known to be stored, so that what is between two
    of them at the server never is less than that, whatever the clocks.
    """

    __slots__ = ("_ends", "_pending", "length", "most")

    def __init__(self, per_second: float) -> None:
        self.most = max(1, int(per_second))
        self.length = self.most / per_second
        self._pending = 0
        self._ends: deque[float] = deque()

    def has_room(self, at: float) -> bool:
        while self._ends and self._ends[0] <= at:
            self._ends.popleft()
        return self._pending + len(self._ends) < self.most

    def ends_at(self) -> float | None:
        """Return when there will be room again; None if that is not known yet."""
        return self._ends[0] if self._ends else None

    def send(self) -> None:
        self._pending += 1

    def store(self, at: float, *, stored: bool) -> None:
        self._pending -= self._pending > 0
        if stored:
            self._ends.append(at + self.length)

    def fill(self, at: float, idle: float | None) -> float:
        """Count as many as there may be, as if they had been released so long ago; return until when they count.

        When exactly others have released jobs is not known here.
        """
        end = at + (0.0 if idle is None else max(self.length - idle, 0.0))
        self._ends.extend([end] * self.most)
        return end


class Lines:
    """All groups, and what bounds them; counts the places that are taken.

    Moments are those of a monotonic clock in seconds. A job that is put into a group is counted until it is removed.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._groups: dict[tuple[str, str, str | None], JobGroup] = {}
        self._limits: dict[Bound, Limits] = {}
        self._rates: dict[Bound, _Rate] = {}
        self._held: defaultdict[Bound, int] = defaultdict(int)
        """Places by key."""
        self._unstarted: defaultdict[Bound, int] = defaultdict(int)
        """Released jobs that have not started, by bound of a rate."""
        self._sent: defaultdict[Bound, int] = defaultdict(int)
        """Places that the index does not know of yet, by queue and by type."""
        self._totals: dict[Bound, int] = {}
        self._ready: _Line = []
        self._blocked: defaultdict[str, dict[Bound, _Line]] = defaultdict(dict)
        self._freed: set[Bound] = set()
        self._wakes: list[tuple[float, Bound]] = []
        self._pending: dict[str, list[tuple[Bound, _Rate]]] = {}
        """By job, the rates of which its release on its way is a part."""
        self._numbers = 0

    # What changes the bounds.

    def limit(self, of: str, name: str, limits: Limits | None, moment: float) -> None:
        """Set the limits of a ``queue`` or a ``type``; None takes them away.

        :param moment: of the monotonic clock. What was released before is not known: it counts as as many as may be.
        """
        bound: Bound = (of, name)
        present = self._limits.get(bound, UNLIMITED)
        if limits is None or limits.is_none:
            self._limits.pop(bound, None)
        else:
            self._limits[bound] = limits
        rate = limits.per_second if limits is not None else None
        if rate != present.per_second:
            rated: Bound = (f"{of}-rate", name)
            self._rates.pop(rated, None)
            if rate is not None:
                self._begin_rate(rated, rate, moment)
        self.look_again()

    def _begin_rate(self, bound: Bound, per_second: float, moment: float) -> None:
        self._rates[bound] = rate = _Rate(per_second)
        of, name = bound[0].removesuffix("-rate"), bound[1]
        idle = 0.0 if self._pending else self._world.idle(of, name)
        heapq.heappush(self._wakes, (rate.fill(moment, idle), bound))

    def begin(self, moment: float) -> None:
        """Begin to act: whatever others have released counts for the rates, as many as there may be."""
        self._pending.clear()
        for bound, rate in list(self._rates.items()):
            self._begin_rate(bound, rate.most / rate.length, moment)
        self.look_again()

    def look_again(self) -> None:
        """Look at everything that is held back once more: pauses, limits, or what workers can run have changed."""
        self._totals.clear()
        for bounds in self._blocked.values():
            self._freed.update(bounds)

    def forget_totals(self) -> None:
        """Count the jobs of queues and types anew when that is asked for next."""
        self._totals.clear()

    def totals_changed(self) -> None:
        """Note that jobs that did not pass the gate were queued, or have ended."""
        self._totals.clear()
        for what in (_QUEUE, _TYPE):
            self._freed.update(self._blocked[what])

    # Jobs, and what is on its way about them.

    def group(self, queue: str, type_name: str, key: str | None) -> JobGroup:
        """Return the group of such jobs, which is there from then on."""
        group = self._groups.get((queue, type_name, key))
        if group is None:
            group = self._groups[queue, type_name, key] = JobGroup(queue, type_name, key)
        return group

    def add(self, job: HeldJob) -> None:
        """Count a job from now on."""
        job.group.size += 1
        self._count(job, 1)

    def remove(self, job: HeldJob) -> None:
        """Count a job no longer; whatever line it stands in, it is not there any more."""
        job.is_ready = False
        self._count(job, -1)
        group = job.group
        group.size -= 1
        if not group.size:
            del self._groups[group.queue, group.type, group.key]
            group.heap.clear()

    def mark(self, job: HeldJob, *, is_busy: bool, is_sent: bool) -> None:
        """Note whether something is on its way about a job, and whether that is a release, which takes a place."""
        self._count(job, -1)
        job.is_busy, job.is_sent = is_busy, is_sent
        self._count(job, 1)

    def send(self, job: HeldJob) -> None:
        """Have the rates of a job count its release, which is on its way."""
        rated = [(bound, self._rates[bound]) for bound in job.group.bounds if bound in self._rates]
        self._pending[job.id] = rated
        for _, rate in rated:
            rate.send()

    def store(self, job_id: str, moment: float, *, stored: bool) -> None:
        """Note that a release is known to be stored, or known not to be, for its rates."""
        # Of a job that has ended meanwhile as well.
        for bound, rate in self._pending.pop(job_id, ()):
            rate.store(moment, stored=stored)
            heapq.heappush(self._wakes, (moment + (rate.length if stored else 0), bound))

    # Who is next.

    @property
    def has_blocked(self) -> bool:
        """Whether jobs wait for a place, so that each attempt that ends lets another job go."""
        return any(self._blocked[what] for what in (_QUEUE, _QUEUE_KEY, _TYPE, _TYPE_KEY))

    def wakes_in(self, moment: float) -> float | None:
        """Return in how many seconds a rate has room again; None if none is waited for."""
        return self._wakes[0][0] - moment if self._wakes else None

    def line_up(self, job: HeldJob) -> None:
        """Put a job, which nothing but bounds holds back, into the line."""
        job.is_ready = True
        self._numbers += 1
        heapq.heappush(job.group.heap, (job.order, self._numbers, job))
        self.look_at(job.group)

    def first(self, moment: float) -> HeldJob | None:
        """Return the first job that has room, or None; ``take`` it, or have its group be looked at again."""
        while self._wakes and self._wakes[0][0] <= moment:
            self._freed.add(heapq.heappop(self._wakes)[1])
        while True:
            self._take_up(moment)
            if not self._ready:
                return None
            _, number, group = heapq.heappop(self._ready)
            if number != group.number:
                continue
            via, group.via = group.via, None
            if via is not None:
                # Others may wait behind it.
                self._freed.add(via)
            job = group.head()
            if job is None:
                continue
            bound = next((bound for bound in group.bounds if not self._has_room(bound, moment)), None)
            if bound is None:
                return job
            self._block(group, bound)

    def take(self, job: HeldJob) -> None:
        """Take a job, which is the first, out of its line."""
        heapq.heappop(job.group.heap)
        job.is_ready = False
        self.look_at(job.group)

    def look_at(self, group: JobGroup) -> None:
        """Have a group looked at by the order of its first job."""
        if (head := group.head()) is not None:
            heapq.heappush(self._ready, (head.order, self._number(group), group))

    def hold(self, group: JobGroup) -> Hold | None:
        """Return the limit that holds a group back, a rate only if no other does; None if none does."""
        rated: Hold | None = None
        for bound in group.bounds:
            limits = self._limits_of(bound)
            if limits is None:
                continue
            what, _, part = bound[0].partition("-")
            if part == "rate":
                if rated is None and limits.per_second is not None:
                    rated = Hold(what=what, name=bound[1], per_second=limits.per_second)
                continue
            most = limits.concurrency_per_key if part else limits.concurrency
            if most is not None and (number := self._places(bound)) >= most:
                key = bound[2].partition("\0")[2] if part else None
                return Hold(what=what, name=bound[1], key=key, number=number, most=most)
        return rated

    def _number(self, group: JobGroup) -> int:
        """Return the number of a new place in a line for a group, which makes the others void."""
        self._numbers += 1
        group.number = self._numbers
        return group.number

    def _block(self, group: JobGroup, bound: Bound) -> None:
        head = group.head()
        if head is None:
            return
        line = self._blocked[bound[0]].setdefault(bound, [])
        heapq.heappush(line, (head.order, self._number(group), group))
        rate = self._rates.get(bound)
        if rate is not None and (end := rate.ends_at()) is not None:
            heapq.heappush(self._wakes, (end, bound))

    def _take_up(self, moment: float) -> None:
        """Line up the first group of each bound that has room again."""
        while self._freed:
            bound = self._freed.pop()
            line = self._blocked[bound[0]].get(bound)
            if line is None:
                continue
            while line and (line[0][1] != line[0][2].number or line[0][2].head() is None):
                heapq.heappop(line)
            if line and self._has_room(bound, moment):
                _, _, group = heapq.heappop(line)
                group.via = bound
                self.look_at(group)
            if not line:
                del self._blocked[bound[0]][bound]

    def _has_room(self, bound: Bound, moment: float) -> bool:
        what, name, *rest = bound
        if what == _PAUSE:
            return not self._world.is_paused(name)
        if what == _WORKERS:
            return self._world.is_able(name, rest[0])
        if what in {_QUEUE_RATE, _TYPE_RATE}:
            rate = self._rates.get(bound)
            return rate is None or (self._unstarted[bound] < rate.most and rate.has_room(moment))
        limits = self._limits_of(bound)
        if limits is None:
            return True
        most = limits.concurrency_per_key if what in {_QUEUE_KEY, _TYPE_KEY} else limits.concurrency
        return most is None or self._places(bound) < most

    def _limits_of(self, bound: Bound) -> Limits | None:
        """Return the limits that a bound is a part of; None if there are none, or it is no limit."""
        return self._limits.get((bound[0].partition("-")[0], bound[1]))

    def _places(self, bound: Bound) -> int:
        """Return how many places are taken: of jobs with one key, or of all of a queue or type."""
        if bound[0] in {_QUEUE_KEY, _TYPE_KEY}:
            return self._held[bound]
        if bound not in self._totals:
            self._totals[bound] = self._world.occupied(bound[0], bound[1])
        return self._totals[bound] + self._sent[bound]

    def _count(self, job: HeldJob, by: int) -> None:
        """Count a job's place, or no longer; what has room then is looked at again."""
        group = job.group
        for bound in group.bounds:
            what = bound[0]
            if what in {_QUEUE_KEY, _TYPE_KEY}:
                self._held[bound] += by * job.has_place
                if not self._held[bound]:
                    del self._held[bound]
            elif what in {_QUEUE, _TYPE}:
                self._sent[bound] += by * (job.is_sent and job.status not in _PLACED)
            elif what in {_QUEUE_RATE, _TYPE_RATE}:
                self._unstarted[bound] += by * job.is_unstarted
            else:
                continue
            if by < 0 and bound in self._blocked[what]:
                self._freed.add(bound)


def _has_not_started(job: Job) -> bool:
    """Return whether no attempt of a job has started since its newest submission by hand."""
    if job.status not in {_S.SCHEDULED, _S.WAITING, _S.QUEUED} or job.attempt or job.errors:
        return False
    # A job that was handed back has an event after its submission.
    return job.status is not _S.QUEUED or job.event_seq < job.submission_seq
