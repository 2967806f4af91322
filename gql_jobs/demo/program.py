"""The demo itself: create, watch, list, open the results, retry a dead letter; every step is checked.

Starts a ``gql-jobs dev`` of its own unless it is given the address of one. Exits with 1 if anything differs from what
was promised.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import httpx
from gql.transport.exceptions import TransportError
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from gql_jobs.demo.api import Api, open_api
from gql_jobs.demo.promises import KINDS, Broken, Promise, picture_server, promises
from gql_jobs.environment import with_variables
from gql_jobs.settings import Settings, setting_problems

_START_WITHIN = 120.0
"""Seconds in which ``gql-jobs dev`` has to be ready."""
_JOBS_WITHIN = 240.0
"""Seconds in which all jobs have to end."""
WORKERS_WITHIN = 15.0
"""Seconds in which workers have to appear; one that has just been started needs a moment."""
_POLL = 0.2
"""Seconds between two queries of the workers."""
_SLOW = 0.15
"""Seconds between two chunks of a picture, so that its download can be watched."""


class Screen:
    """The output of the demo: live bars on a terminal, plain lines elsewhere, then tables."""

    def __init__(self) -> None:
        self._console = Console()
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    @contextlib.contextmanager
    def live(self) -> Iterator[None]:
        """Show progress bars for the jobs that are watched in the block, if this is a terminal."""
        note = TextColumn("{task.percentage:>3.0f}% {task.fields[note]}")
        bars = Progress(TextColumn("{task.description:<22}"), BarColumn(), note, console=self._console)
        self._bars, self._tasks = (bars if self._console.is_terminal else None), {}
        with self._bars or contextlib.nullcontext():
            yield

    def show(self, name: str, event: dict[str, Any]) -> None:
        """Show one event of a job, in its bar or as a line."""
        job = event["job"]
        note = job["progressMessage"] or ""
        if event["__typename"] == "JobFailed":
            note = f"failed, tries again: {job['error']['message']}"
        elif event["__typename"] == "JobDeadLetter":
            note = f"dead letter: {job['error']['message']}"
        if self._bars is None:
            self.line(f"{name}: {event['__typename']} {job['progress']}% {note}".rstrip())
            return
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=100, note="")
        self._bars.update(self._tasks[name], completed=job["progress"], note=f"{job['status']} {note}"[:70])

    def table(self, title: str, rows: list[tuple[str, dict[str, Any]]]) -> None:
        """Show jobs by name, as ``jobs`` lists them."""
        table = Table("job", "status", "attempts", "took", "error", title=title, title_justify="left")
        for name, job in rows:
            error = job["error"]["message"] if job["error"] else ""
            took = f"{job['durationMs']} ms" if job["durationMs"] is not None else ""
            table.add_row(name, job["status"], str(job["attempt"]), took, error)
        self._console.print(table)

    def line(self, text: str) -> None:
        """Show a line without markup or wrapping, so that links stay whole."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class Demo:
    """One run against one server.

    :param url: the GraphQL endpoint.
    :param stays: whether the server goes on when the demo ends, so that links to files on it are worth showing.
    """

    def __init__(self, api: Api, url: str, promised: list[Promise], *, stays: bool = True) -> None:
        self._api = api
        self._stays = stays
        self._origin = url.removesuffix("/graphql")
        self._promised = promised
        self._tag = f"demo-{uuid.uuid4().hex[:8]}"
        self._screen = Screen()

    async def run(self) -> None:
        """Create and watch every job, check the lists and files, and retry a dead letter.

        :raises Broken: where a promise does not hold.
        """
        await self._find_workers()
        for promise in self._promised:
            await self._create(promise)
        with self._screen.live():
            async with asyncio.timeout(_JOBS_WITHIN), asyncio.TaskGroup() as group:
                for promise in self._promised:
                    group.create_task(self._watch(promise))
        dead = [promise for promise in self._promised if promise.ends == "DEAD_LETTER"]
        if dead:
            await self._check_lists()
            await self._retry(dead[0])
        self._show(await self._check_lists())
        await self._check_files()
        self._screen.line("Everything happened as promised.")

    async def _find_workers(self) -> None:
        deadline = time.monotonic() + WORKERS_WITHIN
        while unserved := await self._api.unserved([promise.type for promise in self._promised]):
            if time.monotonic() > deadline:
                raise Broken(
                    f"No worker serves the queue {', '.join(sorted(unserved))}: start one with `gql-jobs worker` and "
                    "the environment of the server."
                )
            await asyncio.sleep(_POLL)

    async def _create(self, promise: Promise) -> None:
        created = await self._api.create(promise.input(self._tag))
        promise.id = created["job"]["id"]
        # Any other job may have been taken by a worker before the answer was made.
        early = promise.run_at is not None and created["job"]["status"] != "SCHEDULED"
        if created["deduplicated"] or early or created["job"]["priority"] != promise.priority:
            raise Broken(f"{promise.name}: created as {created}.")

    async def _watch(self, promise: Promise) -> None:
        last: dict[str, Any] = {}
        async for last in self._api.watch(promise.id):
            self._screen.show(promise.name, last)
        if not last or last["job"]["status"] != promise.ends:
            raise Broken(f"{promise.name}: ended as {last.get('job')}, not as {promise.ends}.")
        if promise.run_at is not None and datetime.now(UTC) < promise.run_at:
            raise Broken(f"{promise.name}: ran before its time.")

    async def _check_lists(self) -> list[dict[str, Any]]:
        """Return all jobs as they are listed."""
        listed = [*await self._listed("COMPLETED"), *await self._listed("DEAD_LETTER")]
        found = {job["id"]: (job["status"], job["retryCount"]) for job in listed}
        expected = {promise.id: (promise.ends, promise.retries) for promise in self._promised}
        if found != expected:
            raise Broken(f"jobs lists {found}, promised was {expected}.")
        return listed

    def _show(self, listed: list[dict[str, Any]]) -> None:
        names = {promise.id: promise.name for promise in self._promised}
        tables: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        for job in listed:
            recovered = "Failed, then recovered" if job["retryCount"] else "Completed"
            title = recovered if job["status"] == "COMPLETED" else "Dead letters"
            tables.setdefault(title, []).append((names[job["id"]], job))
        for title, rows in tables.items():
            self._screen.table(title, rows)

    async def _listed(self, status: str) -> list[dict[str, Any]]:
        found = await self._api.jobs(self._tag, status)
        nodes: list[dict[str, Any]] = found["nodes"]
        if found["totalCount"] != len(nodes):
            raise Broken(f"totalCount is {found['totalCount']}, but {len(nodes)} {status} jobs are listed.")
        return nodes

    async def _check_files(self) -> None:
        artifacts = {job["id"]: job["artifacts"] for job in await self._listed("COMPLETED")}
        for promise in self._promised:
            files = {file["name"]: file for file in artifacts.get(promise.id, [])}
            if set(files) != set(promise.files):
                raise Broken(f"{promise.name}: has the files {set(files)}, promised were {set(promise.files)}.")
            for name, begin in promise.files.items():
                content = await self._api.fetch(files[name]["url"])
                if len(content) != files[name]["sizeBytes"] or not content.startswith(begin):
                    raise Broken(f"{promise.name}: {name} is not what it should be.")
                made = f"{self._origin}{files[name]['url']}" if self._stays else f"{name}, {len(content)} bytes"
                self._screen.line(f"{promise.name:<22} {made}")

    async def _retry(self, promise: Promise) -> None:
        """Run a dead letter again: it fails again, with a fresh budget and its history kept."""
        if (await self._api.retry(promise.id))["job"]["id"] != promise.id:
            raise Broken(f"{promise.name}: another job was retried.")
        self._screen.line(f"Retrying the dead letter {promise.id} ({promise.name})")
        with self._screen.live():
            await asyncio.wait_for(self._watch(promise), _JOBS_WITHIN)


@contextlib.asynccontextmanager
async def dev_server(settings: Settings) -> AsyncIterator[str]:
    """Run a ``gql-jobs dev`` in a folder of its own until the block ends; yield its GraphQL endpoint.

    :raises Broken: if it does not become ready, or does not end with 0.
    """
    last = "Mailbox" if settings.nats_url else "Monitoring"
    with tempfile.TemporaryDirectory(prefix="gql-jobs-demo-") as folder, tempfile.TemporaryFile() as kept:
        command = (sys.executable, "-m", "gql_jobs", "dev", "--port", "0", "--data-dir", folder)
        # On a terminal its log would disturb the bars.
        log = kept if sys.stdout.isatty() else None
        # It shows all of the bundled types, whichever are offered otherwise.
        environment = with_variables(os.environ, {"GQL_JOBS_TYPES": "all"})
        process = await asyncio.create_subprocess_exec(
            *command, env=environment, stdout=asyncio.subprocess.PIPE, stderr=log, start_new_session=True
        )
        assert process.stdout is not None
        try:
            api = await asyncio.wait_for(_announced(process.stdout, last), _START_WITHIN)
            if api is None:
                kept.seek(0)
                raise Broken(f"gql-jobs dev ended before it was ready. {kept.read().decode(errors='replace')[-1000:]}")
            yield api
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            # Its remaining output has to be read, or a full pipe would keep it from ending.
            await asyncio.wait_for(process.communicate(), 60)
    if process.returncode != 0:
        raise Broken(f"gql-jobs dev ended with {process.returncode}.")


async def _announced(lines: asyncio.StreamReader, last: str) -> str | None:
    """Show what ``dev`` prints up to the line of that name; return the API's address, or None if it ends before."""
    api = ""
    async for line in lines:
        print(line.decode(), end="", flush=True)  # noqa: T201
        name, _, address = line.decode().strip().partition(" ")
        api = address.strip() if name == "API" else api
        if name == last:
            return api
    return None


async def run_demo(arguments: argparse.Namespace, settings: Settings) -> None:
    """Run the demo as the command line says.

    :param settings: what a ``gql-jobs dev`` of its own reads too.
    :raises Broken: where a promise does not hold.
    """
    kinds = (arguments.only,) if arguments.only else KINDS
    async with contextlib.AsyncExitStack() as stack:
        pictures = stack.enter_context(picture_server(_SLOW if arguments.slow else 0.0)) if "image" in kinds else ""
        url = arguments.url or await stack.enter_async_context(dev_server(settings))
        api = await stack.enter_async_context(open_api(url))
        stays = arguments.url is not None or arguments.keep
        await Demo(api, url, promises(kinds, pictures, arguments.count), stays=stays).run()
        if arguments.url is None and arguments.keep:
            await _interrupted()
    if not stays:
        print("The server is stopped, and its files are removed; --keep keeps both.", flush=True)  # noqa: T201


async def _interrupted() -> None:
    """Say that the demo's own server goes on, and wait for Ctrl-C or SIGTERM."""
    stopped, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    print("The server goes on until Ctrl-C, which removes its files too.", flush=True)  # noqa: T201
    await stopped.wait()


def _endpoint(text: str) -> str:
    """Return the GraphQL endpoint of a server that may be named without it."""
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise argparse.ArgumentTypeError(f"{text!r} is no address such as http://127.0.0.1:8000")
    return parts._replace(path=parts.path.rstrip("/") or "/graphql").geturl()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("it must be 1 or more")
    return number


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="demo", description="Watch e-mails, pictures and reports being made.")
    parser.add_argument("--url", type=_endpoint, help="a running server, such as http://127.0.0.1:8000")
    parser.add_argument("--only", choices=KINDS, help="one kind of job only")
    parser.add_argument("--count", type=_positive, default=1, help="how many of the plain jobs")
    parser.add_argument("--keep", action="store_true", help="keep the server and its files until Ctrl-C")
    parser.add_argument("--slow", action="store_true", help="take time, to watch")
    return parser


def run_command() -> None:
    """Run the demo; exit with 1 if a promise does not hold or the server does not answer as it should."""
    arguments = parser().parse_args()
    try:
        settings = Settings()
    except ValidationError as error:
        sys.exit("\n".join(f"demo: {problem}" for problem in setting_problems(error)))
    try:
        asyncio.run(run_demo(arguments, settings))
    except* (Broken, TimeoutError) as failures:
        sys.exit(f"demo: {'; '.join(str(failure) or 'timed out' for failure in failures.exceptions)}")
    except* (OSError, httpx.HTTPError, TransportError) as failures:
        sys.exit(f"demo: the server does not answer as it should: {failures.exceptions[0]}")
