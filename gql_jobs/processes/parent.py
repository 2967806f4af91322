"""Child processes that end with their parent, however that ends: what the parent does for it, and the child.

The parent holds a pipe to the child's stdin (``lifeline``), which the kernel closes when the parent ends; on Linux the
kernel also kills the child. A child of this project watches the pipe itself (``stop_with_parent``), but only if the
parent has set ``GQL_JOBS_PARENT_PIPE=1``, so never when it was started by hand. Any other command, such as nats-server,
is run by this file as a guard: ``parent.py -- nats-server -c …``. The guard is started as a plain file, so nothing but
the standard library may be imported here.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

VARIABLE = "GQL_JOBS_PARENT_PIPE"
"""The environment variable, ``1``, that makes ``stop_with_parent`` watch stdin."""
CANNOT_START = 2
"""The exit code of a process that should not be started again, because it would fail in the same way."""
_EXIT_WITHIN = 1.0
"""Seconds between the SIGTERM of ``stop_with_parent`` and the exit, unless the kernel has killed the process before."""
_COMMAND_STOPS_WITHIN = 10.0
"""Seconds between the SIGTERM and the SIGKILL that a guard sends its command."""
_PR_SET_PDEATHSIG = 1


@contextmanager
def lifeline() -> Iterator[int]:
    """Yield a file descriptor for a child's stdin, which reaches its end when this process or the block ends.

    Not asyncio's PIPE: with that, ``wait`` also waits for grandchildren that share the stdin of a child that has ended.
    """
    reader, writer = os.pipe()
    try:
        yield reader
    finally:
        os.close(reader)
        os.close(writer)


def stop_with_parent() -> bool:
    """If the parent holds a lifeline to this process, end with it: by SIGTERM, and a second later by exiting.

    Call it once, early, in the main program.

    :returns: whether the parent holds one.
    """
    # Removed from the environment, so that a grandchild that shares stdin does not read the pipe as well.
    has_parent = os.environ.pop(VARIABLE, "") == "1"
    if has_parent:
        _kill_with_parent()()
        threading.Thread(target=_end_with_pipe, name="parent pipe", daemon=True).start()
    return has_parent


def _kill_with_parent() -> Callable[[], None]:
    """Return a function that has the kernel send the calling process SIGKILL when its parent ends; on Linux only."""
    if sys.platform != "linux":
        return lambda: None
    # Looked up here, because as little as possible should happen between fork and exec.
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _end_with_pipe() -> None:
    try:
        while os.read(0, 4096):
            pass
    except OSError:
        return  # stdin is closed: there is no pipe
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_EXIT_WITHIN)
    os._exit(1)


def _guard(arguments: list[str]) -> int:
    """Run the command after ``--``; stop it at SIGTERM, SIGINT or the end of stdin; return its exit code.

    The guard is not killed with its parent, so that it can stop its command; the command is killed with the guard.
    """
    command = arguments[arguments.index("--") + 1 :]
    wake_reader, wake_writer = os.pipe()
    os.set_blocking(wake_writer, False)
    signal.set_wakeup_fd(wake_writer)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    guard, kill_with_guard = os.getpid(), _kill_with_parent()

    def begin() -> None:
        kill_with_guard()
        if os.getppid() != guard:  # the guard ended before the kernel was asked
            os._exit(1)

    # close_fds=False: the child shares the lock on its folder, so that the folder stays locked while it stops.
    child = subprocess.Popen(  # noqa: S603
        command,
        stdin=subprocess.DEVNULL,
        close_fds=False,
        preexec_fn=begin,  # noqa: PLW1509  # this process has one thread
    )
    return _wait_for(child, wake_reader)


def _wait_for(child: "subprocess.Popen[bytes]", wake_reader: int) -> int:
    watched = [0, wake_reader]
    deadline: float | None = None
    while child.poll() is None:
        left = None if deadline is None else max(deadline - time.monotonic(), 0)
        ready, _, _ = select.select(watched, [], [], left)
        stop = False
        if 0 in ready and not os.read(0, 4096):
            watched.remove(0)
            stop = True
        if wake_reader in ready:
            stop = stop or bool({signal.SIGTERM, signal.SIGINT} & set(os.read(wake_reader, 4096)))
        if stop and deadline is None:
            deadline = time.monotonic() + _COMMAND_STOPS_WITHIN
            child.terminate()
        elif deadline is not None and time.monotonic() >= deadline:
            child.kill()
            child.wait()
    code = child.returncode
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(_guard(sys.argv[1:]))
