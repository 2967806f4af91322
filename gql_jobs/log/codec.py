"""How a job's messages are encoded in the streams: subject, headers, body. No other module encodes or parses them.

Subjects of one message end in ``_subject``, patterns that match several in ``_subjects``, and what matches every job's
begins with ``ALL_``. Only canonical UUIDs and names of ``[a-z0-9_-]+`` may be passed in: a wildcard in a token would
name other jobs.

Bodies are JSON. Unknown fields are ignored; the caller decides what to do about an unreadable message.
"""

import re
from base64 import urlsafe_b64encode
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from gql_jobs.jetstream.ordered_consumer import StreamMessage
from gql_jobs.jetstream.stored_messages import StoredMessage
from gql_jobs.jobs import messages
from gql_jobs.jobs.messages import AttemptBody, Body, Kind, Message, SteeringMessage
from gql_jobs.jobs.model import JobError, JobPriority, Spec

_B = TypeVar("_B", bound=AttemptBody)

JOBS_STREAM = "JOBS"
DEAD_LETTERS_STREAM = "jobs-dlq"

NONCE_HEADER = "Gql-Jobs-Nonce"
"""Identifies the write that stored a message; a repetition of the write has the same nonce."""

ENCODED_HEADER = "Gql-Jobs-Encoded"
"""Marks a checkpoint as a text that a codec has made of it."""

ALL_JOBS = "jobs.>"
ALL_SUBMISSIONS = "jobs.*.queued.*.*"
ALL_SCHEDULES = "jobs.*.scheduled"
ALL_EVENTS = "jobs.*.event.*"
ALL_CANCELLATIONS = "jobs.*.event.cancelled"
ALL_DEAD_LETTERS = "jobs.*.event.dead_letter"
ALL_PROGRESS = "jobs.*.progress"
ALL_CHECKPOINTS = "jobs.*.checkpoint"
ALL_ARTIFACTS = "jobs.*.artifact.*"
ALL_NOTES = "jobs.*.note"
FOLDED_SUBJECTS = (ALL_SUBMISSIONS, ALL_SCHEDULES, ALL_EVENTS, ALL_PROGRESS, ALL_ARTIFACTS, ALL_NOTES)
"""The subjects of all messages that are folded: all but checkpoints."""
_JOB_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_UNFOLDED = frozenset({"checkpoint"})
"""Last tokens of a job's messages outside the fold."""
PAUSES = "pause"
"""What the steering messages are called that say which queues are paused."""
QUEUE_LIMITS = "queue-limits"
"""What the steering messages are called that say what each queue is limited to."""
TYPE_LIMITS = "type-limits"
"""What the steering messages are called that say what each job type is limited to, as the API that started last has
registered it."""
KEYS = "key"
"""What the steering messages are called that say which job has a key: read where they are needed, kept nowhere."""
GATE_LEASES = "lease"
"""What those are called that say which process holds the gate."""
_STEERING = "jobs.gate."
"""What the subjects of steering messages begin with: no job has such an id, and releases that know none pass them over
because they end as those of checkpoints do."""

ALL_HEARTBEATS = "workers.*"
HEARTBEAT_REQUESTS = "workers-ping"
"""A message on this subject asks all workers for a heartbeat at once."""

_EVENT_KINDS = {
    str(kind): kind
    for kind in (
        Kind.STARTED,
        Kind.COMPLETED,
        Kind.FAILED,
        Kind.DEAD_LETTER,
        Kind.CANCELLED,
        Kind.EDITED,
        Kind.RELEASED,
        Kind.EXPIRED,
    )
}
"""By the last token of the subject; a dict, because calling ``Kind`` is slower (docs/decisions.md)."""
_BODIES: dict[Kind, type[Body]] = {
    Kind.SCHEDULED: messages.Submission,
    Kind.QUEUED: messages.Submission,
    Kind.STARTED: messages.Started,
    Kind.PROGRESS: messages.Progress,
    Kind.COMPLETED: messages.Completed,
    Kind.FAILED: messages.Failed,
    Kind.DEAD_LETTER: messages.DeadLetter,
    Kind.CANCELLED: messages.Cancelled,
    Kind.EDITED: messages.Edited,
    Kind.RELEASED: messages.Released,
    Kind.EXPIRED: messages.Expired,
    Kind.ARTIFACT: messages.Saved,
    Kind.NOTE: messages.Noted,
}
_DECODERS: dict[Kind, Any] = {kind: msgspec.json.Decoder(body) for kind, body in _BODIES.items()}
_decode_steered = msgspec.json.Decoder(messages.Steered).decode
_encoder = msgspec.json.Encoder()


def job_subjects(job_id: str) -> str:
    """Match every message of a job."""
    return f"jobs.{job_id}.>"


def queued_subject(job_id: str, queue: str, priority: JobPriority) -> str:
    """Name the subject of a submission."""
    return f"jobs.{job_id}.queued.{queue}.{priority}"


def submission_subjects(job_id: str) -> str:
    """Match a job's submissions, whatever queue and priority they are for."""
    return f"jobs.{job_id}.queued.*.*"


def scheduled_subject(job_id: str) -> str:
    """Name the subject of the message that the server holds until a job's ``run_at``."""
    return f"jobs.{job_id}.scheduled"


def event_subject(job_id: str, kind: Kind) -> str:
    """Name the subject of a job's events of a kind."""
    return f"jobs.{job_id}.event.{kind}"


def event_subjects(job_id: str) -> str:
    """Match a job's events."""
    return f"jobs.{job_id}.event.*"


def progress_subject(job_id: str) -> str:
    """Name the subject of a job's progress."""
    return f"jobs.{job_id}.progress"


def artifact_subject(job_id: str, name: str) -> str:
    """Name the subject of the record of a job's file, with the file's name in base64."""
    return f"jobs.{job_id}.artifact.{urlsafe_b64encode(name.encode()).decode().rstrip('=')}"


def checkpoint_subject(job_id: str) -> str:
    """Name the subject of a handler's checkpoint."""
    return f"jobs.{job_id}.checkpoint"


def note_subject(job_id: str) -> str:
    """Name the subject of a job's notes: the receipts of its cancellation."""
    return f"jobs.{job_id}.note"


def queue_subjects(queue: str, priority: JobPriority) -> str:
    """Match the submissions of all jobs of one queue and priority."""
    return f"jobs.*.queued.{queue}.{priority}"


def submissions_of_queue(queue: str) -> str:
    """Match the submissions of all jobs of one queue, whatever their priority."""
    return f"jobs.*.queued.{queue}.*"


def consumer_name(queue: str, priority: JobPriority) -> str:
    """Return the name of the durable pull consumer of one queue and priority."""
    return f"queue-{queue}-{priority}"


def heartbeat_subject(worker_id: str) -> str:
    """Name the subject of a worker's heartbeats; they are not stored."""
    return f"workers.{worker_id}"


def handover_subject(worker_id: str) -> str:
    """Name the subject on which a worker is asked whether it still runs a job; messages there are not stored."""
    return f"handover.{worker_id}"


def steering_subject(what: str, name: str) -> str:
    """Name the subject of the present value of something that steers jobs; both are parts of ``[A-Za-z0-9_-]+``."""
    return f"{_STEERING}{what}.{name}.checkpoint"


def steering_subjects(what: str) -> str:
    """Match the subjects of all that steers jobs in this way."""
    return f"{_STEERING}{what}.*.checkpoint"


def steering_name(subject: str) -> tuple[str, str] | None:
    """Return what a steering message is about, and its name; None for the subject of any other message."""
    match subject.split(".") if subject.startswith(_STEERING) else ():
        case ["jobs", "gate", what, name, "checkpoint"]:
            return what, name
    return None


def read_steering(stored: StoredMessage | StreamMessage) -> SteeringMessage | None:
    """Return a stored message as a value; None if it is no steering message.

    :raises Unreadable: if its body is not that of a message of this version.
    """
    if (named := steering_name(stored.subject)) is None:
        return None
    try:
        body = _decode_steered(stored.data)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Unreadable(str(error)) from error
    _check_version(body)
    value = body.value if body.value != messages.REMOVED else None
    return SteeringMessage(*named, stored.seq, stored.at, value, body.actor)


def is_job_id(token: str) -> bool:
    """Return whether a token of a subject is a job's id in its canonical spelling."""
    return _JOB_ID.fullmatch(token) is not None


def is_event_subject(subject: str) -> bool:
    """Return whether ``event_subjects`` of some job matches the subject, also for a kind that is not known here."""
    return subject.split(".")[2:3] == ["event"]


def job_of_subject(subject: str) -> str:
    """Return the token of a subject below ``jobs.`` that has the job's id; whether it is an id is not checked."""
    return subject.split(".")[1]


def job_and_kind(subject: str) -> tuple[str, Kind] | None:
    """Return job id and kind of a folded message, or None for any other subject."""
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


class Unreadable(ValueError):
    """The stored bytes are no message, or one of a version that this process does not know."""


class Newer(Unreadable):
    """The message has a version after ``NEWEST_VERSION``: it was written by a newer release."""


def encode_body(body: Body) -> bytes:
    """Return the JSON of a body, of the version that says which releases may read it."""
    spec = getattr(body, "spec", None)
    if isinstance(body, messages.Edited) or _is_for_newest(body):
        body = msgspec.structs.replace(body, v=messages.NEWEST_VERSION)
    elif getattr(body, "encoded", False) or (spec is not None and _is_for_newer(spec)):
        body = msgspec.structs.replace(body, v=max(body.v, messages.RELATED_VERSION))
    return _encoder.encode(body)


def _is_for_newest(body: Body) -> bool:
    # An earlier release would go on from a checkpoint that is about another payload.
    return isinstance(body, messages.Submission) and (body.release or body.spec.checkpoints_after > 0)


def _is_for_newer(spec: Spec) -> bool:
    # A retry by an older release would drop the tenant, the origin, the parent and the mark of the codec; it shows
    # secrets as stars at best.
    is_related = spec.origin is not None or spec.parent is not None or spec.key is not None
    is_steered = bool(spec.after) or spec.gate is not None or spec.concurrency_key is not None
    return spec.tenant is not None or bool(spec.secrets) or spec.encoded or is_related or is_steered


def decode_body(kind: Kind, data: bytes) -> Body:
    """Return the body of a message of that kind.

    :raises Unreadable: if the JSON does not fit; its subclass ``Newer`` for another version.
    """
    try:
        body: Body = _DECODERS[kind].decode(data)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Unreadable(str(error)) from error
    _check_version(body)
    return body


def _check_version(body: Body) -> None:
    if not messages.VERSION <= body.v <= messages.NEWEST_VERSION:
        raise Newer(f"version {body.v} is newer than {messages.NEWEST_VERSION}")


def read_message(subject: str, data: bytes, seq: int, at: datetime, nonce: str | None = None) -> Message | None:
    """Return a stored message as a value; None for a checkpoint, which is not folded.

    :raises Unreadable: if subject or body are not those of a message of this version.
    """
    named = job_and_kind(subject)
    if named is None:
        if subject.rsplit(".", 1)[-1] in _UNFOLDED:
            return None
        raise Unreadable(f"nothing is known of the subject {subject!r}")
    job_id, kind = named
    if not is_job_id(job_id):
        raise Unreadable(f"{job_id!r} is no job id")
    body = decode_body(kind, data)
    if kind is Kind.SCHEDULED and body.spec.gate is not None:  # type: ignore[attr-defined]
        # The server does not hold it: the gate does.
        kind = Kind.WAITING
    return Message(job_id, kind, seq, at, body, nonce)


class JobMessage(StoredMessage, frozen=True):
    """A stored message, with what its subject and headers mean for a job."""

    @classmethod
    def of(cls, stored: StoredMessage) -> "JobMessage":
        """Return a stored message as a ``JobMessage``."""
        return cls(stored.subject, stored.seq, stored.at, stored.data, stored.headers)

    @property
    def nonce(self) -> str | None:
        """The nonce of the write that stored this message; None without the header."""
        return self.header(NONCE_HEADER)

    @property
    def kind(self) -> Kind | None:
        """What happened; None for a checkpoint, and for a kind that this version does not know."""
        named = job_and_kind(self.subject)
        return named[1] if named is not None else None

    @property
    def is_event(self) -> bool:
        """Whether it is an event, over which the job's outcomes are fenced."""
        return is_event_subject(self.subject)

    def read(self) -> Message | None:
        """Return the message as a value; None for a checkpoint, which is not folded.

        :raises Unreadable: if it is not a message of this version.
        """
        return read_message(self.subject, self.data, self.seq, self.at, self.nonce)


# What an event has room for: the errors of a job's attempts are cut to it.

MAX_MESSAGE_BYTES = 4000
"""Bytes of one error's message, as JSON."""
MAX_TYPE_BYTES = 200
"""Bytes of one error's type, as JSON."""
MAX_ERRORS_BYTES = 96 * 1024
"""Bytes of all errors of a submission, as JSON; less where an event has no room for so many."""
HEADER_BYTES = 1024
"""Bytes that the headers of an event never exceed."""
_MIN_MESSAGE_BYTES = 60
"""Bytes to which an older error's message is cut at most; after that, whole errors are left out."""


def fitting(errors: tuple[JobError, ...], room: int = MAX_ERRORS_BYTES) -> tuple[JobError, ...]:
    """Return the errors cut to ``room`` bytes of JSON: older messages are shortened, then older errors left out."""
    limit = MAX_MESSAGE_BYTES
    while len(msgspec.json.encode(errors)) > room and len(errors) > 1:
        limit //= 2
        if limit < _MIN_MESSAGE_BYTES:
            errors = errors[1:]
        else:
            errors = (
                *(msgspec.structs.replace(e, message=cut_text(e.message, limit)) for e in errors[:-1]),
                errors[-1],
            )
    return errors


def with_errors(body: _B, errors: tuple[JobError, ...], max_payload: int) -> _B:
    """Return the event with as much of the errors as fits into a message of ``max_payload`` bytes."""
    return msgspec.structs.replace(body, errors=errors_beside(body, errors, max_payload))


def errors_beside(body: Body, errors: tuple[JobError, ...], max_payload: int) -> tuple[JobError, ...]:
    """Return as much of the errors as fits beside a body without them into a message of ``max_payload`` bytes."""
    room = max_payload - HEADER_BYTES - len(encode_body(body))
    return fitting(errors, min(room, MAX_ERRORS_BYTES))


def cut_text(text: str, limit: int) -> str:
    """Return a text that takes at most ``limit`` bytes as JSON, without lone surrogates."""
    # Lone surrogates are no UTF-8 and would make the event unstorable. Shortened before that: it may be megabytes.
    text = text[: limit + 1].encode("utf-8", "replace").decode()
    while len(msgspec.json.encode(text)) > limit:
        text = text[: max(len(text) * 3 // 4 - 1, 0)] + "…"
    return text
