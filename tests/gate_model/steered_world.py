"""The world of the model: a stream, and what processes, workers and clients write, however long it is on its way."""

from random import Random
from typing import Any

from msgspec.structs import replace

from gql_jobs.jobs.limits import Limits
from gql_jobs.jobs.messages import Cancelled, Kind, Submission
from gql_jobs.jobs.model import Job, JobStatus
from gql_jobs.log import codec
from tests.gate_model.api_process import UNKNOWN, ApiProcess, Writes
from tests.gate_model.fenced_stream import BUSY, FencedStream, Flight, Put
from tests.gate_model.folded_index import FoldedIndex
from tests.gate_model.gate_promises import GatePromises
from tests.gate_model.model_clients import QUEUES, TYPES, ModelClients
from tests.gate_model.model_workers import ModelWorkers
from tests.gate_model.mutations import MUTATIONS

_FIRST_LIMITS = ((1, None, None), (2, 1, None), (None, 1, None), (None, None, 1.0), (3, 1, 0.05))


class Task:
    """Somebody who writes one thing after the other; ``owner`` is the process that does it, in a ``term``."""

    __slots__ = ("flight", "owner", "term", "writes")

    def __init__(self, owner: Any, writes: Writes, term: int) -> None:
        self.owner = owner
        self.writes = writes
        self.term = term
        self.flight: Flight | None = None


class SteeredWorld:
    """Everything there is in one history. ``mutation`` names a rule that is broken on purpose."""

    def __init__(self, seed: int, *, mutation: str | None = None) -> None:
        self.random = draw = Random(seed)  # noqa: S311 - repeatable
        self.mutation = mutation
        assert mutation is None or mutation in MUTATIONS
        self.promises = GatePromises(self)
        self.stream = FencedStream(copies=draw.choice((1, 3, 3)), on_stored=self.promises.stored)
        self.clients = ModelClients(self)
        self.workers = ModelWorkers(self)
        self.tasks: list[Task] = []
        self.loose: list[Flight] = []
        """Writes that are on their way."""
        self.numbers = 0
        self.terms = 0
        self.unable: set[tuple[str, str]] = set()
        self.is_calm = False
        """Whether nothing goes wrong any more."""
        self.promptness = draw.choice((0.9, 0.75, 0.5))
        """How often a write is answered before anything else happens."""
        self.queues, self.types = QUEUES[: draw.choice((1, 1, 2))], TYPES[: draw.choice((1, 1, 2))]
        self.gated = draw.choice((0.3, 0.9))
        """How many of the jobs pass the gate that need not."""
        self.apis: list[ApiProcess] = []
        for _ in range(draw.choice((2, 2, 3))):
            self.apis.append(ApiProcess(self, pace=draw.uniform(0.999, 1.001)))
        if draw.random() < 0.7:
            subject = codec.steering_subject(codec.QUEUE_LIMITS, QUEUES[0])
            self.write(Put(subject, Limits(*draw.choice(_FIRST_LIMITS)), subject, 0))
        if draw.random() < 0.8:
            self._warm_up()

    def _warm_up(self) -> None:
        """Have one process hold the gate to begin with."""
        self.is_calm, gated, self.gated = True, self.gated, 1.0
        self.clients.create(self.apis[0])
        for _ in range(3):
            self.apis[0].apply(1000)
            self.apis[0].round()
        self.is_calm, self.gated = False, gated

    # What others ask.

    @property
    def truth(self) -> FoldedIndex:
        """What the leader has."""
        return self.promises.truth

    def breaks(self, rule: str) -> bool:
        """Whether this rule is broken on purpose."""
        return self.mutation == rule

    def is_able(self, queue: str, type_name: str) -> bool:
        """Whether a worker can run the jobs of a type in a queue."""
        return (queue, type_name) not in self.unable

    # Writes.

    def begin(self, owner: Any, writes: Writes, term: int = 0) -> None:
        """Have somebody write; what is not answered at once goes on in later steps."""
        task = Task(owner, writes, term)
        self.tasks.append(task)
        self._advance(task, None)

    def drop_tasks(self, owner: Any, term: int | None = None) -> None:
        """Nobody waits any longer for what a process has written, in one term or ever; it may be stored yet."""
        for task in [task for task in self.tasks if task.owner is owner and term in {None, task.term}]:
            if term is not None and task.term == 0:
                continue
            self.tasks.remove(task)
            if task.flight is not None:
                task.flight.told = None
                task.flight = None

    def _advance(self, task: Task, value: Any) -> None:
        while True:
            try:
                put = task.writes.send(value)
            except StopIteration:
                if task in self.tasks:
                    self.tasks.remove(task)
                return
            if task not in self.tasks:
                # It was dropped by what it has done.
                task.writes.close()
                return
            self.numbers += 1
            flight = Flight(put, self.numbers, task)
            task.flight = flight
            if self.is_calm or self.random.random() < self.promptness:
                self.stream.arrive(flight)
                while self.stream.accepted and flight in self.stream.accepted:
                    self.stream.commit()
                if flight.answer is not None:
                    outcome = self.stream.outcome_of(flight)
                    if outcome is not None:
                        task.flight = None
                        value = outcome
                        continue
            if flight.answer is None or flight.answer is BUSY:
                flight.answer = None
                self.loose.append(flight)
            return

    def arrive(self, number: int) -> None:
        """A write on its way reaches the server."""
        self.stream.arrive(self.loose.pop(number))

    def answer(self, task: Task) -> None:
        """A writer hears what has become of its write, or asks the leader because it has heard nothing."""
        flight = task.flight
        assert flight is not None
        outcome = self.stream.outcome_of(flight)
        if outcome is None:
            # Not there, and not refused for good: it is sent again, while the first may be on its way yet.
            if flight not in self.loose and flight not in self.stream.accepted:
                flight.answer = None
                self.loose.append(flight)
            return
        task.flight = None
        self._advance(task, outcome)

    def give_up(self, task: Task) -> None:
        """A writer waits no longer for the outcome of its write."""
        assert task.flight is not None
        task.flight.told = None
        task.flight = None
        self._advance(task, UNKNOWN)

    def write(self, put: Put) -> None:
        """Have somebody write one thing, whatever becomes of it."""
        self.begin(None, _once(put))

    # What is written about a job.

    def submission(self, job_id: str, body: Submission) -> Put:
        """The write of a submission by hand, or after an edit, fenced on all of the job's messages."""
        asked = body.spec
        waits, scheduled = asked.gate is not None, asked.run_at is not None and asked.run_at > self.stream.now
        kind = Kind.WAITING if waits else Kind.SCHEDULED if scheduled else Kind.QUEUED
        subject = codec.queued_subject(job_id, asked.queue, asked.priority)
        if kind is not Kind.QUEUED:
            subject = codec.scheduled_subject(job_id)
        if kind is Kind.SCHEDULED and body.event_seq and not body.after_expiry:
            body = replace(body, held=True)
        over = codec.job_subjects(job_id)
        return Put(subject, body, over, self.stream.last_seq_of(over), job_id, kind)

    def cancellation(self, job: Job, reason: str | None) -> Put:
        """The write that cancels a job, and ends its schedule."""
        is_scheduled = job.status is JobStatus.SCHEDULED
        body = Cancelled(submission=job.submission_seq, spec=job.spec if is_scheduled else None, reason=reason)
        return self.event(job, Kind.CANCELLED, body, ends=job.submission_seq if is_scheduled else 0)

    def event(self, job: Job, kind: Kind, body: Any, ends: int = 0) -> Put:
        over = codec.event_subjects(job.id)
        if kind in {Kind.EDITED, Kind.EXPIRED} and self.breaks("fence edits and deletions by all messages of the job"):
            over = codec.job_subjects(job.id)
        expected = self.stream.last_seq_of(over)
        return Put(codec.event_subject(job.id, kind), body, over, expected, job.id, kind, ends)


def _once(put: Put) -> Writes:
    yield put
