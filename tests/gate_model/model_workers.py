"""The workers of the model, who keep to the rules of claims: they die, come back late, and lose acknowledgements."""

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec.structs import replace

from gql_jobs.jobs.claim import MISSED, TERMINAL, Decision, Drop, Exhausted, Start, Wait, decide, first_start, too_late
from gql_jobs.jobs.messages import (
    AttemptBody,
    Cancelled,
    Completed,
    DeadLetter,
    Failed,
    Kind,
    Message,
    Released,
    Started,
    Submission,
)
from gql_jobs.jobs.model import JobError
from gql_jobs.log import codec
from tests.gate_model.fenced_stream import Entry, Put, Stored
from tests.gate_model.model_clients import BUDGET
from tests.stories import KIND_OF, attempt_body

if TYPE_CHECKING:
    from tests.gate_model.api_process import Writes
    from tests.gate_model.steered_world import SteeredWorld


class AttemptInHand(NamedTuple):
    """An attempt as its worker knows it."""

    worker: int
    job_id: str
    submission: int
    attempt: int
    started_seq: int


class ModelWorkers:
    """The queue with its leases, and all workers."""

    def __init__(self, world: "SteeredWorld") -> None:
        self.world = world
        self.deliveries: Counter[int] = Counter()
        self.acked: set[int] = set()
        self.not_before: dict[int, float] = {}
        self.in_hand: list[AttemptInHand] = []

    def unacked(self) -> list[int]:
        """The submissions that the queue has not let go."""
        return [
            entry.seq
            for entry in self.world.stream.entries
            if entry is not None and entry.put.kind is Kind.QUEUED and entry.seq not in self.acked
        ]

    def deliver(self, seq: int, worker: int, *, on_time: bool) -> None:
        """A submission is delivered to a worker; not on time: the lease of an earlier delivery has run out."""
        if on_time and self.not_before.get(seq, 0.0) > self.world.stream.clock:
            return
        if any((mine.worker, mine.submission) == (worker, seq) for mine in self.in_hand):
            return
        entry = self.world.stream.entry(seq)
        if entry is not None:
            self.deliveries[seq] += 1
            self.world.begin(worker, self._claim(entry, worker, redelivered=self.deliveries[seq] > 1))

    def _claim(self, entry: Entry, worker: int, *, redelivered: bool) -> "Writes":
        body: Submission = entry.put.body
        job_id, seq = entry.message.job_id, entry.seq
        decision = first_start(body) if not redelivered else self._decide(entry, redelivered=redelivered)
        while isinstance(decision, Start | Exhausted):
            facts: dict[str, Any] = {"worker_id": f"w{worker}", "errors": decision.errors}
            over = codec.event_subjects(job_id)
            late = self._late_reason(entry, decision) if isinstance(decision, Start) else None
            if late is not None:
                kind, fact = Kind.CANCELLED, Cancelled(submission=seq, reason=late)
            elif isinstance(decision, Exhausted):
                kind, fact = Kind.DEAD_LETTER, attempt_body(DeadLetter, decision.attempt, seq, **facts)
            else:
                facts["supersedes"] = decision.supersedes
                kind, fact = Kind.STARTED, attempt_body(Started, decision.attempt, seq, **facts)
            outcome = yield Put(codec.event_subject(job_id, kind), fact, over, decision.event_seq, job_id, kind)
            if isinstance(outcome, Stored):
                if isinstance(decision, Exhausted) or late is not None:
                    self._ack(seq)
                else:
                    self.in_hand.append(AttemptInHand(worker, job_id, seq, decision.attempt, outcome.seq))
                return
            if isinstance(decision, Exhausted):
                return
            decision = self._decide(entry, redelivered=redelivered)
        if isinstance(decision, Drop):
            self._ack(seq)
        elif isinstance(decision, Wait):
            self.not_before[seq] = self.world.stream.clock + decision.delay

    def _decide(self, entry: Entry, *, redelivered: bool) -> Decision:
        last = self.world.stream.last(codec.event_subjects(entry.message.job_id))
        message: Message | None = last.message if last is not None else None
        body = entry.put.body
        if self.world.breaks("start again after a failure without the gate"):
            body = replace(body, spec=replace(body.spec, gate=None))
        return decide(body, entry.seq, message, redelivered=redelivered, now=self.world.stream.now)

    def _late_reason(self, entry: Entry, start: Start) -> str | None:
        """Why a job is cancelled instead of started, as workers do it."""
        submission: Submission = entry.put.body
        spec, latest = submission.spec, submission.spec.start_before
        if start.attempt > 1 or start.event_seq != submission.event_seq:
            return None
        if spec.fire_before is not None and entry.at > spec.fire_before and not self.world.breaks("pass over firing"):
            return MISSED
        if latest is None:
            return None
        return too_late(latest) if latest <= self.world.stream.now else None

    def _ack(self, seq: int) -> None:
        if self.world.is_calm or self.world.random.random() < 0.8:
            self.acked.add(seq)

    def finish(self, mine: AttemptInHand) -> None:
        """A handler ends, however late."""
        kind: type[AttemptBody] = self.world.random.choice((Completed, Completed, Failed, Failed, DeadLetter, Released))
        self.world.begin(mine.worker, self._record(mine, Completed if self.world.is_calm else kind))

    def work_off(self) -> None:
        """Deliver everything that is due, and finish it."""
        for seq in self.unacked():
            if not any(mine.submission == seq for mine in self.in_hand):
                self.deliver(seq, worker=9, on_time=True)
        while self.in_hand:
            self.finish(self.in_hand.pop(0))

    def _record(self, mine: AttemptInHand, kind: type[AttemptBody]) -> "Writes":
        entry = self.world.stream.entry(mine.submission)
        started = self.world.stream.entry(mine.started_seq)
        errors = started.put.body.errors if started is not None else ()
        wrong = self.world.random.choice((0, 0, 0, 0, -3600, 3600))
        now = self.world.stream.now + timedelta(seconds=wrong)
        error = JobError(message="No.", type="TransientError", attempt=mine.attempt, at=now, retryable=True)
        facts: dict[str, Any] = {"errors": errors}
        if kind is Failed and mine.attempt > BUDGET:
            kind = DeadLetter
        if kind in {Failed, DeadLetter}:
            facts["errors"] = (*errors, error)
        delay = self.world.random.choice((0.5, 2.0, 8.0))
        if kind is Failed:
            facts["next_attempt_at"] = now + timedelta(seconds=delay)
        over = codec.event_subjects(mine.job_id)
        body = attempt_body(kind, mine.attempt, mine.submission, **facts)
        subject = codec.event_subject(mine.job_id, KIND_OF[kind])
        outcome = yield Put(subject, body, over, mine.started_seq, mine.job_id, KIND_OF[kind])
        if isinstance(outcome, Stored):
            is_gated = entry is not None and entry.put.body.spec.gate is not None
            gives_up = kind is Failed and is_gated and not self.world.breaks("nak after a failure")
            if kind in {Completed, DeadLetter} or gives_up:
                self._ack(mine.submission)
            else:
                self.not_before[mine.submission] = self.world.stream.clock + (delay if kind is Failed else 0.1)
            return
        last = self.world.stream.last(over)
        if last is not None and last.put.kind in TERMINAL:
            self._ack(mine.submission)
