"""Several processes at one port, and several workers, as a user runs them."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest
from gql.transport.exceptions import TransportQueryError
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from gql_jobs.settings import Settings
from gql_jobs.web.pages import addresses
from tests.api.operations import asked, create, create_many, ended, find, page
from tests.child_processes import all_ended, has_ended, running_process, tree
from tests.deadline import until
from tests.rows import overwrite
from tests.running import JOB_TYPES, PYTHON_PATH
from tests.scraped import reader, scrape
from tests.serving import Api, ServedApi, connected, free_ports_in_a_row, hear, is_ready, say, without_nats

# Every test here starts several processes, which a busy machine keeps waiting.
pytestmark = pytest.mark.timeout(120)
_SOCKETS = 24
"""That all of them come to one of two processes happens once in millions of runs."""


@asynccontextmanager
async def _gql_jobs(settings: Settings, *arguments: str, **environment: str) -> AsyncIterator[Process]:
    """``gql-jobs`` with the test job types; what is left of it is killed when the block ends."""
    given = {"GQL_JOBS_NATS_URL": settings.nats_url or "", "GQL_JOBS_DATA_DIR": str(settings.data_dir)}
    command = (sys.executable, "-m", "gql_jobs", *arguments, "--import", *JOB_TYPES)
    environment = {**os.environ, "PYTHONPATH": PYTHON_PATH, **given, **environment}
    left: list[psutil.Process] = []
    try:
        async with running_process(*command, stdout=PIPE, env=environment) as process:
            try:
                yield process
            finally:
                left = tree(process.pid) if process.returncode is None else []
    finally:
        await all_ended(left)


@asynccontextmanager
async def _two_apis(settings: Settings, **environment: str) -> AsyncIterator[tuple[Process, Api]]:
    """Two API processes, the first of which answers."""
    async with _gql_jobs(settings, "api", "--port", "0", "--processes", "2", **environment) as parent:
        assert parent.stdout is not None
        names = [name for name, _ in addresses("", Settings())]
        said = [(await asyncio.wait_for(parent.stdout.readline(), 60)).decode().split() for _ in names]
        assert [name for name, _ in said] == names
        async with connected(int(said[-1][1].split(":")[2].split("/")[0])) as api:
            yield parent, api


async def _stop(parent: Process, number: int) -> None:
    everyone = tree(parent.pid)
    assert len(everyone) == 3
    parent.send_signal(number)
    assert await asyncio.wait_for(parent.wait(), 30) == 0
    await all_ended(everyone, within=2)


def _listening(port: int, parent: Process) -> list[psutil.Process]:
    """The children that listen at the port."""
    return [
        child
        for child in tree(parent.pid)[1:]
        if any(c.laddr.port == port and c.status == psutil.CONN_LISTEN for c in child.net_connections())
    ]


async def _own_urls(port: int, parent: Process) -> list[str]:
    """Where each of two processes is asked alone."""

    def listening() -> list[str] | None:
        sockets = [socket for child in tree(parent.pid)[1:] for socket in child.net_connections()]
        own = {s.laddr.port for s in sockets if s.status == psutil.CONN_LISTEN} - {port}
        return [f"http://127.0.0.1:{number}" for number in own] if len(own) == 2 else None

    return await until(listening, "both processes listen at ports of their own", within=30)


async def _two_listen(port: int, parent: Process) -> list[psutil.Process]:
    def both() -> list[psutil.Process] | None:
        found = _listening(port, parent)
        return found if len(found) == 2 else None

    return await until(both, "both processes listen", within=30)


async def test_two_processes_answer_at_one_port_and_a_killed_one_comes_back(settings: Settings) -> None:
    first = str(free_ports_in_a_row(3))
    async with _two_apis(settings, GQL_JOBS_METRICS_PORT=first) as (parent, api), AsyncExitStack() as stack:
        await until(lambda: is_ready(api), "the first is ready", within=30)
        (job,) = await _created(api, 1)
        listening = await _two_listen(api.port, parent)
        urls = await _own_urls(api.port, parent)
        assert f"http://127.0.0.1:{first}" in urls
        await _each_is_asked_alone(api, urls)
        sockets = [await stack.enter_async_context(api.raw_socket()) for _ in range(_SOCKETS)]
        victim, other = listening
        with_other = {c.raddr.port for c in other.net_connections() if c.status == psutil.CONN_ESTABLISHED}
        expected = [socket.local_address[1] in with_other for socket in sockets]
        assert {True, False} == set(expected), "either has some of the sockets"
        victim.kill()
        await until(lambda: has_ended(victim), "it is gone")
        async with connected(api.port) as client:
            assert (await find(client, job))["status"] == "QUEUED"
        assert [await _answers(socket) for socket in sockets] == expected
        comrades = await _two_listen(api.port, parent)
        assert victim not in comrades
        assert other in comrades
        await _stop(parent, signal.SIGTERM)


async def _created(api: Api, number: int) -> list[str]:
    """New jobs. The process that listens first answers as soon as it listens, and may not be ready yet."""

    async def made() -> list[str] | None:
        with suppress(TransportQueryError):
            return await create_many(api, [asked() for _ in range(number)])
        return None

    return await until(made, "jobs are made", within=30)


async def test_one_of_two_whose_index_is_damaged_is_started_again_and_builds_it_anew(settings: Settings) -> None:
    async with _two_apis(settings) as (parent, api):
        await until(lambda: is_ready(api), "one is ready", within=30)
        before = await _two_listen(api.port, parent)
        ids = await _created(api, 50)
        overwrite(settings.data_dir / "index-0.sqlite")

        async def one_has_ended() -> bool:
            async with connected(api.port) as client:
                with suppress(httpx.TransportError, TransportQueryError):
                    await page(client, first=100)
            return any(has_ended(process) for process in before)

        await until(one_has_ended, "it has met the damage", within=30)
        after = await _two_listen(api.port, parent)
        assert len(set(after) & set(before)) == 1
        for _ in range(_SOCKETS):
            async with connected(api.port) as client:
                assert {job["id"] for job in (await page(client, first=100))["nodes"]} == set(ids)
        await _stop(parent, signal.SIGTERM)


async def _answers(socket: ClientConnection) -> bool:
    try:
        await say(socket, type="ping")
        answer = await hear(socket)
    except ConnectionClosed:
        return False
    return bool(answer["type"] == "pong")


async def _each_is_asked_alone(api: Api, urls: list[str]) -> None:
    refused = await api.http.get("/metrics")
    assert refused.status_code == 404
    assert "GQL_JOBS_METRICS_PORT gives every one a port" in refused.text
    for url in urls:
        assert reader(await scrape(api.http, f"{url}/metrics"))("gql_jobs_nats_connected") == 1
        assert (await api.http.get(f"{url}/readyz")).status_code == 200
        assert (await api.http.get(f"{url}/graphql")).status_code == 404


async def test_who_joins_others_waits_until_it_is_ready(tmp_path: Path) -> None:
    async with _two_apis(without_nats(tmp_path), GQL_JOBS_METRICS_PORT="0") as (parent, api):
        assert (await api.http.get("/readyz")).status_code == 503
        for url in await _own_urls(api.port, parent):
            assert (await api.http.get(f"{url}/readyz")).status_code == 503
        assert len(_listening(api.port, parent)) == 1
        await _stop(parent, signal.SIGINT)


async def test_two_worker_processes_both_run_jobs(api: ServedApi, settings: Settings, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with _gql_jobs(settings, "worker", "--processes", "2", "--concurrency", "1") as parent:
        jobs = [await create(api, {"gate": str(gate)}) for _ in range(2)]

        async def workers() -> set[str]:
            seen = {(await find(api, job["id"]))["workerId"] for job in jobs}
            return seen if None not in seen else set()

        assert len(await until(workers, "both jobs run", within=30)) == 2
        everyone = tree(parent.pid)
        parent.send_signal(signal.SIGTERM)
        gate.touch()
        for job in jobs:
            await ended(api, job["id"])
        assert await asyncio.wait_for(parent.wait(), 30) == 0
        await all_ended(everyone, within=1)
