"""What becomes of the fields of a pydantic model."""

import types
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
import strawberry
from graphql import GraphQLEnumType, GraphQLInputObjectType, GraphQLObjectType, build_schema
from pydantic import AnyUrl, BaseModel, ConfigDict, EmailStr, Field
from strawberry.scalars import JSON
from strawberry.schema.config import StrawberryConfig
from strawberry.tools import create_type

from gql_jobs import Model
from gql_jobs.graphql.engine.fast_path import call_resolvers
from gql_jobs.graphql.engine.strawberry_internals import core_schema
from gql_jobs.graphql.payload_types import RESERVED, PayloadTypes, value_docs
from gql_jobs.graphql.scalars_and_enums import SCALARS
from gql_jobs.graphql.type_names import type_names
from gql_jobs.jobs.payloads import accept


class Colour(Enum):
    """A colour."""

    RED = "r"
    """Like a rose,
    or a brick."""
    GREEN = "g"


class Size(StrEnum):
    BIG = "big"


class Box(Model):
    """A box."""

    edge_length: float = Field(description="In metres.")
    colour: Colour = Colour.RED


class Tree(Model):
    name: str
    children: list["Tree"] = Field(default_factory=list)


class Job(Model):
    """Named like a type of the API."""

    label: str


class Nothing(Model):
    """No fields at all."""


class Everything(Model):
    """All kinds of fields."""

    text: str
    mail: EmailStr
    short: Annotated[str, Field(max_length=3)]
    whole: int
    part: float
    yes: bool
    moment: datetime
    day: date
    key: UUID
    money: Decimal
    colour: Colour
    size: Size = Size.BIG
    lasts: timedelta = timedelta(minutes=90)
    words: list[str]
    pairs: set[int] = Field(default_factory=set)
    box: Box
    boxes: list[Box] = Field(default_factory=list)
    box_or_none: Box | None = None
    maybe: int | None = None
    needed_or_none: str | None
    anything: Any = None
    mapping: dict[str, int] = Field(default_factory=dict)
    either: int | str = 1
    choice: Literal["a", "b"] = "a"
    address: AnyUrl = AnyUrl("https://example.com")
    tree: Tree | None = None
    job: Job | None = None
    nothing: Nothing | None = None
    renamed: str = Field("x", alias="aliasName")
    badly_renamed: str = Field("x", alias="not-a-name")


def _types(model: type[BaseModel]) -> tuple[Any, Any, Any]:
    """The schema, the output type and the input type."""
    types = PayloadTypes(type_names({"AllPayload": model}, {}, RESERVED))
    shape = types.output(model, "AllPayload")
    output, input_ = shape.type, types.input(model, "AllPayloadInput").type

    def echo(value: Annotated[dict[str, Any], strawberry.argument(graphql_type=input_)]) -> Any:
        return shape.show(accept(model, value).value)

    query = create_type("Query", [strawberry.field(echo, graphql_type=output)])
    config = StrawberryConfig(scalar_map=SCALARS)
    made = strawberry.Schema(query, config=config)
    call_resolvers(core_schema(made))
    return made, output, input_


@pytest.fixture(scope="module")
def schema() -> Any:
    return _types(Everything)[0]


EXPECTED = {
    "text": ("String!", "String!"),
    "mail": ("String!", "String!"),
    "short": ("String!", "String!"),
    "whole": ("Int!", "Int!"),
    "part": ("Float!", "Float!"),
    "yes": ("Boolean!", "Boolean!"),
    "moment": ("DateTime!", "DateTime!"),
    "day": ("Date!", "Date!"),
    "key": ("UUID!", "UUID!"),
    "money": ("Decimal!", "Decimal!"),
    "colour": ("Colour!", "Colour!"),
    "size": ("Size!", "Size"),
    "lasts": ("Duration!", "Duration"),
    "words": ("[String!]!", "[String!]!"),
    "pairs": ("[Int!]!", "[Int!]"),
    "box": ("Box!", "BoxInput!"),
    "boxes": ("[Box!]!", "[BoxInput!]"),
    "boxOrNone": ("Box", "BoxInput"),
    "maybe": ("Int", "Int"),
    "neededOrNone": ("String", "String"),
    "anything": ("JSON", "JSON"),
    "mapping": ("JSON!", "JSON"),
    "either": ("JSON!", "JSON"),
    "choice": ("String!", "String"),
    "address": ("String!", "String"),
    "tree": ("Tree", "TreeInput"),
    "job": ("TestPayloadTypesJob", "TestPayloadTypesJobInput"),
    "nothing": ("JSON", "JSON"),
    "aliasName": ("String!", "String"),
    "badlyRenamed": ("String!", "String"),
}


def test_each_kind_of_field_has_its_type(schema: Any) -> None:
    core = build_schema(schema.as_str())
    output, input_ = core.type_map["AllPayload"], core.type_map["AllPayloadInput"]
    assert isinstance(output, GraphQLObjectType)
    assert isinstance(input_, GraphQLInputObjectType)
    shown = {name: (str(field.type), str(input_.fields[name].type)) for name, field in output.fields.items()}
    assert shown == EXPECTED


def test_descriptions_come_from_the_model_and_defaults_are_named(schema: Any) -> None:
    core = build_schema(schema.as_str())
    box, tree = core.type_map["BoxInput"], core.type_map["Tree"]
    assert isinstance(box, GraphQLInputObjectType)
    assert isinstance(tree, GraphQLObjectType)
    assert box.description == "A box."
    assert box.fields["edgeLength"].description == "In metres."
    assert box.fields["colour"].description == "Default: `RED`."
    whole = core.type_map["AllPayloadInput"]
    assert isinstance(whole, GraphQLInputObjectType)
    assert whole.fields["lasts"].description == "Default: `PT1H30M`."
    assert tree.description is None
    assert tree.fields["name"].description is None
    assert str(tree.fields["children"].type) == "[JSON!]!"


REQUIRED = {
    "text": "t",
    "mail": "a@example.com",
    "short": "abc",
    "whole": 1,
    "part": 1.5,
    "yes": True,
    "moment": "2026-01-31T12:00:00+00:00",
    "day": "2026-01-31",
    "key": "018f3c6e-7d3a-7c52-9d0a-3f5a8c1d7e42",
    "money": "1.10",
    "colour": "GREEN",
    "words": ["a"],
    "box": {"edgeLength": 2.0},
}


async def _echo(schema: Any, value: dict[str, Any], fields: str) -> Any:
    query = f"query ($value: AllPayloadInput!) {{ echo(value: $value) {{ {fields} }} }}"
    result = await schema.execute(query, {"value": value})
    assert result.errors is None
    return result.data["echo"]


def test_the_values_of_an_enum_are_described_by_their_docstrings(schema: Any) -> None:
    colour = build_schema(schema.as_str()).type_map["Colour"]
    assert isinstance(colour, GraphQLEnumType)
    values = {name: value.description for name, value in colour.values.items()}
    assert values == {"RED": "Like a rose, or a brick.", "GREEN": "The value `g`."}


def test_an_enum_without_source_is_described_all_the_same() -> None:
    assert value_docs(types.new_class("Made", (Enum,))) == {}


async def test_values_come_back_as_they_were_given(schema: Any) -> None:
    given = REQUIRED | {"neededOrNone": None}
    fields = " ".join(name for name in given if name != "box") + " box { edgeLength }"
    assert await _echo(schema, given, fields) == given


async def test_what_is_left_out_has_the_default_of_the_model(schema: Any) -> None:
    given = REQUIRED | {"neededOrNone": "x"}
    fields = "size pairs boxes { colour } maybe mapping either choice address aliasName box { colour }"
    assert await _echo(schema, given, fields) == {
        "size": "BIG",
        "pairs": [],
        "boxes": [],
        "maybe": None,
        "mapping": {},
        "either": 1,
        "choice": "a",
        "address": "https://example.com/",
        "aliasName": "x",
        "box": {"colour": "RED"},
    }


async def test_nested_and_free_values(schema: Any) -> None:
    given = REQUIRED | {
        "neededOrNone": None,
        "boxes": [{"edgeLength": 1, "colour": "GREEN"}],
        "mapping": {"a": 1},
        "anything": [1, {"x": None}],
        "tree": {"name": "root", "children": [{"name": "leaf"}]},
        "job": {"label": "l"},
        "nothing": {},
    }
    fields = "boxes { edgeLength colour } mapping anything tree { name children } job { label } nothing"
    assert await _echo(schema, given, fields) == {
        "boxes": [{"edgeLength": 1.0, "colour": "GREEN"}],
        "mapping": {"a": 1},
        "anything": [1, {"x": None}],
        "tree": {"name": "root", "children": [{"name": "leaf", "children": []}]},
        "job": {"label": "l"},
        "nothing": {},
    }


def test_a_payload_without_fields_is_json() -> None:
    types = PayloadTypes({})
    assert types.input(Nothing, "CleanupPayloadInput").type is JSON
    assert accept(Nothing, {}).value == Nothing()


def test_a_plain_pydantic_model_is_named_in_camel_case() -> None:
    class Plain(BaseModel):
        model_config = ConfigDict(frozen=True)
        some_field: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    assert "someField: DateTime!" in _types(Plain)[0].as_str()
