"""A payload that a program has built as its model, and the JSON that is sent and stored of it.

Stored is what reads back as the very value: what was given, what was changed since, and what factories of defaults
drew for this object. Sent, and so what tells whether two creations ask for the same, is that without what factories
drew: a program that builds a payload again, for a repetition, has other ids and times drawn.
"""

from collections import deque
from functools import cache
from typing import Any, Literal, get_origin

from msgspec import Raw, Struct
from pydantic import BaseModel, RootModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import from_json, to_jsonable_python

from gql_jobs.jobs.model_parts import keys_of, parts_of
from gql_jobs.jobs.payloads import (
    AcceptedPayload,
    FieldFault,
    ModelMismatch,
    accept,
    check_numbers,
    compared_json,
    declared_json,
    failure_of_code,
    fields_of,
    first_difference,
    mismatch_of,
    plain_json,
    strict_json,
    texts_of_secrets,
    validated,
)


class BuiltPayload(Struct, frozen=True):
    """The JSON of a payload that was built as its model: ``stored``, and ``sent`` without what factories drew.

    ``value``: what the model has read from ``stored`` in this process; None if nobody has asked it to.
    """

    stored: Raw
    sent: Raw
    value: BaseModel | None = None


def built_payload(payload: BaseModel) -> BuiltPayload:
    """Return the JSON of a payload, which its model reads back as the same value; secrets are in it in clear.

    :raises ModelMismatch: if there is none, as for what was changed into what the model does not take, or code of the
        model fails.
    """
    if (plain := _plainly_built(payload)) is not None:
        return plain
    refusals: list[ModelMismatch] = []
    # Defaults are left to whoever reads, unless the model cannot do without: a discriminator that it was given as a
    # default. Values are written as such, unless only their field's own serializer writes what it reads back.
    for with_defaults in (False, True):
        for as_declared in (False, True):
            try:
                return _built(payload, as_declared=as_declared, with_defaults=with_defaults)
            except ModelMismatch as mismatch:
                refusals.append(mismatch)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # noqa: BLE001  # code of the model, which may fail for want of a default
                refusals.append(failure_of_code(error, type(payload)))
    raise refusals[0]


def _plainly_built(payload: BaseModel) -> BuiltPayload | None:
    """Return the same in one step, where pydantic writes a model as it is written here; None if that has to be asked.

    Batches have thousands: it takes a tenth of the time.
    """
    model = type(payload)
    if not _is_plain(model):
        return None
    try:
        stored = model.__pydantic_serializer__.to_json(payload, by_alias=True, exclude_unset=True, warnings=False)
        value = validated(model, stored)
        has, reads = payload.__dict__, value.__dict__
        # True equals 1, and is written otherwise.
        if has != reads or list(map(type, has.values())) != list(map(type, reads.values())):
            return None
    except Exception:  # noqa: BLE001  # said in full by the other way
        return None
    made = Raw(stored)
    return BuiltPayload(made, made, value)


@cache
def _is_plain(model: type[BaseModel]) -> bool:
    """Return whether a model has nothing but fields of numbers and texts, and no code or names of its own for JSON."""
    decorators = model.__pydantic_decorators__
    return (
        not (decorators.field_serializers or decorators.model_serializers or model.model_computed_fields)
        and model.__pydantic_custom_init__ is False
        and model.model_config.get("extra") != "allow"
        and all(_is_plain_field(name, info) for name, info in model.model_fields.items())
        and sum(node["type"] == "model" for node, _ in parts_of(model)) == 1
        and all(node["type"] in _PLAIN and "serialization" not in node for node, _ in parts_of(model))
    )


def _is_plain_field(name: str, info: FieldInfo) -> bool:
    written = info.serialization_alias or name
    return info.default_factory is None and not info.exclude and keys_of(name, info)[0] == written


_PLAIN = frozenset({"model", "model-fields", "model-field", "default", "nullable", "str", "int", "float", "bool"})
"""The kinds of schemas of plain models; of a literal a default is written too, because a union may need it."""


def _built(payload: BaseModel, *, as_declared: bool, with_defaults: bool) -> BuiltPayload:
    """Return the JSON of a payload as it is written in one way.

    :raises ModelMismatch: if the model does not read it back.
    """
    model, stored = type(payload), b""
    try:
        stored = strict_json(_Writer(as_declared=as_declared, with_defaults=with_defaults).json(payload))
        again = validated(model, stored)
        if again != payload and (whole := compared_json(payload)) != (read := compared_json(again)):
            different = first_difference(whole, read)
            raise ModelMismatch([FieldFault(different, "It reads back as another value than it has.")])
        sent = _Writer(as_declared=as_declared, with_defaults=with_defaults, drawn=False).json(payload)
        return BuiltPayload(Raw(stored), Raw(strict_json(sent)), again)
    except ValidationError as invalid:
        raise mismatch_of(invalid, stored, model) from None
    except UnicodeDecodeError:
        raise ModelMismatch([FieldFault((), "It has bytes that are no text.")]) from None


def accept_built(model: type[BaseModel], built: BuiltPayload) -> AcceptedPayload:
    """Return a built payload as one that may be stored.

    :raises ModelMismatch: as ``accept`` does, if it does not fit the model.
    """
    stored, sent = bytes(built.stored), bytes(built.sent)
    if _is_plain(model):
        try:
            value = validated(model, stored)
        except ValidationError as error:
            raise mismatch_of(error, stored, model) from None
        check_numbers(value)
        return AcceptedPayload(stored, sent, (), value)
    return accept(model, from_json(stored))._replace(sent=sent)


class _Writer:
    """Writes values as what JSON is made of, under the keys that their models read.

    :param as_declared: write what is no model as the serializer of its field does, not by its own type.
    :param with_defaults: write what is the same as its default, too.
    :param drawn: write what factories of defaults drew, too.
    """

    def __init__(self, *, as_declared: bool, with_defaults: bool, drawn: bool = True) -> None:
        self._as_declared = as_declared
        self._with_defaults = with_defaults
        self._drawn = drawn

    def json(self, value: Any) -> Any:
        """Return a value as it is written by its own type, and the models in it by their fields."""
        if isinstance(value, RootModel):
            return self._root(value)
        if fields_of(value) is not None:
            return self._fields(value)
        if isinstance(value, dict):
            return {
                key if isinstance(key, str) else str(to_jsonable_python(key, fallback=str)): self.json(item)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple | deque) or (isinstance(value, set | frozenset) and _has_models(value)):
            return [self.json(item) for item in value]
        return plain_json(value)

    def _root(self, holder: Any) -> Any:
        if self._as_declared and not _has_models(holder.root) and not texts_of_secrets(holder.root):
            return type(holder).__pydantic_serializer__.to_python(holder, mode="json", round_trip=True)
        return self.json(holder.root)

    def _fields(self, holder: Any) -> dict[str, Any]:
        infos: dict[str, FieldInfo] = getattr(type(holder), "__pydantic_fields__", {})
        given = getattr(holder, "model_fields_set", ())
        written = {
            field.keys[0]: self._field(holder, name, getattr(holder, name))
            for name, field in (fields_of(holder) or {}).items()
            if hasattr(holder, name)
            and (
                name in given
                or not isinstance(holder, BaseModel)
                or self._is_worth_writing(infos[name], getattr(holder, name))
            )
        }
        extras = getattr(holder, "model_extra", None) or {}
        return {**written, **{key: self.json(item) for key, item in extras.items()}}

    def _field(self, holder: Any, name: str, value: Any) -> Any:
        has_serializer = hasattr(type(holder), "__pydantic_serializer__")
        if self._as_declared and has_serializer and not _has_models(value) and not texts_of_secrets(value):
            return declared_json(holder, name)
        return self.json(value)

    def _is_worth_writing(self, info: FieldInfo, value: Any) -> bool:
        """Return whether a value that was not given is to be written."""
        if self._with_defaults or get_origin(info.annotation) is Literal:
            # A union may be told apart by it.
            return True
        if info.default_factory is None:
            return bool(value != info.default)
        if self._drawn:
            return True
        # A list that a factory has made may have been filled since.
        return bool(self._fields(value) if fields_of(value) is not None else isinstance(value, _CONTAINERS) and value)


_CONTAINERS = (list, dict, set, deque)


def _has_models(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_models, value.values()))
    if isinstance(value, list | tuple | deque | set | frozenset):
        return any(map(_has_models, value))
    return fields_of(value) is not None
