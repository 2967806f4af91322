"""``gql-jobs dev`` as a user runs it: one tree of real processes."""

import asyncio
import re
import signal
import socket
import sys
from asyncio.subprocess import PIPE
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import nats
import pytest

from gql_jobs.web.pages import DASHBOARD, GRAPHIQL
from tests.by_hand import plain_nats
from tests.child_processes import all_ended, running_process, tree
from tests.deadline import until
from tests.running_dev import Dev, running_dev

_SLOW_JOBS = """
import asyncio
from gql_jobs import JobContext, Model, job_type

class SlowPayload(Model):
    name: str

class SlowResult(Model):
    attempt: int

async def work(context: JobContext, payload: SlowPayload) -> SlowResult:
    if context.saved is None:
        await context.checkpoint("begun")
        context.progress(1, "begun")
        await asyncio.sleep(3600)
    return SlowResult(attempt=context.attempt)

job_type("slow", payload=SlowPayload, result=SlowResult, handler="slow_jobs:work")
"""
pytestmark = pytest.mark.timeout(120)


async def test_everything_answers_where_it_says_and_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    async with running_dev(tmp_path) as dev:
        urls = await dev.ready()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/graphql", urls["API"])
        assert urls.get("GraphiQL") == (urls["API"] if GRAPHIQL.is_built else None), "no page is announced that is none"
        origin = urls["API"].removesuffix("graphql")
        assert urls.get("Dashboard") == (origin if DASHBOARD.is_built else None)
        assert ("`make web` builds it" in dev.err) is not DASHBOARD.is_built
        assert dev.out.startswith("Dashboard " if DASHBOARD.is_built else "GraphiQL " if GRAPHIQL.is_built else "API ")
        async with httpx.AsyncClient() as client:
            ready = await client.get(urls["API"].removesuffix("/graphql") + "/readyz")
            page = await client.get(urls["API"], headers={"Accept": "text/html"})
            mailbox = await client.get(urls["Mailbox"])
            monitoring = await client.get(urls["Monitoring"] + "/varz")
        answers = (ready, page, mailbox, monitoring)
        assert [answer.status_code for answer in answers] == [200, 200, 200, 200]
        everyone = tree(dev.process.pid)
        assert len(everyone) >= 6, "dev, guard, nats-server, mailbox, API, worker"
        dev.process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(dev.process.wait(), 60) == 0, dev.err
        await all_ended(everyone, within=1)


async def test_it_answers_programs_and_pages_of_this_machine_only(tmp_path: Path) -> None:
    async with running_dev(tmp_path, GQL_JOBS_LOG_LEVEL="WARNING") as dev:
        urls = await dev.ready()
        body = {"query": "{ __typename }"}
        async with httpx.AsyncClient(trust_env=False, timeout=30) as client:

            async def post(**headers: str) -> httpx.Response:
                return await client.post(urls["API"], json=body, headers=headers)

            for origin in "http://localhost:5173", "http://127.0.0.1:3000", "http://[::1]:8080", "http://localhost":
                assert (await post(Origin=origin)).headers["Access-Control-Allow-Origin"] == origin
            for _ in range(3):
                answer = await post(Origin="https://evil.example")
                assert "Access-Control-Allow-Origin" not in answer.headers
            for host in "localhost", "127.0.0.1:80", "[::1]:80":
                assert (await post(Host=host)).status_code == 200
            for name in "API", "Mailbox", "Monitoring":
                assert (await client.get(urls[name], headers={"Host": "evil.example"})).status_code == 400, name
        await until(lambda: "https://evil.example" in dev.err, "the refused origin is named")
        assert dev.err.count("https://evil.example") == 1
        assert "GQL_JOBS_CORS_ORIGINS" in dev.err


def _answer_without_password(url: str) -> bytes:
    address = urlsplit(url)
    with (
        socket.create_connection((address.hostname, address.port), timeout=10) as opened,
        opened.makefile("rb") as lines,
    ):
        lines.readline()
        opened.sendall(b"CONNECT {}\r\nPING\r\n")
        return lines.readline()


async def test_other_users_of_the_machine_can_read_nothing_of_it(tmp_path: Path) -> None:
    old = tmp_path / "data/nats/old/block"
    old.parent.mkdir(parents=True)
    old.touch(0o644)
    async with running_dev(tmp_path) as dev:
        urls = await dev.ready()
        # Not by nats-py: a connection that is refused stays open there.
        assert b"Authorization Violation" in await asyncio.to_thread(_answer_without_password, urls["NATS"])
        client = await nats.connect((tmp_path / "data/nats/url").read_text().strip())
        await client.close()
        async with httpx.AsyncClient(trust_env=False) as http:
            mail = '{email: {to: "ada@example.com", subject: "s", body: "b"}}'
            await http.post(
                urls["API"], json={"query": f"mutation {{createJob(input: {{payload: {mail}}}) {{job {{id}}}}}}"}
            )
        await until(lambda: list((tmp_path / "data/mails").glob("*.eml")), "the mail has come", within=30)
        for path in (tmp_path / "data").rglob("*"):
            assert not path.stat().st_mode & 0o077, path
        # On the same folder all that is needed is known, the port too.
        command = (sys.executable, "-m", "gql_jobs", "doctor", "--data-dir", str(tmp_path / "data"))
        async with running_process(*command, cwd=tmp_path, stdout=PIPE) as doctor:
            out, _ = await asyncio.wait_for(doctor.communicate(), 60)
        assert b"Everything is as it should be." in out


async def test_a_kill_9_of_dev_ends_every_child(tmp_path: Path) -> None:
    async with running_dev(tmp_path) as dev:
        await dev.ready()
        everyone = tree(dev.process.pid)
        dev.process.kill()
        await all_ended(everyone, within=15)
    async with running_dev(tmp_path) as again:
        await again.ready()


async def test_a_second_dev_in_the_folder_says_so(tmp_path: Path) -> None:
    async with running_dev(tmp_path) as dev:
        await dev.ready()
        second = tmp_path / "second"
        second.mkdir()
        async with running_dev(second, "--data-dir", str(tmp_path / "data")) as other:
            assert await asyncio.wait_for(other.process.wait(), 20) == 2
            assert f"is already used by process {dev.process.pid};" in other.err
            assert "Traceback" not in other.err


async def test_a_part_that_dies_comes_back_at_the_same_address(tmp_path: Path) -> None:
    async with running_dev(tmp_path) as dev:
        urls = await dev.ready()

        async def answers() -> bool:
            names = ("API", "Mailbox", "Monitoring")
            addresses = [urls[name].replace("/graphql", "/readyz") for name in names]
            async with httpx.AsyncClient() as client:
                try:
                    return all([(await client.get(address)).status_code == 200 for address in addresses])
                except httpx.TransportError:
                    return False

        for number, part in enumerate(("gql_jobs api", "gql_jobs_worker", "gql_jobs.dev.mailbox", "nats-server"), 1):
            victim = await until(partial(dev.child, part), f"{part} runs", within=30)
            victim.kill()
            await until(lambda told=number: dev.err.count("ended by itself") >= told, f"dev says that {part} died")  # type: ignore[misc]
            await until(partial(_another, dev, part, victim.pid), f"{part} runs again", within=30)
            await until(answers, "everything answers again", within=30)


def _another(dev: Dev, part: str, pid: int) -> bool:
    child = dev.child(part)
    return child is not None and child.pid != pid


async def test_ctrl_c_while_it_starts_is_a_clean_stop(tmp_path: Path) -> None:
    async with running_dev(tmp_path) as dev:
        await until((tmp_path / "data" / "dev.lock").exists, "it has begun")
        everyone = tree(dev.process.pid)
        dev.process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(dev.process.wait(), 30) == 0, dev.err
        await all_ended(everyone, within=1)


async def test_a_part_that_dies_again_and_again_ends_dev_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "falls.py").write_text("import os, sys\nif 'api' in sys.argv:\n    os._exit(7)\n")
    async with running_dev(tmp_path, "--import", "falls") as dev:
        assert await asyncio.wait_for(dev.process.wait(), 60) == 2
        assert "Error: The API ended 3 times while starting; its messages say why." in dev.err


async def test_a_part_that_says_that_it_cannot_start_is_not_started_again(tmp_path: Path) -> None:
    async with plain_nats(tmp_path) as url, running_dev(tmp_path, GQL_JOBS_NATS_URL=url) as dev:
        assert await asyncio.wait_for(dev.process.wait(), 60) == 2
        assert "The NATS server has no JetStream" in dev.err
        assert re.search("Error: The (API|worker) cannot start; its message above says why", dev.err)
        assert "starting it again" not in dev.err


async def test_the_first_ctrl_c_waits_for_a_running_job_and_the_second_hands_it_back(tmp_path: Path) -> None:
    (tmp_path / "slow_jobs.py").write_text(_SLOW_JOBS)
    async with running_dev(tmp_path, "--import", "slow_jobs") as dev:
        api = (await dev.ready())["API"]
        created = await _ask(api, 'mutation { createJob(input: {payload: {slow: {name: "x"}}}) { job { id } } }')
        job_id = created["createJob"]["job"]["id"]
        await until(lambda: _progress_of(api, job_id), "the job has begun", within=20)
        dev.process.send_signal(signal.SIGINT)
        await until(lambda: "stopping: running jobs get 30 s" in dev.err, "it says that it is stopping")
        assert len(tree(dev.process.pid)) >= 6
        dev.process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(dev.process.wait(), 20) == 0, dev.err
    async with running_dev(tmp_path, "--import", "slow_jobs") as dev:
        api = (await dev.ready())["API"]

        async def result() -> dict[str, Any] | None:
            job: dict[str, Any] = (await _ask(api, f'{{ job(id: "{job_id}") {{ attempt rawResult }} }}'))["job"]
            return job if job["rawResult"] is not None else None

        job = await until(result, "the job has completed", within=30)
        assert job == {"attempt": 1, "rawResult": {"attempt": 1}}, "handed back without costing an attempt"


async def _progress_of(api: str, job_id: str) -> bool:
    job = (await _ask(api, f'{{ job(id: "{job_id}") {{ progress }} }}'))["job"]
    return bool(job["progress"] == 1)


async def _ask(api: str, query: str) -> dict[str, Any]:
    async with httpx.AsyncClient() as client:
        answer = (await client.post(api, json={"query": query})).json()
    assert "errors" not in answer, answer
    data: dict[str, Any] = answer["data"]
    return data
