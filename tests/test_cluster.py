"""Three NATS nodes with three copies of everything: what one node does must also hold while its leader is killed."""

import asyncio
import json
import random
import signal
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from gql.transport.exceptions import TransportQueryError
from msgspec.structs import replace

from benchmarks.chaos.servers import Node, nodes
from benchmarks.chaos.stream import connected, leader
from gql_jobs.jetstream.connection import Connection, connect
from gql_jobs.jetstream.errors import FENCE_REFUSALS
from gql_jobs.jobs.changes import JobChanges
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
    Submission,
)
from gql_jobs.jobs.model import Gate, Job, JobStatus, Spec, new_job_id
from gql_jobs.jobs.payload_codec import StoredPayloads
from gql_jobs.log import codec
from gql_jobs.log.artifacts import ArtifactStore
from gql_jobs.log.codec import JobMessage
from gql_jobs.log.commands import Created, JobCommands, creation
from gql_jobs.log.deletion import JobDeletions
from gql_jobs.log.edits import complete_edit, edited_event
from gql_jobs.log.gate_lease import LANES, GateLease
from gql_jobs.log.job_log import JobLog, Superseded, Write, folded, job_events, open_job_log, whole_job
from gql_jobs.log.retention import expire, expired_event, fire_overdue
from gql_jobs.log.steering import SteeringLog
from gql_jobs.log.streams import ensure_streams, stream_info
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime, open_runtime
from tests.api.operations import CREATE, FEED, asked, create, ended
from tests.by_hand import bring_to
from tests.deadline import until
from tests.job_types.probe_jobs import ProbePayload
from tests.running import JOB_TYPES, running_worker
from tests.serving import Data, ServedApi, serving
from tests.stories import KIND_OF, attempt_body, request, spec

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
        parts = zip(logs, self.commands, self.stores, strict=True)
        self.deletions = [JobDeletions(*each) for each in parts]
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


def _update(racers: Racers, number: int, job: Job) -> Awaitable[Any]:
    return racers.commands[number].update(job.id, JobChanges.of(tags=(f"changed-{number}",)))


def _delete(racers: Racers, number: int, job: Job) -> Awaitable[Any]:
    return racers.deletions[number].delete(job.id)


def _edit(racers: Racers, number: int, job: Job) -> Awaitable[Any]:
    return racers.commands[number].update(job.id, JobChanges.of(tags=(f"edited by {number}",)))


def _edit_as_known(racers: Racers, number: int, job: Job) -> Awaitable[Any]:
    """An edit by what was known, which is not decided again."""
    spec, changed = JobChanges.of(tags=(f"edited by {number}",)).applied(job, StoredPayloads(), datetime.now(UTC))
    write = edited_event(job, spec, changed, None, [])
    return racers.logs[number].append(write._replace(fence=job_events(job.id, job.event_seq)))


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
    (_Q, _edit, _event(Started)),
    (_Q, _edit_as_known, _event(Started)),
    (_Q, _edit_as_known, _edit_as_known),
]
"""A state, and two writers of which only one may win there."""
ORDERED: list[tuple[JobStatus, Racer, Racer]] = [
    (_Q, _cancel, _event(Started)),
    (_R, _cancel, _event(Started, 2)),
    (_P, _cancel, _event(Failed)),
    (_P, _cancel, _event(Released)),
    (_P, _cancel, _event(Started, 2)),
    (_Q, _cancel, _edit),
    (_C, _retry, _edit),
    (_Q, _edit, _edit),
]
"""A state, what wins there whatever comes before it, and what may come before or after it."""
BESIDE: list[tuple[JobStatus, Racer, Racer]] = [
    (_C, _retry, Racers.receipt),
    (_C, Racers.expire, Racers.receipt),
    (_C, Racers.expire, _edit),
    (_C, Racers.expire_unread, _edit),
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
        await _edits(racers)
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


DELETED_OR_STARTED: list[tuple[JobStatus, Racer]] = [(_Q, _event(Started)), (_R, _event(Started, 2))]
"""A state, and a start: either that is stored or the deletion."""
DELETED_IN_THE_END: list[tuple[JobStatus, Racer]] = [
    *((_Q, _cancel), (_R, _cancel), (_D, _retry), (_C, _retry), (_C, Racers.receipt)),
    *((_D, Racers.expire), (_C, Racers.expire_unread), (_Q, _delete), (_D, _delete), (_Q, _update)),
]
"""A state, and a writer that may come before a deletion, or beside it, but keeps it from nothing."""


async def test_whatever_crosses_a_deletion_the_job_is_gone_or_it_has_started(
    settings: Settings, two_logs: tuple[JobLog, JobLog], tmp_path: Path
) -> None:
    racers = Racers(settings, two_logs)
    async with open_runtime(settings, JOB_TYPES) as live:
        for status, start in DELETED_OR_STARTED:
            for won in await _raced(racers, status, _delete, start):
                assert sum(won) == 1, (status, won)
        started = {job_id: await racers.commands[0].find(job_id) for job_id in racers.jobs}
        for status, other in DELETED_IN_THE_END:
            for won in await _raced(racers, status, _delete, other):
                assert won[0], (status, other)
        await _deletions_of_schedules(racers)
        gone = set(racers.jobs) - {job_id for job_id, job in started.items() if job is not None}
        for job_id in gone:
            assert await racers.commands[1].find(job_id) is None
        await until(lambda: _are_clean(racers, gone), "nothing is left of them", within=30)
        await until(lambda: live.feed.caught_up, "the live index has everything")
        later = settings.model_copy(update={"data_dir": tmp_path / "later"})
        async with open_runtime(later, JOB_TYPES) as built:
            for runtime in (live, built):
                await until(partial(_knows, runtime, started, gone), "the index has the same jobs", within=20)


async def _deletions_of_schedules(racers: Racers) -> None:
    """A schedule that the sweep or the server fires just then has no fence over events: it makes a ghost at most."""

    async def race() -> None:
        due = datetime.now(UTC) + timedelta(seconds=random.uniform(0.2, 1))  # noqa: S311 - nothing secret
        job = await racers.job(JobStatus.SCHEDULED, run_at=due)
        await asyncio.sleep((due - datetime.now(UTC)).total_seconds() + random.uniform(-0.02, 0.02))  # noqa: S311
        _, outcome = await asyncio.gather(racers.fire(0, job), racers.deletions[1].delete(job.id))
        assert outcome.deleted

    await asyncio.gather(*(race() for _ in range(RACES)))


async def _are_clean(racers: Racers, job_ids: set[str]) -> bool:
    histories = [await racers.logs[0].history(job_id) for job_id in job_ids]
    return all(message.kind is Kind.EXPIRED for history in histories for message in history)


def _knows(runtime: Runtime, started: dict[str, Job | None], gone: set[str]) -> bool:
    known = {job_id for job_id, job in started.items() if job is not None}
    return {job_id for job_id in {*started, *gone} if runtime.index.job(job_id) is not None} == known


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


async def _edits(racers: Racers) -> None:
    """Whatever crosses an edit of a scheduled job: it starts once, as it was changed into, or is cancelled."""

    async def while_it_fires() -> None:
        job = await racers.job(JobStatus.SCHEDULED, run_at=datetime.now(UTC) + timedelta(seconds=0.5))
        await asyncio.sleep(0.5 + random.uniform(-0.1, 0.4))  # noqa: S311 - nothing secret
        await _edit(racers, 1, job)
        await until(lambda: _is_queued_at_last(racers, job), "the job is queued", within=20)
        await starts_once(job, ("edited by 1",))

    async def while_it_is_edited() -> None:
        job = await racers.job(JobStatus.SCHEDULED, run_at=datetime.now(UTC) + timedelta(days=1))
        await asyncio.gather(_edit(racers, 0, job), _edit(racers, 1, job))
        now = await racers.commands[0].find(job.id)
        assert now is not None
        assert now.status is JobStatus.SCHEDULED
        schedules = [m for m in await racers.logs[0].history(job.id) if m.kind is Kind.SCHEDULED]
        assert [message.seq for message in schedules] == [now.submission_seq]

    async def while_it_is_cancelled() -> None:
        job = await racers.job(JobStatus.SCHEDULED, run_at=datetime.now(UTC) + timedelta(days=1))
        changes = JobChanges.of(run_at=None, tags=("edited",))
        await asyncio.gather(
            racers.commands[0].cancel(job.id), racers.commands[1].update(job.id, changes), return_exceptions=True
        )
        now = await racers.commands[0].find(job.id)
        assert now is not None
        assert now.status is JobStatus.CANCELLED

    async def while_its_edit_is_completed() -> None:
        job = await racers.job(JobStatus.SCHEDULED, run_at=datetime.now(UTC) + timedelta(days=1))
        spec, changed = JobChanges.of(run_at=None, tags=("edited",)).applied(job, StoredPayloads(), datetime.now(UTC))
        history = await racers.logs[0].history(job.id)
        await racers.logs[0].append(edited_event(job, spec, changed, None, history))
        done = await asyncio.gather(
            complete_edit(racers.logs[0], job.id),
            complete_edit(racers.logs[1], job.id),
            racers.commands[1].update(job.id, JobChanges.of(tags=("edited",))),
        )
        assert sum(one is True for one in done) <= 1
        await starts_once(job, ("edited",))

    async def starts_once(job: Job, tags: tuple[str, ...]) -> None:
        started = []
        for message in await racers.logs[0].history(job.id):
            if message.kind is Kind.QUEUED:
                submission = message.read()
                assert submission is not None
                body = attempt_body(Started, 1, message.seq)
                fence = job_events(job.id, submission.body.event_seq)
                write = Write(job.id, codec.event_subject(job.id, Kind.STARTED), body, fence)
                with suppress(Superseded):
                    await racers.logs[1].append(write)
                    started.append(submission.body.spec.tags)
        assert started == [tags]

    races = (while_it_fires, while_it_is_edited, while_it_is_cancelled, while_its_edit_is_completed)
    await asyncio.gather(*(race() for race in races for _ in range(RACES)))


async def _is_queued_at_last(racers: Racers, job: Job) -> bool:
    """Whether the job is queued, by the server or, if a firing has ended the schedule of an edit, by the sweep."""
    now = await racers.commands[0].find(job.id)
    if now is not None and now.status is not JobStatus.QUEUED:
        await fire_overdue(racers.logs[0], job.id, datetime.now(UTC) - timedelta(seconds=2))
    return now is not None and now.status is JobStatus.QUEUED


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
        elif message.kind in {Kind.QUEUED, Kind.SCHEDULED}:
            # One that is stored beside a cancellation is void, because it names another last event.
            ended = ended and job is not None and job.status is JobStatus.CANCELLED
        elif message.is_event:
            assert not ended, (job, [m.subject for m in history])


async def test_the_gate_releases_every_job_and_a_replaced_holder_none(settings: Settings) -> None:
    async with (
        open_runtime(settings, JOB_TYPES) as runtime,
        connect(settings, "other") as other,
        open_job_log(other) as job_log,
    ):
        held = [creation(new_job_id(), _held_back()) for _ in range(200)]
        assert all(isinstance(seq, int) for seq in await job_log.append_in_order(held))
        await until(lambda: runtime.gate.counters.released == len(held), "all are released", within=30)
        taken = 0
        for _ in range(10):
            taken = await _take_the_gate_while_it_releases(job_log, runtime, taken)


def _held_back() -> Spec:
    return spec(gate=Gate(), created_at=datetime.now(UTC))


async def _take_the_gate_while_it_releases(job_log: JobLog, runtime: Runtime, taken: int) -> int:
    """Jobs are released until another process has the gate: not one of them behind the lease that it was fenced by.

    :param taken: where another one has had it before.
    :returns: where it has it now.
    """
    await until(lambda: min(runtime.gate.lease.held, default=0) > taken, "the gate is held", within=30)
    usurper = GateLease(SteeringLog(job_log))
    writes = [creation(new_job_id(), _held_back()) for _ in range(60)]
    fences = {write.job_id: runtime.gate.lease.fence_of(write.job_id) for write in writes}
    for message in await SteeringLog(job_log).all(codec.GATE_LEASES):
        usurper.observe(message)

    async def release(write: Write) -> int | None:
        body = write.body
        assert isinstance(body, Submission)
        target = codec.queued_subject(write.job_id, body.spec.queue, body.spec.priority)
        try:
            return await job_log.append(Write(write.job_id, target, replace(body, release=True), fences[write.job_id]))
        except Superseded:
            return None

    releasing = asyncio.gather(*map(release, writes))
    taking, released = await usurper.acquire(), await releasing
    assert all(seq is None or seq < taking for seq in released)
    lanes = dict(zip(range(LANES), usurper.held, strict=True))
    for write, seq in zip(writes, released, strict=True):
        assert seq is None or seq < lanes[GateLease.lane_of(write.job_id)], "behind the lease that it was fenced by"
    await usurper.renew(ends=True)
    return taking
