"""Whatever is asked over HTTP and over NATS is answered alike, also of jobs that came the other way."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from gql_jobs.client.errors import ClientError, NotFound, PartlyCreated
from gql_jobs.client.http_transport import HttpTransport
from gql_jobs.client.transport import Creation, Edit, JobEvent, JobSnapshot, Transport
from gql_jobs.jobs.model import DependencyPolicy, JobPriority, JobStatus, job_id_for_key, new_job_id
from gql_jobs.jobs.unique_keys import KeyPolicy, UniqueKey
from gql_jobs.log.commands import HEADROOM, JobCommands
from gql_jobs.log.job_log import JobLog
from gql_jobs.settings import Settings
from tests.by_hand import bring_to, report
from tests.client.nats_clients import PROBE_TYPE, client_of, creation
from tests.deadline import until
from tests.running import running_worker
from tests.serving import HOST, ServedApi, serving

BY_HTTP, BY_NATS = "http", "nats"
ANY_ID = new_job_id()
LATER = datetime.now(UTC) + timedelta(hours=2)
_KEYS = ("a", "b", "c")
Clients = dict[str, Transport]


@pytest.fixture
async def clients(api: ServedApi, settings: Settings) -> AsyncIterator[Clients]:
    """A client of the API, and one beside the broker."""
    async with client_of(settings) as by_nats:
        by_http = HttpTransport(f"http://{HOST}:{api.port}", patience=10)
        try:
            yield {BY_HTTP: by_http, BY_NATS: by_nats}
        finally:
            await by_http.close()


@pytest.fixture
def commands(job_log: JobLog, settings: Settings) -> JobCommands:
    """What another process decides."""
    return JobCommands(job_log, settings)


async def _answer(asked: Awaitable[Any], names: dict[str, str]) -> Any:
    """What comes of a call, with names in the place of ids, and without times and the texts that have them."""
    try:
        answer = await asked
    except PartlyCreated as partly:
        cause = partly.__cause__
        assert isinstance(cause, ClientError)
        return "partly", [job is not None for job in partly.created], partly.uncertain, _refusal(cause, names)
    except ClientError as error:
        return _refusal(error, names)
    return _named(answer, names)


def _refusal(error: ClientError, names: dict[str, str]) -> Any:
    told = {
        key: names.get(str(value), value)
        for key, value in error.extensions.items()
        if key not in {"fields", "acceptedIds", "acceptedInputs", "uncertainIds", "uncertainInputs", "oldestCursor"}
    }
    return type(error), error.field, error.fields, told


def _named(answer: Any, names: dict[str, str]) -> Any:
    if isinstance(answer, list):
        return [_named(one, names) for one in answer]
    if isinstance(answer, JobSnapshot):
        return (
            names[answer.id], answer.status, answer.priority, answer.tags, answer.progress, answer.attempts,
            answer.max_retries, answer.timeout, answer.run_at, answer.result, [one.type for one in answer.errors],
        )  # fmt: skip
    if isinstance(answer, JobEvent):
        return type(answer), _named(answer.job, names)
    if hasattr(answer, "deduplicated"):
        return names.get(answer.id, "new"), answer.deduplicated
    return answer


_EMAIL = creation(None, type_name="email", to="ada@example.com", subject="Hello", body="")
"""What the jobs here cannot be made into."""


class _Twins:
    """Two alike jobs for each thing that happens: one is dealt with over HTTP, the other one over NATS."""

    def __init__(self, clients: Clients, job_log: JobLog, commands: JobCommands, seed: int) -> None:
        self._clients = clients
        self._log = job_log
        self._commands = commands
        self._random = random.Random(seed)  # noqa: S311
        self._ids: dict[str, dict[str, str]] = {
            way: {"nobody": new_job_id(), **{key: job_id_for_key(f"{way} {key}") for key in _KEYS}} for way in clients
        }
        """By the way: the id of each job by its name, which is the end of its key."""

    def _names(self, way: str) -> dict[str, str]:
        return {job_id: name for name, job_id in self._ids[way].items()}

    async def ask_both(self, call: Callable[[Transport, str], Awaitable[Any]]) -> None:
        """Ask over both ways, each of its own twin, and compare the answers."""
        by_http, by_nats = [await _answer(call(self._clients[way], way), self._names(way)) for way in self._clients]
        assert by_http == by_nats

    async def create(self) -> None:
        asked = [self._creation(self._random.choice(_KEYS)) for _ in range(self._random.choice([1, 1, 3]))]
        await self.ask_both(lambda client, way: client.create([one(way) for one in asked]))

    def _creation(self, key: str) -> Callable[[str], Creation]:
        """A creation that one way makes under its own key; some are refused."""
        options: dict[str, Any] = self._random.choice(
            [
                {},
                {},
                {"steps": 1},
                {"priority": JobPriority.HIGH, "tags": ("a", "b", "a"), "timeout": 5.0, "max_retries": 0},
                {"run_at": LATER},
                {"tags": ("good", "bad\n")},
                {"max_retries": 101},
                {"timeout": 0.01},
                {"run_at": datetime.now(UTC) + timedelta(days=800)},
                {"origin": "no-id"},
                {"origin": new_job_id()},
                {"concurrency_key": "one", "start_before": LATER},
                {"start_before": LATER, "run_at": LATER},
                {"concurrency_key": "bad\n"},
                {"after": (new_job_id(),)},
                {"after": ("no-id",), "after_policy": DependencyPolicy.RUN},
                {"after": (ANY_ID, ANY_ID)},
                *({"policy": policy, "steps": self._random.choice([1, 2])} for policy in KeyPolicy),
                {"policy": KeyPolicy.REPLACE, "run_at": LATER},
                {"policy": KeyPolicy.REPLACE, "max_delay": 0},
                {"policy": KeyPolicy.RETURN, "max_delay": 5},
                {"payload": b'{"steps": "many", "unknown": 1}'},
                {"payload": b'{"saves": {"a": [1, 2.50, "\\u00e9"]}, "seconds": 1e2}'},
            ]
        )
        policy, max_delay = options.pop("policy", None), options.pop("max_delay", None)
        keyed = self._random.random() < 0.8 or policy is not None

        def of(way: str) -> Creation:
            own = f"{way} {key}" if keyed else None
            if "payload" in options:
                return Creation(PROBE_TYPE, options["payload"], own)
            shared = UniqueKey(f"{way} shared", policy, max_delay) if policy is not None else None
            return creation(own, job_key=shared, **options)

        return of

    async def move(self) -> None:
        """Have a worker do the same with both twins."""
        name = self._a_job()
        status = self._random.choice([JobStatus.PROCESSING, JobStatus.COMPLETED, JobStatus.DEAD_LETTER])
        for way in self._clients:
            job = await self._commands.find(self._ids[way][name])
            if job is None or job.status is not JobStatus.QUEUED or job.attempt:
                return
            await bring_to(self._log, self._commands, job, status)
            if status is JobStatus.PROCESSING:
                await report(self._log, job, 40)

    def _a_job(self) -> str:
        return self._random.choice([*_KEYS, "nobody"])

    async def cancel(self) -> None:
        name = self._a_job()
        await self.ask_both(lambda client, way: client.cancel(self._ids[way][name]))

    async def retry(self) -> None:
        name = self._a_job()
        payload = self._random.choice([None, None, creation(None, steps=3), _EMAIL])
        await self.ask_both(lambda client, way: client.retry(self._ids[way][name], payload))

    async def update(self) -> None:
        name = self._a_job()
        edit = self._random.choice(
            [
                Edit(),
                Edit(run_at=None),
                Edit(run_at=LATER + timedelta(hours=1), tags=("later",)),
                Edit(run_at=LATER.replace(year=LATER.year + 3)),
                Edit(priority=JobPriority.CRITICAL, tags=()),
                Edit(tags=("good", "bad\n")),
                Edit(payload=creation(None, steps=self._random.choice([1, 2]))),
                Edit(payload=Creation(PROBE_TYPE, b'{"steps": "many", "unknown": 1}')),
                Edit(payload=_EMAIL),
            ]
        )
        await self.ask_both(lambda client, way: client.update(self._ids[way][name], edit))

    async def look(self) -> None:
        """Ask of each job what is known of it, over both ways, whichever it came by."""
        name = self._a_job()
        for way in self._clients:
            job_id = self._ids[way][name]
            shown = await self._clients[BY_NATS].find(job_id)
            await until(partial(self._is_shown, job_id, shown), "the index has followed")
            if shown is None:
                continue
            told = [await _first_events(client, job_id, shown) for client in self._clients.values()]
            assert told[0] == told[1]
            after = self._random.choice([told[0][-1].cursor, "100000", "nothing"])
            if shown.status.is_terminal or not after[0].isdecimal() or after == "100000":
                answers = [await _answer(_all(one, job_id, after), {}) for one in self._clients.values()]
                assert answers[0] == answers[1]
        await self.ask_both(lambda client, way: client.artifacts(self._ids[way][name]))

    async def _is_shown(self, job_id: str, shown: JobSnapshot | None) -> bool:
        return await self._clients[BY_HTTP].find(job_id) == shown


async def _first_events(client: Transport, job_id: str, shown: JobSnapshot) -> list[JobEvent]:
    events = client.events(job_id, None)
    try:
        return [await anext(events)] if not shown.status.is_terminal else [event async for event in events]
    finally:
        await events.aclose()


async def _all(client: Transport, job_id: str, after: str | None) -> list[JobEvent]:
    return [event async for event in client.events(job_id, after)]


@pytest.mark.parametrize("seed", range(20, 26))
async def test_the_same_calls_have_the_same_answers_and_either_way_sees_what_the_other_one_did(
    clients: Clients, job_log: JobLog, commands: JobCommands, seed: int
) -> None:
    twins = _Twins(clients, job_log, commands, seed)
    steps = [twins.create, twins.create, twins.move, twins.cancel, twins.retry, twins.update, twins.update, twins.look]
    choose = random.Random(seed)  # noqa: S311
    for _ in range(60):
        await choose.choice(steps)()


async def test_a_payload_that_is_too_large_is_refused_with_the_same_sizes(clients: Clients, job_log: JobLog) -> None:
    too_large = creation("k", gate="x" * (job_log.max_payload - HEADROOM))
    answers = [await _answer(client.create([too_large]), {}) for client in clients.values()]
    assert answers[0] == answers[1]
    assert answers[0][3]["limitBytes"] == job_log.max_payload - HEADROOM
    batch = [creation(), too_large]
    assert len({str(await _answer(client.create(batch), {})) for client in clients.values()}) == 1


async def test_a_full_store_refuses_either_way(settings: Settings) -> None:
    tiny = settings.model_copy(update={"max_store_bytes": 1 << 20, "queue_full_ratio": 0.01})
    async with serving(tiny) as api, client_of(tiny, patience=0.2) as by_nats:
        by_http = HttpTransport(f"http://{HOST}:{api.port}", patience=0.2)
        await by_nats.create([creation(gate="x" * 50_000)])
        await until(lambda: _is_full(by_http), "the API has asked how full the store is")
        async with client_of(tiny, patience=0.2) as another:
            assert await _is_full(another)
        await by_http.close()


async def _is_full(client: Transport) -> bool:
    answer = await _answer(client.create([creation()]), {})
    return isinstance(answer, tuple) and getattr(answer[0], "__name__", "") == "QueueFull"


@pytest.mark.parametrize(("creator", "waiter"), [(BY_HTTP, BY_NATS), (BY_NATS, BY_HTTP)])
async def test_what_is_created_one_way_is_waited_for_and_fetched_the_other(
    clients: Clients, settings: Settings, creator: str, waiter: str
) -> None:
    asked = [creation("k", artifact="a.bin", artifact_bytes=5000), creation(permanent=True), creation(run_at=_soon())]
    made = await clients[creator].create(asked)
    again = await clients[waiter].create(asked[:1])
    assert [(one.id, one.deduplicated) for one in again] == [(made[0].id, True)]
    waiting = [asyncio.create_task(clients[waiter].ended(one.id)) for one in made]
    async with running_worker(settings):
        ended = await asyncio.gather(*waiting)
    assert [job.status for job in ended] == [JobStatus.COMPLETED, JobStatus.DEAD_LETTER, JobStatus.COMPLETED]
    for job in ended:
        assert await clients[creator].ended(job.id) == job
    files = [b"".join([chunk async for chunk in one.artifact(made[0].id, "a.bin")]) for one in clients.values()]
    assert files[0] == files[1]
    assert len(files[0]) == 5000
    for client in clients.values():
        with pytest.raises(NotFound):
            await anext(client.artifact(made[0].id, "other"))
    retried = await clients[waiter].retry(made[1].id)
    assert retried.status is JobStatus.QUEUED
    assert (await clients[creator].cancel(made[1].id)).status is JobStatus.CANCELLED


async def test_the_failures_before_a_success_are_told_either_way_and_by_events_the_latest_alone(
    clients: Clients, settings: Settings
) -> None:
    asked = [creation(fail_attempts=2), creation(fail_attempts=2, max_retries=1)]
    failures = ["Attempt 1 fails.", "Attempt 2 fails."]
    made = await clients[BY_HTTP].create(asked)
    async with running_worker(settings):
        ended = [[await client.ended(one.id) for one in made] for client in clients.values()]
    assert ended[0] == ended[1] == [await clients[BY_HTTP].find(one.id) for one in made]
    assert [job.status for job in ended[0]] == [JobStatus.COMPLETED, JobStatus.DEAD_LETTER]
    assert [[error.message for error in job.errors] for job in ended[0]] == [failures, failures]
    told = [[(await _all(client, one.id, None))[-1].job for one in made] for client in clients.values()]
    assert told[0] == told[1]
    assert [[error.message for error in job.errors] for job in told[0]] == [[], failures[-1:]]


def _soon() -> datetime:
    return datetime.now(UTC) + timedelta(seconds=0.5)
