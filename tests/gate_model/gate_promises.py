"""What the gate promises, checked on the stream's own truth: after each message, and for each decision of a holder.

Limits and rates are those in force at a release, or at what its holder knew when it decided: a limit that is lowered
takes effect with what is decided after it was applied. Jobs that do not pass the gate take places without asking: those
that did so after a release was decided do not count against it.
"""

from collections import defaultdict, deque
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from gql_jobs.jobs.claim import MISSED, TERMINAL, due_again
from gql_jobs.jobs.gate import Release
from gql_jobs.jobs.limits import Limits
from gql_jobs.jobs.messages import Kind, Submission
from gql_jobs.jobs.model import DependencyPolicy, Job, JobStatus, OverlapPolicy
from gql_jobs.log import codec
from gql_jobs.log.gate_lease import LANES
from tests.gate_model.api_process import ApiProcess, Decided
from tests.gate_model.fenced_stream import Entry
from tests.gate_model.folded_index import PLACED, FoldedIndex, by_hand

if TYPE_CHECKING:
    from tests.gate_model.steered_world import SteeredWorld

_RECENT = 200
"""Releases that are looked back at."""
_HELD = frozenset({JobStatus.WAITING, JobStatus.RETRYING})
_ENDS = TERMINAL - {Kind.EXPIRED}
_ABOUT = timedelta(seconds=0.1)
"""By how much a holder's idea of the server's time is wrong at most."""


class Broken(AssertionError):
    """A promise was broken; ``promise`` says which in a few words."""

    def __init__(self, promise: str, facts: str) -> None:
        super().__init__(f"{promise}: {facts}")
        self.promise = promise


class Life:
    """What has become of a job since it was created or retried by hand."""

    def __init__(self, *, is_retry: bool, seq: int) -> None:
        self.is_retry = is_retry
        self.seq = seq
        self.attempt = 0
        self.ends = 0


class GatePromises:
    """The truth as of the newest message, and what must hold of it."""

    def __init__(self, world: "SteeredWorld") -> None:
        self.world = world
        self.truth = FoldedIndex(lets_ghosts_in=world.breaks("let what crosses a deletion make a job"))
        self.lives: dict[str, Life] = {}
        self.placed_at: dict[str, int] = {}
        """When a job has taken the place that it holds."""
        self.completed: set[str] = set()
        self.ended_at: dict[str, list[tuple[int, Kind]]] = defaultdict(list)
        self.deleted: set[str] = set()
        self.ever_deleted: set[str] = set()
        self.limits: dict[tuple[str, str], list[tuple[int, Limits]]] = defaultdict(list)
        self.releases: dict[tuple[str, str], deque[tuple[float, Decided]]] = defaultdict(deque)
        self.hidden_at: dict[tuple[str, str], float] = defaultdict(lambda: -1e9)
        """When a job of a queue or type was last changed so that it does not show any more that it was released."""
        self.lanes: dict[int, set[str]] = defaultdict(set)
        self.complete_terms: list[int] = []
        self.released = 0
        self.renewed_at: datetime | None = None
        """When a holder has last said that it still is one."""
        self.paused_at: dict[str, datetime] = {}
        """When a holder has last found a queue paused."""
        self.seen: dict[tuple[str, int], tuple[int, datetime]] = {}
        """In which term and when a holder that had nothing to do saw a tick that was due, and not too late; by life."""
        self.held_back: set[tuple[str, int]] = set()
        """Those of them whose holder has renewed its lease since, and knows that."""

    def _demand(self, holds: object, promise: str, *facts: object) -> None:
        if not holds:
            raise Broken(promise, f"{' '.join(map(str, facts))} at {self.truth.position}")

    # Each message.

    def stored(self, entry: Entry) -> None:
        """Take in a message, and check what it makes of everything."""
        before, after = self.truth.apply(entry)
        if entry.put.job_id is None:
            self._steered(entry)
            return
        message = entry.message
        if codec.is_event_subject(entry.put.subject) and message.kind is not Kind.EXPIRED:
            # Otherwise it changes nothing, and whoever wrote it was told that it has.
            self._demand(after is not before, "every event that is stored is legal", message)
        if before is not None and (message.kind in {Kind.EXPIRED, Kind.EDITED} or by_hand(message.body)):
            for of in ("queue", "type"):
                self.hidden_at[of, getattr(before.spec, of)] = self.world.stream.clock
        self._deleted(entry, after)
        if after is not None and after is not before:
            self._lived(entry, before, after)
            self._placed(entry, before, after)

    def _deleted(self, entry: Entry, after: Job | None) -> None:
        message = entry.message
        job_id = message.job_id
        if job_id in self.deleted:
            renewed = isinstance(message.body, Submission) and message.body.after_expiry
            if renewed:
                self.deleted.discard(job_id)
            self._demand(after is None or renewed, "a job that is deleted stays so", message)
        if message.kind is Kind.EXPIRED:
            self.deleted.add(job_id)
            self.ever_deleted.add(job_id)
            self.lives.pop(job_id, None)
        if after is None:
            self.placed_at.pop(job_id, None)

    def _placed(self, entry: Entry, before: Job | None, after: Job) -> None:
        message = entry.message
        if after.status not in PLACED:
            self.placed_at.pop(after.id, None)
        elif before is None or before.status not in PLACED:
            self.placed_at[after.id] = entry.seq
        is_release = message.kind is Kind.QUEUED and message.body.release
        if after.spec.gate is not None and self.placed_at.get(after.id) == entry.seq:
            self._demand(is_release, "a job that is held takes its place by a release", message)
        if is_release:
            self._released(entry, after, entry.put.about)
        elif message.kind is Kind.STARTED:
            self._started(after)

    def _steered(self, entry: Entry) -> None:
        named = codec.steering_name(entry.put.subject)
        assert named is not None
        what, name = named
        if what == codec.GATE_LEASES and name == "renewal":
            self.renewed_at = entry.at
        elif what == codec.GATE_LEASES and entry.put.about is not None:
            term = entry.put.about
            self.lanes[term].add(name)
            if len(self.lanes[term]) == LANES:
                self.complete_terms.append(term)
        for of, kind in (("queue", codec.QUEUE_LIMITS), ("type", codec.TYPE_LIMITS)):
            if what == kind:
                self.limits[of, name].append((entry.seq, self.truth.limit(of, name)))

    def _lived(self, entry: Entry, before: Job | None, after: Job) -> None:
        message = entry.message
        job_id = message.job_id
        if before is None or by_hand(message.body):
            # A schedule that has fired is the submission that it was.
            fired = before is not None and before.status is JobStatus.SCHEDULED
            if not fired:
                retry = isinstance(message.body, Submission) and message.body.event_seq > 0
                self.lives[job_id] = Life(is_retry=retry and not message.body.after_expiry, seq=entry.seq)
        life = self.lives[job_id]
        if message.kind is Kind.STARTED:
            number = message.body.attempt
            self._demand(
                number == life.attempt + 1, "attempts count on", "attempt", number, "of", job_id, "after", life.attempt
            )
            most = after.spec.max_retries + 1
            self._demand(number <= most, "no more attempts than asked for", number, "of", job_id)
            life.attempt = number
        elif message.kind is Kind.RELEASED:
            life.attempt -= 1
        elif message.kind in _ENDS:
            life.ends += 1
            self._demand(life.ends == 1, "every submission by hand ends once", message)
            self.ended_at[job_id].append((entry.seq, message.kind))
            if message.kind is Kind.COMPLETED:
                self.completed.add(job_id)
            reason = message.body.reason if message.kind is Kind.CANCELLED else None
            if reason == MISSED:
                self._missed(entry, after, life)
            if reason is not None and "after which it was to run" in reason:
                self._demand(
                    not life.is_retry,
                    "a retry by hand is not held back by what has failed",
                    job_id,
                    reason,
                )
            if reason is not None and "had not started by" in reason:
                begun = life.attempt > 0
                self._demand(not begun, "start_before concerns the first start", job_id, reason)

    # Ticks, and what an outage has kept from being looked at in time.

    def seen_paused(self, queue: str) -> None:
        """Note that a holder has found a queue paused."""
        self.paused_at[queue] = self.world.stream.now

    def renewed(self, api: ApiProcess, began: datetime) -> None:
        """Note that a holder has renewed its lease, which it has begun to do then, and has heard so."""
        self.held_back |= {tick for tick, (term, at) in self.seen.items() if term == api.term and at < began}

    def _missed(self, entry: Entry, job: Job, life: Life) -> None:
        """Check that a tick is skipped only if it was too late for it, and nothing but an outage has held it back."""
        gate = job.spec.gate
        if gate is None:
            submission = self.world.stream.entry(job.submission_seq)
            latest = job.spec.fire_before
            is_late = submission is not None and latest is not None and submission.at > latest
        else:
            is_late = gate.release_before is not None and gate.release_before - _ABOUT < entry.at
        self._demand(is_late, "no tick is skipped in time", job.id)
        self._demand(
            (job.id, life.seq) not in self.held_back, "a tick that was held back in time is not skipped", job.id
        )

    def _may_go(self, api: ApiProcess, job: Job) -> bool:
        """Whether a job is no tick that is too late, or may have been seen by a holder since it was due."""
        due, latest = _times(job)
        if due is None or latest is None or job.id in api.index.retried or latest + _ABOUT > api.now:
            return True
        was_paused = self.paused_at.get(job.spec.queue, due - _ABOUT) > due - _ABOUT
        was_held = self.renewed_at is not None and self.renewed_at + _ABOUT > due
        created = self.world.stream.entry(self.lives[job.id].seq) if job.id in self.lives else None
        was_there = created is not None and created.at <= due
        return was_paused or was_held or not was_there or any(job_id == job.id for job_id, _ in self.seen)

    def _see(self, api: ApiProcess, busy: set[str]) -> None:
        now = api.now
        for job in api.index.jobs.values():
            due, latest = _times(job)
            life = self.lives.get(job.id)
            if due is None or latest is None or life is None or job.id in busy:
                continue
            if due <= now <= latest:
                self.seen[job.id, life.seq] = api.term, self.world.stream.now

    # Releases.

    def in_force(self, of: str, name: str, since: int, seq: int) -> list[Limits]:
        """The limits that were in force at any time between two positions."""
        found = [Limits()]
        for at, limits in self.limits[of, name]:
            if at <= since:
                found = [limits]
            elif at <= seq:
                found.append(limits)
        return found

    def _released(self, entry: Entry, job: Job, decided: Decided) -> None:
        self.released += 1
        later = [term for term in self.complete_terms if term > decided.term]
        self._demand(not later, "a former holder releases nothing", job.id, "in term", decided.term, "after", later)
        spec = job.spec
        for of in ("queue", "type"):
            name = getattr(spec, of)
            limits = self.in_force(of, name, decided.position, entry.seq)
            placed = [
                other
                for other in self.truth.placed(of, name)
                if other.spec.gate is not None or self.placed_at[other.id] <= decided.position
            ]
            self._within(placed, [limit.concurrency for limit in limits], f"places of the {of} {name}")
            if spec.concurrency_key is not None:
                keyed = [
                    other
                    for other in placed
                    if (other.spec.concurrency_key, other.spec.tenant) == (spec.concurrency_key, spec.tenant)
                ]
                allowed = [limit.concurrency_per_key for limit in limits]
                self._within(keyed, allowed, f"places of the {of} {name} by the key {spec.concurrency_key}")
            self._rated(of, name, limits, decided, entry)
        if spec.gate is not None and spec.gate.overlap in {OverlapPolicy.SKIP, OverlapPolicy.CANCEL_OTHER}:
            others = [
                other.id
                for other in self.truth.jobs.values()
                if other.spec.schedule == spec.schedule and other.id != job.id
                if other.status in PLACED or other.status is JobStatus.RETRYING
                if self.placed_at.get(other.id, 0) <= decided.position
            ]
            # A job that was retried by hand and is no tick any more may run beside.
            self._demand(not others, "no two ticks run at a time", job.id, "beside", others)
        if spec.start_before is not None and self.truth.is_unstarted(job):
            self._demand(
                spec.start_before > decided.now,
                "nothing is released that comes too late",
                job.id,
            )

    def _within(self, jobs: list[Job], allowed: list[int | None], what: str) -> None:
        if None in allowed:
            return
        most = max(number for number in allowed if number is not None)
        self._demand(len(jobs) <= most, "no more places than the limit", len(jobs), what, "of which there are", most)

    def _rated(self, of: str, name: str, limits: list[Limits], decided: Decided, entry: Entry) -> None:
        clock = self.world.stream.clock
        rates = [limit.per_second for limit in limits]
        past = self.releases[of, name]
        past.append((clock, decided))
        if len(past) > _RECENT:
            past.popleft()
        if None in rates:
            return
        rate = max(rate for rate in rates if rate is not None)
        most = max(1, int(rate))
        length = most / rate
        # Clocks that run faster than the server's make a window that much shorter.
        shortest = length / max(1.0, *(api.pace for api in self.world.apis)) - 1e-6
        changed = self._change_seq(of, name, entry.seq)
        recent = [by for at, by in past if clock - at < shortest and by.position >= changed]
        of_term = [by for by in recent if by.term == decided.term]
        # A new holder does not see what was released and then edited, deleted or retried by hand.
        hidden = clock - self.hidden_at[of, name] < shortest
        for some, allowed in ((of_term, most), (recent, 2 * most if hidden else most)):
            self._demand(
                len(some) <= allowed,
                "no more releases in a window than the rate",
                some,
                "of the",
                of,
                name,
                "in",
                length,
                "s, of which there may be",
                allowed,
            )
        unstarted = [
            job
            for job in self.truth.placed(of, name)
            if job.spec.gate is not None and job.status is JobStatus.QUEUED
            if self.placed_at[job.id] >= self._change_seq(of, name, entry.seq)
            if job.event_seq <= decided.position or job.id == entry.put.job_id
        ]
        self._demand(
            len(unstarted) <= most,
            "no more unstarted than the rate",
            len(unstarted),
            "of the",
            of,
            name,
            "of which there are",
            most,
        )

    def _change_seq(self, of: str, name: str, seq: int) -> int:
        """When the rate that is in force was written."""
        found, present = 0, None
        for at, limits in self.limits[of, name]:
            if at <= seq and limits.per_second != present:
                found, present = at, limits.per_second
        return found

    # Starts.

    def _started(self, job: Job) -> None:
        spec = job.spec
        life = self.lives[job.id]
        submission = self.world.stream.entry(job.submission_seq)
        latest = submission.put.body.spec.fire_before if submission is not None else None
        is_late = submission is not None and latest is not None and submission.at > latest
        self._demand(not is_late, "what is queued too late is not started", job.id)
        if spec.gate is not None and spec.after and life.attempt == 1 and not life.is_retry:
            done = self.completed if spec.after_policy is DependencyPolicy.CANCEL else self._ended
            missing = [needed for needed in spec.after if needed not in done]
            self._demand(not missing, "nothing starts before what it is to run after", job.id, missing)

    @property
    def _ended(self) -> set[str]:
        return {job_id for job_id, ends in self.ended_at.items() if ends} | self.ever_deleted

    # Decisions.

    def decided(self, api: ApiProcess, release: Release) -> None:
        """Check the order in which a holder lets jobs go: by priority, then creation, among those with one key."""
        job = api.index.jobs.get(release.job_id)
        if job is None:
            return
        ahead = [other.id for other in self._ready(api) if _group(other) == _group(job) and _order(other) < _order(job)]
        self._demand(not ahead, "jobs go by priority and then creation", job.id, "before", ahead)
        self._demand(job.status in _HELD and job.spec.gate is not None, "only what is held is released", job)
        self._demand(self._may_go(api, job), "a tick that an outage has kept is skipped", job.id, "by", api.name)

    def overlooked(self, api: ApiProcess) -> None:
        """Check that a holder that has nothing more to do has overlooked nothing."""
        now = api.now
        busy = api.busy
        self._see(api, busy)
        late = [
            job.id
            for job in api.index.jobs.values()
            if job.spec.start_before is not None and job.spec.start_before <= now
            if api.index.is_unstarted(job) and job.id not in busy
        ]
        self._demand(not late, "what comes too late is cancelled", late, "by", api.name)
        for job in self._ready(api):
            self._demand(not self._has_room(api, job, busy), "nothing waits that may go", job.id, "by", api.name)

    def _ready(self, api: ApiProcess) -> list[Job]:
        busy = api.busy
        return [
            job
            for job in api.index.jobs.values()
            if job.status in _HELD and job.spec.gate is not None and job.id not in busy
            if job.spec.gate.overlap is None and not self._is_early(api, job) and not self._waits_for(api, job)
        ]

    def _is_early(self, api: ApiProcess, job: Job) -> bool:
        due = self.due(job)
        return due is not None and due > api.now

    def due(self, job: Job) -> datetime | None:
        """When a job may be released, whatever the clock of the worker that has said so."""
        if job.status is not JobStatus.RETRYING:
            return job.spec.earliest
        assert job.failed_at is not None
        assert job.next_attempt_at is not None
        return due_again(job.failed_at, job.next_attempt_at, job.errors)

    def _waits_for(self, api: ApiProcess, job: Job) -> bool:
        if job.status is JobStatus.RETRYING:
            return False
        standing = [api.index.jobs.get(needed) for needed in job.spec.after]
        if any(needed is not None and not needed.status.is_terminal for needed in standing):
            return True
        strict = job.spec.after_policy is DependencyPolicy.CANCEL and job.id not in api.index.retried
        return strict and any(needed is None or needed.status is not JobStatus.COMPLETED for needed in standing)

    def _has_room(self, api: ApiProcess, job: Job, busy: set[str]) -> bool:
        spec = job.spec
        if spec.queue in api.index.paused or not self.world.is_able(spec.queue, spec.type):
            return False
        for of in ("queue", "type"):
            name = getattr(spec, of)
            limits = api.index.limit(of, name)
            placed = {other.id: other for other in api.index.placed(of, name)}
            placed |= {
                other.id: other
                for other in api.index.jobs.values()
                if other.id in busy and getattr(other.spec, of) == name
            }
            if limits.concurrency is not None and len(placed) >= limits.concurrency:
                return False
            key = spec.concurrency_key, spec.tenant
            keyed = [other for other in placed.values() if (other.spec.concurrency_key, other.spec.tenant) == key]
            by_key = limits.concurrency_per_key if spec.concurrency_key is not None else None
            if by_key is not None and len(keyed) >= by_key:
                return False
            if limits.per_second is not None:
                # Whether a rate has room is told by when it is to be looked at again.
                # Also by those that are deleted while their release is on its way.
                waits = bool(busy) or api.state.delay(api.now, api.moment) is not None
                unstarted = [other for other in placed.values() if other.status is not JobStatus.PROCESSING]
                if waits or len(unstarted) >= max(1, int(limits.per_second)):
                    return False
        return True

    # The end.

    def finished(self) -> None:
        """Check that everything has ended, once all have recovered and enough time has passed."""
        for job in self.truth.jobs.values():
            self._demand(job.status.is_terminal, "nothing is stuck", job.id, "is", job.status.name)
            life = self.lives[job.id]
            self._demand(life.ends == 1, "every submission by hand ends once", job.id, life.ends)
        unacked = self.world.workers.unacked()
        self._demand(not unacked, "every submission is acked", unacked)
        for api in self.world.apis:
            known = {job_id: job.last_seq for job_id, job in api.index.jobs.items()}
            truth = {job_id: job.last_seq for job_id, job in self.truth.jobs.items()}
            self._demand(known == truth, "every index is the fold of the stream", api.name)


def _times(job: Job) -> tuple[datetime | None, datetime | None]:
    """When a tick that waits at the gate is due, and when it is too late to look at it first; None if it is no such."""
    gate = job.spec.gate
    if gate is None or job.status is not JobStatus.WAITING:
        return None, None
    return gate.run_at, gate.release_before


def _group(job: Job) -> tuple[Any, ...]:
    spec = job.spec
    return spec.queue, spec.type, spec.concurrency_key, spec.tenant


def _order(job: Job) -> tuple[Any, ...]:
    return -job.spec.priority.rank, job.spec.created_at, job.id
