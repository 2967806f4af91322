"""The commands ``job``, ``tail``, ``create``, ``list``, ``retry``, ``cancel``, ``queues`` and ``workers``.

The exit codes are those of docs/terminal.md.
"""

import functools
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gql_jobs.jobs.model import JobPriority, JobStatus

if TYPE_CHECKING:
    from gql_jobs.terminal.client import ApiClient
    from gql_jobs.terminal.output import Output

_Command = TypeVar("_Command", bound=Callable[..., Any])


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
    INTERRUPTED = 130
    """Ctrl-C."""
    CLOSED_PIPE = 141
    """Nobody reads the output any more, as behind ``| head``."""
    TERMINATED = 143
    """SIGTERM."""


_OUTCOMES = {"COMPLETED": Exit.DONE, "DEAD_LETTER": Exit.DEAD_LETTER, "CANCELLED": Exit.CANCELLED}
_MOST_PAYLOAD = 16 << 20
"""Bytes of a payload that are read from a file or from standard input."""


def _of_the_api(command: Callable[..., int]) -> Callable[..., None]:
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
        from gql_jobs.terminal.client import (  # noqa: PLC0415 - an extra that not every machine has
            ApiClient,
            BadAddress,
            Refused,
            Unreachable,
            address_and_token,
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
            with ApiClient(*address_and_token(url, token)) as api:
                return command(api, output, **given)
        except BadAddress as error:
            raise click.UsageError(str(error)) from error
        except Refused as refused:
            output.refusal(refused)
            return _code_of(refused.codes)
        except Unreachable as error:
            output.note(f"Error: {error}")
            return Exit.REFUSED
    except (KeyboardInterrupt, click.Abort):
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # Python would write the rest at its end, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.CLOSED_PIPE
    except OSError as error:
        # Of files and of the terminal: what goes wrong with connections is none of these.
        raise click.ClickException(f"{error.filename or 'The output'}: {error.strerror or error}.") from error


def _code_of(codes: frozenset[str]) -> Exit:
    return Exit.UNKNOWN if "NOT_FOUND" in codes else Exit.REFUSED


def _filtered(*statuses: str) -> Callable[[_Command], _Command]:
    """Give a command the options of a filter, as ``wanted``: what it takes for ``JobFilter``."""
    priorities = click.Choice([one.name for one in JobPriority], case_sensitive=False)
    moment = "Created {} it, as 2026-01-31T12:00Z."
    options = {
        "status": (click.Choice(statuses, case_sensitive=False), "In this state. Repeatable, as most are."),
        "type": (str, "Of this type."),
        "queue": (str, "In this queue."),
        "priority": (priorities, "Of this priority."),
        "tags": (str, "With this tag; of several with every one."),
        "ids": (str, "With this id."),
        "createdAfter": (None, moment.format("after")),
        "createdBefore": (None, moment.format("before")),
    }

    def decorate(command: _Command) -> _Command:
        @functools.wraps(command)
        def run(*args: Any, **given: Any) -> Any:
            values = {name: given.pop(f"with_{name}") for name in options}
            wanted = {name: [*value] if isinstance(value, tuple) else value for name, value in values.items() if value}
            return command(*args, wanted=wanted, **given)

        decorated: Any = run
        for name, (kind, help_text) in reversed(options.items()):
            facts = {"metavar": "MOMENT"} if kind is None else {"type": kind, "multiple": True}
            decorated = click.option(_OPTIONS.get(name, f"--{name}"), f"with_{name}", help=help_text, **facts)(
                decorated
            )
        return decorated  # type: ignore[no-any-return]

    return decorate


_OPTIONS = {"tags": "--tag", "ids": "--id", "createdAfter": "--created-after", "createdBefore": "--created-before"}
"""The options for parts of ``JobFilter`` that are called differently."""
_EVERY = tuple(one.name for one in JobStatus)


@click.command("job", short_help="Follow a job to its end.")
@click.argument("id")
@click.option("--no-follow", is_flag=True, help="Show it as it is, and end.")
@_of_the_api
def job_command(api: "ApiClient", output: "Output", *, id: str, no_follow: bool) -> int:  # noqa: A002 - the argument
    """Show a job and follow it to its end, also across a restart of the API.

    Exit code: 0 completed, 3 dead letter, 4 cancelled, 5 no such job; 6 not ended yet, with --no-follow.
    """
    if no_follow or not output.as_json:
        job = api.job(id)
        if job is None:
            output.note(f"Error: There is no job {id[:100]!r}.")
            return Exit.UNKNOWN
        if no_follow:
            output.json(job) if output.as_json else output.job(job)
            return _OUTCOMES.get(job["status"], Exit.UNFINISHED)
        shown = ("id", "type", "queue", "priority", "tags", "createdBy", "createdAt", "waiting", "rawPayload")
        output.job({name: job[name] for name in shown})
    return _follow(api, output, id)


def _follow(api: "ApiClient", output: "Output", job_id: str) -> int:
    """Write the events of a job until it has ended, then its result; return the exit code for its outcome."""
    last: dict[str, Any] = {"job": {"status": None}}
    with output.bar():
        for event in api.progress(job_id, output.note):
            last = event
            output.event(event, of_one=True)
            if event["job"]["status"] in _OUTCOMES:
                break
    if last["job"]["status"] not in _OUTCOMES:
        # The stream was cut behind the last event, and the job has expired since.
        job = api.job(job_id)
        return Exit.UNKNOWN if job is None else _OUTCOMES.get(job["status"], Exit.UNFINISHED)
    result = last["job"].get("rawResult")
    if result is not None and not output.as_json:
        output.job({"rawResult": result})
    return _OUTCOMES[last["job"]["status"]]


@click.command("tail", short_help="Write events of jobs as they happen.")
@_filtered(*_EVERY)
@click.option("--after", metavar="CURSOR", help="Go on behind this event; else with those from now on.")
@_of_the_api
def tail_command(api: "ApiClient", output: "Output", *, wanted: dict[str, Any], after: str | None) -> int:
    """Write the events of all jobs that match, until Ctrl-C, also across a restart of the API."""
    for event in api.events(wanted, after, output.note):
        output.event(event, of_one=False)
    return Exit.DONE


@click.command("list", short_help="List jobs.")
@_filtered(*_EVERY)
@click.option("--first", type=click.IntRange(0, 500), default=50, show_default=True, help="How many at most.")
@click.option("--after", metavar="CURSOR", help="Go on behind this page.")
@_of_the_api
def list_command(api: "ApiClient", output: "Output", *, wanted: dict[str, Any], first: int, after: str | None) -> int:
    """List the jobs that match, the newest first."""
    page = api.jobs(wanted, first, after)
    if output.as_json:
        for edge in page["edges"]:
            output.json({**edge["node"], "cursor": edge["cursor"]})
    else:
        output.jobs([edge["node"] for edge in page["edges"]])
    if page["pageInfo"]["hasNextPage"] and page["pageInfo"]["endCursor"]:
        output.note(f"There are more: repeat this with --after {page['pageInfo']['endCursor']}")
    return Exit.DONE


@click.command("create", short_help="Create a job.")
@click.argument("type", metavar="TYPE")
@click.argument("payload", nargs=-1, metavar="[@FILE | - | KEY=VALUE...]")
@click.option("--key", help="Idempotency key: with the same one the same job is returned.")
@click.option("--priority", type=click.Choice([one.name for one in JobPriority], case_sensitive=False))
@click.option("--run-at", metavar="MOMENT", help="Not before, as 2026-01-31T12:00Z.")
@click.option("--tag", "tags", multiple=True, help="Repeatable.")
@click.option("--max-retries", type=int, help="Attempts after the first.")
@click.option("--timeout", type=float, metavar="SECONDS", help="How long one attempt may take.")
@click.option("--follow", is_flag=True, help="Follow it to its end, as `gql-jobs job` does.")
@_of_the_api
def create_command(
    api: "ApiClient",
    output: "Output",
    *,
    type: str,  # noqa: A002 - the name of the argument
    payload: tuple[str, ...],
    key: str | None,
    priority: str | None,
    run_at: str | None,
    tags: tuple[str, ...],
    max_retries: int | None,
    timeout: float | None,
    follow: bool,
) -> int:
    """Create a job of TYPE and write its id.

    The payload is a JSON file (@payload.json), standard input (-), or pairs: key=value, a.b=value for what is nested,
    key:=value for JSON. Values of pairs are texts, unless the type's payload has something else there.
    """
    schemas = api.payload_schemas()
    if type not in schemas:
        output.note(f"Error: There is no job type {type[:100]!r}; there are: {', '.join(schemas) or 'none'}.")
        return Exit.REFUSED
    from pydantic.alias_generators import to_camel  # noqa: PLC0415

    options = {
        "idempotencyKey": key,
        "priority": priority,
        "runAt": run_at,
        "tags": [*tags] or None,
        "maxRetries": max_retries,
        "timeoutSeconds": timeout,
    }
    given = {name: value for name, value in options.items() if value is not None}
    wanted = {"payload": {to_camel(type): _payload(payload, schemas[type])}, **given}
    created = api.create(wanted)
    job = created["job"]
    if created["deduplicated"]:
        output.note("The key had made this job before.")
    if output.as_json:
        output.json(created)
    elif output.is_rich:
        output.jobs([job])
    else:
        output.line(job["id"])
    return _follow(api, output, job["id"]) if follow else Exit.DONE


def _payload(words: tuple[str, ...], schema: Any) -> dict[str, Any]:
    """Return the payload that the command line gives.

    :raises UsageError: if it cannot be read.
    """
    if len(words) == 1 and (words[0] == "-" or words[0].startswith("@")):
        return _payload_in(words[0].removeprefix("@"))
    payload: dict[str, Any] = {}
    for word in words:
        path, equals, value = word.partition("=")
        names = path.removesuffix(":").split(".")
        if not equals or not all(names):
            raise click.UsageError(f"{word[:100]!r} is no key=value, and no @file.")
        inner, within = payload, schema
        for name in names[:-1]:
            within = _member(schema, within, name)
            inner = inner.setdefault(name, {})
            if not isinstance(inner, dict):
                raise click.UsageError(f"{path[:100]!r}: {name[:100]!r} has a value already.")
        is_text = not path.endswith(":") and _takes_text(schema, _member(schema, within, names[-1]))
        inner[names[-1]] = value if is_text else _json_or_text(value, must=path.endswith(":"))
    return payload


def _payload_in(name: str) -> dict[str, Any]:
    shown = "Standard input" if name == "-" else name[:200]
    try:
        if name == "-":
            text = sys.stdin.buffer.read(_MOST_PAYLOAD + 1)
        else:
            with Path(name).open("rb") as file:
                text = file.read(_MOST_PAYLOAD + 1)
        if len(text) > _MOST_PAYLOAD:
            raise click.UsageError(f"{shown} has more than {_MOST_PAYLOAD} bytes.")
        payload = json.loads(text, parse_constant=_no_constant)
    except OSError as error:
        raise click.UsageError(f"{shown}: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"{shown} is no JSON: {error}.") from error
    if not isinstance(payload, dict):
        raise click.UsageError(f"{shown} is no JSON object.")
    return payload


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _json_or_text(value: str, *, must: bool) -> Any:
    try:
        return json.loads(value, parse_constant=_no_constant)
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
    members = _resolved(whole, part).get("properties")
    return members.get(name) if isinstance(members, Mapping) else None


def _takes_text(whole: Any, part: Any) -> bool:
    """Return whether a JSON Schema takes a text."""
    found = _resolved(whole, part)
    kinds = found.get("type")
    if kinds is not None:
        return "string" in ([kinds] if isinstance(kinds, str) else kinds)
    if "enum" in found or "const" in found:
        return any(isinstance(one, str) for one in (*found.get("enum", ()), found.get("const")))
    return any(_takes_text(whole, one) for way in ("anyOf", "oneOf", "allOf") for one in found.get(way, ()))


@click.command("retry", short_help="Run dead letters and cancelled jobs again.")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "every", is_flag=True, help="All that match the filter; DEAD_LETTER unless it names states.")
@_filtered("DEAD_LETTER", "CANCELLED")
@click.option("--yes", is_flag=True, help="Do not ask before retrying all.")
@_of_the_api
def retry_command(
    api: "ApiClient", output: "Output", *, ids: tuple[str, ...], every: bool, wanted: dict[str, Any], yes: bool
) -> int:
    """Run jobs again that are dead letters or cancelled: those with an ID, or with --all those that match."""
    if every == bool(ids):
        raise click.UsageError("Give either the ids of jobs or --all.")
    if every:
        return _retry_all(api, output, {"status": ["DEAD_LETTER"], **wanted}, yes=yes)
    if wanted or yes:
        raise click.UsageError("A filter, and --yes, are for --all.")
    return _each(output, api.retry, ids)


def _retry_all(api: "ApiClient", output: "Output", wanted: dict[str, Any], *, yes: bool) -> int:
    number = api.count(wanted)
    jobs = "1 job" if number == 1 else f"{number} jobs"
    if number and not yes:
        if not sys.stdin.isatty():
            raise click.UsageError(f"There is nobody to ask whether to retry {jobs}: say --yes.")
        if not click.confirm(f"Retry {jobs}?", err=True):
            output.note("Nothing was retried.")
            return Exit.REFUSED
    retried, remaining = 0, number
    # No more than there were: one that fails again at once must not be retried for ever.
    while remaining and retried < number:
        answer = api.retry_many(wanted)
        retried, remaining = retried + answer["retriedCount"], answer["remainingCount"]
        if not answer["retriedCount"]:
            break
    if output.as_json:
        output.json({"retriedCount": retried, "remainingCount": remaining})
    else:
        output.line(f"{retried} {'job runs' if retried == 1 else 'jobs run'} again; {remaining} more match.")
    return Exit.DONE


@click.command("cancel", short_help="Cancel jobs.")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@_of_the_api
def cancel_command(api: "ApiClient", output: "Output", *, ids: tuple[str, ...]) -> int:
    """Cancel jobs that have not ended yet."""
    return _each(output, api.cancel, ids)


def _each(output: "Output", act: Callable[[str], dict[str, Any]], ids: tuple[str, ...]) -> int:
    """Do one thing to each job, whatever becomes of the others; return the code of the first that was refused."""
    from gql_jobs.terminal.client import Refused  # noqa: PLC0415

    first_code = Exit.DONE
    for job_id in ids:
        try:
            job = act(job_id)
        except Refused as refused:
            output.refusal(refused)
            first_code = first_code or _code_of(refused.codes)
            continue
        if output.as_json:
            output.json(job)
        else:
            output.jobs([job])
    return first_code


@click.command("queues", short_help="List the queues and how many jobs stand where.")
@_of_the_api
def queues_command(api: "ApiClient", output: "Output") -> int:
    """List the queues: how many of their jobs are in each state, and how many workers serve them."""
    from gql_jobs.terminal.output import age_of  # noqa: PLC0415

    queues = api.queues()
    if output.as_json:
        for one in queues:
            output.json(one)
        return Exit.DONE
    rows = []
    for one in queues:
        counts = {each["status"]: str(each["count"]) for each in one["counts"]}
        waits = age_of(one["oldestQueuedAt"])
        rows.append((one["name"], str(one["workers"]), *(counts.get(name, "0") for name in _EVERY), waits))
        if one["unservedTypes"]:
            output.note(f"{one['name']}: no worker can run all jobs of {', '.join(one['unservedTypes'])}.")
    # Columns without a job first.
    spare = sorted(_EVERY, key=lambda name: any(row[2 + _EVERY.index(name)] != "0" for row in rows))
    output.table(("QUEUE", "WORKERS", *_EVERY, "OLDEST WAITS"), rows, tuple(spare[:-1]))
    return Exit.DONE


@click.command("workers", short_help="List the workers.")
@_of_the_api
def workers_command(api: "ApiClient", output: "Output") -> int:
    """List the workers that run at the moment."""
    from gql_jobs.terminal.output import age_of  # noqa: PLC0415

    workers = api.workers()
    if output.as_json:
        for one in workers:
            output.json(one)
        return Exit.DONE
    rows = [
        (
            *(one["id"], one["hostname"], f"{one['running']}/{one['concurrency']}", ",".join(one["queues"])),
            *(age_of(one["startedAt"]), age_of(one["lastSeenAt"])),
        )
        for one in workers
    ]
    output.table(("WORKER", "HOST", "RUNNING", "QUEUES", "UP", "HEARD OF"), rows, ("HOST", "UP"))
    for one in workers:
        for unable in one["unable"]:
            output.note(f"{one['id']} cannot run {unable['jobType']}: {unable['reason']}")
    return Exit.DONE


COMMANDS = (
    *(job_command, tail_command, create_command, list_command),
    *(retry_command, cancel_command, queues_command, workers_command),
)
"""What ``gql-jobs`` has for those who watch and steer jobs."""
