"""Fields that a model declares secret: no answer, no refusal and no result shows them, whatever model they are in."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from msgspec import UNSET, Raw
from msgspec.structs import replace
from pydantic import (
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    RootModel,
    Secret,
    SecretBytes,
    SecretStr,
    create_model,
    field_validator,
    model_validator,
)
from typing_extensions import TypedDict

from gql_jobs import Model
from gql_jobs.graphql.job_types import UnknownJob
from gql_jobs.graphql.registered_types import RegisteredTypes
from gql_jobs.jobs.errors import InvalidPayload
from gql_jobs.jobs.payloads import MAX_SECRETS, ModelMismatch, accept, write
from gql_jobs.jobs.registry import JobType, Registry
from gql_jobs.jobs.secret_fields import REDACTED, declared_secrets, marks_for, redacted
from gql_jobs.settings import Settings
from gql_jobs_worker.execution import Readable, Unable, read_payload
from tests.graphql.graphql_inputs import as_graphql_input
from tests.graphql.sample_jobs import shown_json
from tests.graphql.test_payload_promise import NOW, Api
from tests.stories import job_after, queued

TOLD = "hunter2 \"quoted\" 'é'\n/?&"
"""A secret that JSON, Python and URLs each spell in another way."""
_numbers = count()


class Login(Model):
    user: str
    password: SecretStr


class Tree(Model):
    name: str = "n"
    key: SecretStr | None = None
    children: list["Tree"] = Field(default_factory=list)


class Keyring(RootModel[dict[str, SecretStr]]):
    pass


class Card(Model):
    kind: Literal["card"] = "card"
    number: Secret[str]


class Cash(Model):
    kind: Literal["cash"] = "cash"
    till: str = "1"


@dataclass
class Plain:
    token: SecretStr
    size: int = 1


class Typed(TypedDict, total=False):
    token: SecretStr


class Pair(NamedTuple):
    token: SecretStr
    size: int = 0


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, SecretStr] = Field(init=False)


class Aliased(BaseModel):
    token: SecretStr = Field(alias="theToken")
    deep: SecretStr | None = Field(None, validation_alias=AliasPath("below", 0, "token"))


class Written(Model):
    token: Annotated[SecretStr, PlainSerializer(lambda value: value.get_secret_value())]


KINDS: dict[str, tuple[Any, Any]] = {
    "text": (SecretStr, lambda s: s),
    "bytes": (SecretBytes, lambda s: s),
    "generic": (Secret[str], lambda s: s),
    "list of a generic": (Secret[list[str]], lambda s: [s, s]),
    "mapping of a generic": (Secret[dict[str, str]], lambda s: {"a": s}),
    "model of a generic": (Secret[Cash], lambda s: {"till": s}),
    "optional": (SecretStr | None, lambda s: s),
    "list": (list[SecretStr], lambda s: [s, "other"]),
    "set": (set[SecretStr], lambda s: [s]),
    "tuple": (tuple[int, SecretStr], lambda s: [1, s]),
    "tuple of any length": (tuple[SecretStr, ...], lambda s: [s, s]),
    "mapping": (dict[str, SecretStr], lambda s: {"a/~b": s, "*": s}),
    "mapping to lists": (dict[str, list[SecretStr]], lambda s: {"a": [s]}),
    "keys": (dict[SecretStr, int], lambda s: {s: 1}),
    "union": (SecretStr | list[SecretStr], lambda s: [s]),
    "number or secret": (int | SecretStr, lambda s: s),
    "model": (Login, lambda s: {"user": "ada", "password": s}),
    "models": (list[Login], lambda s: [{"user": "ada", "password": s}]),
    "mapping to models": (dict[str, Login], lambda s: {"a": {"user": "ada", "password": s}}),
    "recursive": (Tree, lambda s: {"children": [{"key": s, "children": [{"key": s}]}]}),
    "root model": (Keyring, lambda s: {"a": s}),
    "discriminated": (Annotated[Card | Cash, Field(discriminator="kind")], lambda s: {"kind": "card", "number": s}),
    "dataclass": (Plain, lambda s: {"token": s}),
    "typed dict": (Typed, lambda s: {"token": s}),
    "named tuple": (Pair, lambda s: [s]),
    "extras": (Open, lambda s: {"anything": s}),
    "aliases": (Aliased, lambda s: {"theToken": s}),
    "own serializer": (Written, lambda s: {"token": s}),
}
"""Each kind of place that a secret can have: its annotation, and JSON with the secret in it."""
_RESULTS = sorted(set(KINDS) - {"list of a generic", "mapping of a generic", "model of a generic", "keys"})
"""Those that ``REDACTED`` can be in the place of, which is what is stored of a result."""


def texts(value: Any) -> str:
    """All texts of a JSON value, as they are."""
    return "\n".join(_texts(value))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def seen(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer as its client reads it."""
    decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(answer))
    return decoded


@st.composite
def secret_models(draw: st.DrawFn) -> tuple[type[BaseModel], dict[str, Any], list[str]]:
    """A model with secrets in several kinds of places, a payload for it, and its secrets."""
    fields: dict[str, Any] = {"harmless": (str, "none")}
    payload: dict[str, Any] = {"harmless": "seen by all"}
    told: list[str] = []
    for number, name in enumerate(draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=4))):
        annotation: Any = KINDS[name][0]
        make = KINDS[name][1]
        secret = f"{draw(st.text(st.characters(codec='utf-8', exclude_characters='/'), max_size=6))}{TOLD}{number}"
        told.append(secret)
        if draw(st.booleans()) and name != "optional":
            annotation, value = list[annotation], [make(secret)]
        else:
            value = make(secret)
        fields[f"field_{number}"] = (annotation, ...)
        payload[f"field{number}"] = value
    return create_model(f"Secretive{next(_numbers)}", __base__=Model, **fields), payload, told


@settings(deadline=None, max_examples=40, phases=[Phase.explicit, Phase.generate])
@given(secret_models())
def test_wherever_a_model_has_its_secrets_handlers_get_them_and_no_answer_shows_them(
    made: tuple[type[BaseModel], dict[str, Any], list[str]],
) -> None:
    model, payload, told = made
    api = Api(model)
    spec = api.request(as_graphql_input(model, payload)).spec(NOW, Settings())
    stored = msgspec.json.decode(spec.payload)
    assert not [secret for secret in told if secret not in texts(stored)]
    readable = read_payload(api.job_type, bytes(spec.payload), spec.secrets)
    assert isinstance(readable, Readable)
    assert readable.payload == model.model_validate_json(bytes(spec.payload), by_alias=True, by_name=True)
    answer = seen(api.answer(spec))
    assert answer["__typename"] == "MadeJob"
    assert answer["payload"]["harmless"] == answer["rawPayload"]["harmless"] == "seen by all"
    # Of older versions without marks, and of models without the field: one of both is enough.
    for shown in (
        answer,
        seen(api.answer(replace(spec, secrets=()))),
        msgspec.json.decode(redacted(spec.payload, spec.secrets)),
        msgspec.json.decode(redacted(spec.payload, marks_for(model, spec.payload, ()))),
    ):
        assert not [secret for secret in told if secret in texts(shown)], shown
        assert REDACTED in texts(shown)
    raised = f"{told!r} {told[0]} {msgspec.json.encode(payload).decode()}"
    assert "hunter2" not in readable.hidden.hide(raised)


@pytest.mark.parametrize("name", KINDS)
def test_what_is_redacted_is_refused_in_the_place_of_a_secret(name: str) -> None:
    annotation, make = KINDS[name]
    model: Any = create_model(f"Secretive{next(_numbers)}", __base__=Model, field=(annotation, ...))
    accept(model, {"field": make(TOLD)})
    with pytest.raises(InvalidPayload) as refused:
        Api(model).request(as_graphql_input(model, {"field": make(REDACTED)}))
    assert refused.value.extensions["fields"][0]["path"].startswith("input.payload.made.field")
    assert "give the secret itself" in str(refused.value.extensions["fields"])


@pytest.mark.parametrize("name", _RESULTS)
def test_of_a_result_its_secrets_are_not_even_stored(name: str) -> None:
    annotation, make = KINDS[name]
    model: Any = create_model(f"Secretive{next(_numbers)}", __base__=Model, field=(annotation, ...), seen=(str, "s"))
    for returned in ({"field": make(TOLD)}, model.model_validate({"field": make(TOLD)})):
        stored = write(model, returned)
        assert "hunter2" not in stored.decode()
        assert (msgspec.json.decode(stored)["seen"], REDACTED in stored.decode()) == ("s", True)
        api = Api(model)
        job = job_after(queued(type="made", payload=accept(model, {"field": make(TOLD)}).stored))
        shown = api.registered.present(replace(job, result_json=Raw(stored)))
        assert type(shown).__name__ == "MadeJob"
        assert shown_json(shown.raw_result) == msgspec.json.decode(stored)


def test_a_result_of_an_older_version_with_a_secret_in_clear_is_not_shown() -> None:
    api = Api(Login)
    payload = Raw(accept(Login, {"user": "ada", "password": TOLD}).stored)
    job = replace(job_after(queued(type="made", payload=payload)), result_json=payload)
    assert shown_json(api.registered.present(job).raw_result) == {"user": "ada", "password": REDACTED}


class Talkative(Model):
    pin: SecretStr
    login: Login | None = None
    copied: str = ""

    @field_validator("pin")
    @classmethod
    def _checked(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().endswith("!"):
            raise ValueError(f"{value.get_secret_value()!r} has no exclamation mark")
        return value

    @model_validator(mode="before")
    @classmethod
    def _before(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("copied") == "before":
            raise ValueError(f"not before {value}")
        if isinstance(value, dict) and value.get("copied") == "error":
            raise KeyError(value["pin"])
        return value

    @model_validator(mode="after")
    def _after(self) -> "Talkative":
        if self.copied == "after":
            raise ValueError(f"not after {self.pin.get_secret_value()}")
        if self.copied == "copy":
            self.copied = f"https://ada:{self.pin.get_secret_value()}@example.com"
        return self


@pytest.mark.parametrize(
    ("given_", "path"),
    [
        ({"pin": TOLD}, "input.payload.made.pin"),
        ({"pin": "7"}, "input.payload.made.pin"),
        ({"pin": f"{TOLD}!", "copied": "after"}, "input.payload.made"),
        ({"pin": f"{TOLD}!", "copied": "before"}, "input.payload.made"),
        ({"pin": f"{TOLD}!", "copied": "error"}, "input.payload.made"),
        ({"pin": TOLD, "login": {"user": "u", "password": TOLD}}, "input.payload.made.pin"),
    ],
)
def test_no_refusal_quotes_a_secret_though_a_validator_does(given_: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidPayload) as refused:
        Api(Talkative).request(given_)
    (fault,) = refused.value.extensions["fields"]
    assert fault["path"] == path
    assert "hunter2" not in str(fault)
    assert "'7'" not in str(fault)
    stored = read_payload(JobType("made", Talkative, Login, "a:b"), msgspec.json.encode(given_))
    assert isinstance(stored, Unable)
    assert "hunter2" not in stored.reason


def test_a_field_into_which_code_of_the_model_has_copied_a_secret_is_shown_without_it() -> None:
    api = Api(Talkative)
    answer = seen(api.answer(api.request({"pin": f"{TOLD}!", "copied": "copy"}).spec(NOW, Settings())))
    assert answer["payload"]["copied"] == f"https://ada:{REDACTED}@example.com"
    assert answer["payload"]["pin"] == answer["rawPayload"]["pin"] == REDACTED


class Older(Model):
    user: str
    token: SecretStr


class Newer(Model):
    user: str
    token: str
    password: SecretStr = SecretStr("default")


def test_marks_that_were_stored_and_those_of_the_model_of_today_hide_together() -> None:
    spec = Api(Older).request({"user": "ada", "token": TOLD}).spec(NOW, Settings())
    changed = replace(spec, payload=Raw(msgspec.json.encode({"user": "ada", "token": TOLD, "password": TOLD})))
    assert seen(Api(Newer).answer(changed))["rawPayload"] == {"user": "ada", "token": REDACTED, "password": REDACTED}


@pytest.mark.parametrize("payload", [{"user": 5, "token": TOLD}, {"token": TOLD, "password": [TOLD]}])
def test_a_payload_that_cannot_be_read_any_more_is_shown_without_what_is_marked_or_not_at_all(payload: Any) -> None:
    registered = Api(Newer).registered
    job = job_after(queued(type="made", payload=Raw(msgspec.json.encode(payload)), secrets=("/token",)))
    shown = registered.present(job)
    assert isinstance(shown, UnknownJob)
    told = shown_json(shown.raw_payload)
    assert TOLD not in texts(told)
    assert told["token"] == REDACTED
    nothing_known = replace(job, spec=replace(job.spec, type="gone", secrets=()))
    assert shown_json(registered.present(nothing_known).raw_payload) == REDACTED
    marked = replace(job, spec=replace(job.spec, type="gone"))
    assert shown_json(registered.present(marked).raw_payload)["token"] == REDACTED


def test_a_default_that_is_secret_stands_in_no_schema_and_hides_nothing_else() -> None:
    class Defaulted(Model):
        user: str
        token: SecretStr = Field(TOLD)  # type: ignore[assignment]

    registry = Registry()
    registry.add(JobType("made", Defaulted, Login, "a:b"))
    RegisteredTypes(registry)
    api = Api(Defaulted)
    answer = seen(api.answer(api.request({"user": "ada"}).spec(NOW, Settings())))
    assert answer["rawPayload"] == {"user": "ada"}
    assert answer["payload"] == {"user": "ada", "token": REDACTED}
    field = api.core.type_map["MadePayloadInput"].fields["token"]  # type: ignore[attr-defined]
    assert "hunter2" not in (field.description or "")


def test_a_payload_has_no_more_secrets_than_can_be_hidden() -> None:
    class Many(Model):
        tokens: list[SecretStr]

    tokens = [f"token {number}" for number in range(MAX_SECRETS)]
    accept(Many, {"tokens": tokens})
    with pytest.raises(ModelMismatch, match="at most 1000 secret values"):
        accept(Many, {"tokens": [*tokens, "one more"]})


def test_models_without_secrets_are_laid_beside_nothing() -> None:
    assert declared_secrets(Cash, {"till": "1"}) == []
    stored = Raw(b"{broken")
    assert marks_for(Cash, stored, ()) == ()
    job = job_after(queued(type="made", payload=Raw(b'{"till":"1"}')))
    shown = Api(Cash).registered.present(job)
    assert shown.readable.payload(job) is job.spec.payload
    assert job.result_json is UNSET
