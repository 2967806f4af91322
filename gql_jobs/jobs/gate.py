"""The gate: which of the jobs that are held back may be queued now, in which order, and which come too late.

Pure: it is told what an index knows (``put``), asked for what is to be done (``next``), and told what has become of
that (``sent``, ``settled``). One process at a time acts on it, and fences what it writes. A job holds a *place* from
its release until it has failed or ended; a release on its way counts as stored until it is known not to be.
"""

import heapq
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TypeAlias

from msgspec import Struct

from gql_jobs.jobs.claim import MISSED, due_again, too_late
from gql_jobs.jobs.limits import UNLIMITED, Limits
from gql_jobs.jobs.model import DependencyPolicy, Job, JobStatus, OverlapPolicy

_S = JobStatus
_PLACED = frozenset({_S.QUEUED, _S.PROCESSING})
"""In these states a job holds a place."""
_LATER = "A later tick of its schedule has taken its place."

Bound: TypeAlias = tuple[str, ...]
"""Something that bounds a group of jobs: what it is, then of which queue or type, and of which key."""
_QUEUE, _QUEUE_KEY, _QUEUE_RATE = "queue", "queue-key", "queue-rate"
_TYPE, _TYPE_KEY, _TYPE_RATE = "type", "type-key", "type-rate"
_PAUSE, _WORKERS = "pause", "workers"


class Release(Struct, frozen=True):
    """Queue the job."""

    job_id: str


class Cancellation(Struct, frozen=True):
    """Cancel the job; ``reason`` is a sentence for whoever looks at it.

    ``whatever_it_does``: also if something has happened to it since that was decided, unless it has ended.
    """

    job_id: str
    reason: str
    whatever_it_does: bool = False


class Recall(Struct, frozen=True):
    """Take the release of a job back that nobody can run, so that it fills no place."""

    job_id: str


Action = Release | Cancellation | Recall


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


class _Group:
    """Jobs with the same bounds: of one queue, type and key. The first of those that are ready stands for all."""

    __slots__ = ("bounds", "heap", "key", "number", "queue", "size", "type", "via")

    def __init__(self, queue: str, type_name: str, key: str | None) -> None:
        self.queue = queue
        self.type = type_name
        self.key = key
        self.size = 0
        """How many jobs it has, whatever their state."""
        self.heap: list[tuple[tuple[int, datetime, str], int, _Record]] = []
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

    def head(self) -> "_Record | None":
        """Return the first job that is ready, or None; what is no longer ready is dropped."""
        while self.heap and not self.heap[0][2].is_ready:
            heapq.heappop(self.heap)
        return self.heap[0][2] if self.heap else None


class _Record:
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

    def __init__(self, job: Job, group: _Group) -> None:
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
        self.verdict: Cancellation | None = None
        """Why it is to be cancelled; None if it is not."""

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


class GateState:
    """The jobs that wait, and what holds them back. Times are those of the server, moments those of a monotonic clock.

    Every change that may let jobs go is noted at what bounded them, so that nothing is looked through in vain: ten
    thousand jobs that wait cost nothing while nothing changes.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._records: dict[str, _Record] = {}
        self._groups: dict[tuple[str, str, str | None], _Group] = {}
        self._limits: dict[Bound, Limits] = {}
        self._rates: dict[Bound, _Rate] = {}
        self._held: defaultdict[Bound, int] = defaultdict(int)
        """Places by key."""
        self._unstarted: defaultdict[Bound, int] = defaultdict(int)
        """Released jobs that have not started, by bound of a rate."""
        self._sent: defaultdict[Bound, int] = defaultdict(int)
        """Places that the index does not know of yet, by queue and by type."""
        self._totals: dict[Bound, int] = {}
        self._ready: list[tuple[tuple[int, datetime, str], int, _Group]] = []
        self._blocked: defaultdict[str, dict[Bound, list[tuple[tuple[int, datetime, str], int, _Group]]]]
        self._blocked = defaultdict(dict)
        self._freed: set[Bound] = set()
        self._dependents: defaultdict[str, set[str]] = defaultdict(set)
        self._of_schedule: defaultdict[str, set[str]] = defaultdict(set)
        self._timers: list[tuple[datetime, str]] = []
        self._wakes: list[tuple[float, Bound]] = []
        self._unclear: set[str] = set()
        """The ids of jobs that are to run after some that are not known."""
        self._busy: dict[str, bool] = {}
        """Jobs about which something is on its way, whatever has become of them since; whether that is a release."""
        self._condemned: deque[str] = deque()
        """The ids of jobs with a verdict."""
        self._pending: dict[str, list[tuple[Bound, _Rate]]] = {}
        """By job, the rates of which its release on its way is a part."""
        self._needing = 0
        self._numbers = 0

    # What is told.

    def put(self, job: Job) -> None:
        """Take in a job as the index has it now; one that has ended, or that nothing steers, is forgotten."""
        if not job.is_steered:
            self.forget(job.id)
            return
        spec = job.spec
        known = self._records.get(job.id)
        if known is not None and (known.moved_at, known.status) == (job.moved_at, job.status):
            # It has only told how far it is.
            return
        key = None if spec.concurrency_key is None else f"{spec.tenant or ''}\0{spec.concurrency_key}"
        if known is not None:
            self._drop(known)
        record = _Record(job, self._group(spec.queue, spec.type, key))
        # Also if it has ended meanwhile and was retried: what is on its way about it is not known to be void yet.
        record.is_busy, record.is_sent = job.id in self._busy, self._busy.get(job.id, False)
        if known is not None:
            record.is_in_time, record.is_late_by_turn = known.is_in_time, known.is_late_by_turn
        if known is not None and known.verdict is not None and known.verdict.whatever_it_does:
            self._condemn(record, known.verdict)
        elif record.is_missed:
            self._condemn(record, Cancellation(record.id, MISSED))
        self._totals.clear()
        self._records[job.id] = record
        self._needing += record.needs_holder
        record.group.size += 1
        self._count(record, 1)
        if record.schedule is not None:
            self._of_schedule[record.schedule].add(record.id)
        if record.start_before is not None:
            heapq.heappush(self._timers, (record.start_before, record.id))
        if record.is_held:
            self._hold_back(record, job)
        self._note_end(job.id, job.status)

    def _hold_back(self, record: _Record, job: Job) -> None:
        """Note what a job waits for."""
        record.due = _due_again(job) if record.status is _S.RETRYING else job.spec.earliest
        if record.status is _S.WAITING:
            self._look_at_dependencies(record, job)
        self._look_at(record, None)

    def forget(self, job_id: str, status: JobStatus | None = None) -> None:
        """Note that a job has ended, or is gone.

        :param status: how it has ended; None if it is gone, or has not ended but nothing steers it.
        """
        known = self._records.pop(job_id, None)
        if known is not None:
            self._drop(known)
        self._totals.clear()
        self._note_end(job_id, status)

    def concerns(self, job_id: str) -> bool:
        """Return whether something is known here that a change of this job may touch."""
        return job_id in self._records or job_id in self._dependents

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

    def look_again(self) -> None:
        """Look at everything that is held back once more: pauses, limits, or what workers can run have changed."""
        self._totals.clear()
        for bounds in self._blocked.values():
            self._freed.update(bounds)

    def totals_changed(self) -> None:
        """Note that jobs that did not pass the gate were queued, or have ended."""
        self._totals.clear()
        for what in (_QUEUE, _TYPE):
            self._freed.update(self._blocked[what])

    def sent(self, action: Action) -> None:
        """Note that an action is on its way: a release holds a place from now on."""
        record = self._records.get(action.job_id)
        if record is None:
            return
        self._count(record, -1)
        record.is_busy, record.is_ready = True, False
        record.is_sent = isinstance(action, Release)
        self._count(record, 1)
        self._busy[record.id] = record.is_sent
        if record.is_sent:
            self._pending[record.id] = self._rated(record)
            for _, rate in self._pending[record.id]:
                rate.send()

    def stored(self, job_id: str, moment: float, *, stored: bool) -> None:
        """Note that a release is known to be stored, or known not to be, for its rates; ``settled`` follows."""
        if not stored and (record := self._records.get(job_id)) is not None and not record.is_late_by_turn:
            # Whether it is still in time is to be seen.
            record.is_in_time = False
        # Of a job that has ended meanwhile as well.
        for bound, rate in self._pending.pop(job_id, ()):
            rate.store(moment, stored=stored)
            heapq.heappush(self._wakes, (moment + (rate.length if stored else 0), bound))

    def settled(self, job_id: str) -> None:
        """Note that what was sent about a job has been applied here, or has not been stored."""
        if self._busy.pop(job_id, None) is None or (record := self._records.get(job_id)) is None:
            return
        self._count(record, -1)
        record.is_busy = record.is_sent = False
        self._count(record, 1)
        if record.verdict is not None:
            self._condemned.append(job_id)
            return
        if record.start_before is not None:
            heapq.heappush(self._timers, (record.start_before, record.id))
        if record.is_held:
            self._look_at(record, None)

    def begin(self, moment: float, now: datetime, attended_until: datetime | None) -> None:
        """Begin to act, once everything is known that was written before by whomever.

        :param moment: of the monotonic clock.
        :param now: by the server's clock.
        :param attended_until: as for ``skip_missed``.
        """
        self.skip_missed(now, attended_until)
        for job_id in list(self._busy):
            self.settled(job_id)
        self._pending.clear()
        for bound, rate in list(self._rates.items()):
            self._begin_rate(bound, rate.most / rate.length, moment)
        self.look_again()

    def skip_missed(self, now: datetime, attended_until: datetime | None) -> None:
        """Skip the ticks that have become due since the gate was last attended, and for which it is too late.

        Nothing but that has held them back. Those that a holder has looked at before wait for their turn.

        :param now: by the server's clock.
        :param attended_until: when somebody is known to have held the gate last, and for a while; None for never.
        """
        for record in list(self._records.values()):
            if record.release_before is None or record.due is None or record.due > now:
                continue
            is_seen = attended_until is not None and record.due < attended_until
            if is_seen or self._world.is_paused(record.group.queue):
                record.is_in_time = True
            elif record.release_before < now:
                # Also if it was looked at here: that was while nothing could be done about it.
                self._condemn(record, Cancellation(record.id, MISSED))

    def latest_release(self, job_id: str) -> datetime | None:
        """Return when it is too late to release a job; None if there is no such time."""
        record = self._records.get(job_id)
        return record.release_before if record is not None else None

    # What is asked.

    @property
    def is_empty(self) -> bool:
        """Whether no job is known here."""
        return not self._records

    @property
    def has_blocked(self) -> bool:
        """Whether jobs wait for a place, so that each attempt that ends lets another job go."""
        return any(self._blocked[what] for what in (_QUEUE, _QUEUE_KEY, _TYPE, _TYPE_KEY))

    @property
    def has_work(self) -> bool:
        """Whether any job is known here for which somebody has to hold the gate."""
        return self._needing > 0

    def next(self, now: datetime, moment: float) -> Action | None:  # noqa: C901 - one loop over one line
        """Return what is to be done next, which the caller reports to ``sent``; None if nothing is, for now.

        To be asked only while everything is known that was stored before: what is not known then is gone.

        :param now: the time by the server's clock, by which jobs are due.
        :param moment: that of a monotonic clock in seconds, by which rates are measured.
        """
        self._look_at_unclear()
        self._look_at_timers(now)
        while self._wakes and self._wakes[0][0] <= moment:
            self._freed.add(heapq.heappop(self._wakes)[1])
        if (cancellation := self._next_condemned()) is not None:
            return cancellation
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
            record = group.head()
            if record is None:
                continue
            if (bound := self._full(group, moment)) is not None:
                self._block(group, bound)
                continue
            if (instead := self._overlapping(record)) is not None:
                self._line_up(group)
                return instead
            if not record.is_ready:
                self._line_up(group)
                continue
            heapq.heappop(group.heap)
            record.is_ready = False
            if record.release_before is not None and record.release_before < now:
                record.is_late_by_turn = True
            self._line_up(group)
            return Release(record.id)

    def _condemn(self, record: _Record, verdict: Cancellation) -> None:
        record.verdict, record.is_ready = verdict, False
        self._condemned.append(record.id)

    def _next_condemned(self) -> Cancellation | None:
        while self._condemned:
            record = self._records.get(self._condemned.popleft())
            if record is not None and record.verdict is not None and not record.is_busy:
                return record.verdict
        return None

    def delay(self, now: datetime, moment: float) -> float | None:
        """Return in how many seconds ``next`` is to be asked again if nothing changes; None for never."""
        delays = []
        if self._timers:
            delays.append((self._timers[0][0] - now).total_seconds())
        if self._wakes:
            delays.append(self._wakes[0][0] - moment)
        return max(min(delays), 0.0) if delays else None

    def recalls(self) -> Iterator[Recall]:
        """Yield a recall for each released job that nobody can run while others of its queue can be."""
        for record in self._records.values():
            is_idle = record.is_gated and record.status is _S.QUEUED and not record.is_busy
            if is_idle and not self._world.is_able(record.group.queue, record.group.type):
                yield Recall(record.id)

    def hold(self, job_id: str) -> Hold | None:
        """Return what holds a job back; None if it is not held back, or nothing is known that does."""
        record = self._records.get(job_id)
        if record is None or not record.is_held:
            return None
        if needs := record.needs | record.unknown:
            return Hold(needs=tuple(sorted(needs)))
        group = record.group
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

    # Dependencies.

    def _look_at_dependencies(self, record: _Record, job: Job) -> None:
        spec = job.spec
        # After a retry by hand those that have failed do not hold it back again: that is what was asked for.
        record.is_strict = spec.after_policy is DependencyPolicy.CANCEL and not job.again
        for needed in spec.after:
            self._need(record, needed, is_known=False)
        self._break_circles(record)

    def _need(self, record: _Record, needed: str, *, is_known: bool) -> None:
        """Have a job wait for another one, or end if that has not completed.

        :param is_known: whether one that is not known is gone. Before that, what has made it may have been deleted, and
            what followed is on its way here.
        """
        status = self._world.standing(needed)
        if status is None and not is_known:
            record.unknown.add(needed)
            self._unclear.add(record.id)
        elif status is not None and not status.is_terminal:
            record.needs.add(needed)
            self._dependents[needed].add(record.id)
        elif status is not _S.COMPLETED and record.is_strict:
            self._condemn(record, Cancellation(record.id, _unmet(needed, status)))

    def _look_at_unclear(self) -> None:
        while self._unclear:
            record = self._records.get(self._unclear.pop())
            if record is None:
                continue
            unknown, record.unknown = record.unknown, set()
            for needed in unknown:
                self._need(record, needed, is_known=True)
            self._break_circles(record)
            self._look_at(record, None)

    def _break_circles(self, record: _Record) -> None:
        """Have no job wait for itself.

        A job is made after those that it names. One that was made later has the id of one that was deleted, as a
        repeated idempotency key gives it: that one is gone.
        """
        while record.id in self._dependents and (circle := self._circle(record)):
            for dependent, needed in zip(circle, (*circle[1:], record), strict=True):
                if needed.made_at > dependent.made_at:
                    self._forget_need(dependent, needed.id)
                    self._resolve(dependent, needed.id, None)

    def _circle(self, record: _Record) -> list[_Record]:
        """Return jobs of which each waits for the next and the last for the first, this one; none if there are none."""
        waits_for_it: dict[str, _Record] = {}
        line = [record]
        while line:
            one = line.pop()
            if record.id in one.needs:
                circle = [one]
                while circle[-1] is not record:
                    circle.append(waits_for_it[circle[-1].id])
                return circle[::-1]
            for needed in one.needs:
                if needed not in waits_for_it and (other := self._records.get(needed)) is not None:
                    waits_for_it[needed] = one
                    line.append(other)
        return []

    def _note_end(self, job_id: str, status: JobStatus | None) -> None:
        if job_id not in self._dependents or (status is not None and not status.is_terminal):
            return
        status = status if status is not None else self._world.standing(job_id)
        if status is not None and not status.is_terminal:
            return
        for dependent in self._dependents.pop(job_id):
            record = self._records.get(dependent)
            if record is None or job_id not in record.needs:
                continue
            record.needs.discard(job_id)
            self._resolve(record, job_id, status)

    def _resolve(self, record: _Record, needed: str, status: JobStatus | None) -> None:
        """Have a job that has waited for another one end or go on, now that this has ended, or is gone (None)."""
        if status is not _S.COMPLETED and record.is_strict and needed not in record.outlasts:
            self._condemn(record, Cancellation(record.id, _unmet(needed, status)))
        else:
            self._look_at(record, None)

    def _forget_need(self, record: _Record, needed: str) -> None:
        record.needs.discard(needed)
        self._dependents[needed].discard(record.id)
        if not self._dependents[needed]:
            del self._dependents[needed]

    # Times.

    def _look_at_timers(self, now: datetime) -> None:
        while self._timers and self._timers[0][0] <= now:
            _, job_id = heapq.heappop(self._timers)
            record = self._records.get(job_id)
            if record is None:
                continue
            if record.start_before is not None and record.start_before <= now:
                self._condemn(record, Cancellation(job_id, too_late(record.start_before)))
            elif record.is_held and self._comes_too_late(record, now):
                self._condemn(record, Cancellation(job_id, MISSED))
            elif record.is_held:
                self._look_at(record, now)

    def _comes_too_late(self, record: _Record, now: datetime) -> bool:
        """Return whether a tick is looked at for the first time since it is due, and is too late by then."""
        if record.release_before is None or record.is_in_time or record.due is None or record.due > now:
            return False
        # In a paused queue it would not have gone either.
        record.is_in_time = record.release_before >= now or self._world.is_paused(record.group.queue)
        return not record.is_in_time

    def _look_at(self, record: _Record, now: datetime | None) -> None:
        """Make a job ready if nothing but bounds holds it back.

        :param now: None if its time has passed, or it has none, as far as it was looked at.
        """
        is_held_back = record.needs or record.unknown or record.verdict is not None
        if record.is_ready or record.is_busy or is_held_back or not record.is_held:
            return
        if record.due is not None:
            if now is None:
                # Its timer may have passed while something else held it back.
                heapq.heappush(self._timers, (record.due, record.id))
                return
            if record.due > now:
                return
        record.is_ready = True
        self._numbers += 1
        heapq.heappush(record.group.heap, (record.order, self._numbers, record))
        self._line_up(record.group)

    def _overlapping(self, record: _Record) -> Action | None:
        """Return what becomes of a tick of a schedule, or of another one; None if it may go."""
        if record.overlap not in {OverlapPolicy.SKIP, OverlapPolicy.CANCEL_OTHER} or record.status is not _S.WAITING:
            return None
        others = [
            other
            for job_id in self._of_schedule[record.schedule or ""]
            if job_id != record.id and (other := self._records[job_id]) and self._comes_first(other, record)
        ]
        if not others:
            return None
        if record.overlap is OverlapPolicy.SKIP and not record.is_by_hand:
            return Cancellation(record.id, "The job of an earlier tick of its schedule had not ended.")
        record.is_ready = False
        for other in others:
            record.needs.add(other.id)
            record.outlasts.add(other.id)
            self._dependents[other.id].add(record.id)
            if other.verdict is None and not record.is_by_hand:
                self._condemn(other, Cancellation(other.id, _LATER, whatever_it_does=True))
        return self._next_condemned()

    def _comes_first(self, other: _Record, record: _Record) -> bool:
        if other.has_place or other.status is _S.RETRYING:
            return True
        return other.due is not None and record.due is not None and other.due < record.due

    # Bounds.

    def _group(self, queue: str, type_name: str, key: str | None) -> _Group:
        group = self._groups.get((queue, type_name, key))
        if group is None:
            group = self._groups[queue, type_name, key] = _Group(queue, type_name, key)
        return group

    def _line_up(self, group: _Group) -> None:
        """Have a group looked at by the order of its first job."""
        if (head := group.head()) is not None:
            heapq.heappush(self._ready, (head.order, self._number(group), group))

    def _number(self, group: _Group) -> int:
        """Return the number of a new place in a line for a group, which makes the others void."""
        self._numbers += 1
        group.number = self._numbers
        return group.number

    def _block(self, group: _Group, bound: Bound) -> None:
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
                self._line_up(group)
            if not line:
                del self._blocked[bound[0]][bound]

    def _full(self, group: _Group, moment: float) -> Bound | None:
        return next((bound for bound in group.bounds if not self._has_room(bound, moment)), None)

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

    def _rated(self, record: _Record) -> list[tuple[Bound, _Rate]]:
        bounds: list[Bound] = [(_QUEUE_RATE, record.group.queue), (_TYPE_RATE, record.group.type)]
        return [(bound, self._rates[bound]) for bound in bounds if bound in self._rates]

    def _count(self, record: _Record, by: int) -> None:
        """Count a job's place, or no longer; what has room then is looked at again."""
        group = record.group
        for bound in group.bounds:
            what = bound[0]
            if what in {_QUEUE_KEY, _TYPE_KEY}:
                self._held[bound] += by * record.has_place
                if not self._held[bound]:
                    del self._held[bound]
            elif what in {_QUEUE, _TYPE}:
                self._sent[bound] += by * (record.is_sent and record.status not in _PLACED)
            elif what in {_QUEUE_RATE, _TYPE_RATE}:
                self._unstarted[bound] += by * record.is_unstarted
            else:
                continue
            if by < 0 and bound in self._blocked[what]:
                self._freed.add(bound)

    def _drop(self, record: _Record) -> None:
        """Take a record out of everything that counts or lists it."""
        record.is_ready = False
        self._needing -= record.needs_holder
        self._count(record, -1)
        group = record.group
        group.size -= 1
        if not group.size:
            del self._groups[group.queue, group.type, group.key]
            # Whatever line it stands in, it is not there any more.
            group.heap.clear()
        for needed in list(record.needs):
            self._forget_need(record, needed)
        if record.schedule is not None:
            self._of_schedule[record.schedule].discard(record.id)
            if not self._of_schedule[record.schedule]:
                del self._of_schedule[record.schedule]


def _due_again(job: Job) -> datetime | None:
    """Return when a job that has failed may be released again."""
    if job.next_attempt_at is None or job.failed_at is None:
        return job.next_attempt_at
    return due_again(job.failed_at, job.next_attempt_at, job.errors)


def _has_not_started(job: Job) -> bool:
    """Return whether no attempt of a job has started since its newest submission by hand."""
    if job.status not in {_S.SCHEDULED, _S.WAITING, _S.QUEUED} or job.attempt or job.errors:
        return False
    # A job that was handed back has an event after its submission.
    return job.status is not _S.QUEUED or job.event_seq < job.submission_seq


def _unmet(needed: str, status: JobStatus | None) -> str:
    ended = "is gone" if status is None else f"has ended as {status.name}"
    return f"The job {needed}, after which it was to run, {ended}."
