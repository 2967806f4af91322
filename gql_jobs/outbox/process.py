"""What ``gql-jobs outbox`` does: a relay that runs until a signal, or once; the table; rows that are set aside."""

import asyncio
import logging
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import DBAPIError

from gql_jobs import clock
from gql_jobs.client.async_client import transport_to
from gql_jobs.jobs.registry import Registry
from gql_jobs.metrics import counter, single
from gql_jobs.outbox.database import Backlog, OutboxDatabase
from gql_jobs.outbox.relay import OutboxStopped, Relay, sentence_of
from gql_jobs.outbox.rows import TABLE_NAME
from gql_jobs.processes.metrics_port import metrics_served
from gql_jobs.settings import Settings

log = logging.getLogger(__name__)

_PATIENCE = 5.0
"""Seconds for which a way to the server tries again by itself; then the relay says what is in the way, and goes on."""
_MOST_SHOWN = 1000
"""Rows that are shown at once."""
_OF_ALL = "Of the outbox, as any of its relays has counted it: max over relays; 10000 at most."


__all__ = ["OutboxStopped", "create_table", "opened_database", "run_outbox", "send_again", "set_aside_as_json"]


class NoOutbox(OutboxStopped):
    """The database does not answer, or has no outbox; the message says what to do."""


class RelayMetrics(Collector):
    """All metrics of one relay."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    def collect(self) -> Iterator[Metric]:
        """Yield every family of metrics, as of now."""
        relay = self._relay
        text = "Rows by what became of them: moved, repeated (the log had the job), set_aside. Sum over relays."
        yield counter("gql_jobs_outbox_rows", text, ("outcome",), {(name,): n for name, n in relay.counts.items()})
        text = "Whether the server and the database let rows be moved: 1 or 0. Of this relay."
        yield single("gql_jobs_outbox_moving", text, relay.away is None)
        backlog = relay.backlog
        if backlog is not None:
            yield single("gql_jobs_outbox_waiting", f"Rows that wait to be moved. {_OF_ALL}", backlog.waiting)
            yield single("gql_jobs_outbox_set_aside", f"Rows that are set aside. {_OF_ALL}", backlog.set_aside)
            text = "For how long the row has waited that is due first; 0 if none waits. Max over relays."
            yield single("gql_jobs_outbox_oldest_seconds", text, _age(backlog))


def _age(backlog: Backlog) -> float:
    if backlog.oldest_created_at is None:
        return 0.0
    return max(0.0, (clock.now() - backlog.oldest_created_at).total_seconds())


def create_table(database: OutboxDatabase) -> str:
    """Create the table of the outbox if it is not there, and return what was done, in a sentence.

    :raises NoOutbox: if the database is away, or does not let it be created.
    """
    with _sentences():
        return f"The table {TABLE_NAME} is {'made' if database.create_table() else 'there already'}."


def set_aside_as_json(database: OutboxDatabase) -> Iterator[str]:
    """Yield the rows that are set aside, the oldest first, each as a JSON object on one line.

    :raises NoOutbox: if the database is away, or has no outbox.
    """
    with _sentences():
        rows = database.set_aside_rows(_MOST_SHOWN)
    for row in rows:
        yield msgspec.json.encode(row).decode()


def send_again(database: OutboxDatabase, ids: Sequence[int]) -> int:
    """Have rows that are set aside sent again; return how many of these there are.

    :raises NoOutbox: if the database is away, or has no outbox.
    """
    with _sentences():
        return database.send_again(ids)


@contextmanager
def opened_database(settings: Settings) -> Iterator[OutboxDatabase]:
    """Yield the database that the settings name, until the block ends.

    :raises NoOutbox: if they name none, or none that an outbox can be in.
    """
    if settings.outbox_database is None:
        raise NoOutbox("Which database? --database or GQL_JOBS_OUTBOX_DATABASE says it.")
    try:
        database = OutboxDatabase(settings.outbox_database.get_secret_value())
    except ValueError as error:
        raise NoOutbox(str(error)) from error
    try:
        yield database
    finally:
        database.close()


async def run_outbox(
    settings: Settings, database: OutboxDatabase, registry: Registry, url: str | None, token: str | None, *, once: bool
) -> int:
    """Move rows until SIGTERM or SIGINT, of which a second one ends it at once; return the exit code.

    :param url: of the API, or of NATS; None for the one that the environment names.
    :param once: end when nothing is due any more: with 1 if rows still wait.
    :raises NoOutbox: if the database is away at the start, or has no outbox.
    :raises OutboxAway: with ``once``, if the server or the database is away.
    :raises OtherTenant: if the rows are of another tenant than the key that is used here.
    :raises ValueError: if the address or the token makes no sense.
    """
    await asyncio.to_thread(_check_table, database)
    transport = transport_to(url, token, _PATIENCE)
    relay = Relay(database, transport, registry, settings.retention)
    try:
        with metrics_served(settings, RelayMetrics(relay)):
            if once:
                return await _move_once(relay)
            await _until_signal(relay)
            return 0
    finally:
        await transport.close()


async def _move_once(relay: Relay) -> int:
    left = await relay.move_all()
    counts = ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in relay.counts.items())
    log.info("rows of the outbox: %s, %d wait", counts, left.waiting)
    return 1 if left.waiting else 0


async def _until_signal(relay: Relay) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    running = asyncio.create_task(relay.run(stop))

    def on_signal() -> None:
        if stop.is_set():
            # What is being sent stays claimed, and is sent again.
            running.cancel()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    log.info("rows of the outbox are moved as they come")
    await asyncio.wait({running})
    if not running.cancelled():
        running.result()


def _check_table(database: OutboxDatabase) -> None:
    with _sentences():
        if not database.has_table():
            raise NoOutbox(
                f"The database has no table {TABLE_NAME}: gql-jobs outbox --create-table makes it, or a migration of "
                "your application (docs/outbox.md)."
            )


@contextmanager
def _sentences() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        raise NoOutbox(f"{sentence_of(error).rstrip('.')}.".capitalize()) from error
