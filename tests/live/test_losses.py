"""What an operator deletes while everything runs: it is made anew, said loudly, and leaves no ghosts."""

import asyncio
import io
import logging
import shutil
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, aclosing, closing
from functools import partial
from pathlib import Path

import msgspec
import pytest
from gql.transport.exceptions import TransportQueryError

from gql_jobs.doctor.examination import examine
from gql_jobs.jetstream.connection import Connection, connect
from gql_jobs.jetstream.errors import ApiError
from gql_jobs.jetstream.stored_messages import StoredMessage, message_at, messages_of
from gql_jobs.jobs.errors import QueueUnavailable
from gql_jobs.jobs.model import Artifact, JobStatus, new_job_id
from gql_jobs.jobs.registry import load_job_types
from gql_jobs.jobs.viewer import EVERYTHING
from gql_jobs.log import codec
from gql_jobs.log.commands import JobCommands
from gql_jobs.log.job_log import JobLog, job_events, open_job_log
from gql_jobs.log.streams import ensure_streams, missing_consumers, stream_info
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import open_runtime
from tests.api.operations import CANCEL, CREATE, FEED, FIND, WATCH, asked, create, page
from tests.by_hand import RestartingServer, bring_to, report
from tests.deadline import until
from tests.running import JOB_TYPES, RunningWorker, running_worker
from tests.serving import Data, ServedApi, is_ready, serving
from tests.stories import request

GONE = "jobs were lost"


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stream is looked at all the time."""
    monkeypatch.setattr("gql_jobs.live.losses.CHECK_INTERVAL", 0.1)
    monkeypatch.setattr("gql_jobs_worker.pool.LOOK_INTERVAL", 0.1)


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[ServedApi]:
    async with serving(settings) as served:
        await until(lambda: is_ready(served), "the API is ready")
        yield served


@pytest.fixture
async def operator(settings: Settings) -> AsyncIterator[Connection]:
    """A connection of somebody who deletes things."""
    async with connect(settings, "operator") as opened:
        yield opened


async def _delete_stream(operator: Connection) -> None:
    await operator.api(f"STREAM.DELETE.{codec.JOBS_STREAM}")


async def _history(api: ServedApi) -> str:
    checks = (await api.http.get("/readyz")).json()["checks"]
    return str(checks.get("history", {}).get("message", ""))


def _lost(api: ServedApi) -> str:
    return api.runtime.index.losses[-1].what


async def _rebuilt(api: ServedApi) -> None:
    """Wait until the loss is said and the process is ready again."""

    async def said() -> bool:
        return GONE in await _history(api) and await is_ready(api)

    await until(said, "the loss is named and the API is ready again", within=20)


async def _runs(api: ServedApi, key: str | None = None) -> Data:
    """A job that is created now and has completed; asked for again while the index is built anew."""

    # With a key, so that a creation whose fate was not known makes no second job.
    key = key or new_job_id()

    async def made() -> Data:
        return await create(api, idempotencyKey=key)

    job_id = (await _come_again(made))["id"]

    async def completed() -> Data | None:
        found: Data | None = (await api.ask(FIND, id=job_id))["job"]
        return found if found is not None and found["status"] == "COMPLETED" else None

    return await _come_again(completed)


async def _come_again(ask: Callable[[], Awaitable[Data | None]]) -> Data:
    """What is answered in the end, as a client gets it that comes again when it is told to."""

    async def once() -> Data | None:
        try:
            return await ask()
        except TransportQueryError as error:
            (refusal,) = error.errors or []
            assert refusal["extensions"]["code"] == "QUEUE_UNAVAILABLE", refusal
            return None

    return await until(once, "the operation is answered", within=20)


@pytest.mark.usefixtures("worker")
async def test_consumers_that_are_deleted_while_all_run_are_made_anew_and_waiting_jobs_run(
    api: ServedApi, operator: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    await _runs(api)
    queues = load_job_types(JOB_TYPES).queues
    for name in _consumer_names(queues):
        await operator.api(f"CONSUMER.DELETE.{codec.JOBS_STREAM}.{name}")
    assert (await _runs(api))["status"] == "COMPLETED"
    assert not await missing_consumers(operator, queues)
    assert "consumers of the stream JOBS are gone and are made anew: queue-" in caplog.text


def _consumer_names(queues: Iterable[str]) -> list[str]:
    priorities = ("critical", "high", "normal", "low")
    return [f"queue-{queue}-{priority}" for queue in queues for priority in priorities]


async def test_readyz_is_red_and_names_them_while_consumers_are_missing(
    settings: Settings, operator: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gql_jobs.live.losses.CHECK_INTERVAL", 3600.0)
    async with serving(settings) as api:
        await until(lambda: is_ready(api), "the API is ready")
        await operator.api(f"CONSUMER.DELETE.{codec.JOBS_STREAM}.queue-default-high")
        answer = await api.http.get("/readyz")
    assert answer.status_code == 503
    assert "queue-default-high" in answer.json()["checks"]["streams"]["message"]


async def test_the_feed_goes_on_without_a_gap_when_its_own_consumer_is_deleted(
    api: ServedApi, operator: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gql_jobs.jetstream.ordered_consumer.IDLE_HEARTBEAT", 0.2)
    first = await create(api)
    names = msgspec.json.decode(await operator.api(f"CONSUMER.NAMES.{codec.JOBS_STREAM}", {"offset": 0}))["consumers"]
    for name in names:
        if not name.startswith("queue-"):
            await operator.api(f"CONSUMER.DELETE.{codec.JOBS_STREAM}.{name}")
    second = await create(api)

    async def both() -> bool:
        return [node["id"] for node in (await page(api))["nodes"]] == [second["id"], first["id"]]

    await until(both, "the index has both jobs", within=15)


@pytest.mark.usefixtures("worker")
async def test_a_stream_that_is_deleted_while_all_run_is_made_anew_and_said_to_be_lost(
    api: ServedApi, settings: Settings, operator: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    lost = await _runs(api)
    await _delete_stream(operator)
    kept = await _runs(api)
    await _rebuilt(api)
    assert kept["status"] == "COMPLETED"
    assert [node["id"] for node in (await page(api))["nodes"]] == [kept["id"]]
    assert (await api.ask(FIND, id=lost["id"]))["job"] is None
    assert "1 jobs that were known are gone" in _lost(api)
    assert "1 jobs" not in await _history(api)
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert any("the stream JOBS is gone" in error for error in errors)
    assert any("jobs that were known are gone" in error for error in errors)
    (finding,) = [
        finding for finding in await examine(settings, load_job_types(JOB_TYPES)) if finding.check == "losses"
    ]
    assert "deleted" in finding.problem
    assert (await _runs(api))["status"] == "COMPLETED"


async def test_a_store_that_was_wiped_is_begun_anew_by_all_who_run(server: RestartingServer, tmp_path: Path) -> None:
    await server.start()
    settings = Settings(nats_url=server.url, data_dir=tmp_path / "data", ack_wait=2)
    async with serving(settings) as api, running_worker(settings):
        lost = await _runs(api, key="again")
        await server.stop()
        shutil.rmtree(tmp_path / "store" / "nats" / "jetstream")
        await server.start()
        await _rebuilt(api)
        assert (await api.ask(FIND, id=lost["id"]))["job"] is None
        again = await _runs(api, key="again")
        assert (again["id"], again["status"]) == (lost["id"], "COMPLETED")


async def test_a_wiped_store_is_said_to_be_lost_by_a_process_that_starts_afterwards(
    settings: Settings, operator: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_runtime(settings, JOB_TYPES) as runtime:
        created = await runtime.commands.create(request())
        await runtime.feed.wait_for(created.last_seq, 5)
    await _delete_stream(operator)
    async with open_runtime(settings, JOB_TYPES) as runtime:
        assert await runtime.job(created.id, EVERYTHING) is None
        assert GONE in (await runtime.checks())["history"].message
    assert "The 1 jobs that were known are gone." in caplog.text
    async with open_runtime(settings, JOB_TYPES) as runtime:
        assert GONE in (await runtime.checks())["history"].message


async def test_a_stream_that_went_on_from_an_older_copy_is_read_again_from_its_beginning(
    settings: Settings, operator: Connection
) -> None:
    async with open_runtime(settings, JOB_TYPES) as runtime:
        old = [await runtime.commands.create(request()) for _ in range(2)]
        assert await runtime.feed.wait_for(old[-1].last_seq, 5)
        path = runtime.index.path
    # Another history under the same identity, longer than the one that was read.
    await _delete_stream(operator)
    await ensure_streams(operator, settings)
    async with open_job_log(operator) as job_log:
        new = [await JobCommands(job_log, settings).create(request()) for _ in range(3)]
    with closing(sqlite3.connect(path)) as database, database:
        created = (await stream_info(operator)).created
        database.execute("UPDATE meta SET value = ? WHERE key = 'stream_created'", (created,))
    async with serving(settings) as api:
        await _rebuilt(api)
        assert {node["id"] for node in (await page(api))["nodes"]} == {made.id for made in new}


@pytest.mark.parametrize("kept_running", [True, False])
async def test_an_older_copy_that_grows_beyond_what_was_read_is_noticed_though_only_progress_was_lost(
    server: RestartingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept_running: bool
) -> None:
    # However short the stream was, and for however long: nothing is seen of that when it has grown in between.
    monkeypatch.setattr("gql_jobs.live.losses._BEHIND_AT_LEAST", 1_000_000)
    await server.start()
    settings = Settings(nats_url=server.url, data_dir=tmp_path / "data", ack_wait=2)
    store, copy = tmp_path / "store" / "nats" / "jetstream", tmp_path / "copy"
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(serving(settings))
        await until(lambda: is_ready(api), "the API is ready")
        job_log = api.runtime.commands._log  # noqa: SLF001
        running = (await api.runtime.commands.create(request())).job
        started = await bring_to(job_log, api.runtime.commands, running, JobStatus.PROCESSING)
        await server.stop()
        shutil.copytree(store, copy)
        await server.start()
        await until(lambda: api.runtime.connection.connected, "NATS is back")
        for percent in (10, 20, 30):
            await report(job_log, running, percent)
        assert await api.runtime.feed.wait_for(started.last_seq + 3, 5)
        if not kept_running:
            await stack.aclose()
        await server.stop()
        shutil.rmtree(store)
        shutil.move(copy, store)
        await server.start()
        async with connect(settings, "another API process") as other, open_job_log(other) as others_log:
            commands = JobCommands(others_log, settings)
            new = [(await commands.create(request())).id for _ in range(5)]
        if not kept_running:
            api = await stack.enter_async_context(serving(settings))
        await _rebuilt(api)
        assert {node["id"] for node in (await page(api))["nodes"]} == {running.id, *new}
        assert "older copy" in _lost(api)


async def test_a_stream_that_is_the_one_that_was_read_is_not_built_anew_after_restarts(
    server: RestartingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[int] = []

    async def seen(connection: Connection, stream: str, seq: int) -> StoredMessage | None:
        compared.append(seq)
        return await message_at(connection, stream, seq)

    monkeypatch.setattr("gql_jobs.live.losses.message_at", seen)
    await server.start()
    settings = Settings(nats_url=server.url, data_dir=tmp_path / "data", ack_wait=2)
    for number in (1, 2, 3):
        async with serving(settings) as api:
            await until(lambda: is_ready(api), "the API is ready")
            await create(api)
            compared.clear()
            await server.stop()
            await server.start()
            await until(partial(compared.__contains__, number), "what was read last is compared")
            await until(lambda: is_ready(api), "the API is ready again")
            assert await _history(api) == "whole"
            assert api.runtime.index.rebuilt == (number == 1)


async def test_a_worker_alone_makes_a_deleted_stream_anew(
    operator: Connection, connection: Connection, worker: RunningWorker
) -> None:
    await asyncio.wait_for(worker.started.wait(), 10)
    await _delete_stream(operator)

    async def there() -> bool:
        try:
            return not await missing_consumers(connection, load_job_types(JOB_TYPES).queues)
        except ApiError:
            return False

    await until(there, "the stream and its consumers are there again", within=20)


async def test_a_new_installation_has_lost_nothing(settings: Settings) -> None:
    async with open_runtime(settings, JOB_TYPES) as runtime:
        assert (await runtime.checks())["history"].message == "whole"


async def test_a_purge_leaves_no_ghosts_in_the_index(api: ServedApi, operator: Connection) -> None:
    for _ in range(3):
        await create(api)
    await operator.api(f"STREAM.PURGE.{codec.JOBS_STREAM}")
    await _rebuilt(api)
    assert (await page(api))["totalCount"] == 0
    job = await create(api)
    assert [node["id"] for node in (await page(api))["nodes"]] == [job["id"]]


async def test_a_purge_while_nobody_was_there_leaves_no_ghosts_after_a_restart(
    settings: Settings, operator: Connection
) -> None:
    async with serving(settings) as api:
        await create(api)
        await create(api)
        await until(lambda: api.runtime.index.position >= 2, "both are indexed")
    await operator.api(f"STREAM.PURGE.{codec.JOBS_STREAM}")
    async with serving(settings) as api:
        await _rebuilt(api)
        assert (await page(api))["totalCount"] == 0
    async with serving(settings) as api:
        assert (await page(api))["totalCount"] == 0
        assert GONE in await _history(api)


async def test_the_oldest_jobs_purged_are_gone_and_younger_ones_stay(api: ServedApi, operator: Connection) -> None:
    old = [await create(api) for _ in range(3)]
    young = await create(api)
    seq = (await stream_info(operator)).state.last_seq
    await operator.api(f"STREAM.PURGE.{codec.JOBS_STREAM}", {"seq": seq})
    await _rebuilt(api)
    assert [node["id"] for node in (await page(api))["nodes"]] == [young["id"]]
    assert (await api.ask(FIND, id=old[0]["id"]))["job"] is None


async def test_the_job_whose_messages_are_purged_is_gone_and_the_others_stay(
    api: ServedApi, operator: Connection
) -> None:
    jobs = [await create(api, tags=[name]) for name in ("a", "b", "c")]
    await operator.purge(codec.JOBS_STREAM, codec.job_subjects(jobs[1]["id"]))

    async def gone() -> bool:
        return {node["id"] for node in (await page(api))["nodes"]} == {jobs[0]["id"], jobs[2]["id"]}

    await until(gone, "the purged job has left the index", within=15)
    assert (await api.ask(FIND, id=jobs[1]["id"]))["job"] is None
    assert (await page(api, filter={"tags": ["b"]}))["totalCount"] == 0
    assert (await page(api))["totalCount"] == 2
    assert jobs[1]["id"] in _lost(api)
    # Anybody may ask for readiness.
    assert jobs[1]["id"] not in await _history(api)
    assert await is_ready(api)


async def test_a_job_of_which_a_part_is_purged_is_what_is_left_of_it_and_the_same_when_built_anew(
    settings: Settings, operator: Connection
) -> None:
    async with open_runtime(settings, JOB_TYPES) as runtime:
        job_log = runtime.commands._log  # noqa: SLF001
        made = (await runtime.commands.create(request())).job
        ended_job = await bring_to(job_log, runtime.commands, made, JobStatus.COMPLETED)
        assert await runtime.feed.wait_for(ended_job.last_seq, 5)
        await operator.purge(codec.JOBS_STREAM, codec.event_subjects(made.id))
        await until(lambda: _status(runtime.index.job(made.id)) is JobStatus.QUEUED, "it is queued again", within=15)
        assert [str(event.kind) for event in runtime.index.events(made.id)] == ["queued"]
        live = runtime.index.job(made.id)
        path = runtime.index.path
    path.unlink()
    async with open_runtime(settings, JOB_TYPES) as runtime:
        await until(lambda: runtime.feed.caught_up, "the index is built anew")
        assert runtime.index.job(made.id) == live


def _status(job: object) -> JobStatus | None:
    return getattr(job, "status", None)


async def test_messages_deleted_one_by_one_are_missed_too(api: ServedApi, operator: Connection) -> None:
    await create(api)
    job = await create(api)
    seq = (await stream_info(operator)).state.last_seq
    await operator.api(f"STREAM.MSG.DELETE.{codec.JOBS_STREAM}", {"seq": seq})

    async def gone() -> bool:
        return (await api.ask(FIND, id=job["id"]))["job"] is None and (await page(api))["totalCount"] == 1

    await until(gone, "the deleted job has left the index", within=15)


@pytest.mark.parametrize("whole", [True, False])
async def test_subscriptions_of_lost_jobs_end_with_an_error(api: ServedApi, operator: Connection, whole: bool) -> None:
    job = await create(api)
    subscriptions = [(WATCH, {"id": job["id"]}), *([(FEED, {})] if whole else [])]
    async with asyncio.TaskGroup() as group:
        ends = [group.create_task(_end_of(api, query, variables)) for query, variables in subscriptions]
        await api.subscribers(len(subscriptions))
        if whole:
            await _delete_stream(operator)
        else:
            await operator.purge(codec.JOBS_STREAM, codec.job_subjects(job["id"]))
    for end in ends:
        assert end.result()["extensions"]["code"] == "QUEUE_UNAVAILABLE"


async def _end_of(api: ServedApi, query: str, variables: Data) -> Data:
    try:
        async with asyncio.timeout(20), aclosing(api.events(query, **variables)) as events:
            async for _ in events:
                pass
    except TransportQueryError as error:
        (refusal,) = error.errors or []
        return dict(refusal)
    raise AssertionError("it ended without an error")


async def test_a_command_about_a_lost_job_is_refused_and_its_key_makes_it_anew(
    api: ServedApi, operator: Connection
) -> None:
    job = await create(api, idempotencyKey="once")
    await operator.api(f"STREAM.PURGE.{codec.JOBS_STREAM}")
    assert (await api.refusal(CANCEL, id=job["id"]))["extensions"]["code"] == "NOT_FOUND"
    made = (await api.ask(CREATE, input=asked(idempotencyKey="once")))["createJob"]
    assert (made["job"]["id"], made["deduplicated"]) == (job["id"], False)
    await _rebuilt(api)
    assert [node["id"] for node in (await page(api))["nodes"]] == [job["id"]]


async def test_the_key_of_a_job_of_which_only_events_are_left_makes_a_new_one(
    settings: Settings, operator: Connection
) -> None:
    async with open_runtime(settings, JOB_TYPES) as runtime:
        job_log = runtime.commands._log  # noqa: SLF001
        made = (await runtime.commands.create(request(idempotency_key="once"))).job
        await bring_to(job_log, runtime.commands, made, JobStatus.COMPLETED)
        await operator.purge(codec.JOBS_STREAM, codec.submission_subjects(made.id))
        again = await runtime.commands.create(request(idempotency_key="once"))
        assert (again.id, again.deduplicated, again.job.status) == (made.id, False, JobStatus.QUEUED)
        await until(
            lambda: _status(runtime.index.job(made.id)) is JobStatus.QUEUED, "the new one is indexed", within=15
        )


async def test_what_a_worker_runs_when_the_stream_is_lost_is_stopped_and_a_new_job_runs(
    api: ServedApi, operator: Connection, worker: RunningWorker, caplog: pytest.LogCaptureFixture
) -> None:
    job = await create(api, {"seconds": 3600})

    async def runs() -> bool:
        found: Data = (await api.ask(FIND, id=job["id"]))["job"]
        return str(found["status"]) == "PROCESSING"

    await until(runs, "the job runs")
    await _delete_stream(operator)
    assert (await _runs(api))["status"] == "COMPLETED"
    await until(lambda: "was superseded" in caplog.text, "the old job is stopped", within=15)
    assert worker.task is not None
    assert not worker.task.done()
    history = [message async for message in _messages(operator, job["id"])]
    assert history == []


async def _messages(operator: Connection, job_id: str) -> AsyncIterator[str]:
    async for message in messages_of(operator, codec.JOBS_STREAM, codec.job_subjects(job_id)):
        yield message.subject


async def test_dead_letters_are_copied_again_after_their_stream_was_deleted(
    settings: Settings, operator: Connection
) -> None:
    async with open_runtime(settings, JOB_TYPES) as runtime:
        job_log = runtime.commands._log  # noqa: SLF001
        made = (await runtime.commands.create(request())).job
        await bring_to(job_log, runtime.commands, made, JobStatus.DEAD_LETTER)
        await operator.api(f"STREAM.DELETE.{codec.DEAD_LETTERS_STREAM}")

        async def copied() -> bool:
            try:
                return (await stream_info(operator, codec.DEAD_LETTERS_STREAM)).state.messages == 1
            except Exception:  # noqa: BLE001 - it does not exist yet
                return False

        await until(copied, "the dead letter is there again", within=15)


async def test_files_are_saved_again_after_the_object_store_was_deleted(
    settings: Settings, operator: Connection
) -> None:
    async with open_runtime(settings, JOB_TYPES) as runtime:
        job_log = runtime.commands._log  # noqa: SLF001
        made = (await runtime.commands.create(request())).job
        started = await bring_to(job_log, runtime.commands, made, JobStatus.PROCESSING)
        fence = job_events(made.id, started.last_seq)

        async def saved(name: str) -> Artifact | None:
            try:
                return await runtime.artifacts.save(made.id, name, io.BytesIO(b"data"), "text/plain", fence)
            except QueueUnavailable:
                return None

        lost = await saved("lost")
        assert lost is not None
        await operator.api("STREAM.DELETE.OBJ_artifacts")
        with pytest.raises((KeyError, QueueUnavailable)):
            await runtime.artifacts.read(lost, io.BytesIO())
        kept = await until(lambda: saved("kept"), "a file is saved")
        read = io.BytesIO()
        await runtime.artifacts.read(kept, read)
        assert read.getvalue() == b"data"
        with pytest.raises(KeyError):
            await runtime.artifacts.read(lost, io.BytesIO())


async def test_an_object_store_that_is_deleted_is_made_anew_and_the_loss_of_its_files_is_said_once(
    settings: Settings, operator: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_runtime(settings, JOB_TYPES) as runtime:
        job_log = runtime.commands._log  # noqa: SLF001
        made = (await runtime.commands.create(request())).job
        started = await bring_to(job_log, runtime.commands, made, JobStatus.PROCESSING)
        fence = job_events(made.id, started.last_seq)
        await runtime.artifacts.save(made.id, "lost", io.BytesIO(b"data"), "text/plain", fence)
        await until(lambda: runtime.index.artifacts(made.id), "the file is known")
        await operator.api("STREAM.DELETE.OBJ_artifacts")
        await until(lambda: runtime.index.losses, "the loss is noticed")
        assert (await stream_info(operator, "OBJ_artifacts")).state.messages == 0
    async with open_runtime(settings, JOB_TYPES) as runtime:
        await until(lambda: runtime.feed.caught_up, "the index is up to date")
        assert "files of all jobs are gone" in runtime.index.losses[-1].what
        assert len(runtime.index.losses) == 1
    assert "The object store of artifacts was deleted" in caplog.text


async def test_a_creation_while_there_is_no_stream_is_refused_and_stores_nothing(
    settings: Settings, job_log: JobLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gql_jobs.log.job_log.WRITE_TIMEOUT", 0.5)
    await _delete_stream(job_log.connection)
    with pytest.raises(QueueUnavailable, match=r"nothing was stored|stream not found"):
        await JobCommands(job_log, settings).create(request())
