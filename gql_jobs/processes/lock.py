"""A data folder of this project's: closed to other users of the machine, and locked by one process.

``keep_private`` closes it. ``FolderLock`` is a file locked with ``flock`` that holds the process id of its holder.
Beside that of ``gql-jobs dev`` lies a file with the address of its API (``address_kept``), for programs that look for
it in the same folder (``address_of_dev``).

The kernel releases the lock when the last process that has the file open ends. So a stale file blocks nothing, and a
child process that inherits ``fd`` keeps the folder locked until it ends. docs/decisions.md says why no library is used.
"""

import fcntl
import json
import logging
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

log = logging.getLogger(__name__)

_OURS = ("nats", "mails", "artifacts", "sales", "index-*", "*.lock", "mailbox.json", "dev.json")
"""What this project keeps in a data folder, which may be one that has other files as well."""
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
DEV_LOCK = "dev.lock"
"""The lock of ``gql-jobs dev`` in its data folder."""
_DEV_ADDRESS = "dev.json"
"""The file with the address of its API, which means something only while the lock is held."""
_CHILDREN_END_WITHIN = 10.0
"""Seconds to wait for the child processes of a holder that has ended."""


def keep_private(data_dir: Path) -> None:
    """Have all files that this process makes from now on be its user's alone, and those that are in ``data_dir`` too.

    What cannot be changed there is named in the log. Call it once, early, in the main program.
    """
    os.umask(_OTHERS)
    open_to_others = 0
    for path in _reachable_by_others(data_dir):
        try:
            path.chmod(stat.S_IMODE(path.stat().st_mode) & ~_OTHERS)
        except FileNotFoundError:
            continue
        except OSError:
            open_to_others += 1
    if open_to_others:
        log.warning("other users of this machine may reach %d files in %s", open_to_others, data_dir)


def _reachable_by_others(data_dir: Path) -> Iterator[Path]:
    for pattern in _OURS:
        for path in data_dir.glob(pattern):
            if not _is_open(path):
                continue  # nor is anything below it reachable
            for folder, _, names in os.walk(path):
                below = (Path(folder, name) for name in names)
                yield from (found for found in below if not found.is_symlink() and _is_open(found))
                if folder != str(path) and _is_open(Path(folder)):
                    yield Path(folder)
            yield path  # last, so that an interrupted walk is repeated


def _is_open(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & _OTHERS)
    except OSError:
        return False


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
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
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


@contextmanager
def address_kept(data_dir: Path, address: str) -> Iterator[None]:
    """Have ``address_of_dev`` find that address until the block ends. For the holder of ``DEV_LOCK``."""
    path = data_dir / _DEV_ADDRESS
    unfinished = path.with_suffix(".new")
    unfinished.unlink(missing_ok=True)
    fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "w") as file:  # noqa: PTH123 - a descriptor, with the mode it was made with
        json.dump({"url": address, "pid": os.getpid()}, file)
    # Whoever reads it finds all of it, or the one before.
    unfinished.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def address_of_dev(data_dir: Path) -> str | None:
    """Return the address of the API of the ``gql-jobs dev`` of this user that runs in a folder; None if none does."""
    try:
        if not is_held(data_dir / DEV_LOCK):
            return None
        with (data_dir / _DEV_ADDRESS).open("rb") as file:
            # Who may write it decides where keys are sent.
            if os.fstat(file.fileno()).st_uid != os.getuid():
                return None
            kept = json.loads(file.read(4096))
        # A holder that is not ready yet may find the file of one that was killed.
        holder = (data_dir / DEV_LOCK).read_text().strip()
        return str(kept["url"]) if str(kept["pid"]) == holder else None
    except (OSError, ValueError, LookupError, TypeError):
        return None
