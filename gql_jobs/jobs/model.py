"""The job as a value: its id, spec, state and errors, groups of failures, its cursors, and the files kept with it.

Frozen values only: no I/O and no clock. Their stored JSON has its fields in camelCase.
"""

import hashlib
import mimetypes
import os
import re
import uuid
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, NamedTuple, Self
from urllib.parse import quote

from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field
from msgspec.structs import replace

# UUIDs only: an id becomes part of a subject, where a wildcard would name other jobs.
_UUID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")
_KEY_NAMESPACE = uuid.UUID("6f1c5e1e-64c5-5d8b-9b0a-3f5a8c1d7e42")
_CHILD_NAMESPACE = uuid.UUID("b0d2a1c4-93f7-5e0e-8f5d-7c6c1b8e2a90")

_CURSOR = re.compile(r"(\d{1,18})(?:\.(\d{1,3}))?")
_NAME = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_MEDIA_TYPE = re.compile(rf'{_NAME}/{_NAME}([ \t]*;[ \t]*{_NAME}=({_NAME}|"[ !#-\[\]-~]*"))*')
"""A media type as RFC 9110 has it, without escapes in quotes."""

MAX_RETRIES = 100
"""Attempts after the first, at most."""
MIN_TIMEOUT = 0.1
MAX_TIMEOUT = 86_400.0
"""Seconds: the limits of an attempt's timeout."""
MAX_ARTIFACT_NAME = 200
"""Bytes of an artifact's name, at most."""
_MEDIA_TYPES = {".webp": "image/webp", ".avif": "image/avif", ".csv": "text/csv", ".pdf": "application/pdf"}
"""Media types by extension that the tables of some systems lack."""

NO_RESULT = Raw(b"null")
"""The JSON that completes a job whose handler returns nothing."""

_JOB_BYTES = 1024
"""Bytes of a job in memory without what clients and handlers choose the length of."""
_ERROR_BYTES = 256
"""Bytes of a failure in memory without its message."""
_TEXT_BYTES = 64
"""Bytes of a text in memory besides its characters."""

Moment = Annotated[datetime, Meta(tz=True)]
"""A time in a message. A message that has one without an offset is unreadable."""
Count = Annotated[int, Meta(ge=0, lt=1 << 31)]
"""A number of attempts or retries. A message with a larger one is unreadable."""
Percent = Annotated[int, Meta(ge=0, le=100)]
"""How far the work is, from 0 to 100."""


def new_job_id() -> str:
    """Return a random UUID.

    Log lines show its first digits only, in which time-ordered UUIDs would not differ.
    """
    # As uuid.uuid4 makes it, without an object in between: batches have thousands.
    digits = os.urandom(16).hex()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:]}"


_VARIANT = {digit: "89ab"[number % 4] for number, digit in enumerate("0123456789abcdef")}
"""The first digit of the fourth group, which has two bits of the variant in it, by a random digit."""


NOBODYS_ID = new_job_id()
"""An id that no job has: it is looked up in the place of one that is hidden, and takes no time to be made."""


def job_id_for_key(idempotency_key: str, tenant: str | None = None) -> str:
    """Return the id of the job with this idempotency key, of a tenant or of none: the same one in every process."""
    # No key has a NUL, so a key of a tenant is never one of another, nor one without a tenant.
    name = idempotency_key if tenant is None else f"{tenant}\0{idempotency_key}"
    return str(uuid.uuid5(_KEY_NAMESPACE, name))


def job_id_of_child(parent: str, submission: int, name: str) -> str:
    """Return the id of a child that a job's handler makes in any attempt of a submission; no key of a client has it.

    :param parent: the id of the job.
    :param submission: the sequence of its submission, which another retry by hand does not have.
    :param name: which of its children it is.
    """
    return str(uuid.uuid5(_CHILD_NAMESPACE, f"{parent}\0{submission}\0{name}"))


def parse_job_id(text: str) -> str | None:
    """Return the id in its canonical spelling; None if the text is no UUID, and so no job's id."""
    return text.lower() if _UUID.fullmatch(text) else None


class JobStatus(StrEnum):
    """Where a job stands; the legal moves between them are the table in ``fold``."""

    SCHEDULED = "scheduled"
    WAITING = "waiting"
    QUEUED = "queued"
    PROCESSING = "processing"
    RETRYING = "retrying"
    COMPLETED = "completed"
    DEAD_LETTER = "dead_letter"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended; only a retry by hand can change that."""
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


# Without gc, as in ``messages``: none of these can be part of a cycle.
class JobError(Struct, frozen=True, gc=False, rename="camel"):
    """One failed attempt. ``type`` is the exception's name; ``retryable`` is false for permanent errors."""

    message: str
    type: str
    attempt: Count
    at: Moment
    retryable: bool


class DependencyPolicy(StrEnum):
    """What becomes of a job when one of those that it is to run after does not complete."""

    CANCEL = "cancel"
    RUN = "run"


class OverlapPolicy(StrEnum):
    """What becomes of a tick of a schedule while the job of an earlier one has not ended."""

    SKIP = "skip"
    ALLOW = "allow"
    CANCEL_OTHER = "cancel_other"


class Gate(Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """Marks a job that is queued by a release of the gate only.

    ``run_at``: when it may be released at the earliest; the spec's own is None then, because earlier releases would
    queue the job by that. ``overlap``: what becomes of it, once it is due, while an earlier job of its schedule runs.
    ``release_before``: when it is too late for a tick that an outage has kept from being looked at in time.
    """

    run_at: Moment | None = None
    overlap: OverlapPolicy | None = None
    release_before: Moment | None = None


class Spec(Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """What a client asked for: part of every submission of the job, and changed by ``edited`` events alone.

    ``payload`` is what the client sent, as JSON under the aliases of the model's fields, and what factories of defaults
    drew; ``secrets`` are the places in it that clients are not shown, as JSON pointers in which ``*`` is every item.
    ``request_hash`` is the SHA-256 of the type and what the client sent, ``payload_hash`` that of the type and the
    payload with its defaults, which jobs without the other are compared by; of confidential payloads HMACs of these.
    ``timeout`` is in seconds. ``tenant`` and ``created_by`` are those of the viewer who created it, None where that was
    nobody who was authenticated. ``encoded``: whether the payload is a text that a codec has made of that JSON.
    ``origin``: the id of the job that it was made of, ``parent`` that of the job whose handler has created it; they may
    have expired. ``key``: no other job of the tenant has it while this one has not ended. ``concurrency_key``: jobs
    with the same one share its limits. ``after``: the ids of the jobs that have to complete first. ``start_before``:
    when its first attempt has to have started. ``schedule``: the name of the schedule of which it is a tick, and
    ``fire_before``: when it is too late for the server to queue that.
    ``checkpoints_after``: the position in the stream behind which checkpoints are about this payload.
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
    request_hash: str | None = None
    secrets: tuple[str, ...] = ()
    tenant: str | None = None
    created_by: str | None = None
    encoded: bool = False
    origin: str | None = None
    parent: str | None = None
    key: str | None = None
    concurrency_key: str | None = None
    after: tuple[str, ...] = ()
    after_policy: DependencyPolicy = DependencyPolicy.CANCEL
    start_before: Moment | None = None
    schedule: str | None = None
    gate: Gate | None = None
    checkpoints_after: int = 0
    fire_before: Moment | None = None

    @property
    def earliest(self) -> datetime | None:
        """When it may run at the earliest, whoever waits for that: the server, or the gate."""
        return self.gate.run_at if self.gate is not None else self.run_at

    @property
    def never_too_late(self) -> "Spec":
        """The same without the times after which a tick is skipped: it was queued once, or somebody wants it to run."""
        gate = replace(self.gate, release_before=None) if self.gate is not None else None
        return replace(self, fire_before=None, gate=gate)


class JobState(Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """What changes about a job: its state as of one message of its history, without what was asked for.

    ``retried``: whether the newest submission is a retry by hand from before the job's time, which was for at once;
    releases before edits wrote those. ``actor``: who caused the last
    event, None for the system, and if nobody was authenticated. ``result_encoded``: whether the result is a text that a
    codec has made of it.
    Sequences are positions in the stream JOBS. ``submission_seq``: the newest submission; ``event_seq``: the last
    event, 0 before the first; ``last_seq``: the last message that changed the job. ``attempt`` counts starts since
    the newest submission, less hand-backs. ``errors`` holds the failures since the newest submission, oldest first.
    ``failed_at``: when the latest attempt failed, while no other has followed. ``changed``: what the last event has
    changed of the spec. ``cancel_reason``: why the system has cancelled it. ``again``: whether it was retried by hand
    since it was created.
    """

    id: str
    status: JobStatus
    submission_seq: int
    last_seq: int
    updated_at: datetime
    event_seq: int = 0
    retried: bool = False
    again: bool = False
    attempt: int = 0
    progress: int = 0
    progress_message: str | None = None
    worker_id: str | None = None
    errors: tuple[JobError, ...] = ()
    actor: str | None = None
    result_json: Raw | UnsetType = field(name="result", default=UNSET)
    started_at: datetime | None = None
    failed_at: datetime | None = None
    finished_at: datetime | None = None
    next_attempt_at: datetime | None = None
    result_encoded: bool = False
    superseded_attempt: int | None = None
    changed: tuple[str, ...] = ()
    cancel_reason: str | None = None

    @property
    def result(self) -> Raw | None:
        """The JSON of the result model, or ``NO_RESULT``; None before the job has completed."""
        return self.result_json if isinstance(self.result_json, Raw) else None

    @property
    def error(self) -> JobError | None:
        """The latest failure since the newest submission; None once the job has completed."""
        return self.errors[-1] if self.errors and self.status is not JobStatus.COMPLETED else None

    @property
    def moved_at(self) -> int:
        """The sequence of its last event or submission; what is reported of progress moves no job."""
        return max(self.event_seq, self.submission_seq)

    @property
    def retry_count(self) -> int:
        """Attempts after the first, since the newest submission."""
        return max(self.attempt - 1, 0)

    @property
    def duration(self) -> timedelta | None:
        """How long the last attempt ran; None before the job has ended, or if none has started."""
        if self.started_at is None or self.finished_at is None:
            return None
        # A job can be cancelled later than its last attempt failed.
        return (self.failed_at or self.finished_at) - self.started_at


class Job(JobState, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """A job as of one message of its history: its state and its ``spec``."""

    spec: Spec

    @property
    def run_at(self) -> datetime | None:
        """When it was to run at the earliest; None for at once."""
        return None if self.retried else self.spec.earliest

    @property
    def lacks_submission(self) -> bool:
        """Whether the job was changed, and is not submitted again yet; for that no gate has to be waited for."""
        return self.status is JobStatus.WAITING and self.spec.gate is None

    @property
    def is_missed(self) -> bool:
        """Whether it is a tick that was queued when it was too late for that, and nothing has happened to it since."""
        latest = self.spec.fire_before
        if latest is None or self.status is not JobStatus.QUEUED or self.event_seq > self.submission_seq:
            return False
        return self.updated_at > latest

    @property
    def is_steered(self) -> bool:
        """Whether the gate has to know of it: it has not ended, and may wait, share limits, or start too late."""
        if self.status.is_terminal:
            return False
        spec = self.spec
        is_marked = spec.gate is not None or spec.concurrency_key is not None or spec.schedule is not None
        return is_marked or spec.start_before is not None or self.status is JobStatus.WAITING

    @property
    def weight(self) -> int:
        """About how many bytes the job takes in memory, with its payload, its result and its errors."""
        spec, result = self.spec, self.result_json
        weight = _JOB_BYTES + len(spec.payload)
        if isinstance(result, Raw):
            weight += len(result)
        if self.progress_message is not None:
            weight += len(self.progress_message)
        if spec.tags:
            weight += sum(map(len, spec.tags)) + _TEXT_BYTES * len(spec.tags)
        for error in self.errors:
            weight += _ERROR_BYTES + len(error.message)
        return weight


# Groups of failures: which are the same one, whatever numbers, ids and names their messages have. A group is named by a
# digest, so that it has one name in every process and at every time.

_LONGEST_MASKED = 200
"""Characters of a normalised message."""
_MASKED_FROM = 300
"""Characters of a message that are looked at; some masks take time that grows with the square of that."""
_MASKS = (
    # Addresses of the network before quotes and numbers, which they may hold.
    (re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s'\"<>]+", re.IGNORECASE), "<url>"),
    (re.compile(r"[^\s'\"<>@,;:()]+@[^\s'\"<>@,;:()]+\.[^\s'\"<>@,;:()]+"), "<address>"),
    (re.compile(r"(?<!\w)'[^']*'(?!\w)|\"[^\"]*\"|`[^`]*`"), "<…>"),
    (re.compile(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b", re.IGNORECASE), "<id>"),
    (re.compile(r"\b0x[0-9a-f]+\b", re.IGNORECASE), "<number>"),
    (re.compile(r"\b(?=[0-9a-f]*[0-9])(?=[0-9a-f]*[a-f])[0-9a-f]{8,}\b", re.IGNORECASE), "<id>"),
    (re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}\b"), "<address>"),
    (re.compile(r"\d+(?:[.,:]\d+)*"), "<number>"),
    (re.compile(r"\s+"), " "),
)


class FailureGroup(NamedTuple):
    """What the dead letters of a group have in common."""

    key: str
    type: str
    error_type: str
    message: str


def failure_group(job: Job) -> FailureGroup | None:
    """Return the group of a dead letter; None for a job in any other state."""
    if job.status is not JobStatus.DEAD_LETTER:
        return None
    error = job.errors[-1] if job.errors else None
    error_type, message = (error.type, normalised(error.message)) if error is not None else ("Unknown", "")
    name = f"{job.spec.type}\0{error_type}\0{message}"
    key = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:24]
    return FailureGroup(key, job.spec.type, error_type, message)


def normalised(message: str) -> str:
    """Return the first line of a message, cut to 200 characters, with numbers, ids, addresses and quotations masked."""
    line = message[:_MASKED_FROM].strip().split("\n", 1)[0]
    for pattern, mask in _MASKS:
        line = pattern.sub(mask, line)
    return line.strip()[:_LONGEST_MASKED]


class Cursor(NamedTuple):
    """A position among all events: the event number ``nth`` of the message ``seq``. Cursors compare as positions do.

    Its text, ``seq`` or ``seq.nth``, is opaque to clients.
    """

    seq: int
    nth: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the cursor that has this text.

        :raises ValueError: if the text is not that of a cursor.
        """
        match = _CURSOR.fullmatch(text) if text.isascii() else None
        if match is None:
            raise ValueError("The cursor is not one this API has given out.")
        return cls(int(match[1]), int(match[2] or 0))

    def __str__(self) -> str:
        return f"{self.seq}.{self.nth}" if self.nth else str(self.seq)


class Artifact(Struct, frozen=True, rename="camel"):
    """A file that a handler keeps with its job.

    ``object`` is the name of its bytes in the object store, ``sha256`` their digest in hexadecimal.
    """

    name: str
    content_type: str
    size_bytes: int
    sha256: str
    created_at: Moment
    object: str


def artifact_name(path: str) -> str:
    """Return the name of the artifact at this path; a leading ``/`` is left out.

    :raises ValueError: if it is empty or longer than ``MAX_ARTIFACT_NAME``, or has control characters, backslashes,
        empty parts, ``.`` or ``..``.
    """
    name = path.removeprefix("/")
    if not name or len(name.encode("utf-8", "replace")) > MAX_ARTIFACT_NAME:
        raise ValueError(f"An artifact's path must have 1 to {MAX_ARTIFACT_NAME} bytes.")
    if not name.isprintable() or "\\" in name:
        raise ValueError("An artifact's path must not contain backslashes or control characters.")
    if any(part in {"", ".", ".."} for part in name.split("/")):
        raise ValueError("An artifact's path must not contain empty parts, '.' or '..'.")
    return name


def media_type(text: str) -> str:
    """Return the media type that a file is given, such as ``text/csv; charset=utf-8``.

    :raises ValueError: if it is none, or could not be sent as a header: longer than ``MAX_MEDIA_TYPE``, or with
        characters that are not allowed in one, such as line breaks.
    """
    if not isinstance(text, str) or len(text) > MAX_MEDIA_TYPE or not _MEDIA_TYPE.fullmatch(text):
        raise ValueError(f"A content type is a media type such as text/csv, of at most {MAX_MEDIA_TYPE} characters.")
    return text


def artifact_path(job_id: str, name: str) -> str:
    """Return the path, below the API's address, at which clients find an artifact of a job."""
    return f"/artifacts/{job_id}/{quote(name)}"


def content_type_of(name: str) -> str:
    """Return the media type for the name's extension; ``application/octet-stream`` if it is unknown."""
    for extension, media_type in _MEDIA_TYPES.items():
        if name.lower().endswith(extension):
            return media_type
    return mimetypes.guess_type(name)[0] or "application/octet-stream"


MAX_MEDIA_TYPE = 255
"""Characters that the content type of an artifact may have."""
