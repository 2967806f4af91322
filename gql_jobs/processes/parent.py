"""Ending with the process that started us, however that one ends. Both ends of it: the parent's and the child's.

A parent that sets ``GQL_JOBS_PARENT_PIPE=1`` holds a pipe to our stdin; the pipe closes when it is gone. Must never
do anything in a process that was started by hand.
"""

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

VARIABLE = "GQL_JOBS_PARENT_PIPE"
CANNOT_START = 2
"""The exit code of a process that would fail in the same way if it were started again."""
_GRACE = 1.0
"""Seconds between our own SIGTERM and the hard end, where the kernel has not ended us before."""
_PR_SET_PDEATHSIG = 1


@contextmanager
def lifeline() -> Iterator[int]:
    """The stdin for a child: it reads the end of the file when we are gone, or have left the context.

    Not asyncio's PIPE: with that, ``wait`` also waits for grandchildren that share the stdin of a dead child.
    """
    reader, writer = os.pipe()
    try:
        yield reader
    finally:
        os.close(reader)
        os.close(writer)


def stop_with_parent() -> bool:
    """Watch the pipe from now on, if there is one, and say so. Call once, early, in the main program."""
    # Taken out, so that a grandchild which shares our stdin does not read the pipe as well.
    has_parent = os.environ.pop(VARIABLE, "") == "1"
    if has_parent:
        _die_with_parent()
        threading.Thread(target=_watch, name="parent pipe", daemon=True).start()
    return has_parent


def _die_with_parent() -> None:
    """On Linux the kernel itself ends us with it: SIGKILL, because whoever recorded our work is gone as well."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _watch() -> None:
    try:
        while os.read(0, 4096):
            pass
    except OSError:
        return  # stdin is closed: nobody holds a pipe
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE)
    os._exit(1)
