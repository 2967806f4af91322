"""The messages of a job's history, as values. ``log.codec`` makes subjects and JSON of them.

Unknown fields are ignored on reading and every body carries ``v``, so that older and newer processes share a stream.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any

from msgspec import Raw, Struct

from gql_jobs.jobs.model import Artifact, Count, JobError, Moment, Percent, Spec

VERSION = 1
"""The version of the bodies that any release can read."""
NEWEST_VERSION = 2
"""The version of those that older releases must leave alone: they would drop or show what they do not know of."""


class Kind(StrEnum):
    """What happened. A job's outcomes are fenced over those that are stored as events (``jobs.<id>.event.<kind>``)."""

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


# Without gc: they cannot be part of a cycle, and the garbage collector need not walk the thousands of a batch.
class Body(Struct, frozen=True, gc=False, rename="camel", omit_defaults=True, kw_only=True):
    """The fields of every body: its version and the sequence of the submission it is about, 0 for a submission."""

    v: int = VERSION
    submission: int = 0


class Submission(Body, frozen=True, kw_only=True):
    """A creation or a retry by hand. ``event_seq``: the job's last event when it was written, 0 for a new job.

    ``after_expiry``: a creation under the key of a job that has expired, of which only the ``expired`` event is left.
    ``actor``: who retried it, None if nobody was authenticated; a creation's is ``spec.created_by``.
    """

    spec: Spec
    event_seq: int = 0
    after_expiry: bool = False
    actor: str | None = None


class AttemptBody(Body, frozen=True, kw_only=True):
    """The fields of all messages about an attempt. ``errors`` are all failures since the submission, oldest first."""

    attempt: Count
    worker_id: str
    errors: tuple[JobError, ...] = ()
    progress: Percent = 0
    message: str | None = None


class Started(AttemptBody, frozen=True, kw_only=True):
    """An attempt begins. ``supersedes``: the attempt whose worker was lost."""

    supersedes: Count | None = None


class Progress(AttemptBody, frozen=True, kw_only=True):
    """The handler has reported how far it is: ``progress`` in percent, 0 to 100."""


class Completed(AttemptBody, frozen=True, kw_only=True):
    """The attempt succeeded. ``result`` is the JSON of the result model; ``encoded``: as a codec has made it."""

    result: Raw
    encoded: bool = False


class Failed(AttemptBody, frozen=True, kw_only=True):
    """The attempt failed and another one follows at ``next_attempt_at``."""

    next_attempt_at: Moment


class DeadLetter(AttemptBody, frozen=True, kw_only=True):
    """The job failed for good. ``spec`` makes the message in the dead-letter stream complete by itself."""

    spec: Spec


class Cancelled(Body, frozen=True, kw_only=True):
    """A client cancelled the job. ``spec`` is given only for a scheduled job, whose first message is deleted then.

    ``actor``: who cancelled it, None if nobody was authenticated.
    """

    spec: Spec | None = None
    actor: str | None = None


class Released(AttemptBody, frozen=True, kw_only=True):
    """The worker shut down and hands the job back to its queue; the attempt does not count."""


class Expired(Body, frozen=True, kw_only=True):
    """The job is deleted, because its retention is over. ``event_seq``: its last event before this one."""

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
