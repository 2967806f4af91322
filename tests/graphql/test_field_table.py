"""The table of docs/handlers.md that says what each kind of field is in GraphQL, and what such fields take and show."""

import ast
import json
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar
from uuid import UUID

import pytest
from graphql import GraphQLInputObjectType, GraphQLUnionType
from graphql import build_schema as parsed_schema
from graphql.utilities import validate_input_value
from pydantic import (
    AnyUrl,
    AwareDatetime,
    Base64Bytes,
    BaseModel,
    ByteSize,
    ConfigDict,
    Discriminator,
    EmailStr,
    Field,
    Json,
    NaiveDatetime,
    RootModel,
    Secret,
    SecretBytes,
    SecretStr,
    Tag,
    create_model,
)
from typing_extensions import TypeAliasType, TypedDict

from gql_jobs import BigInt, Model
from gql_jobs.graphql.schema import sdl
from gql_jobs.jobs.errors import InvalidPayload
from gql_jobs.jobs.payloads import ModelMismatch, accept
from gql_jobs.jobs.registry import JobType, Registry
from gql_jobs.settings import Settings
from tests.graphql.test_payload_promise import NOW, Api
from tests.running import ROOT


class Colour(Enum):
    RED = "r"
    GREEN = "g"


class Box(BaseModel):
    model_config = ConfigDict(frozen=True)
    size: int = 1


T = TypeVar("T")


class Crate(Model, Generic[T]):
    content: T


class Circle(Model):
    kind: Literal["circle"] = "circle"
    radius: float


class Square(Model):
    kind: Literal["square"]
    side: BigInt
    of: "Square | None" = None


class Names(RootModel[list[str]]):
    pass


class Nothing(Model):
    pass


class Order(Model):
    field: "Part"


class Part(Model):
    whole: Order | None = None


class Pair(NamedTuple):
    x: int


class Typed(TypedDict):
    x: int


@dataclass
class Plain:
    x: int


def tagged(name: str, tag: Any) -> Any:
    """A model of this name with such a discriminator."""
    kind: Any = Literal.__getitem__(tag)
    return create_model(name, __base__=Model, kind=(kind, ...))


def told_apart(value: Any) -> str:
    return "c" if "radius" in value else "s"


Shape = TypeAliasType("Shape", Annotated[Circle | Square, Field(discriminator="kind")])

KNOWN = {
    one.__name__: one
    for one in (
        *(AnyUrl, AwareDatetime, Base64Bytes, Box, ByteSize, Circle, Colour, Crate, Decimal, Discriminator, EmailStr),
        *(Field, IPv4Address, Json, Mapping, NaiveDatetime, Names, Nothing, Pair, Path, Plain, Secret, SecretBytes),
        *(SecretStr, Shape, Square, Tag, Typed, UUID, date, datetime, deque, time, timedelta, told_apart),
    )
} | {"Annotated": Annotated, "Any": Any, "Literal": Literal, "BigInt": BigInt, "Base64Bytes": Base64Bytes}


def rows() -> list[tuple[str, str, str]]:
    """Each annotation of the table, with the types of its input and its output."""
    table = (ROOT / "docs/handlers.md").read_text().partition("<!-- fields -->")[2].partition("<!-- /fields -->")[0]
    found = []
    for line in table.strip().splitlines()[2:]:
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if cells[1:3] == ["—", "—"]:
            continue
        annotations, given, shown = (re.findall(r"`([^`]+)`", cell.replace("\\|", "|")) for cell in cells[:3])
        assert len(given) == len(shown) in {1, len(annotations)}, line
        found += [
            (one, given[number % len(given)], shown[number % len(shown)]) for number, one in enumerate(annotations)
        ]
    return found


def order(annotation: Any) -> type[BaseModel]:
    """The model ``Order`` with such a field."""
    made: Any = create_model("Order", __base__=Model, field=(annotation, ...))
    return made


@pytest.mark.parametrize(("written", "given", "shown"), rows(), ids=[written for written, _, _ in rows()])
def test_each_kind_of_field_is_in_graphql_what_the_table_says(written: str, given: str, shown: str) -> None:
    model = Order if written == "Part" else order(eval(written, dict(KNOWN)))  # noqa: S307  # of our own document
    types = Api(model).core.type_map
    in_, out = types["MadePayloadInput"], types["MadePayload"]
    assert (str(in_.fields["field"].type), str(out.fields["field"].type)) == (given, shown)  # type: ignore[attr-defined]


def test_the_table_names_all_kinds_of_fields_that_are_promised() -> None:
    names = {node.id for written, _, _ in rows() for node in ast.walk(ast.parse(written)) if isinstance(node, ast.Name)}
    assert set(KNOWN) <= names


@pytest.mark.parametrize("result", [None, Box])
def test_the_job_of_a_handler_that_returns_nothing_has_no_result(result: type[BaseModel] | None) -> None:
    registry = Registry()
    registry.add(JobType("made", Box, result, "nowhere:run"))
    fields = parsed_schema(sdl(registry)).type_map["MadeJob"].fields  # type: ignore[attr-defined]
    assert ("result" in fields, "rawResult" in fields) == (result is not None, True)


# Values.


class Drawing(Model):
    name: str = "d"
    shapes: list[Shape]
    best: Shape | None = None


def shown(api: Api, payload: Any) -> Any:
    """What clients are shown of a payload."""
    answer = api.answer(api.request(payload).spec(NOW, Settings()))
    return answer | {"rawPayload": json.loads(bytes(answer["rawPayload"]))}


def test_a_field_may_have_any_name_beside_a_secret() -> None:
    model: Any = create_model("Order", __base__=Model, hide=(int, ...), type_name=(str, ...), key=(SecretStr, ...))
    answer = shown(Api(model), {"hide": 1, "typeName": "x", "key": "hunter2"})
    assert answer["payload"] == {"hide": 1, "typeName": "x", "key": "[redacted]"}


def test_a_choice_is_given_by_its_member_and_stored_with_its_tag() -> None:
    api = Api(Drawing)
    union, input_ = api.core.type_map["Shape"], api.core.type_map["ShapeInput"]
    assert isinstance(union, GraphQLUnionType)
    assert isinstance(input_, GraphQLInputObjectType)
    assert [one.name for one in union.types] == ["Circle", "Square"]
    assert input_.is_one_of
    assert {name: str(field.type) for name, field in input_.fields.items()} == {
        "circle": "CircleInput",
        "square": "SquareInput",
    }
    answer = shown(api, {"shapes": [{"circle": {"radius": 1}}, {"square": {"side": "3000000000"}}]})
    assert answer["rawPayload"]["shapes"] == [
        {"kind": "circle", "radius": 1.0},
        {"kind": "square", "side": 3_000_000_000},
    ]
    assert answer["payload"]["best"] is None
    assert answer["payload"]["shapes"] == [
        {"__typename": "Circle", "Circle_kind": "circle", "Circle_radius": 1.0},
        {"__typename": "Square", "Square_kind": "square", "Square_side": "3000000000", "Square_of": None},
    ]


def test_a_tag_may_be_given_beside_its_member_but_not_that_of_another() -> None:
    api = Api(Drawing)
    raw = shown(api, {"shapes": [{"circle": {"kind": "circle", "radius": 1}}]})["rawPayload"]
    assert raw["shapes"] == [{"kind": "circle", "radius": 1.0}]
    with pytest.raises(InvalidPayload) as refused:
        api.request({"shapes": [{"circle": {"kind": "square", "radius": 1}}]})
    (fault,) = refused.value.extensions["fields"]
    assert fault["path"] == "input.payload.made.shapes.0"
    assert "'square in the place of circle'" in fault["message"]


def test_a_fault_in_a_choice_is_named_as_clients_write_it() -> None:
    class Small(Model):
        kind: Literal["small"]
        edge_length: Annotated[int, Field(le=3)]

    class Large(Model):
        kind: Literal["large"]

    class Boxes(Model):
        of_each: list[Annotated[Small | Large, Field(discriminator="kind")]]

    with pytest.raises(InvalidPayload) as refused:
        Api(Boxes).request({"ofEach": [{"large": {}}, {"small": {"edgeLength": 4}}]})
    (fault,) = refused.value.extensions["fields"]
    assert fault["path"] == "input.payload.made.ofEach.1.small.edgeLength"


def test_two_choices_of_one_name_are_refused_when_the_type_is_registered() -> None:
    one: Any = tagged("One", "a-b")
    other: Any = tagged("Other", "a_b")
    made = order(Annotated[one | other, Field(discriminator="kind")])
    with pytest.raises(ValueError, match=r"The field 'field' of the model Order has two choices, One and Other"):
        Api(made)


def test_tags_that_json_cannot_hold_are_refused_when_the_type_is_registered() -> None:
    one: Any = tagged("One", Colour.RED)
    other: Any = tagged("Other", "green")
    made = order(Annotated[one | other, Field(discriminator="kind")])
    with pytest.raises(ValueError, match=r"The field 'field' of the model Order .* Make it a StrEnum\."):
        Api(made)


class Late(Model):
    """Held by a model that is complete before this one is."""

    box: "Later | None" = None


class Holder(Model):
    late: Late


class Later(Model):
    size: BigInt


def test_what_is_defined_after_the_model_that_holds_it_is_known_all_the_same() -> None:
    assert str(Api(Holder).core.type_map["Late"].fields["box"].type) == "Later"  # type: ignore[attr-defined]


def test_what_is_said_in_an_annotation_need_not_be_hashable() -> None:
    kind: Any = Annotated[int, ["a note"]]
    types: Any = Api(order(list.__class_getitem__(kind))).core.type_map
    assert str(types["MadePayload"].fields["field"].type) == "[Int!]!"


@pytest.mark.parametrize("given", [3 * 2**30, str(3 * 2**30), 3e9])
def test_a_large_number_is_given_as_number_or_text_and_shown_as_text(given: Any) -> None:
    answer = shown(Api(order(BigInt)), {"field": given})
    assert answer["rawPayload"] == {"field": int(given)}
    assert answer["payload"] == {"field": str(int(given))}


@pytest.mark.parametrize("given", ["3 GB", "", " 7 ", "1_000", "٣", "+1", 1.5, True, "1" * 5000, None])
def test_what_is_no_whole_number_is_refused_as_one(given: Any) -> None:
    faults: list[str] = []
    scalar: Any = Api(order(BigInt)).core.type_map["MadePayloadInput"]
    validate_input_value({"field": given}, scalar, lambda error, _: faults.append(error.message))
    assert len(faults) == 1


def test_a_number_beyond_64_bits_is_refused_by_the_model() -> None:
    with pytest.raises(InvalidPayload, match="less than or equal to 9223372036854775807"):
        Api(order(BigInt)).request({"field": str(2**63)})


def test_a_field_whose_default_is_large_is_a_large_number() -> None:
    model: Any = create_model(
        "Order",
        __base__=Model,
        one=(int, 2**40),
        many=(list[int], [1, 2**40]),
        none=(int | None, 2**40),
        other=(int, 1),
    )
    fields: Any = Api(model).core.type_map["MadePayload"]
    assert {name: str(field.type) for name, field in fields.fields.items()} == {
        "one": "BigInt!",
        "many": "[BigInt!]!",
        "none": "BigInt",
        "other": "Int!",
    }
    large = str(2**40)
    answer = shown(Api(model), {})
    assert answer["payload"] == {"one": large, "many": ["1", large], "none": large, "other": 1}


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"size": 2**31}, ("size",)),
        ({"size": -(2**31) - 1}, ("size",)),
        ({"size": 3e9}, ("size",)),
        ({"boxes": [{"size": 1}, {"size": 2**31}]}, ("boxes", 1, "size")),
    ],
)
def test_a_payload_that_could_not_be_shown_is_refused_however_it_is_created(given: Any, path: tuple[Any, ...]) -> None:
    model: Any = create_model("Order", __base__=Model, size=(int, 1), boxes=(list[Box], Field(default_factory=list)))
    with pytest.raises(ModelMismatch, match=r"has to be a gql_jobs\.BigInt") as refused:
        accept(model, given)
    assert [fault.path for fault in refused.value.faults] == [path]
    assert accept(model, {"size": 2**31 - 1, "boxes": [{"size": -(2**31)}]}).stored


@pytest.mark.parametrize("given", ["PT1H30M", "P1DT0.5S", "-P3D", "PT0S", "01:30:00"])
def test_a_length_of_time_is_given_and_shown_in_iso_8601(given: str) -> None:
    answer = shown(Api(order(timedelta)), {"field": given})
    assert answer["rawPayload"] == {"field": given}
    assert answer["payload"] == {"field": {"01:30:00": "PT1H30M", "PT0S": "PT0S"}.get(given, given)}
