"""What the clients of these tests send, and the steps that many tests begin with."""

from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.deadline import until
from tests.serving import Api, Data

QUERIES = Path(__file__).parents[1] / "queries"
CREATIONS = sorted(path.stem for path in QUERIES.glob("create_*_job.graphql"))
"""The examples that make a job of some type."""

_JOB = """fragment Facts on Job {
  __typename id type queue status priority progress progressMessage attempt retryCount maxRetries workerId tags
  rawPayload rawResult createdAt updatedAt runAt startedAt finishedAt nextAttemptAt durationMs
  error { message type attempt retryable }
}"""
_EVENT = """fragment Happened on JobEvent {
  __typename cursor at job { id type status progress attempt retryCount tags }
  ... on JobStarted { workerId attempt }
  ... on JobProgress { progress message }
  ... on JobFailed { nextAttemptAt error { message } }
  ... on JobDeadLetter { error { message retryable } }
  ... on JobCompleted { durationMs }
}"""
CREATE = (
    f"mutation ($input: CreateJobInput!) {{ createJob(input: $input) {{ deduplicated job {{ ...Facts }} }} }} {_JOB}"
)
CREATE_MANY = """mutation ($inputs: [CreateJobInput!]!) {
  createJobs(inputs: $inputs) { deduplicatedCount jobs { id status tags createdAt } }
}"""
CANCEL = f"mutation ($id: ID!) {{ cancelJob(id: $id) {{ job {{ ...Facts }} }} }} {_JOB}"
RETRY = f"mutation ($id: ID!) {{ retryJob(id: $id) {{ job {{ ...Facts }} }} }} {_JOB}"
RETRY_MANY = "mutation ($filter: JobFilter!) { retryJobs(filter: $filter) { retriedCount remainingCount } }"
FIND = f"query ($id: ID!) {{ job(id: $id) {{ ...Facts }} }} {_JOB}"
HISTORY = f"query ($id: ID!) {{ job(id: $id) {{ status events {{ ...Happened }} }} }} {_EVENT}"
PAGE = """query ($filter: JobFilter, $orderBy: JobOrder, $first: Int, $after: String, $offset: Int) {
  jobs(filter: $filter, orderBy: $orderBy, first: $first, after: $after, offset: $offset) {
    totalCount
    nodes { __typename id type status priority createdAt updatedAt finishedAt }
    edges { cursor node { id } }
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}"""
WATCH = f"subscription ($id: ID!, $after: String) {{ jobProgress(id: $id, after: $after) {{ ...Happened }} }} {_EVENT}"
FEED = f"""subscription ($filter: JobFilter, $after: String) {{
  jobEvents(filter: $filter, after: $after) {{ ...Happened }}
}} {_EVENT}"""

TERMINAL = {"COMPLETED", "DEAD_LETTER", "CANCELLED"}
UNKNOWN_ID = "018f3c6e-7d3a-7c52-9d0a-3f5a8c1d7e42"


def example(name: str) -> str:
    """The document ``tests/queries/<name>.graphql``."""
    return (QUERIES / f"{name}.graphql").read_text()


def asked(payload: Data | None = None, kind: str = "probe", **options: Any) -> Data:
    """A creation of a job whose handler does nothing unless the payload says so."""
    return {"payload": {kind: payload or {}}, **options}


def ahead(**duration: float) -> str:
    """A moment that is so far ahead, as ``runAt`` takes it."""
    return (datetime.now(UTC) + timedelta(**duration)).isoformat()


async def create(api: Api, payload: Data | None = None, kind: str = "probe", **options: Any) -> Data:
    """Create a job and return it."""
    job: Data = (await api.ask(CREATE, input=asked(payload, kind, **options)))["createJob"]["job"]
    return job


async def create_many(api: Api, inputs: list[Data]) -> list[str]:
    """Create jobs together and return their ids."""
    return [job["id"] for job in (await api.ask(CREATE_MANY, inputs=inputs))["createJobs"]["jobs"]]


async def find(api: Api, job_id: str) -> Data:
    """The job, which there is."""
    job: Data | None = (await api.ask(FIND, id=job_id))["job"]
    assert job is not None
    return job


async def page(api: Api, **arguments: Any) -> Data:
    """A page of jobs."""
    connection: Data = (await api.ask(PAGE, **arguments))["jobs"]
    return connection


async def history(api: Api, job_id: str, *, progress: bool = False) -> list[Data]:
    """The events of the job, without its progress unless asked for."""
    events = (await api.ask(HISTORY, id=job_id))["job"]["events"]
    return [event for event in events if progress or event["__typename"] != "JobProgress"]


async def watched(api: Api, job_id: str, **arguments: Any) -> list[Data]:
    """All events that ``jobProgress`` brings until it completes."""
    async with aclosing(api.events(WATCH, id=job_id, **arguments)) as events:
        return [event async for event in events]


async def reached(api: Api, job_id: str, status: str, *, within: float = 10.0) -> Data:
    """The job once it is in that state."""

    async def there() -> Data | None:
        job = await find(api, job_id)
        return job if job["status"] == status else None

    job = await until(there, f"{job_id} is {status}", within=within)
    assert job is not None
    return job


async def ended(api: Api, job_id: str, status: str = "COMPLETED") -> Data:
    """The job once it has ended, which it must in that state."""
    assert (await watched(api, job_id))[-1]["job"]["status"] == status
    return await find(api, job_id)


def kinds(events: list[Data]) -> list[str]:
    """What happened, in words: ``JobQueued`` is ``Queued``."""
    return [event["__typename"].removeprefix("Job") for event in events]


def lifecycle(events: list[Data]) -> list[Data]:
    """The events without progress."""
    return [event for event in events if event["__typename"] != "JobProgress"]
