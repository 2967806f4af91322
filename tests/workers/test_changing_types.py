"""A rolling deploy, API and workers in both orders: no change of a type loses or misjudges a job."""

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from msgspec.structs import replace
from pydantic import AliasChoices, BaseModel, Field

from gql_jobs import Model
from gql_jobs.jobs.messages import Kind
from gql_jobs.jobs.model import JobStatus
from gql_jobs.jobs.payloads import accept, read
from gql_jobs.jobs.registry import JobType, Registry
from gql_jobs.jobs.requests import JobRequest
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime
from gql_jobs_worker import abilities, pool
from tests.running import running_worker
from tests.workers.stories import ended, kinds, lane_is, reached

DOCUMENT = Path(__file__).parents[2] / "docs" / "changing-types.md"


class Seen(Model):
    """What the handler was given."""

    seen: dict[str, Any]


class SeenAndCounted(Seen):
    """A result of a later version."""

    fields: int = 0


class Plain(Model):
    """What the changes begin with."""

    to: str
    pages: int = Field(1, le=100)


class WithOptional(Plain):
    """One more field, which may be left out."""

    speakers: int | None = None


class WithFactory(Plain):
    """One more field, whose default is drawn."""

    marks: list[str] = Field(default_factory=lambda: ["new"])


class WithRequired(Plain):
    """One more field, which has to be given."""

    language: str


class Renamed(Model):
    """``to`` has another name, and is still read under its old one."""

    recipient: str = Field(validation_alias=AliasChoices("recipient", "to"), serialization_alias="recipient")
    pages: int = Field(1, le=100)


class Widened(Model):
    """``pages`` may be words, too."""

    to: str
    pages: int | str = 1


class Narrowed(Model):
    """Fewer pages are allowed."""

    to: str
    pages: int = Field(1, le=10)


class Size(StrEnum):
    """The sizes there were."""

    SMALL = "small"
    LARGE = "large"


class MoreSizes(StrEnum):
    """One more."""

    SMALL = "small"
    LARGE = "large"
    HUGE = "huge"


class Sized(Model):
    """With an enum."""

    size: Size = Size.SMALL


class SizedMore(Model):
    """With the larger one."""

    size: MoreSizes = MoreSizes.SMALL


class Nested(Model):
    """With a model in a list."""

    parts: list[Plain]


class NestedWithOptional(Model):
    """Whose model has one more field."""

    parts: list[WithOptional]


def _type(payload: type[BaseModel], **facts: Any) -> JobType:
    return JobType("changing", payload, facts.pop("result", Seen), "tests.job_types.changing_handlers:run", **facts)


class Change(NamedTuple):
    """A change of a type, what clients of either version ask for, and what the other version's handler is given.

    None instead of what it is given: the other version cannot read the job, and leaves it to its own.
    """

    before: JobType | None
    after: JobType | None
    asked_before: dict[str, Any]
    asked_after: dict[str, Any]
    seen_by_newer: dict[str, Any] | None
    seen_by_older: dict[str, Any] | None


PLAIN = {"to": "ada", "pages": 2}

CHANGES = {
    "add an optional field": Change(
        _type(Plain), _type(WithOptional), PLAIN, {**PLAIN, "speakers": 3}, {**PLAIN, "speakers": None}, PLAIN
    ),
    "add an optional field that no client sends yet": Change(
        _type(Plain), _type(WithOptional), PLAIN, PLAIN, {**PLAIN, "speakers": None}, PLAIN
    ),
    "add a field with a default factory": Change(
        _type(Plain), _type(WithFactory), PLAIN, PLAIN, {**PLAIN, "marks": ["new"]}, PLAIN
    ),
    "add an optional field to a nested model": Change(
        _type(Nested),
        _type(NestedWithOptional),
        {"parts": [PLAIN]},
        {"parts": [{**PLAIN, "speakers": 3}]},
        {"parts": [{**PLAIN, "speakers": None}]},
        {"parts": [PLAIN]},
    ),
    "remove an optional field": Change(
        _type(WithOptional), _type(Plain), {**PLAIN, "speakers": 3}, PLAIN, PLAIN, {**PLAIN, "speakers": None}
    ),
    "add a required field": Change(
        _type(Plain), _type(WithRequired), PLAIN, {**PLAIN, "language": "en"}, None, PLAIN
    ),
    "rename a field, the old name being read still": Change(
        _type(Plain), _type(Renamed), PLAIN, {"recipient": "ada"}, {"recipient": "ada", "pages": 2}, None
    ),
    "widen a type": Change(_type(Plain), _type(Widened), PLAIN, {"to": "ada", "pages": "all"}, PLAIN, None),
    "narrow a constraint": Change(
        _type(Plain), _type(Narrowed), {"to": "ada", "pages": 50}, PLAIN, None, PLAIN
    ),
    "add a value to an enum": Change(
        _type(Sized), _type(SizedMore), {"size": "large"}, {"size": "huge"}, {"size": "large"}, None
    ),
    "remove a value of an enum": Change(
        _type(SizedMore), _type(Sized), {"size": "huge"}, {"size": "large"}, None, {"size": "large"}
    ),
    "add a field to the result": Change(
        _type(Plain), _type(Plain, result=SeenAndCounted), PLAIN, PLAIN, PLAIN, PLAIN
    ),
    "add a job type": Change(None, _type(Plain), PLAIN, PLAIN, None, None),
    "remove a job type": Change(_type(Plain), None, PLAIN, PLAIN, None, None),
    "rename a queue": Change(_type(Plain, queue="old"), _type(Plain, queue="new"), PLAIN, PLAIN, PLAIN, PLAIN),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abilities, "MAX_DELAY", 0.3)
    monkeypatch.setattr(pool, "EARLIER_QUEUES_INTERVAL", 0.3)


@asynccontextmanager
async def _worker_of(settings: Settings, job_type: JobType | None) -> AsyncIterator[None]:
    """A worker whose code has that type, and no other in its queue."""
    registry = Registry()
    registry.add(replace(job_type, name="changing") if job_type else replace(_type(Plain), name="another"))
    async with running_worker(settings, registry=registry):
        yield


async def _create(runtime: Runtime, job_type: JobType, fields: dict[str, Any]) -> str:
    return (await runtime.commands.create(JobRequest.of(job_type, accept(job_type.payload, fields)))).job.id


async def _runs(
    runtime: Runtime, settings: Settings, made_by: JobType, fields: dict[str, Any], *,
    run_by: JobType | None, given: dict[str, Any] | None,
) -> None:  # fmt: skip
    """Make a job by one version, and see what becomes of it at a worker of the other version."""
    async with AsyncExitStack() as workers:
        if made_by.queue != "default":
            # The older version has run: the server knows its queue.
            async with _worker_of(settings, made_by):
                pass
        job_id = await _create(runtime, made_by, fields)
        await workers.enter_async_context(_worker_of(settings, run_by))
        if given is None:
            await lane_is(runtime.connection, "it is offered again", lambda lane: lane.delivered.consumer_seq >= 3)
            assert (await reached(runtime, job_id, JobStatus.QUEUED)).attempt == 0
            assert await kinds(runtime.connection, job_id) == [Kind.QUEUED]
            await workers.enter_async_context(_worker_of(settings, made_by))
        job = await ended(runtime, job_id)
        assert (job.status, job.attempt, job.errors) == (JobStatus.COMPLETED, 1, ())
        assert job.result is not None
        if given is not None:
            assert msgspec.json.decode(job.result)["seen"] == given
        for version in (made_by, run_by):
            assert version is None or (version.result is not None and read(version.result, bytes(job.result)))


@pytest.mark.parametrize("name", [name for name, change in CHANGES.items() if change.before])
async def test_workers_first_loses_and_misjudges_no_job_of_an_older_api(
    runtime: Runtime, settings: Settings, name: str
) -> None:
    change = CHANGES[name]
    assert change.before is not None
    given = change.seen_by_newer
    await _runs(runtime, settings, change.before, change.asked_before, run_by=change.after, given=given)


@pytest.mark.parametrize("name", [name for name, change in CHANGES.items() if change.after])
async def test_api_first_loses_and_misjudges_no_job_of_a_newer_api(
    runtime: Runtime, settings: Settings, name: str
) -> None:
    change = CHANGES[name]
    assert change.after is not None
    given = change.seen_by_older
    await _runs(runtime, settings, change.after, change.asked_after, run_by=change.before, given=given)


ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in DOCUMENT.read_text().split("<!-- changes -->\n")[1].split("<!-- /changes -->")[0].splitlines()[2:]
]


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_row_of_the_document_says_of_both_orders_what_the_tests_show(row: list[str]) -> None:
    name, workers_first, api_first, _ = row
    change = CHANGES[name]
    for said, given, has_one in (
        (workers_first, change.seen_by_newer, change.before is not None),
        (api_first, change.seen_by_older, change.after is not None),
    ):
        expected = "—" if not has_one else "runs" if given is not None else "waits"
        assert re.match(r"—|\w+", said) is not None
        assert said.startswith(expected), (name, said)


def test_every_change_has_a_row() -> None:
    assert [row[0] for row in ROWS] == list(CHANGES)
