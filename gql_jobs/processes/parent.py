"""Ending with the process that started us, however that one ends: both ends of it, the parent's and the child's.

A parent holds a pipe to its child's stdin (``lifeline``), which closes when the parent is gone, and on Linux the kernel
kills the child with it. A child of our own watches the pipe itself (``stop_with_parent``), where the parent has set
``GQL_JOBS_PARENT_PIPE=1``; never in a process that was started by hand. Any other command, such as nats-server, is run
by this file as a guard: ``parent.py -- nats-server -c …``. The guard is started as a plain file, so nothing but the
standard library may be imported here.
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
"""The environment variable that has a child of our own watch its stdin."""
CANNOT_START = 2
"""The exit code of a process that would fail in the same way if it were started again."""
_EXIT_WITHIN = 1.0
"""Seconds between our own SIGTERM and the hard end, where the kernel has not ended us before."""
_COMMAND_STOPS_WITHIN = 10.0
"""Seconds between the SIGTERM and the SIGKILL of a guard's command."""
_PR_SET_PDEATHSIG = 1


@contextmanager
def lifeline() -> Iterator[int]:
    """Return the stdin for a child: it reads the end of the file when we are gone, or the block has ended.

    Not asyncio's PIPE: with that, ``wait`` also waits for grandchildren that share the stdin of a dead child.
    """
    reader, writer = os.pipe()
    try:
        yield reader
    finally:
        os.close(reader)
        os.close(writer)


def stop_with_parent() -> bool:
    """End this process with its parent, by SIGTERM and a second later for good, if the parent holds a lifeline to it.

    Call it once, early, in the main program.

    :returns: whether the parent does.
    """
    # Taken out, so that a grandchild which shares our stdin does not read the pipe as well.
    has_parent = os.environ.pop(VARIABLE, "") == "1"
    if has_parent:
        _death_with_parent()()
        threading.Thread(target=_end_with_pipe, name="parent pipe", daemon=True).start()
    return has_parent


def _death_with_parent() -> Callable[[], None]:
    """Return a function that has the kernel kill the calling process with its parent; it does so on Linux only.

    By SIGKILL, because whoever recorded our work, or would insist on a SIGTERM, is gone as well.
    """
    if sys.platform != "linux":
        return lambda: None
    # Looked up here: between a fork and an exec as little as possible is to be done.
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _end_with_pipe() -> None:
    try:
        while os.read(0, 4096):
            pass
    except OSError:
        return  # stdin is closed: nobody holds a pipe
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_EXIT_WITHIN)
    os._exit(1)


def _guard(arguments: list[str]) -> int:
    """Run the command after ``--`` until it ends, we are asked to, or the pipe on stdin closes; return its exit code.

    The guard is not killed with its parent, but asks its command to stop; the command is killed with the guard.
    """
    command = arguments[arguments.index("--") + 1 :]
    wake_reader, wake_writer = os.pipe()
    os.set_blocking(wake_writer, False)
    signal.set_wakeup_fd(wake_writer)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    guard, die_with_guard = os.getpid(), _death_with_parent()

    def begin() -> None:
        die_with_guard()
        if os.getppid() != guard:  # it died before the kernel knew
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
