"""What an older version stored is read, run and removed by this one."""

from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

import pytest

from gql_jobs.jetstream.connection import Connection
from gql_jobs.jetstream.stored_messages import messages_of
from gql_jobs.jobs.messages import DeadLetter, Kind
from gql_jobs.jobs.model import JobStatus
from gql_jobs.log import codec
from gql_jobs.log.codec import decode_body
from gql_jobs.log.commands import JobCommands
from gql_jobs.log.job_log import JobLog
from gql_jobs.log.retention import expire
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime, open_runtime
from tests.by_hand import stored
from tests.deadline import until
from tests.job_types.probe_jobs import ProbePayload
from tests.record_stream import GATE
from tests.recorded import recordings, seen, store
from tests.running import JOB_TYPES, running_worker
from tests.stories import request

TOMORROW = timedelta(days=1)


def test_a_version_is_recorded() -> None:
    assert recordings()


@pytest.mark.parametrize("recording", [pytest.param(path.read_text(), id=path.stem) for path in recordings()])
async def test_a_recorded_stream_is_read_run_and_removed(
    job_log: JobLog, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recording: str
) -> None:
    connection = job_log.connection
    expected = (await store(connection, recording))["jobs"]
    ids = {name: job["id"] for name, job in expected.items()}
    assert {m.kind for m in await stored(connection) if m.kind is not None} == set(Kind) - {Kind.WAITING, Kind.EDITED}
    async with open_runtime(settings, JOB_TYPES) as runtime:
        await until(lambda: runtime.feed.caught_up, "the index has caught up")
        assert seen(runtime.index, ids) == expected
        assert runtime.index.unreadable == 0
        (file,) = runtime.index.artifacts(ids["completed"])
        content = BytesIO()
        await runtime.artifacts.read(file, content)
        assert content.getvalue() == bytes(5)
        await _are_decided_on(runtime.commands, ids)
        monkeypatch.chdir(tmp_path)
        (tmp_path / GATE).touch()
        async with running_worker(settings):
            for name in ("queued", "released", "retrying", "cancelled", "cancelled before its time"):
                await _becomes(runtime, ids[name], JobStatus.COMPLETED)
            await _becomes(runtime, ids["dead letter"], JobStatus.DEAD_LETTER)
        for name, attempt in {"queued": 1, "released": 1, "retrying": 2, "cancelled": 1}.items():
            job = runtime.index.job(ids[name])
            assert job is not None
            assert job.attempt == attempt
        await _letters_are_readable(connection, ids)
        for name in set(ids) - {"expired", "superseded"}:
            assert await expire(job_log, runtime.artifacts, ids[name], datetime.now(UTC) + TOMORROW), name
    left = {m.subject.split(".")[1] for m in await stored(connection) if m.kind is not Kind.EXPIRED}
    assert left == {ids["superseded"]}


async def _are_decided_on(commands: JobCommands, ids: dict[str, str]) -> None:
    """By clients: retried, cancelled, created once more under their keys."""
    for name in ("cancelled", "cancelled before its time", "dead letter"):
        assert (await commands.retry(ids[name])).status is JobStatus.QUEUED
    assert (await commands.cancel(ids["scheduled"])).status is JobStatus.CANCELLED
    again = await commands.create(request(ProbePayload(), idempotency_key="renewed"))
    assert (again.job.id, again.deduplicated) == (ids["renewed"], True)


async def _becomes(runtime: Runtime, job_id: str, status: JobStatus) -> None:
    def reached() -> bool:
        job = runtime.index.job(job_id)
        return job is not None and job.status is status

    await until(reached, f"{job_id} is {status}", within=20)


async def _letters_are_readable(connection: Connection, ids: dict[str, str]) -> None:
    letters = [m async for m in messages_of(connection, codec.DEAD_LETTERS_STREAM, codec.ALL_JOBS)]
    assert {ids["dead letter"], ids["dead letter again"]} <= {m.subject.split(".")[1] for m in letters}
    for letter in letters:
        named = codec.job_and_kind(letter.subject)
        assert named is not None
        message = decode_body(named[1], letter.data)
        assert isinstance(message, DeadLetter)
        assert message.spec.type == "probe"
