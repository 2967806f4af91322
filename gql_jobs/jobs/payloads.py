"""How payloads and results become stored JSON, and how stored JSON is read by the models of this version.

Models change while jobs are in flight: what one version has stored, another one reads. Models also run code of their
users (validators, serializers, factories of defaults), which is never trusted to be total: whatever it raises is a
``ModelMismatch``, in a sentence for each field.
"""

import hashlib
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import Raw
from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from gql_jobs.jobs.errors import MAX_FAULTS

_M = TypeVar("_M", bound=BaseModel)

_MAX_WORDS = 300
"""Characters of one fault's message, at most."""
_SAID_BY_USERS = ("value_error", "assertion_error")
"""The kinds of faults whose message follows the first comma of pydantic's."""


class FieldFault(NamedTuple):
    """A value that does not fit. ``path``: its place in the JSON, by keys and indexes; ``message``: a sentence."""

    path: tuple[str | int, ...]
    message: str

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.path))}: {self.message}" if self.path else self.message


class ModelMismatch(ValueError):
    """JSON that a model cannot read, or a value that it cannot be stored as. The text has a sentence for each fault.

    ``unexpected``: what code of the model raised, if it was no refusal of a value.
    """

    def __init__(self, faults: list[FieldFault], unexpected: BaseException | None = None) -> None:
        super().__init__(" ".join(map(str, faults)))
        self.faults = faults
        self.unexpected = unexpected


def read(model: type[_M], stored: bytes) -> _M:
    """Return stored JSON as its model: strictly if it can be read so, else without the fields that are unknown here.

    :raises ModelMismatch: if this version of the model cannot read it, whatever its validators raise.
    """
    try:
        try:
            return _validated(model, stored)
        except ValidationError as refusal:
            return _read_tolerantly(model, stored, refusal)
    except ValidationError as error:
        raise mismatch_of(error, stored) from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise _unexpected(error) from error


def _validated(model: type[_M], data: bytes, *, tolerant: bool = False) -> _M:
    # The names of fields count beside their aliases: a field may get an alias after jobs have been stored.
    return model.model_validate_json(data, by_alias=True, by_name=True, extra="ignore" if tolerant else None)


def _read_tolerantly(model: type[_M], stored: bytes, refusal: ValidationError) -> _M:
    unknown = [fault["loc"] for fault in refusal.errors(include_url=False) if fault["type"] == "extra_forbidden"]
    if not unknown or not keeps_unknown_fields(model):
        return _validated(model, stored, tolerant=True)
    # To ignore all unknown fields would empty the models that keep theirs.
    value = msgspec.json.decode(stored)
    for location in unknown:
        _remove(value, place(location, value))
    return _validated(model, msgspec.json.encode(value))


def _remove(value: Any, path: tuple[str | int, ...]) -> None:
    *parents, last = path
    for part in parents:
        value = value[part]
    if isinstance(value, dict):
        value.pop(last, None)


def canonical_json(model: BaseModel) -> bytes:
    """Return the JSON that is stored: keys sorted, no spaces, so that equal payloads are equal bytes.

    :raises ValueError: for a value that JSON cannot hold, such as half of a surrogate pair.
    """
    # JSON has no infinity: a message that contained it would be unreadable.
    return to_json(_sorted(model.model_dump(mode="json", by_alias=True)), inf_nan_mode="null")


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


def payload_hash(type_name: str, payload: bytes | Raw) -> str:
    """Return the SHA-256, in hexadecimal, of type and canonical payload: equal for requests that repeat each other."""
    return hashlib.sha256(type_name.encode() + b"\n" + bytes(payload)).hexdigest()


# Faults, in words.


def mismatch_of(error: ValidationError, data: bytes) -> ModelMismatch:
    """Return the faults that pydantic has found in this JSON, with their places in it.

    Without pydantic's links, counts and types, and without the values: those may be secret.
    """
    try:
        value: Any = msgspec.json.decode(data)
    except (ValueError, RecursionError):
        value = None
    found = error.errors(include_url=False, include_input=False, include_context=False)[:MAX_FAULTS]
    return ModelMismatch(
        [FieldFault(place(fault["loc"], value), _sentence(fault["type"], fault["msg"])) for fault in found]
    )


def place(location: tuple[str | int, ...], value: Any) -> tuple[str | int, ...]:
    """Return where in a JSON value pydantic's location leads: without the tags of unions and the names of validators.

    The last part of a location may be a field that is missing.
    """
    path: list[str | int] = []
    for number, part in enumerate(location):
        if isinstance(value, dict) and isinstance(part, str):
            if part in value:
                value = value[part]
            elif number < len(location) - 1 or part == "[key]":
                continue
        elif isinstance(value, list) and isinstance(part, int):
            value = value[part] if part < len(value) else None
        elif isinstance(value, dict | list) or not isinstance(part, int):
            continue
        path.append(part)
    return tuple(path)


def _sentence(kind: str, message: str) -> str:
    if kind in _SAID_BY_USERS:
        message = message.partition(", ")[2] or message
    message = " ".join(message.split())
    if len(message) > _MAX_WORDS:
        message = f"{message[:_MAX_WORDS]}…"
    return message if message.endswith((".", "!", "?", "…")) else f"{message}."


def _unexpected(error: BaseException) -> ModelMismatch:
    return ModelMismatch([FieldFault((), f"The model's own code failed with {type(error).__name__}.")], error)


# The core schemas that pydantic makes of models: what kinds of values there are in a model, at any depth.

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


@cache
def keeps_unknown_fields(model: type[BaseModel]) -> bool:
    """Return whether the model, or one below it, keeps fields that it does not know (``extra="allow"``)."""
    return any(
        node.get("extra_behavior") == "allow" or (node.get("config") or {}).get("extra_fields_behavior") == "allow"
        for node, _ in parts_of(model)
    )
