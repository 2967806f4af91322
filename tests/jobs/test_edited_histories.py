"""Schedules that end delete their message: whoever reads the history later sees the same job and the same events."""

from datetime import timedelta
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from msgspec.structs import replace

from gql_jobs.index.writer import MinuteCounts
from gql_jobs.jobs.fold import Event, events_of, fold
from gql_jobs.jobs.messages import Body, Cancelled, DeadLetter, Edited, Kind, Message, Started, Submission
from gql_jobs.jobs.model import Gate, Job, JobStatus, Spec
from tests.stories import JOB, at, attempt_body, spec

S = JobStatus
HOUR = timedelta(hours=1)


class OneJob(RuleBasedStateMachine):
    """A job, the messages that its stream still has, and what a reader made of all of them as they came."""

    @initialize(later=st.booleans(), gated=st.booleans())
    def create(self, *, later: bool, gated: bool) -> None:
        self.left: list[Message] = []
        self.job: Job | None = None
        self.events: list[Event] = []
        self.figures = MinuteCounts()
        self.seq = 0
        self.schedule: Message | None = None
        self.void: list[Message] = []
        run_at = self._now + HOUR if later else None
        asked = spec(gate=Gate(run_at=run_at)) if gated else spec(run_at=run_at)
        self._submit(Submission(spec=asked))

    @property
    def _now(self) -> Any:
        return at(self.seq)

    @property
    def known(self) -> Job:
        assert self.job is not None
        return self.job

    def _store(self, kind: Kind, body: Body) -> Message:
        self.seq += 1
        message = Message(JOB, kind, self.seq, self._now, body)
        after = fold(self.job, message)
        events = events_of(self.job, message, after)
        self.events += events
        self.figures.count(message, self.job, events)
        self.job = after
        self.left.append(message)
        self._read_anew()
        return message

    def _end_schedule(self) -> None:
        if self.schedule is not None:
            self.left.remove(self.schedule)
            self.schedule = None

    def _submit(self, body: Submission) -> None:
        asked: Spec = body.spec
        if asked.gate is not None:
            self._store(Kind.WAITING, body)
        elif asked.run_at is not None and asked.run_at > self._now:
            self._end_schedule()
            # As ``log.edits`` marks one that follows another.
            self.schedule = self._store(Kind.SCHEDULED, replace(body, held=body.event_seq > 0))
        else:
            self._end_schedule()
            self._store(Kind.QUEUED, body)

    @precondition(lambda self: self.schedule is not None)
    @rule()
    def fire(self) -> None:
        assert self.schedule is not None
        body = self.schedule.body
        self.seq = max(self.seq, int((body.spec.run_at - at(0)).total_seconds()))
        self._end_schedule()
        self._store(Kind.QUEUED, body)

    @precondition(lambda self: self.known.status in {S.SCHEDULED, S.QUEUED, S.WAITING})
    @rule(later=st.booleans(), is_killed=st.booleans(), crosses=st.booleans())
    def edit(self, *, later: bool, is_killed: bool, crosses: bool) -> None:
        job = self.known
        run_at = self._now + HOUR if later else None
        asked = job.spec
        asked = replace(asked, gate=replace(asked.gate, run_at=run_at)) if asked.gate else replace(asked, run_at=run_at)
        fired = self.schedule
        self._end_schedule()
        self._store(Kind.EDITED, Edited(submission=job.submission_seq, spec=asked, changed=("runAt",)))
        if crosses and fired is not None:
            self._store(Kind.QUEUED, fired.body)
        if not is_killed:
            self.complete()

    @precondition(lambda self: self.known.lacks_submission)
    @rule()
    def complete(self) -> None:
        job = self.known
        if job.lacks_submission:
            self._submit(Submission(spec=job.spec, event_seq=job.event_seq, after_edit=True))

    @precondition(lambda self: self.known.status is S.WAITING and self.known.spec.gate is not None)
    @rule()
    def release(self) -> None:
        job = self.known
        self._store(Kind.QUEUED, Submission(spec=job.spec, event_seq=job.event_seq, release=True))

    @precondition(lambda self: not self.known.status.is_terminal)
    @rule()
    def cancel(self) -> None:
        job = self.known
        asked = job.spec if job.status is S.SCHEDULED else None
        self._end_schedule()
        self._store(Kind.CANCELLED, Cancelled(submission=job.submission_seq, spec=asked))

    @precondition(lambda self: self.known.status is S.QUEUED)
    @rule(ends=st.booleans())
    def run(self, *, ends: bool) -> None:
        job = self.known
        self._store(Kind.STARTED, attempt_body(Started, 1, job.submission_seq))
        if ends:
            self._store(Kind.DEAD_LETTER, attempt_body(DeadLetter, 1, job.submission_seq))

    @precondition(lambda self: self.known.status in {S.CANCELLED, S.DEAD_LETTER})
    @rule()
    def retry(self) -> None:
        self._submit(Submission(spec=self.known.spec, event_seq=self.known.event_seq))

    def _read_anew(self) -> None:
        job: Job | None = None
        events: list[Event] = []
        figures = MinuteCounts()
        for message in self.left:
            after = fold(job, message)
            told = events_of(job, message, after)
            events += told
            figures.count(message, job, told)
            job = after
        assert job == self.job
        assert [(event.kind, event.job.status, event.job.actor) for event in events] == [
            (event.kind, event.job.status, event.job.actor) for event in self.events
        ]
        cursors = [event.cursor for event in events]
        assert cursors == sorted(set(cursors))
        # One creation, however often it was submitted.
        assert _created(figures) == _created(self.figures) == 1


def _created(figures: MinuteCounts) -> int:
    return sum(n for (_, _, what, _), n in figures._added.items() if what == 0)  # noqa: SLF001


def test_a_job_is_the_same_for_who_has_read_its_schedules_and_for_who_has_not() -> None:
    run_state_machine_as_test(OneJob, settings=settings(deadline=None, stateful_step_count=30, max_examples=300))
