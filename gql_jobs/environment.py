"""The environment that settings come from: variables, a file ``.env`` below them, and files that hold one value.

Names are taken in any case. A name with the prefix that is no setting is a mistake, and is answered with the nearest
one. ``GQL_JOBS_<NAME>_FILE`` is the path of a file with the value of ``GQL_JOBS_<NAME>``, as secrets are mounted.
"""

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from dotenv import dotenv_values

PREFIX = "GQL_JOBS_"
ENV_FILE = ".env"
"""In the current folder; the environment counts more."""
MAX_SHOWN_LENGTH = 100
"""Characters of a refused value or name that are shown."""
MAX_FILE_BYTES = 1 << 16
"""Bytes that a file with the value of a setting may have."""

_FILE = "_FILE"
_NO_SETTINGS = frozenset(
    {
        *("GQL_JOBS_PARENT_PIPE", "GQL_JOBS_CHAOS_RUNS"),
        *("GQL_JOBS_URL", "GQL_JOBS_URL_FILE", "GQL_JOBS_TOKEN", "GQL_JOBS_TOKEN_FILE"),
    }
)
"""Variables with the prefix that are none of the settings: a parent's for its children, and those of clients."""
_OF_KUBERNETES = re.compile(r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$")
"""Variables that Kubernetes sets for each Service, so also for one that is called ``gql-jobs`` or ``gql-jobs-api``."""
_LIKE_PREFIX = re.compile(r"(?:G|GRAPH)QL_?JOBS?_+(.+)")
"""A variable that somebody may have meant to have the prefix."""
_ADDRESS_OF_KUBERNETES = re.compile(r"(tcp|udp|sctp)://")
"""How the value of its variable ``…_PORT`` begins."""


def unknown_settings(names: Iterable[str]) -> list[str]:
    """Return a sentence for each variable with the prefix that neither is a setting nor names the file of one.

    So for those that only have the prefix misspelled: a process would go on without what they were to set.

    :param names: of all settings, in upper case and without the prefix.
    """
    known = set(names)
    found = dict.fromkeys(
        sentence for variables in (os.environ, _env_file()) for sentence in _unknown_among(variables, known)
    )
    return list(found)


def _unknown_among(variables: Mapping[str, str | None], known: set[str]) -> Iterator[str]:
    for variable, value in variables.items():
        name = variable.upper().removeprefix(PREFIX)
        if not variable.upper().startswith(PREFIX):
            meant = _LIKE_PREFIX.fullmatch(variable.upper())
            # Only if the rest is a setting to the letter: others may have variables of such names.
            if meant is not None and meant[1].removesuffix(_FILE) in known:
                yield f"{repr(variable)[1:-1]} is no setting; did you mean {PREFIX}{meant[1]}?"
            continue
        if PREFIX + name in _NO_SETTINGS:
            continue
        if name in known or name.removesuffix(_FILE) in known:
            continue
        if _OF_KUBERNETES.search(variable) or (name.endswith("PORT") and _ADDRESS_OF_KUBERNETES.match(value or "")):
            continue
        nearest = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {PREFIX}{nearest[0]}?" if nearest else "docs/settings.md lists all there are."
        yield f"{repr(variable[:MAX_SHOWN_LENGTH])[1:-1]} is no setting; {hint}"


def variables_and_file() -> tuple[dict[str, str], dict[str, str]]:
    """Return what is given with the prefix in the environment, and in the file ``.env``, which counts less.

    The names are in upper case and without the prefix. What the environment gives in either way, ``NAME`` or
    ``NAME_FILE``, is left out of the second.
    """
    environment, below = _with_prefix(os.environ), _with_prefix(_env_file())
    given = {name.removesuffix(_FILE) for name in environment} | environment.keys()
    return environment, {name: value for name, value in below.items() if not {name, name.removesuffix(_FILE)} & given}


def values_of_files(names: Iterable[str], given: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return the values of those settings that are in files, by name, and what is wrong, a sentence for each problem.

    One line end at the end of a file is no part of its value. No problem shows anything of what is in a file.

    :param names: of all settings, in upper case and without the prefix.
    :param given: one of ``variables_and_file``.
    """
    values, problems = {}, []
    for name in names:
        path = given.get(name + _FILE)
        if path is None:
            continue
        variable = PREFIX + name
        if name in given:
            problems.append(f"{variable} and {variable}_FILE are both given; only one of them may be.")
            continue
        try:
            values[name] = _read(Path(path))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            problems.append(f"{variable}_FILE: the file cannot be read: {reason}.")
    return values, problems


def with_variables(variables: Mapping[str, str], others: Mapping[str, str]) -> dict[str, str]:
    """Return an environment for a child: ``variables`` with ``others``, which count also for what was in a file."""
    replaced = {name + _FILE for name in others if name.startswith(PREFIX)}
    return {**{name: value for name, value in variables.items() if name.upper() not in replaced}, **others}


def is_from_file(name: str) -> bool:
    """Return whether a setting is given by a file, so that its value is not to be shown.

    :param name: of the setting, in upper case and without the prefix.
    """
    return any(name + _FILE in given for given in variables_and_file())


def _read(path: Path) -> str:
    with path.open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"it has more than {MAX_FILE_BYTES} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise ValueError("it is no text in UTF-8") from None
    if "\0" in text:
        raise ValueError("it has a zero byte")
    return text.removesuffix("\n").removesuffix("\r")


def _with_prefix(variables: Mapping[str, str | None]) -> dict[str, str]:
    return {
        variable.upper().removeprefix(PREFIX): value
        for variable, value in variables.items()
        if value is not None and variable.upper().startswith(PREFIX)
    }


def _env_file() -> dict[str, str | None]:
    return dotenv_values(ENV_FILE)
