"""The whole system for one test: jobs run, time passes, workers die, NATS goes away, and nothing of it takes long."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gql_jobs import clock
from gql_jobs.client import AsyncClient, JobFailed
from gql_jobs.jobs.model import JobPriority, JobStatus
from gql_jobs.testing import AsyncJobsEnv, JobsEnv, NatsNamespaces, NotDrained
from gql_jobs.testing.nats_namespaces import NAMESPACES
from tests.deadline import until
from tests.job_types.probe_jobs import ProbePayload
from tests.running import JOB_TYPES
from tests.workers.stories import handled_by

HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def nats_of_tests() -> Iterator[NatsNamespaces]:
    with NatsNamespaces() as nats:
        yield nats


@pytest.fixture
async def env(nats_of_tests: NatsNamespaces) -> AsyncIterator[AsyncJobsEnv]:
    async with AsyncJobsEnv(nats_of_tests, JOB_TYPES) as opened:
        yield opened


async def test_a_job_that_a_client_creates_runs_in_this_process(env: AsyncJobsEnv) -> None:
    job = await env.client.create(ProbePayload(result_bytes=3), type="probe")
    assert (await job.result(timeout=20)).text == "xxx"
    drained = await env.drain()
    assert [one.id for one in drained.completed] == [job.id]
    assert (drained.dead_letters, drained.cancelled, drained.waiting) == ((), (), ())


async def test_a_client_that_is_told_no_address_finds_the_environment_while_it_runs(
    nats_of_tests: NatsNamespaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GQL_JOBS_URL", "http://127.0.0.1:9/elsewhere")
    monkeypatch.setenv("GQL_JOBS_TOKEN", "for-elsewhere")
    async with AsyncJobsEnv(nats_of_tests, JOB_TYPES), AsyncClient() as client:
        job = await client.create(ProbePayload(result_bytes=3), type="probe")
        assert (await job.result(timeout=20)).text == "xxx"
    assert os.environ["GQL_JOBS_URL"] == "http://127.0.0.1:9/elsewhere"
    assert os.environ["GQL_JOBS_TOKEN"] == "for-elsewhere"  # noqa: S105 - a token of no use


async def test_a_handler_shares_the_objects_of_its_test(env: AsyncJobsEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def handler(_context: object, _payload: object) -> dict[str, int]:
        begun.set()
        await go_on.wait()
        return {"attempt": 7}

    handled_by(monkeypatch, handler)
    job = await env.client.create(ProbePayload(), type="probe")
    await begun.wait()
    go_on.set()
    assert (await job.result(timeout=20)).attempt == 7


async def test_draining_waits_for_children_and_tells_of_dead_letters(env: AsyncJobsEnv) -> None:
    parent = await env.client.create(ProbePayload(children=2), type="probe")
    failing = await env.client.create(ProbePayload(permanent=True), type="probe")
    drained = await env.drain()
    assert len(drained.completed) == 3
    assert parent.id in {job.id for job in drained.completed}
    (dead,) = drained.dead_letters
    assert (dead.id, dead.error and dead.error.message) == (failing.id, "This can never work.")
    with pytest.raises(JobFailed):
        await failing.result(timeout=20)


async def test_draining_gives_up_and_says_what_is_left(env: AsyncJobsEnv, tmp_path: Path) -> None:
    job = await env.client.create(ProbePayload(gate=str(tmp_path / "gate")), type="probe")
    with pytest.raises(NotDrained, match=rf"(?s)1 jobs have not ended within 0\.3 s:\n  probe {job.id} PROCESSING"):
        await env.drain(timeout=0.3)
    (tmp_path / "gate").touch()
    assert (await env.drain()).completed


async def test_what_was_created_is_found_by_its_payload_and_told_of_if_it_is_not(env: AsyncJobsEnv) -> None:
    await env.assert_not_created(ProbePayload)
    with pytest.raises(AssertionError, match="No job was created at all"):
        await env.assert_created(ProbePayload)
    await env.client.create(ProbePayload(steps=1), type="probe")
    job = await env.client.create(ProbePayload(steps=2, saves=[1]), type="probe_thread", key="k", priority="high")
    assert (await env.assert_created(ProbePayload, steps=2, saves=[1])).id == job.id
    (record,) = await env.created(ProbePayload, steps=2)
    assert (record.type, record.key, record.priority) == ("probe_thread", "k", JobPriority.HIGH)
    await env.assert_not_created(ProbePayload, steps=3)
    with pytest.raises(AssertionError) as failed:
        await env.assert_created(ProbePayload, steps=2, saves=[2])
    assert "No job was created with ProbePayload(steps=2, saves=[2]). Created were, 2 in all:" in str(failed.value)
    assert "ProbePayload(steps=2, saves=[1]) (key='k', priority=HIGH)  <- another saves" in str(failed.value)
    with pytest.raises(AssertionError, match=r"A job was created with ProbePayload\(steps=1\)"):
        await env.assert_not_created(ProbePayload, steps=1)
    with pytest.raises(TypeError, match="has no field 'step'; it has: fail_attempts, "):
        await env.assert_created(ProbePayload, step=1)


async def test_schedules_and_retries_are_due_when_the_clock_has_been_moved_to_them(env: AsyncJobsEnv) -> None:
    began = datetime.now(UTC)
    later = await env.client.create(ProbePayload(), type="probe", run_at=began + 3 * HOUR)
    failing = await env.client.create(ProbePayload(fail_attempts=2), type="probe")
    drained = await env.drain()
    assert (drained.completed, {job.id for job in drained.waiting}) == ((), {later.id, failing.id})
    await env.advance(hours=1)
    await env.drain()
    assert (await failing.state()).attempts == 2
    await env.advance(hours=1)
    assert [job.id for job in (await env.drain()).completed] == [failing.id]
    await env.advance(HOUR)
    drained = await env.drain()
    assert {job.id for job in drained.completed} == {later.id, failing.id}
    done = await later.state()
    assert done.finished_at is not None
    assert began + 3 * HOUR < done.finished_at < clock.now()


def test_a_test_without_an_event_loop_has_the_same(nats_of_tests: NatsNamespaces, tmp_path: Path) -> None:
    with JobsEnv(nats_of_tests, JOB_TYPES) as env:
        job = env.client.create(ProbePayload(), type="probe", run_at=datetime.now(UTC) + HOUR)
        env.assert_not_created(ProbePayload, steps=1)
        assert [one.id for one in env.drain().waiting] == [job.id]
        env.advance(hours=1)
        assert [one.id for one in env.drain().completed] == [job.id]
        assert env.assert_created(ProbePayload).state().status is JobStatus.COMPLETED
        trace = tmp_path / "trace"
        slow = env.client.create(ProbePayload(trace=str(trace), gate=str(tmp_path / "gate")), type="probe")
        while not trace.exists():
            pass
        env.nats.stop()
        env.nats.start()
        env.kill_worker()
        (tmp_path / "gate").touch()
        assert slow.result(timeout=20).attempt == 2
        assert [record.type for record in env.created()] == ["probe", "probe"]
        assert env.url == f"http://127.0.0.1:{env.url.rpartition(':')[2]}"
    assert clock.advances is None


async def test_what_has_been_kept_long_enough_is_gone(env: AsyncJobsEnv) -> None:
    job = await env.client.create(ProbePayload(), type="probe")
    await env.drain()
    await env.advance(seconds=env.settings.retention - 60)
    assert (await job.state()).status is JobStatus.COMPLETED
    await env.advance(minutes=2)
    assert await env.created() == []


async def test_a_job_whose_worker_is_killed_is_run_again_at_once(env: AsyncJobsEnv, tmp_path: Path) -> None:
    gate, trace = tmp_path / "gate", tmp_path / "trace"
    job = await env.client.create(ProbePayload(gate=str(gate), trace=str(trace)), type="probe")
    await until(trace.exists, "the first attempt has begun")
    before = (await job.state()).worker_id
    await env.kill_worker()
    await until(lambda: len(trace.read_text().splitlines()) == 2, "the second attempt has begun", within=5)
    gate.touch()
    assert (await job.result(timeout=20)).attempt == 2
    state = await job.state()
    assert (state.attempts, state.worker_id != before) == (2, True)


async def test_nothing_of_a_killed_worker_is_written(env: AsyncJobsEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts: list[int] = []

    async def handler(context: object, _payload: object) -> dict[str, int]:
        attempts.append(len(attempts) + 1)
        if len(attempts) == 1:
            try:
                await asyncio.Event().wait()
            finally:
                context.progress(99, "from the grave")  # type: ignore[attr-defined]
        return {"attempt": len(attempts)}

    handled_by(monkeypatch, handler)
    job = await env.client.create(ProbePayload(), type="probe")
    await until(lambda: attempts, "the first attempt has begun")
    await env.kill_worker()
    assert (await job.result(timeout=20)).attempt == 2
    assert (await job.state()).message is None


async def test_the_server_goes_away_and_comes_back_with_what_it_had(env: AsyncJobsEnv) -> None:
    job = await env.client.create(ProbePayload(), type="probe")
    await env.drain()
    await env.nats.stop()
    waiting = asyncio.create_task(env.client.create(ProbePayload(steps=1), type="probe"))
    await env.nats.start()
    assert (await job.state()).status is JobStatus.COMPLETED
    assert (await (await waiting).result(timeout=20)).attempt == 1


async def test_one_environment_sees_nothing_of_another(nats_of_tests: NatsNamespaces) -> None:
    async with AsyncJobsEnv(nats_of_tests, JOB_TYPES) as first, AsyncJobsEnv(nats_of_tests, JOB_TYPES) as second:
        await first.client.create(ProbePayload(), type="probe", key="the same")
        await second.client.create(ProbePayload(steps=1), type="probe", key="the same")
        await second.drain()
        assert [record.payload for record in await first.created()] == [ProbePayload()]
        assert [record.payload for record in await second.created()] == [ProbePayload(steps=1)]
        # There is one clock for both, for as long as there is one of them.
        async with AsyncJobsEnv(nats_of_tests, JOB_TYPES):
            await first.advance(hours=1)
        await second.advance(hours=1)
        assert clock.now() - datetime.now(UTC) > HOUR
    assert clock.advances is None


async def test_namespaces_are_empty_however_often_they_are_used(nats_of_tests: NatsNamespaces) -> None:
    for _ in range(NAMESPACES + 1):
        async with AsyncJobsEnv(nats_of_tests, JOB_TYPES) as env:
            assert await env.created() == []
            await env.client.create(ProbePayload(), type="probe")


async def test_an_environment_leaves_nothing_behind(nats_of_tests: NatsNamespaces) -> None:
    async with AsyncJobsEnv(nats_of_tests, JOB_TYPES) as env:
        await env.client.create(ProbePayload(), type="probe_cpu")
        await env.drain()
        folder = env.settings.data_dir
        await env.advance(days=1)
    assert not folder.exists()
    assert clock.advances is None
    assert {task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()} == set()


async def test_settings_of_the_environment_lead_to_no_other_server(
    nats_of_tests: NatsNamespaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GQL_JOBS_NATS_URL", "nats://production.example:4222")
    monkeypatch.setenv("GQL_JOBS_NATS_PASSWORD", "secret")
    monkeypatch.setenv("GQL_JOBS_AUTH", "required")
    monkeypatch.setenv("GQL_JOBS_MAX_RETRIES", "2")
    async with AsyncJobsEnv(nats_of_tests, JOB_TYPES, {"num_workers": 4}) as env:
        assert (env.settings.max_retries, env.settings.num_workers, env.settings.nats_password) == (2, 4, None)
        job = await env.client.create(ProbePayload(), type="probe")
        assert (await job.state()).max_retries == 2
