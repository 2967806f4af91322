"""What a job is: frozen values only. No I/O, no clock, no knowledge of where they are stored."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated

from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field

Moment = Annotated[datetime, Meta(tz=True)]
"""A time in a message: without an offset it could not be compared with any other, so such a message is unreadable."""


Count = Annotated[int, Meta(ge=0, lt=1 << 31)]
"""A number that GraphQL's Int can show; a message with a larger one is none of ours."""
Percent = Annotated[int, Meta(ge=0, le=100)]


class JobStatus(StrEnum):
    """Where a job stands; the legal moves between them are the table in ``fold``."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    PROCESSING = "processing"
    RETRYING = "retrying"
    COMPLETED = "completed"
    DEAD_LETTER = "dead_letter"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Nothing happens to the job any more unless somebody retries it by hand."""
        return self in _TERMINAL


_TERMINAL = frozenset({JobStatus.COMPLETED, JobStatus.DEAD_LETTER, JobStatus.CANCELLED})


class JobPriority(StrEnum):
    """Which job starts first when workers are busy."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 for LOW to 3 for CRITICAL."""
        return _RANKS[self]


_RANKS = {priority: rank for rank, priority in enumerate(JobPriority)}


# Without gc, as messages are: none of these can be part of a cycle.
class JobError(Struct, frozen=True, gc=False, rename="camel"):
    """One failed attempt. ``type`` is the exception's name; ``retryable`` is false for permanent errors."""

    message: str
    type: str
    attempt: Count
    at: Moment
    retryable: bool


class Spec(Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """What was asked for: fixed at creation and carried by every submission of the job.

    ``payload`` is the canonical JSON of the payload model, ``payload_hash`` the SHA-256 of type and payload,
    ``timeout`` is in seconds.
    """

    type: str
    payload: Raw
    payload_hash: str
    queue: str
    priority: JobPriority
    max_retries: Count
    timeout: float
    created_at: Moment
    tags: tuple[str, ...] = ()
    run_at: Moment | None = None
    idempotency_key: str | None = None


class JobState(Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """What changes about a job: its state as of one message of its history, without what was asked for.

    Sequences are positions in the stream JOBS. ``submission_seq``: the newest submission; ``event_seq``: the last
    event, 0 before the first; ``last_seq``: the last message that changed the job. ``attempt`` counts starts since
    the newest submission, less hand-backs. ``errors`` holds the failures since the newest submission, oldest first.
    ``failed_at``: when the latest attempt failed, while no other has followed.
    """

    id: str
    status: JobStatus
    submission_seq: int
    last_seq: int
    updated_at: datetime
    event_seq: int = 0
    attempt: int = 0
    progress: int = 0
    progress_message: str | None = None
    worker_id: str | None = None
    errors: tuple[JobError, ...] = ()
    result_json: Raw | UnsetType = field(name="result", default=UNSET)
    started_at: datetime | None = None
    failed_at: datetime | None = None
    finished_at: datetime | None = None
    next_attempt_at: datetime | None = None
    superseded_attempt: int | None = None

    @property
    def result(self) -> Raw | None:
        """The JSON of the result model, once the job has completed."""
        return self.result_json if isinstance(self.result_json, Raw) else None

    @property
    def error(self) -> JobError | None:
        """The latest failure since the newest submission; nothing once the job has completed."""
        return self.errors[-1] if self.errors and self.status is not JobStatus.COMPLETED else None

    @property
    def retry_count(self) -> int:
        """Attempts after the first, since the newest submission."""
        return max(self.attempt - 1, 0)

    @property
    def duration(self) -> timedelta | None:
        """How long the last attempt ran, once it has ended for good."""
        if self.started_at is None or self.finished_at is None:
            return None
        # A job can be cancelled while it waits for its next attempt.
        return (self.failed_at or self.finished_at) - self.started_at


class Job(JobState, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """A job as of one message of its history: its state and its ``spec``, which never changes."""

    spec: Spec
