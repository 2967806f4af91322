"""``gql-jobs dev --reload`` restarts the worker when a handler's file changes, and the API if its schema may follow."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.deadline import until
from tests.running_dev import Dev, running_dev

JOBS = """
from gql_jobs import Model, Payload, job_type

class GreetResult(Model):
    text: str
    attempt: int

class GreetPayload(Payload[GreetResult]):
    name: str
    gate: str = ""

job_type("greet", payload=GreetPayload, handler="greet_handlers:greet")
"""
HANDLERS = """
import asyncio
from pathlib import Path
from gql_jobs import JobContext
from greet_jobs import GreetPayload, GreetResult

async def greet(context: JobContext, payload: GreetPayload) -> GreetResult:
    if payload.gate:
        context.progress(1, "waiting")
        while True:
            await asyncio.sleep(0.05)
    return GreetResult(text="Hello " + payload.name, attempt=context.attempt)
"""
WITHOUT_WAIT = HANDLERS.replace("if payload.gate:", "if False:").replace("Hello", "Good morning")
pytestmark = pytest.mark.timeout(180)


class Reloading:
    """A ``dev`` that reloads, and the files that it watches."""

    def __init__(self, dev: Dev, api: str, folder: Path) -> None:
        self.dev = dev
        self._api = api
        self._folder = folder

    def write(self, name: str, text: str) -> None:
        """Change a file, as an editor does that replaces it."""
        new = self._folder / f"{name}.tmp"
        new.write_text(text)
        new.replace(self._folder / name)

    def processes(self) -> tuple[int | None, int | None]:
        """The ids of the API's process and the worker's; None while one does not run."""
        found = (self.dev.child("gql_jobs api"), self.dev.child("gql_jobs_worker"))
        api, worker = (None if one is None else one.pid for one in found)
        return api, worker

    async def says(self, text: str) -> None:
        """Wait until it has said that."""
        await until(lambda: text in self.dev.err, f"dev says: {text}", within=60)

    async def restarted(self, before: tuple[int | None, int | None], *, api: bool = False) -> None:
        """Wait until the worker is another one than before, and so is the API if it shall be, else the same."""

        def others() -> bool:
            now = self.processes()
            return None not in now and now[1] != before[1] and (now[0] != before[0]) is api

        await until(others, "the parts are other ones", within=60)

    async def ask(self, query: str) -> dict[str, Any]:
        """The data of an operation, once the API answers."""
        answers: list[dict[str, Any]] = []

        async def answered() -> bool:
            async with httpx.AsyncClient(trust_env=False) as client:
                try:
                    answers.append((await client.post(self._api, json={"query": query}, timeout=30)).json())
                except httpx.TransportError:
                    return False
            return "QUEUE_UNAVAILABLE" not in str(answers[-1])

        await until(answered, "the API answers", within=60)
        assert "errors" not in answers[-1], answers[-1]
        data: dict[str, Any] = answers[-1]["data"]
        return data

    async def create(self, fields: str) -> str:
        """Create a job and return its id."""
        data = await self.ask(
            f"mutation {{ createJob(input: {{payload: {{greet: {{{fields}}}}}}}) {{ job {{ id }} }} }}"
        )
        job_id: str = data["createJob"]["job"]["id"]
        return job_id

    async def result(self, job_id: str) -> Any:
        """The result of a job, once it has one."""

        async def found() -> Any:
            return (await self.ask(f'{{ job(id: "{job_id}") {{ rawResult }} }}'))["job"]["rawResult"]

        return await until(found, "the job has completed", within=60)


@asynccontextmanager
async def reloading(folder: Path, jobs: str = JOBS, **environment: str) -> AsyncIterator[Reloading]:
    """``dev --reload`` in a folder with these job types, once it watches."""
    (folder / "greet_jobs.py").write_text(jobs)
    (folder / "greet_handlers.py").write_text(HANDLERS)
    async with running_dev(folder, "--import", "greet_jobs", "--reload", **environment) as dev:
        found = Reloading(dev, (await dev.ready())["API"], folder)
        await found.says("watching the files below")
        yield found


async def test_a_changed_handler_runs_the_next_job_and_goes_on_with_the_one_that_ran(tmp_path: Path) -> None:
    async with reloading(tmp_path) as here:
        running = await here.create('name: "Ada", gate: "closed"')

        async def begun() -> bool:
            return bool((await here.ask(f'{{ job(id: "{running}") {{ progress }} }}'))["job"]["progress"])

        await until(begun, "the job runs", within=30)
        before = here.processes()
        here.write("greet_handlers.py", WITHOUT_WAIT)
        await here.restarted(before)
        assert "greet_handlers.py changed: restarting the worker\n" in here.dev.err
        assert await here.result(running) == {"text": "Good morning Ada", "attempt": 1}, "at the cost of no attempt"
        assert (await here.result(await here.create('name: "Bob"')))["text"] == "Good morning Bob"
        here.dev.process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(here.dev.process.wait(), 60) == 0, here.dev.err


async def test_the_schema_of_the_api_follows_its_payload_models(tmp_path: Path) -> None:
    async with reloading(tmp_path) as here:
        before = here.processes()
        here.write("greet_jobs.py", JOBS.replace("    name: str\n", "    name: str\n    language: str = 'en'\n"))
        await here.says("greet_jobs.py changed: restarting the API and the worker")
        await here.restarted(before, api=True)
        job_id = await here.create('name: "Ada", language: "de"')
        assert (await here.result(job_id))["text"] == "Hello Ada"


async def test_a_file_that_cannot_be_used_is_told_and_what_runs_goes_on(tmp_path: Path) -> None:
    unclosed = "greet_handlers.py, line 1: SyntaxError: '(' was never closed."
    async with reloading(tmp_path) as here:
        before = here.processes()
        for name, text, said in (
            ("greet_jobs.py", "\nimport nowhere\n", "greet_jobs.py, line 2: ModuleNotFoundError: No module named 'no"),
            ("greet_jobs.py", JOBS.replace('"greet"', '"Greet"'), "The job type name 'Greet' must match"),
            ("greet_jobs.py", "import os\nos._exit(5)\n", "a process ended with exit code 5."),
            ("greet_handlers.py", "def greet(\n", unclosed),
        ):
            here.write(name, text)
            await here.says(said)
        here.write("greet_jobs.py", JOBS)
        await until(lambda: here.dev.err.count(unclosed) == 2, "the other file is still wrong", within=60)
        assert here.dev.err.count("Nothing is restarted; the next change will be looked at.") == 5
        assert here.processes() == before
        assert (await here.result(await here.create('name: "Ada"')))["text"] == "Hello Ada"

        here.write("greet_handlers.py", WITHOUT_WAIT)
        await here.says("greet_handlers.py, greet_jobs.py changed: restarting the API and the worker")
        await here.restarted(before, api=True)
        assert (await here.result(await here.create('name: "Ada"')))["text"] == "Good morning Ada"
        assert here.dev.process.returncode is None


async def test_a_worker_that_cannot_start_waits_for_the_next_change(tmp_path: Path) -> None:
    async with reloading(tmp_path) as here:
        only_there = 'import sys\nif "gql_jobs_worker" in sys.argv[0]:\n    raise ValueError("not here")\n'
        here.write("greet_jobs.py", only_there + JOBS)
        await here.says("the worker cannot start; it is started again when a file changes")
        assert "gql-jobs worker: not here" in here.dev.err
        here.write("greet_jobs.py", JOBS)
        assert (await here.result(await here.create('name: "Ada"')))["text"] == "Hello Ada"


async def test_a_package_outside_of_the_folder_is_watched_and_a_file_that_is_no_code_is_not(tmp_path: Path) -> None:
    package, folder = tmp_path / "elsewhere" / "greetings", tmp_path / "folder"
    package.mkdir(parents=True)
    folder.mkdir()
    (package / "__init__.py").touch()
    (package / "handlers.py").write_text(HANDLERS)
    jobs = JOBS.replace("greet_handlers:greet", "greetings.handlers:greet")
    found = os.pathsep.join((str(package.parent), os.environ.get("PYTHONPATH", "")))
    async with reloading(folder, jobs, PYTHONPATH=found) as here:
        before = here.processes()
        here.write("notes.txt", "to be greeted")
        (package / "handlers.py").write_text(WITHOUT_WAIT)
        await here.says(f"{package / 'handlers.py'} changed: restarting the worker")
        await here.restarted(before)
        assert "notes.txt" not in here.dev.err
        assert (await here.result(await here.create('name: "Ada"')))["text"] == "Good morning Ada"


async def test_a_fault_in_a_file_at_the_start_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "broken_jobs.py").write_text("\ndef greet(\n")
    async with running_dev(tmp_path, "--import", "broken_jobs", "--reload") as dev:
        assert await asyncio.wait_for(dev.process.wait(), 60) == 2
        assert "Error: Cannot load the job types: " in dev.err
        assert "broken_jobs.py, line 2: '(' was never closed." in dev.err
        assert "Traceback" not in dev.err
