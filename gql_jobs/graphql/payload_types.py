"""GraphQL types of pydantic models: an output type that reads the model's attributes, and an input type.

Types are made anew for every schema, so that several registries can live in one process. What GraphQL cannot say
(mappings, unions, recursion, models without fields) is JSON; pydantic still validates it.
"""

import re
import types
from enum import Enum
from typing import Any, NamedTuple

import strawberry
from pydantic import BaseModel, RootModel
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python
from strawberry.scalars import JSON

from gql_jobs.graphql.enum_docs import value_docs
from gql_jobs.graphql.hooks import describe_enum
from gql_jobs.graphql.kinds import EnumKind, JsonKind, Kind, ListKind, ModelKind, OptionalKind, TextKind, kind_of
from gql_jobs.graphql.names import TypeNames

_NAME = re.compile(r"(?!__)[_A-Za-z][_0-9A-Za-z]*")


class Shape(NamedTuple):
    """A Strawberry annotation, and whether values must be made plain JSON before GraphQL writes them."""

    type: Any
    plain: bool = False


class PayloadTypes:
    """The types of one schema."""

    def __init__(self, names: TypeNames) -> None:
        self._names = names
        self._made: dict[tuple[type, bool, str | None], Any] = {}
        self._in_progress: set[type] = set()

    def output(self, model: type[BaseModel], name: str) -> Shape:
        """The output type ``name`` of a payload or result model; JSON for a model without fields."""
        return self._model(model, is_input=False, name=name, stem=name)

    def input(self, model: type[BaseModel], name: str) -> Shape:
        """The input type ``name`` of a payload model; JSON for a model without fields."""
        return self._model(model, is_input=True, name=name, stem=name.removesuffix("Input"))

    def _model(self, model: type[BaseModel], *, is_input: bool, name: str | None, stem: str) -> Shape:
        if issubclass(model, RootModel) or not model.model_fields or model in self._in_progress:
            return Shape(JSON, plain=True)
        key = (model, is_input, name)
        if key not in self._made:
            if name is None:
                name = self._names.claim(model.__name__ + ("Input" if is_input else ""), model, stem)
            self._in_progress.add(model)
            self._made[key] = self._make(model, name, stem, is_input=is_input)
            self._in_progress.discard(model)
        return Shape(self._made[key])

    def _make(self, model: type[BaseModel], name: str, stem: str, *, is_input: bool) -> type:
        members: dict[str, Any] = {"__annotations__": {}, "__module__": __name__}
        for field_name, info in model.model_fields.items():
            shape = self._shape(kind_of(info.annotation), stem, is_input=is_input)
            make = _input_field if is_input else _output_field
            members[field_name] = make(field_name, info, shape, members["__annotations__"])
        new_type = types.new_class(name, (), {}, lambda namespace: namespace.update(members))
        description = _own_doc(model) or f"The fields of `{model.__name__}`."
        return strawberry.type(new_type, name=name, description=description, is_input=is_input)

    def _shape(self, kind: Kind, stem: str, *, is_input: bool) -> Shape:
        match kind:
            case OptionalKind(of) | ListKind(of):
                inner, plain = self._shape(of, stem, is_input=is_input)
                return Shape(types.GenericAlias(list, inner) if isinstance(kind, ListKind) else inner | None, plain)
            case ModelKind(model):
                return self._model(model, is_input=is_input, name=None, stem=stem)
            case EnumKind(enum):
                return Shape(self._enum(enum, stem))
            case TextKind() | JsonKind():
                return Shape(str if isinstance(kind, TextKind) else JSON, plain=True)
            case _:
                return Shape(kind)

    def _enum(self, enum: type[Enum], stem: str) -> type[Enum]:
        key = (enum, False, None)
        if key not in self._made:
            name = self._names.claim(enum.__name__, enum, stem)
            description = _own_doc(enum) or f"The values of `{enum.__name__}`."
            values = {member.name: f"The value `{member.value}`." for member in enum} | value_docs(enum)
            self._made[key] = describe_enum(enum, description, values, name=name)
        return enum


def graphql_name(field_name: str, info: FieldInfo) -> str:
    """The field's alias if it can be a GraphQL name, else its name in camelCase."""
    alias = info.alias
    return alias if alias is not None and _NAME.fullmatch(alias) else to_camel(field_name)


def _output_field(name: str, info: FieldInfo, shape: Shape, annotations: dict[str, Any]) -> Any:
    description = _description(name, info)
    if not shape.plain:
        annotations[name] = shape.type
        return strawberry.field(name=graphql_name(name, info), description=description)

    def resolve(root: Any) -> Any:
        return to_jsonable_python(getattr(root, name), by_alias=True)

    return strawberry.field(
        resolver=resolve, graphql_type=shape.type, name=graphql_name(name, info), description=description
    )


def _input_field(name: str, info: FieldInfo, shape: Shape, annotations: dict[str, Any]) -> Any:
    """A field with a default may be left out; pydantic then knows the default."""
    description = _description(name, info)
    if info.is_required() and type(None) not in getattr(shape.type, "__args__", ()):
        annotations[name] = shape.type
        return strawberry.field(name=graphql_name(name, info), description=description)
    annotations[name] = shape.type | None
    if not info.is_required() and info.default_factory is None and info.default is not None:
        shown = info.default.name if isinstance(info.default, Enum) else info.default
        description = f"{description} Default: `{shown}`."
    return strawberry.field(name=graphql_name(name, info), description=description, default=strawberry.UNSET)


def _description(name: str, info: FieldInfo) -> str:
    if info.description:
        return info.description
    words = name.replace("_", " ").strip()
    return f"{(info.title or words).capitalize()}."


def _own_doc(cls: type) -> str | None:
    """The class's own docstring, in one paragraph; an inherited one speaks of something else."""
    doc = cls.__dict__.get("__doc__")
    return " ".join(str(doc).split()) if doc else None
