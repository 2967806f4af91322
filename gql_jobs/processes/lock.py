"""A lock on a folder: a file locked with ``flock`` that holds the process id of its holder.

The kernel releases the lock when the last process that has the file open ends. So a stale file blocks nothing, and a
child process that inherits ``fd`` keeps the folder locked until it ends. docs/decisions.md says why no library is used.
"""

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

_CHILDREN_END_WITHIN = 10.0
"""Seconds to wait for the child processes of a holder that has ended."""


class FolderInUse(RuntimeError):
    """Another process has locked the folder; the message says which and what to do."""


class FolderLock:
    """A lock on a folder: a context manager that may be entered again after it was left.

    :param path: the lock file, in the folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    @property
    def fd(self) -> int:
        """The file descriptor of the lock file, for child processes that have to keep the folder locked.

        :raises RuntimeError: while it is not locked.
        """
        if self._fd is None:
            raise RuntimeError(f"{self._path} is not locked.")
        return self._fd

    def acquire(self) -> None:
        """Take the lock; if its holder has ended, wait up to 10 seconds for that one's child processes.

        :raises FolderInUse: if a running process holds it, or child processes of an ended one still do.
        :raises OSError: if the lock file cannot be made.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        deadline = time.monotonic() + _CHILDREN_END_WITHIN
        while not _try_lock(fd):
            holder = os.pread(fd, 32, 0).decode(errors="replace").strip()
            if _alive(holder) or time.monotonic() > deadline:
                os.close(fd)
                raise FolderInUse(
                    f"{self._path.parent} is already used by process {holder or '(unknown)'}; "
                    "stop that one first, or choose another folder with --data-dir."
                )
            time.sleep(0.02)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd

    def release(self) -> None:
        """Close the file, without unlocking it: child processes that share it keep the lock."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _alive(holder: str) -> bool:
    if not holder.isdecimal():
        return False
    try:
        os.kill(int(holder), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def is_held(path: Path) -> bool:
    """Return whether a process holds that lock file. The file is not created, nor the lock taken."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _try_lock(fd)
    finally:
        # Closing releases the lock if the try has taken it.
        os.close(fd)
