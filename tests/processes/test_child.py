"""Children that are kept running, as real processes."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from gql_jobs.processes.children import FASTER, Child, StartFailed, restart_delay
from gql_jobs.processes.parent import CANNOT_START, lifeline
from tests.child_processes import all_ended, running_process
from tests.deadline import until

_WAIT = "import signal, sys; signal.sigwait([signal.SIGTERM])"
_PATIENT = """
import signal
signals = {signal.SIGTERM, signal.SIGINT}
signal.pthread_sigmask(signal.SIG_BLOCK, signals)
open(READY, "w").close()
assert {signal.sigwait(signals), signal.sigwait(signals)} == signals
"""
_DEAF = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); {said}; sys.stdin.read()"
_WATCHING = """
import os, signal, sys
from gql_jobs.processes.parent import stop_with_parent
signal.signal(signal.SIGTERM, {reaction})
stop_with_parent()
print(os.getpid(), flush=True)
while True:
    signal.pause()
"""


@asynccontextmanager
async def _running(
    code: str, tmp_path: Path, stop_within: float = 10, faster: signal.Signals | None = None
) -> AsyncIterator[Child]:
    """A child that writes its pid into a file of its own at each start."""
    script = f"import os; open({str(tmp_path)!r} + f'/{{os.getpid()}}.pid', 'w').close()\n{code}"
    child = Child("part", lambda: [sys.executable, "-c", script], {}, stop_within, faster)
    task = asyncio.create_task(child.run())
    try:
        yield child
    finally:
        await child.stop()
        await task


def _pids(tmp_path: Path) -> list[int]:
    return [int(path.stem) for path in tmp_path.glob("*.pid")]


async def test_it_is_asked_to_stop_with_sigterm(tmp_path: Path) -> None:
    async with _running(_WAIT, tmp_path) as child:
        (pid,) = await until(lambda: _pids(tmp_path), "it has started")
        assert os.getsid(pid) == pid
    assert not child.killed
    assert child.failures == 0
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_it_is_killed_when_it_does_not_stop(tmp_path: Path) -> None:
    ready = tmp_path / "deaf"
    async with _running(_DEAF.format(said=f"open({str(ready)!r}, 'w').close()"), tmp_path, stop_within=0.1) as child:
        await until(ready.exists, "it is deaf")
    assert child.killed


@pytest.mark.parametrize("when", ["before it is stopped", "while it stops"])
async def test_it_hears_that_it_has_to_stop_faster_however_soon_that_is_said(tmp_path: Path, when: str) -> None:
    ready = tmp_path / "ready"
    async with _running(f"READY = {str(ready)!r}{_PATIENT}", tmp_path, stop_within=20, faster=FASTER) as child:
        await until(ready.exists, "it waits for signals")
        if when == "before it is stopped":
            child.stop_faster()
        stopping = asyncio.create_task(child.stop())
        await asyncio.sleep(0)
        child.stop_faster()
        await asyncio.wait_for(stopping, 10)
    assert not child.killed


async def test_it_is_started_again_when_it_dies(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with _running(_WAIT, tmp_path) as child:
        (pid,) = await until(lambda: _pids(tmp_path), "it has started")
        os.kill(pid, signal.SIGKILL)
        await until(lambda: len(_pids(tmp_path)) == 2, "it has started again")
        assert child.failures == 1
    assert "the part ended by itself (killed by signal 9); starting it again in 0.5 s" in caplog.text


async def test_it_is_not_started_again_once_it_has_said_that_it_cannot_start() -> None:
    child = Child("part", lambda: [sys.executable, "-c", f"raise SystemExit({CANNOT_START})"], {}, 10)
    with pytest.raises(StartFailed, match="The part cannot start"):
        await asyncio.wait_for(child.run(), 20)


async def test_a_stop_during_the_backoff_does_not_wait_for_it(tmp_path: Path) -> None:
    async with _running("raise SystemExit(3)", tmp_path) as child:
        await until(lambda: child.failures >= 1, "it has died")
        await asyncio.wait_for(child.stop(), 5)


def test_the_backoff_doubles_up_to_its_cap() -> None:
    assert [restart_delay(failures) for failures in (1, 2, 3, 4, 5, 6, 1000)] == [0.5, 1, 2, 4, 8, 10, 10]


async def test_a_closed_pipe_ends_a_child_that_watches_its_parent() -> None:
    await _watched("lambda *_: sys.exit(7)", expected=7)


async def test_a_child_that_ignores_it_is_ended_all_the_same() -> None:
    await _watched("signal.SIG_IGN", expected=1)


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels have no signal at a parent's death")
async def test_the_kernel_ends_a_busy_child_with_its_parent(tmp_path: Path) -> None:
    """Its pipe stays open, and it ignores signals: neither matters."""
    child = tmp_path / "child.py"
    child.write_text(_WATCHING.format(reaction="signal.SIG_IGN"))
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, {str(child)!r}]).wait()"
    with lifeline() as stdin:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", code), stdin=stdin, stdout=PIPE, env={**os.environ, "GQL_JOBS_PARENT_PIPE": "1"}
        )
        assert process.stdout is not None
        try:
            watched = psutil.Process(int(await asyncio.wait_for(process.stdout.readline(), 20)))
        finally:
            process.kill()
            await process.wait()
        await all_ended([watched])


async def _watched(reaction: str, *, expected: int) -> None:
    command = (sys.executable, "-c", _WATCHING.format(reaction=reaction))
    env = {**os.environ, "GQL_JOBS_PARENT_PIPE": "1"}
    async with running_process(*command, stdin=PIPE, stdout=PIPE, env=env) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        await asyncio.wait_for(process.stdout.readline(), 20)
        process.stdin.close()
        assert await asyncio.wait_for(process.wait(), 15) == expected


async def test_a_process_started_by_hand_does_not_watch_stdin() -> None:
    code = (
        "import threading; from gql_jobs.processes.parent import stop_with_parent as s; s(); "
        "print(threading.active_count())"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdin=DEVNULL, stdout=PIPE)
    said, _ = await asyncio.wait_for(process.communicate(), 20)
    assert said == b"1\n"
