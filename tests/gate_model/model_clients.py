"""The clients and operators of the model: they create jobs, change them, and what steers them, in any order."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from gql_jobs.jobs.limits import Limits
from gql_jobs.jobs.messages import Edited, Expired, Kind, Submission
from gql_jobs.jobs.model import DependencyPolicy, Gate, Job, JobPriority, JobStatus, OverlapPolicy, job_id_for_key
from gql_jobs.log import codec
from tests.gate_model.fenced_stream import Put, Stored
from tests.stories import spec

if TYPE_CHECKING:
    from tests.gate_model.api_process import ApiProcess, Writes
    from tests.gate_model.steered_world import SteeredWorld

QUEUES, TYPES, KEYS = ("default", "other"), ("probe", "report"), (None, "a", "b")
BUDGET = 2
"""Attempts of a job after the first."""


class ModelClients:
    """Whoever asks for something."""

    def __init__(self, world: "SteeredWorld") -> None:
        self.world = world
        self.created = 0

    def _known(self) -> str | None:
        return self.world.random.choice(list(self.world.truth.jobs)) if self.world.truth.jobs else None

    def create(self, api: "ApiProcess") -> None:
        """A client creates a job through a process, which knows as much of limits as its index."""
        draw = self.world.random
        # Of few leases, so that their writes and the releases meet.
        job_id = job_id_for_key(f"job {self.created}")[:-1] + draw.choice("012")
        deleted = sorted(self.world.promises.deleted)
        renews = bool(deleted) and draw.random() < 0.3
        if renews:
            job_id = draw.choice(deleted)
        self.created += 1
        now = self.world.stream.now
        later = now + timedelta(seconds=draw.choice((1, 5, 20)))
        queue, job_type = draw.choice(self.world.queues), draw.choice(self.world.types)
        known = list(self.world.truth.jobs)
        after = tuple(sorted(draw.sample(known, min(len(known), draw.choice((0, 0, 0, 0, 0, 1, 2))))))
        limited = not (api.index.limit("queue", queue).is_none and api.index.limit("type", job_type).is_none)
        is_tick = draw.random() < 0.15
        overlap = draw.choice((OverlapPolicy.SKIP, OverlapPolicy.CANCEL_OTHER, None)) if is_tick else None
        is_gated = limited or bool(after and not renews) or overlap is not None or draw.random() < self.world.gated
        run_at = later if is_tick or draw.random() < 0.15 else None
        too_late = later + timedelta(seconds=draw.choice((0.5, 3, 30))) if is_tick else None
        asked = spec(
            type=job_type,
            queue=queue,
            priority=draw.choice(list(JobPriority)) if draw.random() < 0.4 else JobPriority.NORMAL,
            max_retries=BUDGET,
            created_at=now + timedelta(seconds=api.wall_error),
            run_at=None if is_gated else run_at,
            concurrency_key=draw.choice(KEYS),
            after=() if is_tick or renews else after,
            after_policy=draw.choice(list(DependencyPolicy)),
            start_before=now + timedelta(seconds=draw.choice((2, 10, 40))) if draw.random() < 0.2 else None,
            schedule=f"nightly {overlap}" if is_tick else None,
            gate=Gate(run_at=run_at, overlap=overlap, release_before=too_late) if is_gated else None,
            fire_before=None if is_gated else too_late,
        )
        last = self.world.stream.last(codec.event_subjects(job_id)) if job_id in self.world.promises.deleted else None
        body = Submission(spec=asked, event_seq=last.seq if last else 0, after_expiry=last is not None)
        self.world.write(self.world.submission(job_id, body))

    def cancel(self) -> None:
        """A client cancels a job that has not ended."""
        job = self.world.truth.jobs.get(self._known() or "")
        if job is not None and not job.status.is_terminal:
            self.world.write(self.world.cancellation(job, None))

    def retry(self) -> None:
        """A client retries a job that has ended without completing."""
        ended = [
            job for job in self.world.truth.jobs.values() if job.status in {JobStatus.DEAD_LETTER, JobStatus.CANCELLED}
        ]
        if ended:
            job = self.world.random.choice(ended)
            asked = replace(job.spec.never_too_late, start_before=None)
            body = Submission(spec=asked, event_seq=job.event_seq)
            self.world.write(self.world.submission(job.id, body))

    def edit(self) -> None:
        """A client changes a job that has not started; it may die before the submission that follows."""
        some = [
            job
            for job in self.world.truth.jobs.values()
            if job.status in {JobStatus.SCHEDULED, JobStatus.WAITING, JobStatus.QUEUED}
            if not job.attempt and job.id not in self.world.truth.begun
        ]
        if some:
            self.world.begin(None, self._edit(self.world.random.choice(some), dies=self.world.random.random() < 0.3))

    def _edit(self, job: Job, *, dies: bool) -> "Writes":
        asked = job.spec.never_too_late if job.status is JobStatus.QUEUED else job.spec
        asked = replace(asked, priority=self.world.random.choice(list(JobPriority)))
        if self.world.random.random() < 0.4:
            run_at = self.world.stream.now + timedelta(seconds=self.world.random.choice((0, 3, 15)))
            asked = asked.never_too_late
            gate = asked.gate
            asked = replace(asked, gate=replace(gate, run_at=run_at)) if gate else replace(asked, run_at=run_at)
        body = Edited(submission=job.submission_seq, spec=asked, changed=("priority",))
        ends = job.submission_seq if job.status is JobStatus.SCHEDULED else 0
        outcome = yield self.world.event(job, Kind.EDITED, body, ends)
        if isinstance(outcome, Stored) and asked.gate is None and not dies:
            yield self.world.submission(job.id, Submission(spec=asked, event_seq=outcome.seq, after_edit=True))

    def repair(self) -> None:
        """Somebody writes the submission that is missing after an edit."""
        for job in self.world.truth.jobs.values():
            if job.status is JobStatus.WAITING and job.spec.gate is None:
                body = Submission(spec=job.spec, event_seq=job.event_seq, after_edit=True)
                self.world.write(self.world.submission(job.id, body))
                return

    def delete(self) -> None:
        """A client deletes a job, whatever it does."""
        job = self.world.truth.jobs.get(self._known() or "")
        if job is not None:
            self.world.begin(None, self._delete(job, dies=self.world.random.random() < 0.3))

    def _delete(self, job: Job, *, dies: bool) -> "Writes":
        outcome = yield self.world.event(job, Kind.EXPIRED, Expired(event_seq=job.event_seq))
        if isinstance(outcome, Stored) and not dies:
            self._delete_messages(job.id, outcome.seq)

    def _delete_messages(self, job_id: str, expired_seq: int) -> None:
        for entry in self.world.stream.of_job(job_id):
            if entry.seq < expired_seq:
                self.world.stream.delete(entry.seq)

    def sweep(self) -> None:
        """Delete what is left of deleted jobs, and what has crossed that."""
        for job_id in self.world.promises.deleted:
            entries = self.world.stream.of_job(job_id)
            last = max((entry.seq for entry in entries if entry.put.kind is Kind.EXPIRED), default=0)
            for entry in entries:
                if entry.seq != last:
                    self.world.stream.delete(entry.seq)

    def pause(self) -> None:
        """An operator pauses or resumes a queue."""
        self._steer(codec.PAUSES, self.world.random.choice(QUEUES), self.world.random.random() < 0.5)

    def limit(self) -> None:
        """An operator changes limits."""
        draw = self.world.random
        value = Limits(
            draw.choice((None, None, 1, 2, 3)),
            draw.choice((None, 1, 2)),
            draw.choice((None, None, None, 0.05, 0.5, 1.0, 2.5)),
        )
        if draw.random() < 0.7:
            self._steer(codec.QUEUE_LIMITS, draw.choice(QUEUES), value)
        else:
            self._steer(codec.TYPE_LIMITS, draw.choice(TYPES), value)

    def _steer(self, what: str, name: str, value: Any) -> None:
        subject = codec.steering_subject(what, name)
        self.world.write(Put(subject, value, subject, self.world.stream.last_seq_of(subject)))
