"""Models whose code fails, whose numbers GraphQL cannot write, whose requests repeat: one job never breaks a page."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from msgspec import Raw
from msgspec.structs import replace
from pydantic import Field, FilePath, FutureDatetime, PastDate, SecretStr, create_model, field_validator

from gql_jobs import Model
from gql_jobs.graphql.job_types import UnknownJob
from gql_jobs.graphql.registered_types import RegisteredTypes
from gql_jobs.jobs.errors import InvalidPayload
from gql_jobs.jobs.payloads import ModelMismatch, accept, write
from gql_jobs.jobs.registry import JobType, Registry
from gql_jobs.jobs.requests import JobRequest
from gql_jobs.settings import Settings
from tests.graphql.test_payload_promise import NOW, Api
from tests.stories import job_after, queued


class Numbers(Model):
    size: int
    maybe: int | None = None
    sizes: dict[str, int] | None = None


def test_a_result_that_graphql_cannot_write_leaves_the_job_its_type() -> None:
    registered = RegisteredTypes(_registry(Numbers))
    job = job_after(queued(type="made", payload=Raw(b'{"size":1}')))
    for result in (
        b'{"size":2147483648}',
        b'{"size":1,"maybe":-2147483649}',
        b'{"size":1,"sizes":{"a":1152921504606846976}}',
    ):
        shown = registered.present(replace(job, result_json=Raw(result)))
        assert type(shown).__name__ == "MadeJob"
        assert shown.source.result == Raw(result)


def test_a_number_beyond_graphql_is_null_where_it_may_be_and_elsewhere_an_error_of_its_field() -> None:
    api = Api(Numbers)
    answer = api.answer(api.request({"size": 1, "sizes": {"a": 2**60}}).spec(NOW, Settings()))
    assert answer["payload"] == {"size": 1, "maybe": None, "sizes": {"a": 2**60}}


@pytest.mark.parametrize("annotation", [int, list[int], list[list[int]]])
def test_a_number_that_a_factory_draws_beyond_graphql_leaves_the_job_its_type(annotation: Any) -> None:
    drawn: Any = 2**60 if annotation is int else [2**60] if annotation == list[int] else [[2**60]]
    made: Any = create_model("Made", __base__=Model, drawn=(annotation, Field(default_factory=lambda: drawn)))
    above = create_model("Above", __base__=Model, inside=(list[made], ...))
    for of, given, shown in ((made, {}, {"drawn": None}), (above, {"inside": [{}]}, {"inside": [{"drawn": None}]})):
        api = Api(of)
        answer = api.answer(api.request(given).spec(NOW, Settings()))
        assert (answer["__typename"], answer["payload"]) == ("MadeJob", shown)


def _registry(*models: type[Model]) -> Registry:
    registry = Registry()
    for number, made in enumerate(models):
        registry.add(JobType("made" if not number else f"made{number}", made, made, "nowhere:run"))
    return registry


@pytest.mark.parametrize("raised", [KeyError, RuntimeError, RecursionError, SystemExit, GeneratorExit])
def test_a_validator_that_fails_refuses_its_job_and_breaks_no_page(
    raised: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    fails = False

    class Failing(Model):
        size: int

        @field_validator("size")
        @classmethod
        def _check(cls, value: int) -> int:
            if fails:
                raise raised("secret words")
            return value

    api = Api(Failing)
    spec = api.request({"size": 1}).spec(NOW, Settings())
    fails = True
    with pytest.raises(InvalidPayload, match=f"failed with {raised.__name__}") as refused:
        api.request({"size": 2})
    assert refused.value.extensions["fields"][0]["path"] == "input.payload.made"
    assert "secret words" not in str(refused.value)
    assert "secret words" in caplog.text
    job = job_after(queued(type="made", payload=spec.payload))
    assert isinstance(api.registered.present(job), UnknownJob)


def test_faults_are_named_as_clients_write_them_and_say_nothing_of_pydantic() -> None:
    class Part(Model):
        size_bytes: int

    class Whole(Model):
        parts_by_name: dict[str, Part]
        limit: SecretStr

    with pytest.raises(InvalidPayload) as refused:
        Api(Whole).request({"partsByName": {"a": {"sizeBytes": "many"}}, "limit": "x"})
    (fault,) = refused.value.extensions["fields"]
    assert fault["path"] == "input.payload.made.partsByName.a.sizeBytes"
    assert "pydantic" not in str(refused.value)
    assert "many" not in str(refused.value)


class Before(Model):
    size: float
    text: str = "t"


class After(Before):
    speakers: int | None = None
    room: str = "main hall"


def _request(made: type[Model], given: dict[str, Any]) -> JobRequest:
    job_type = JobType("made", made, made, "nowhere:run")
    return JobRequest.of(job_type, accept(made, given), idempotency_key="k")


def test_the_same_request_is_the_same_however_it_is_written_and_whatever_defaults_have_come_since() -> None:
    stored = _request(Before, {"size": 1.0, "text": "ä"}).spec(NOW, Settings())
    assert _request(After, {"text": "\u00e4", "size": 1}).repeats(stored)
    assert not _request(After, {"text": "a\u0308", "size": 1}).repeats(stored)
    assert not _request(Before, {"size": 2, "text": "ä"}).repeats(stored)
    without = _request(Before, {"size": 1}).spec(NOW, Settings())
    assert not _request(Before, {"size": 1, "text": "t"}).repeats(without)


def test_a_job_that_was_stored_without_the_hash_of_its_request_is_compared_by_its_payload() -> None:
    older = replace(_request(Before, {"size": 1}).spec(NOW, Settings()), request_hash=None)
    assert _request(Before, {"size": 1, "text": "t"}).repeats(older)
    assert not _request(Before, {"size": 2}).repeats(older)


@pytest.mark.parametrize(
    ("annotation", "problem"),
    [
        (FutureDatetime, "is relative to the present"),
        (PastDate, "is relative to the present"),
        (list[FutureDatetime | None], "is relative to the present"),
        (Callable[[], int], "takes only objects of Python"),
        (FilePath, "is a path that must or must not exist"),
    ],
)
def test_a_field_that_could_not_be_read_back_is_refused_at_registration(annotation: Any, problem: str) -> None:
    made: Any = create_model("Made", __base__=Model, strange=(annotation, ...))
    with pytest.raises(ValueError, match=f"The field 'strange' of the model Made {problem}"):
        _registry(made)


@pytest.mark.parametrize("no_model", [7, dict, {"a": 1}])
def test_what_is_no_model_is_refused_in_a_sentence(no_model: Any) -> None:
    with pytest.raises(ValueError, match="A payload or result must be a pydantic model, not "):
        Registry().add(JobType("made", Before, no_model, "nowhere:run"))


def test_a_field_of_a_result_that_is_needed_and_never_stored_is_refused_at_registration() -> None:
    kept: Any = create_model("Kept", __base__=Model, hidden=(int, Field(exclude=True)))
    above: Any = create_model("Above", __base__=Model, inside=(list[kept], ...))
    given: Any = create_model("Given", __base__=Model, hidden=(int, Field(1, exclude=True)))
    for result in (kept, above):
        with pytest.raises(ValueError, match="The field 'hidden' of the model Kept is excluded from what is stored"):
            Registry().add(JobType("made", Before, result, "nowhere:run"))
    Registry().add(JobType("made", kept, given, "nowhere:run"))


def test_a_moment_within_json_is_shown_and_read_as_it_was_written() -> None:
    made: Any = create_model("Made", __base__=Model, moments=(dict[str, datetime], ...))
    api = Api(made)
    spec = api.request({"moments": {"a": "2026-01-31T12:00:00"}}).spec(NOW, Settings())
    assert api.answer(spec)["payload"] == {"moments": {"a": "2026-01-31T12:00:00"}}
    read: Any = made.model_validate_json(bytes(spec.payload))
    assert read.moments == {"a": datetime(2026, 1, 31, 12)}  # noqa: DTZ001


def test_a_result_is_stored_only_if_it_reads_back_as_it_was() -> None:
    class Halved(Model):
        share: float

        @field_validator("share")
        @classmethod
        def _halve(cls, value: float) -> float:
            return value / 2

    assert write(Before, {"size": 1}) == b'{"size":1.0,"text":"t"}'
    with pytest.raises(ModelMismatch, match=r"^share: It reads back as another value than it was stored as\.$"):
        write(Halved, {"share": 1.0})
    with pytest.raises(ModelMismatch, match=r"^size: Field required\.$"):
        write(Before, {})


def _outer(number: int) -> type[Model]:
    fields: dict[str, Any] = {f"field_{number}": (int, 1)}
    inner: Any = create_model("Inner", __base__=Model, **fields)
    return create_model(f"Outer{number}", __base__=Model, inner=(inner, ...))


def test_names_of_nested_types_do_not_depend_on_the_order_of_registration() -> None:
    models = [_outer(number) for number in range(2)]
    types = [JobType(f"type_{n}", made, made, "nowhere:run") for n, made in enumerate(models)]
    found = []
    for ordered in (types, types[::-1]):
        registry = Registry()
        for job_type in ordered:
            registry.add(job_type)
        registered = RegisteredTypes(registry)
        found.append(
            {
                name: str(shape.type.__strawberry_definition__.fields[0].type)
                for name, shape in registered.inputs.items()
            }
        )
    assert found[0] == found[1]


def test_a_moment_without_an_offset_comes_back_in_utc() -> None:
    made: Any = create_model("Made", __base__=Model, at=(datetime, ...))
    api = Api(made)
    answer = api.answer(api.request({"at": "2026-01-31T12:00:00"}).spec(NOW, Settings()))
    assert answer["payload"] == {"at": "2026-01-31T12:00:00+00:00"}
