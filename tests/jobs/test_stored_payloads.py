"""Payloads and results that another version of their model has stored are read without the fields unknown here."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, RootModel, field_validator

from gql_jobs import Model
from gql_jobs.jobs.payloads import ModelMismatch, read
from gql_jobs.jobs.registry import JobType, Registry


class Point(Model):
    x: int
    y: int = 0


class Circle(Model):
    kind: Literal["circle"]
    radius: int


class Square(Model):
    kind: Literal["square"]
    side: int = 1


Shape = Annotated[Circle | Square, Field(discriminator="kind")]


class Open(Model):
    model_config = ConfigDict(extra="allow")
    name: str


class Drawing(Model):
    at: Point
    title: str | None = None
    path: list[Point] = Field(default_factory=list)
    named: dict[str, Point] = Field(default_factory=dict)
    maybe: Point | None = None
    shape: Shape | None = None
    shapes: list[Shape] = Field(default_factory=list)
    pair: tuple[Point, Shape] | None = None


class Sheet(Drawing):
    notes: Open | None = None
    more: list[Open] = Field(default_factory=list)


class Nothing(Model):
    pass


@pytest.mark.parametrize("model", [Drawing, Sheet])
@pytest.mark.parametrize(
    ("stored", "known"),
    [
        (b'{"at":{"x":1},"zz":1}', b'{"at":{"x":1}}'),
        (b'{"at":{"x":1,"zz":{"a":[]}}}', b'{"at":{"x":1}}'),
        (b'{"at":{"x":1},"path":[{"x":1},{"x":2,"zz":1}],"zz":null}', b'{"at":{"x":1},"path":[{"x":1},{"x":2}]}'),
        (b'{"at":{"x":1},"named":{"a":{"x":1,"zz":1}}}', b'{"at":{"x":1},"named":{"a":{"x":1}}}'),
        (b'{"at":{"x":1},"maybe":{"x":1,"x2":1}}', b'{"at":{"x":1},"maybe":{"x":1}}'),
        (
            b'{"at":{"x":1},"shape":{"kind":"circle","radius":2,"circle":1,"zz":1}}',
            b'{"at":{"x":1},"shape":{"kind":"circle","radius":2}}',
        ),
        (
            b'{"at":{"x":1},"shapes":[{"kind":"square","zz":1},{"kind":"circle","radius":1,"zz":2}]}',
            b'{"at":{"x":1},"shapes":[{"kind":"square"},{"kind":"circle","radius":1}]}',
        ),
        (
            b'{"at":{"x":1},"pair":[{"x":1,"zz":1},{"kind":"square","zz":1}]}',
            b'{"at":{"x":1},"pair":[{"x":1},{"kind":"square"}]}',
        ),
    ],
)
def test_fields_that_are_unknown_here_are_ignored_at_any_depth(
    model: type[BaseModel], stored: bytes, known: bytes
) -> None:
    assert read(model, stored) == model.model_validate_json(known)


def test_a_model_that_keeps_unknown_fields_keeps_them_while_others_lose_theirs() -> None:
    stored = b'{"at":{"x":1,"zz":1},"notes":{"name":"n","colour":"red"},"more":[{"name":"m","zz":2}],"zz":3}'
    found = read(Sheet, stored)
    assert found.at == Point(x=1)
    assert found.notes is not None
    assert (found.notes.model_extra, found.more[0].model_extra) == ({"colour": "red"}, {"zz": 2})


def test_a_field_that_has_got_an_alias_since_is_still_found_by_its_name() -> None:
    class Before(BaseModel):
        size: int

    class After(BaseModel):
        size: int = Field(alias="sizeBytes")

    assert read(After, Before(size=3).model_dump_json().encode()).size == 3
    assert read(After, b'{"sizeBytes":4}').size == 4


@pytest.mark.parametrize(
    ("stored", "faults"),
    [
        (b'{"at":{"x":"many"}}', ["at.x: Input should be a valid integer, unable to parse string as an integer."]),
        (b'{"zz":1}', ["at: Field required."]),
        (b'{"at":{"x":1},"shape":{"kind":"circle"}}', ["shape.radius: Field required."]),
        (b'{"at":{"x":1},"path":[{"zz":1}]}', ["path.0.x: Field required."]),
        (b"[]", ["Input should be an object."]),
        (b"no JSON", ["Invalid JSON: expected ident at line 1 column 2."]),
    ],
)
def test_what_cannot_be_read_is_told_in_sentences_with_the_place(stored: bytes, faults: list[str]) -> None:
    for model in (Drawing, Sheet):
        with pytest.raises(ModelMismatch) as refused:
            read(model, stored)
        assert [str(fault) for fault in refused.value.faults] == faults
        assert "pydantic" not in str(refused.value)
        assert "validation error" not in str(refused.value)


class Labelled(RootModel[list[Point]]):
    pass


@pytest.mark.parametrize(
    "annotation",
    [
        Point | dict[str, Any],
        Point | Circle,
        Point | str | None,
        list[Point | dict[str, int]],
        dict[str, Point | Circle],
        list[Point] | list[Circle] | None,
        Shape | Point,
        Labelled | str,
        tuple[int, Point | int],
        Annotated[Point | int, Field(description="One of them.")],
    ],
)
def test_a_union_that_is_told_apart_by_its_fields_is_refused_at_registration(annotation: Any) -> None:
    class Holder(Model):
        fine: int = 0
        chosen: annotation

    class Outer(Model):
        holders: dict[str, list[Holder]] | None = None
        held_first: Point | None = None

    for payload, result in ((Holder, Nothing), (Nothing, Holder), (Outer, Nothing)):
        with pytest.raises(ValueError, match="The field 'chosen' of the model Holder is a union with a model in it"):
            Registry().add(JobType("held", payload, result, "nowhere:run"))


def test_unions_without_a_model_or_with_a_discriminator_are_taken() -> None:
    class Free(Model):
        scalar: int | str
        nested: dict[str, int | list[str] | None]
        optional: Point | None = None
        optional_list: list[Point | None] | None = None
        shape: Shape
        shapes: dict[str, Shape | None] = Field(default_factory=dict)

    Registry().add(JobType("free", Free, Free, "nowhere:run"))


def test_a_model_is_found_in_a_union_though_it_was_met_outside_of_one_before() -> None:
    class Both(Model):
        first: Point
        then: Point | int

    with pytest.raises(ValueError, match="'then' of the model Both"):
        Registry().add(JobType("both", Both, Nothing, "nowhere:run"))


@pytest.mark.parametrize("raised", [KeyError("k"), RuntimeError(), RecursionError(), SystemExit(3), GeneratorExit()])
def test_whatever_a_validator_raises_is_a_mismatch(raised: BaseException) -> None:

    class Custom(Model):
        steps: int

        @field_validator("steps")
        @classmethod
        def _fail(cls, _: int) -> int:
            raise raised

    with pytest.raises(ModelMismatch, match=f"^The model's own code failed with {type(raised).__name__}.$"):
        read(Custom, b'{"steps":1}')
