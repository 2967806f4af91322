"""The same request with the same key is the same job, whatever its model has got since; another one is a conflict."""

import uuid
from typing import Any

import pytest
from msgspec import Raw, json
from msgspec.structs import replace
from pydantic import AliasChoices, Field

from gql_jobs import Model
from gql_jobs.jobs.payloads import accept, canonical_json
from gql_jobs.jobs.registry import JobType, registry
from gql_jobs.jobs.requests import JobRequest, payload_hash
from gql_jobs.log.commands import creation
from gql_jobs.log.job_log import JobLog
from gql_jobs.settings import Settings
from tests.api.operations import CREATE, asked, create, page
from tests.serving import ServedApi, serving
from tests.stories import BEGAN


class Part(Model):
    """What is nested."""

    page_count: int
    colour: str = "grey"


class Before(Model):
    """What the changes begin with."""

    to: str
    size: float = 1
    parts: list[Part] = Field([])
    by_name: dict[str, Part] = Field({})
    token: str = Field(default_factory=lambda: "drawn")


class WithDefault(Before):
    """One more field with a default."""

    room: str = "main hall"


class WithFactory(Before):
    """One more field, whose default is drawn."""

    key: uuid.UUID = Field(default_factory=uuid.uuid4)


class WithChoices(Before):
    """``to`` is read under a new name first."""

    to: str = Field(validation_alias=AliasChoices("recipient", "to"))


class WithAlias(Before):
    """``to`` is read and stored under a name that GraphQL cannot have."""

    to: str = Field(validation_alias="mail-to", serialization_alias="mail-to")


class OtherPart(Part):
    """The nested model has changed."""

    page_count: int = Field(validation_alias=AliasChoices("pages", "pageCount"))
    key: uuid.UUID = Field(default_factory=uuid.uuid4)
    side: str = "front"


class WithOtherParts(Before):
    """What is below has changed."""

    parts: list[OtherPart] = Field([])  # type: ignore[assignment]
    by_name: dict[str, OtherPart] = Field({})  # type: ignore[assignment]


class Result(Model):
    """What comes of it."""

    done: bool = True


AFTER = [Before, WithDefault, WithFactory, WithChoices, WithAlias, WithOtherParts]
GIVEN = {"to": "ada", "size": 2, "parts": [{"pageCount": 3}], "byName": {"b": {"pageCount": 1}, "a": {"pageCount": 2}}}


CHANGED: list[dict[str, Any]] = [
    {**GIVEN, "to": "bob"},
    {**GIVEN, "size": 3},
    {**GIVEN, "parts": [{"pageCount": 4}]},
    {**GIVEN, "parts": []},
    {**GIVEN, "byName": {"a": {"pageCount": 2}}},
    {**GIVEN, "token": "another"},
]
WITH_DEFAULTS: list[dict[str, Any]] = [
    {**GIVEN, "parts": [{"pageCount": 3, "colour": "grey"}]},
    {**GIVEN, "token": "drawn"},
]


def _deployed(monkeypatch: pytest.MonkeyPatch, payload: type[Model]) -> JobType:
    job_type = JobType("changing", payload, Result, "tests.job_types.changing_handlers:run")
    monkeypatch.setitem(registry._types, "changing", job_type)  # noqa: SLF001
    return job_type


async def _is_refused(api: ServedApi, job_id: str, payload: dict[str, Any]) -> None:
    refusal = await api.refusal(CREATE, input=asked(payload, "changing", idempotencyKey="k"))
    assert refusal["extensions"]["code"] == "IDEMPOTENCY_CONFLICT", payload
    assert refusal["extensions"]["existingJobId"] == job_id


async def _is_the_same(api: ServedApi, job_id: str) -> None:
    again = (await api.ask(CREATE, input=asked(GIVEN, "changing", idempotencyKey="k")))["createJob"]
    assert (again["deduplicated"], again["job"]["id"]) == (True, job_id)
    assert (await page(api))["totalCount"] == 1


@pytest.mark.parametrize("after", AFTER)
async def test_the_same_request_is_the_same_job_after_a_deploy_and_another_one_is_a_conflict(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, after: type[Model]
) -> None:
    _deployed(monkeypatch, Before)
    async with serving(settings) as api:
        job = await create(api, GIVEN, "changing", idempotencyKey="k")
    _deployed(monkeypatch, after)
    async with serving(settings) as api:
        await _is_the_same(api, job["id"])
        for payload in CHANGED + WITH_DEFAULTS:
            await _is_refused(api, job["id"], payload)
        if after is WithDefault:
            await _is_refused(api, job["id"], {**GIVEN, "room": "main hall"})


@pytest.mark.parametrize("before", [WithDefault, WithFactory])
async def test_the_same_request_is_the_same_job_after_a_deploy_was_undone(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, before: type[Model]
) -> None:
    _deployed(monkeypatch, before)
    async with serving(settings) as api:
        job = await create(api, GIVEN, "changing", idempotencyKey="k")
    _deployed(monkeypatch, Before)
    async with serving(settings) as api:
        await _is_the_same(api, job["id"])


@pytest.mark.parametrize("after", AFTER)
async def test_a_job_that_was_stored_without_the_hash_of_its_request_is_compared_by_its_values_after_a_deploy(
    settings: Settings, job_log: JobLog, monkeypatch: pytest.MonkeyPatch, after: type[Model]
) -> None:
    made_by = _deployed(monkeypatch, Before)
    request = JobRequest.of(made_by, accept(Before, GIVEN), idempotency_key="k")
    whole = canonical_json(accept(Before, GIVEN).value)
    older = replace(
        request.spec(BEGAN, settings),
        payload=Raw(whole),
        payload_hash=payload_hash("changing", whole),
        request_hash=None,
    )
    assert json.decode(whole)["parts"] == [{"pageCount": 3, "colour": "grey"}]
    await job_log.append(creation(request.job_id(), older))
    _deployed(monkeypatch, after)
    async with serving(settings) as api:
        await _is_the_same(api, request.job_id())
        for payload in CHANGED:
            await _is_refused(api, request.job_id(), payload)
