"""Which values of a payload or result are secret, where they stand in its JSON, and the JSON without them.

Secret is what a model declares as pydantic's ``Secret``, ``SecretStr`` or ``SecretBytes``, at any depth. Two things say
where such values are: the marks that were stored with a job, and the model of today, which is laid beside the JSON,
whether it fits or not. When in doubt too much is hidden.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import quote, quote_plus

import msgspec
from msgspec import Raw
from pydantic import BaseModel, Secret, SecretBytes, SecretStr

from gql_jobs.jobs.model_parts import Node, parts_of

REDACTED = "[redacted]"
"""What everybody but the handler is shown in the place of a secret."""
SECRET_TYPES: tuple[type[Any], ...] = (SecretStr, SecretBytes, Secret)
_MAX_MARKS = 64
"""Places of secrets in one payload that are told apart; if there are more, the whole fields are secret."""

Keys = tuple[str | int, ...]
"""A place in a JSON value, by keys and indexes."""


@cache
def has_secrets(model: type[BaseModel]) -> bool:
    """Return whether a model declares a secret, at any depth."""
    return any(_is_secret(node) for node, _ in parts_of(model))


def _is_secret(node: Node) -> bool:
    function = (node.get("function") or {}).get("function") if node["type"].startswith("function-") else None
    if isinstance(function, type):
        return issubclass(function, SECRET_TYPES)
    # Those of ``Secret[…]`` are functions that pydantic makes for each of them.
    return getattr(function, "__module__", "") == Secret.__module__ and getattr(
        function, "__qualname__", ""
    ).startswith("Secret.")


def declared_secrets(model: type[BaseModel], value: Any) -> list[Keys]:
    """Return the places of secrets in a JSON value, as the model declares them; whether it can read it is no matter.

    Where something else is in the place of what holds a secret, all of that counts as secret.
    """
    return list(dict.fromkeys(_declarations(model).find(value))) if has_secrets(model) else []


@cache
def secret_field_names(model: type[BaseModel]) -> frozenset[str]:
    """Return the names of the fields of a model that are secret, or hold a secret."""
    return frozenset(_declarations(model).fields()) if has_secrets(model) else frozenset()


def possible_secrets(model: type[BaseModel], value: Any) -> list[Keys]:
    """Return the places where secrets may be, beside those that are declared: what code of the model is given as it is.

    A validator that takes a model before it is read may make a secret of any part of it.
    """
    return list(dict.fromkeys(_declarations(model).find(value, cautious=True))) if has_secrets(model) else []


@cache
def _declarations(model: type[BaseModel]) -> "_Declarations":
    return _Declarations(model)


class _Declarations:
    """The core schema of a model, to be laid beside JSON."""

    def __init__(self, model: type[BaseModel]) -> None:
        self._schema: Node = model.__pydantic_core_schema__
        self._definitions: dict[str, Node] = {}
        self._holding: dict[int, bool] = {}
        self._collect(self._schema)

    def find(self, value: Any, *, cautious: bool = False) -> Iterator[Keys]:
        return self._find(self._schema, value, (), _Here(cautious))

    def fields(self) -> Iterator[str]:
        node: Node | None = self._schema
        while node is not None and node["type"] != "model-fields":
            is_name = node["type"] == "definition-ref"
            node = self._definitions.get(node["schema_ref"]) if is_name else node.get("schema")
        for name, field in (node or {"fields": {}})["fields"].items():
            if self._holds(field["schema"]):
                yield name

    def _collect(self, node: Node) -> None:
        for part in _parts(node):
            if part["type"] == "definitions":
                self._definitions.update({one["ref"]: one for one in part["definitions"]})
            self._collect(part)
        if node["type"] == "definitions":
            self._definitions.update({one["ref"]: one for one in node["definitions"]})

    def _holds(self, node: Node, seen: frozenset[str] = frozenset()) -> bool:
        """Return whether a secret is declared in this part of the schema."""
        known = self._holding.get(id(node))
        if known is None:
            if node["type"] == "definition-ref":
                name = node["schema_ref"]
                return name not in seen and name in self._definitions and self._holds_in(name, seen)
            known = _is_secret(node) or any(self._holds(part, seen) for part in _parts(node))
            if known or not seen:
                self._holding[id(node)] = known
        return known

    def _holds_in(self, name: str, seen: frozenset[str]) -> bool:
        return self._holds(self._definitions[name], seen | {name})

    def _find(self, node: Node, value: Any, path: Keys, here: "_Here") -> Iterator[Keys]:
        """Yield the places of secrets in a value."""
        if value is None or not self._holds(node):
            return
        kind = node["type"]
        if _is_secret(node) or kind in _INDIVISIBLE or (here.cautious and _is_given_raw(node)):
            yield path
        elif kind == "definition-ref":
            name = node["schema_ref"]
            if name not in here.entered:
                entered = here._replace(entered=here.entered | {name})
                yield from self._find(self._definitions[name], value, path, entered)
        elif kind in _FIELDS:
            yield from self._find_in_fields(node, value, path, here)
        elif kind == "dict":
            yield from self._find_in_mapping(node, value, path, here)
        elif kind in _ITEMS:
            yield from self._find_in_items(node, value, path, here)
        elif kind in _POSITIONAL:
            yield from self._find_in_arguments(node, value, path, here)
        else:
            for part in [node["schema"]] if kind == "definitions" else _parts(node):
                yield from self._find(part, value, path, here)

    def _find_in_mapping(self, node: Node, value: Any, path: Keys, here: "_Here") -> Iterator[Keys]:
        if not isinstance(value, dict) or ("keys_schema" in node and self._holds(node["keys_schema"])):
            yield path
        elif "values_schema" in node:
            for key, item in value.items():
                yield from self._find(node["values_schema"], item, (*path, key), here.below())

    def _find_in_fields(self, node: Node, value: Any, path: Keys, here: "_Here") -> Iterator[Keys]:
        if not isinstance(value, dict):
            yield path
            return
        fields: Any = node["fields"]
        named = fields.items() if isinstance(fields, dict) else [(field["name"], field) for field in fields]
        known: set[str] = set()
        for name, field in named:
            for place in _places_of_field(name, field):
                known.add(str(place[0]))
                found = _at(value, place)
                yield from self._find(field["schema"], found, (*path, *place), here.below())
        extras = node.get("extras_schema")
        if extras is not None:
            for key, item in value.items():
                if key not in known:
                    yield from self._find(extras, item, (*path, key), here.below())

    def _find_in_items(self, node: Node, value: Any, path: Keys, here: "_Here") -> Iterator[Keys]:
        if not isinstance(value, list):
            yield path
            return
        schemas: Any = node.get("items_schema")
        one_each = isinstance(schemas, list) and node.get("variadic_item_index") is None
        every = schemas if isinstance(schemas, list) else [schemas]
        for number, item in enumerate(value):
            for schema in schemas[number : number + 1] if one_each else every:
                yield from self._find(schema, item, (*path, number), here.below())

    def _find_in_arguments(self, node: Node, value: Any, path: Keys, here: "_Here") -> Iterator[Keys]:
        """Yield the places in what a NamedTuple is made of: a list, or an object."""
        if not isinstance(value, dict | list):
            yield path
            return
        for number, argument in enumerate(node[_POSITIONAL[node["type"]]]):
            key: Any = number if isinstance(value, list) else argument["name"]
            yield from self._find(argument["schema"], _at(value, (key,)), (*path, key), here.below())


class _Here(NamedTuple):
    """How the search goes on: whether what code of users is given counts, and what was entered at this very place."""

    cautious: bool
    entered: frozenset[str] = frozenset()

    def below(self) -> "_Here":
        return _Here(self.cautious)


def _is_given_raw(node: Node) -> bool:
    if node["type"] not in {"function-before", "function-wrap", "function-plain"}:
        return False
    module = str(getattr(node["function"]["function"], "__module__", ""))
    return module.partition(".")[0] != "pydantic"


_FIELDS = frozenset({"model-fields", "dataclass-args", "typed-dict"})
_INDIVISIBLE = frozenset({"json", "arguments-v3"})
"""Of JSON in a text no part can be hidden."""
_POSITIONAL = {"named-tuple": "fields", "arguments": "arguments_schema"}
"""What reads a list as well as an object: the member with the schemas of both."""
_ITEMS = frozenset({"list", "set", "frozenset", "tuple", "generator"})
_UNREAD_PARTS = frozenset(
    {
        *("serialization", "metadata", "python_schema", "strict_schema", "config"),
        *("default", "computed_fields", "members", "function"),
    }
)
"""The members of core schemas that are no schema, or one that reads no JSON."""


def _parts(node: Any) -> Iterator[Node]:
    """Yield the schemas in a schema that JSON is read with."""
    for key, value in node.items():
        if key in _UNREAD_PARTS:
            continue
        inside: Any = [value]
        if isinstance(value, list):
            inside = value
        elif isinstance(value, Mapping) and key in {"fields", "choices"}:
            inside = value.values()
        for one in inside:
            schema = one[0] if isinstance(one, tuple) and one else one
            if isinstance(schema, Mapping):
                if isinstance(schema.get("type"), str):
                    yield schema
                elif isinstance(schema.get("schema"), Mapping):
                    yield schema["schema"]  # an argument of a function


def _places_of_field(name: str, field: Node) -> Iterator[Keys]:
    """Yield the places that a field is read from, or is written to, in the JSON of its model."""
    places: dict[Keys, None] = {(name,): None}
    for alias in (field.get("validation_alias"), field.get("serialization_alias")):
        if isinstance(alias, str):
            places[alias,] = None
        elif isinstance(alias, list):
            for one in alias if alias and isinstance(alias[0], list) else [alias]:
                places[tuple(one)] = None
    yield from places


def _at(value: Any, place: Keys) -> Any:
    for key in place:
        try:
            value = value[key] if isinstance(value, dict | list) else None  # type: ignore[index]
        except (LookupError, TypeError):
            return None
    return value


# Marks: the places of secrets as they are stored with a job.


def marks_of(places: Iterable[Keys]) -> tuple[str, ...]:
    """Return places as JSON pointers, in which ``*`` stands for every item: how many there are is of use to nobody."""
    spelled = list(dict.fromkeys(tuple("*" if isinstance(key, int) else key for key in place) for place in places))
    if len(spelled) > _MAX_MARKS:
        spelled = list(dict.fromkeys(place[:1] for place in spelled))
    if len(spelled) > _MAX_MARKS:
        spelled = [()]
    return tuple("".join(f"/{part.replace('~', '~0').replace('/', '~1')}" for part in place) for place in spelled)


def _keys_of_mark(mark: str) -> list[str]:
    return [part.replace("~1", "/").replace("~0", "~") for part in mark.split("/")[1:]]


def marks_for(model: type[BaseModel] | None, stored: Raw | bytes, marks: tuple[str, ...]) -> tuple[str, ...]:
    """Return the marks that were stored with a payload, and those of its model as it is today."""
    if model is None or not has_secrets(model):
        return marks
    try:
        value = msgspec.json.decode(stored)
        return tuple(dict.fromkeys((*marks, *marks_of(declared_secrets(model, value)))))
    except (ValueError, RecursionError):
        return ("",)


def redacted(stored: Raw | bytes, marks: Sequence[str]) -> Raw:
    """Return JSON with ``REDACTED`` in the places of secrets; nothing but that if it is no JSON.

    :param marks: JSON pointers, in which ``*`` stands for every item.
    """
    try:
        value = msgspec.json.decode(stored)
        for mark in marks:
            value = _without(value, _keys_of_mark(mark))
        return Raw(msgspec.json.encode(value))
    except (ValueError, RecursionError):
        return Raw(msgspec.json.encode(REDACTED))


def redacted_result(model: type[BaseModel], stored: Raw) -> Raw:
    """Return the JSON of a result with ``REDACTED`` in the places that its model declares secret."""
    if not has_secrets(model):
        return stored
    try:
        value = msgspec.json.decode(stored)
        return Raw(msgspec.json.encode(without_places(value, declared_secrets(model, value))))
    except (ValueError, RecursionError):
        return Raw(msgspec.json.encode(REDACTED))


def _without(value: Any, keys: list[str]) -> Any:
    if not keys:
        return REDACTED
    first, *rest = keys
    if isinstance(value, dict) and first in value:
        return {**value, first: _without(value[first], rest)}
    if isinstance(value, list) and (first == "*" or first.isdecimal()):
        return [_without(item, rest) for item in value]
    return value


def without_places(value: Any, places: Iterable[Keys]) -> Any:
    """Return a JSON value with ``REDACTED`` in these places."""
    for place in places:
        value = _replaced(value, place)
    return value


def _replaced(value: Any, place: Keys) -> Any:
    if not place:
        return REDACTED
    first, *rest = place
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        return value
    changed = {key: _replaced(item, tuple(rest)) if key == first else item for key, item in items}
    return changed if isinstance(value, dict) else list(changed.values())


# The values themselves, as texts that must not be shown.


def texts_at(value: Any, places: Iterable[Keys]) -> list[str]:
    """Return the texts and numbers of a JSON value in these places and below."""
    return [text for place in places for text in _leaves(_at(value, place))]


def marked_texts(stored: Raw | bytes, marks: Iterable[str]) -> list[str]:
    """Return the texts and numbers in the marked places of stored JSON; none if it is no JSON."""
    try:
        value = msgspec.json.decode(stored)
        return [text for mark in marks for text in _marked(value, _keys_of_mark(mark))]
    except (ValueError, RecursionError):
        return []


def _marked(value: Any, keys: list[str]) -> Iterator[str]:
    if not keys:
        yield from _leaves(value)
        return
    first, *rest = keys
    if isinstance(value, dict) and first in value:
        yield from _marked(value[first], rest)
    elif isinstance(value, list):
        for item in value:
            yield from _marked(item, rest)


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(key)
            yield from _leaves(item)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, BaseModel):
        yield from _leaves(dict(value))
    elif isinstance(value, SECRET_TYPES):
        yield from _leaves(value.get_secret_value())
    elif isinstance(value, bytes):
        yield value.decode("utf-8", "replace")
    elif value is not None and not isinstance(value, bool):
        try:
            yield str(value)
        except Exception:  # noqa: BLE001  # values of users run code of their own
            return


def texts_of_secret(secret: Any) -> list[str]:
    """Return the texts and numbers in the value of a ``Secret``, ``SecretStr`` or ``SecretBytes``."""
    return list(_leaves(secret.get_secret_value()))


SHORTEST_HIDDEN = 4
"""Characters of the shortest secret that is hidden wherever it stands: a shorter one is part of ordinary words."""


def hide_texts(message: str, texts: Iterable[str]) -> str:
    """Return a message with ``REDACTED`` for these texts: as they are, and as Python, JSON and URLs spell them."""
    for text in sorted(set(texts), key=len, reverse=True):
        if len(text) < SHORTEST_HIDDEN or text == REDACTED:
            continue
        for spelled in _spellings(text):
            message = message.replace(spelled, REDACTED)
    return message


def _spellings(text: str) -> list[str]:
    quoted = [json.dumps(text, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)]
    with suppress(UnicodeEncodeError):
        quoted += [quote(text), quote(text, safe=""), quote_plus(text)]
    return list(dict.fromkeys((text, repr(text)[1:-1], repr(text.encode("utf-8", "replace"))[2:-1], *quoted)))


def without_texts(value: Any, texts: Sequence[str]) -> Any:
    """Return a JSON value with ``REDACTED`` for these texts, wherever they stand in a text of it."""
    if isinstance(value, str):
        return hide_texts(value, texts)
    if isinstance(value, dict):
        return {key: without_texts(item, texts) for key, item in value.items()}
    return [without_texts(item, texts) for item in value] if isinstance(value, list) else value
