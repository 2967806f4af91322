"""The messages a job's history is made of, as values. Their JSON and subjects are the log's business.

Unknown fields are ignored on reading and every body carries ``v``, so that older and newer processes share a stream.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any

from msgspec import Raw, Struct

from gql_jobs.jobs.model import Artifact, Count, JobError, Moment, Percent, Spec

VERSION = 1
"""The version of every body that this software writes."""


class Kind(StrEnum):
    """What happened. All but the first two are events, fenced over the job's events."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    STARTED = "started"
    PROGRESS = "progress"
    COMPLETED = "completed"
    FAILED = "failed"
    DEAD_LETTER = "dead_letter"
    CANCELLED = "cancelled"
    RELEASED = "released"
    EXPIRED = "expired"
    ARTIFACT = "artifact"
    NOTE = "note"


class Receipt(StrEnum):
    """What became of a cancellation at the worker that ran the job."""

    DELIVERED = "delivered"
    STOPPED = "stopped"
    IGNORED = "ignored"
    KILLED = "killed"
    FINISHED = "finished"


# Values that can be part of no cycle: the garbage collector need not walk the thousands of them in a batch.
class Body(Struct, frozen=True, gc=False, rename="camel", omit_defaults=True, kw_only=True):
    """What every message has: its version and (but for submissions) the submission it is about."""

    v: int = VERSION
    submission: int = 0


class Submission(Body, frozen=True, kw_only=True):
    """A creation or a retry by hand. ``event_seq``: the job's last event when it was made, 0 for a new job.

    ``after_expiry``: a creation under the key of a job that has expired, of which only the ``expired`` event is left.
    """

    spec: Spec
    event_seq: int = 0
    after_expiry: bool = False


class AttemptBody(Body, frozen=True, kw_only=True):
    """Published by the worker that runs (or ran) ``attempt``; ``errors`` are all failures of the submission so far."""

    attempt: Count
    worker_id: str
    errors: tuple[JobError, ...] = ()
    progress: Percent = 0
    message: str | None = None


class Started(AttemptBody, frozen=True, kw_only=True):
    """An attempt begins. ``supersedes``: the attempt whose worker was lost."""

    supersedes: Count | None = None


class Progress(AttemptBody, frozen=True, kw_only=True):
    """``progress`` in percent, 0 to 100."""


class Completed(AttemptBody, frozen=True, kw_only=True):
    """``result`` is the JSON of the result model."""

    result: Raw


class Failed(AttemptBody, frozen=True, kw_only=True):
    """The attempt failed and another one follows at ``next_attempt_at``."""

    next_attempt_at: Moment


class DeadLetter(AttemptBody, frozen=True, kw_only=True):
    """No further attempt. Carries the whole job, so that the dead-letter stream is readable by itself."""

    spec: Spec


class Cancelled(Body, frozen=True, kw_only=True):
    """``spec`` only where the job was still scheduled: its scheduled message is deleted afterwards."""

    spec: Spec | None = None


class Released(AttemptBody, frozen=True, kw_only=True):
    """Handed back at shutdown; the attempt does not count."""


class Expired(Body, frozen=True, kw_only=True):
    """The retention is over; the job's messages are deleted next. ``event_seq``: the last of them."""

    event_seq: int = 0


class Saved(Body, frozen=True, kw_only=True):
    """A file of the job is complete in the object store. Never changes the job's state."""

    artifact: Artifact


class Noted(Body, frozen=True, kw_only=True):
    """A receipt for the cancellation whose event has the sequence ``cancelled_seq``. Never changes the job's state."""

    receipt: Receipt
    cancelled_seq: int
    attempt: Count
    worker_id: str


class Message(Struct, frozen=True, gc=False):
    """One stored message: ``seq`` and ``at`` are the stream's own sequence and time."""

    job_id: str
    kind: Kind
    seq: int
    at: datetime
    body: Any
    nonce: str | None = None
