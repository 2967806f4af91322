"""How payloads and results become stored JSON, and how stored JSON is read by the models of this version.

Stored is what the client has sent, under the aliases of the fields, and what factories of defaults drew; nothing that a
model has made of it. So whoever reads it (the API, a worker) gets what was validated at the creation, which has read
these very bytes. Models change while jobs are in flight: what one version has stored, another one reads. Models also
run code of their users (validators, serializers, factories), which is never trusted to be total: whatever it raises is
a ``ModelMismatch``, with a sentence for each field.
"""

import re
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import msgspec
from pydantic import BaseModel, RootModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import to_json, to_jsonable_python

from gql_jobs.jobs.errors import MAX_FAULTS
from gql_jobs.jobs.graphql_input import may_have_numbers, numbers_beyond
from gql_jobs.jobs.model_parts import Node, keys_of, parts_of
from gql_jobs.jobs.secret_fields import (
    REDACTED,
    SECRET_TYPES,
    Keys,
    declared_secrets,
    has_secrets,
    hide_texts,
    marked_texts,
    marks_for,
    marks_of,
    possible_secrets,
    texts_at,
    texts_of_secret,
    without_places,
    without_texts,
)

_M = TypeVar("_M", bound=BaseModel)

MAX_SECRETS = 1000
"""Texts and numbers in the secrets of one payload: each is looked for in whatever is said while its job runs."""
_MAX_WORDS = 300
"""Characters of one fault's message, at most."""
_SAID_BY_USERS = ("value_error", "assertion_error")
"""The kinds of faults whose message follows the first comma of pydantic's."""
_HALVES = "A text has half of a surrogate pair, which UTF-8 cannot hold."
_NO_JSON = "The value is nested too deeply, or no JSON."
_SHOWN_BEFORE = f"{REDACTED} is what is shown in the place of a secret; give the secret itself."
_TOO_LARGE = "The number is beyond what GraphQL has for this field; one of up to 64 bits has to be a gql_jobs.BigInt."
_LONG_NUMBER = re.compile(rb"[0-9]{10}")
"""What JSON has somewhere if it has a whole number of more than 32 bits."""
_MOST_READ_AGAIN = 16 * 1024
"""Bytes of a result that is looked through for numbers that clients are not shown, for a line in the log."""
_UNSAID = "The value does not fit; what is wrong with it is not said, because it is secret."


class FieldFault(NamedTuple):
    """A value that does not fit. ``path``: its place in the JSON, by keys and indexes; ``message``: a sentence."""

    path: tuple[str | int, ...]
    message: str

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.path))}: {self.message}" if self.path else self.message


class ModelMismatch(ValueError):
    """JSON that a model cannot read, or a value that it cannot be stored as. The text has a sentence for each fault.

    ``unexpected``: what code of the model raised, if it was no refusal of a value; ``secret_texts``: what must not be
    shown of it.
    """

    def __init__(
        self, faults: list[FieldFault], unexpected: BaseException | None = None, secret_texts: Sequence[str] = ()
    ) -> None:
        super().__init__(" ".join(map(str, faults)))
        self.faults = faults
        self.unexpected = unexpected
        self.secret_texts = secret_texts

    def told_faults(self, *prefix: str) -> list[dict[str, str]]:
        """Return the ``path`` and the ``message`` of each fault, as clients are told them.

        :param prefix: what the paths begin with.
        """
        return [{"path": ".".join([*prefix, *map(str, one.path)]), "message": one.message} for one in self.faults]


# A payload that is created.


class AcceptedPayload(NamedTuple):
    """A payload that its model has read from the JSON that is stored.

    ``sent``: the JSON as the client gave it, without anything that a default has added. ``secrets``: the places of
    secret values in ``stored``, as ``redacted`` takes them. ``value``: what a handler will be given.
    """

    stored: bytes
    sent: bytes
    secrets: tuple[str, ...]
    value: BaseModel


def accept(model: type[BaseModel], given: Any) -> AcceptedPayload:
    """Return a payload that may be stored.

    :param given: what the client gave, under the aliases of the fields; dates, enums and the like as such.
    :raises ModelMismatch: if it does not fit the model, cannot be written as JSON, a default could not be stored,
        ``REDACTED`` is in the place of a secret, or a number is one that the field could not be shown with.
    """
    sent = b""
    try:
        sent = strict_json(given)
        value = validated(model, sent)
        check_numbers(value)
        if not _has_factories_or_secrets(model):
            return AcceptedPayload(sent, sent, (), value)
        return _accepted(model, sent, value)
    except ValidationError as error:
        raise mismatch_of(error, sent, model) from None
    except (ModelMismatch, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise failure_of_code(error, model, sent) from error


def check_numbers(value: BaseModel) -> None:
    """Refuse numbers that GraphQL has not: a payload may not be null, so it could not be shown.

    :raises ModelMismatch: naming the places.
    """
    found = islice(numbers_beyond(value), MAX_FAULTS) if may_have_numbers(type(value)) else ()
    if faults := [FieldFault(place, _TOO_LARGE) for place in found]:
        raise ModelMismatch(faults)


def strict_json(value: Any) -> bytes:
    """Return JSON, which has no infinity and no halves of characters."""
    try:
        written = to_json(value, inf_nan_mode="constants")
        if b"Infinity" in written or b"NaN" in written:
            msgspec.json.decode(written)
    except msgspec.DecodeError:
        raise ModelMismatch([FieldFault(_infinite(value) or (), "JSON has no such number.")]) from None
    except (ValueError, RecursionError) as error:
        raise ModelMismatch([FieldFault((), _HALVES if "surrogate" in str(error) else _NO_JSON)]) from None
    return written


def _infinite(value: Any) -> tuple[str | int, ...] | None:
    """Return the path to the first number that is not finite."""
    if isinstance(value, float):
        return () if value != value or value in (float("inf"), float("-inf")) else None  # noqa: PLR0124
    inside: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inside:
        below = _infinite(item)
        if below is not None:
            return (key, *below)
    return None


@cache
def _has_factories_or_secrets(model: type[BaseModel]) -> bool:
    """Return whether a payload may have secrets, or values that a factory drew: only then it is looked through."""
    return any("default_factory" in node or _may_be_secret(node) for node, _ in parts_of(model))


def _may_be_secret(node: Node) -> bool:
    # Secrets are made by functions of pydantic's own, or by those of users.
    function = (node.get("function") or {}).get("function") if node["type"].startswith("function-") else None
    module = str(getattr(function, "__module__", ""))
    return function is not None and (module == "pydantic.types" or module.partition(".")[0] != "pydantic")


def _accepted(model: type[BaseModel], sent: bytes, value: BaseModel) -> AcceptedPayload:
    """Return the payload with what factories drew as a part of its JSON, and the places of its secrets."""
    for number, as_declared in enumerate((False, True)):
        seen = _Seen(msgspec.json.decode(sent), as_declared=as_declared)
        seen.look(value, seen.json, ())
        if number == 0:
            _check_secrets(msgspec.json.decode(sent), [*seen.secret, *declared_secrets(model, seen.json)])
        if not seen.drawn:
            return AcceptedPayload(sent, sent, marks_of([*seen.secret, *declared_secrets(model, seen.json)]), value)
        stored = strict_json(seen.json)
        try:
            again = validated(model, stored)
            read_back = _Seen(msgspec.json.decode(stored), as_declared=as_declared)
            read_back.look(again, read_back.json, ())
            if not read_back.drawn and all(
                compared_json(_at(again, path)) == compared_json(drawn) for path, drawn in seen.drawn
            ):
                marks = marks_of([*seen.secret, *declared_secrets(model, seen.json)])
                return AcceptedPayload(stored, sent, marks, again)
        except (ValidationError, LookupError, AttributeError):
            continue
    drawn_twice = "What the default_factory of this field drew does not read back as it was drawn; give the field."
    raise ModelMismatch([FieldFault(_keys(path), drawn_twice) for path, _ in seen.drawn[:MAX_FAULTS]])


def _check_secrets(sent: Any, places: list[Keys]) -> None:
    """Refuse more secrets than can be hidden, and what was copied from an answer: it would be stored in their place.

    :raises ModelMismatch: naming the places.
    """
    if len(set(texts_at(sent, dict.fromkeys(places)))) > MAX_SECRETS:
        raise ModelMismatch([FieldFault((), f"A payload may have at most {MAX_SECRETS} secret values.")])
    copied = [place for place in dict.fromkeys(places) if REDACTED in texts_at(sent, [place])]
    if copied:
        raise ModelMismatch([FieldFault(place, _SHOWN_BEFORE) for place in copied[:MAX_FAULTS]])


class _Step(NamedTuple):
    """A step from a value to one in it: the key or index in the JSON, and the attribute, key or index in the value."""

    key: str | int
    part: Any


_Path = tuple[_Step, ...]
_NOWHERE = object()
"""In the place of the JSON of a value whose place is not known."""


def _keys(path: _Path) -> tuple[str | int, ...]:
    return tuple(step.key for step in path)


def _at(value: Any, path: _Path) -> Any:
    for step in path:
        if isinstance(value, RootModel):
            value = value.root
        value = getattr(value, step.part) if fields_of(value) is not None else value[step.part]
    return value


class _Seen:
    """A validated value beside its JSON, looked through for secrets and for what factories drew.

    :param as_declared: write what was drawn as its field's serializer does, not by its own type.
    """

    def __init__(self, json: Any, *, as_declared: bool) -> None:
        self.json = json
        self.drawn: list[tuple[_Path, Any]] = []
        self._as_declared = as_declared
        self.secret: list[Keys] = []

    def look(self, value: Any, written: Any, path: _Path) -> None:
        """Look through a value that has been read from ``written``, and add to that what factories drew."""
        if isinstance(value, SECRET_TYPES):
            self.secret.append(_keys(path))
        elif isinstance(value, RootModel):
            self.look(value.root, written, path)
        elif (known := fields_of(value)) is not None:
            self._look_at_fields(value, known, written, path)
        elif isinstance(value, dict):
            self._look_at_items(value, written, path)
        elif isinstance(value, list | tuple | deque):
            found = isinstance(written, list) and len(written) == len(value)
            for number, item in enumerate(value):
                self.look(
                    item, written[number] if found else _NOWHERE, (*path, _Step(number, number)) if found else path
                )
        elif isinstance(value, set | frozenset):
            for item in value:
                self.look(item, _NOWHERE, path)

    def _look_at_items(self, value: dict[Any, Any], written: Any, path: _Path) -> None:
        if any(isinstance(key, SECRET_TYPES) for key in value):
            self.secret.append(_keys(path))
        for key, item in value.items():
            spelled = key if isinstance(key, str) else str(to_jsonable_python(key, fallback=str))
            found = isinstance(written, dict) and spelled in written
            self.look(
                item,
                written[spelled] if found else _NOWHERE,
                (*path, _Step(spelled, key)) if found else path,
            )

    def _look_at_fields(self, value: Any, known: "dict[str, KnownField]", written: Any, path: _Path) -> None:
        given = getattr(value, "model_fields_set", ())
        for name, field in known.items():
            if not hasattr(value, name):
                continue
            item = getattr(value, name)
            key = next((k for k in field.keys if isinstance(written, dict) and k in written), None)
            if key is not None:
                self.look(item, written[key], (*path, _Step(key, name)))
            elif not field.has_factory or name in given:
                if name in given or not isinstance(value, BaseModel):
                    self.look(item, _NOWHERE, path)
            elif isinstance(written, dict):
                here = (*path, _Step(field.keys[0], name))
                written[field.keys[0]] = declared_json(value, name) if self._as_declared else plain_json(item)
                self.drawn.append((here, item))
                self.look(item, written[field.keys[0]], here)
            elif item or not isinstance(item, list | dict | set | frozenset | tuple | str):
                problem = f"What the default_factory of {name} drew cannot be stored; give it."
                raise ModelMismatch([FieldFault(_keys(path), problem)])
        for key, item in (getattr(value, "model_extra", None) or {}).items():
            if isinstance(written, dict) and key in written:
                self.look(item, written[key], (*path, _Step(key, key)))


class KnownField(NamedTuple):
    """A field of a model or a dataclass: the keys that it is read from, the one for storing it first.

    ``written``: the key that its model's own JSON has it under.
    """

    keys: tuple[str, ...]
    written: str
    has_factory: bool


def fields_of(value: Any) -> dict[str, KnownField] | None:
    """Return the fields of a model or a dataclass; None for any other value."""
    cls: Any = type(value)
    return _known_fields(cls) if isinstance(value, BaseModel) or is_dataclass(cls) else None


@cache
def _known_fields(cls: Any) -> dict[str, KnownField]:
    infos: dict[str, FieldInfo] = getattr(cls, "__pydantic_fields__", {})
    known = {
        name: KnownField(keys_of(name, info), info.serialization_alias or name, info.default_factory is not None)
        for name, info in infos.items()
    }
    if is_dataclass(cls):
        for field in fields(cls):
            known.setdefault(field.name, KnownField((field.name,), field.name, field.default_factory is not MISSING))
    return known


def plain_json(value: Any) -> Any:
    """Return a value that a factory drew as JSON, whatever serializers there are: secrets in clear."""
    return _as_json(value, lambda secret: plain_json(secret.get_secret_value()))


def compared_json(value: Any) -> Any:
    """Return a value as ``plain_json`` does, but what JSON has nothing for with its type: to compare them."""
    return _as_json(value, lambda secret: compared_json(secret.get_secret_value()), _with_type)


def _with_type(value: Any) -> Any:
    return to_jsonable_python(value, fallback=lambda other: {type(other).__qualname__: str(other)})


def shown_plain(value: Any) -> Any:
    """Return a value of a model as JSON, whatever serializers there are, with ``REDACTED`` in the place of secrets."""
    return _as_json(value, lambda _: REDACTED)


def _jsonable(value: Any) -> Any:
    return to_jsonable_python(value, fallback=str)


def _as_json(value: Any, of_secret: Callable[[Any], Any], of_other: Callable[[Any], Any] = _jsonable) -> Any:
    if isinstance(value, (*SECRET_TYPES, RootModel)):
        return _as_json(value.root, of_secret, of_other) if isinstance(value, RootModel) else of_secret(value)
    known = fields_of(value)
    if known is not None:
        extras = getattr(value, "model_extra", None) or {}
        own = {field.keys[0]: _as_json(getattr(value, name), of_secret, of_other) for name, field in known.items()}
        return {**own, **{key: _as_json(item, of_secret, of_other) for key, item in extras.items()}}
    if isinstance(value, dict):
        return {
            key if isinstance(key, str) else str(_jsonable(key)): _as_json(item, of_secret, of_other)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple | deque):
        return [_as_json(item, of_secret, of_other) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((_as_json(item, of_secret, of_other) for item in value), key=to_json)
    return of_other(value)


def secret_texts(model: type[BaseModel], stored: bytes, marks: tuple[str, ...], value: Any = None) -> list[str]:
    """Return the texts and numbers of a payload that nobody but its handler may see.

    :param marks: the places that were stored with it.
    :param value: what the model has read; None if it could not.
    """
    if not marks and not has_secrets(model):
        return []
    texts = [*texts_of_secrets(value), *marked_texts(stored, marks_for(model, stored, marks))]
    return list(dict.fromkeys(texts))[: 2 * MAX_SECRETS]


def texts_of_secrets(value: Any) -> list[str]:
    """Return the texts and numbers in the secrets of a validated value: those that nobody but a handler may see."""
    found: list[str] = []

    def of_secret(secret: Any) -> str:
        found.extend(texts_of_secret(secret))
        return REDACTED

    # Nothing else has to be written: bytes of other fields may be no text.
    _as_json(value, of_secret, lambda _: None)
    return found


def declared_json(holder: Any, name: str) -> Any:
    """Return the value of a field as the serializer of its model writes it."""
    written = type(holder).__pydantic_serializer__.to_python(holder, mode="json", round_trip=True, include={name})
    return written[name]


# Reading what is stored.


def read(model: type[_M], stored: bytes) -> _M:
    """Return stored JSON as its model: strictly if it can be read so, else without the fields that are unknown here.

    :raises ModelMismatch: if this version of the model cannot read it, whatever its validators raise.
    """
    try:
        try:
            return validated(model, stored)
        except ValidationError as refusal:
            return _read_tolerantly(model, stored, refusal)
    except ValidationError as error:
        raise mismatch_of(error, stored, model) from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise failure_of_code(error, model, stored) from error


def validated(model: type[_M], data: bytes, *, tolerant: bool = False) -> _M:
    """Return JSON as its model; what the model or code of its users raises passes.

    :param tolerant: ignore the fields that are unknown here.
    """
    # The names of fields count beside their aliases: a field may get an alias after jobs have been stored.
    return model.model_validate_json(data, by_alias=True, by_name=True, extra="ignore" if tolerant else None)


def _read_tolerantly(model: type[_M], stored: bytes, refusal: ValidationError) -> _M:
    unknown = [fault["loc"] for fault in refusal.errors(include_url=False) if fault["type"] == "extra_forbidden"]
    if not unknown or not keeps_unknown_fields(model):
        return validated(model, stored, tolerant=True)
    # To ignore all unknown fields would empty the models that keep theirs.
    value = msgspec.json.decode(stored)
    for location in unknown:
        _remove(value, place(location, value))
    return validated(model, msgspec.json.encode(value))


@cache
def keeps_unknown_fields(model: type[BaseModel]) -> bool:
    """Return whether the model, or one below it, keeps fields that it does not know (``extra="allow"``)."""
    return any(
        node.get("extra_behavior") == "allow" or (node.get("config") or {}).get("extra_fields_behavior") == "allow"
        for node, _ in parts_of(model)
    )


def _remove(value: Any, path: tuple[str | int, ...]) -> None:
    *parents, last = path
    for part in parents:
        value = value[part]
    if isinstance(value, dict):
        value.pop(last, None)


# A result.


def write(model: type[BaseModel], returned: Any) -> bytes:
    """Return the JSON of what a handler returned, once it has been read back as the same; ``REDACTED`` for secrets.

    :raises ModelMismatch: if it does not fit the result model, or does not read back.
    """
    try:
        result = model.model_validate({} if returned is None and not model.model_fields else returned)
    except ValidationError as error:
        raise _mismatch(error, returned if isinstance(returned, dict | list) else _NOWHERE, model) from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise failure_of_code(error) from error
    try:
        return _read_back(model, result, by_alias=True)
    except ModelMismatch as refused:
        try:
            # Written under its own names where serialization has other aliases than validation.
            return _read_back(model, result, by_alias=False)
        except ModelMismatch:
            raise refused from None


def _read_back(model: type[BaseModel], result: BaseModel, *, by_alias: bool) -> bytes:
    stored = b""
    try:
        stored = _written(result, by_alias=by_alias)
        again = _written(validated(model, stored), by_alias=by_alias)
    except ValidationError as error:
        problem = mismatch_of(error, stored, model).faults
        raise ModelMismatch([FieldFault((), "What is stored of it could not be read back."), *problem]) from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if isinstance(error, ValueError) and "surrogate" in str(error):
            raise ModelMismatch([FieldFault((), _HALVES)]) from None
        raise failure_of_code(error) from error
    if again != stored:
        different = first_difference(msgspec.json.decode(stored), msgspec.json.decode(again))
        raise ModelMismatch([FieldFault(different, "It reads back as another value than it was stored as.")])
    return stored


def _written(result: BaseModel, *, by_alias: bool) -> bytes:
    # JSON has no infinity: a message that contained it would be unreadable.
    dumped = result.model_dump(mode="json", by_alias=by_alias, round_trip=True, warnings=False)
    if has_secrets(type(result)):
        # Nobody could read them, so they are not stored: neither where they are declared nor where code of the model,
        # such as a serializer, has put them.
        dumped = without_texts(without_places(dumped, declared_secrets(type(result), dumped)), texts_of_secrets(result))
    return to_json(_sorted(dumped), inf_nan_mode="null")


def first_difference(one: Any, other: Any) -> tuple[str | int, ...]:
    """Return the path to the first place where two JSON values differ."""
    inside: Any = ()
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        inside = one
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        inside = range(len(one))
    for key in inside:
        if one[key] != other[key]:
            return (key, *first_difference(one[key], other[key]))
    return ()


def canonical_json(model: BaseModel) -> bytes:
    """Return a model's JSON with all defaults: keys sorted, no spaces, so that equal models are equal bytes.

    :raises ValueError: for a value that JSON cannot hold, such as half of a surrogate pair.
    """
    # JSON has no infinity: a message that contained it would be unreadable.
    return to_json(_sorted(model.model_dump(mode="json", by_alias=True)), inf_nan_mode="null")


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


def numbers_not_shown(model: type[BaseModel], stored: bytes) -> list[tuple[str | int, ...]]:
    """Return the places of some numbers of a stored result that GraphQL cannot write where the model has them.

    Large results are not looked through.
    """
    if len(stored) > _MOST_READ_AGAIN or not may_have_numbers(model) or not _LONG_NUMBER.search(stored):
        return []
    try:
        return list(islice(numbers_beyond(read(model, stored)), MAX_FAULTS))
    except ModelMismatch:
        return []


# Faults, in words.


def mismatch_of(error: ValidationError, data: bytes, model: type[BaseModel]) -> ModelMismatch:
    """Return the faults that pydantic has found in this JSON, with their places in it.

    Without pydantic's links, counts and types, and without the values: those may be secret.
    """
    try:
        value: Any = msgspec.json.decode(data)
    except (ValueError, RecursionError):
        value = _NOWHERE
    return _mismatch(error, value, model)


def _mismatch(error: ValidationError, value: Any, model: type[BaseModel]) -> ModelMismatch:
    found = error.errors(include_url=False, include_input=False, include_context=False)[:MAX_FAULTS]
    faults = [(place(one["loc"], value), one["type"], one["msg"]) for one in found]
    if not has_secrets(model):
        return ModelMismatch([FieldFault(path, _sentence(kind, message)) for path, kind, message in faults])
    secret = declared_secrets(model, value)
    texts = texts_at(value, [*secret, *possible_secrets(model, value)])
    told = [FieldFault(path, _sentence(kind, hide_texts(message, texts))) for path, kind, message in faults]
    return ModelMismatch([_without_secrets(fault, secret, value) for fault in told], secret_texts=texts)


def _without_secrets(fault: FieldFault, secret: list[Keys], value: Any) -> FieldFault:
    """Return a fault that is about no part of a secret, and does not quote one that is too short to be found."""
    at = next((one for one in secret if fault.path[: len(one)] == one), None)
    if at is None:
        return fault
    is_quoted = any(text in fault.message for text in texts_at(value, [at]))
    return FieldFault(at, _UNSAID if is_quoted else fault.message)


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
            value = value[part] if part < len(value) else _NOWHERE
        elif value is not _NOWHERE:
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


def failure_of_code(error: BaseException, model: type[BaseModel] | None = None, data: bytes = b"") -> ModelMismatch:
    """Return the fault that stands for whatever code of a model has raised; none of its text is in it."""
    texts: list[str] = []
    if model is not None and has_secrets(model):
        with suppress(ValueError, RecursionError):
            value = msgspec.json.decode(data)
            texts = texts_at(value, [*declared_secrets(model, value), *possible_secrets(model, value)])
    return ModelMismatch(
        [FieldFault((), f"The model's own code failed with {type(error).__name__}.")], error, secret_texts=texts
    )
