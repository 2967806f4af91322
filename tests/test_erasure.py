"""A person's data is deleted: nothing of it is left in any file of NATS, of an index, or of a cache."""

import secrets
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gql_jobs import maintenance
from gql_jobs.jetstream.object_store import bucket_stream
from gql_jobs.jetstream.stored_messages import last_message, messages_of
from gql_jobs.jobs.changes import JobChanges
from gql_jobs.jobs.unique_keys import UniqueKey, key_name
from gql_jobs.log import codec
from gql_jobs.log.artifacts import BUCKET
from gql_jobs.log.job_log import JobLog
from gql_jobs.log.steering import SteeringLog
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime
from tests.deadline import until
from tests.job_types.odd_handlers import probe_with
from tests.job_types.probe_jobs import ProbePayload
from tests.running import running_worker
from tests.serving import ServedApi, serving
from tests.stories import PROBE, accepted, request

pytestmark = pytest.mark.usefixtures("nats")
"""A server of its own for each test, whose files are looked into."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweeps that follow each other at once."""
    monkeypatch.setattr(maintenance, "SWEEP_INTERVAL", 0.05)


@pytest.fixture
async def apis(settings: Settings, tmp_path: Path) -> AsyncIterator[list[ServedApi]]:
    """Two API processes, each with an index and a cache of its own."""
    async with AsyncExitStack() as stack:
        folders = [settings.data_dir, tmp_path / "other"]
        yield [
            await stack.enter_async_context(serving(settings.model_copy(update={"data_dir": folder})))
            for folder in folders
        ]


def _marker() -> str:
    return f"person-{secrets.token_hex(12)}"


def _files_with(marker: str, folders: Iterable[Path]) -> list[str]:
    """The files below these folders in which the marker's bytes stand."""
    found: list[str] = []
    for folder in folders:
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        found += [str(path) for path in paths if marker.encode() in path.read_bytes() or marker in path.name]
    return found


async def _messages_with(marker: str, runtime: Runtime) -> list[str]:
    """The messages of all streams in which the marker's bytes stand."""
    found: list[str] = []
    streams = {
        codec.JOBS_STREAM: codec.ALL_JOBS,
        codec.DEAD_LETTERS_STREAM: codec.ALL_JOBS,
        bucket_stream(BUCKET): f"$O.{BUCKET}.>",
    }
    for stream, subjects in streams.items():
        messages = messages_of(runtime.connection, stream, subjects)
        found += [one.subject async for one in messages if marker.encode() in one.data + one.headers]
    return found


async def _is_forgotten(api: ServedApi) -> bool:
    index = api.runtime.index
    return not index.with_remains(datetime(2000, 1, 1, tzinfo=UTC), 10) and not index.has_erased


def _has_none(api: ServedApi, job_ids: Iterable[str]) -> bool:
    return not any(api.runtime.index.job(job_id) for job_id in job_ids)


class Person:
    """Jobs with the data of somebody, each with a text of its own, in this installation."""

    def __init__(self, apis: list[ServedApi], settings: Settings, folders: list[Path]) -> None:
        self.apis = apis
        self.folders = folders
        self.texts: dict[str, str] = {}
        self._settings = settings

    @property
    def runtime(self) -> Runtime:
        """The first API process."""
        return self.apis[0].runtime

    async def create(self, **options: Any) -> str:
        """A job with a text of its own in its payload, and in its tags."""
        text = _marker()
        payload = ProbePayload(saves=text, **options.pop("payload", {}))
        created = await self.runtime.commands.create(request(payload, tags=(text,), **options))
        self.texts[created.id] = text
        return created.id

    async def run(self, *job_ids: str) -> None:
        """Run jobs to their ends with a handler that spreads their texts; then fetch their files from each process."""
        async with running_worker(self._settings, registry=probe_with("spread")):
            for job_id in job_ids:
                for api in self.apis:
                    await until(partial(_has_ended, api.runtime, job_id), "the job has ended", within=20)
        for job_id in job_ids:
            name = f"{self.texts[job_id]}.txt"
            for api in self.apis:
                assert (await api.http.get(f"/artifacts/{job_id}/{name}")).status_code == 200

    async def delete(self, *job_ids: str) -> None:
        """Delete jobs, and wait until each process has done so."""
        for job_id in job_ids:
            assert (await self.runtime.deletions.delete(job_id)).deleted
        for api in self.apis:
            await until(partial(_has_none, api, job_ids), "they are gone")
            await until(partial(_is_forgotten, api), "nothing is left to be done")

    def found(self, job_id: str, *folders: Path) -> list[str]:
        """The files in which the job's text stands."""
        return _files_with(self.texts[job_id], folders or self.folders)


def _has_ended(runtime: Runtime, job_id: str) -> bool:
    job = runtime.index.job(job_id)
    return job is not None and job.status.is_terminal


@pytest.fixture
def person(apis: list[ServedApi], settings: Settings, tmp_path: Path) -> Person:
    """Somebody of whom nothing is known yet."""
    return Person(apis, settings, [tmp_path / "store", settings.data_dir, tmp_path / "other"])


async def test_no_byte_of_a_deleted_job_is_left_in_a_store_an_index_a_cache_or_a_log(
    person: Person, caplog: pytest.LogCaptureFixture
) -> None:
    done, dead, kept = [await person.create(payload={"permanent": number == 1}) for number in range(3)]
    await person.run(done, dead, kept)
    copied = partial(last_message, person.runtime.connection, codec.DEAD_LETTERS_STREAM, codec.ALL_JOBS)
    await until(copied, "the dead letter is copied")
    queued, cancelled = await person.create(), await person.create()
    scheduled = await person.create(run_at=datetime.now(UTC) + timedelta(days=3))
    await person.runtime.commands.cancel(cancelled)
    gone = (done, dead, queued, cancelled, scheduled)
    for job_id in (*gone, kept):
        assert person.found(job_id), "so the search finds what there is"
    for job_id in (done, dead, kept):
        # Streams of jobs and of files, and of each process the index and the cache.
        assert len(person.found(job_id)) >= 6
    await person.delete(*gone)
    for job_id in gone:
        assert person.found(job_id) == []
        assert await _messages_with(person.texts[job_id], person.runtime) == []
        assert person.texts[job_id] not in caplog.text
    assert len(person.found(kept)) >= 6
    assert await _messages_with(person.texts[kept], person.runtime)


async def test_what_was_replaced_before_is_in_no_message_and_no_index_either(person: Person) -> None:
    """In the files of NATS its bytes stand until their block is written anew (docs/steering.md)."""
    again = await person.create(payload={"fail_attempts": 2})
    await person.run(again)
    later = datetime.now(UTC) + timedelta(days=3)
    edited = await person.create(run_at=later)
    other = JobChanges.of(payload=accepted(ProbePayload(steps=1)), job_type=PROBE, tags=("another",))
    await person.runtime.commands.update(edited, other)
    await person.delete(again, edited)
    for job_id in (again, edited):
        assert person.found(job_id, *person.folders[1:]) == []
        assert await _messages_with(person.texts[job_id], person.runtime) == []


async def test_the_key_of_a_deleted_job_names_it_no_more(person: Person, job_log: JobLog) -> None:
    steering, name = SteeringLog(job_log), key_name("customer-7", None)
    job_id = await person.create(key=UniqueKey("customer-7"))
    held = await steering.read(codec.KEYS, name)
    assert held is not None
    assert job_id.encode() in bytes(held.value or b"")
    await person.delete(job_id)
    left = await steering.read(codec.KEYS, name)
    assert left is None or left.value is None
