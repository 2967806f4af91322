"""Jobs and their events as clients see them.

First the interface Job and the types of its fields, then a type for each kind of event. A field is a property that is
read from ``source`` only if a document selects it. The object types of registered jobs, with their payload and result,
are made by ``registered_types``.
"""

# Strawberry types its decorators as Any.
# mypy: disable-error-code="untyped-decorator"

from collections.abc import Callable, Iterable, Mapping
from copy import copy
from datetime import datetime, timedelta
from enum import IntEnum
from operator import attrgetter
from typing import Annotated, Any, Protocol, Self, TypeAlias, cast

import msgspec
import strawberry
from graphql import FieldNode, FragmentDefinitionNode, FragmentSpreadNode, InlineFragmentNode, SelectionNode
from strawberry.scalars import JSON

from gql_jobs.graphql.context import Info
from gql_jobs.graphql.engine.budget import Budget, spends_only
from gql_jobs.graphql.engine.complexity import LARGEST_PAGE
from gql_jobs.graphql.engine.strawberry_internals import compute, computed, selection_below
from gql_jobs.graphql.previews import CUT, DEFAULT_PREVIEW, LARGEST_PREVIEW, LONGEST_SUMMARY, preview_of, summary_of
from gql_jobs.graphql.scalars_and_enums import CancellationOutcome
from gql_jobs.graphql.waiting import JobWait, WaitReason, wait_of
from gql_jobs.index.index import Note
from gql_jobs.index.page import Page
from gql_jobs.index.reader import Reader
from gql_jobs.jobs import fold, model
from gql_jobs.jobs.errors import InvalidArgument
from gql_jobs.jobs.messages import Kind, Receipt
from gql_jobs.jobs.model import Cursor, JobPriority, JobStatus
from gql_jobs.jobs.requests import JobFilter, JobOrder

_MILLISECOND = timedelta(milliseconds=1)
DEFAULT_CHILDREN = 50
"""Children of a job that are shown where nobody says how many."""


# The interface Job and the types of its fields.


@strawberry.type(
    description="What became of a cancellation. The receipts come after the terminal event, so that they are not part "
    "of a subscription, which ends with it: ask for the job again."
)
class Cancellation:
    """A cancellation, from the receipts of the worker that ran the job."""

    requested_at: datetime = strawberry.field(description="When the job was cancelled.")
    delivered_at: datetime | None = strawberry.field(
        description="When the running handler was told; null if none ran, or it had ended by then."
    )
    ended_at: datetime | None = strawberry.field(description="When the handler ended or was given up.")
    outcome: CancellationOutcome | None = strawberry.field(
        description="How the handler ended; null while it is not known, and for good if none ran or it was lost."
    )
    worker_id: str | None = strawberry.field(description="The worker that says so.")

    @classmethod
    def of(cls, job: model.Job, notes: list[Note]) -> Self | None:
        """Return the cancellation of a job, or None for a job that is not cancelled.

        :param notes: the receipts of this cancellation, oldest first.
        """
        if job.status is not JobStatus.CANCELLED or job.finished_at is None:
            return None
        delivered = next((note for note in notes if note.receipt is Receipt.DELIVERED), None)
        ended = next((note for note in notes if note.receipt is not Receipt.DELIVERED), None)
        return cls(
            requested_at=job.finished_at,
            delivered_at=delivered.at if delivered is not None else None,
            ended_at=ended.at if ended is not None else None,
            outcome=CancellationOutcome(ended.receipt.value) if ended is not None else None,
            worker_id=notes[-1].worker_id if notes else None,
        )


@strawberry.type(description="One failed attempt.")
class JobError:
    """A failed attempt as clients see it."""

    message: str = strawberry.field(
        description="What went wrong, in the words of the handler; of what it did not raise on purpose the type and a "
        "reference, under which its worker's log says more."
    )
    summary: str = computed(
        description=f"The first line of the message, for lists: at most {LONGEST_SUMMARY} characters of it."
    )
    type: str = strawberry.field(description="The name of the exception.")
    attempt: int = strawberry.field(description="The attempt that failed; the first is 1.")
    at: datetime = strawberry.field(description="When it failed.")
    retryable: bool = strawberry.field(description="False for a permanent error, after which no attempt can succeed.")


@strawberry.type(description="A file that a handler has saved with its job. Visible once it is complete.")
class Artifact:
    """A file of a job as clients see it."""

    name: str = strawberry.field(description="Its path among the job's files.")
    url: str = strawberry.field(
        description="Where it can be fetched: a path below the API's address. With authentication it is signed for "
        "five minutes, in which it needs no key or token, as an `<img>` has none; then ask for the file again."
    )
    content_type: str = strawberry.field(description="Its media type.")
    size_bytes: int = strawberry.field(description="Bytes of the whole file.")
    sha256: str = strawberry.field(description="Its SHA-256, in hexadecimal digits.")
    created_at: datetime = strawberry.field(description="When it was saved.")


# An event holds a job and a job its events, so the module of one of them has to be named instead of imported.
_EVENT: Any = strawberry.LazyType("JobEvent", "gql_jobs.graphql.job_types")
_JOB: Any = strawberry.LazyType("Job", "gql_jobs.graphql.job_types")


@strawberry.interface(description="A job, whatever its type.")
class Job:
    """The fields that every job has, read from ``source`` when they are selected."""

    source: strawberry.Private[model.Job]
    readable: strawberry.Private["ReadsStored"]
    id: strawberry.ID = computed(description="A random UUID, given when the job was created.")
    type: str = computed(description="The name of the job type, as `email`.")
    queue: str = computed(description="The queue that workers take it from.")
    status: JobStatus = computed(description="Where the job stands.")
    priority: JobPriority = computed(description="Which job starts first when workers are busy.")
    progress: int = computed(description="How far the work is, in percent: 0 to 100.")
    progress_message: str | None = computed(description="What the handler said it is doing.")
    attempt: int = computed(
        description="The attempt that runs or ran last, from 1; 0 before the first. Starts again with a retry by hand."
    )
    retry_count: int = computed(description="Attempts after the first. Starts again with a retry by hand.")
    max_retries: int = computed(description="How many attempts may follow the first.")
    timeout_seconds: float = computed(
        description="How long one attempt may take, before it is ended and counts as failed."
    )
    worker_id: str | None = computed(description="The worker that runs it or ran it last.")
    error: JobError | None = computed(description="The latest failure; null once the job has completed.")
    tags: list[str] = computed(description="The tags it was created with.")
    schedule: str | None = computed(
        description="The name of the schedule that it is a job of; null if it is none of a schedule."
    )
    tenant: str | None = computed(
        description="Whose it is: the tenant of the key or token that created it; null where that had none."
    )
    created_by: str | None = computed(
        description="The subject that created it, as `viewer` names it; null if nobody was authenticated."
    )
    created_at: datetime = computed(description="When it was created.")
    updated_at: datetime = computed(description="When it last changed.")
    run_at: datetime | None = computed(
        description="When it was to run at the earliest; null for at once, as after a retry by hand."
    )
    key: str | None = computed(
        description="What no other job of its tenant may have while this one has not ended: the `key` of its creation."
    )
    concurrency_key: str | None = computed(
        description="What it has in common with the jobs that it shares limits per key with; null where it has no key."
    )
    start_before: datetime | None = computed(
        description="When it is cancelled if its first attempt has not started; null for never, and once it was "
        "retried by hand."
    )
    cancel_reason: str | None = computed(
        description="Why the system has cancelled it, in a sentence; null if a client did, or it is not cancelled."
    )
    started_at: datetime | None = computed(description="When the latest attempt started.")
    finished_at: datetime | None = computed(description="When it reached its terminal state.")
    next_attempt_at: datetime | None = computed(description="When the next attempt starts, while RETRYING.")
    duration_ms: int | None = computed(
        description="How long the last attempt ran, in milliseconds; null until the job has ended."
    )

    @strawberry.field(
        description="The payload as stored: what the client sent, and values that the server drew for it. Secrets "
        "are shown as `[redacted]`, and so is all of a payload that its type cannot read here, unless it was stored "
        "which of its parts are secret; handlers get them as they are."
    )
    @spends_only
    def raw_payload(self, info: Info) -> JSON:
        """Return the stored payload as a JSON value, without its secrets."""
        return _json(self.readable.payload(self.source), info.context.budget)

    @strawberry.field(
        description="The beginning of `rawPayload` as text, for lists: so many bytes of its JSON, cut at the border of "
        f"a character, with `{CUT}` behind them if there is more. Empty if the job has expired meanwhile."
    )
    async def payload_preview(
        self,
        info: Info,
        bytes: Annotated[  # noqa: A002 -- the schema's name
            int | None,
            strawberry.argument(description=f"How many bytes at most: 0 to {LARGEST_PREVIEW}; null means the default."),
        ] = DEFAULT_PREVIEW,
    ) -> str:
        """Return the beginning of the payload's JSON, without its secrets.

        :raises InvalidArgument: for a size out of range.
        """
        return await preview_of(self.source, bytes, self.readable.payload, info.context)

    @strawberry.field(
        description="The result as stored; null until the job has completed, and if its handler returns nothing. "
        "Secrets are shown as `[redacted]`."
    )
    @spends_only
    def raw_result(self, info: Info) -> JSON | None:
        """Return the stored result as a JSON value without its secrets, or None if there is none."""
        result = self.readable.result(self.source)
        return _json(result, info.context.budget) if result not in (None, model.NO_RESULT) else None

    @strawberry.field(
        description="The ids of the jobs that have to end before it runs, as they were given when it was created, "
        "whether or not they are still kept."
    )
    @spends_only
    def after(self, info: Info) -> list[strawberry.ID]:
        """Return the ids, of which a page of jobs may have many thousands."""
        after = self.source.spec.after
        if after:
            info.context.budget.take(len(after))
        return cast("list[strawberry.ID]", after)

    @strawberry.field(
        graphql_type=_JOB | None,
        description="The job that this one was made of, as `CreateJobInput.origin` named it; null if none was named, "
        "or it has expired, or the viewer may not see it.",
    )
    async def origin(self, info: Info) -> Any:
        """Return the origin from the index, read with as much as is selected of it."""
        return await related_job(self.source.spec.origin, info)

    @strawberry.field(
        graphql_type=_JOB | None,
        description="The job whose handler has created this one; null if a client has, or it has expired, or the "
        "viewer may not see it.",
    )
    async def parent(self, info: Info) -> Any:
        """Return the parent from the index, read with as much as is selected of it."""
        return await related_job(self.source.spec.parent, info)

    @strawberry.field(
        graphql_type=list[_JOB],
        description="The jobs that its handler has created, those of earlier submissions too, in the order of their "
        "creation: as many as `first` says, of those that the viewer may see. More of them, and how many there are: "
        "`jobs(filter: {parent: …})`.",
    )
    async def children(
        self,
        info: Info,
        first: Annotated[
            int | None,
            strawberry.argument(description=f"How many at most: 0 to {LARGEST_PAGE}; null means the default."),
        ] = DEFAULT_CHILDREN,
    ) -> list[Any]:
        """Return the first children from the index, read with as much as is selected of them.

        :raises InvalidArgument: for a size out of range.
        """
        most = DEFAULT_CHILDREN if first is None else first
        if not 0 <= most <= LARGEST_PAGE:
            raise InvalidArgument("first", f"first must be between 0 and {LARGEST_PAGE}.")
        needed = needed_of_job(info)
        wanted = JobFilter(parent=self.source.id, visibility=info.context.session.visibility)
        page = await read_page_of(wanted, JobOrder(descending=False), most, info, needed)
        return list(await page_nodes(page, info, needed))

    @strawberry.field(description="The files that the handler has saved, by name.")
    async def artifacts(self, info: Info) -> list[Artifact]:
        """Return the files from the index, else from the stream."""
        context, services = info.context, info.context.services()
        files = await services.saved(self.id, context.budget)
        viewer = context.session.viewer
        return [
            _artifact_of(file, services.access.artifact_url(viewer, self.id, file.name, file.sha256)) for file in files
        ]

    @strawberry.field(
        description="Why it does not run yet; null if it runs or has ended, or a worker is free and it starts at once."
    )
    async def waiting(self, info: Info) -> JobWait | None:
        """Return why it waits, from its state, the counts of the index and the heartbeats of workers."""
        return await wait_of(self.source, info.context)

    @strawberry.field(description="What became of its cancellation; null for a job that is not cancelled.")
    def cancellation(self, info: Info) -> Cancellation | None:
        """Return the cancellation with the receipts that the index has, or None."""
        job = self.source
        if job.status is not JobStatus.CANCELLED:
            return None
        # On the event loop, where so short a read costs less than to hand it to a thread; so they are counted.
        info.context.budget.take(1)
        return Cancellation.of(job, info.context.services().index.notes(job.id, job.event_seq))

    @strawberry.field(
        graphql_type=list[_EVENT],
        description="The history of the job, oldest first, all attempts and their errors included.",
    )
    async def events(
        self,
        info: Info,
        first: Annotated[
            int | None,
            strawberry.argument(description=f"How many at most: 0 to {LARGEST_PAGE}, which is also meant by null."),
        ] = None,
        after: Annotated[
            str | None,
            strawberry.argument(description="Go on behind the event with this cursor; from the beginning where null."),
        ] = None,
    ) -> list[Any]:
        """Return a part of the history, from the index or else from the stream.

        :raises InvalidArgument: for a size out of range, or a cursor that no event can have.
        """
        if first is not None and not 0 <= first <= LARGEST_PAGE:
            raise InvalidArgument("first", f"first must be between 0 and {LARGEST_PAGE}.")
        try:
            behind = Cursor.parse(after) if after is not None else Cursor(0)
        except ValueError as error:
            raise InvalidArgument("after", str(error)) from None
        context = info.context
        most = LARGEST_PAGE if first is None else first
        present = _presents_alike(presenter(info))
        events = await context.services().events(self.id, behind, most, context.budget) if most else []
        return [presented_event(event, present) for event in events]


class ReadsStored(Protocol):
    """How what is stored of a job is read for everybody but its handler."""

    def decoded(self, job: model.Job) -> tuple[msgspec.Raw, msgspec.Raw | None]:
        """Return payload and result as JSON with their secrets, for the models that read them."""

    def payload(self, job: model.Job) -> msgspec.Raw:
        """Return the payload as JSON, without its secrets; ``REDACTED`` if nothing says where they are."""

    def result(self, job: model.Job) -> msgspec.Raw | None:
        """Return the result as JSON, without its secrets; None if there is none."""


Presenter: TypeAlias = Callable[[model.Job], Job]
"""Returns the object of a job's type, or an ``UnknownJob``; never fails."""


class PresentsJobs(Protocol):
    """A schema that has an object type for each registered job type."""

    @property
    def present(self) -> Presenter:
        """Return the function that makes the object of a job."""

    @property
    def present_unread(self) -> Presenter:
        """Return the function that makes the object of a job whose payload and result were not read."""

    async def present_by_type(self, job: model.Job, reader: Reader) -> Job:
        """Return the object of such a job, of the type that it would have if they had been."""


def presenter(info: Info) -> Presenter:
    """Return the presenter of the schema that runs this operation, for jobs that were read with payload and result."""
    return cast("PresentsJobs", info.schema).present


class Needed(IntEnum):
    """What a selection needs of the payloads and the results of jobs."""

    NOTHING = 0
    TYPES = 1
    """Whether they can be read, on which the type of a job's object depends."""
    VALUES = 2


_READ_BY_THEMSELVES = frozenset({"origin", "parent", "children", "lastJob"})
"""The fields whose values are jobs that are read for themselves."""
_VALUES = frozenset({"payload", "rawPayload", "result", "rawResult"})
"""The fields that show a job's payload or its result."""


def needed_of_jobs(info: Info) -> Needed:
    """Return the most that anything selected below this field may need of a job."""
    fields, fragments = selection_below(info)
    return _needed(fields, fragments, of_job=False)


def needed_of_job(info: Info) -> Needed:
    """Return the same for a field that is itself a job, or a list of jobs."""
    fields, fragments = selection_below(info)
    below = [node for field in fields if field.selection_set for node in field.selection_set.selections]
    return _needed(below, fragments, of_job=True)


def _needed(
    selected: Iterable[SelectionNode], fragments: Mapping[str, FragmentDefinitionNode], *, of_job: bool
) -> Needed:
    seen: set[tuple[str, bool]] = set()

    def of_fragment(condition: str | None, below: Iterable[SelectionNode], of_job: bool) -> Needed:
        is_of_one_type = of_job and condition is not None and condition != "Job"
        return max(Needed.TYPES if is_of_one_type else Needed.NOTHING, of(below, of_job=of_job))

    def of(selections: Iterable[SelectionNode], *, of_job: bool) -> Needed:
        most = Needed.NOTHING
        for node in selections:
            if isinstance(node, FieldNode):
                if node.name.value in _VALUES:
                    return Needed.VALUES
                if node.name.value == "__typename" and of_job:
                    most = max(most, Needed.TYPES)
                elif node.selection_set and node.name.value not in _READ_BY_THEMSELVES:
                    most = max(most, of(node.selection_set.selections, of_job=node.name.value in _JOBS))
            elif isinstance(node, InlineFragmentNode):
                condition = node.type_condition.name.value if node.type_condition else None
                most = max(most, of_fragment(condition, node.selection_set.selections, of_job))
            elif isinstance(node, FragmentSpreadNode) and (node.name.value, of_job) not in seen:
                seen.add((node.name.value, of_job))
                fragment = fragments[node.name.value]
                condition = fragment.type_condition.name.value
                most = max(most, of_fragment(condition, fragment.selection_set.selections, of_job))
        return most

    return of(selected, of_job=of_job)


_JOBS = frozenset({"nodes", "node", "job", "sample"})
"""The fields whose value is a job, or a list of jobs."""


def _presents_alike(present: Presenter) -> Presenter:
    """Return a presenter for the states of one job, which reads its payload and its result once."""
    presented: dict[bool, Job] = {}

    def alike(job: model.Job) -> Job:
        has_result = job.result is not None
        known = presented.get(has_result)
        if known is None or known.source.spec.payload != job.spec.payload or known.source.result != job.result:
            known = presented[has_result] = present(job)
        shown = copy(known)
        shown.source = job
        return shown

    return alike


@strawberry.type(
    description="A job whose type this server does not know, or whose stored payload or result no longer fits its type."
)
class UnknownJob(Job):
    """A job that no registered type describes."""


def _artifact_of(saved: model.Artifact, url: str) -> Artifact:
    return Artifact(
        name=saved.name,
        url=url,
        content_type=saved.content_type,
        size_bytes=saved.size_bytes,
        sha256=saved.sha256,
        created_at=saved.created_at,
    )


def _json(stored: msgspec.Raw, budget: Budget) -> JSON:
    """Return stored JSON as it is; its text where a foreign writer has stored null or what is no JSON."""
    budget.take(size=len(stored))
    try:
        # Only to know that it can be read: as Python objects it would take many times the memory of its text.
        value = msgspec.json.decode(stored)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        value = None
    text = bytes(stored)
    if value is None:
        return JSON(text.decode("utf-8", "replace"))
    # A foreign writer may have broken it into lines, which would end an event of a stream.
    return JSON(msgspec.Raw(msgspec.json.encode(value)) if b"\n" in text or b"\r" in text else stored)


def error_of(error: model.JobError) -> JobError:
    """Return a failure as clients see it."""
    return JobError(
        message=error.message, type=error.type, attempt=error.attempt, at=error.at, retryable=error.retryable
    )


def milliseconds(job: model.Job) -> int | None:
    """Return how long the last attempt ran, cut to the largest Int; None for a job that has not ended."""
    duration = job.duration
    return min(max(round(duration / _MILLISECOND), 0), 2**31 - 1) if duration is not None else None


compute(JobError, summary=lambda shown: summary_of(shown.message))


def _error(shown: Job) -> JobError | None:
    error = shown.source.error
    return error_of(error) if error is not None else None


compute(
    Job,
    id=attrgetter("source.id"),
    type=attrgetter("source.spec.type"),
    queue=attrgetter("source.spec.queue"),
    status=attrgetter("source.status"),
    priority=attrgetter("source.spec.priority"),
    progress=attrgetter("source.progress"),
    progress_message=attrgetter("source.progress_message"),
    attempt=attrgetter("source.attempt"),
    retry_count=attrgetter("source.retry_count"),
    max_retries=attrgetter("source.spec.max_retries"),
    timeout_seconds=attrgetter("source.spec.timeout"),
    worker_id=attrgetter("source.worker_id"),
    error=_error,
    tags=attrgetter("source.spec.tags"),
    schedule=attrgetter("source.spec.schedule"),
    tenant=attrgetter("source.spec.tenant"),
    created_by=attrgetter("source.spec.created_by"),
    created_at=attrgetter("source.spec.created_at"),
    updated_at=attrgetter("source.updated_at"),
    run_at=attrgetter("source.run_at"),
    key=attrgetter("source.spec.key"),
    concurrency_key=attrgetter("source.spec.concurrency_key"),
    start_before=attrgetter("source.spec.start_before"),
    cancel_reason=attrgetter("source.cancel_reason"),
    started_at=attrgetter("source.started_at"),
    finished_at=attrgetter("source.finished_at"),
    next_attempt_at=attrgetter("source.next_attempt_at"),
    duration_ms=lambda shown: milliseconds(shown.source),
)


# Jobs as they are read for what a document selects of them.


SMALL = 4096
"""Bytes up to which the payload and the result of a job are read with its page where only types are needed."""
LARGEST_READ = {Needed.NOTHING: 0, Needed.TYPES: SMALL, Needed.VALUES: None}
"""Bytes of a payload and a result that a page is read with, by what is needed of them."""


async def page_nodes(page: Page, info: Info, needed: Needed) -> list[Job]:
    """Return the jobs of a page as objects of their types.

    :param needed: what the page was read for.
    """
    schema = cast("PresentsJobs", info.schema)
    if needed is Needed.NOTHING:
        return list(map(schema.present_unread, page.jobs))
    if not page.unread:
        return list(map(schema.present, page.jobs))
    reader, unread = info.context.services().reader, set(page.unread)
    return [
        await schema.present_by_type(job, reader) if place in unread else schema.present(job)
        for place, job in enumerate(page.jobs)
    ]


async def read_page_of(job_filter: JobFilter, order: JobOrder, first: int, info: Info, needed: Needed) -> Page:
    """Return the first jobs of a filter, read for what is needed of them and within the operation's budget.

    :raises OverBudget: if they have more bytes than it has left, or are more.
    """
    budget = info.context.budget
    budget.take(first)
    page = await info.context.services().reader.page(
        job_filter,
        order,
        first=first,
        after=None,
        offset=0,
        largest=LARGEST_READ[needed],
        max_bytes=None if budget.max_size is None else budget.max_size - budget.read,
    )
    budget.take(read=page.size)
    return page


async def related_job(job_id: str | None, info: Info) -> Any:
    """Return a job from the index, if there is such a one for the viewer, with as much as is selected of it."""
    if job_id is None:
        return None
    needed = needed_of_job(info)
    wanted = JobFilter(ids=frozenset({job_id}), visibility=info.context.session.visibility)
    page = await read_page_of(wanted, JobOrder(), 1, info, needed)
    return next(iter(await page_nodes(page, info, needed)), None)


# Events: one object type for each kind.


@strawberry.interface(description="Something that happened to a job.")
class JobEvent:
    """The fields that every event has, read from ``source`` when they are selected."""

    source: strawberry.Private[fold.Event]
    present: strawberry.Private[Presenter]
    cursor: str = strawberry.field(
        description="The event's place in the history of all jobs; give it as `after` to resume."
    )
    at: datetime = computed(description="When it happened.")
    actor: str | None = computed(
        description="The subject that created, cancelled or retried the job; null for what the system did, and if "
        "nobody was authenticated."
    )
    job: Job = computed(description="The job as of this event.")

    @property
    def key(self) -> str:
        """Return what tells it from all other events: its cursor."""
        return self.cursor


@strawberry.type(description="The job was created and is held back until `runAt`.")
class JobScheduled(JobEvent):
    """Kind ``scheduled``."""

    run_at: datetime = computed(description="When it will be queued.")


@strawberry.type(
    description="The job was created, or retried by hand, and is held back: by a limit, by other jobs, or until it is "
    "due."
)
class JobWaiting(JobEvent):
    """Kind ``waiting``."""

    reason: WaitReason = computed(
        description="What it has to wait for at least; `waiting` of the job says what it waits for now."
    )


@strawberry.type(
    description="The job was changed before it has started. What was queued of it is void, and it is queued again."
)
class JobEdited(JobEvent):
    """Kind ``edited``."""

    changed: list[str] = computed(
        description="The fields that are others now, by their names in `UpdateJobInput`; empty if the gate only holds "
        "it back again."
    )


@strawberry.type(description="The job waits for a worker: created, due, handed back at shutdown, or retried by hand.")
class JobQueued(JobEvent):
    """Kind ``queued``."""


@strawberry.type(description="A worker began an attempt.")
class JobStarted(JobEvent):
    """Kind ``started``."""

    worker_id: str = computed(description="Which worker process runs the attempt, as `workers` lists it.")
    attempt: int = computed(description="The attempt's number; the first is 1.")
    supersedes: int | None = computed(
        description="The attempt this one replaces because its worker was lost; null where none was."
    )


@strawberry.type(description="The handler said how far it is.")
class JobProgress(JobEvent):
    """Kind ``progress``."""

    @property
    def key(self) -> str:
        """Return the cursor, and which report it is where that one has waited and is told at a later place."""
        seq = self.source.job.last_seq
        return self.cursor if seq == self.source.cursor.seq else f"{self.cursor} {seq}"

    progress: int = computed(description="In percent: 0 to 100.")
    message: str | None = computed(description="What it is doing.")


@strawberry.type(description="The job is done. Terminal.")
class JobCompleted(JobEvent):
    """Kind ``completed``."""

    duration_ms: int = computed(description="How long the attempt ran, in milliseconds.")


@strawberry.type(description="An attempt failed and another one will follow.")
class JobFailed(JobEvent):
    """Kind ``failed``."""

    error: JobError = computed(description="What went wrong.")
    next_attempt_at: datetime = computed(description="When the next attempt starts.")


@strawberry.type(description="The job failed for good: a permanent error, or no attempts left. Terminal.")
class JobDeadLetter(JobEvent):
    """Kind ``dead_letter``."""

    error: JobError = computed(description="What went wrong last.")


@strawberry.type(description="The job was cancelled. Terminal.")
class JobCancelled(JobEvent):
    """Kind ``cancelled``."""


EVENT_TYPES: dict[Kind, type[JobEvent]] = {
    Kind.SCHEDULED: JobScheduled,
    Kind.WAITING: JobWaiting,
    Kind.EDITED: JobEdited,
    Kind.QUEUED: JobQueued,
    Kind.STARTED: JobStarted,
    Kind.PROGRESS: JobProgress,
    Kind.COMPLETED: JobCompleted,
    Kind.FAILED: JobFailed,
    Kind.DEAD_LETTER: JobDeadLetter,
    Kind.CANCELLED: JobCancelled,
}


def presented_event(event: fold.Event, present: Presenter) -> JobEvent:
    """Return the event as an object of its kind.

    :param present: makes the object of its job, once that is selected.
    """
    return EVENT_TYPES[event.kind](source=event, present=present, cursor=str(event.cursor))


def _last_error(shown: JobEvent) -> JobError:
    """Return the latest failure; a substitute where a foreign writer's event has none, so that no stream breaks."""
    job = shown.source.job
    if job.errors:
        return error_of(job.errors[-1])
    unrecorded = "The failure was not recorded."
    return JobError(message=unrecorded, type="Unknown", attempt=job.attempt, at=job.updated_at, retryable=False)


def _run_at(shown: JobEvent) -> datetime:
    spec = shown.source.job.spec
    return spec.earliest or spec.created_at


def _reason_to_wait(shown: JobEvent) -> WaitReason:
    job = shown.source.job
    if job.spec.after:
        return WaitReason.DEPENDENCY
    return WaitReason.SCHEDULED if job.run_at is not None and job.run_at > job.updated_at else WaitReason.LIMIT


def _next_attempt_at(shown: JobEvent) -> datetime:
    job: model.Job = shown.source.job
    return job.next_attempt_at or job.updated_at


compute(
    JobEvent,
    at=attrgetter("source.job.updated_at"),
    actor=attrgetter("source.job.actor"),
    job=lambda event: event.present(event.source.job),
)
compute(JobScheduled, run_at=_run_at)
compute(JobWaiting, reason=_reason_to_wait)
compute(JobEdited, changed=lambda event: list(event.source.job.changed))
compute(
    JobStarted,
    worker_id=lambda event: event.source.job.worker_id or "",
    attempt=attrgetter("source.job.attempt"),
    supersedes=attrgetter("source.job.superseded_attempt"),
)
compute(JobProgress, progress=attrgetter("source.job.progress"), message=attrgetter("source.job.progress_message"))
compute(JobCompleted, duration_ms=lambda event: milliseconds(event.source.job) or 0)
compute(JobFailed, error=_last_error, next_attempt_at=_next_attempt_at)
compute(JobDeadLetter, error=_last_error)
