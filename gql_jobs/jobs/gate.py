"""The gate: which of the jobs that are held back may be queued now, in which order, and which come too late.

Pure: it is told what an index knows (``put``), asked for what is to be done (``next``), and told what has become of
that (``sent``, ``settled``). One process at a time acts on it, and fences what it writes. A job holds a *place* from
its release until it has failed or ended; a release on its way counts as stored until it is known not to be.
"""

import heapq
from collections import defaultdict, deque
from collections.abc import Iterator
from datetime import datetime

from msgspec import Struct

from gql_jobs.jobs.claim import MISSED, due_again, too_late
from gql_jobs.jobs.gate_lines import HeldJob, Hold, Lines, World
from gql_jobs.jobs.limits import Limits
from gql_jobs.jobs.model import DependencyPolicy, Job, JobStatus, OverlapPolicy

_S = JobStatus
_LATER = "A later tick of its schedule has taken its place."


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


class GateState:
    """The jobs that wait, and what holds them back.

    Times are those of the server, moments those of a monotonic clock in seconds.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._records: dict[str, HeldJob] = {}
        self._lines = Lines(world)
        self._dependents: defaultdict[str, set[str]] = defaultdict(set)
        self._of_schedule: defaultdict[str, set[str]] = defaultdict(set)
        self._timers: list[tuple[datetime, str]] = []
        self._unclear: set[str] = set()
        """The ids of jobs that are to run after some that are not known."""
        self._busy: dict[str, bool] = {}
        """Jobs about which something is on its way, whatever has become of them since; whether that is a release."""
        self._verdicts: dict[str, Cancellation] = {}
        """By job, why it is to be cancelled."""
        self._condemned: deque[str] = deque()
        """The ids of jobs with a verdict, in their order."""
        self._needing = 0

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
        record = HeldJob(job, self._lines.group(spec.queue, spec.type, key))
        # Also if it has ended meanwhile and was retried: what is on its way about it is not known to be void yet.
        record.is_busy, record.is_sent = job.id in self._busy, self._busy.get(job.id, False)
        if known is not None:
            record.is_in_time, record.is_late_by_turn = known.is_in_time, known.is_late_by_turn
        verdict = self._verdicts.pop(job.id, None)
        if verdict is not None and verdict.whatever_it_does:
            self._condemn(record, verdict)
        elif record.is_missed:
            self._condemn(record, Cancellation(record.id, MISSED))
        self._lines.forget_totals()
        self._records[job.id] = record
        self._needing += record.needs_holder
        self._lines.add(record)
        if record.schedule is not None:
            self._of_schedule[record.schedule].add(record.id)
        if record.start_before is not None:
            heapq.heappush(self._timers, (record.start_before, record.id))
        if record.is_held:
            self._hold_back(record, job)
        self._note_end(job.id, job.status)

    def _hold_back(self, record: HeldJob, job: Job) -> None:
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
        self._verdicts.pop(job_id, None)
        self._lines.forget_totals()
        self._note_end(job_id, status)

    def concerns(self, job_id: str) -> bool:
        """Return whether something is known here that a change of this job may touch."""
        return job_id in self._records or job_id in self._dependents

    def limit(self, of: str, name: str, limits: Limits | None, moment: float) -> None:
        """Set the limits of a ``queue`` or a ``type``; None takes them away.

        :param moment: of the monotonic clock. What was released before is not known: it counts as as many as may be.
        """
        self._lines.limit(of, name, limits, moment)

    def look_again(self) -> None:
        """Look at everything that is held back once more: pauses, limits, or what workers can run have changed."""
        self._lines.look_again()

    def totals_changed(self) -> None:
        """Note that jobs that did not pass the gate were queued, or have ended."""
        self._lines.totals_changed()

    def sent(self, action: Action) -> None:
        """Note that an action is on its way: a release holds a place from now on."""
        record = self._records.get(action.job_id)
        if record is None:
            return
        record.is_ready = False
        self._lines.mark(record, is_busy=True, is_sent=isinstance(action, Release))
        self._busy[record.id] = record.is_sent
        if record.is_sent:
            self._lines.send(record)

    def stored(self, job_id: str, moment: float, *, stored: bool) -> None:
        """Note that a release is known to be stored, or known not to be, for its rates; ``settled`` follows."""
        if not stored and (record := self._records.get(job_id)) is not None and not record.is_late_by_turn:
            # Whether it is still in time is to be seen.
            record.is_in_time = False
        self._lines.store(job_id, moment, stored=stored)

    def settled(self, job_id: str) -> None:
        """Note that what was sent about a job has been applied here, or has not been stored."""
        if self._busy.pop(job_id, None) is None or (record := self._records.get(job_id)) is None:
            return
        self._lines.mark(record, is_busy=False, is_sent=False)
        if job_id in self._verdicts:
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
        self._lines.begin(moment)

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
        return self._lines.has_blocked

    @property
    def has_work(self) -> bool:
        """Whether any job is known here for which somebody has to hold the gate."""
        return self._needing > 0

    def next(self, now: datetime, moment: float) -> Action | None:
        """Return what is to be done next, which the caller reports to ``sent``; None if nothing is, for now.

        To be asked only while everything is known that was stored before: what is not known then is gone.

        :param now: the time by the server's clock, by which jobs are due.
        :param moment: that of a monotonic clock in seconds, by which rates are measured.
        """
        self._look_at_unclear()
        self._look_at_timers(now)
        if (cancellation := self._next_condemned()) is not None:
            return cancellation
        while (record := self._lines.first(moment)) is not None:
            if (instead := self._overlapping(record)) is not None:
                self._lines.look_at(record.group)
                return instead
            if not record.is_ready:
                self._lines.look_at(record.group)
                continue
            self._lines.take(record)
            if record.release_before is not None and record.release_before < now:
                record.is_late_by_turn = True
            return Release(record.id)
        return None

    def _condemn(self, record: HeldJob, verdict: Cancellation) -> None:
        record.is_ready = False
        self._verdicts[record.id] = verdict
        self._condemned.append(record.id)

    def _next_condemned(self) -> Cancellation | None:
        while self._condemned:
            job_id = self._condemned.popleft()
            record, verdict = self._records.get(job_id), self._verdicts.get(job_id)
            if record is not None and verdict is not None and not record.is_busy:
                return verdict
        return None

    def delay(self, now: datetime, moment: float) -> float | None:
        """Return in how many seconds ``next`` is to be asked again if nothing changes; None for never."""
        delays = []
        if self._timers:
            delays.append((self._timers[0][0] - now).total_seconds())
        if (wakes_in := self._lines.wakes_in(moment)) is not None:
            delays.append(wakes_in)
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
        return self._lines.hold(record.group)

    # Dependencies.

    def _look_at_dependencies(self, record: HeldJob, job: Job) -> None:
        spec = job.spec
        # After a retry by hand those that have failed do not hold it back again: that is what was asked for.
        record.is_strict = spec.after_policy is DependencyPolicy.CANCEL and not job.again
        for needed in spec.after:
            self._need(record, needed, is_known=False)
        self._break_circles(record)

    def _need(self, record: HeldJob, needed: str, *, is_known: bool) -> None:
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

    def _break_circles(self, record: HeldJob) -> None:
        """Have no job wait for itself.

        A job is made after those that it names. One that was made later has the id of one that was deleted, as a
        repeated idempotency key gives it: that one is gone.
        """
        while record.id in self._dependents and (circle := self._circle(record)):
            for dependent, needed in zip(circle, (*circle[1:], record), strict=True):
                if needed.made_at > dependent.made_at:
                    self._forget_need(dependent, needed.id)
                    self._resolve(dependent, needed.id, None)

    def _circle(self, record: HeldJob) -> list[HeldJob]:
        """Return jobs of which each waits for the next and the last for the first, this one; none if there are none."""
        waits_for_it: dict[str, HeldJob] = {}
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

    def _resolve(self, record: HeldJob, needed: str, status: JobStatus | None) -> None:
        """Have a job that has waited for another one end or go on, now that this has ended, or is gone (None)."""
        if status is not _S.COMPLETED and record.is_strict and needed not in record.outlasts:
            self._condemn(record, Cancellation(record.id, _unmet(needed, status)))
        else:
            self._look_at(record, None)

    def _forget_need(self, record: HeldJob, needed: str) -> None:
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

    def _comes_too_late(self, record: HeldJob, now: datetime) -> bool:
        """Return whether a tick is looked at for the first time since it is due, and is too late by then."""
        if record.release_before is None or record.is_in_time or record.due is None or record.due > now:
            return False
        # In a paused queue it would not have gone either.
        record.is_in_time = record.release_before >= now or self._world.is_paused(record.group.queue)
        return not record.is_in_time

    def _look_at(self, record: HeldJob, now: datetime | None) -> None:
        """Make a job ready if nothing but bounds holds it back.

        :param now: None if its time has passed, or it has none, as far as it was looked at.
        """
        is_held_back = record.needs or record.unknown or record.id in self._verdicts
        if record.is_ready or record.is_busy or is_held_back or not record.is_held:
            return
        if record.due is not None:
            if now is None:
                # Its timer may have passed while something else held it back.
                heapq.heappush(self._timers, (record.due, record.id))
                return
            if record.due > now:
                return
        self._lines.line_up(record)

    def _overlapping(self, record: HeldJob) -> Action | None:
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
            if other.id not in self._verdicts and not record.is_by_hand:
                self._condemn(other, Cancellation(other.id, _LATER, whatever_it_does=True))
        return self._next_condemned()

    def _comes_first(self, other: HeldJob, record: HeldJob) -> bool:
        if other.has_place or other.status is _S.RETRYING:
            return True
        return other.due is not None and record.due is not None and other.due < record.due

    def _drop(self, record: HeldJob) -> None:
        """Take a record out of everything that counts or lists it."""
        self._needing -= record.needs_holder
        self._lines.remove(record)
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


def _unmet(needed: str, status: JobStatus | None) -> str:
    ended = "is gone" if status is None else f"has ended as {status.name}"
    return f"The job {needed}, after which it was to run, {ended}."
