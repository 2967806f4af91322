"""All processes are replaced one after the other, old ones beside new ones, while jobs are created and steered."""

import asyncio
from asyncio.subprocess import Process
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise, takewhile
from pathlib import Path

import httpx
import pytest
from gql.transport.exceptions import TransportConnectionFailed, TransportQueryError, TransportServerError

from gql_jobs.jetstream.connection import Connection
from gql_jobs.jobs.messages import Kind, Submission
from gql_jobs.jobs.model import Job, JobStatus, Spec
from gql_jobs.jobs.schedules import SCHEDULE, SCHEDULE_STATE, SkipReason, job_id_of_tick
from gql_jobs.log.codec import JobMessage
from gql_jobs.log.job_log import JobLog, folded
from gql_jobs.log.schedules import read_schedule, read_state
from gql_jobs.log.steering import SteeringLog
from gql_jobs.settings import Settings
from tests.api.operations import CREATE, asked
from tests.by_hand import stored
from tests.deadline import until
from tests.release_before_steering import EARLIER_API, EARLIER_WORKER, earlier
from tests.running import worker_process
from tests.serving import Api, Data, api_process, free_port, is_ready

__all__ = ["earlier"]
PER_KEY = 2
"""How many jobs with one concurrency key may run at a time."""
OVERLAPS = ("SKIP", "ALLOW")
"""Of each of these a schedule, whose name is that."""
LIMIT = """mutation ($most: Int!) {
  setQueueLimits(name: "default", limits: { concurrencyPerKey: $most }) { ungated }
}"""
SCHEDULED = """mutation ($name: String!, $overlap: OverlapPolicy!) {
  upsertSchedule(input: { name: $name, everySeconds: 1, overlap: $overlap, payload: { probe: { seconds: 0.2 } } }) {
    schedule { name }
  }
}"""


class _Load:
    """Jobs that clients create through whichever process is there, and ask for again until that is acknowledged."""

    def __init__(self) -> None:
        self.steering: list[Api] = []
        """The API processes that know how jobs are steered."""
        self.others: list[Api] = []
        self.acknowledged: list[str] = []
        """The ids of jobs, in the order of their acknowledgements."""

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """Create jobs until the block ends, and then wait for the answers."""
        ending = asyncio.Event()
        clients = [asyncio.create_task(self._client(number, ending)) for number in range(4)]
        try:
            yield
        finally:
            ending.set()
            await asyncio.gather(*clients)

    async def more(self, number: int = 30) -> None:
        """Wait until so many further jobs are acknowledged."""
        before = len(self.acknowledged)
        await until(lambda: len(self.acknowledged) >= before + number, "the load goes on", within=90)

    async def _client(self, client: int, ending: asyncio.Event) -> None:
        number = 0
        while not ending.is_set():
            number += 1
            # Of each four jobs three are steered, if a process is there that can.
            options = self._steered(number) if self.steering else {}
            await self._create({"idempotencyKey": f"{client}-{number}", **options}, is_steered=bool(options))
            await asyncio.sleep(0.1)

    def _steered(self, number: int) -> Data:
        match number % 4:
            case 0:
                return {"concurrencyKey": f"key-{number % 3}"}
            case 1:
                return {"key": {"value": f"unique-{number % 5}"}}
            case 2 if self.acknowledged:
                return {"after": [self.acknowledged[-1]], "afterPolicy": "RUN"}
        return {}

    async def _create(self, options: Data, *, is_steered: bool) -> None:
        """Create a job, and ask again, through whichever process is there by then, until it is acknowledged."""
        turn = 0
        while True:
            apis = self.steering if is_steered else [*self.steering, *self.others]
            turn += 1
            api = apis[turn % len(apis)]
            try:
                answer = await api.ask(CREATE, input=asked({"seconds": 0.1}, **options))
            except (TransportConnectionFailed, TransportServerError, httpx.TransportError):
                await asyncio.sleep(0.05)
            except TransportQueryError as error:
                (refusal,) = error.errors or []
                assert refusal["extensions"]["code"] == "QUEUE_UNAVAILABLE", refusal
                await asyncio.sleep(0.05)
            else:
                self.acknowledged.append(answer["createJob"]["job"]["id"])
                return


class _System:
    """Processes of both releases on one stream."""

    def __init__(self, settings: Settings, load: _Load, earlier: Path) -> None:
        self._settings = settings
        self._load = load
        self._earlier = earlier
        self._numbers = 0
        self._running: dict[str, tuple[AsyncExitStack, Process, Api | None]] = {}

    async def close(self) -> None:
        """Kill what is left."""
        for stack, _, _ in self._running.values():
            await stack.aclose()

    async def start_api(self, name: str, *, is_old: bool = False, steers: bool = False) -> None:
        """Start an API process, which clients use from then on.

        :param steers: whether the queue is limited, and schedules are defined, before that.
        """
        self._numbers += 1
        settings = self._settings.model_copy(update={"data_dir": self._settings.data_dir / str(self._numbers)})
        stack = AsyncExitStack()
        release = {"program": EARLIER_API, "root": self._earlier} if is_old else {}
        starting = api_process(settings, free_port(), ready=False, **release)  # type: ignore[arg-type]
        api, process = await stack.enter_async_context(starting)
        self._running[name] = stack, process, api
        # Beside the load it takes its time.
        await until(lambda: is_ready(api), f"{name} is ready", within=60)
        if steers:
            await self._steer(api)
        (self._load.others if is_old else self._load.steering).append(api)

    async def start_worker(self, name: str, *, is_old: bool = False) -> None:
        """Start a worker."""
        stack = AsyncExitStack()
        release = {"program": EARLIER_WORKER, "root": self._earlier} if is_old else {}
        process = await stack.enter_async_context(worker_process(self._settings, **release))  # type: ignore[arg-type]
        self._running[name] = stack, process, None

    async def stop(self, name: str) -> None:
        """Have a process end as at a deployment."""
        stack, process, api = self._running.pop(name)
        for apis in (self._load.steering, self._load.others):
            if api in apis and len(self._load.steering) + len(self._load.others) > 1:
                apis.remove(api)
        process.terminate()
        async with asyncio.timeout(60):
            await process.wait()
        await stack.aclose()

    async def _steer(self, api: Api) -> None:
        await api.ask(LIMIT, most=PER_KEY)
        for overlap in OVERLAPS:
            await api.ask(SCHEDULED, name=overlap, overlap=overlap)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("order", ["API first", "workers first"])
async def test_nothing_is_lost_or_doubled_and_no_limit_exceeded(
    job_log: JobLog, settings: Settings, earlier: Path, order: str
) -> None:
    load = _Load()
    system = _System(settings.model_copy(update={"num_workers": 4}), load, earlier)
    try:
        await system.start_api("old API", is_old=True)
        for name in ("worker 1", "worker 2"):
            await system.start_worker(name, is_old=True)
        async with load.going_on():
            await load.more()
            if order == "workers first":
                await _replace_workers(system, load)
            await system.start_api("API 1", steers=True)
            await load.more()
            await system.stop("old API")
            await load.more()
            if order == "API first":
                await _replace_workers(system, load)
            # The process that holds the gate ends as well, and the next one goes on.
            await system.start_api("API 2")
            await load.more()
            await system.stop("API 1")
            await load.more()
        jobs = await until(lambda: _all_ended(job_log, load), "all jobs have ended", within=120)
        histories = await _histories(job_log.connection)
        _each_has_ended_once(jobs, histories)
        _no_limit_was_exceeded(histories)
        _no_key_had_two(histories)
        for name in OVERLAPS:
            await _each_tick_is_one_job(SteeringLog(job_log), name, histories)
    finally:
        await system.close()


async def _replace_workers(system: _System, load: _Load) -> None:
    for name in ("worker 1", "worker 2"):
        await system.start_worker(f"new {name}")
        await load.more(15)
        await system.stop(name)
        await load.more(15)


async def _histories(connection: Connection) -> dict[str, list[JobMessage]]:
    """The messages of all jobs, by their ids."""
    found = defaultdict(list)
    for message in await stored(connection):
        if message.kind is not None:
            found[message.subject.split(".")[1]].append(message)
    return found


async def _all_ended(job_log: JobLog, load: _Load) -> dict[str, Job] | None:
    """Return the acknowledged jobs if all of them have ended."""
    histories = await _histories(job_log.connection)
    jobs = {job_id: folded(histories[job_id]) for job_id in load.acknowledged}
    found = {job_id: job for job_id, job in jobs.items() if job is not None}
    assert found.keys() == jobs.keys(), "acknowledged jobs are not there"
    return found if all(job.status.is_terminal for job in found.values()) else None


def _each_has_ended_once(jobs: dict[str, Job], histories: dict[str, list[JobMessage]]) -> None:
    assert {job.status for job in jobs.values()} == {JobStatus.COMPLETED}
    for job_id in jobs:
        happened = Counter(message.kind for message in histories[job_id])
        assert happened[Kind.COMPLETED] == 1, (job_id, happened)
    assert len({job.spec.idempotency_key for job in jobs.values()}) == len(jobs)


def _no_limit_was_exceeded(histories: dict[str, list[JobMessage]]) -> None:
    """Of the jobs that pass the gate, no more had a place at a time than may have one with one key."""
    specs = {job_id: _spec(messages[0]) for job_id, messages in histories.items()}
    placed: defaultdict[str, set[str]] = defaultdict(set)
    most = 0
    for message in sorted((one for each in histories.values() for one in each), key=lambda one: one.seq):
        job_id = message.subject.split(".")[1]
        spec = specs[job_id]
        if spec is None or spec.concurrency_key is None:
            continue
        if message.kind is Kind.QUEUED:
            placed[spec.concurrency_key].add(job_id)
        elif message.kind in {Kind.COMPLETED, Kind.FAILED, Kind.DEAD_LETTER, Kind.CANCELLED}:
            placed[spec.concurrency_key].discard(job_id)
        most = max(most, *(len(jobs) for jobs in placed.values()), 0)
    assert most == PER_KEY


def _spec(message: JobMessage) -> Spec | None:
    read = message.read()
    return read.body.spec if read is not None and isinstance(read.body, Submission) else None


def _no_key_had_two(histories: dict[str, list[JobMessage]]) -> None:
    """Of the jobs with one key, each began when the one before had ended."""
    by_key: defaultdict[str, list[list[JobMessage]]] = defaultdict(list)
    for messages in histories.values():
        spec = _spec(messages[0])
        if spec is not None and spec.key is not None:
            by_key[spec.key].append(messages)
    assert by_key
    for of_key in by_key.values():
        of_key.sort(key=lambda messages: messages[0].seq)
        for before, after in pairwise(of_key):
            assert before[-1].seq < after[0].seq


async def _each_tick_is_one_job(log: SteeringLog, name: str, histories: dict[str, list[JobMessage]]) -> None:
    schedule, state = read_schedule(await log.read(SCHEDULE, name)), read_state(await log.read(SCHEDULE_STATE, name))
    assert schedule is not None
    assert state is not None
    assert state.skips.keys() <= {SkipReason.OVERLAP}
    made = {job_id for job_id, messages in histories.items() if _is_tick(messages, name)}
    ticks = takewhile(lambda tick: tick <= state.until, schedule.ticks_after(schedule.since))
    expected = {job_id_of_tick(schedule.incarnation, tick) for tick in ticks}
    assert len(expected) > 10
    # What was made between the two looks is not known of here.
    assert made <= expected
    assert {state.job_id(tick) for tick in state.ahead} | made == expected
    for job_id in made:
        happened = Counter(message.kind for message in histories[job_id])
        assert happened[Kind.COMPLETED] + happened[Kind.CANCELLED] <= 1


def _is_tick(messages: list[JobMessage], name: str) -> bool:
    spec = _spec(messages[0])
    return spec is not None and spec.schedule == name
