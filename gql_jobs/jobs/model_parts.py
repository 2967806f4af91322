"""What a pydantic model is made of: the parts of its core schema and the keys of its fields, and what is refused of it.

A core schema is what pydantic makes of a model to read JSON by: it says what kinds of values there are in it, at any
depth. What could not be stored and read back as it was validated is refused when a job type is registered.
"""

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, NamedTuple

from pydantic import AliasChoices, AliasPath, BaseModel, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_core import to_json

Node = Mapping[str, Any]
"""A core schema, or a part of one."""

_NO_INPUT = frozenset(
    {"serialization", "metadata", "python_schema", "strict_schema", "config", "default", "computed_fields", "members"}
)
"""The members of core schemas that have no part in reading JSON."""


class Place(NamedTuple):
    """Where a part of a model's core schema is: ``field`` of ``model``, the innermost ones.

    ``union``: the place of the union that it is a choice of, without a discriminator. ``converted``: whether code of
    users may have made its input of what the JSON has.
    """

    model: str
    field: str = ""
    union: "Place | None" = None
    converted: bool = False

    def __str__(self) -> str:
        return f"The field {self.field!r} of the model {self.model}" if self.field else f"The model {self.model}"


def parts_of(model: type[BaseModel]) -> Iterator[tuple[Node, Place]]:
    """Yield all parts of a model's core schema that JSON is read with; a definition once for each kind of place.

    :raises ValueError: if the model is not complete, because an annotation names what is not there.
    """
    if not model.__pydantic_complete__:
        try:
            model.model_rebuild()
        except Exception as error:
            raise ValueError(f"The model {model.__name__} is not complete: {error}") from error
    return _walk(model.__pydantic_core_schema__, Place(model.__name__), {}, set())


def _walk(
    node: Node, at: Place, definitions: dict[str, Node], seen: set[tuple[str, bool, bool]]
) -> Iterator[tuple[Node, Place]]:
    kind = node["type"]
    if kind == "definition-ref":
        key = (node["schema_ref"], at.union is not None, at.converted)
        if key not in seen and key[0] in definitions:
            seen.add(key)
            yield from _walk(definitions[key[0]], at, definitions, seen)
        return
    if kind == "definitions":
        definitions.update({one["ref"]: one for one in node["definitions"]})
        yield from _walk(node["schema"], at, definitions, seen)
        return
    yield node, at
    if kind in _OBJECTS and isinstance(node.get("cls"), type):
        at = at._replace(model=node["cls"].__name__)
    elif kind == "union":
        at = at._replace(union=at)
    elif kind in _CONVERSIONS:
        at = at._replace(converted=True)
    for field, below in _below(node):
        yield from _walk(below, at if field is None else at._replace(field=field), definitions, seen)


_OBJECTS = frozenset({"model", "dataclass", "typed-dict"})
"""The kinds of schemas that read a JSON object field by field."""
_CONVERSIONS = frozenset({"function-before", "function-wrap", "json"})


def _below(node: Node) -> Iterator[tuple[str | None, Node]]:
    """Yield the schemas in a schema, those of fields with their names."""
    for key, value in node.items():
        if key == "fields" and isinstance(value, dict):
            yield from value.items()
        elif key == "choices" and isinstance(value, dict):
            yield from ((None, choice) for choice in value.values())
        elif key not in _NO_INPUT:
            for one in value if isinstance(value, list) else [value]:
                # A choice of a union may have a label.
                inner = one[0] if isinstance(one, tuple) and one else one
                if isinstance(inner, dict) and isinstance(inner.get("type"), str):
                    yield (inner["name"] if inner["type"] == "dataclass-field" else None), inner


def reads_fields(node: Node) -> bool:
    """Return whether a schema reads a JSON object field by field: that of a model, a dataclass, a TypedDict."""
    return node["type"] in _OBJECTS and not node.get("root_model", False)


def keys_of(name: str, info: FieldInfo) -> tuple[str, ...]:
    """Return the keys of JSON that a field is read from; the first is the one under which it is stored."""
    alias = info.validation_alias if info.validation_alias is not None else info.alias
    choices = alias.choices if isinstance(alias, AliasChoices) else [] if alias is None else [alias]
    plain = [str(choice.path[0]) if isinstance(choice, AliasPath) else choice for choice in choices if _is_key(choice)]
    return tuple(dict.fromkeys((*plain, name)))


def _is_key(alias: str | AliasPath) -> bool:
    return isinstance(alias, str) or (len(alias.path) == 1 and isinstance(alias.path[0], str))


# What cannot be stored and read back as it was validated is refused at registration.


def check_model(model: type[BaseModel]) -> None:
    """Check that whatever a payload or result model takes can be stored and read back, also by other versions of it.

    :raises ValueError: naming the field that could not.
    """
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise ValueError(  # noqa: TRY004  # all refusals of a registration are of one type
            f"A payload or result must be a pydantic model, not {model!r}. What has no fields can be an empty model; "
            "of a handler that returns nothing the result is None."
        )
    for node, place in parts_of(model):
        problem = _problem(node, place)
        if problem is not None:
            raise ValueError(problem)
        if isinstance(cls := node.get("cls"), type) and issubclass(cls, BaseModel):
            _check_names(cls)


def _problem(node: Node, place: Place) -> str | None:
    kind, told_apart = node["type"], place.union is not None
    problem = None
    if reads_fields(node) and told_apart:
        place = place.union or place
        problem = (
            "is a union with a model in it, whose choice depends on which fields are known: another version could "
            "choose another one. Give the union a discriminator, or make one model with optional fields of it."
        )
    elif node.get("now_op") is not None:
        problem = (
            "is relative to the present, but is read again when the job runs and whenever it is shown. Make it a plain "
            "date or datetime, and compare it in the handler."
        )
    elif kind == "generator":
        problem = "is checked only while it is read. Make it a list."
    elif kind in _PYTHON_ONLY and not told_apart and not place.converted:
        problem = "takes only objects of Python, which JSON cannot hold."
    elif kind == "enum" and not place.converted and not all(_reads_back(node["cls"], one) for one in node["members"]):
        problem = "has an enum with a value that JSON cannot hold."
    elif kind == "tagged-union" and any(
        isinstance(tag, Enum) and not isinstance(tag, str | int) for tag in node["choices"]
    ):
        problem = "is told apart by members of an enum that JSON cannot hold. Make it a StrEnum."
    elif kind == "function-after" and getattr(node["function"]["function"], "__qualname__", "") in _ON_THIS_MACHINE:
        problem = "is a path that must or must not exist, but is read on several machines. Make it a plain Path."
    return f"{place} {problem}" if problem is not None else None


_PYTHON_ONLY = frozenset({"is-instance", "is-subclass", "callable"})
_ON_THIS_MACHINE = frozenset(
    {"PathType.validate_file", "PathType.validate_directory", "PathType.validate_new", "PathType.validate_socket"}
)
"""The validators of pydantic's ``FilePath`` and its like."""


def _reads_back(enum: type[Enum], member: Enum) -> bool:
    try:
        return TypeAdapter(enum).validate_json(to_json(member)) is member
    except Exception:  # noqa: BLE001  # enums may run code of their own
        return False


def _check_names(model: type[BaseModel]) -> None:
    """Check that no key of JSON can mean two fields, since fields are read by their aliases and by their names.

    :raises ValueError: naming the fields.
    """
    owners: dict[str, str] = {}
    for name, info in model.model_fields.items():
        for key in keys_of(name, info):
            other = owners.setdefault(key, name)
            if other != name:
                raise ValueError(
                    f"The fields {other!r} and {name!r} of the model {model.__name__} are both read from {key!r}; "
                    "rename one of them, or its alias."
                )


def check_result_model(model: type[BaseModel]) -> None:
    """Check that a result that is stored has all that is needed for reading it.

    :raises ValueError: naming a field that is needed and never written.
    """
    for node, _ in parts_of(model):
        cls = node.get("cls")
        if not (isinstance(cls, type) and issubclass(cls, BaseModel)) or cls.__pydantic_decorators__.model_serializers:
            continue
        for name, info in cls.model_fields.items():
            if info.exclude and info.is_required():
                raise ValueError(
                    f"The field {name!r} of the model {cls.__name__} is excluded from what is stored of a result, "
                    "which could not be read without it. Give it a default."
                )
