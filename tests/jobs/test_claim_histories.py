"""Several workers, cancellations and retries by hand in any order, each keeping to the claim rules and the fence.

Leases run out at any moment, workers die without a word or come back late, acknowledgements get lost, and what was
decided is written long after it was read.
"""

from collections import Counter
from datetime import timedelta
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from gql_jobs.jobs.claim import TERMINAL, Decision, Drop, Exhausted, Start, decide, first_start
from gql_jobs.jobs.fold import fold
from gql_jobs.jobs.messages import (
    AttemptBody,
    Body,
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
from gql_jobs.jobs.model import Job, JobStatus
from tests.stories import JOB, after, at, attempt_body, queued, spec, tell

BUDGET = 2
LATER = timedelta(days=1)
"""Every backoff is over by then."""


class InHand(NamedTuple):
    """An attempt as its worker knows it."""

    worker: int
    submission: int
    attempt: int
    started_seq: int


class World:
    """A job's stream with its fence, the queue with its leases, and the workers."""

    def __init__(self) -> None:
        self.log: list[Message] = [queued(1, max_retries=BUDGET)]
        self.deliveries: Counter[int] = Counter()
        self.acked: set[int] = set()
        self.in_hand: list[InHand] = []
        self.cancellations: list[int] = []

    @property
    def job(self) -> Job:
        job = after(*self.log)
        assert job is not None
        return job

    @property
    def last_event(self) -> Message | None:
        return next((m for m in reversed(self.log) if m.kind not in {Kind.QUEUED, Kind.PROGRESS}), None)

    @property
    def event_seq(self) -> int:
        return self.last_event.seq if self.last_event is not None else 0

    def write(self, body: Body, expected: int) -> bool:
        """A fenced event; False if the fence refuses it."""
        if self.event_seq != expected:
            return False
        self.log.append(tell(len(self.log) + 1, body))
        return True

    def deliver(self, submission: int, worker: int, *, due: bool) -> None:
        self.deliveries[submission] += 1
        if any((a.worker, a.submission) == (worker, submission) for a in self.in_hand):
            return
        body: Submission = self.log[submission - 1].body
        redelivered = self.deliveries[submission] > 1
        now = at(len(self.log)) + (LATER if due else timedelta())
        decision: Decision | None = first_start(body) if not redelivered else None
        while True:
            if decision is None:
                decision = decide(body, submission, self.last_event, redelivered=redelivered, now=now)
            if not isinstance(decision, Start | Exhausted):
                break
            if self._carry_out(decision, submission, worker):
                return
            decision = None
        if isinstance(decision, Drop):
            self.acked.add(submission)

    def _carry_out(self, decision: Start | Exhausted, submission: int, worker: int) -> bool:
        facts = {"worker_id": f"w{worker}", "errors": decision.errors}
        if isinstance(decision, Exhausted):
            written = self.write(attempt_body(DeadLetter, decision.attempt, submission, **facts), decision.event_seq)
            if written:
                self.acked.add(submission)
            return written
        started = attempt_body(Started, decision.attempt, submission, supersedes=decision.supersedes, **facts)
        if self.write(started, decision.event_seq):
            self.in_hand.append(InHand(worker, submission, decision.attempt, len(self.log)))
            return True
        return False

    def finish(self, number: int, kind: type[AttemptBody], *, acks: bool) -> None:
        """An outcome, however late; ``acks``: the acknowledgement of the delivery arrives."""
        mine = self.in_hand.pop(number)
        if kind is Failed and mine.attempt > BUDGET:
            kind = DeadLetter
        written = self.write(attempt_body(kind, mine.attempt, mine.submission), mine.started_seq)
        last = self.last_event
        ended = last is not None and last.kind in TERMINAL
        if acks and ended and (kind in {Completed, DeadLetter} or not written):
            self.acked.add(mine.submission)

    def retry(self) -> None:
        job = self.job
        if job.status in {JobStatus.DEAD_LETTER, JobStatus.CANCELLED}:
            body = Submission(spec=spec(max_retries=BUDGET), event_seq=job.event_seq)
            seq = len(self.log) + 1
            self.log.append(Message(JOB, Kind.QUEUED, seq, at(seq), body))

    def think_of_cancelling(self) -> None:
        if not self.job.status.is_terminal:
            self.cancellations.append(self.event_seq)

    def cancel(self, number: int) -> None:
        expected = self.cancellations.pop(number)
        if not self.job.status.is_terminal:
            self.write(Cancelled(submission=self.job.submission_seq), expected)

    def unacked(self) -> list[int]:
        return [m.seq for m in self.log if m.kind is Kind.QUEUED and m.seq not in self.acked]

    def check(self) -> None:
        """Nothing is lost, and every event that was written was legal."""
        job: Job | None = None
        for message in self.log:
            moved = fold(job, message)
            assert moved is not job, f"{message.kind} at {message.seq} was written and is not legal"
            job = moved
        assert job is not None
        assert job.status.is_terminal or job.submission_seq not in self.acked
        ends = Counter(m.body.submission for m in self.log if m.kind in TERMINAL)
        assert set(ends.values()) <= {1}


OUTCOMES: list[type[AttemptBody]] = [Completed, Failed, Failed, DeadLetter, Released]


def _step(world: World, draw: st.DataObject) -> None:
    acts = ["deliver"] * 4 + ["finish", "finish", "crash"] * bool(world.in_hand) + ["think", "retry"]
    match draw.draw(st.sampled_from(acts + ["cancel"] * bool(world.cancellations))):
        case "deliver":
            if unacked := world.unacked():
                submission = draw.draw(st.sampled_from(unacked))
                world.deliver(submission, draw.draw(st.integers(1, 3)), due=draw.draw(st.booleans()))
        case "finish":
            kind: type[AttemptBody] = draw.draw(st.sampled_from(OUTCOMES))
            number = draw.draw(st.integers(0, len(world.in_hand) - 1))
            world.finish(number, kind, acks=draw.draw(st.booleans()))
        case "crash":
            world.in_hand.pop(draw.draw(st.integers(0, len(world.in_hand) - 1)))
        case "think":
            world.think_of_cancelling()
        case "cancel":
            world.cancel(draw.draw(st.integers(0, len(world.cancellations) - 1)))
        case "retry":
            world.retry()


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_every_submission_ends_once_whatever_the_workers_go_through(data: st.DataObject) -> None:
    world = World()
    for _ in range(data.draw(st.integers(1, 40), label="steps")):
        _step(world, data)
        world.check()
    while world.in_hand:
        world.finish(0, Completed, acks=True)
    for _ in range(2 * BUDGET + 4):
        for submission in world.unacked():
            world.deliver(submission, worker=9, due=True)
        while world.in_hand:
            world.finish(0, Completed, acks=True)
        world.check()
    assert world.unacked() == []
    submissions = {m.seq for m in world.log if m.kind is Kind.QUEUED}
    assert {m.body.submission for m in world.log if m.kind in TERMINAL} == submissions
