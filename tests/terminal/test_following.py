"""Following jobs while connections are lost: nothing is missed, nothing comes twice, and it is said once."""

import asyncio
import json
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gql_jobs.settings import Settings
from tests.api.operations import HISTORY, create
from tests.deadline import until
from tests.job_types.odd_handlers import probe_with
from tests.running import running_worker
from tests.serving import HOST, ServedApi, api_process, free_port
from tests.terminal.conftest import Running

pytestmark = pytest.mark.timeout(120)


async def _next(process: Process) -> dict[str, Any]:
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), 30)
    assert line, "the command has ended"
    return json.loads(line)  # type: ignore[no-any-return]


async def _rest(process: Process) -> tuple[list[dict[str, Any]], list[str]]:
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return [json.loads(line) for line in out.splitlines()], err.decode().splitlines()


async def test_a_follower_outlasts_a_restart_of_the_api_without_a_gap_or_a_repetition(
    settings: Settings, workers: AsyncExitStack, running: Running, tmp_path: Path
) -> None:
    gate, trace = tmp_path / "gate", tmp_path / "trace"
    await workers.enter_async_context(running_worker(settings, registry=probe_with("fail_twice")))
    port = free_port()
    async with AsyncExitStack() as followed:
        async with api_process(settings, port) as (api, _):
            job = await create(api, {"gate": str(gate), "trace": str(trace)})
            arguments = ("job", job["id"], "--json", "--url", f"http://{HOST}:{port}")
            process = await followed.enter_async_context(running(*arguments))
            seen = [await _next(process)]
            while seen[-1]["__typename"] != "JobStarted":
                seen.append(await _next(process))
        assert process.stderr is not None
        lost = (await asyncio.wait_for(process.stderr.readline(), 30)).decode()
        gate.touch()
        await until(trace.exists, "the third attempt has run while there is no API")
        async with api_process(settings, port) as (api, _):
            rest, said = await _rest(process)
            history = (await api.ask(HISTORY, id=job["id"]))["job"]["events"]
    assert process.returncode == 0
    assert lost.startswith(f"The connection to http://{HOST}:{port}/graphql is lost since ")
    assert len(said) == 1
    assert said[0].startswith("The connection is back after ")
    cursors = [event["cursor"] for event in history]
    expected = cursors[cursors.index(seen[0]["cursor"]) :]
    assert [event["cursor"] for event in (*seen, *rest)] == expected
    kinds = [event["__typename"] for event in rest]
    assert kinds == ["JobFailed", "JobStarted", "JobFailed", "JobStarted", "JobCompleted"]


class _Line:
    """A line to an API that can be cut."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._open: set[asyncio.StreamWriter] = set()
        self.port = 0

    def cut(self) -> None:
        """Abort every connection."""
        for writer in self._open:
            writer.transport.abort()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry what is said in both directions."""
        other_reader, other_writer = await asyncio.open_connection(HOST, self._to)
        self._open |= {writer, other_writer}
        await asyncio.gather(_pump(reader, other_writer), _pump(other_reader, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while part := await reader.read(65_536):
            writer.write(part)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


@asynccontextmanager
async def _line_to(api: ServedApi) -> AsyncIterator[_Line]:
    line = _Line(api.port)
    server = await asyncio.start_server(line.carry, HOST, 0)
    line.port = server.sockets[0].getsockname()[1]
    async with server:
        yield line
        line.cut()


@pytest.mark.usefixtures("worker")
async def test_a_cut_line_loses_nothing_of_a_tail(api: ServedApi, running: Running) -> None:
    async with _line_to(api) as line, running("tail", "--json", "--url", f"http://{HOST}:{line.port}") as process:
        await api.subscribers(1, within=30)
        ids = []
        for _ in range(3):
            ids.append((await create(api))["id"])
            seen = [await _next(process)]
            while seen[-1]["__typename"] != "JobCompleted":
                seen.append(await _next(process))
            assert {event["job"]["id"] for event in seen} == {ids[-1]}
            assert [event["__typename"] for event in seen] == ["JobQueued", "JobStarted", "JobCompleted"]
            line.cut()
        process.terminate()
        _, said = await _rest(process)
    assert process.returncode == 143
    kinds = ["lost" if " is lost since " in one else "back" for one in said]
    assert kinds[:4] == ["lost", "back", "lost", "back"], said


async def test_a_stream_of_strange_texts_is_cut_where_events_end(
    api: ServedApi, settings: Settings, workers: AsyncExitStack, running: Running
) -> None:
    told = "a\u2028b\x85c\x0bd\x1ce\r\nf\n\ng"
    await workers.enter_async_context(running_worker(settings, registry=probe_with("say")))
    arguments = (f"saves={json.dumps(told)}", "--follow", "--json", "--url", f"http://{HOST}:{api.port}")
    async with running("create", "probe", *arguments) as process:
        events, said = await _rest(process)
    assert (process.returncode, said) == (3, [])
    assert events[-1]["error"]["message"] == told


async def test_a_refusal_while_following_ends_it(api: ServedApi, running: Running) -> None:
    url = f"http://{HOST}:{api.port}"
    async with running("tail", "--after", "99999999999", "--url", url, stderr=PIPE) as process:
        events, said = await _rest(process)
    assert (process.returncode, events) == (1, [])
    assert said[0].endswith("(INVALID_ARGUMENT)")
