"""Models whose code fails, however and wherever: one job never breaks a page, or what others watch."""

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Annotated, Any

import pytest
from gql.transport.exceptions import TransportQueryError
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    WrapValidator,
    computed_field,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)

from gql_jobs import Model
from gql_jobs.jobs.registry import JobType, Registry
from gql_jobs.settings import Settings
from gql_jobs.web import app, runtime
from tests.api.operations import CANCEL, CREATE, CREATE_MANY, RETRY, RETRY_MANY, asked, create, ended
from tests.job_types.probe_jobs import ProbePayload, ProbeResult
from tests.running import running_worker
from tests.serving import ServedApi, serving, subscribed


class OwnError(BaseException):
    """Not even an Exception."""

    def __str__(self) -> str:
        raise KeyError("str")


class Switch:
    """Whether and how the code of the models fails."""

    raised: type[BaseException] | None = None
    place = ""

    def check(self, place: str) -> Any:
        """Fail if this place is to; return None."""
        if self.raised is not None and place == self.place:
            raise self.raised("secret words")
        return None


SWITCH = Switch()


class Word(str):
    """A value of a class of its own, whose code fails."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        SWITCH.check("eq")
        return str.__eq__(self, other)

    def __hash__(self) -> int:
        SWITCH.check("hash")
        return str.__hash__(self)

    def __repr__(self) -> str:
        SWITCH.check("repr")
        return str.__repr__(self)

    def __str__(self) -> str:
        SWITCH.check("str")
        return str.__str__(self)

    def __getattribute__(self, name: str) -> Any:
        SWITCH.check("getattribute of a value")
        return super().__getattribute__(name)


class Fails(Model):
    """A model with code of every sort."""

    size: int
    word: Annotated[str, AfterValidator(Word)] = "w"
    before: Annotated[int, BeforeValidator(lambda v: SWITCH.check("before") or v)] = Field(1, validate_default=True)
    wrapped: Annotated[int, WrapValidator(lambda v, f: SWITCH.check("wrap") or f(v))] = Field(1, validate_default=True)
    written: Annotated[int, PlainSerializer(lambda v: SWITCH.check("plain serializer") or v)] = 1
    drawn: str = Field(default_factory=lambda: SWITCH.check("factory") or "drawn")
    mapped: dict[str, Annotated[str, AfterValidator(Word)]] = Field(default_factory=dict)

    def __init__(self, **values: Any) -> None:
        SWITCH.check("init")
        super().__init__(**values)

    def model_post_init(self, _context: Any, /) -> None:
        SWITCH.check("post init")

    @field_validator("size")
    @classmethod
    def _checked(cls, value: int) -> int:
        SWITCH.check("validator")
        return value

    @model_validator(mode="before")
    @classmethod
    def _before(cls, value: Any) -> Any:
        SWITCH.check("model validator before")
        return value

    @model_validator(mode="after")
    def _after(self) -> "Fails":
        SWITCH.check("model validator after")
        return self

    @field_serializer("size")
    def _serialized(self, value: int) -> int:
        SWITCH.check("serializer")
        return value

    @model_serializer(mode="wrap")
    def _whole(self, write: Callable[[Any], Any]) -> Any:
        SWITCH.check("model serializer")
        return write(self)

    @computed_field
    def area(self) -> int:
        SWITCH.check("computed field")
        return self.size

    def __eq__(self, other: object) -> bool:
        SWITCH.check("eq of the model")
        return super().__eq__(other)

    def __hash__(self) -> int:
        SWITCH.check("hash of the model")
        return 1

    def __repr__(self) -> str:
        SWITCH.check("repr of the model")
        return "Fails"

    def __str__(self) -> str:
        SWITCH.check("str of the model")
        return "Fails"

    def __getattribute__(self, name: str) -> Any:
        SWITCH.check("getattribute")
        if name == "size":
            SWITCH.check("property")
        return super().__getattribute__(name)


PLACES = [
    "eq", "hash", "repr", "str", "getattribute of a value", "before", "wrap", "plain serializer", "factory", "init",
    "post init", "validator", "model validator before", "model validator after", "serializer", "model serializer",
    "computed field", "eq of the model", "hash of the model", "repr of the model", "str of the model", "getattribute",
    "property",
]  # fmt: skip


class Numbers(Model):
    """Numbers, of which only one may be null."""

    size: int
    maybe: int | None = None


async def handler(_: Any, payload: Any) -> dict[str, Any]:
    """Return what fits the result."""
    return {"size": payload.size, "mapped": {"a": "b"}}


async def count(_: Any, payload: Numbers) -> dict[str, Any]:
    """Return more than GraphQL's Int holds, but for 1."""
    return {"size": payload.size if payload.size == 1 else payload.size << 31, "maybe": 2**40}


@pytest.fixture
def types(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """What the API and its workers know."""
    registry = Registry()
    registry.add(JobType("fails", Fails, Fails, f"{__name__}:handler"))
    registry.add(JobType("numbers", Numbers, Numbers, f"{__name__}:count"))
    registry.add(JobType("probe", ProbePayload, ProbeResult, "tests.job_types.probe_handlers:run"))
    for module in (app, runtime):
        monkeypatch.setattr(module, "load_job_types", lambda *_: registry)
    monkeypatch.setattr(SWITCH, "raised", None)
    return registry


@pytest.fixture
async def api(settings: Settings, types: Registry) -> AsyncIterator[ServedApi]:
    """An API that knows these types."""
    assert types
    async with serving(settings) as served:
        yield served


FIELDS = """fragment Shown on Job {
  __typename id status rawPayload rawResult
  ... on FailsJob { payload { size word mapped drawn } result { size word mapped } }
  ... on NumbersJob { payload { size } result { size maybe } }
}"""
FIND = f"query ($id: ID!) {{ job(id: $id) {{ ...Shown events {{ cursor job {{ ...Shown }} }} }} }} {FIELDS}"
PAGE = f"{{ jobs(first: 500) {{ nodes {{ ...Shown }} edges {{ node {{ ...Shown }} }} }} }} {FIELDS}"
WATCH = f"subscription ($id: ID!) {{ jobProgress(id: $id) {{ job {{ ...Shown }} }} }} {FIELDS}"
FEED = f'subscription ($id: ID!) {{ jobEvents(after: "0", filter: {{ids: [$id]}}) {{ job {{ ...Shown }} }} }} {FIELDS}'
SMALL = {"size": 1, "mapped": {"b": "x"}}
LARGE = {"size": 1, "mapped": {"b": "x" * 2000}}


async def _refused_or_made(api: ServedApi, document: str, **variables: Any) -> None:
    """Create jobs; only a refusal of the payload is allowed, in words that are not the model's."""
    try:
        await api.ask(document, **variables)
    except TransportQueryError as refused:
        (error,) = refused.errors or []
        assert error["extensions"]["code"] == "INVALID_PAYLOAD", error
        assert "secret words" not in str(error)


@pytest.mark.parametrize("raised", [KeyError, SystemExit, OwnError])
async def test_code_of_models_that_fails_breaks_no_page_and_no_subscription(
    api: ServedApi, settings: Settings, types: Registry, raised: type[BaseException]
) -> None:
    async with running_worker(settings, registry=types):
        other = (await create(api, {"steps": 1}))["id"]
        done = (await create(api, SMALL, "fails"))["id"]
        for job_id in (other, done):
            await ended(api, job_id)
    for number, place in enumerate(PLACES):
        SWITCH.raised = None
        # Each is another payload, so that what is known of one says nothing of the next.
        waits = (await create(api, {**SMALL, "size": number + 2}, "fails"))["id"]
        SWITCH.place, SWITCH.raised = place, raised
        for job_id in (done, waits, other):
            assert (await api.ask(FIND, id=job_id))["job"]["id"] == job_id
        found = (await api.ask(PAGE))["jobs"]["nodes"]
        assert {done, waits, other} <= {node["id"] for node in found}
        for document in (CANCEL, RETRY, CANCEL):
            await api.ask(document, id=waits)
        assert (await api.ask(RETRY_MANY, filter={"ids": [waits]}))["retryJobs"]["retriedCount"] == 1
        await api.ask(CANCEL, id=waits)
        async with api.socket() as session:
            for document in (WATCH, FEED):
                async with aclosing(subscribed(session, document, id=waits)) as events:
                    assert (await anext(events))["job"]
        await _refused_or_made(api, CREATE, input=asked(SMALL, "fails"))
        await _refused_or_made(api, CREATE, input=asked(SMALL, "fails", idempotencyKey=place))
        await _refused_or_made(api, CREATE_MANY, inputs=[asked({}), asked(SMALL, "fails")])


async def test_a_model_that_fails_after_it_could_read_large_payloads_breaks_pages_once_at_most(api: ServedApi) -> None:
    ids = [(await create(api, LARGE, "fails"))["id"] for _ in range(3)]
    assert [node["__typename"] for node in (await api.ask(PAGE))["jobs"]["nodes"]] == ["FailsJob"] * 3
    SWITCH.place, SWITCH.raised = "validator", KeyError
    assert (await api.refusal(FIND, id=ids[0]))["extensions"]["code"] == "UNREPRESENTABLE"
    assert [node["__typename"] for node in (await api.ask(PAGE))["jobs"]["nodes"]] == ["UnknownJob"] * 3


async def test_a_result_that_graphql_cannot_write_is_an_error_at_its_field_and_the_page_is_whole(
    api: ServedApi, settings: Settings, types: Registry
) -> None:
    async with running_worker(settings, registry=types):
        ids = [(await create(api, {"size": size}, "numbers"))["id"] for size in (1, 2)]
        for job_id in ids:
            await ended(api, job_id)
    answer = (await api.http.post("/graphql", json={"query": PAGE})).json()
    by_id = {node["id"]: node for node in answer["data"]["jobs"]["nodes"]}
    small, large = (by_id[job_id] for job_id in ids)
    assert small["result"] == {"size": 1, "maybe": None}
    assert small["__typename"] == large["__typename"] == "NumbersJob"
    assert large["payload"] == {"size": 2}
    assert large["result"] is None
    assert large["rawResult"] == {"size": 2**32, "maybe": 2**40}
    assert {error["extensions"]["code"] for error in answer["errors"]} == {"UNREPRESENTABLE"}
    assert {tuple(error["path"][-2:]) for error in answer["errors"]} == {("result", "size")}
