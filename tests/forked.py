"""Commands and programs that end by themselves, run by a process that has imported the product already.

A Python process that begins from nothing spends most of its time on imports. This one imports once, and then forks a
child for whatever it is asked to run, which ends as any other program does.
"""

import atexit
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

_COMMAND = "from gql_jobs.cli import main; main()"
_SERVER = """
import json, os, sys, tempfile
requests, answers = sys.stdin.buffer, os.dup(1)
del sys.path[0]
import gql_jobs.cli, gql_jobs.logs, gql_jobs.access.administration, gql_jobs.web.server

while line := requests.readline():
    asked = json.loads(line)
    written = [tempfile.TemporaryFile(), tempfile.TemporaryFile()]
    if (pid := os.fork()) == 0:
        break
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    texts = []
    for file in written:
        file.seek(0)
        texts.append(file.read().decode("utf-8", "surrogateescape"))
        file.close()
    os.write(answers, json.dumps([code, *texts]).encode() + b"\\n")
else:
    sys.exit()

os.close(answers)
for number, file in enumerate([open(os.devnull, "rb"), *written]):
    os.dup2(file.fileno(), number)
    file.close()
os.chdir(asked["folder"])
os.environ.clear()
os.environ.update(asked["environment"])
sys.argv = ["gql-jobs", *asked["arguments"]]
exec(compile(asked["program"], "<string>", "exec"), {"__name__": "__main__"})
"""


class Ended(NamedTuple):
    """What a process has left: its exit code and what it wrote."""

    code: int
    out: str
    err: str


def run_command(*arguments: str, folder: Path, environment: dict[str, str]) -> Ended:
    """``gql-jobs`` in that folder, with these variables beside those of this process."""
    return _run(_COMMAND, arguments, folder, {**os.environ, **environment})


def run_program(program: str, environment: dict[str, str]) -> Ended:
    """A Python program, with these variables alone."""
    return _run(program, (), Path.cwd(), environment)


def _run(program: str, arguments: tuple[str, ...], folder: Path, environment: dict[str, str]) -> Ended:
    asked = {"program": program, "arguments": arguments, "folder": str(folder), "environment": environment}
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps(asked).encode() + b"\n")
    server.stdin.flush()
    return Ended(*json.loads(server.stdout.readline()))


@cache
def _server() -> "subprocess.Popen[bytes]":
    server = subprocess.Popen([sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    atexit.register(server.communicate)
    return server
