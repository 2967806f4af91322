"""One process per folder."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import PIPE

import pytest

from gql_jobs.processes.lock import FolderInUse, FolderLock

_HOLDER = """
import sys, subprocess
from pathlib import Path
from gql_jobs.processes.lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
lock.acquire()
child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], pass_fds=[lock.fd])
print(child.pid, flush=True)
sys.stdin.read()
"""


def test_a_held_folder_is_refused_naming_the_holder(tmp_path: Path) -> None:
    second = FolderLock(tmp_path / "lock")
    refused = pytest.raises(FolderInUse, match=f"is already used by process {os.getpid()};")
    with FolderLock(tmp_path / "lock"), refused:
        second.acquire()
    with FolderLock(tmp_path / "lock"):
        pass


def test_a_file_left_by_a_dead_process_blocks_nobody(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("999999999\n")
    with FolderLock(tmp_path / "lock"):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_the_children_of_a_killed_holder_keep_the_folder_until_they_are_gone(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    # The child shares the holder's stdin, so it ends when the test closes it.
    with subprocess.Popen([sys.executable, "-c", _HOLDER, str(path)], stdin=PIPE, stdout=PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.kill()
        holder.wait()
        with ThreadPoolExecutor() as threads:
            lock = FolderLock(path)
            waiting = threads.submit(lock.acquire)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.2)
            holder.stdin.close()
            waiting.result(timeout=10)
            lock.release()


def test_the_lock_is_not_passed_on_by_accident(tmp_path: Path) -> None:
    with FolderLock(tmp_path / "lock"):
        child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=PIPE)
    try:
        with FolderLock(tmp_path / "lock"):
            pass
    finally:
        child.communicate(timeout=10)
