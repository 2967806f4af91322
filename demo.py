"""The demo: e-mails that arrive, are greylisted, refused or sent later, watched live over GraphQL.

A client of the public API only. Starts a ``gql-jobs dev`` of its own unless ``--url`` names one, and exits with 1 if
anything differs from what it promised.
"""

import argparse
import asyncio
import contextlib
import signal
import socket
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from gql import Client, GraphQLRequest
from gql.client import AsyncClientSession, ReconnectingAsyncClientSession
from gql.transport.httpx import HTTPXAsyncTransport
from gql.transport.websockets import WebsocketsTransport
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

CREATE = """
mutation Create($input: CreateJobInput!) {
  createJob(input: $input) { deduplicated job { id status priority } }
}"""
WATCH = """
subscription Watch($id: ID!) {
  jobProgress(id: $id) {
    __typename
    job { status progress progressMessage attempt error { message } nextAttemptAt }
  }
}"""
LIST = """
query List($filter: JobFilter!) {
  jobs(filter: $filter, first: 100, orderBy: { field: CREATED_AT, direction: ASC }) {
    totalCount
    nodes { id status attempt retryCount durationMs error { message type } ... on EmailJob { payload { to subject } } }
  }
}"""
RETRY = """
mutation Retry($id: ID!) { retryJob(id: $id) { job { id status attempt } } }"""

START_WITHIN = 120.0
JOB_WITHIN = 60.0
SCHEDULED_AHEAD = timedelta(seconds=3)


@dataclass
class Mail:
    """One job of the demo and what is promised of it: how it ends, and after how many retries."""

    name: str
    to: str
    priority: str = "NORMAL"
    ends: str = "COMPLETED"
    retries: int = 0
    run_at: datetime | None = None
    id: str = ""
    seen: list[str] = field(default_factory=list)


class Broken(Exception):
    """A promise of the demo did not hold."""


def mails() -> list[Mail]:
    """What the demo creates."""
    return [
        Mail("welcome mail", "ada@example.com", "CRITICAL"),
        Mail("invoice", "grace@example.com", "HIGH"),
        Mail("newsletter", "linus@example.com", "LOW"),
        Mail("greylisted mail", "margaret@greylist.example", retries=2),
        Mail("rejected mail", "nobody@reject.example", "HIGH", ends="DEAD_LETTER"),
        Mail("mail in three seconds", "alan@example.com", run_at=datetime.now(UTC) + SCHEDULED_AHEAD),
    ]


class Screen:
    """Live bars on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        self.console = Console()
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    @contextlib.contextmanager
    def live(self) -> Iterator[None]:
        """Bars of their own for what is watched in the block."""
        note = TextColumn("{task.percentage:>3.0f}% {task.fields[note]}")
        bars = Progress(TextColumn("{task.description:<22}"), BarColumn(), note, console=self.console)
        self._bars, self._tasks = (bars if self.console.is_terminal else None), {}
        with self._bars or contextlib.nullcontext():
            yield

    def show(self, mail: Mail, event: dict[str, Any]) -> None:
        """One event of a job."""
        job = event["job"]
        note = job["progressMessage"] or ""
        if event["__typename"] == "JobFailed":
            note = f"failed, tries again: {job['error']['message']}"
        elif event["__typename"] == "JobDeadLetter":
            note = f"dead letter: {job['error']['message']}"
        if self._bars is not None:
            if mail.name not in self._tasks:
                self._tasks[mail.name] = self._bars.add_task(mail.name, total=100, note="")
            self._bars.update(self._tasks[mail.name], completed=job["progress"], note=f"{job['status']} {note}"[:70])
        else:
            print(f"{mail.name}: {event['__typename']} {job['progress']}% {note}".rstrip(), flush=True)  # noqa: T201

    def table(self, title: str, jobs: list[dict[str, Any]]) -> None:
        """Jobs as ``jobs`` lists them."""
        table = Table("to", "status", "attempts", "error", title=title, title_justify="left")
        for job in jobs:
            error = job["error"]["message"] if job["error"] else ""
            table.add_row(job["payload"]["to"], job["status"], str(job["attempt"]), error)
        self.console.print(table)


Session = AsyncClientSession | ReconnectingAsyncClientSession


async def create(session: Session, mail: Mail, tag: str) -> None:
    """Create the job; returns when it is durable."""
    payload = {"to": mail.to, "subject": f"The {mail.name}", "body": "Sent by the demo of gql-jobs."}
    variables = {"payload": {"email": payload}, "priority": mail.priority, "tags": [tag]}
    if mail.run_at is not None:
        variables["runAt"] = mail.run_at.isoformat()
    created = (await session.execute(GraphQLRequest(CREATE, variable_values={"input": variables})))["createJob"]
    mail.id = created["job"]["id"]
    expected = "SCHEDULED" if mail.run_at else "QUEUED"
    # A worker may have taken the job before this process's index told us of it.
    if created["deduplicated"] or (mail.run_at and created["job"]["status"] != expected):
        raise Broken(f"{mail.name}: created as {created}, not as {expected}.")


async def watch(session: Session, mail: Mail, screen: Screen) -> None:
    """Follow the job to its end."""
    last: dict[str, Any] = {}
    async for result in session.subscribe(GraphQLRequest(WATCH, variable_values={"id": mail.id})):
        last = result["jobProgress"]
        mail.seen.append(last["__typename"])
        screen.show(mail, last)
    if not last or last["job"]["status"] != mail.ends:
        raise Broken(f"{mail.name}: ended as {last.get('job')}, not as {mail.ends}.")
    if mail.run_at is not None and datetime.now(UTC) < mail.run_at:
        raise Broken(f"{mail.name}: was sent before its time.")


async def listed(session: Session, tag: str, status: str) -> list[dict[str, Any]]:
    """The jobs of this demo in that state."""
    variables = {"filter": {"tags": [tag], "status": [status]}}
    found = (await session.execute(GraphQLRequest(LIST, variable_values=variables)))["jobs"]
    if found["totalCount"] != len(found["nodes"]):
        raise Broken(f"totalCount is {found['totalCount']}, but {len(found['nodes'])} {status} jobs are listed.")
    nodes: list[dict[str, Any]] = found["nodes"]
    return nodes


async def check_lists(session: Session, tag: str, promised: list[Mail], screen: Screen) -> None:
    """Completed, recovered and dead-lettered jobs, compared with what was promised."""
    completed = await listed(session, tag, "COMPLETED")
    dead = await listed(session, tag, "DEAD_LETTER")
    recovered = [job for job in completed if job["retryCount"] > 0]
    screen.table("Completed", [job for job in completed if job["retryCount"] == 0])
    screen.table("Failed, then recovered", recovered)
    screen.table("Dead letters", dead)
    found = {job["id"]: (job["status"], job["retryCount"]) for job in (*completed, *dead)}
    expected = {mail.id: (mail.ends, mail.retries) for mail in promised}
    if found != expected:
        raise Broken(f"jobs lists {found}, promised was {expected}.")


async def retry_dead_letter(session: Session, mail: Mail, screen: Screen) -> None:
    """Run the dead letter again: it is refused again, with a fresh budget and its history kept."""
    retried = (await session.execute(GraphQLRequest(RETRY, variable_values={"id": mail.id})))["retryJob"]["job"]
    if retried["id"] != mail.id:
        raise Broken(f"retryJob answered with job {retried['id']}.")
    screen.console.print(f"Retrying the dead letter {mail.id}")
    await watch(session, mail, screen)


async def run(url: str) -> None:
    """The whole demo against a running server."""
    screen, tag, promised = Screen(), f"demo-{uuid.uuid4().hex[:8]}", mails()
    sockets = url.replace("http", "ws", 1)
    ws = WebsocketsTransport(url=sockets, subprotocols=[WebsocketsTransport.GRAPHQLWS_SUBPROTOCOL])
    async with Client(transport=HTTPXAsyncTransport(url=url)) as http, Client(transport=ws) as live:
        for mail in promised:
            await create(http, mail, tag)
        with screen.live():
            async with asyncio.timeout(JOB_WITHIN), asyncio.TaskGroup() as group:
                for mail in promised:
                    group.create_task(watch(live, mail, screen))
        await check_lists(http, tag, promised, screen)
        dead = next(mail for mail in promised if mail.ends == "DEAD_LETTER")
        with screen.live():
            await asyncio.wait_for(retry_dead_letter(live, dead, screen), JOB_WITHIN)
        await check_lists(http, tag, promised, screen)
    screen.console.print("Everything happened as promised.")


@contextlib.asynccontextmanager
async def dev_server() -> AsyncIterator[str]:
    """A ``gql-jobs dev`` in a folder of its own, stopped with Ctrl-C at the end; gives the URL of its API."""
    with socket.socket() as free, tempfile.TemporaryDirectory(prefix="gql-jobs-demo-") as folder:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        command = (sys.executable, "-m", "gql_jobs", "dev", "--port", str(port), "--data-dir", folder)
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        try:
            yield await asyncio.wait_for(_announced(process.stdout), START_WITHIN)
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGINT)
            # What it still prints must be read, or it could not end.
            await asyncio.wait_for(process.communicate(), 60)
    if process.returncode != 0:
        raise Broken(f"gql-jobs dev ended with {process.returncode}.")


async def _announced(lines: asyncio.StreamReader) -> str:
    """Show what ``dev`` says until its last line about where things are; the address of the API."""
    api = ""
    async for line in lines:
        print(line.decode(), end="", flush=True)  # noqa: T201
        name, _, address = line.decode().strip().partition(" ")
        api = address.strip() if name == "API" else api
        if name == "Mailbox":
            return api
    raise Broken("gql-jobs dev ended before it was ready.")


async def main() -> None:
    """Parse the arguments and run the demo."""
    parser = argparse.ArgumentParser(description="Watch e-mails being sent, retried, refused and scheduled.")
    parser.add_argument("--url", help="the GraphQL endpoint of a running gql-jobs dev")
    arguments = parser.parse_args()
    if arguments.url:
        await run(arguments.url)
        return
    async with dev_server() as url:
        await run(url)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except* (Broken, TimeoutError) as failures:
        sys.exit(f"demo: {'; '.join(str(failure) or 'timed out' for failure in failures.exceptions)}")
    except* OSError as failures:
        sys.exit(f"demo: the server cannot be reached: {failures.exceptions[0]}")
