"""A temporary folder for one worker process, and the removal of folders that killed processes have left.

A folder belongs to the process that holds its lock. The kernel releases that lock with the process, however it ends.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "gql-jobs-worker-"
"""The prefix of the names of such folders."""


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Remove the folders of dead processes, then yield one for this process, which is removed when the block ends."""
    _remove_leftovers()
    folder, lock = _make()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _make() -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        lock = _locked(folder)
        # Another process that cleans up may have come between the two.
        if lock is not None and folder.exists():
            return folder, lock


def _remove_leftovers() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):
            if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
                continue
            lock = _locked(folder)
            if lock is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)


def _locked(folder: Path) -> int | None:
    """Return the file descriptor of the folder, locked; None if another process has locked it or it does not exist."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    return fd
