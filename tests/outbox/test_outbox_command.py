"""The command gql-jobs outbox as a process that is killed, stopped and misused."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import create_engine, text

from gql_jobs.access.administration import create_key
from gql_jobs.jetstream.connection import Connection
from gql_jobs.jobs.viewer import NO_LIMITS, Scope
from gql_jobs.log.commands import JobCommands
from gql_jobs.outbox import database
from gql_jobs.outbox.rows import OutboxRow
from gql_jobs.settings import Settings
from tests.by_hand import stored
from tests.child_processes import running_process
from tests.deadline import until
from tests.job_types.probe_jobs import ProbePayload
from tests.outbox.conftest import Shop
from tests.running import PYTHON_PATH
from tests.serving import serving
from tests.workers.reports.postgres import running_postgres

APPLICATION = """
import os, signal, sys
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from gql_jobs import outbox
from tests.job_types.probe_jobs import ProbePayload

with Session(create_engine(sys.argv[1])) as session:
    for number in range(int(sys.argv[2])):
        print(outbox.create(session, ProbePayload(steps=number), type="probe"), flush=True)
        session.commit()
os.kill(os.getpid(), signal.SIGKILL)
"""
RELAY_THAT_DIES = """
import os, signal, sys
from gql_jobs.cli import main
from gql_jobs.outbox import database, relay

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

if sys.argv.pop(1) == "before":
    relay.Relay._create = die
else:
    database.OutboxDatabase.settle = die
main()
"""


on_sqlite = pytest.mark.parametrize("shop", ["sqlite"], indirect=True)
"""For what has nothing to do with the kind of the database."""


def environment(settings: Settings, **variables: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": PYTHON_PATH, "GQL_JOBS_URL": settings.nats_url or "", **variables}


@asynccontextmanager
async def relay(shop: Shop, settings: Settings, *arguments: str, **variables: str) -> AsyncIterator[Any]:
    """A relay as a process of its own; killed when the block ends."""
    command = (sys.executable, "-m", "gql_jobs", "outbox", "--import", "tests.job_types.probe_jobs", *arguments)
    own = environment(settings, GQL_JOBS_OUTBOX_DATABASE=shop.url, **variables)
    async with running_process(*command, env=own, stderr=asyncio.subprocess.PIPE) as process:
        yield process


async def line_of(process: Any, words: str) -> str:
    """The next line of the log that has these words."""
    async with asyncio.timeout(20):
        line = "-"
        while words not in line:
            assert line, f"the relay has ended before it said {words!r}"
            line = (await process.stderr.readline()).decode()
    return line


async def ran(*arguments: str, **variables: str) -> tuple[int | None, str, str]:
    """The exit code of the command, what it wrote, and what it said."""
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-m", "gql_jobs", "outbox", "--import", "tests.job_types.probe_jobs", *arguments)
    own = {**os.environ, "PYTHONPATH": PYTHON_PATH, **variables}
    async with running_process(*command, env=own, stdout=pipe, stderr=pipe) as process:
        out, said = await process.communicate()
    return process.returncode, out.decode(), said.decode()


async def test_what_was_committed_becomes_a_job_though_the_application_was_killed_with_kill_9(
    shop: Shop, settings: Settings, connection: Connection, commands: JobCommands
) -> None:
    assert connection.connected
    command = (sys.executable, "-c", APPLICATION, str(shop.engine.url.render_as_string(hide_password=False)), "3")
    async with running_process(*command, env=environment(settings), stdout=asyncio.subprocess.PIPE) as application:
        out, _ = await application.communicate()
    assert application.returncode == -signal.SIGKILL
    ids = out.decode().split()
    assert [row.job_id for row in shop.rows()] == ids
    async with relay(shop, settings, "--once") as process:
        _, said = await process.communicate()
    assert process.returncode == 0, said
    assert [await commands.find(job_id) is not None for job_id in ids] == [True] * 3
    assert shop.rows() == []


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_relay_that_is_killed_with_kill_9_loses_no_row_and_makes_no_job_twice(
    moment: str, shop: Shop, settings: Settings, connection: Connection
) -> None:
    ids = shop.create(*[ProbePayload()] * 3)
    command = (sys.executable, "-c", RELAY_THAT_DIES, moment, "outbox", "--import", "tests.job_types.probe_jobs")
    own = environment(settings, GQL_JOBS_OUTBOX_DATABASE=shop.url)
    async with running_process(*command, env=own) as process:
        assert await process.wait() == -signal.SIGKILL
    assert len(await stored(connection)) == (0 if moment == "before" else 3)
    assert [row.attempted_at is not None for row in shop.rows()] == [True] * 3
    async with relay(shop, settings, "--once") as process:
        assert await process.wait() == 1, "they are claimed still"
    shop.change(due_at=datetime.now(UTC))
    async with relay(shop, settings, "--once") as process:
        assert await process.wait() == 0
    assert [message.subject.split(".")[1] for message in await stored(connection)] == ids
    assert shop.rows() == []


async def test_two_relays_move_what_is_written_meanwhile_and_end_with_a_signal(
    shop: Shop, settings: Settings, connection: Connection
) -> None:
    async with relay(shop, settings) as one, relay(shop, settings) as other:
        for process in (one, other):
            await line_of(process, "as they come")
        ids = [job_id for _ in range(30) for job_id in await asyncio.to_thread(shop.create, *[ProbePayload()] * 5)]
        await until(lambda: shop.rows() == [], "all rows are moved", within=20)
        for process in (one, other):
            process.send_signal(signal.SIGTERM)
        assert [await process.wait() for process in (one, other)] == [0, 0]
    assert sorted(message.subject.split(".")[1] for message in await stored(connection)) == sorted(ids)


@on_sqlite
async def test_over_an_api_rows_become_jobs_of_the_key_s_tenant_and_rows_of_another_one_stop_it(
    shop: Shop, settings: Settings, commands: JobCommands
) -> None:
    scopes = (Scope.READ, Scope.CREATE)
    token, _ = await create_key(settings, "relay", scopes=scopes, tenant="acme", limits=NO_LIMITS)
    required = settings.model_copy(update={"auth": "required"})
    async with serving(required) as api:
        server = {"GQL_JOBS_URL": f"http://127.0.0.1:{api.port}", "GQL_JOBS_TOKEN": token}
        mine = shop.create(*(ProbePayload(steps=number) for number in range(120)), tenant="acme")
        async with relay(shop, settings, "--once", **server) as process:
            _, said = await process.communicate()
        assert process.returncode == 0, said
        found = [await commands.find(job_id) for job_id in mine]
        assert [job.spec.tenant for job in found if job is not None] == ["acme"] * 120
        shop.create(ProbePayload())
        async with relay(shop, settings, "--once", **server) as process:
            _, said = await process.communicate()
        assert (process.returncode, b"key of the tenant that is given to outbox.create" in said) == (1, True)
        assert len(shop.rows()) == 1
        shop.change(due_at=datetime.now(UTC))
        async with relay(shop, settings, **{**server, "GQL_JOBS_TOKEN": "nobody's"}) as process:
            await line_of(process, "needs a valid key or token")
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
    assert [row.set_aside_at for row in shop.rows()] == [None]


@on_sqlite
async def test_over_an_api_a_refused_row_does_not_keep_the_others_back(
    shop: Shop, settings: Settings, commands: JobCommands
) -> None:
    async with serving(settings) as api:
        (refused,) = shop.create(ProbePayload())
        shop.change(payload='{"steps":"many"}')
        others = shop.create(*[ProbePayload()] * 20, key=None)
        async with relay(shop, settings, "--once", GQL_JOBS_URL=f"http://127.0.0.1:{api.port}") as process:
            _, said = await process.communicate()
        assert process.returncode == 0, said
    (row,) = shop.rows()
    assert (row.job_id, row.code) == (refused, "INVALID_PAYLOAD")
    assert None not in [await commands.find(job_id) for job_id in others]


@on_sqlite
async def test_its_metrics_tell_what_was_moved_and_what_waits(
    shop: Shop, settings: Settings, connection: Connection
) -> None:
    assert connection.connected
    shop.create(ProbePayload())
    shop.change(type="unheard_of")
    shop.create(*[ProbePayload()] * 2)
    async with relay(shop, settings, GQL_JOBS_METRICS_PORT="0") as process:
        said = await line_of(process, "/metrics")
        address = said[said.index("http://") :].strip()
        async with httpx.AsyncClient(trust_env=False) as http:

            async def moved() -> str:
                shown = (await http.get(address)).text
                return shown if 'gql_jobs_outbox_rows_total{outcome="moved"} 2.0' in shown else ""

            shown = await until(moved, "two rows are moved")
    assert "gql_jobs_outbox_waiting 3.0" in shown
    assert "gql_jobs_outbox_moving 1.0" in shown
    assert "gql_jobs_outbox_set_aside 0.0" in shown


async def test_a_relay_waits_while_its_database_is_away_and_goes_on_when_it_is_back(
    settings: Settings, connection: Connection
) -> None:
    with running_postgres() as server:
        shop = Shop(server.url)
        async with relay(shop, settings) as process:
            shop.create(ProbePayload())
            await until(lambda: shop.rows() == [], "it moves rows", within=20)
            shop.engine.dispose()
            server.stop()
            await line_of(process, "does not answer")
            server.start()
            (job_id,) = shop.create(ProbePayload())
            await until(lambda: shop.rows() == [], "it moves rows again", within=20)
        shop.engine.dispose()
    assert [message.subject.split(".")[1] for message in await stored(connection)][1:] == [job_id]


async def test_the_table_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    url = f"sqlite:///{path}"
    assert (await ran("--create-table", "--database", url))[0] == 1
    path.touch()
    code, _, said = await ran("--once", "--database", url, "--url", "nats://127.0.0.1:1")
    assert (code, "no table gql_jobs_outbox: gql-jobs outbox --create-table" in said) == (1, True)
    assert (await ran("--create-table", "--database", url))[::2] == (0, "The table gql_jobs_outbox is made.\n")
    assert (await ran("--create-table", "--database", url))[::2] == (0, "The table gql_jobs_outbox is there already.\n")
    engine = create_engine(url)
    with engine.connect() as connection:
        made = set(connection.scalars(text("SELECT name FROM pragma_table_info('gql_jobs_outbox')")))
    engine.dispose()
    assert made == {column.name for column in OutboxRow.__table__.columns}


@on_sqlite
async def test_rows_that_are_set_aside_are_listed_and_sent_again(shop: Shop) -> None:
    first, second = shop.create(ProbePayload(), ProbePayload())
    shop.change(set_aside_at=datetime.now(UTC), code="INVALID_PAYLOAD", error="steps: Not a number.")
    code, out, _ = await ran("--set-aside", GQL_JOBS_OUTBOX_DATABASE=shop.url)
    listed = [json.loads(line) for line in out.splitlines()]
    assert (code, [row["jobId"] for row in listed]) == (0, [first, second])
    assert (listed[0]["code"], listed[0]["error"]) == ("INVALID_PAYLOAD", "steps: Not a number.")
    code, _, said = await ran("--send-again", str(listed[1]["id"]), GQL_JOBS_OUTBOX_DATABASE=shop.url)
    assert (code, said) == (0, "1 of them are sent again.\n")
    assert [row.set_aside_at is None for row in shop.rows()] == [False, True]


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("", "must be a URL"),
        ("no url", "must be a URL"),
        ("mysql://root:hunter2@db/shop", "PostgreSQL or SQLite"),
        ("sqlite://", "in the memory of a process"),
        ("sqlite:////nowhere/shop.db", "no such file"),
        ("postgresql://shop:hunter2@127.0.0.1:1/shop", "does not answer"),
    ],
)
async def test_a_database_that_cannot_be_used_is_told_in_a_sentence_without_its_password(
    url: str, sentence: str
) -> None:
    code, _, said = await ran("--once", "--database", url, "--url", "nats://127.0.0.1:1")
    assert code in {1, 2}
    assert sentence in said
    assert "Traceback" not in said
    assert "hunter2" not in said


async def test_without_a_database_the_command_asks_for_one() -> None:
    code, _, said = await ran()
    assert (code, "--database or GQL_JOBS_OUTBOX_DATABASE" in said) == (1, True)


@pytest.mark.parametrize(
    ("url", "driver"),
    [
        ("postgres://u@h/d", "postgresql+psycopg"),
        ("postgresql+asyncpg://u@h/d", "postgresql+psycopg"),
        ("postgresql+psycopg2://u@h/d", "postgresql+psycopg2"),
    ],
)
def test_the_url_of_the_application_is_taken_whatever_its_driver(url: str, driver: str) -> None:
    assert database._database_url(url).drivername == driver  # noqa: SLF001
