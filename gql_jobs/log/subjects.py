"""The one place where subjects, streams, consumers and headers are spelled.

Only canonical UUIDs and names of ``[a-z0-9_-]+`` may be passed in: a wildcard in a token would name other jobs.
"""

from base64 import urlsafe_b64encode

from gql_jobs.jobs.messages import Kind
from gql_jobs.jobs.model import JobPriority

STREAM = "JOBS"
DEAD_LETTERS = "jobs-dlq"

EXPECTED_SEQ = "Nats-Expected-Last-Subject-Sequence"
EXPECTED_FILTER = "Nats-Expected-Last-Subject-Sequence-Subject"
ROLLUP = "Nats-Rollup"
SCHEDULE = "Nats-Schedule"
SCHEDULE_TARGET = "Nats-Schedule-Target"
MESSAGE_TTL = "Nats-TTL"
SOURCE = "Nats-Stream-Source"
NONCE = "Gql-Jobs-Nonce"

ALL = "jobs.>"
SUBMISSIONS = "jobs.*.queued.*.*"
SCHEDULES = "jobs.*.scheduled"
EVENTS = "jobs.*.event.*"
CANCELLATIONS = "jobs.*.event.cancelled"
DEAD_LETTER_EVENTS = "jobs.*.event.dead_letter"
PROGRESS = "jobs.*.progress"
CHECKPOINTS = "jobs.*.checkpoint"
ARTIFACTS = "jobs.*.artifact.*"
NOTES = "jobs.*.note"
FOLDED = (SUBMISSIONS, SCHEDULES, EVENTS, PROGRESS, ARTIFACTS, NOTES)
"""What is folded: all but checkpoints."""

UNFOLDED = frozenset({"checkpoint"})
"""Last tokens of a job's messages outside the fold."""

WORKERS = "workers.*"
WORKERS_PING = "workers-ping"


def job(job_id: str) -> str:
    """Every message of a job: the widest fence."""
    return f"jobs.{job_id}.>"


def queued(job_id: str, queue: str, priority: JobPriority) -> str:
    return f"jobs.{job_id}.queued.{queue}.{priority}"


def job_submissions(job_id: str) -> str:
    return f"jobs.{job_id}.queued.*.*"


def scheduled(job_id: str) -> str:
    return f"jobs.{job_id}.scheduled"


def event(job_id: str, kind: Kind) -> str:
    return f"jobs.{job_id}.event.{kind}"


def events(job_id: str) -> str:
    """A job's events: the fence of whoever runs it."""
    return f"jobs.{job_id}.event.*"


def progress(job_id: str) -> str:
    return f"jobs.{job_id}.progress"


def artifact(job_id: str, name: str) -> str:
    """The record of one of the job's files; a name may hold what no token may."""
    return f"jobs.{job_id}.artifact.{urlsafe_b64encode(name.encode()).decode().rstrip('=')}"


def checkpoint(job_id: str) -> str:
    return f"jobs.{job_id}.checkpoint"


def note(job_id: str) -> str:
    return f"jobs.{job_id}.note"


def lane(queue: str, priority: JobPriority) -> str:
    """What the consumer of one queue and priority is given."""
    return f"jobs.*.queued.{queue}.{priority}"


def consumer(queue: str, priority: JobPriority) -> str:
    """The durable consumer's name."""
    return f"queue-{queue}-{priority}"


def worker(worker_id: str) -> str:
    return f"workers.{worker_id}"


def handover(worker_id: str) -> str:
    """Where a worker is offered what it may still run."""
    return f"handover.{worker_id}"


def is_event(subject: str) -> bool:
    """Whether a message on that subject moves the fence over its job's events, whatever it says."""
    return subject.split(".")[2:3] == ["event"]


def kind_of(subject: str) -> tuple[str, Kind] | None:
    """Job id and kind of a folded message, or None for any other subject."""
    match subject.split("."):
        case ["jobs", job_id, "queued", _, _]:
            return job_id, Kind.QUEUED
        case ["jobs", job_id, "scheduled" | "progress" | "note" as kind]:
            return job_id, Kind(kind)
        case ["jobs", job_id, "artifact", _]:
            return job_id, Kind.ARTIFACT
        case ["jobs", job_id, "event", word] if (event := _EVENT_KINDS.get(word)) is not None:
            return job_id, event
    return None


_EVENT_KINDS = {
    str(kind): kind
    for kind in (
        Kind.STARTED,
        Kind.COMPLETED,
        Kind.FAILED,
        Kind.DEAD_LETTER,
        Kind.CANCELLED,
        Kind.RELEASED,
        Kind.EXPIRED,
    )
}
"""By the last word of the subject: looked up, because calling the enumeration takes as long as the rest."""
