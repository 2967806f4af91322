"""Where the payload of a new job comes from: pairs, a file, another job, an editor.

Numbers stay as they were written, whatever their size.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from gql_jobs.jobs.secret_fields import REDACTED
from gql_jobs.terminal.client import ApiClient, Refused, WrittenNumber, exact_json, json_text

_MOST_PAYLOAD = 16 << 20
"""Bytes of a payload that are read from a file or from standard input."""


def payload_of(words: tuple[str, ...], schema: Any, original: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the payload that the command line gives.

    :param original: what pairs change; a file takes its place.
    :raises UsageError: if it cannot be read.
    """
    if is_file(words):
        return _payload_in(words[0].removeprefix("@"))
    payload = original or {}
    for word in words:
        path, equals, value = word.partition("=")
        names = path.removesuffix(":").split(".")
        if not equals or not all(names):
            raise click.UsageError(f"{word[:100]!r} is no key=value, and no @file.")
        inner, within = payload, schema
        for name in names[:-1]:
            within = _member(schema, within, name)
            if inner.get(name) is None:
                inner[name] = {}
            inner = inner[name]
            if not isinstance(inner, dict):
                raise click.UsageError(f"{path[:100]!r}: {name[:100]!r} has a value already.")
        is_text = not path.endswith(":") and _takes_text(schema, _member(schema, within, names[-1]))
        inner[names[-1]] = value if is_text else _json_or_text(value, must=path.endswith(":"))
    return payload


def is_file(words: tuple[str, ...]) -> bool:
    """Return whether a command line gives the whole payload in a file or in standard input."""
    return len(words) == 1 and (words[0] == "-" or words[0].startswith("@"))


def _payload_in(name: str) -> dict[str, Any]:
    return payload_in(*text_in(name))


def text_in(name: str) -> tuple[bytes, str]:
    """Return what a file has, or standard input for ``-``, and how that is called.

    :raises UsageError: if it cannot be read, or is too long.
    """
    shown = "Standard input" if name == "-" else name[:200]
    try:
        if name == "-":
            text = sys.stdin.buffer.read(_MOST_PAYLOAD + 1)
        else:
            with Path(name).open("rb") as file:
                text = file.read(_MOST_PAYLOAD + 1)
        if len(text) > _MOST_PAYLOAD:
            raise click.UsageError(f"{shown} has more than {_MOST_PAYLOAD} bytes.")
    except OSError as error:
        raise click.UsageError(f"{shown}: {error.strerror or error}.") from error
    return text, shown


def _json_or_text(value: str, *, must: bool) -> Any:
    try:
        return exact_json(value)
    except (ValueError, RecursionError) as error:
        if must:
            raise click.UsageError(f"{value[:100]!r} is no JSON: {error}.") from error
        return value


def _resolved(whole: Any, part: Any) -> Mapping[str, Any]:
    """Return a part of a JSON Schema, or what it refers to."""
    while isinstance(part, Mapping) and isinstance(name := part.get("$ref"), str):
        definitions = whole.get("$defs", {})
        part = definitions.get(name.rpartition("/")[2])
    return part if isinstance(part, Mapping) else {}


def _member(whole: Any, part: Any, name: str) -> Any:
    """Return a member of a part of a JSON Schema, or of what that may be; None where it has none of this name."""
    found = _resolved(whole, part)
    members = found.get("properties")
    if isinstance(members, Mapping):
        return members.get(name)
    # The API names the choices of a union after what tells them apart.
    tags = found.get("discriminator", {}).get("mapping", {})
    for tag, reference in tags.items():
        if _letters(tag) == _letters(name):
            return {"$ref": reference}
    several = (_member(whole, one, name) for way in ("anyOf", "oneOf") for one in found.get(way, ()))
    return next((one for one in several if one is not None), None)


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text)).lower()


def _takes_text(whole: Any, part: Any) -> bool:
    """Return whether a JSON Schema takes a text."""
    found = _resolved(whole, part)
    kinds = found.get("type")
    if kinds is not None:
        return "string" in ([kinds] if isinstance(kinds, str) else kinds)
    if "enum" in found or "const" in found:
        return any(isinstance(one, str) for one in (*found.get("enum", ()), found.get("const")))
    return any(_takes_text(whole, one) for way in ("anyOf", "oneOf", "allOf") for one in found.get(way, ()))


def as_input(api: ApiClient, type_name: str, schema: Any, payload: Any) -> Any:
    """Return a stored payload under the names that the API takes: its inputs name members and enum values in their way.

    :param type_name: that of the member of ``JobPayloadInput``.
    :param schema: the JSON Schema of the type's payload, which names things as they are stored.
    """
    try:
        types = api.input_types()
    except Refused:
        return payload  # an API that does not describe itself takes most payloads as they are stored
    return _Inputs(schema, types).translated(schema, _type_of(types.get("JobPayloadInput"), type_name), payload)


class _Inputs:
    """What the parts of a JSON Schema are called in the API's inputs."""

    def __init__(self, schema: Any, types: Mapping[str, Mapping[str, Any]]) -> None:
        self._schema = schema
        self._types = types

    def translated(self, part: Any, reference: Any, value: Any) -> Any:
        """Return a value of a part of the schema as the API takes it.

        :param reference: the API's type for it, as introspection has types; None where that is not known.
        """
        while reference is not None and reference["kind"] == "NON_NULL":
            reference = reference.get("ofType")
        if reference is None or value is None:
            return value
        part = self._only(part)
        if isinstance(value, list) and reference["kind"] == "LIST":
            return [self.translated(part.get("items"), reference.get("ofType"), item) for item in value]
        named = self._types.get(reference.get("name") or "", {})
        choices = self._choices(part)
        if isinstance(value, dict) and len(choices) == len(named.get("inputFields") or ()) > 1:
            return self._chosen(choices, named["inputFields"], value)
        if isinstance(value, dict) and named.get("inputFields") and isinstance(part.get("properties"), Mapping):
            return {
                found["name"] if found else name: self.translated(
                    part["properties"].get(name), found and found["type"], item
                )
                for name, item in value.items()
                for found in [_input_of(name, [*part["properties"]], named["inputFields"])]
            }
        if named.get("enumValues"):
            return _name_of(value, part, [one["name"] for one in named["enumValues"]])
        return value

    def _choices(self, part: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """Return the choices of a union that is told apart by values, those of unions in it among them."""
        several = [self._only(one) for one in part.get("oneOf", ())] if "discriminator" in part else []
        return [choice for one in several for choice in (self._choices(one) or [one])]

    def _chosen(self, choices: list[Mapping[str, Any]], members: list[dict[str, Any]], value: dict[str, Any]) -> Any:
        """Return a value of a union under its member of the @oneOf input: schema and API have them in one order."""
        for choice, member in zip(choices, members, strict=True):
            told = {name: one for name, one in choice.get("properties", {}).items() if "const" in one or "enum" in one}
            if any(name in value for name in told) and all(
                json_text(value[name]) in map(json_text, one.get("enum") or [one.get("const")])
                for name, one in told.items()
                if name in value
            ):
                return {member["name"]: self.translated(choice, member["type"], value)}
        return value

    def _only(self, part: Any) -> Mapping[str, Any]:
        """Return a part of the schema, or the only thing that it may be besides null."""
        found = _resolved(self._schema, part)
        ways = [_resolved(self._schema, one) for way in ("anyOf", "oneOf", "allOf") for one in found.get(way, ())]
        several = [one for one in ways if one.get("type") != "null"]
        return self._only(several[0]) if len(several) == 1 else found


def _type_of(named: Mapping[str, Any] | None, member: str) -> Any:
    fields = (named or {}).get("inputFields") or ()
    return next((one["type"] for one in fields if one["name"] == member), None)


def _input_of(name: str, names: list[str], inputs: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the member of an input for one of the names of the schema, by its name or else by its place."""
    for one in inputs:
        if one["name"] == name:
            return one
    return inputs[names.index(name)] if name in names and len(names) == len(inputs) else None


def _name_of(value: Any, part: Mapping[str, Any], names: list[str]) -> Any:
    """Return the name of an enum's value: schema and API have them in one order."""
    values = [one for one in (part.get("enum") or [part.get("const")]) if one is not None]
    if value in names or len(values) != len(names):
        return value
    texts = [json_text(one) for one in values]
    return names[texts.index(json_text(value))] if json_text(value) in texts else value


def redacted_in(value: Any, path: str = "") -> list[str]:
    """Return where in a payload there is what is shown in the place of a secret."""
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = {str(place): item for place, item in enumerate(value)}.items()
    else:
        return [path] if value == REDACTED and not isinstance(value, WrittenNumber) else []
    return [found for name, item in inner for found in redacted_in(item, f"{path}.{name}".removeprefix("."))]


def editable(payload: Any) -> bytes:
    """Return a payload as a text for an editor."""
    from msgspec import json  # noqa: PLC0415 - needed here alone

    text = json_text(payload, ascii_only=False).encode(errors="backslashreplace")
    return json.format(text, indent=2) + b"\n"


def payload_in(text: bytes, shown: str) -> dict[str, Any]:
    """Return the payload that a text is.

    :param shown: what the text is called.
    :raises UsageError: if it is none.
    """
    try:
        payload = exact_json(text)
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"{shown} is no JSON: {error}.") from error
    if not isinstance(payload, dict):
        raise click.UsageError(f"{shown} is no JSON object.")
    return payload
