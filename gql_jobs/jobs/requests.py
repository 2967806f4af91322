"""What a client asks for when it creates a job: limits checked, defaults filled in, nothing stored yet."""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Protocol, TypeVar

from msgspec import Raw, Struct
from pydantic import BaseModel

from gql_jobs.jobs.errors import InvalidArgument, InvalidPayload
from gql_jobs.jobs.model import Job, JobPriority, JobStatus, Spec, job_id_for_key, new_job_id
from gql_jobs.jobs.registry import JobType, canonical_json, payload_hash

# Which jobs are meant: one filter for pages, counts, bulk retries and live events.


class JobFilter(Struct, frozen=True):
    """All parts combine; None leaves a part open, an empty tuple matches nothing.

    A job matches ``tags`` if it carries every one of them. ``created_after`` and ``created_before`` are exclusive.
    """

    ids: tuple[str, ...] | None = None
    status: tuple[JobStatus, ...] | None = None
    type: tuple[str, ...] | None = None
    queue: tuple[str, ...] | None = None
    priority: tuple[JobPriority, ...] | None = None
    tags: tuple[str, ...] | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None

    def matches(self, job: Job) -> bool:
        """Whether the job, as it stands in ``job``, is meant."""
        spec = job.spec
        return (
            (self.ids is None or job.id in self.ids)
            and (self.status is None or job.status in self.status)
            and (self.type is None or spec.type in self.type)
            and (self.queue is None or spec.queue in self.queue)
            and (self.priority is None or spec.priority in self.priority)
            and (self.tags is None or (bool(self.tags) and set(self.tags) <= set(spec.tags)))
            and (self.created_after is None or spec.created_at > self.created_after)
            and (self.created_before is None or spec.created_at < self.created_before)
        )


class OrderField(StrEnum):
    """What a page is sorted by; the job id decides between equals."""

    CREATED_AT = "created_at"
    UPDATED_AT = "updated_at"
    FINISHED_AT = "finished_at"
    PRIORITY = "priority"


class JobOrder(Struct, frozen=True):
    """Newest first unless told otherwise. Unfinished jobs count as finished before all others."""

    field: OrderField = OrderField.CREATED_AT
    descending: bool = True


T = TypeVar("T")

MAX_RETRIES = 100
MAX_TIMEOUT = 86_400.0
"""Seconds."""
MIN_TIMEOUT = 0.1
"""Seconds."""
MAX_TAGS = 32
MAX_TEXT = 255
"""Characters of a tag or an idempotency key."""
_JOINERS = {"\u200c", "\u200d", *map(chr, range(0xE0020, 0xE0080))}
"""What emoji and several scripts join their signs with: invisible, and part of how a word is written."""
FARTHEST_RUN = timedelta(days=366)


class Limits(Protocol):
    """The defaults of the pool settings."""

    @property
    def max_retries(self) -> int: ...
    @property
    def process_timeout(self) -> float: ...


class JobRequest(Struct, frozen=True):
    """A valid creation. ``idempotency_key`` decides the id, so that a repetition meets the same job."""

    job_type: JobType
    payload: bytes
    priority: JobPriority = JobPriority.NORMAL
    idempotency_key: str | None = None
    run_at: datetime | None = None
    max_retries: int | None = None
    timeout: float | None = None
    tags: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        job_type: JobType,
        payload: BaseModel,
        *,
        priority: JobPriority = JobPriority.NORMAL,
        idempotency_key: str | None = None,
        run_at: datetime | None = None,
        max_retries: int | None = None,
        timeout: float | None = None,
        tags: tuple[str, ...] = (),
        path: str = "input",
    ) -> "JobRequest":
        """:param path: of the input, named in the errors.

        :raises InvalidArgument: for a value outside its limits.
        :raises InvalidPayload: for a payload that cannot be written as JSON.
        """
        if idempotency_key is not None:
            _check_text(idempotency_key, f"{path}.idempotencyKey")
        if max_retries is not None and not 0 <= max_retries <= MAX_RETRIES:
            raise InvalidArgument(f"{path}.maxRetries", f"maxRetries must be between 0 and {MAX_RETRIES}.")
        if timeout is not None and not MIN_TIMEOUT <= timeout <= MAX_TIMEOUT:
            message = f"timeoutSeconds must be between {MIN_TIMEOUT} and {MAX_TIMEOUT:.0f}."
            raise InvalidArgument(f"{path}.timeoutSeconds", message)
        if len(tags) > MAX_TAGS:
            raise InvalidArgument(f"{path}.tags", f"A job has at most {MAX_TAGS} tags.")
        for number, tag in enumerate(tags):
            _check_text(tag, f"{path}.tags.{number}")
        return cls(
            job_type=job_type,
            payload=_json(payload, f"{path}.payload"),
            priority=priority,
            idempotency_key=idempotency_key,
            run_at=_run_at(run_at, f"{path}.runAt"),
            max_retries=max_retries,
            timeout=timeout,
            tags=tuple(dict.fromkeys(tags)),
        )

    def job_id(self) -> str:
        """The id the key stands for, or a new one at each call."""
        return job_id_for_key(self.idempotency_key) if self.idempotency_key is not None else new_job_id()

    @property
    def hash(self) -> str:
        """SHA-256 of type and payload."""
        return payload_hash(self.job_type.name, self.payload)

    def spec(self, created_at: datetime, limits: Limits) -> Spec:
        """What is stored. A ``run_at`` that is not in the future means now."""
        job_type = self.job_type
        return Spec(
            type=job_type.name,
            payload=Raw(self.payload),
            payload_hash=self.hash,
            queue=job_type.queue,
            priority=self.priority,
            max_retries=_first(self.max_retries, job_type.max_retries, limits.max_retries),
            timeout=_first(self.timeout, job_type.timeout, limits.process_timeout),
            created_at=created_at,
            tags=self.tags,
            run_at=self.run_at if self.run_at is not None and self.run_at > created_at else None,
            idempotency_key=self.idempotency_key,
        )


def _first(mine: T | None, of_type: T | None, setting: T) -> T:
    if mine is not None:
        return mine
    return of_type if of_type is not None else setting


def _json(payload: BaseModel, path: str) -> bytes:
    try:
        return canonical_json(payload)
    except (ValueError, RecursionError) as error:
        raise InvalidPayload([{"path": path, "message": str(error)}]) from None


def _check_text(text: str, path: str) -> None:
    if not 1 <= len(text) <= MAX_TEXT or not all(c.isprintable() or c in _JOINERS for c in text):
        name = path.rsplit(".", maxsplit=1)[-1] if not path[-1].isdigit() else "A tag"
        raise InvalidArgument(path, f"{name} must have 1 to {MAX_TEXT} printable characters.")


def _run_at(moment: datetime | None, path: str) -> datetime | None:
    if moment is None:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    now = datetime.now(UTC)
    if moment > now + FARTHEST_RUN:
        raise InvalidArgument(path, "runAt may be at most a year ahead.")
    # The first day of the calendar cannot be written in UTC from every offset.
    return max(moment, now).astimezone(UTC)
