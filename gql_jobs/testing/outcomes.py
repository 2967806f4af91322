"""What came of one attempt of a handler: a value to make assertions about."""

from enum import StrEnum
from typing import Any, Generic, NamedTuple, TypeVar

from msgspec import Struct

from gql_jobs.jobs.messages import Receipt
from gql_jobs.jobs.model import JobStatus
from gql_jobs.testing.job_records import JobRecord

_R_co = TypeVar("_R_co", covariant=True)


class ErrorKind(StrEnum):
    """Whether a later attempt may succeed where one has failed."""

    TRANSIENT = "transient"
    """The job is tried again, as long as it has retries left."""
    PERMANENT = "permanent"
    """The job is a dead letter at once."""


class AttemptError(Struct, frozen=True):
    """Why an attempt failed, as clients see it.

    ``type`` names the exception or the reason, such as ``Timeout``; ``message`` is a sentence; ``retry_after``: seconds
    that the handler asked to wait before the next attempt.
    """

    type: str
    message: str
    kind: ErrorKind
    retry_after: float | None = None


class ProgressReport(NamedTuple):
    """A report of progress as it is stored: whole percents from 0 to 100, and a message that was cut to size."""

    percent: int
    message: str | None = None


class SavedFile(Struct, frozen=True):
    """A file that was kept with the job, and its bytes."""

    name: str
    content_type: str
    data: bytes


class LogLine(Struct, frozen=True):
    """A line of the worker's log about the attempt, without its secrets.

    ``level`` is a name such as ``INFO``; ``exception``: the traceback below the line; ``fields``: what the line was
    given as ``extra``.
    """

    level: str
    logger: str
    message: str
    exception: str | None = None
    fields: dict[str, Any] = {}


class AttemptFailed(AssertionError):
    """A result was asked for of an attempt that has none. The text says why, with what the handler has logged."""


class HandlerOutcome(Struct, Generic[_R_co], frozen=True):
    """What came of one attempt of a handler, as a worker would have recorded it.

    ``status`` is that of the job after it: ``COMPLETED``, ``RETRYING``, ``DEAD_LETTER`` or ``CANCELLED``.
    """

    job_id: str
    attempt: int
    status: JobStatus
    returned: _R_co | None
    """The result as its model reads it from the JSON that is stored; None if the attempt has not succeeded."""
    error: AttemptError | None = None
    """Why the attempt failed; None if it has succeeded or was cancelled."""
    receipt: Receipt = Receipt.FINISHED
    """How the handler ended: by itself (``FINISHED``), ``STOPPED``, ``KILLED`` with its process, or not at all in time
    (``IGNORED``)."""
    progress: tuple[ProgressReport, ...] = ()
    """All reports in order; of those that follow one another within a tenth of a second, a worker stores the last."""
    checkpoints: tuple[Any, ...] = ()
    """All checkpoints in order, as the next attempt would find them."""
    saved: Any = None
    """What the next attempt would find in ``context.saved``: the last checkpoint, of this attempt or an earlier one."""
    created: tuple[JobRecord, ...] = ()
    """The children that the handler has created, in order; one that it has created again is there once."""
    artifacts: dict[str, SavedFile] = {}
    """The files by name; one that was saved again has replaced the older one."""
    logs: tuple[LogLine, ...] = ()
    """The lines of the worker's log about this attempt, at INFO and above; of other loggers' too."""

    @property
    def result(self) -> _R_co:
        """The result as its model reads it from the JSON that is stored; None if the job type has none.

        :raises AttemptFailed: an ``AssertionError`` that says why, if the attempt has not succeeded.
        """
        if self.status is not JobStatus.COMPLETED:
            raise AttemptFailed(self._why_not())
        return self.returned  # type: ignore[return-value]  # None only where that is the type of the result

    def _why_not(self) -> str:
        if self.error is None:
            return f"Attempt {self.attempt} was cancelled ({self.receipt}), so there is no result."
        error = self.error
        lines = [f"Attempt {self.attempt} failed, with a {error.kind} {error.type}: {error.message}"]
        for line in self.logs:
            lines.append(f"  {line.level} {line.logger}: {line.message}")
            lines += [f"  | {part}" for part in (line.exception or "").splitlines()]
        return "\n".join(lines)
