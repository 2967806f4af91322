"""What an older version stored is read, run and removed by this one."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

import pytest
from msgspec.structs import replace

from gql_jobs.jetstream.connection import Connection
from gql_jobs.jetstream.stored_messages import messages_of
from gql_jobs.jobs.errors import KeyTaken
from gql_jobs.jobs.messages import Completed, DeadLetter, Kind
from gql_jobs.jobs.model import Job, JobStatus
from gql_jobs.jobs.unique_keys import KeyPolicy, UniqueKey
from gql_jobs.live.gate import GateHolder
from gql_jobs.log import codec
from gql_jobs.log.codec import decode_body
from gql_jobs.log.commands import JobCommands
from gql_jobs.log.job_log import JobLog
from gql_jobs.log.retention import expire
from gql_jobs.maintenance import Maintenance
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime, open_runtime
from tests.by_hand import say, stored
from tests.deadline import until
from tests.job_types.probe_jobs import ProbePayload
from tests.record_steering import KEY, KEY_OF_RUNNING, STEERED_QUEUE
from tests.record_stream import GATE
from tests.recorded import recordings, seen, steered_jobs, steering_values, store
from tests.running import JOB_TYPES, running_worker
from tests.stories import request

TOMORROW = timedelta(days=1)


TEXTS = {path.stem: path.read_text() for path in recordings()}
ALL = [pytest.param(text, id=name) for name, text in TEXTS.items()]
STEERED = [
    pytest.param(text, id=name) for name, text in TEXTS.items() if "steered" in json.loads(text.partition("\n")[0])
]


def test_a_version_is_recorded_and_one_in_which_jobs_are_steered() -> None:
    assert len(ALL) > len(STEERED) > 0


@pytest.mark.parametrize("recording", ALL)
async def test_a_recorded_stream_is_read_run_and_removed(
    job_log: JobLog, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recording: str
) -> None:
    connection = job_log.connection
    head = await store(connection, recording)
    expected, steered = head["jobs"], head.get("steered", {})
    ids = {name: job["id"] for name, job in expected.items()}
    unknown_then = set() if steered else {Kind.WAITING, Kind.EDITED}
    assert await _kinds(connection) == set(Kind) - unknown_then
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
    assert left.intersection(ids.values()) == {ids["superseded"]}
    assert steered or left == {ids["superseded"]}


async def _kinds(connection: Connection) -> set[Kind]:
    """Of all messages about jobs."""
    read = [message.read() for message in await stored(connection) if message.kind is not None]
    return {message.kind for message in read if message is not None}


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


# What steers jobs.


@pytest.mark.parametrize("recording", STEERED)
async def test_what_steers_the_jobs_of_a_recorded_stream_is_read_as_it_was_meant(
    job_log: JobLog, settings: Settings, monkeypatch: pytest.MonkeyPatch, recording: str
) -> None:
    head = await store(job_log.connection, recording)
    assert await steering_values(job_log) == head["steering"]
    # Nothing is done about the jobs meanwhile.
    for acts in (GateHolder, Maintenance):
        monkeypatch.setattr(acts, "run", _idle)
    async with open_runtime(settings, JOB_TYPES) as runtime:
        await until(lambda: runtime.feed.caught_up, "the index has caught up")
        ids = {name: job["id"] for name, job in head["steered"].items()}
        assert steered_jobs(runtime.index, ids) == head["steered"]
        assert runtime.index.unreadable == 0


async def _idle(_: object) -> None:
    await asyncio.Event().wait()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("recording", STEERED)
async def test_the_jobs_of_a_recorded_stream_go_on_as_they_are_steered(
    job_log: JobLog, settings: Settings, recording: str
) -> None:
    head = await store(job_log.connection, recording)
    ids = {name: job["id"] for name, job in head["steered"].items()}
    async with open_runtime(settings, JOB_TYPES) as runtime:
        steered = _Steered(runtime, ids)
        await until(lambda: runtime.feed.caught_up, "the index has caught up")
        await steered.keys_are_held()
        async with running_worker(settings):
            await steered.run("needed", "after another", "with a key", "edited", "to start before")
            await steered.ran_after("after another", "needed")
            assert steered.job("edited").spec.tags == ("b",)
            assert b'"steps":3' in bytes(steered.job("edited").spec.payload)
            assert b'"steps":2' in bytes(steered.job("with a key").spec.payload)
            await steered.run("edited and not submitted")
            await say(job_log, steered.job("with a key, running"), Completed)
            await steered.run("its successor")
            await steered.ran_after("its successor", "with a key, running")
            await steered.a_pause_is_kept_and_ended()
        await steered.what_is_ahead_ends()
        await steered.what_has_ended_stays()


class _Steered:
    """The steered jobs of a recording, by their names, in a process of this version."""

    def __init__(self, runtime: Runtime, ids: dict[str, str]) -> None:
        self._runtime = runtime
        self._ids = ids

    def job(self, name: str) -> Job:
        job = self._runtime.index.job(self._ids[name])
        assert job is not None, name
        return job

    async def run(self, *names: str) -> None:
        for name in names:
            await _becomes(self._runtime, self._ids[name], JobStatus.COMPLETED)

    async def ran_after(self, name: str, other: str) -> None:
        started, ended = self.job(name).started_at, self.job(other).finished_at
        assert started is not None
        assert ended is not None
        assert started >= ended

    async def keys_are_held(self) -> None:
        """By the jobs that had them, and one is free."""
        again = await self._runtime.commands.create(request(key=replace(KEY, policy=KeyPolicy.RETURN)))
        assert (again.job.id, again.deduplicated) == (self._ids["with a key"], True)
        with pytest.raises(KeyTaken):
            await self._runtime.commands.create(request(key=replace(KEY_OF_RUNNING, policy=KeyPolicy.REJECT)))
        free = await self._runtime.commands.create(request(key=UniqueKey("a free one", KeyPolicy.REJECT)))
        assert free.job.id != self._ids["with a key that is free"]

    async def a_pause_is_kept_and_ended(self) -> None:
        """Nothing of the paused queue has started; then its jobs run, no more at a time than may."""
        pause = self._runtime.pauses.of(STEERED_QUEUE)
        assert pause is not None
        assert (pause.by, pause.reason) == ("ada", "the store is being moved")
        names = ("failed and held back", "released", "held back", "held back by its key", "retried and held back")
        expected = (JobStatus.RETRYING, JobStatus.QUEUED, *[JobStatus.WAITING] * 3)
        assert tuple(self.job(name).status for name in names) == expected
        assert self._runtime.steering.limits_of_queue(STEERED_QUEUE).concurrency_per_key == 1
        await self._runtime.pauses.resume(STEERED_QUEUE, None)
        await self.run(*names)
        assert (self.job(names[0]).attempt, self.job(names[1]).attempt) == (2, 1)
        await self.ran_after("held back by its key", "released")

    async def what_is_ahead_ends(self) -> None:
        """A tick with its schedule, and jobs that are due far in the future when somebody wants it."""
        assert (await self._runtime.schedules.delete("yearly"))[0]
        await _becomes(self._runtime, self._ids["tick ahead"], JobStatus.CANCELLED)
        assert self.job("tick ahead").cancel_reason == "The schedule yearly was deleted."
        for name in ("edited before its time", "cancelled and scheduled again"):
            assert (await self._runtime.commands.cancel(self._ids[name])).status is JobStatus.CANCELLED

    async def what_has_ended_stays(self) -> None:
        """Until it is retried, or made again."""
        for name in ("too late", "cancelled with what it needs", "cancelled while it waited"):
            assert self.job(name).status is JobStatus.CANCELLED
        assert (await self._runtime.commands.retry(self._ids["too late"])).status is JobStatus.QUEUED
        assert await self._runtime.commands.find(self._ids["deleted"]) is None
        again = request(ProbePayload(steps=1), idempotency_key="made again")
        assert (await self._runtime.commands.create(again)).deduplicated
