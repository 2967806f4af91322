"""A process of the API in the model: an index that lags behind, and what it does as the holder of the gate.

It follows ``live.gate`` and ``log.gate_lease``; both are tested on a real server besides.
"""

import heapq
from collections.abc import Generator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec.structs import replace

from gql_jobs.jobs.gate import Action, Cancellation, GateState, Recall, Release
from gql_jobs.jobs.gate_lines import World
from gql_jobs.jobs.limits import Limits
from gql_jobs.jobs.messages import Continued, Edited, Kind, Submission
from gql_jobs.jobs.model import Job, JobPriority, JobStatus
from gql_jobs.log import codec
from gql_jobs.log.gate_lease import LANES, OLD_AFTER, RENEWED_EVERY, GateLease
from tests.gate_model.fenced_stream import Entry, Put, Refused, Stored, aliased
from tests.gate_model.folded_index import FoldedIndex

if TYPE_CHECKING:
    from tests.gate_model.steered_world import SteeredWorld

Writes = Generator[Put, Any, None]
"""What somebody writes one after the other; it is sent what has become of each."""
UNKNOWN = object()
"""The outcome of a write for which nobody waits any longer."""
_TRIES = 3
_MOVED_DELAY = 0.2
_ALONE_AFTER = 2 * RENEWED_EVERY + 2
_EVERY = 256


class Decided(NamedTuple):
    """What a release was decided on: by which term of which holder, when, and the position of its index."""

    term: int
    position: int
    now: datetime


class ApiProcess:
    """An index, the state of the gate, and the lease as this process knows it."""

    def __init__(self, world: "SteeredWorld", *, pace: float) -> None:
        """Begin with an empty index; ``pace``: seconds of its monotonic clock in a second of the server."""
        self.world = world
        self.number = len(world.apis)
        self.name = f"api{self.number}"
        self.pace = pace
        self.paused_until = 0.0
        self.wall_error = 0.0
        """Seconds by which its clock on the wall is wrong."""
        self.start(keeps_index=False)

    def start(self, *, keeps_index: bool) -> None:
        """Start anew after a crash; an index that is not kept is built from the stream."""
        if not keeps_index:
            self.index = FoldedIndex(lets_ghosts_in=self.world.breaks("let what crosses a deletion make a job"))
        self.boot = self.world.random.uniform(0, 1000) - self.world.stream.clock * self.pace
        self.state = GateState(World(self._standing, self._occupied, self._is_paused, self.world.is_able, self._idle))
        self.caught_up = False
        self.held: dict[int, int] = {}
        self.taken: dict[int, int] = {}
        self.term = 0
        self.phase = "idle"
        self.last_lease = 0
        self.heard_at = self.moment
        self.renewed_at = self.moment
        self.stored: list[tuple[int, str]] = []
        self.later: list[tuple[float, str]] = []
        self.knows_time_since = (self.moment, self.world.stream.now)
        self.renewals = 0
        self.attended_before: datetime | None = None
        self.attended_until: datetime | None = None
        """When it last held the gate and heard from the server."""
        for (of, limited), limits in self.index.limits.items():
            self.state.limit(of, limited, limits, self.moment)
        for job in self.index.jobs.values():
            if job.is_steered:
                self._put(job)

    @property
    def moment(self) -> float:
        """The time of its monotonic clock."""
        return self.boot + self.world.stream.clock * self.pace

    @property
    def now(self) -> datetime:
        """The time of the server, as it was asked for and counted on from."""
        since, told = self.knows_time_since
        return told + timedelta(seconds=self.moment - since)

    @property
    def is_stopped(self) -> bool:
        """Whether the whole process is stopped for a while."""
        return self.world.stream.clock < self.paused_until

    @property
    def busy(self) -> set[str]:
        """The jobs about which something is on its way."""
        return set(self.state._busy)  # noqa: SLF001 - the checks need what the state does not tell

    # What it is told.

    def apply(self, number: int) -> None:
        """Take in some of what the index lacks, and tell the state of it."""
        entries = self.world.stream.entries[self.index.position : self.index.position + number]
        self.caught_up = self.index.position + len(entries) == self.world.stream.last_seq
        first: dict[str, Job | None] = {}
        steering: list[Entry] = []
        for seq, entry in enumerate(entries, self.index.position + 1):
            if entry is None:
                self.index.position = seq
                continue
            before, _ = self.index.apply(entry)
            if entry.put.job_id is None:
                steering.append(entry)
            else:
                first.setdefault(entry.put.job_id, before)
        for entry in steering:
            self._hear(entry)
        for job_id, before in first.items():
            after = self.index.jobs.get(job_id)
            if after is before:
                continue
            if after is not None and after.is_steered:
                self._put(after)
            elif self.state.concerns(job_id):
                ended = after.status if after is not None and after.status.is_terminal else None
                self.state.forget(job_id, ended)
        if first:
            self.state.totals_changed()

    def _put(self, job: Job) -> None:
        if self.world.breaks("pass over priorities"):
            job = replace(job, spec=replace(job.spec, priority=JobPriority.NORMAL))
        if self.world.breaks("pass over startBefore"):
            job = replace(job, spec=replace(job.spec, start_before=None))
        self.state.put(job)

    def _hear(self, entry: Entry) -> None:
        named = codec.steering_name(entry.put.subject)
        assert named is not None
        what, name = named
        if what == codec.GATE_LEASES:
            self.heard_at = self.moment
            is_mine = name == "renewal" or int(name) not in self.held or entry.put.body[0] == self.identity
            if not is_mine:
                self.lose()
        elif what in {codec.QUEUE_LIMITS, codec.TYPE_LIMITS}:
            limits: Limits | None = entry.put.body
            self.state.limit("queue" if what == codec.QUEUE_LIMITS else "type", name, limits, self.moment)
        else:
            self.state.look_again()

    # What the state asks.

    def _standing(self, job_id: str) -> JobStatus | None:
        if self.world.breaks("pass over dependencies"):
            return JobStatus.COMPLETED
        job = self.index.jobs.get(job_id)
        return job.status if job is not None else None

    def _occupied(self, of: str, name: str) -> int:
        placed = self.index.placed(of, name)
        if self.world.breaks("count places from the start on"):
            placed = [job for job in placed if job.status is JobStatus.PROCESSING]
        return len(placed)

    def _is_paused(self, queue: str) -> bool:
        if queue in self.index.paused:
            self.world.promises.seen_paused(queue)
        return queue in self.index.paused

    def _idle(self, of: str, name: str) -> float | None:
        waiting = {JobStatus.SCHEDULED, JobStatus.WAITING}
        moved = [
            job.updated_at
            for job in self.index.jobs.values()
            if getattr(job.spec, of) == name and job.status not in waiting
        ]
        return max((self.now - max(moved)).total_seconds(), 0.0) if moved else None

    # The lease.

    @property
    def identity(self) -> str:
        """Under which name it holds the gate."""
        return f"{self.name}@{self.boot}"

    @property
    def may_decide(self) -> bool:
        """Whether its index had everything when it was told of something last."""
        return self.caught_up

    @property
    def is_alone(self) -> bool:
        """Whether it has not heard from the server for so long that it decides nothing."""
        return self.moment - self.knows_time_since[0] > _ALONE_AFTER

    def _known_attended_until(self) -> datetime | None:
        """When somebody is known to have held the gate last."""
        said = [lease.at for name, lease in self.index.leases.items() if name in self._attesting]
        return max([*said, *([self.attended_until] if self.attended_until else [])], default=None)

    @property
    def _attesting(self) -> set[str]:
        """The names of messages by which the gate is known to have been held."""
        all_of_them = {"renewal", *map(str, range(LANES))}
        return all_of_them if self.world.breaks("take a take-over for attendance") else {"renewal"}

    @property
    def is_free(self) -> bool:
        """Whether nobody seems to hold the gate."""
        if self.world.breaks("a holder for each lease"):
            return True
        leases = self.index.leases
        first, renewal = leases.get("0"), leases.get("renewal")
        if first is None:
            return True
        if renewal is not None and renewal.seq > first.seq and renewal.ended:
            return True
        return self.moment - self.heard_at >= OLD_AFTER

    def lose(self) -> None:
        """Stop to act: another process has the gate."""
        self.held = {}
        self.phase = "idle"
        self.world.drop_tasks(self, self.term)

    def _lanes(self) -> range:
        """The leases that a holder takes: all of them."""
        if self.world.breaks("a holder for each lease"):
            return range(self.number, LANES, len(self.world.apis))
        return range(LANES)

    def _take(self) -> Writes:
        self.taken = {}
        first, *rest = self._lanes()
        subject = codec.steering_subject(codec.GATE_LEASES, str(first))
        outcome = yield self._lease(subject, self._known_seq(first))
        if not isinstance(outcome, Stored):
            self.lose()
            return
        self.taken[first] = outcome.seq
        for lane in rest:
            self.world.begin(self, self._take_lane(lane, subject, outcome.seq), self.term)

    def _take_lane(self, lane: int, first: str, first_seq: int) -> Writes:
        subject = codec.steering_subject(codec.GATE_LEASES, str(lane))
        expected = self._known_seq(lane)
        while True:
            outcome = yield self._lease(subject, expected)
            if isinstance(outcome, Stored):
                break
            if not isinstance(outcome, Refused) or self.world.stream.last_seq_of(first) != first_seq:
                self.lose()
                return
            # Of one that was stopped while it took the gate, and has not the first one any more.
            expected = outcome.last.seq if outcome.last is not None else 0
        self.taken[lane] = outcome.seq
        if len(self.taken) < len(self._lanes()):
            return
        self.held = self.taken
        self.last_lease = max(self.held.values())
        self.phase = "applying"
        if any(self._known_seq(lane) > seq for lane, seq in self.held.items()):
            self.lose()

    def _lease(self, subject: str, expected: int) -> Put:
        return Put(subject, (self.identity, False), subject, expected, about=self.term)

    def _known_seq(self, lane: int) -> int:
        known = self.index.leases.get(str(lane))
        return known.seq if known is not None else 0

    def renew(self, *, ends: bool = False) -> Writes:
        """Say that it still holds the gate, or, if it ``ends``, that anybody may take it at once."""
        subject = codec.steering_subject(codec.GATE_LEASES, "renewal")
        first, seq = next(iter(self.held.items()))
        over = codec.steering_subject(codec.GATE_LEASES, str(first))
        was_alone, began = self.is_alone, self.world.stream.now
        self.renewals += 1
        number = self.renewals
        outcome = yield Put(subject, (self.identity, ends), over, seq)
        if isinstance(outcome, Stored) and number == self.renewals:
            # It does not wait for the answer to an earlier one any more.
            self.knows_time_since = self.moment, self.world.stream.now
            if was_alone:
                self.state.skip_missed(self.now, self.attended_until)
            else:
                self.world.promises.renewed(self, began)
            self.attended_until = self.now
        elif isinstance(outcome, Refused):
            self.lose()

    # Holding the gate.

    def round(self) -> None:
        """Do what is to be done now."""
        while self.later and self.later[0][0] <= self.moment:
            self.state.settled(heapq.heappop(self.later)[1])
        if self.phase == "idle" and self.state.has_work and self.may_decide and self.is_free:
            self.world.terms += 1
            self.phase, self.term, self.stored = "taking", self.world.terms, []
            self.attended_before = self._known_attended_until()
            self.world.begin(self, self._take(), self.term)
        if self.phase == "applying" and (
            self.index.position >= self.last_lease or self.world.breaks("release before the last lease is applied")
        ):
            self._begin_to_hold()
        if self.phase == "holding" and not self.state.has_work:
            self.world.begin(self, self.renew(ends=True))
            self.lose()
        if self.phase == "holding" and self.may_decide:
            if not self.is_alone:
                self._carry_out()
            if self.phase == "holding" and self.moment - self.renewed_at >= RENEWED_EVERY:
                self.renewed_at = self.moment
                self.world.begin(self, self.renew(), self.term)

    def _begin_to_hold(self) -> None:
        self.phase = "holding"
        self.renewed_at = self.moment
        self.knows_time_since = self.moment, self.world.stream.now
        if self.world.breaks("take the rates for unused at a take-over"):
            self.state._world.idle = lambda _, __: None  # noqa: SLF001
        attended_until = self._known_attended_until()
        if self.world.breaks("take up what an outage has kept"):
            attended_until = self.now
        elif self.world.breaks("skip by what was known before a take-over"):
            attended_until = self.attended_before
        self.state.begin(self.moment, self.now, attended_until)
        self.attended_until = self.now

    def _carry_out(self) -> None:
        self._settle_applied()
        for _ in range(_EVERY):
            action = self.state.next(self.now, self.moment)
            if action is None:
                if len(self.held) == LANES:
                    self.world.promises.overlooked(self)
                break
            self._send(action)
            if self.phase != "holding":
                return
        if self.world.unable:
            for recall in list(self.state.recalls()):
                self._send(recall)

    def _settle_applied(self) -> None:
        while self.stored and self.stored[0][0] <= self.index.position:
            self.state.settled(heapq.heappop(self.stored)[1])

    def _send(self, action: Action) -> None:
        job = self.index.jobs.get(action.job_id)
        if isinstance(action, Release):
            self.world.promises.decided(self, action)
        self.state.sent(action)
        if GateLease.lane_of(action.job_id) not in self.held:
            # It is another one's to release.
            self.state.stored(action.job_id, self.moment, stored=False)
            heapq.heappush(self.later, (self.moment + 1, action.job_id))
            return
        if job is None:
            self.state.stored(action.job_id, self.moment, stored=False)
            self.state.settled(action.job_id)
            self.state.forget(action.job_id)
        elif isinstance(action, Release):
            self.world.begin(self, self._release(job), self.term)
            if self.world.breaks("forget a release once it is sent"):
                self.state.stored(job.id, self.moment, stored=True)
                self.state.settled(job.id)
        else:
            self.world.begin(self, self._undo(job, action), self.term)

    def _release(self, job: Job) -> Writes:
        continued = None
        if self._goes_on(job):
            continued = Continued(job.attempt, job.errors, job.progress, job.progress_message)
        body = Submission(spec=job.spec, event_seq=job.event_seq, release=True, continues=continued)
        lane = GateLease.lane_of(job.id)
        over, expected = codec.steering_subject(codec.GATE_LEASES, str(lane)), self.held[lane]
        if self.world.breaks("fence by a wildcard"):
            over = aliased(over)
        elif self.world.breaks("fence by a lease that a take-over leaves alone"):
            over, expected = codec.steering_subject(codec.GATE_LEASES, "16"), 0
        subject = codec.queued_subject(job.id, job.spec.queue, job.spec.priority)
        decided = Decided(self.term, self.index.position, self.now)
        put = Put(subject, body, over, expected, job.id, Kind.QUEUED, about=decided)
        outcome = yield put
        while outcome is UNKNOWN:
            if self.world.breaks("forget a release that the leader does not know of"):
                self.state.stored(job.id, self.moment, stored=False)
                self.state.settled(job.id)
                return
            latest = self.state.latest_release(job.id)
            if latest is not None and latest <= self.now:
                # A gate that is taken anew refuses what may still be on its way.
                self.lose()
                return
            outcome = yield put
        is_stored = isinstance(outcome, Stored)
        if self.world.breaks("forget a release once it is sent"):
            return
        self.state.stored(job.id, self.moment, stored=is_stored)
        if isinstance(outcome, Stored):
            if self.world.breaks("settle a release before it is applied"):
                self.state.settled(job.id)
            else:
                heapq.heappush(self.stored, (outcome.seq, job.id))
        else:
            self.lose()

    def _goes_on(self, job: Job) -> bool:
        if self.world.breaks("release without what the attempts have left"):
            return False
        if self.world.breaks("go on only from a failure"):
            return job.status is JobStatus.RETRYING
        return bool(job.attempt or job.errors)

    def _undo(self, job: Job, action: Cancellation | Recall) -> Writes:
        """Cancel a job, or take its release back, if it has not moved since that was decided."""
        if isinstance(action, Recall):
            body = Edited(submission=job.submission_seq, spec=job.spec.never_too_late)
            subject = codec.event_subject(job.id, Kind.EDITED)
            outcome = yield Put(subject, body, codec.event_subjects(job.id), job.event_seq, job.id, Kind.EDITED)
            self._note(job.id, outcome)
            return
        for _ in range(_TRIES):
            newest = self.world.truth.jobs.get(job.id)
            moved = newest is not None and newest.moved_at > job.moved_at and not action.whatever_it_does
            if newest is None or newest.status.is_terminal or moved:
                break
            outcome = yield self.world.cancellation(newest, action.reason)
            if not isinstance(outcome, Refused):
                self._note(job.id, outcome)
                return
        self._note(job.id, None)

    def _note(self, job_id: str, outcome: Any) -> None:
        if isinstance(outcome, Stored):
            heapq.heappush(self.stored, (outcome.seq, job_id))
        else:
            heapq.heappush(self.later, (self.moment + _MOVED_DELAY, job_id))
