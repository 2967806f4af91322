"""Large stores, written straight into the stream: what as many creations through the API would have left there.

Bodies are made by the log's own codec, in the order that a busy worker leaves; the fences are left out, because every
job is new and nobody else writes.
"""

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import cycle, islice

import msgspec
from msgspec import Raw
from nats.aio.client import Client

from benchmarks.stack import EMAIL
from gql_jobs.jobs.messages import Body, Completed, Kind, Started, Submission
from gql_jobs.jobs.payloads import accept
from gql_jobs.jobs.registry import load_job_types
from gql_jobs.jobs.requests import JobRequest
from gql_jobs.jobs.viewer import ANYBODY, Scope, Viewer
from gql_jobs.log import codec
from gql_jobs.log.codec import encode_body
from gql_jobs.settings import Settings

_WINDOW = 2000
"""Messages between two acknowledgements; the server drops what it has not the room to hold."""
_ROUND = 1000
"""Jobs that are queued together before they run."""


async def queue_up(url: str, jobs: int) -> None:
    """Queue no-op jobs in an empty stream."""
    await write_all(url, _queued(jobs))


async def finish(url: str, jobs: int, tenant: str | None = None) -> int:
    """Write the whole histories of finished no-op jobs into an empty stream; returns the number of messages.

    :param tenant: every other job is its; none is anybody's without it.
    """
    return await write_all(url, _finished(jobs, tenant))


async def write_all(url: str, messages: Iterator[tuple[str, Body]]) -> int:
    """Write messages into an empty stream, given by subject and body; returns their number."""
    client = Client()
    await client.connect(url, pending_size=1 << 26)
    written = 0
    while window := list(islice(messages, _WINDOW)):
        for subject, body in window[:-1]:
            await client.publish(subject, encode_body(body))
        subject, body = window[-1]
        answer = msgspec.json.decode((await client.request(subject, encode_body(body), timeout=30)).data)
        written += len(window)
        if answer.get("seq") != written:
            raise RuntimeError(f"message {written} was answered with {answer}")
    await client.close()
    return written


def submissions(tenant: str | None = None) -> Iterator[tuple[str, Body]]:
    """Yield submissions of no-op jobs with the ids of these, without end; every other one is of the tenant."""
    registry = load_job_types(("benchmarks.job_types",))
    job_type = registry.get("noop")
    assert job_type is not None
    request = JobRequest.of(job_type, accept(job_type.payload, EMAIL))
    settings = Settings()
    owner = ANYBODY if tenant is None else Viewer("key:back end", frozenset(Scope), tenant)
    for viewer in cycle((ANYBODY, owner)):
        job_id = str(uuid.uuid4())
        spec = request.spec(datetime.now(UTC), settings, viewer=viewer)
        yield job_id, Submission(spec=spec)


def _queued(jobs: int) -> Iterator[tuple[str, Body]]:
    for job_id, body in islice(submissions(), jobs):
        assert isinstance(body, Submission)
        yield codec.queued_subject(job_id, body.spec.queue, body.spec.priority), body


def _finished(jobs: int, tenant: str | None) -> Iterator[tuple[str, Body]]:
    made, seq = submissions(tenant), 0
    for start in range(0, jobs, _ROUND):
        ids: list[tuple[str, int]] = []
        for job_id, body in islice(made, min(_ROUND, jobs - start)):
            assert isinstance(body, Submission)
            seq += 1
            ids.append((job_id, seq))
            yield codec.queued_subject(job_id, body.spec.queue, body.spec.priority), body
        for job_id, submission in ids:
            started = Started(submission=submission, attempt=1, worker_id="worker-1")
            yield codec.event_subject(job_id, Kind.STARTED), started
            completed = Completed(submission=submission, attempt=1, worker_id="worker-1", result=Raw(b"{}"))
            yield codec.event_subject(job_id, Kind.COMPLETED), completed
            seq += 2
