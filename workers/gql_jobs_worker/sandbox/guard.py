"""The guard of a handler's process: starts it, and sees to it that nothing of it is left, however either side ends.

A worker starts a guard for each process; the guard forks that process before anything heavy is imported. Both have the
worker's socket as stdin. When the process ends, or the worker does, the guard kills whatever the handlers have started
and left behind, also what is in sessions and groups of its own, and ends as the process has ended. Only the standard
library may be imported here.
"""

import ctypes
import os
import resource
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_GONE_WITHIN = 5.0
"""Seconds after which processes that SIGKILL does not end are left alone."""


def run_guarded() -> NoReturn:
    """Fork the process of the handlers, which runs ``child.run`` with the arguments of this one, and guard it."""
    wake_reader, wake_writer = os.pipe()
    os.set_blocking(wake_writer, False)
    signal.set_wakeup_fd(wake_writer)
    # A service manager may send SIGTERM to every process of a worker, which then ends its handlers itself. Not ignored:
    # programs that a handler starts would inherit that, and do have the defaults so.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, _ignore)
    guard = os.getpid()
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    handlers = os.fork()
    if handlers == 0:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.close(wake_reader)
        os.close(wake_writer)
        os.setpgid(0, 0)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard:  # it ended before the kernel was asked
            os._exit(1)
        from gql_jobs_worker.sandbox.child import run  # noqa: PLC0415  # the guard itself stays small

        run(*sys.argv[1:5])
    _end_as(_watch(handlers, wake_reader))


def _watch(handlers: int, wake_reader: int) -> int:
    """Return the wait status of the process once it has ended, or SIGKILL's if the worker ended its connection."""
    poll = select.poll()
    # Nothing but the end of the connection, of either direction: what is sent is read by the process.
    poll.register(0, getattr(select, "POLLRDHUP", 0))
    poll.register(wake_reader, select.POLLIN)
    status: int | None = None
    while status is None:
        for fd, _ in poll.poll():
            if fd == 0:
                status = signal.SIGKILL
            else:
                os.read(wake_reader, 4096)
        ended = _reap()
        status = ended.get(handlers, status)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(handlers, signal.SIGKILL)
    _kill_descendants()
    return status


def _kill_descendants() -> None:
    """Kill all children until there are none; orphans become children of the guard, on Linux."""
    deadline = time.monotonic() + _GONE_WITHIN
    while time.monotonic() < deadline:
        _reap()
        children = _children()
        if not children:
            return
        for child in children:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(child, signal.SIGKILL)
        time.sleep(0.002)


def kill_marked(variable: str) -> None:
    """Kill every process that was started with ``NAME=value`` in its environment; nothing without ``/proc``.

    For what a guard would have killed that was killed itself.
    """
    deadline, marked = time.monotonic() + _GONE_WITHIN, variable.encode()
    while time.monotonic() < deadline:
        found = False
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if marked in (folder / "environ").read_bytes().split(b"\0"):
                    os.kill(int(folder.name), signal.SIGKILL)
                    found = True
        if not found:
            return
        time.sleep(0.002)


def _children() -> list[int]:
    """Return the ids of this process's children that have not been reaped; an empty list without ``/proc``."""
    found, own = [], str(os.getpid())
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):
            # Behind the name, which is in parentheses and may hold anything: the state and the parent.
            if (folder / "stat").read_bytes().rpartition(b")")[2].split()[1].decode() == own:
                found.append(int(folder.name))
    return found


def _reap() -> dict[int, int]:
    """Return the wait statuses, by process id, of all children that have ended."""
    ended: dict[int, int] = {}
    with suppress(ChildProcessError):
        while (child := os.waitpid(-1, os.WNOHANG))[0]:
            ended[child[0]] = child[1]
    return ended


def _end_as(status: int) -> NoReturn:
    """End this process with the exit code or the signal of a wait status."""
    if os.WIFSIGNALED(status):
        # The core is that of the process; this one has nothing to say.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        number = os.WTERMSIG(status)
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 1)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value)


def _ignore(*_: object) -> None:
    """Handle a signal by doing nothing."""
