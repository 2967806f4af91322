"""The command ``gql-jobs``: reads options and the environment, then runs the part that was asked for.

Each command imports its part itself, so that a worker's machine needs no libraries of the API and the reverse. Every
foreseeable failure is reported as a sentence, never as a traceback.
"""

import asyncio
import difflib
import importlib.util
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar, get_args

import click
from pydantic import ValidationError
from pydantic_settings import SettingsError

from gql_jobs.jetstream.server import EmbeddedServerError
from gql_jobs.jobs.errors import GqlJobsError
from gql_jobs.jobs.installed_types import NONE, bundled_types, missing_modules
from gql_jobs.jobs.payload_codec import load_codec
from gql_jobs.jobs.registry import Registry, install_advice, load_job_types
from gql_jobs.logs import configure_logging, redact
from gql_jobs.processes.children import StartFailed
from gql_jobs.processes.event_loop import raise_file_limit
from gql_jobs.processes.listening import CannotListen, is_loopback
from gql_jobs.processes.lock import FolderInUse, keep_private
from gql_jobs.processes.parent import CANNOT_START, stop_with_parent
from gql_jobs.processes.siblings import Joins, run_apis, run_workers
from gql_jobs.settings import Settings, setting_problems
from gql_jobs.terminal.commands import COMMANDS

_EXPLAINED = (SettingsError, GqlJobsError, FolderInUse, EmbeddedServerError, CannotListen, StartFailed)
"""Failures whose message is a sentence for a person."""
_PORT = click.IntRange(0, 65535)
_PROCESSES = click.IntRange(1, 64)
_DURATION = re.compile(r"(\d{1,10})([smhdw])")
_LONGEST_LIFE = 100 * 366 * 86_400
"""Seconds for which a key may be made, at most."""
_Command = TypeVar("_Command", bound=Callable[..., Any])


def _imports(command: _Command) -> _Command:
    return click.option(
        "--import", "imports", multiple=True, metavar="MODULE", help="A module that registers job types. Repeatable."
    )(command)


def _data_dir(command: _Command) -> _Command:
    return click.option(
        "--data-dir", type=click.Path(file_okay=False, path_type=Path), help="Default: .gql-jobs in this folder."
    )(command)


class CannotStart(click.ClickException):
    """A command cannot start for its settings, arguments, port, folder or server. Exits with code ``CANNOT_START``."""

    exit_code = CANNOT_START

    def __init__(self, message: str) -> None:
        super().__init__(redact(message))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="gql-jobs")
def cli() -> None:
    """Background jobs over one GraphQL API. Settings come from the environment (GQL_JOBS_…)."""


for _client in COMMANDS:
    cli.add_command(_client)


@cli.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=_PORT, default=4222, show_default=True, help="0 takes a free one.")
@click.option("--monitor-port", type=_PORT, help="Of its monitoring, on loopback; 0 takes a free one. Default: none.")
@_data_dir
def nats(*, host: str, port: int, monitor_port: int | None, data_dir: Path | None) -> None:
    """Run the embedded nats-server alone."""
    with _sentences():
        from gql_jobs.dev.nats import run_nats  # noqa: PLC0415

        settings = _settings(data_dir=data_dir)
        _prepare(settings)
        sys.exit(asyncio.run(run_nats(settings, host, port, monitor_port)))


@cli.command(short_help="Run the GraphQL API.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=_PORT, default=8000, show_default=True, help="0 takes a free one.")
@click.option("--processes", type=_PROCESSES, help="Processes that share the port. Default: 1.")
@click.option("--joins", type=click.Choice(get_args(Joins)), hidden=True, help="Share the port of our parent.")
@_data_dir
@_imports
def api(
    *,
    host: str,
    port: int,
    processes: int | None,
    joins: Joins | None,
    data_dir: Path | None,
    imports: tuple[str, ...],
) -> None:
    """Run the GraphQL API; it needs a NATS server (GQL_JOBS_NATS_URL, or one on this machine)."""
    with _sentences():
        settings = _settings(data_dir=data_dir, api_processes=processes)
        _check_reach(settings, host)
        _job_types(settings, imports)
        _check_codec(settings)
        has_parent = _prepare(settings)
        if settings.api_processes > 1:
            arguments = ["--data-dir", str(settings.data_dir), *_import_options(imports)]
            sys.exit(asyncio.run(run_apis(settings, host, port, arguments)))
        from gql_jobs.web.server import serve  # noqa: PLC0415

        announce = joins == "at-once" if joins else not has_parent
        serve(settings, imports, host, port, announce=announce, joins=joins)


@cli.command("worker", short_help="Run a worker.")
@click.option("--queues", metavar="A,B", help="Also of earlier versions. Default: those of all job types.")
@click.option("--concurrency", type=click.IntRange(1, 1000), help="Jobs at a time, in each process.")
@click.option("--processes", type=_PROCESSES, help="Worker processes. Default: 1.")
@_imports
def run_worker(*, queues: str | None, concurrency: int | None, processes: int | None, imports: tuple[str, ...]) -> None:
    """Run a worker; it needs a NATS server (GQL_JOBS_NATS_URL, or one on this machine)."""
    with _sentences():
        settings = _settings(worker_processes=processes)
        _job_types(settings, imports)
        _check_codec(settings)
        arguments = [] if queues is None else ["--queues", queues]
        arguments += [] if concurrency is None else ["--concurrency", str(concurrency)]
        command = [sys.executable, "-P", "-m", "gql_jobs_worker", *arguments, *_import_options(imports)]
        if settings.worker_processes > 1:
            _prepare(settings)
            sys.exit(asyncio.run(run_workers(settings, command)))
    # Replaces this process, so that signals reach the worker itself.
    os.execv(command[0], command)  # noqa: S606


@cli.command(short_help="Run everything on this machine.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=_PORT, default=8000, show_default=True, help="0 takes a free one.")
@_data_dir
@click.option(
    "--concurrency", "--workers", "concurrency", type=click.IntRange(1, 1000), help="Jobs at a time. Default: 3."
)
@click.option("--nats-port", type=_PORT, default=0, show_default=True, help="0 takes a free one.")
@click.option("--monitor-port", type=_PORT, help="Of NATS. Default: 8222, or a free one where that is taken.")
@click.option("--reload", is_flag=True, help="Restart the worker, and if need be the API, when a Python file changes.")
@_imports
def dev(
    *,
    host: str,
    port: int,
    data_dir: Path | None,
    concurrency: int | None,
    nats_port: int,
    monitor_port: int | None,
    reload: bool,
    imports: tuple[str, ...],
) -> None:
    """Run everything on this machine: nats-server, API, workers and a mailbox that catches all e-mails."""
    with _sentences():
        _require("aiosmtpd", *(["watchfiles"] if reload else []))
        from gql_jobs.dev.supervisor import Options, run_dev  # noqa: PLC0415

        settings = _with_runnable_types(_settings(data_dir=data_dir, num_workers=concurrency))
        _check_reach(settings, host)
        _job_types(settings, imports)
        _prepare(settings)
        sys.exit(asyncio.run(run_dev(settings, Options(host, port, nats_port, monitor_port, imports, reload))))


@cli.command(short_help="Run the development mailbox.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--smtp-port", type=_PORT, default=1025, show_default=True, help="0 takes a free one.")
@click.option("--http-port", type=_PORT, default=8025, show_default=True, help="0 takes a free one.")
@_data_dir
def mailbox(*, host: str, smtp_port: int, http_port: int, data_dir: Path | None) -> None:
    """Run the development mailbox alone: SMTP that delivers nowhere, and a page that shows what came."""
    with _sentences():
        _require("aiosmtpd")
        from gql_jobs.dev.mailbox import run_mailbox  # noqa: PLC0415

        settings = _settings(data_dir=data_dir)
        _prepare(settings)
        run_mailbox(host, smtp_port, http_port, settings.data_dir)


@cli.command(short_help="Move jobs from a database's outbox into the log.")
@click.option(
    "--database", metavar="URL", help="With the outbox: postgresql://…, sqlite:///… Better GQL_JOBS_OUTBOX_DATABASE."
)
@click.option(
    "--url", metavar="URL", help="Of the API, or nats://… Default: GQL_JOBS_URL, else the dev that runs here."
)
@click.option("--token", help="A key or token; better GQL_JOBS_TOKEN or GQL_JOBS_TOKEN_FILE, which ps shows nobody.")
@click.option("--once", is_flag=True, help="Move what is due, and end; exit 1 if rows still wait.")
@click.option("--create-table", is_flag=True, help="Make the table, and end.")
@click.option("--set-aside", is_flag=True, help="List the rows that were given up, and why, and end.")
@click.option("--send-again", type=int, multiple=True, metavar="ROW", help="Send one of these again. Repeatable.")
@_imports
def outbox(
    *,
    database: str | None,
    url: str | None,
    token: str | None,
    once: bool,
    create_table: bool,
    set_aside: bool,
    send_again: tuple[int, ...],
    imports: tuple[str, ...],
) -> None:
    """Move jobs that were created in transactions of a database into the log, each once, until Ctrl-C.

    Several may run on one database. docs/outbox.md says what becomes of jobs that are refused.
    """
    with _sentences():
        try:
            from gql_jobs.outbox import process  # noqa: PLC0415
        except ModuleNotFoundError as error:
            if error.name is None or error.name.startswith("gql_jobs"):
                raise
            raise CannotStart(f"{error.name} is not installed: run pip install 'gql-jobs[outbox,client]'.") from error

        settings = _settings(outbox_database=database)
        _prepare(settings)
        try:
            with process.opened_database(settings) as opened:
                if create_table:
                    click.echo(process.create_table(opened), err=True)
                elif set_aside:
                    for line in process.set_aside_as_json(opened):
                        click.echo(line)
                elif send_again:
                    click.echo(f"{process.send_again(opened, send_again)} of them are sent again.", err=True)
                else:
                    registry = _job_types(settings, imports)
                    sys.exit(asyncio.run(process.run_outbox(settings, opened, registry, url, token, once=once)))
        except process.OutboxStopped as error:
            raise click.ClickException(redact(str(error))) from error
        except ValueError as error:
            raise CannotStart(str(error)) from error


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of sentences.")
@_data_dir
@_imports
def doctor(*, as_json: bool, data_dir: Path | None, imports: tuple[str, ...]) -> None:
    """Examine streams, consumers and indexes.

    Says what is wrong and what to do about it, and changes nothing. Exit 1 if anything is wrong.
    """
    with _sentences():
        from gql_jobs.doctor.examination import as_text, examine, in_json  # noqa: PLC0415

        settings = _settings(data_dir=data_dir)
        registry = _job_types(settings, imports)
        _prepare(settings)
        findings = asyncio.run(examine(settings, registry))
    click.echo(in_json(findings) if as_json else as_text(findings))
    sys.exit(1 if findings else 0)


@cli.command()
@click.option("--check", is_flag=True, help="Compare with the file instead of printing; exit 1 if they differ.")
@click.option("--file", type=click.Path(dir_okay=False, path_type=Path), default="schema.graphql", show_default=True)
@_imports
def schema(*, check: bool, file: Path, imports: tuple[str, ...]) -> None:
    """Print the GraphQL schema."""
    with _sentences():
        from gql_jobs.graphql.schema import sdl  # noqa: PLC0415

        text = sdl(_job_types(_settings(), imports))
        remedy = _schema_command(file, imports)
        if not check:
            click.echo(text, nl=False)
            return
        if not file.is_file():
            raise click.ClickException(f"There is no file {file}; make it with: {remedy}")
        kept = file.read_text()
    if kept != text:
        lines = (kept.splitlines(), text.splitlines())
        click.echo("\n".join(difflib.unified_diff(*lines, str(file), "gql-jobs schema", lineterm="")), err=True)
        raise click.ClickException(f"{file} is not the schema of this code; renew it with: {remedy}")


@cli.group(short_help="Make, list and revoke API keys.")
def keys() -> None:
    """Make, list and revoke API keys, and replace the key that view tokens are signed with.

    They are kept in a bucket of the NATS server (GQL_JOBS_NATS_URL, or one on this machine), which every API process
    follows: what is made or revoked counts everywhere at once.
    """


@keys.command("create")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(["read", "create", "control", "operate"]),
    multiple=True,
    required=True,
    help="What it may do. Repeatable.",
)
@click.option("--tenant", help="Whose jobs it sees and creates. Default: everybody's.")
@click.option("--queue", "queues", multiple=True, help="Only jobs of this queue. Repeatable.")
@click.option("--type", "types", multiple=True, help="Only jobs of this type. Repeatable.")
@click.option("--tag", "tags", multiple=True, help="Only jobs with this tag. Repeatable.")
@click.option("--expires", metavar="90d", help="After so many s, m, h, d or w it is no key any more. Default: never.")
@_data_dir
def keys_create(
    *,
    name: str,
    scopes: tuple[str, ...],
    tenant: str | None,
    queues: tuple[str, ...],
    types: tuple[str, ...],
    tags: tuple[str, ...],
    expires: str | None,
    data_dir: Path | None,
) -> None:
    """Make an API key and print it, once: only a hash of it is kept.

    NAME says whose it is: jobs show it as their creator, key:NAME.
    """
    with _sentences():
        from gql_jobs.access import administration  # noqa: PLC0415
        from gql_jobs.jobs.viewer import Scope, ViewLimits  # noqa: PLC0415

        settings = _settings(data_dir=data_dir)
        expires_at = None if expires is None else datetime.now(UTC) + _duration(expires)
        _prepare(settings)
        limits = ViewLimits(queues=_limit(queues), types=_limit(types), tags=_limit(tags))
        made = administration.create_key(
            settings, name, scopes=map(Scope, scopes), tenant=tenant, limits=limits, expires_at=expires_at
        )
        text, record = asyncio.run(made)
    click.echo(f"The key {record.id} is shown this once; whoever has it may do what it may. Revoke it with:", err=True)
    click.echo(f"gql-jobs keys revoke {record.id}", err=True)
    click.echo(text)


@keys.command("list")
@_data_dir
def keys_list(*, data_dir: Path | None) -> None:
    """Print a table of all API keys, those that have ended among them. Times are in UTC."""
    with _sentences():
        from gql_jobs.access import administration  # noqa: PLC0415

        settings = _settings(data_dir=data_dir)
        _prepare(settings)
        click.echo(administration.as_table(asyncio.run(administration.list_keys(settings))))


@keys.command("revoke")
@click.argument("id")
@_data_dir
def keys_revoke(*, id: str, data_dir: Path | None) -> None:  # noqa: A002 - the name of the argument
    """End an API key, with all view tokens that were made with it; or one view token.

    Operations that run under it end within a second, on every API process.
    """
    with _sentences():
        from gql_jobs.access import administration  # noqa: PLC0415

        settings = _settings(data_dir=data_dir)
        _prepare(settings)
        has_ended = asyncio.run(administration.revoke_credential(settings, id))
    if not has_ended:
        raise click.ClickException("There is no key and no view token with this id; gql-jobs keys list shows the keys.")
    click.echo(f"{id} is revoked.", err=True)


@keys.command("rotate")
@click.option("--drop-older", is_flag=True, help="End all view tokens that there are, as after a theft of the key.")
@_data_dir
def keys_rotate(*, drop_older: bool, data_dir: Path | None) -> None:
    """Sign view tokens with a new key from now on.

    Those that were signed with older ones go on until their own end.
    """
    with _sentences():
        from gql_jobs.access import administration  # noqa: PLC0415

        settings = _settings(data_dir=data_dir)
        _prepare(settings)
        made = asyncio.run(administration.rotate_signing_key(settings, drop_older=drop_older))
    click.echo(f"View tokens are signed with the key {made} from now on.", err=True)


def _limit(names: tuple[str, ...]) -> frozenset[str] | None:
    return frozenset(names) if names else None


def _duration(text: str) -> timedelta:
    """Return a duration that is written as a number and a unit.

    :raises CannotStart: if it is none, or longer than a hundred years.
    """
    match = _DURATION.fullmatch(text)
    unit = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
    seconds = int(match[1]) * unit[match[2]] if match is not None else 0
    if not 0 < seconds <= _LONGEST_LIFE:
        raise CannotStart("--expires is a number with a unit, s, m, h, d or w, such as 90d; a hundred years at most.")
    return timedelta(seconds=seconds)


def _schema_command(file: Path, imports: tuple[str, ...]) -> str:
    return shlex.join(["gql-jobs", "schema", *_import_options(imports)]) + f" > {file}"


def _import_options(imports: tuple[str, ...]) -> list[str]:
    return [f"--import={module}" for module in imports]


def _prepare(settings: Settings) -> bool:
    """Set up logging, close files to other users, and have this process end with the parent that supervises it.

    :returns: whether there is such a parent, which then prints the addresses itself.
    """
    configure_logging(settings.log_level, settings.log_format, settings.secrets)
    keep_private(settings.data_dir)
    raise_file_limit()
    return stop_with_parent()


def _check_reach(settings: Settings, host: str) -> None:
    """Have it said in so many words whether callers must say who they are, where others than this machine can call.

    :raises CannotStart: if it was not said.
    """
    if settings.auth is None and not is_loopback(host):
        raise CannotStart(
            f"Other machines can reach {host}, and nothing says who may use the API. Set GQL_JOBS_AUTH=required, and "
            "every caller needs a key or a token; or GQL_JOBS_AUTH=none, and whoever reaches it may do everything."
        )


def _settings(**given: Any) -> Settings:
    """Return the settings of the environment, overridden by those options of the command line that are given.

    :raises ValidationError, SettingsError: for values that do not fit.
    """
    return Settings(**{name: value for name, value in given.items() if value is not None})


def _job_types(settings: Settings, imports: tuple[str, ...]) -> Registry:
    """Return the job types that there are.

    :raises CannotStart: if they cannot be loaded, or there are none.
    """
    try:
        registry = load_job_types(imports, settings.types)
    except SyntaxError as error:
        where = f"{error.filename}, line {error.lineno}: " if error.filename else ""
        raise CannotStart(f"Cannot load the job types: {where}{error.msg}.") from error
    except (ImportError, ValueError) as error:
        raise CannotStart(f"Cannot load the job types: {str(error).rstrip('.')}.") from error
    if not registry.queues:
        raise CannotStart(
            "There is no job type: none is imported (--import), and GQL_JOBS_TYPES leaves out the others."
        )
    return registry


def _with_runnable_types(settings: Settings) -> Settings:
    """Return settings that offer the bundled types that can run here, unless they say themselves which are offered."""
    if "types" in settings.model_fields_set:
        return settings
    missing = {name: missing_modules(name) for name in bundled_types()}
    for name, modules in missing.items():
        if modules:
            click.echo(f"The job type {name} is not offered here: {install_advice(modules)}", err=True)
    return settings.model_copy(update={"types": tuple(name for name in missing if not missing[name]) or (NONE,)})


def _check_codec(settings: Settings) -> None:
    try:
        load_codec(settings.codec)
    except (ImportError, ValueError) as error:
        raise CannotStart(f"Cannot load the codec: {str(error).rstrip('.')}.") from error


def _require(*modules: str) -> None:
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise CannotStart(install_advice(missing))


@contextmanager
def _sentences() -> Iterator[None]:
    """Turn the foreseeable failures of a command into sentences.

    :raises CannotStart: with the sentence, instead of the failure.
    """
    try:
        yield
    except ValidationError as error:
        # Not from the error: a traceback would show the values.
        raise CannotStart("\n".join(setting_problems(error))) from None
    except UnicodeDecodeError as error:
        raise CannotStart("The file .env is not written in UTF-8.") from error
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith(("gql_jobs", "gql_jobs_worker")):
            raise
        raise CannotStart(install_advice([error.name])) from error
    except _EXPLAINED as error:
        raise CannotStart(str(error)) from error
    except OSError as error:
        raise CannotStart(f"{error.filename or 'The system'}: {error.strerror or error}.") from error


def main() -> None:
    """Run the command line, with the current folder last on Python's module path."""
    if os.getcwd() not in sys.path and "" not in sys.path:  # noqa: PTH109
        # Last: a folder of the user's that is called as one of our packages must not hide it.
        sys.path.append(os.getcwd())  # noqa: PTH109
    cli()
