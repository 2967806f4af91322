"""The client for code that waits: it has what the asynchronous one has, from any thread, and in processes that fork."""

import ast
import asyncio
import inspect
import sys
import threading
from asyncio.subprocess import PIPE
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gql_jobs.client import AsyncClient, AsyncJobArtifact, AsyncJobHandle, Client, JobArtifact, JobHandle
from gql_jobs.client.errors import InvalidState, JobFailed, NotFound, ResultTimeout
from gql_jobs.client.sync_generator import TARGET, sync_source
from gql_jobs.client.transport import CompletedEvent
from gql_jobs.jobs.model import JobStatus
from tests.child_processes import running_process
from tests.job_types.probe_jobs import ProbePayload, ProbeResult
from tests.serving import HOST, ServedApi

needs_worker = pytest.mark.usefixtures("worker")


async def _in_thread(api: ServedApi, use: Callable[[Client], Any]) -> Any:
    """What a thread without an event loop makes of a client."""

    def run() -> Any:
        with Client(f"http://{HOST}:{api.port}", patience=10) as client:
            return use(client)

    return await asyncio.to_thread(run)


def test_the_module_is_the_one_that_is_generated() -> None:
    source = TARGET.with_name("async_client.py").read_text()
    assert TARGET.read_text() == sync_source(source), "run python -m gql_jobs.client.sync_generator"


@pytest.mark.parametrize(
    ("twin", "source"),
    [(Client, AsyncClient), (JobHandle, AsyncJobHandle), (JobArtifact, AsyncJobArtifact)],
    ids=["client", "handle", "artifact"],
)
def test_each_class_has_all_that_the_asynchronous_one_has_with_the_same_parameters(twin: type, source: type) -> None:
    def of(cls: type) -> dict[str, Any]:
        return {name: member for name, member in vars(cls).items() if not name.startswith("_")}

    assert of(twin).keys() == of(source).keys()
    for name, member in of(twin).items():
        other = of(source)[name]
        assert not inspect.iscoroutinefunction(member)
        assert (member.__doc__ or "") == other.__doc__
        if callable(member):
            assert list(inspect.signature(member).parameters) == list(inspect.signature(other).parameters)


def test_nothing_in_the_generated_module_awaits() -> None:
    assert not [
        node for node in ast.walk(ast.parse(TARGET.read_text())) if isinstance(node, ast.AsyncFunctionDef | ast.Await)
    ]


@needs_worker
async def test_a_thread_creates_a_job_waits_for_it_and_reads_what_it_has_saved(api: ServedApi, tmp_path: Path) -> None:
    def use(client: Client) -> None:
        payload = ProbePayload(steps=2, artifact="a/b.txt", artifact_bytes=200_000)
        job = client.create(payload, type="probe", tags=["x"])
        result = job.result(timeout=20)
        assert (type(result), result.attempt) == (ProbeResult, 1)
        events = list(job.events())
        assert [type(event) for event in events] == [CompletedEvent]
        assert job.state().status is JobStatus.COMPLETED
        (artifact,) = job.artifacts()
        assert artifact.save(tmp_path / "saved").read_bytes() == artifact.read() == b"".join(artifact.chunks())
        assert artifact.size_bytes == job.artifact("a/b.txt").size_bytes == 200_000
        (found,) = client.jobs(tags=["x"], status="completed")
        assert client.job(found).result(timeout=5) == client.job(found.id, ProbeResult).result() == result
        with pytest.raises(InvalidState):
            job.cancel()

    await _in_thread(api, use)


@needs_worker
async def test_what_goes_wrong_is_raised_in_the_thread_that_waits(api: ServedApi) -> None:
    def use(client: Client) -> None:
        with pytest.raises(JobFailed) as failed:
            client.create(ProbePayload(permanent=True), type="probe").result(timeout=20)
        assert failed.value.error is not None
        assert failed.value.error.retryable is False
        waiting = client.create(ProbePayload(), type="probe_cpu", run_at=datetime.now(UTC) + timedelta(days=1))
        with pytest.raises(ResultTimeout):
            waiting.result(timeout=0.2)
        assert waiting.cancel().status is JobStatus.CANCELLED
        assert waiting.retry().status is JobStatus.SCHEDULED
        with pytest.raises(NotFound):
            client.job("018f3c6e-7d3a-7c52-9d0a-3f5a8c1d7e42").result()

    await _in_thread(api, use)


@needs_worker
async def test_several_threads_use_one_client_at_once(api: ServedApi) -> None:
    def use(client: Client) -> list[ProbeResult]:
        def one(number: int) -> Any:
            return client.create(ProbePayload(result_bytes=number), type="probe").result(timeout=30)

        with ThreadPoolExecutor(16) as threads:
            return list(threads.map(one, range(64)))

    assert [len(result.text) for result in await _in_thread(api, use)] == list(range(64))


async def test_in_a_thread_with_an_event_loop_it_refuses_to_wait(api: ServedApi) -> None:
    client = Client(f"http://{HOST}:{api.port}")
    with pytest.raises(RuntimeError, match="hold up the event loop that runs in this thread: use AsyncClient"):
        client.create(ProbePayload(), type="probe")
    with pytest.raises(RuntimeError, match="use AsyncClient"):
        next(iter(client.jobs()))
    client.close()


async def test_a_closed_client_says_so_and_ends_what_waits(api: ServedApi) -> None:
    client = Client(f"http://{HOST}:{api.port}")

    def wait() -> None:
        job = client.create(ProbePayload(), type="probe")
        begun.set()
        job.result()

    begun = threading.Event()
    waiting = asyncio.create_task(asyncio.to_thread(wait))
    await asyncio.to_thread(begun.wait, 20)
    await api.subscribers(1)
    await asyncio.to_thread(client.close)
    with pytest.raises(RuntimeError, match="closed"):
        await waiting
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        await asyncio.to_thread(client.create, ProbePayload(), type="probe")
    assert "gql-jobs client" not in {thread.name for thread in threading.enumerate()}


FORKING = """
import os, sys, traceback
from gql_jobs.client import Client
from tests.child_processes import running_process
from tests.job_types.probe_jobs import ProbePayload

client = Client(sys.argv[1])
before = client.create(ProbePayload(gate=sys.argv[2]), type="probe")
events = before.events()
next(events)
child = os.fork()
if child == 0:
    try:
        job = client.create(ProbePayload(result_bytes=3), type="probe")
        assert job.result(timeout=20).text == "xxx"
        assert before.state().id == before.id
        try:
            next(events)
        except RuntimeError as error:
            assert "or to the process that was forked" in str(error)
        else:
            raise AssertionError("the parent's stream was read")
        client.close()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0
open(sys.argv[2], "w").close()
assert before.result(timeout=20).attempt == 1
assert type(list(events)[-1]).__name__ == "CompletedEvent"
"""


@needs_worker
async def test_a_forked_process_has_connections_of_its_own_and_leaves_those_of_its_parent_alone(
    api: ServedApi, tmp_path: Path
) -> None:
    """As web servers do that load the application before they fork."""
    # Python warns of any fork where there are threads: a client has one.
    program = (sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKING)
    url = f"http://{HOST}:{api.port}"
    async with running_process(*program, url, str(tmp_path / "gate"), stderr=PIPE) as process:
        _, said = await asyncio.wait_for(process.communicate(), 40)
    assert (process.returncode, said.decode()) == (0, "")


async def test_a_client_that_nobody_has_any_more_leaves_no_thread_behind(api: ServedApi) -> None:
    def use() -> None:
        list(Client(f"http://{HOST}:{api.port}").jobs())

    await asyncio.to_thread(use)
    assert "gql-jobs client" not in {thread.name for thread in threading.enumerate()}
