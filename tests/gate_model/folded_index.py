"""What a reader of the stream knows: jobs by the real fold, and what steers them, up to a position."""

from datetime import datetime

from msgspec import Struct

from gql_jobs.jobs.fold import fold
from gql_jobs.jobs.limits import UNLIMITED, Limits
from gql_jobs.jobs.messages import Kind, Submission
from gql_jobs.jobs.model import Job, JobStatus
from gql_jobs.log import codec
from tests.gate_model.fenced_stream import Entry

PLACED = frozenset({JobStatus.QUEUED, JobStatus.PROCESSING})
"""States in which a job holds a place."""


class Lease(Struct, frozen=True):
    """The newest message of one of the leases, or of the renewal: who wrote it when, and whether it has given up."""

    seq: int
    at: datetime
    holder: str
    ended: bool = False


class FoldedIndex:
    """The jobs and what steers them as of ``position``."""

    def __init__(self, *, lets_ghosts_in: bool = False) -> None:
        """Begin with nothing; ``lets_ghosts_in``: nobody knows of a deletion once it is applied."""
        self.lets_ghosts_in = lets_ghosts_in
        self.position = 0
        self.jobs: dict[str, Job] = {}
        self.expired: dict[str, int] = {}
        """The sequence of the last deletion of an id."""
        self.begun: set[str] = set()
        """Jobs of which an attempt has started since they were created or retried by hand."""
        self.retried: set[str] = set()
        """Jobs whose newest submission by hand is a retry."""
        self.limits: dict[tuple[str, str], Limits] = {}
        self.paused: set[str] = set()
        self.leases: dict[str, Lease] = {}

    def apply(self, entry: Entry) -> tuple[Job | None, Job | None]:
        """Take in the next message; return its job before and after it."""
        self.position = entry.seq
        put = entry.put
        if put.job_id is None:
            self._steer(entry)
            return None, None
        message = entry.message
        body = message.body
        before = self.jobs.get(put.job_id)
        after = fold(before, message, 0 if self.lets_ghosts_in else self.expired.get(put.job_id, 0))
        if message.kind is Kind.EXPIRED:
            after = None
            self.expired[put.job_id] = entry.seq
        if after is None:
            self.jobs.pop(put.job_id, None)
            self.begun.discard(put.job_id)
            self.retried.discard(put.job_id)
        elif after is not before:
            self.jobs[put.job_id] = after
            if message.kind is Kind.STARTED:
                self.begun.add(put.job_id)
            elif by_hand(body):
                self.begun.discard(put.job_id)
                (self.retried.add if body.event_seq and not body.after_expiry else self.retried.discard)(put.job_id)
        return before, after

    def _steer(self, entry: Entry) -> None:
        named = codec.steering_name(entry.put.subject)
        assert named is not None
        what, name = named
        value = entry.put.body
        match what:
            case codec.QUEUE_LIMITS:
                self.limits["queue", name] = value or UNLIMITED
            case codec.TYPE_LIMITS:
                self.limits["type", name] = value or UNLIMITED
            case codec.GATE_LEASES:
                self.leases[name] = Lease(entry.seq, entry.at, *value)
            case codec.PAUSES:
                (self.paused.add if value else self.paused.discard)(name)

    def limit(self, of: str, name: str) -> Limits:
        """The limits of a queue or a type."""
        return self.limits.get((of, name), UNLIMITED)

    def placed(self, of: str, name: str) -> list[Job]:
        """The jobs of a queue or type that hold a place."""
        return [job for job in self.jobs.values() if job.status in PLACED and getattr(job.spec, of) == name]

    def is_unstarted(self, job: Job) -> bool:
        """Whether no attempt of a job has started since it was created or retried by hand."""
        waits = job.status in {JobStatus.SCHEDULED, JobStatus.WAITING, JobStatus.QUEUED}
        return waits and job.id not in self.begun


def by_hand(body: object) -> bool:
    """Whether a message creates a job or is a retry by hand."""
    return isinstance(body, Submission) and not body.release and not body.after_edit
