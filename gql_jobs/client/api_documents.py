"""What a client sends to the GraphQL API, and how the answers are read as its values."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar

import msgspec
from msgspec import Raw, Struct
from pydantic.alias_generators import to_camel

from gql_jobs.client.errors import Unreachable
from gql_jobs.client.transport import (
    ArtifactInfo,
    CancelledEvent,
    CompletedEvent,
    Creation,
    DeadLetterEvent,
    EditedEvent,
    FailedEvent,
    JobEvent,
    JobPage,
    JobSnapshot,
    ProgressEvent,
    QueuedEvent,
    ScheduledEvent,
    StartedEvent,
    WaitingEvent,
)
from gql_jobs.jobs.model import JobError, JobPriority, JobStatus
from gql_jobs.jobs.pause import Pause
from gql_jobs.jobs.requests import JobFilter
from gql_jobs.jobs.unique_keys import UniqueKey

_T = TypeVar("_T")

# The documents.

_ERROR = "error { message type attempt at retryable }"
_JOB = f"""
fragment Fields on Job {{
  id type queue status priority progress progressMessage attempt maxRetries timeoutSeconds workerId {_ERROR}
  tags tenant createdBy createdAt updatedAt runAt startedAt finishedAt nextAttemptAt
  key concurrencyKey schedule startBefore cancelReason
}}"""
_EVENT = f"""
    __typename cursor at actor job {{ ...Fields }}
    ... on JobScheduled {{ runAt }}
    ... on JobStarted {{ workerId attempt supersedes }}
    ... on JobProgress {{ progress message }}
    ... on JobFailed {{ {_ERROR} nextAttemptAt }}
    ... on JobCompleted {{ durationMs }}
    ... on JobDeadLetter {{ {_ERROR} }}"""
CREATE_DOCUMENT = """mutation Create($inputs: [RawJobInput!]!) {
  createRawJobs(inputs: $inputs) { deduplicated jobs { id } }
}"""
FIND_DOCUMENT = f"query Find($id: ID!) {{ job(id: $id) {{ ...Fields rawPayload rawResult }} }}{_JOB}"
FAILURES_DOCUMENT = f"""query Failures($id: ID!, $after: String) {{
  job(id: $id) {{ events(after: $after) {{
    __typename cursor ... on JobFailed {{ {_ERROR} }} ... on JobDeadLetter {{ {_ERROR} }}
  }} }}
}}"""
CANCEL_DOCUMENT = f"mutation Cancel($id: ID!) {{ cancelJob(id: $id) {{ job {{ ...Fields }} }} }}{_JOB}"
RETRY_DOCUMENT = f"mutation Retry($id: ID!) {{ retryJob(id: $id) {{ job {{ ...Fields }} }} }}{_JOB}"
RETRY_WITH_DOCUMENT = f"""mutation Retry($id: ID!, $rawType: String, $rawPayload: String) {{
  retryJob(id: $id, rawType: $rawType, rawPayload: $rawPayload) {{ job {{ ...Fields }} }}
}}{_JOB}"""
UPDATE_DOCUMENT = f"""mutation Update($id: ID!, $input: UpdateJobInput!) {{
  updateJob(id: $id, input: $input) {{ job {{ ...Fields }} }}
}}{_JOB}"""
DELETE_DOCUMENT = "mutation Delete($id: ID!) { deleteJob(id: $id) { deleted } }"
PAUSE_DOCUMENT = """mutation Pause($name: String!, $reason: String, $until: DateTime) {
  pauseQueue(name: $name, reason: $reason, until: $until) { queue { paused { at by reason until } } }
}"""
RESUME_DOCUMENT = "mutation Resume($name: String!) { resumeQueue(name: $name) { queue { paused { at } } } }"
LIMITS_DOCUMENT = """mutation Limits($name: String!, $limits: QueueLimitsInput!) {
  setQueueLimits(name: $name, limits: $limits) { ungated }
}"""
ARTIFACTS_DOCUMENT = """query Artifacts($id: ID!) {
  job(id: $id) { artifacts { name url contentType sizeBytes sha256 createdAt } }
}"""
JOBS_DOCUMENT = f"""query Jobs($filter: JobFilter, $first: Int, $after: String) {{
  jobs(filter: $filter, first: $first, after: $after) {{
    nodes {{ ...Fields }} pageInfo {{ hasNextPage endCursor }}
  }}
}}{_JOB}"""
THERE_DOCUMENT = "query There($filter: JobFilter) { jobs(filter: $filter, first: 500) { nodes { id } } }"
EVENTS_DOCUMENT = f"""subscription Events($id: ID!, $after: String) {{
  jobProgress(id: $id, after: $after) {{{_EVENT}
  }}
}}{_JOB}"""
ENDS_DOCUMENT = """subscription Ends($ids: [ID!]!) {
  jobEvents(filter: { ids: $ids, status: [COMPLETED, DEAD_LETTER, CANCELLED] }, latest: true) { job { id } }
}"""


def raw_input_of(creation: Creation, key: str) -> dict[str, Any]:
    """Return the ``RawJobInput`` of a creation under an idempotency key."""
    given = {
        "type": creation.job_type.name,
        "payload": creation.payload.decode(),
        "sent": creation.sent.decode() if creation.sent not in (None, creation.payload) else None,
        "idempotencyKey": key,
        "priority": creation.priority.name,
        "runAt": creation.run_at,
        "maxRetries": creation.max_retries,
        "timeoutSeconds": creation.timeout,
        "tags": list(creation.tags) or None,
        "origin": creation.origin,
        "key": _key_input_of(creation.job_key) if creation.job_key is not None else None,
        "concurrencyKey": creation.concurrency_key,
        "startBefore": creation.start_before,
        "after": list(creation.after) or None,
        # Servers from before there were dependencies know no such field.
        "afterPolicy": creation.after_policy.name if creation.after else None,
    }
    return {name: value for name, value in given.items() if value is not None}


def _key_input_of(key: UniqueKey) -> dict[str, Any]:
    given = {"value": key.value, "policy": key.policy.name, "maxDelaySeconds": key.max_delay}
    return {name: value for name, value in given.items() if value is not None}


_NAMES_OF_OPTIONS = {
    "idempotencyKey": "key",
    "runAt": "run_at",
    "maxRetries": "max_retries",
    "timeoutSeconds": "timeout",
    "maxDelaySeconds": "max_delay",
    "concurrencyKey": "concurrency_key",
    "startBefore": "start_before",
}


def place_of(path: str) -> tuple[int | None, str]:
    """Return which creation a path of the API's is about, from 0, and the path in it by the names of the client."""
    root, _, below = path.partition(".")
    number, _, rest = below.partition(".")
    if root != "inputs" or not number.isdecimal():
        return None, path
    name, dot, rest = rest.partition(".")
    if name == "key":
        rest = _NAMES_OF_OPTIONS.get(rest, rest)
    return int(number), _NAMES_OF_OPTIONS.get(name, name) + dot + rest


def filter_input_of(wanted: JobFilter) -> dict[str, Any]:
    """Return the ``JobFilter`` of the schema for a filter."""
    given: dict[str, Any] = {
        "ids": wanted.ids,
        "status": [one.name for one in wanted.status] if wanted.status is not None else None,
        "type": wanted.type,
        "queue": wanted.queue,
        "priority": [one.name for one in wanted.priority] if wanted.priority is not None else None,
        "tags": wanted.tags,
        "createdAfter": wanted.created_after,
        "createdBefore": wanted.created_before,
        "parent": wanted.parent,
        "schedule": wanted.schedule,
        "key": wanted.key,
        "concurrencyKey": wanted.concurrency_key,
    }
    return {
        name: sorted(value) if isinstance(value, frozenset) else value
        for name, value in given.items()
        if value is not None
    }


# The answers.


class GraphQLAnswer(Struct, frozen=True):
    """An answer: the value of each root field, or errors."""

    data: dict[str, Raw] | None = None
    errors: list[dict[str, Any]] = []


def read_answer(text: bytes) -> GraphQLAnswer | None:
    """Return an answer; None if it is nothing of GraphQL."""
    try:
        answer = msgspec.json.decode(text, type=GraphQLAnswer)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return answer if answer.errors or answer.data is not None else None


def read_field(answer: GraphQLAnswer, kind: type[_T]) -> _T | None:
    """Return the value of the one root field of an answer without errors; None where that is null.

    :raises Unreachable: if it is not of its kind, so that it is the answer of something else than this API.
    """
    try:
        (value,) = (answer.data or {}).values()
        return None if bytes(value) == b"null" else msgspec.json.decode(value, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise foreign_answer() from error


def foreign_answer() -> Unreachable:
    """Return the error of an answer that is not what was asked for."""
    return Unreachable("The answer is not that of a release of this API that is known here.", lasting=True)


class NamedJob(Struct, frozen=True):
    """A job of which only the id was asked for."""

    id: str


class CreationAnswer(Struct, frozen=True):
    """What ``createRawJobs`` answers."""

    deduplicated: list[bool]
    jobs: list[NamedJob]


class ShownJob(Struct, frozen=True, rename="camel"):
    """A job as the documents select it."""

    id: str
    type: str
    queue: str
    status: str
    priority: str
    progress: int
    progress_message: str | None
    attempt: int
    max_retries: int
    timeout_seconds: float
    worker_id: str | None
    error: JobError | None
    tags: tuple[str, ...]
    tenant: str | None
    created_by: str | None
    created_at: datetime
    updated_at: datetime
    run_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    next_attempt_at: datetime | None
    key: str | None
    concurrency_key: str | None
    schedule: str | None
    start_before: datetime | None
    cancel_reason: str | None
    raw_payload: Raw = Raw(b"null")
    raw_result: Raw = Raw(b"null")

    def snapshot(self, errors: tuple[JobError, ...] = ()) -> JobSnapshot:
        """Return the job as a client is shown it.

        :param errors: those of all its attempts; where there are none, the latest stands for all.
        """
        payload, result = bytes(self.raw_payload), bytes(self.raw_result)
        return JobSnapshot(
            id=self.id,
            type=self.type,
            queue=self.queue,
            status=JobStatus[self.status],
            priority=JobPriority[self.priority],
            progress=self.progress,
            message=self.progress_message,
            attempts=self.attempt,
            max_retries=self.max_retries,
            timeout=self.timeout_seconds,
            created_at=self.created_at,
            updated_at=self.updated_at,
            error=self.error,
            errors=errors or ((self.error,) if self.error is not None else ()),
            tags=self.tags,
            tenant=self.tenant,
            created_by=self.created_by,
            worker_id=self.worker_id,
            run_at=self.run_at,
            started_at=self.started_at,
            finished_at=self.finished_at,
            next_attempt_at=self.next_attempt_at,
            payload=payload if payload != b"null" else None,
            result=result if result != b"null" else None,
            key=self.key,
            concurrency_key=self.concurrency_key,
            schedule=self.schedule,
            start_before=self.start_before,
            cancel_reason=self.cancel_reason,
        )


class MoveAnswer(Struct, frozen=True):
    """What ``cancelJob``, ``retryJob`` and ``updateJob`` answer."""

    job: ShownJob


class DeleteAnswer(Struct, frozen=True):
    """What ``deleteJob`` answers."""

    deleted: bool


class ShownQueue(Struct, frozen=True):
    """A queue, as far as its pause goes."""

    paused: Pause | None


class QueueAnswer(Struct, frozen=True):
    """What ``pauseQueue`` and ``resumeQueue`` answer."""

    queue: ShownQueue


class LimitsAnswer(Struct, frozen=True):
    """What ``setQueueLimits`` answers."""

    ungated: int


class FailureEvent(Struct, frozen=True, rename={"kind": "__typename"}):
    """An event of a history, with its error if it has one."""

    kind: str
    cursor: str
    error: JobError | None = None


class HistoryAnswer(Struct, frozen=True):
    """A part of the history of a job, oldest first."""

    events: list[FailureEvent]


class FileOfJob(Struct, frozen=True, rename="camel"):
    """A file of a job, and where it can be fetched for some time."""

    name: str
    url: str
    content_type: str
    size_bytes: int
    sha256: str
    created_at: datetime

    @property
    def info(self) -> ArtifactInfo:
        """What a client is told of it."""
        return ArtifactInfo(self.name, self.content_type, self.size_bytes, self.sha256, self.created_at)


class FilesAnswer(Struct, frozen=True):
    """The files of a job."""

    artifacts: list[FileOfJob]


class PlaceOfPage(Struct, frozen=True, rename="camel"):
    """Where a page lies in its list."""

    has_next_page: bool
    end_cursor: str | None


class PageAnswer(Struct, frozen=True, rename="camel"):
    """A page of jobs."""

    nodes: list[ShownJob]
    page_info: PlaceOfPage

    @property
    def page(self) -> JobPage:
        """The page as a client is given it."""
        following = self.page_info.end_cursor if self.page_info.has_next_page else None
        return JobPage(tuple(job.snapshot() for job in self.nodes), following)


class IdsAnswer(Struct, frozen=True):
    """The ids of the jobs of a page."""

    nodes: list[NamedJob]


class EndEvent(Struct, frozen=True):
    """That a job has ended."""

    job: NamedJob


class ShownEvent(Struct, frozen=True, rename=lambda name: "__typename" if name == "kind" else to_camel(name)):
    """An event of any kind, as the document selects it."""

    kind: str
    cursor: str
    at: datetime
    actor: str | None
    job: ShownJob
    run_at: datetime | None = None
    worker_id: str = ""
    attempt: int = 0
    supersedes: int | None = None
    progress: int = 0
    message: str | None = None
    error: JobError | None = None
    next_attempt_at: datetime | None = None
    duration_ms: int = 0

    def event(self) -> JobEvent:
        """Return the event as a client is told it; one of a kind that is not known here as a plain ``JobEvent``."""
        make = _EVENTS.get(self.kind)
        return make(self) if make is not None else JobEvent(*self.begin)

    @property
    def begin(self) -> tuple[str, datetime, str | None, JobSnapshot]:
        """What events of all kinds begin with."""
        return self.cursor, self.at, self.actor, self.job.snapshot()

    @property
    def failure(self) -> JobError:
        """The error that an event of a failure always has."""
        assert self.error is not None
        return self.error

    @property
    def duration(self) -> timedelta:
        """How long the last attempt took."""
        return timedelta(milliseconds=self.duration_ms)


_EVENTS: dict[str, Callable[[ShownEvent], JobEvent]] = {
    "JobScheduled": lambda shown: ScheduledEvent(*shown.begin, shown.run_at or shown.at),
    "JobWaiting": lambda shown: WaitingEvent(*shown.begin),
    "JobEdited": lambda shown: EditedEvent(*shown.begin),
    "JobQueued": lambda shown: QueuedEvent(*shown.begin),
    "JobStarted": lambda shown: StartedEvent(*shown.begin, shown.worker_id, shown.attempt, shown.supersedes),
    "JobProgress": lambda shown: ProgressEvent(*shown.begin, shown.progress, shown.message),
    "JobFailed": lambda shown: FailedEvent(*shown.begin, shown.failure, shown.next_attempt_at or shown.at),
    "JobCompleted": lambda shown: CompletedEvent(*shown.begin, shown.duration),
    "JobCancelled": lambda shown: CancelledEvent(*shown.begin),
    "JobDeadLetter": lambda shown: DeadLetterEvent(*shown.begin, shown.failure),
}
"""How the event of each kind of the schema is made of what was shown of it."""
