"""What all commands for a terminal share: their exit codes, a client of the API, somewhere to write, and filters.

The exit codes are those of docs/terminal.md.
"""

import functools
import os
import re
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gql_jobs.jobs.model import JobPriority, JobStatus

_Command = TypeVar("_Command", bound=Callable[..., Any])


_FROM_NOW = re.compile(r"([0-9]{1,6})(s|min|h|d)")
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86_400}


if TYPE_CHECKING:
    _TextType = click.ParamType[str]
else:
    # Generic in newer releases of click alone.
    _TextType = click.ParamType


class AheadParameter(_TextType):
    """A moment that lies ahead: as the API takes it, or from now. What is neither is the API's to refuse."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ARG002
        """Return the moment as the API takes it."""
        text = str(value)
        match = _FROM_NOW.fullmatch(text)
        if match is None:
            return text
        return (datetime.now(UTC) + timedelta(seconds=int(match[1]) * _SECONDS[match[2]])).isoformat()


MOMENT_AHEAD = AheadParameter()


class Exit(IntEnum):
    """What the exit code of a command says."""

    DONE = 0
    """What was asked for is done; of a job that was followed or looked at: it is completed."""
    REFUSED = 1
    """The API does not answer, or refuses."""
    USAGE = 2
    """The command line makes no sense."""
    DEAD_LETTER = 3
    """The job is a dead letter."""
    CANCELLED = 4
    """The job is cancelled."""
    UNKNOWN = 5
    """There is no job with this id."""
    UNFINISHED = 6
    """The job has not ended yet: only where it was looked at and not followed."""
    SOME_FAILED = 7
    """Of many jobs some were left as they were because of an unexpected error."""
    STOPPED = 8
    """Somebody else has stopped what was done to many jobs, or the key or token has ended."""
    CUT_SHORT = 9
    """The process of the API that did something to many jobs has ended, and how far it came is not known."""
    INTERRUPTED = 130
    """Ctrl-C."""
    CLOSED_PIPE = 141
    """Nobody reads the output any more, as behind ``| head``."""
    TERMINATED = 143
    """SIGTERM."""


def of_the_api(command: Callable[..., int]) -> Callable[..., None]:
    """Give a command the options of all of them, a client of the API and somewhere to write, and its exit code."""

    @click.option("--url", metavar="URL", help="Of the API. Default: GQL_JOBS_URL, else the dev that runs here.")
    @click.option(
        "--token", help="A key or token; better GQL_JOBS_TOKEN or GQL_JOBS_TOKEN_FILE, which ps shows nobody."
    )
    @click.option("--json", "as_json", is_flag=True, help="One JSON object a line, named as the API names things.")
    @functools.wraps(command)
    def run(*, url: str | None, token: str | None, as_json: bool, **given: Any) -> None:
        sys.exit(_run(command, url, token, as_json=as_json, given=given))

    return run


def _run(
    command: Callable[..., int], url: str | None, token: str | None, *, as_json: bool, given: dict[str, Any]
) -> int:
    try:
        from gql_jobs.client.address import BadAddress, address_and_token, endpoint_of  # noqa: PLC0415
        from gql_jobs.client.errors import Unreachable  # noqa: PLC0415
        from gql_jobs.terminal.client import (  # noqa: PLC0415 - an extra that not every machine has
            ApiClient,
            Refused,
        )
        from gql_jobs.terminal.output import Output  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("gql_jobs"):
            raise
        raise click.UsageError(f"{error.name} is not installed: run pip install 'gql-jobs[terminal]'.") from error
    # So that what a terminal was set to is set back.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(Exit.TERMINATED))
    try:
        output = Output(as_json=as_json)
        try:
            address, token = address_and_token(url, token)
            with ApiClient(endpoint_of(address), token) as api:
                return command(api, output, **given)
        except BadAddress as error:
            raise click.UsageError(str(error)) from error
        except Refused as refused:
            output.refusal(refused)
            return code_of(refused.codes)
        except Unreachable as error:
            output.note(f"Error: {error}")
            return Exit.REFUSED
    except (KeyboardInterrupt, click.Abort):
        # Whoever presses it twice gets the same exit code, and no traceback of Python's own end.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # Python would write the rest at its end, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.CLOSED_PIPE
    except OSError as error:
        # Of files and of the terminal: what goes wrong with connections is none of these.
        raise click.ClickException(f"{error.filename or 'The output'}: {error.strerror or error}.") from error


def code_of(codes: frozenset[str]) -> Exit:
    """Return what a refusal with these codes makes of a command."""
    return Exit.UNKNOWN if "NOT_FOUND" in codes else Exit.REFUSED


def filtered(*statuses: str) -> Callable[[_Command], _Command]:
    """Give a command the options of a filter, as ``wanted``: what it takes for ``JobFilter``.

    :param statuses: those that it may name; none if it is about one state anyway.
    """
    priorities = click.Choice([one.name for one in JobPriority], case_sensitive=False)
    moment = "Created {} it, as 2026-01-31T12:00Z."
    options: dict[str, tuple[Any, str]] = {
        "status": (click.Choice(statuses, case_sensitive=False), "In this state. Repeatable, as most are."),
        "type": (str, "Of this type."),
        "queue": (str, "In this queue."),
        "priority": (priorities, "Of this priority."),
        "tags": (str, "With this tag; of several with every one."),
        "ids": (str, "With this id."),
        "schedule": ("NAME", "Made by this schedule."),
        "key": ("KEY", "With this key, as `create --unique` gives it."),
        "concurrencyKey": ("KEY", "With this concurrency key."),
        "createdAfter": ("MOMENT", moment.format("after")),
        "createdBefore": ("MOMENT", moment.format("before")),
    }
    if not statuses:
        del options["status"]

    def decorate(command: _Command) -> _Command:
        @functools.wraps(command)
        def run(*args: Any, **given: Any) -> Any:
            values = {name: given.pop(f"with_{name}") for name in options}
            wanted = {name: [*value] if isinstance(value, tuple) else value for name, value in values.items() if value}
            return command(*args, wanted=wanted, **given)

        decorated: Any = run
        for name, (kind, help_text) in reversed(options.items()):
            # What can be given once has a word for its value, what can be repeated has a type.
            facts = {"metavar": kind} if isinstance(kind, str) else {"type": kind, "multiple": True}
            decorated = click.option(_OPTIONS.get(name, f"--{name}"), f"with_{name}", help=help_text, **facts)(
                decorated
            )
        return decorated  # type: ignore[no-any-return]

    return decorate


_OPTIONS = {
    "tags": "--tag",
    "ids": "--id",
    "key": "--unique",
    "concurrencyKey": "--concurrency-key",
    "createdAfter": "--created-after",
    "createdBefore": "--created-before",
}
"""The options for parts of ``JobFilter`` that are called differently."""
EVERY_STATE = tuple(one.name for one in JobStatus)
