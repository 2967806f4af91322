"""Acknowledged means readable: a handler gets the payload that was validated, whatever kinds of fields it has.

Models of every kind of field that docs/handlers.md names are generated, with payloads as clients write them. Each is
coerced by the real schema, stored as a message, read as a worker reads it, and shown as the API shows it.
"""

import itertools
import json
import uuid
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from ipaddress import IPv4Address
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Generic, Literal, NamedTuple, Self, TypeVar

import msgspec
import pytest
import strawberry
from graphql import GraphQLObjectType, GraphQLSchema, GraphQLUnionType, get_named_type, graphql_sync, is_leaf_type
from graphql.utilities import coerce_input_value
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from msgspec import UNSET
from pydantic import (
    AfterValidator,
    AliasChoices,
    AliasPath,
    AnyUrl,
    AwareDatetime,
    Base64Bytes,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Discriminator,
    EmailStr,
    Field,
    Json,
    NaiveDatetime,
    PlainSerializer,
    RootModel,
    Secret,
    SecretBytes,
    SecretStr,
    StrictInt,
    StringConstraints,
    WrapValidator,
    computed_field,
    create_model,
    field_serializer,
    model_validator,
)
from strawberry.schema.config import StrawberryConfig
from strawberry.tools import create_type
from typing_extensions import TypeAliasType, TypedDict

from gql_jobs import BigInt, Model
from gql_jobs.graphql.engine.budget import Budget
from gql_jobs.graphql.engine.fast_path import call_resolvers
from gql_jobs.graphql.engine.strawberry_internals import core_schema
from gql_jobs.graphql.mutations import create_job_input, job_payload_input, request_of
from gql_jobs.graphql.registered_types import RegisteredTypes
from gql_jobs.graphql.scalars_and_enums import SCALARS
from gql_jobs.jobs import model
from gql_jobs.jobs.built_payloads import accept_built, built_payload
from gql_jobs.jobs.messages import Kind, Submission
from gql_jobs.jobs.model_parts import parts_of
from gql_jobs.jobs.payloads import ModelMismatch, write
from gql_jobs.jobs.registry import JobType, Registry
from gql_jobs.log.codec import decode_body, encode_body
from gql_jobs.settings import Settings
from gql_jobs_worker.execution import Readable, read_payload
from tests.graphql.graphql_inputs import as_graphql_input

SECRET = "do not tell"  # noqa: S105
JOB_ID = "018f3c6e-7d3a-7c52-9d0a-3f5a8c1d7e42"
QUICK = settings(
    deadline=None, derandomize=True, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
_numbers = itertools.count(1)


def handler(*_: Any) -> None:
    """Never called."""


# Classes of fields.


class Colour(Enum):
    RED = "r"
    GREEN = 2


class Size(StrEnum):
    BIG = "big"
    SMALL = "small"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


Umlaut = Enum("Umlaut", {"GR\u00dcN": "g"})


class Species(StrEnum):
    CAT = "felis catus"


class Inner(Model):
    whole_number: int
    text: str = "t"
    token: str = Field(default_factory=lambda: uuid.uuid4().hex)


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)
    some_name: int


class Extras(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int = 1


class Aliased(BaseModel):
    one: int = Field(alias="oneAlias")
    two: int = Field(2, validation_alias="twoRead", serialization_alias="twoWritten")
    three: int = Field(3, validation_alias=AliasChoices("threeFirst", "three-second", AliasPath("deep", 0)))
    four: int = Field(4, validation_alias=AliasPath("deep", "down"))
    five: int = Field(5, serialization_alias="cinque")


class Populated(BaseModel):
    model_config = ConfigDict(alias_generator=str.upper, populate_by_name=True)
    some: int


class Sealed(Model):
    password: SecretStr
    pins: list[SecretStr] = Field(default_factory=list)
    spare: SecretStr = Field(default_factory=lambda: SecretStr(f"{SECRET} {uuid.uuid4()}"))


class Constant(Model):
    version: Literal[1]
    text: str = "t"


class Circle(Model):
    kind: Literal["circle"] = "circle"
    radius: float


class Square(Model):
    kind: Literal["square"]
    side: int


class Dog(Model):
    species: Literal["dog"]
    sort: Literal["pet"] = "pet"
    tricks: list[Colour] = Field(default_factory=list)


class Cat(Model):
    species: Literal[Species.CAT]
    sort: Literal["pet"] = "pet"
    owner: Inner | None = None


class Ship(Model):
    sort: Literal["frigate", "sloop"]
    tons: BigInt


class Raft(Model):
    sort: Literal["raft"] = "raft"
    key: SecretStr | None = None


Moving = TypeAliasType(
    "Moving",
    Annotated[Annotated[Dog | Cat, Field(discriminator="species")] | Ship | Raft, Discriminator("sort")],
)


class Tree(Model):
    name: str
    children: list["Tree"] = Field(default_factory=list)


class Names(RootModel[list[str]]):
    pass


class Maybe(RootModel[int | None]):
    pass


T = TypeVar("T")


class Box(Model, Generic[T]):
    content: T
    label: str = "none"


class Computed(Model):
    width: int

    @computed_field
    def area(self) -> int:
        return self.width**2


class Checked(Model):
    low: int
    high: int

    @model_validator(mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return value

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError("The wrong way round.")
        return self


class Written(Model):
    kept: str = Field(exclude=True)
    shouted: str

    @field_serializer("shouted")
    def _shout(self, value: str) -> str:
        return value.upper()


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    whole: int
    moment: datetime
    key: uuid.UUID
    colour: Colour
    many: tuple[int, ...]


@dataclass
class Plain:
    size: int
    words: list[str] = field(default_factory=list)
    token: str = field(default_factory=lambda: uuid.uuid4().hex)


class Typed(TypedDict, total=False):
    size: int
    when: date


class Point(NamedTuple):
    x: int
    y: int = 0


def _percent(value: float) -> float:
    return value / 100


words = st.text(st.characters(codec="utf-8"), max_size=8)
ints = st.integers(-(2**31), 2**31 - 1)
big_ints = st.integers(-(2**63), 2**63 - 1)
big = big_ints | big_ints.map(str)
floats = st.floats(allow_nan=False, allow_infinity=False)
moments = st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30)), None])).map(
    lambda moment: moment.isoformat()
)
naive = st.datetimes().map(lambda moment: moment.isoformat())
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**70) | floats | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)


def objects(**fields: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Objects in which any of these fields may be left out, but for those given in ``needed``."""
    needed = {name.removesuffix("_needed"): of for name, of in fields.items() if name.endswith("_needed")}
    return st.fixed_dictionaries(needed, optional={n: of for n, of in fields.items() if not n.endswith("_needed")})


KINDS: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "str": (str, words),
    "int": (int, ints),
    "float": (float, floats | ints),
    "bool": (bool, st.booleans()),
    "datetime": (datetime, moments),
    "aware datetime": (AwareDatetime, moments),
    "naive datetime": (NaiveDatetime, naive),
    "date": (date, st.dates().map(str)),
    "time": (time, st.times().map(str)),
    "timedelta": (timedelta, st.sampled_from(["P1DT2H", "PT0.5S", "-P3D"])),
    "uuid": (uuid.UUID, st.uuids().map(str)),
    "decimal": (Decimal, st.decimals(allow_nan=False, allow_infinity=False).map(str) | ints),
    "bytes": (bytes, words),
    "base64": (Base64Bytes, st.sampled_from(["/w==", "AAEC", ""])),
    "path": (Path, words.filter(lambda text: "\0" not in text)),
    "address": (IPv4Address, st.sampled_from(["127.0.0.1", "10.0.0.1"])),
    "url": (AnyUrl, st.sampled_from(["https://example.com/a?b=c", "http://xn--bcher-kva.example/"])),
    "e-mail": (EmailStr, st.just("Ada@Example.com")),
    "secret": (SecretStr, st.just(SECRET)),
    "secret bytes": (SecretBytes, st.just(SECRET)),
    "secret number": (Secret[str], st.just(SECRET)),
    "enum": (Colour, st.sampled_from(["RED", "GREEN"])),
    "str enum": (Size, st.sampled_from(["BIG", "SMALL"])),
    "int enum": (Level, st.sampled_from(["LOW", "HIGH"])),
    "enum by value": (Umlaut, st.just("g")),
    "literal": (Literal["a", "b"], st.sampled_from("ab")),
    "constrained": (Annotated[str, StringConstraints(strip_whitespace=True, to_lower=True)], words),
    "strict int": (StrictInt, ints),
    "converted": (Annotated[float, AfterValidator(_percent)], floats),
    "converted before": (Annotated[list[str], BeforeValidator(lambda v: [*v, "x"])], st.lists(words, max_size=3)),
    "wrapped": (Annotated[int, WrapValidator(lambda v, inner: inner(v) // 2)], ints),
    "serialized otherwise": (Annotated[int, PlainSerializer(lambda v: f"{v} kg")], ints),
    "json text": (Json[list[int]], st.lists(ints, max_size=3).map(json.dumps)),
    "any": (Any, json_values),
    "scalar union": (int | str, ints | words),
    "null": (None, st.none()),
    "tuple": (tuple[int, str], st.tuples(ints, words).map(list)),
    "even tuple": (tuple[int, ...], st.lists(ints, max_size=3)),
    "set": (set[str], st.lists(words, max_size=3)),
    "frozenset": (frozenset[int], st.lists(ints, max_size=3)),
    "deque": (deque[int], st.lists(ints, max_size=3)),
    "set of models": (set[Frozen], st.lists(objects(someName_needed=ints), max_size=2)),
    "mapping": (dict[str, int], st.dictionaries(words, st.integers(-(2**63), 2**70), max_size=3)),
    "mapping by number": (dict[int, date], st.dictionaries(ints.map(str), st.dates().map(str), max_size=2)),
    "model": (Inner, objects(wholeNumber_needed=ints, text=words, token=words)),
    "mapping to models": (dict[str, Inner], st.dictionaries(words, objects(wholeNumber_needed=ints), max_size=2)),
    "frozen model": (Frozen, objects(someName_needed=ints)),
    "aliases": (Aliased, objects(oneAlias_needed=ints, two=ints, three=ints, four=ints, five=ints)),
    "names and aliases": (Populated, objects(SOME_needed=ints)),
    "secrets below": (Sealed, objects(password_needed=st.just(SECRET), pins=st.lists(st.just(SECRET), max_size=2))),
    "mapping to secrets": (dict[str, Sealed], st.just({"a": {"password": SECRET}, "b/~": {"password": SECRET}})),
    "discriminated": (
        Annotated[Circle | Square, Field(discriminator="kind")],
        st.fixed_dictionaries({"circle": st.fixed_dictionaries({"radius": floats})})
        | st.fixed_dictionaries({"square": objects(side_needed=ints, kind=st.just("square"))}),
    ),
    "discriminated within": (
        Moving,
        st.fixed_dictionaries({"dog": objects(tricks=st.lists(st.sampled_from(["RED", "GREEN"]), max_size=2))})
        | st.fixed_dictionaries({"felisCatus": objects(owner=objects(wholeNumber_needed=ints))})
        | st.fixed_dictionaries({"ship": objects(sort_needed=st.sampled_from(["frigate", "sloop"]), tons_needed=big)})
        | st.fixed_dictionaries({"raft": objects(key=st.just(SECRET))}),
    ),
    "big int": (BigInt, big),
    "large int": (Annotated[int, Field(ge=0, lt=2**100)], st.integers(0, 2**100 - 1).map(str)),
    "bytes of a file": (ByteSize, st.integers(0, 2**60)),
    "large literal": (Literal[1, 5_000_000_000], st.sampled_from([1, "5000000000"])),
    "enum literal": (Literal[Size.BIG], st.just("BIG")),
    "constant": (Constant, objects(text=words, version=st.just(1) | st.none())),
    "recursive": (Tree, objects(name_needed=words, children=st.just([{"name": "leaf"}]))),
    "root model": (Names, st.lists(words, max_size=3)),
    "null in a root model": (dict[str, Maybe], st.just({"a": None, "b": 1})),
    "generic model": (Box[int], objects(content_needed=ints, label=words)),
    "other generic model": (Box[Inner], objects(content_needed=objects(wholeNumber_needed=ints))),
    "computed field": (Computed, objects(width_needed=ints)),
    "model validators": (Checked, st.just({"low": 1, "high": 2})),
    "serializers": (Written, objects(kept_needed=words, shouted_needed=words)),
    "strict model": (
        Strict,
        st.fixed_dictionaries(
            {
                "whole": ints,
                "moment": moments,
                "key": st.uuids().map(str),
                "colour": st.just("GREEN"),
                "many": st.lists(ints, max_size=2),
            }
        ),
    ),
    "model that keeps fields": (dict[str, Extras], st.just({"x": {"a": 2, "b": [1, {"c": None}]}})),
    "dataclass": (Plain, objects(size_needed=ints, words=st.lists(words, max_size=2))),
    "typed dict": (Typed, objects(size=ints, when=st.dates().map(str))),
    "named tuple": (Point, st.just([1, 2]) | st.just({"x": 3})),
}
FACTORIES: list[Callable[[], Any]] = [
    list,
    lambda: uuid.uuid4().hex,
    uuid.uuid4,
    lambda: datetime.now(UTC),
    lambda: SecretStr(f"{SECRET} {uuid.uuid4()}"),
    lambda: Inner(whole_number=next(_numbers)),
    lambda: {"sealed": [Sealed(password=SecretStr(SECRET))]},
    lambda: timedelta(seconds=next(_numbers)),
    lambda: {str(uuid.uuid4()) for _ in range(3)},
]
DRAWN: list[Any] = [
    list[int], str, uuid.UUID, datetime, SecretStr, Inner, dict[str, list[Sealed]], timedelta, set[str]
]  # fmt: skip


@st.composite
def models(draw: st.DrawFn) -> tuple[type[BaseModel], dict[str, Any]]:
    """A model of a few fields, and a payload for it as a client writes it."""
    fields: dict[str, Any] = {}
    payload: dict[str, Any] = {}
    for number, name in enumerate(draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=4))):
        annotation: Any = KINDS[name][0]
        values = KINDS[name][1]
        shape = draw(st.sampled_from(["plain", "list", "optional", "default"]))
        if shape == "list":
            annotation, values = list[annotation], st.lists(values, max_size=3)
        elif shape == "optional":
            annotation, values = annotation and annotation | None, values | st.none()
        fields[f"field_{number}"] = (annotation, ... if shape != "default" else Field(default_factory=_absent))
        payload[f"field{number}"] = draw(values)
    for number in draw(st.sets(st.integers(0, len(DRAWN) - 1), max_size=2)):
        fields[f"drawn_{number}"] = (DRAWN[number], Field(default_factory=FACTORIES[number]))
    base: Any = draw(st.sampled_from([Model, BaseModel]))
    made: Any = create_model(f"Made{next(_numbers)}", __base__=base, **fields)
    return made, payload


def _absent() -> Any:
    raise AssertionError("the field is given")


def is_never_stored_whole(made: type[BaseModel]) -> bool:
    """Whether a result of this model would lack a field that reading it needs."""
    return any(node.get("cls") is Written for node, _ in parts_of(made))


def selection(of: Any) -> str:
    """All fields of an output type."""
    named = get_named_type(of)
    if is_leaf_type(named):
        return ""
    if isinstance(named, GraphQLUnionType):
        # Fields of one name have another one each, in case that their types differ.
        parts = [f"... on {one} {{ __typename {aliased(one)} }}" for one in named.types]
        return "{ " + " ".join(parts) + " }"
    assert isinstance(named, GraphQLObjectType)
    return "{ " + " ".join(f"{name} {selection(field.type)}" for name, field in named.fields.items()) + " }"


def aliased(of: GraphQLObjectType) -> str:
    return " ".join(f"{of.name}_{name}: {name} {selection(field.type)}" for name, field in of.fields.items())


class Result(Model):
    """What comes of jobs whose payload model cannot be that of a result, too."""

    done: bool


class Api:
    """The schema of one job type, whose result has the payload's model if a result can have that."""

    def __init__(self, made: type[BaseModel]) -> None:
        registry = Registry()
        result = Result if is_never_stored_whole(made) else made
        self.job_type = registry.add(JobType("made", made, result, f"{__name__}:handler"))
        self.registered = RegisteredTypes(registry)
        self.shown: Any = None
        creation = create_job_input(job_payload_input(self.registered))

        def shown() -> Any:
            return self.shown

        def create(given: Annotated[dict[str, Any], strawberry.argument(graphql_type=creation)]) -> bool:
            return bool(given)

        job = strawberry.field(shown, graphql_type=self.registered.objects["made"])
        query = create_type("Query", [job, strawberry.field(create)])
        schema = strawberry.Schema(query, config=StrawberryConfig(scalar_map=SCALARS))
        self.core: GraphQLSchema = core_schema(schema)
        call_resolvers(self.core)
        self.creation: Any = self.core.type_map["CreateJobInput"]
        self.job_object: Any = self.core.type_map["MadeJob"]

    def request(self, payload: Any) -> Any:
        """What is made of a client's input."""
        given = coerce_input_value({"payload": {"made": payload}, "idempotencyKey": "k"}, self.creation)
        return request_of(given, self.registered, "input")

    def answer(self, spec: model.Spec, result: bytes | None = None) -> dict[str, Any]:
        """What a client is shown of the job; of its result only if it has one."""
        job = model.Job(
            id=JOB_ID, spec=spec, status=model.JobStatus.QUEUED, submission_seq=1, last_seq=1, updated_at=NOW,
            result_json=UNSET if result is None else msgspec.Raw(result),
        )  # fmt: skip
        self.shown = self.registered.present(job)
        names = ["payload", *(["result"] if result is not None else [])]
        fields = " ".join(f"{name} {selection(self.job_object.fields[name].type)}" for name in names)
        query = f"{{ shown {{ __typename rawPayload {fields} }} }}"
        answered = graphql_sync(self.core, query, context_value=SimpleNamespace(budget=Budget()))
        assert answered.errors is None
        answer: dict[str, Any] = (answered.data or {})["shown"]
        return answer


def hold(made: type[BaseModel], payload: Any) -> dict[str, Any]:
    """Check the promise for one payload, and return what clients are shown."""
    api = Api(made)
    request = api.request(payload)
    body = encode_body(Submission(spec=request.spec(NOW, Settings())))
    stored = decode_body(Kind.QUEUED, body)
    assert isinstance(stored, Submission)
    spec = stored.spec
    validated = made.model_validate_json(bytes(spec.payload), by_alias=True, by_name=True)
    for _ in range(2):
        readable = read_payload(api.job_type, bytes(spec.payload), spec.secrets)
        assert isinstance(readable, Readable)
        handed = readable.payload
        assert handed == validated
        assert type(handed) is made
    assert api.request(payload).repeats(spec)
    stored_json = json.loads(bytes(spec.payload))
    assert json.loads(api.request(as_graphql_input(made, stored_json)).payload) == stored_json
    answer = api.answer(spec)
    assert answer["__typename"] == "MadeJob"
    assert SECRET not in msgspec.json.encode(answer).decode()
    with suppress(ModelMismatch):  # of what cannot be a result, such as a field that is never stored
        result = write(made, handed)
        assert api.answer(spec, result)["result"] == answer["payload"]
    return answer


@pytest.mark.parametrize("name", KINDS)
@settings(QUICK, max_examples=4)
@given(data=st.data())
def test_each_kind_of_field_is_read_as_it_was_validated(name: str, data: st.DataObject) -> None:
    annotation, values = KINDS[name]
    hold(create_model("Made", __base__=Model, only=(annotation, ...)), {"only": data.draw(values)})


@settings(QUICK, max_examples=30)
@given(case=models())
def test_what_is_acknowledged_is_read_by_the_handler_as_it_was_validated(
    case: tuple[type[BaseModel], dict[str, Any]],
) -> None:
    hold(*case)


@pytest.mark.parametrize("name", sorted(KINDS.keys() - {"converted", "converted before", "wrapped"}))
@settings(QUICK, max_examples=4)
@given(data=st.data())
def test_a_program_that_builds_the_payload_has_the_same_stored(name: str, data: st.DataObject) -> None:
    annotation, values = KINDS[name]
    made: Any = create_model("Made", __base__=Model, only=(annotation, ...))
    built = made.model_validate_json(Api(made).request({"only": data.draw(values)}).payload)
    accepted = accept_built(made, built_payload(built))
    assert made.model_validate_json(accepted.stored, by_alias=True, by_name=True) == built


@pytest.mark.parametrize(("annotation", "factory"), list(zip(DRAWN, FACTORIES, strict=True)))
def test_what_a_factory_draws_is_drawn_once(annotation: Any, factory: Callable[[], Any]) -> None:
    made: Any = create_model("Made", __base__=Model, drawn=(annotation, Field(default_factory=factory)))
    below = create_model("Below", __base__=Model, inside=(list[made], ...), mapped=(dict[str, made], ...))
    for of, payload in ((made, {}), (below, {"inside": [{}, {}], "mapped": {"a": {}}})):
        stored = Api(of).request(payload).payload
        assert of.model_validate_json(stored) == of.model_validate_json(stored)
        hold(of, payload)
