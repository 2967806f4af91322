"""Runs one command that must not outlive the process that started it: ``guard.py -- nats-server -c …``.

Holds a pipe from its parent on stdin. When the parent is gone, however it went, the pipe closes and the command is
terminated. Started as a plain file, so it must import nothing but the standard library.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable

_GRACE = 10.0
"""Seconds between SIGTERM and SIGKILL."""
_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Run the command after ``--`` and return its exit code."""
    command = arguments[arguments.index("--") + 1 :]
    wake_reader, wake_writer = os.pipe()
    os.set_blocking(wake_writer, False)
    signal.set_wakeup_fd(wake_writer)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    # close_fds=False: the child shares the lock on its folder, so that the folder stays locked while it stops.
    child = subprocess.Popen(  # noqa: S603
        command,
        stdin=subprocess.DEVNULL,
        close_fds=False,
        preexec_fn=_die_with(os.getpid()),  # noqa: PLW1509  # this process has one thread
    )
    return _watch(child, wake_reader)


def _watch(child: "subprocess.Popen[bytes]", wake_reader: int) -> int:
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
            deadline = time.monotonic() + _GRACE
            child.terminate()
        elif deadline is not None and time.monotonic() >= deadline:
            child.kill()
            child.wait()
    code = child.returncode
    return code if code >= 0 else 128 - code


def _die_with(parent: int) -> Callable[[], None] | None:
    """On Linux the kernel kills the command when this guard is killed. SIGKILL, because nobody is left to insist."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the kernel knew
            os._exit(1)

    return ask


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
