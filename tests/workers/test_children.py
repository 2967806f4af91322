"""The jobs that a handler creates: the same ones in every attempt, whatever happens in between."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, assert_type
from uuid import uuid4

import msgspec
import pytest
from pydantic import Field, SecretStr

from gql_jobs import ChildJob, JobContext, Key, Model, Payload, PermanentError, TransientError
from gql_jobs.jobs.messages import Kind
from gql_jobs.jobs.model import DependencyPolicy, Job, JobPriority, JobStatus, job_id_for_key
from gql_jobs.jobs.payload_codec import CodecContext
from gql_jobs.jobs.payloads import accept
from gql_jobs.jobs.registry import JobType, Registry
from gql_jobs.jobs.requests import ChildPlace, JobRequest
from gql_jobs.jobs.viewer import Scope, Viewer
from gql_jobs.log.commands import JobCommands
from gql_jobs.log.job_log import JobLog
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime, open_runtime
from gql_jobs_worker.children import ChildOptions, asked_child
from gql_jobs_worker.sandbox.wire import LENGTH, CreateChild, decode_request, frame
from tests.by_hand import RestartingServer
from tests.deadline import until
from tests.job_types.probe_jobs import ProbePayload, ProbeResult
from tests.running import JOB_TYPES, running_worker, worker_process
from tests.stories import JOB
from tests.stories import request as common_request
from tests.workers.stories import (
    all_ended,
    create,
    ended,
    handled_by,
    history,
    reached,
    request,
    running,
)

Creating = Callable[[JobContext], Awaitable[Any]]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """The shortest lease there is."""
    return settings.model_copy(update={"ack_wait": 1.0})


def parent_does(monkeypatch: pytest.MonkeyPatch, creates: Creating) -> None:
    """Have the pools of this process run ``creates`` for jobs that have a trace; their children do nothing."""

    async def handler(context: JobContext, payload: ProbePayload) -> ProbeResult:
        if payload.trace is not None:
            await creates(context)
        return ProbeResult(attempt=context.attempt)

    handled_by(monkeypatch, handler)


async def parent(runtime: Runtime, **asked: Any) -> str:
    """Create a job whose handler creates others."""
    return await create(runtime, trace="parent", **asked)


def children_of(runtime: Runtime, job_id: str) -> list[Job]:
    """The children that the index has, in the order of their creation."""
    rows = runtime.index._database.execute("SELECT id FROM jobs ORDER BY created").fetchall()  # noqa: SLF001
    jobs = [job for (found,) in rows if (job := runtime.index.job(found)) is not None]
    return [job for job in jobs if job.spec.parent == job_id]


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("type_name", ["probe", "probe_thread", "probe_cpu"])
async def test_a_handler_creates_jobs_wherever_it_runs(runtime: Runtime, type_name: str) -> None:
    job_id = await create(runtime, type_name, children=3)
    assert (await ended(runtime, job_id)).status is JobStatus.COMPLETED
    children = children_of(runtime, job_id)
    assert [job.spec.type for job in children] == ["probe"] * 3
    assert {job.status for job in await all_ended(runtime, [job.id for job in children])} == {JobStatus.COMPLETED}


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("type_name", ["probe", "probe_thread", "probe_cpu"])
async def test_a_retried_attempt_creates_no_second_child_and_a_retry_by_hand_new_ones(
    runtime: Runtime, type_name: str
) -> None:
    job_id = await create(runtime, type_name, children=2, fail_attempts=3, max_retries=2)
    assert (await ended(runtime, job_id)).attempt == 3
    first = {job.id for job in children_of(runtime, job_id)}
    assert len(first) == 2
    await runtime.feed.read_back(await runtime.commands.retry(job_id))
    assert (await ended(runtime, job_id)).attempt == 3
    assert len(children_of(runtime, job_id)) == 4


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("type_name", ["probe", "probe_thread", "probe_cpu"])
async def test_another_payload_under_the_same_key_is_a_permanent_error(runtime: Runtime, type_name: str) -> None:
    job_id = await create(runtime, type_name, children=2, child_key="only one")
    job = await ended(runtime, job_id)
    (child,) = children_of(runtime, job_id)
    assert (job.status, job.attempt) == (JobStatus.DEAD_LETTER, 1)
    assert job.error is not None
    assert (job.error.type, job.error.message) == (
        "PermanentError",
        f"The key 'only one' is that of the child {child.id}, which has another payload or type.",
    )


async def test_a_kill_9_between_creating_and_the_end_makes_no_second_child(
    runtime: Runtime, settings: Settings, workers: AsyncExitStack, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    async with worker_process(settings) as process:
        job_id = await create(runtime, children=5, gate=gate)
        await until(lambda: len(children_of(runtime, job_id)) == 5, "the children are created", within=20)
        process.kill()
        await process.wait()
    before = {job.id for job in children_of(runtime, job_id)}
    gate.touch()
    await workers.enter_async_context(running_worker(settings))
    job = await ended(runtime, job_id)
    assert (job.status, job.attempt) == (JobStatus.COMPLETED, 2)
    children = children_of(runtime, job_id)
    assert {job.id for job in children} == before
    assert {job.attempt for job in await all_ended(runtime, [job.id for job in children])} <= {1, 2}


@pytest.mark.usefixtures("worker")
async def test_a_child_is_what_was_asked_for(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    made: list[ChildJob[Any]] = []

    async def creates(context: JobContext) -> None:
        options: dict[str, Any] = {"priority": "LOW", "run_at": tomorrow, "max_retries": 7, "timeout": 2}
        made.append(await context.create(ProbePayload(steps=1), tags=["a", "b"], type="probe_thread", **options))
        made.append(await context.create(ProbePayload(steps=1), type="probe", max_retries=0))

    parent_does(monkeypatch, creates)
    await ended(runtime, await parent(runtime, priority=JobPriority.CRITICAL))
    full = (await reached(runtime, made[0].id, JobStatus.SCHEDULED)).spec
    assert (full.type, full.queue, full.priority) == ("probe_thread", "threads", JobPriority.LOW)
    assert (full.max_retries, full.timeout, full.tags, full.run_at) == (7, 2.0, ("a", "b"), tomorrow)
    assert bytes(full.payload) == b'{"steps":1}'
    plain = (await ended(runtime, made[1].id)).spec
    assert (plain.max_retries, plain.timeout, plain.tags) == (0, 300.0, ())
    assert plain.priority is JobPriority.CRITICAL, "it is as urgent as its parent"
    assert (plain.idempotency_key, plain.origin) == (None, None)


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("type_name", ["probe", "probe_thread"])
async def test_a_child_waits_for_others_shares_limits_and_may_be_too_late(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, type_name: str
) -> None:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    made: list[ChildJob[Any]] = []

    async def creates(context: JobContext) -> None:
        made.append(await context.create(ProbePayload(steps=1), type="probe"))
        made.append(
            await context.create(
                ProbePayload(steps=2),
                type=type_name,
                after=[made[0], context.job_id],
                after_policy="run",
                start_before=tomorrow,
                concurrency_key="customer 7",
                key=Key("after one"),
            )
        )
        with pytest.raises(PermanentError, match="there is no job"):
            await context.create(ProbePayload(), type="probe", after=[str(uuid4())])
        with pytest.raises(PermanentError, match="policy is one of"):
            await context.create(ProbePayload(), key=Key("k", "never"))  # type: ignore[arg-type]

    parent_does(monkeypatch, creates)
    job_id = await parent(runtime)
    assert (await ended(runtime, job_id)).error is None
    child = await until(lambda: runtime.index.job(made[1].id), "the index has the child")
    spec = child.spec
    assert (spec.after, spec.after_policy) == ((made[0].id, job_id), DependencyPolicy.RUN)
    assert (spec.start_before, spec.concurrency_key, spec.key) == (tomorrow, "customer 7", "after one")
    assert spec.gate is not None


@pytest.mark.usefixtures("worker")
async def test_a_child_is_of_its_parents_tenant_and_creator_and_never_one_of_a_clients_key(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[ChildJob[Any]] = []

    async def creates(context: JobContext) -> None:
        made.append(await context.create(ProbePayload(steps=2), key="k", type="probe"))

    parent_does(monkeypatch, creates)
    asked = request(runtime, trace="parent")
    keyed = JobRequest.of(asked.job_type, accept(asked.job_type.payload, {"steps": 1}), idempotency_key="k")
    for tenant in ("red", "blue"):
        viewer = Viewer(f"key:{tenant}", frozenset(Scope), tenant=tenant)
        of_client = await runtime.commands.create(keyed, viewer)
        job_id = (await runtime.commands.create(asked, viewer)).id
        await ended(runtime, job_id)
        child = await ended(runtime, made[-1].id)
        assert (child.spec.tenant, child.spec.created_by, child.spec.parent) == (tenant, f"key:{tenant}", job_id)
        assert child.actor is None
        assert child.id not in {of_client.id, job_id_for_key("k", tenant), job_id_for_key("k")}
    assert len({child.id for child in made}) == 2
    first = (await history(runtime.connection, made[0].id))[0]
    assert (first.kind, first.body.spec.created_by) == (Kind.QUEUED, "key:red")


@pytest.mark.usefixtures("worker")
async def test_children_are_known_by_their_key_or_their_number_within_their_type(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[ChildJob[Any]]] = []

    async def creates(context: JobContext) -> None:
        same = ProbePayload(steps=1)
        seen.append(
            [
                await context.create(same, type="probe"),
                await context.create(same, key="1", type="probe"),
                await context.create(same, type="probe_thread"),
                await context.create(same, type="probe"),
                *await asyncio.gather(*(context.create(same, key=key, type="probe") for key in ("1", "x", "probe"))),
            ]
        )
        if context.attempt == 1:
            raise TransientError("Again.")

    parent_does(monkeypatch, creates)
    await ended(runtime, await parent(runtime))
    first, second = ([child.id for child in attempt] for attempt in seen)
    assert first == second
    assert len(set(first)) == 6
    assert first[4] == first[1]
    assert [child.deduplicated for child in seen[0]] == [False, False, False, False, True, False, False]
    assert all(child.deduplicated for child in seen[1])


@pytest.mark.usefixtures("worker")
async def test_an_attempt_that_creates_something_else_is_told_so(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def creates(context: JobContext) -> None:
        await context.create(ProbePayload(steps=context.attempt), type="probe")
        raise TransientError("Again.")

    parent_does(monkeypatch, creates)
    job = await ended(runtime, await parent(runtime))
    assert (job.status, job.attempt) == (JobStatus.DEAD_LETTER, 2)
    assert job.error is not None
    assert "which an earlier attempt has created with another payload" in job.error.message


class Undefined(Payload[None]):
    """Of no job type."""


async def _creates_undefined(context: JobContext) -> None:
    assert_type(await context.create(Undefined()), ChildJob[None])


async def _creates_none_of_several(context: JobContext) -> None:
    assert_type(await context.create(ProbePayload()), ChildJob[Any])


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    ("creates", "says"),
    [
        (_creates_undefined, "is the payload model of no job type that is registered"),
        (_creates_none_of_several, "say which is meant of 'probe', 'probe_cpu', 'probe_thread'"),
        (
            lambda context: context.create(ProbePayload(), type="email"),
            "The job type 'email' has not the payload model",
        ),
        (lambda context: context.create(ProbePayload(), type="probe", key=""), "key must have 1 to 255 printable"),
        (lambda context: context.create(ProbePayload(), type="probe", tags="abc"), "Expected `array`, got `str`"),
        (lambda context: context.create(ProbePayload(), type="probe", tags=["\n"]), "A tag must have 1 to 255"),
        (lambda context: context.create(ProbePayload(), type="probe", max_retries=101), "must be between 0 and 100"),
        (lambda context: context.create(ProbePayload(), type="probe", timeout=0), "must be between 0.1 and 86400"),
        (lambda context: context.create(ProbePayload(), type="probe", priority="huge"), "Invalid enum value 'huge'"),
        (lambda context: context.create(ProbePayload(), type="probe", colour="red"), "unknown field `colour`"),
        (lambda context: context.create({"steps": 1}, type="probe"), "not a value of dict"),
        (
            lambda context: context.create(ProbePayload().model_copy(update={"steps": "many"}), type="probe"),
            "The payload of a child does not fit ProbePayload. steps: Input should be a valid integer",
        ),
        (
            lambda context: context.create(ProbePayload(saves="x" * 2_000_000), type="probe"),
            "A child cannot be created. The payload has 2000012 bytes; the limit is",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_can_never_be_a_job_is_a_permanent_error(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, creates: Creating, says: str
) -> None:
    parent_does(monkeypatch, creates)
    job_id = await parent(runtime)
    job = await ended(runtime, job_id)
    assert job.error is not None
    assert (job.status, job.attempt, job.error.type) == (JobStatus.DEAD_LETTER, 1, "PermanentError")
    assert says in job.error.message
    assert children_of(runtime, job_id) == []


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("type_name", ["probe", "probe_thread", "probe_cpu"])
async def test_a_payload_that_is_too_large_is_a_permanent_error_wherever_the_handler_runs(
    runtime: Runtime, type_name: str
) -> None:
    job_id = await create(runtime, type_name, children=1, result_bytes=1_500_000)
    job = await ended(runtime, job_id)
    assert job.error is not None
    assert (job.status, job.attempt, job.error.type) == (JobStatus.DEAD_LETTER, 1, "PermanentError")
    assert "A child cannot be created. The payload has 1500022 bytes; the limit is" in job.error.message
    assert (await ended(runtime, await create(runtime, type_name, children=1))).status is JobStatus.COMPLETED


def test_whatever_is_asked_for_reaches_the_worker_of_a_handler_in_a_process() -> None:
    options = {
        "key": "k",
        "priority": "high",
        "run_at": datetime.now(UTC),
        "max_retries": 1,
        "timeout": 2,
        "tags": ["a"],
        "type": "probe",
        "concurrency_key": "c",
        "start_before": datetime.now(UTC),
        "after": [ChildJob(JOB), str(uuid4())],
        "after_policy": "RUN",
    }
    with_key = {**options, "key": Key("k", "replace", timedelta(minutes=1))}
    for given in ({}, options, with_key):
        asked = asked_child(ProbePayload(steps=7), given)
        sent = decode_request(frame(CreateChild(asked))[LENGTH.size :])
        assert sent == CreateChild(asked)
    assert {*options, "job_key"} == set(ChildOptions.__struct_fields__)


async def test_attempts_that_run_at_once_make_one_child(job_log: JobLog, settings: Settings) -> None:
    zombie, successor = JobCommands(job_log, settings), JobCommands(job_log, settings)
    for number in range(20):
        child = common_request(child=ChildPlace(JOB, 7, "probe", nth=number))
        made = await asyncio.gather(zombie.create(child), successor.create(child))
        assert made[0].id == made[1].id
        assert sorted(one.deduplicated for one in made) == [False, True]


async def test_while_the_store_is_full_it_is_a_transient_error(
    runtime: Runtime, settings: Settings, workers: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals: list[Exception] = []

    async def creates(context: JobContext) -> None:
        try:
            await context.create(ProbePayload(), type="probe")
        except TransientError as error:
            refusals.append(error)

    parent_does(monkeypatch, creates)
    full = settings.model_copy(update={"queue_full_ratio": 1e-9})
    await workers.enter_async_context(running_worker(full))
    await ended(runtime, await parent(runtime))
    assert "A child could not be created. The queue is full." in str(refusals)


async def test_a_thousand_children_are_created_in_order(
    runtime: Runtime, settings: Settings, workers: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    async def creates(context: JobContext) -> None:
        made.extend([(await context.create(ProbePayload(steps=n), type="probe_cpu")).id for n in range(1000)])

    parent_does(monkeypatch, creates)
    await workers.enter_async_context(running_worker(settings, queues=("default",)))
    job_id = await parent(runtime)
    assert (await ended(runtime, job_id, within=60)).status is JobStatus.COMPLETED
    await until(lambda: len(children_of(runtime, job_id)) == 1000, "the index has all", within=20)
    assert [job.id for job in children_of(runtime, job_id)] == made


class Sealed(Model):
    """A payload with a secret, and what a factory draws."""

    password: SecretStr
    drawn: str = Field(default_factory=lambda: uuid4().hex)


class Backwards:
    """A codec."""

    def encode(self, data: bytes, _: CodecContext) -> bytes:
        return data[::-1]

    def decode(self, data: bytes, _: CodecContext) -> bytes:
        return data[::-1]


BACKWARDS = Backwards()


@pytest.mark.parametrize("codec", [None, f"{__name__}:BACKWARDS"], ids=["as it is", "encoded"])
async def test_secrets_of_a_child_are_told_apart_without_their_hashes(
    runtime: Runtime,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    codec: str | None,
) -> None:
    registry = Registry()
    for job_type in runtime.registry:
        registry.add(job_type)
    registry.add(JobType("sealed", Sealed, ProbeResult, "tests.job_types.probe_handlers:run", queue="unserved"))
    made: list[ChildJob[Any]] = []

    async def creates(context: JobContext) -> None:
        password = SecretStr("do not tell" if context.attempt < 3 else "something else")
        made.append(await context.create(Sealed(password=password)))
        raise TransientError("Again.")

    parent_does(monkeypatch, creates)
    job_id = await parent(runtime)
    for attempt in (2, 3):
        # Another process each time: the keys of its hashes are its own.
        async with running_worker(settings.model_copy(update={"codec": codec}), ("default",), registry):
            await reached(runtime, job_id, JobStatus.RETRYING if attempt == 2 else JobStatus.DEAD_LETTER)
    assert [child.id for child in made] == [made[0].id] * 2
    job = await ended(runtime, job_id)
    assert job.error is not None
    assert "has created with another payload" in job.error.message
    (stored,) = await history(runtime.connection, made[0].id)
    assert stored.body.spec.request_hash.startswith("hmac:")
    assert stored.body.spec.payload_hash.startswith("hmac:")
    assert stored.body.spec.encoded is (codec is not None)


async def test_a_creation_waits_while_nats_is_away(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stopped, asked = asyncio.Event(), asyncio.Event()

    async def creates(context: JobContext) -> None:
        asked.set()
        await stopped.wait()
        await context.create(ProbePayload(), type="probe")

    parent_does(monkeypatch, creates)
    server = RestartingServer(tmp_path / "restarting")
    await server.start()
    own = settings.model_copy(update={"nats_url": server.url, "data_dir": tmp_path / "restarting-data"})
    try:
        async with open_runtime(own, JOB_TYPES) as runtime, running_worker(own):
            job_id = await parent(runtime)
            await asyncio.wait_for(asked.wait(), 10)
            await server.stop()
            stopped.set()
            await until(lambda: not runtime.connection.connected, "the server is away")
            await server.start()
            job = await ended(runtime, job_id, within=30)
            (child,) = children_of(runtime, job_id)
            assert (job.status, job.attempt) == (JobStatus.COMPLETED, 1)
            await ended(runtime, child.id, within=30)
    finally:
        await server.stop()


async def test_an_attempt_that_has_lost_its_job_creates_nothing(
    runtime: Runtime, settings: Settings, workers: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[BaseException] = []
    ends = asyncio.Event()

    async def creates(context: JobContext) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            try:
                await context.create(ProbePayload(), type="probe")
            except Exception as error:  # noqa: BLE001
                stopped.append(error)
            ends.set()
            raise

    parent_does(monkeypatch, creates)
    await workers.enter_async_context(running_worker(settings))
    job_id = await parent(runtime)
    await running(runtime, job_id)
    await runtime.commands.cancel(job_id)
    await asyncio.wait_for(ends.wait(), 10)
    assert [type(error).__name__ for error in stopped] == ["AttemptStoppedError"]
    await ended(runtime, job_id)
    assert children_of(runtime, job_id) == []


@pytest.mark.usefixtures("worker")
async def test_children_go_on_when_their_parent_has_failed(runtime: Runtime) -> None:
    job_id = await create(runtime, children=1, permanent=True)
    assert (await ended(runtime, job_id)).status is JobStatus.DEAD_LETTER
    (child,) = children_of(runtime, job_id)
    assert (await ended(runtime, child.id)).status is JobStatus.COMPLETED


@pytest.mark.parametrize("public_url", [None, "https://jobs.example.com/below"])
@pytest.mark.parametrize("type_name", ["probe", "probe_cpu"])
async def test_the_address_of_a_file_is_below_the_public_one(
    runtime: Runtime, settings: Settings, workers: AsyncExitStack, type_name: str, public_url: str | None
) -> None:
    await workers.enter_async_context(running_worker(settings.model_copy(update={"public_url": public_url})))
    job_id = await create(runtime, type_name, artifact="out/ä b.bin", artifact_bytes=10)
    job = await ended(runtime, job_id)
    assert job.result is not None
    assert msgspec.json.decode(job.result)["text"] == f"{public_url or ''}/artifacts/{job_id}/out/%C3%A4%20b.bin"


@pytest.mark.usefixtures("worker")
async def test_a_name_that_no_file_has_has_no_address(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    async def creates(context: JobContext) -> None:
        context.artifact_url("../else")

    parent_does(monkeypatch, creates)
    job = await ended(runtime, await parent(runtime, max_retries=0))
    assert job.error is not None
    assert job.error.type == "RefusedValue"
