"""The client of a FastAPI application's routes: opened with the application, closed with it."""

import asyncio
import json
import os
import re
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, WebSocket

from gql_jobs.client import AsyncClient
from gql_jobs.client.fastapi import JobsClient, jobs_client, jobs_lifespan
from tests.child_processes import running_process
from tests.job_types.probe_jobs import ProbePayload
from tests.running import PYTHON_PATH, ROOT
from tests.serving import HOST, ServedApi

EXAMPLE = ROOT / "examples" / "python" / "fastapi_app.py"


@asynccontextmanager
async def started(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application, while its lifespan runs."""
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://app") as http:
        yield http


def _with_a_route(app: FastAPI) -> list[AsyncClient]:
    given: list[AsyncClient] = []

    @app.post("/probes")
    async def probe(jobs: JobsClient) -> dict[str, str]:
        given.append(jobs)
        return {"job": (await jobs.create(ProbePayload(), type="probe")).id}

    return given


async def test_a_route_creates_a_job_by_the_one_client_of_its_application(api: ServedApi) -> None:
    app = FastAPI(lifespan=jobs_lifespan(f"http://{HOST}:{api.port}"))
    given = _with_a_route(app)
    async with started(app) as http:
        made = [(await http.post("/probes")).json()["job"] for _ in range(2)]
        known = await api.ask("{ jobs { nodes { id } } }")
        assert {node["id"] for node in known["jobs"]["nodes"]} == set(made)
    assert given[0] is given[1]
    with pytest.raises(RuntimeError, match=r"The client is closed\."):
        await given[0].create(ProbePayload(), type="probe")


async def test_an_application_with_a_lifespan_of_its_own_enters_it_there(api: ServedApi) -> None:
    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncIterator[None]:
        async with jobs_lifespan(f"http://{HOST}:{api.port}")(app):
            yield

    app = FastAPI(lifespan=own)
    _with_a_route(app)
    async with started(app) as http:
        assert (await http.post("/probes")).status_code == 200


async def test_a_route_of_an_application_without_the_lifespan_says_what_is_missing() -> None:
    app = FastAPI()
    _with_a_route(app)
    async with started(app) as http:
        with pytest.raises(RuntimeError, match=r"make it with FastAPI\(lifespan=jobs_lifespan\(…\)\)"):
            await http.post("/probes")


async def test_a_test_of_the_application_puts_another_client_in_its_place(client: AsyncClient) -> None:
    app = FastAPI()
    given = _with_a_route(app)
    app.dependency_overrides[jobs_client] = lambda: client
    async with started(app) as http:
        assert (await http.post("/probes")).status_code == 200
    assert given == [client]


async def test_a_socket_has_it_too(api: ServedApi) -> None:
    app = FastAPI(lifespan=jobs_lifespan(f"http://{HOST}:{api.port}"))
    given: list[AsyncClient] = []

    @app.websocket("/probes")
    async def probe(socket: WebSocket, jobs: JobsClient) -> None:
        given.append(jobs)
        await socket.close()

    scope = {"type": "websocket", "path": "/probes", "query_string": b"", "headers": [], "subprotocols": []}
    said: list[Any] = []

    async def send(message: Any) -> None:
        said.append(message["type"])

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async with app.router.lifespan_context(app):
        await app(scope, receive, send)
    assert said == ["websocket.close"]
    assert len(given) == 1


def test_the_document_shows_the_example() -> None:
    shown = re.search(r"```python\n# fastapi_app\.py\n(.*?)```", (ROOT / "docs/embedding.md").read_text(), re.DOTALL)
    assert shown is not None
    assert EXAMPLE.read_text().endswith(shown[1])
    assert len([line for line in shown[1].splitlines() if line]) <= 20


async def test_the_example_runs_under_a_plain_uvicorn(api: ServedApi, tmp_path: Path) -> None:
    address = f"http://{HOST}:{api.port}"
    environment = {**os.environ, "PYTHONPATH": f"{EXAMPLE.parent}{os.pathsep}{PYTHON_PATH}", "GQL_JOBS_URL": address}
    command = (sys.executable, "-m", "uvicorn", "fastapi_app:app", "--host", HOST, "--port", "0")
    async with running_process(*command, cwd=tmp_path, env=environment, stderr=PIPE) as process:
        assert process.stderr is not None
        said = ""
        async with asyncio.timeout(30):
            while not (found := re.search(r"running on (http://\S+)", said)):
                line = await process.stderr.readline()
                assert line, said
                said += line.decode()
        async with httpx.AsyncClient(base_url=found[1], trust_env=False) as http:
            first, again = [(await http.post("/signups/ada@example.com")).json() for _ in range(2)]
            assert first == again, "the key makes one job of two clicks"
            assert (await http.get(f"/signups/{first['job']}")).json() == {"status": "queued"}
        process.terminate()
        await asyncio.wait_for(process.communicate(), 20)
    (job,) = (await api.ask("{ jobs { nodes { id rawPayload } } }"))["jobs"]["nodes"]
    assert job["id"] == first["job"]
    assert json.loads(json.dumps(job["rawPayload"]))["to"] == "ada@example.com"
