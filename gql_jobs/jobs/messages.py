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
RELATED_VERSION = 2
"""The version of those that releases from before tenants must leave alone: they would drop or show what is in them."""
NEWEST_VERSION = 3
"""The version of those that releases from before the gate must leave alone: they would run a job past its limits."""


class Kind(StrEnum):
    """What happened. A job's outcomes are fenced over those that are stored as events (``jobs.<id>.event.<kind>``)."""

    SCHEDULED = "scheduled"
    WAITING = "waiting"
    QUEUED = "queued"
    STARTED = "started"
    PROGRESS = "progress"
    COMPLETED = "completed"
    FAILED = "failed"
    DEAD_LETTER = "dead_letter"
    CANCELLED = "cancelled"
    EDITED = "edited"
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


class Continued(Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """What a submission that follows a failed attempt goes on from: its number, all failures, and what it reported."""

    attempt: Count
    errors: tuple[JobError, ...] = ()
    progress: Percent = 0
    message: str | None = None


class Submission(Body, frozen=True, kw_only=True):
    """A creation, a retry by hand, or one more submission of a job that was held back or changed.

    ``event_seq``: the job's last event when it was written, 0 for a new job. ``after_expiry``: a creation under the key
    of a job that has expired, of which only the ``expired`` event is left. ``after_edit``: what takes the place of the
    submissions before an ``edited`` event. ``held``: a retry, or one after an edit, that the server holds until
    ``spec.run_at``. ``release``: the gate lets the job go; ``continues`` is given if that is after a failed attempt.
    ``actor``: who retried it, None if nobody was authenticated; a creation's is ``spec.created_by``.
    """

    spec: Spec
    event_seq: int = 0
    after_expiry: bool = False
    after_edit: bool = False
    held: bool = False
    release: bool = False
    continues: Continued | None = None
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
    """The job was cancelled. ``spec`` is given only for a scheduled job, whose first message is deleted then.

    ``actor``: who cancelled it, None if nobody was authenticated. ``reason``: why the system cancelled it, in a
    sentence; None where somebody asked for it.
    """

    spec: Spec | None = None
    actor: str | None = None
    reason: str | None = None


class Edited(Body, frozen=True, kw_only=True):
    """The job was changed before it has started: ``spec`` is what is asked for from now on.

    Its submissions so far are void, and another one follows. ``changed``: the names of what is another, as clients know
    them; empty if the gate has only taken its release back. ``actor``: who changed it, None if nobody was
    authenticated.
    """

    spec: Spec
    changed: tuple[str, ...] = ()
    actor: str | None = None


class Released(AttemptBody, frozen=True, kw_only=True):
    """The worker shut down and hands the job back to its queue; the attempt does not count."""


class Expired(Body, frozen=True, kw_only=True):
    """The job is deleted, because its retention is over, or because somebody wanted it (``deleted``).

    ``event_seq``: its last event before this one. ``actor``: who deleted it, None if nobody was authenticated.
    """

    event_seq: int = 0
    deleted: bool = False
    actor: str | None = None


class Saved(Body, frozen=True, kw_only=True):
    """A file of the job is complete in the object store. Never changes the job's state."""

    artifact: Artifact


class Noted(Body, frozen=True, kw_only=True):
    """A receipt for the cancellation whose event has the sequence ``cancelled_seq``. Never changes the job's state."""

    receipt: Receipt
    cancelled_seq: int
    attempt: Count
    worker_id: str


REMOVED = Raw(b"null")
"""The value of what steers jobs no more."""


class Steered(Body, frozen=True, kw_only=True):
    """The present ``value`` of something that steers jobs, as JSON; ``null`` once it is removed.

    ``actor``: who wrote it, None for the system, and if nobody was authenticated.
    """

    value: Raw = REMOVED
    actor: str | None = None


class SteeringMessage(Struct, frozen=True, gc=False):
    """The newest message about something that steers jobs, by ``what`` it is and its ``name``.

    ``seq`` and ``at`` are the stream's own sequence and time; ``value`` is None once it is removed.
    """

    what: str
    name: str
    seq: int
    at: datetime
    value: Raw | None
    actor: str | None = None


class Message(Struct, frozen=True, gc=False):
    """One stored message: ``seq`` and ``at`` are the stream's own sequence and time."""

    job_id: str
    kind: Kind
    seq: int
    at: datetime
    body: Any
    nonce: str | None = None
