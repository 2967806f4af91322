"""Three NATS nodes with three copies of everything: what one node does must also hold while its leader is killed."""

import asyncio
import json
import random
import signal
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from gql.transport.exceptions import TransportQueryError

from benchmarks.chaos.servers import Node, nodes
from benchmarks.chaos.stream import connected, leader
from gql_jobs.jetstream.connection import Connection, connect
from gql_jobs.jetstream.errors import FENCE_REFUSALS
from gql_jobs.jobs.claim import TERMINAL
from gql_jobs.jobs.errors import InvalidState, NotFound, QueueUnavailable
from gql_jobs.jobs.messages import (
    AttemptBody,
    Completed,
    DeadLetter,
    Failed,
    Kind,
    Noted,
    Receipt,
    Released,
    Started,
)
from gql_jobs.jobs.model import Job, JobStatus, new_job_id
from gql_jobs.log import codec
from gql_jobs.log.artifacts import ArtifactStore
from gql_jobs.log.codec import JobMessage
from gql_jobs.log.commands import Created, JobCommands
from gql_jobs.log.job_log import JobLog, Superseded, Write, folded, job_events, open_job_log, whole_job
from gql_jobs.log.retention import expire, expired_event, fire_overdue
from gql_jobs.log.streams import ensure_streams, stream_info
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import open_runtime
from tests.api.operations import CREATE, FEED, asked, create, ended
from tests.by_hand import bring_to
from tests.deadline import until
from tests.job_types.probe_jobs import ProbePayload
from tests.running import JOB_TYPES, running_worker
from tests.serving import Data, ServedApi, serving
from tests.stories import KIND_OF, attempt_body, request

LIFE = ["JobQueued", "JobStarted", "JobCompleted"]
BEFORE, AFTER = 5, 10


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[list[Node]]:
    """Three nodes that have found each other and a leader."""
    made = nodes(tmp_path / "cluster", 3, sync_always=False, environment={})
    async with asyncio.TaskGroup() as group, httpx.AsyncClient() as http:
        for node in made:
            group.create_task(node.program.run())
        try:
            for node in made:
                await until(lambda node=node: node.healthy(http), f"{node.name} is healthy", within=20)  # type: ignore[misc]
            yield made
        finally:
            for node in made:
                node.program.stop()
                node.program.signal(signal.SIGKILL)


@pytest.fixture
def settings(cluster: list[Node], tmp_path: Path) -> Settings:
    """Three copies, and a lease that a lost ack does not make long."""
    return Settings(nats_url=",".join(node.url for node in cluster), data_dir=tmp_path / "data", replicas=3, ack_wait=2)


async def test_three_copies_and_creations_and_subscriptions_that_outlive_the_leader(
    cluster: list[Node], settings: Settings
) -> None:
    async with serving(settings) as api, running_worker(settings):
        for stream in codec.JOBS_STREAM, codec.DEAD_LETTERS_STREAM:
            assert (await stream_info(api.runtime.connection, stream)).config["num_replicas"] == 3, stream
        job = await ended(api, (await create(api, {"steps": 2}))["id"])
        assert job["rawResult"]["attempt"] == 1
        await _crossing_writes_are_refused_with_the_other_number(settings)
        await _of_creations_that_cross_one_makes_the_job(api)

        asked_for = [f"key-{number}" for number in range(BEFORE + AFTER)]
        seen: list[Data] = []
        async with aclosing(api.events(FEED, filter={"tags": ["watched"]})) as events:
            watching = asyncio.create_task(_until_all_have_ended(events, len(asked_for), seen))
            await api.subscribers(1)
            made = [await _created(api, key) for key in asked_for[:BEFORE]]
            await _kill_the_leader(cluster, settings)
            made += [await _created(api, key) for key in asked_for[BEFORE:]]
            async with asyncio.timeout(30):
                await watching
    assert len(set(made)) == len(asked_for)
    lives: defaultdict[str, list[str]] = defaultdict(list)
    for event in seen:
        lives[event["job"]["id"]].append(event["__typename"])
    assert lives.keys() == set(made)
    # A node that dies may take the ack of a delivery with it; a job is then started once more, and ends once.
    assert {job_id: _without_takeovers(life) for job_id, life in lives.items()} == dict.fromkeys(made, LIFE)
    assert len({event["cursor"] for event in seen}) == len(seen)


def _without_takeovers(life: list[str]) -> list[str]:
    return [kind for number, kind in enumerate(life) if number == 0 or kind != "JobStarted" or life[number - 1] != kind]


async def _until_all_have_ended(events: AsyncIterator[Data], number: int, seen: list[Data]) -> None:
    ended_so_far = 0
    while ended_so_far < number:
        event = await anext(events)
        if event["__typename"] != "JobProgress":
            seen.append(event)
        ended_so_far += event["__typename"] == "JobCompleted"


async def _created(api: ServedApi, key: str) -> str:
    """The id of the job of that key: asked for again while there is no leader, as a client would."""

    async def once() -> str | None:
        try:
            made = await api.ask(CREATE, input=asked(tags=["watched"], idempotencyKey=key))
        except TransportQueryError as error:
            (refusal,) = error.errors or []
            assert refusal["extensions"]["code"] == "QUEUE_UNAVAILABLE", refusal
            return None
        return str(made["createJob"]["job"]["id"])

    return await until(once, f"the job of {key} is created", within=20)


async def _kill_the_leader(cluster: list[Node], settings: Settings) -> None:
    """SIGKILL the node that leads the stream of jobs, and leave it down."""
    client = await connected(settings.nats_url or "")
    name = await leader(client, codec.JOBS_STREAM)
    await client.close()
    (leading,) = [node for node in cluster if node.name == name]
    leading.program.hold()
    assert leading.program.signal(signal.SIGKILL)
    await leading.program.ended(within=5)


async def _crossing_writes_are_refused_with_the_other_number(settings: Settings) -> None:
    """A write that meets one still on its way to the copies; on a single node there is no such moment."""
    client = await connected(settings.nats_url or "")
    job_id = new_job_id()
    headers = whole_job(job_id, 0).headers

    async def write() -> int:
        answer = await client.request(codec.checkpoint_subject(job_id), b"{}", timeout=5, headers=headers)
        return int(json.loads(answer.data).get("error", {}).get("err_code", 0))

    codes = Counter(await asyncio.gather(*(write() for _ in range(20))))
    await client.close()
    assert codes[0] == 1
    assert codes.keys() <= {0, *FENCE_REFUSALS}
    assert codes[10164]


async def _of_creations_that_cross_one_makes_the_job(api: ServedApi) -> None:
    answers = await asyncio.gather(*(api.ask(CREATE, input=asked(idempotencyKey="once")) for _ in range(20)))
    made = [answer["createJob"] for answer in answers]
    assert len({creation["job"]["id"] for creation in made}) == 1
    assert [creation["deduplicated"] for creation in made].count(False) == 1


RACES = 12
"""Of each pair of writers."""
LATE = 0.02
"""Seconds at most by which a writer waits, so that writes cross at every moment."""


@pytest.fixture
async def two_logs(settings: Settings) -> AsyncIterator[tuple[JobLog, JobLog]]:
    """The log over two connections, as two processes have it, with streams of three copies."""
    async with AsyncExitStack() as stack:
        logs = []
        for name in ("one", "two"):
            connection = await stack.enter_async_context(connect(settings, name))
            await until(lambda c=connection: _has_streams(c, settings), "the streams are there", within=30)  # type: ignore[misc]
            logs.append(await stack.enter_async_context(open_job_log(connection)))
        yield logs[0], logs[1]


async def _has_streams(connection: Connection, settings: Settings) -> bool:
    try:
        await ensure_streams(connection, settings)
    except QueueUnavailable:
        return False
    return True


class Racers:
    """Two processes that write to the same jobs."""

    def __init__(self, settings: Settings, logs: tuple[JobLog, JobLog]) -> None:
        self.logs = logs
        self.commands = [JobCommands(job_log, settings) for job_log in logs]
        self.stores = [ArtifactStore(job_log, settings) for job_log in logs]
        self.jobs: list[str] = []

    async def job(self, status: JobStatus, **options: Any) -> Job:
        """A job in that state."""
        made = (await self.commands[0].create(request(**options))).job
        self.jobs.append(made.id)
        return await bring_to(self.logs[0], self.commands[0], made, status) if options.get("run_at") is None else made

    def event(self, number: int, job: Job, kind: type[AttemptBody], attempt: int = 1) -> Awaitable[int]:
        """An event of a worker of the process ``number`` that knows the job as it is."""
        body = attempt_body(kind, attempt, job.submission_seq)
        subject = codec.event_subject(job.id, KIND_OF[kind])
        return self.logs[number].append(Write(job.id, subject, body, job_events(job.id, job.event_seq)))

    def receipt(self, number: int, job: Job) -> Awaitable[int]:
        """A receipt of a cancellation, as a worker writes it."""
        body = Noted(
            submission=job.submission_seq,
            receipt=Receipt.STOPPED,
            cancelled_seq=job.event_seq,
            attempt=1,
            worker_id="w",
        )
        fence = job_events(job.id, job.event_seq)
        return self.logs[number].append(Write(job.id, codec.note_subject(job.id), body, fence))

    def expire(self, number: int, job: Job) -> Awaitable[int]:
        """An expiry that reads the job first."""
        ahead = datetime.now(UTC) + timedelta(hours=1)
        return expire(self.logs[number], self.stores[number], job.id, ahead)

    def expire_unread(self, number: int, job: Job) -> Awaitable[int]:
        """An expiry by what the index knows."""
        return self.logs[number].append(expired_event(job.id, job.event_seq, job.last_seq))

    def fire(self, number: int, job: Job) -> Awaitable[bool]:
        """A late schedule, fired by the sweep."""
        return fire_overdue(self.logs[number], job.id, datetime.now(UTC) + timedelta(days=2))


Racer = Callable[[Racers, int, Job], Awaitable[Any]]
"""A writer of the process with that number, 0 or 1, to a job."""


def _cancel(racers: Racers, number: int, job: Job) -> Awaitable[Any]:
    return racers.commands[number].cancel(job.id)


def _retry(racers: Racers, number: int, job: Job) -> Awaitable[Any]:
    return racers.commands[number].retry(job.id)


def _event(kind: type[AttemptBody], attempt: int = 1) -> Racer:
    return lambda racers, number, job: racers.event(number, job, kind, attempt)


_P, _D, _C, _Q, _R = (
    JobStatus.PROCESSING,
    JobStatus.DEAD_LETTER,
    JobStatus.CANCELLED,
    JobStatus.QUEUED,
    JobStatus.RETRYING,
)
EXCLUSIVE: list[tuple[JobStatus, Racer, Racer]] = [
    (_D, _retry, _retry),
    (_C, _retry, _retry),
    (_D, _retry, Racers.expire),
    (_D, _retry, Racers.expire_unread),
    (_C, Racers.expire, Racers.expire_unread),
    (_Q, _event(Started), _event(Started)),
    (_R, _event(Started, 2), _event(Started, 2)),
    (_P, _cancel, _event(Completed)),
    (_P, _cancel, _event(DeadLetter)),
    (_P, _event(Completed), _event(Started, 2)),
    (_P, _event(Failed), _event(Started, 2)),
    (_P, _event(Released), _event(Started, 2)),
    (_P, _event(Completed), _event(DeadLetter)),
    (_P, _event(Started, 2), _event(DeadLetter)),
]
"""A state, and two writers of which only one may win there."""
ORDERED: list[tuple[JobStatus, Racer, Racer]] = [
    (_Q, _cancel, _event(Started)),
    (_R, _cancel, _event(Started, 2)),
    (_P, _cancel, _event(Failed)),
    (_P, _cancel, _event(Released)),
    (_P, _cancel, _event(Started, 2)),
]
"""A state, a cancellation, and what may come before it but never after it."""
BESIDE: list[tuple[JobStatus, Racer, Racer]] = [
    (_C, _retry, Racers.receipt),
    (_C, Racers.expire, Racers.receipt),
    (_C, Racers.expire_unread, Racers.receipt),
]
"""A state, a writer, and a receipt, which is fenced otherwise and changes no state: both may be stored."""


async def test_of_any_two_writers_that_cross_one_wins_and_every_reader_folds_the_same(
    settings: Settings, two_logs: tuple[JobLog, JobLog], tmp_path: Path
) -> None:
    racers = Racers(settings, two_logs)
    async with open_runtime(settings, JOB_TYPES) as live:
        for status, first, second in EXCLUSIVE:
            for won in await _raced(racers, status, first, second):
                assert sum(won) == 1, (status, first, second, won)
        for status, first, second in ORDERED:
            for won in await _raced(racers, status, first, second):
                assert won[0], (status, second)
        for status, first, second in BESIDE:
            for won in await _raced(racers, status, first, second):
                assert any(won), (status, first, won)
        await _late_schedules(racers)
        await _one_key(racers)
        await until(lambda: live.feed.caught_up, "the live index has everything")
        last = (await stream_info(two_logs[0].connection)).state.last_seq
        assert await live.feed.wait_for(last, 10)
        folds = {job_id: folded(await two_logs[1].history(job_id)) for job_id in racers.jobs}
        assert {job_id: live.index.job(job_id) for job_id in racers.jobs} == folds
        later = settings.model_copy(update={"data_dir": tmp_path / "later"})
        async with open_runtime(later, JOB_TYPES) as built:
            assert await built.feed.wait_for(last, 10)
            assert {job_id: built.index.job(job_id) for job_id in racers.jobs} == folds
        for job_id, job in folds.items():
            _is_legal(await two_logs[0].history(job_id), job)


async def _raced(racers: Racers, status: JobStatus, first: Racer, second: Racer) -> list[tuple[bool, bool]]:
    """Which of the two have won, of each race."""

    async def race() -> tuple[bool, bool]:
        job = await racers.job(status)
        outcomes = await asyncio.gather(
            late(first(racers, 0, job)), late(second(racers, 1, job)), return_exceptions=True
        )
        return _won(outcomes[0]), _won(outcomes[1])

    async def late(writer: Awaitable[Any]) -> Any:
        # A command reads the job before it writes, so that its write would always come after an event's.
        await asyncio.sleep(random.uniform(0, LATE))  # noqa: S311 - nothing secret
        return await writer

    return await asyncio.gather(*(race() for _ in range(RACES)))


def _won(outcome: object) -> bool:
    if isinstance(outcome, BaseException):
        assert isinstance(outcome, Superseded | InvalidState | NotFound), outcome
        return False
    return outcome != 0


async def _late_schedules(racers: Racers) -> None:
    """The sweep fences over the whole job, a cancellation over events: whichever is stored, the job is cancelled."""
    ahead = datetime.now(UTC) + timedelta(days=1)

    async def cancelled() -> None:
        job = await racers.job(JobStatus.SCHEDULED, run_at=ahead)
        await asyncio.gather(racers.fire(0, job), racers.commands[1].cancel(job.id))
        now = await racers.commands[0].find(job.id)
        assert now is not None
        assert now.status is JobStatus.CANCELLED
        queued = [message for message in await racers.logs[0].history(job.id) if message.kind is Kind.QUEUED]
        for message in queued:
            # What a worker writes to whom it is delivered.
            body = attempt_body(Started, 1, message.seq)
            subject = codec.event_subject(job.id, Kind.STARTED)
            with pytest.raises(Superseded):
                await racers.logs[1].append(Write(job.id, subject, body, job_events(job.id, 0)))

    async def fired() -> None:
        job = await racers.job(JobStatus.SCHEDULED, run_at=ahead)
        assert sum(await asyncio.gather(racers.fire(0, job), racers.fire(1, job))) == 1

    await asyncio.gather(*(cancelled() for _ in range(RACES)), *(fired() for _ in range(RACES)))


async def _one_key(racers: Racers) -> None:
    async def race(key: str) -> None:
        outcomes = await asyncio.gather(
            *(
                commands.create(request(ProbePayload(steps=number), idempotency_key=key))
                for number, commands in enumerate(racers.commands)
            ),
            return_exceptions=True,
        )
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Created", "IdempotencyConflict"]
        racers.jobs.append(next(outcome.id for outcome in outcomes if isinstance(outcome, Created)))

    await asyncio.gather(*(race(f"key-{number}") for number in range(RACES)))


def _is_legal(history: list[JobMessage], job: Job | None) -> None:
    """After the end of a submission there is no event but the next submission, receipts and an expiry."""
    ended = False
    for message in history:
        if message.kind in TERMINAL:
            assert not ended or message.kind is Kind.EXPIRED, (job, [m.subject for m in history])
            ended = True
        elif message.kind is Kind.QUEUED:
            # One that is stored beside a cancellation is void, because it names another last event.
            ended = ended and job is not None and job.status is JobStatus.CANCELLED
        elif message.is_event:
            assert not ended, (job, [m.subject for m in history])
