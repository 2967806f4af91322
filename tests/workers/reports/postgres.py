"""A PostgreSQL server for tests: in a folder of its own, on a socket in that folder."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest

_PLACES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
"""Where Debian keeps it."""


class Postgres(NamedTuple):
    """A running server."""

    url: str
    control: Callable[[str], None]
    """Runs ``pg_ctl`` with an action, and waits until it is done."""

    def stop(self) -> None:
        """End the server at once."""
        self.control("stop")

    def start(self) -> None:
        """Start it again, with what it had stored."""
        self.control("start")

    def run(self, statements: str) -> None:
        """Run them in one transaction."""
        with psycopg.connect(self.url) as connection:
            connection.execute(statements.encode())


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """The server; skips the test where PostgreSQL is not installed."""
    initdb = shutil.which("initdb", path=os.pathsep.join([os.environ.get("PATH", ""), *map(str, _PLACES)]))
    if initdb is None:
        pytest.skip("PostgreSQL is not installed")
    # PostgreSQL refuses to run as root, and another user cannot enter pytest's folders.
    user = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    folder = Path(tempfile.mkdtemp(prefix="gql-jobs-pg-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, user)
        data = folder / "data"
        _run(user, initdb, "-D", str(data), "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8")
        control = str(Path(initdb).with_name("pg_ctl"))
        options = f"-k {folder} -c listen_addresses='' -c fsync=off"

        def act(action: str) -> None:
            how = ("-o", options, "-l", str(folder / "log")) if action == "start" else ("-m", "immediate")
            _run(user, control, "-D", str(data), *how, "-w", action)

        act("start")
        try:
            yield Postgres(f"postgresql://postgres@/postgres?host={folder}", act)
        finally:
            act("stop")
    finally:
        shutil.rmtree(folder)


def _run(user: str, *command: str) -> None:
    as_user = user if os.geteuid() == 0 else None
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, user=as_user, cwd="/")
