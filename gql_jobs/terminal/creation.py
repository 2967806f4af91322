"""Creating a job: of what the command line gives, of another job, and of what an editor makes of that."""

import os
import sys
from collections.abc import Callable
from typing import Any

import click
from pydantic.alias_generators import to_camel

from gql_jobs.client.errors import Unreachable
from gql_jobs.terminal.client import ApiClient, Refused
from gql_jobs.terminal.command_line import Exit, code_of
from gql_jobs.terminal.output import Output
from gql_jobs.terminal.payload_source import as_input, editable, is_file, payload_in, payload_of, redacted_in

_TAKEN_OVER = ("priority", "tags", "maxRetries", "timeoutSeconds")
"""The options of a job that one made of it has, too."""


def create_job(
    api: ApiClient,
    output: Output,
    words: tuple[str, ...],
    options: dict[str, Any],
    *,
    origin: str | None,
    edit: bool,
) -> dict[str, Any] | Exit:
    """Create a job; return ``job`` and ``deduplicated``, or the exit code where none is made.

    :param words: a type, which may be left out where there is an origin, and its payload as ``payload_of`` takes it.
    :param options: members of ``CreateJobInput``.
    :param origin: the id of the job that it is made of.
    :param edit: whether the payload goes through an editor.
    :raises UsageError: if the command line makes no sense, or leaves out what the origin does not show.
    """
    if edit and not sys.stdin.isatty() and not (os.environ.get("VISUAL") or os.environ.get("EDITOR")):
        raise click.UsageError("There is no terminal for an editor, and VISUAL and EDITOR name none that needs none.")
    types = words[:1] if words and not _is_of_payload(words[0]) else ()
    words = words[len(types) :]
    if not types and origin is None:
        raise click.UsageError("Missing argument 'TYPE'.")
    original = api.original(origin) if origin is not None else None
    if origin is not None and original is None:
        output.note(f"Error: There is no job {origin[:100]!r}.")
        return Exit.UNKNOWN
    (name,) = types or (str(original and original["type"]),)
    schemas = api.payload_schemas()
    if name not in schemas:
        output.note(f"Error: There is no job type {name[:100]!r}; there are: {', '.join(schemas) or 'none'}.")
        return Exit.REFUSED
    taken: dict[str, Any] = {}
    member, begun = to_camel(name), None
    if original is not None:
        taken = {"origin": original["id"]} | {option: original[option] for option in _TAKEN_OVER}
        begun = as_input(api, member, schemas[name], original["rawPayload"])
    payload = payload_of(words, schemas[name], begun if isinstance(begun, dict) else None)
    if original is not None and not is_file(words):
        _check_secrets(original, payload, edit=edit)

    def create(payload: dict[str, Any]) -> dict[str, Any]:
        return api.create({**taken, **options, "payload": {member: payload}})

    return _create_edited(output, payload, create) if edit else create(payload)


def key_of_options(value: str | None, policy: str | None, max_delay: int | None) -> dict[str, Any] | None:
    """Return the ``JobKeyInput`` of the options of a command line; None where there is none.

    :raises UsageError: if something is said of a key that is not given.
    """
    if value is None:
        if policy is not None or max_delay is not None:
            raise click.UsageError("--if-taken and --max-delay say more about --unique KEY, which is missing.")
        return None
    given = {"value": value, "policy": policy, "maxDelaySeconds": max_delay}
    return {name: one for name, one in given.items() if one is not None}


def _is_of_payload(word: str) -> bool:
    return "=" in word or word.startswith("@") or word == "-"


def _check_secrets(original: dict[str, Any], payload: dict[str, Any], *, edit: bool) -> None:
    """Check that nothing is left out which the API shows nobody; an editor may still add it.

    :raises UsageError: if something is.
    """
    if not isinstance(original["rawPayload"], dict):
        raise click.UsageError("The payload of that job is shown to nobody, because it may hold secrets: give a file.")
    places = redacted_in(payload)
    if places and not edit:
        given = " ".join(f"{place[:100]}=…" for place in places[:10])
        raise click.UsageError(
            f"The secrets of that job are shown to nobody; give them: {given}, or --edit, or a file."
        )


def _create_edited(
    output: Output, payload: dict[str, Any], create: Callable[[dict[str, Any]], dict[str, Any]]
) -> dict[str, Any] | Exit:
    """Create a job of what an editor makes of a payload; on a terminal it opens again where that cannot be taken."""
    begun = text = editable(payload)
    while True:
        saved = click.edit(text, extension=".json")
        text = text if saved is None else saved
        if not text.strip() or text.strip() == begun.strip():
            output.note(f"Nothing was created: the payload is {'as it was' if text.strip() else 'empty'}.")
            return Exit.REFUSED
        code = Exit.REFUSED
        try:
            return create(payload_in(text, "What the editor has left"))
        except click.UsageError as error:
            output.note(f"Error: {error.message}")
            code = Exit.USAGE
        except Refused as refused:
            output.refusal(refused)
            code = code_of(refused.codes)
        except Unreachable as error:
            output.note(f"Error: {error}")
        if not (sys.stdin.isatty() and click.confirm("Open the editor again?", default=True, err=True)):
            output.note("Nothing more is tried, and what was edited is gone.")
            return code
