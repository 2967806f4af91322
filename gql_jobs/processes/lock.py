"""One process per folder: a lock file that names its holder, taken with ``flock``.

Owns the lock only, never what lies in the folder. The kernel drops the lock with the last process that has the
file open, so a stale file never blocks anybody and a child that inherits ``fd`` keeps the folder until it is gone
(docs/decisions.md says why this is no library's lock).
"""

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

_CHILDREN_END_WITHIN = 10.0
"""Seconds to wait for the children of a holder that died."""


class FolderInUse(RuntimeError):
    """Another process holds the folder."""


class FolderLock:
    """The lock of a folder, held while entered; one that has been released may be taken again.

    :param path: the lock file, in the folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    @property
    def fd(self) -> int:
        """The open lock file, for children that must keep the folder locked.

        :raises RuntimeError: while it is not locked.
        """
        if self._fd is None:
            raise RuntimeError(f"{self._path} is not locked.")
        return self._fd

    def acquire(self) -> None:
        """Take the lock, waiting a few seconds where the recorded holder is dead and its children are stopping.

        :raises FolderInUse: if a living process holds it, or children of a dead one for longer than 10 seconds.
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
        """Close the file. Never an explicit unlock: that would take the lock from children that share it."""
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
    """Return whether a living process holds that lock file; it is neither made nor taken."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _try_lock(fd)
    finally:
        # Closing gives back what the try may have taken.
        os.close(fd)
