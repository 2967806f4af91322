"""``python -m benchmarks.hostile.observer PORT PID JOB``: an innocent client beside an attack, in a process of its own.

Asks for one job over and over, on connections that it renews, from another address than the attacker's, and looks at
the memory of the API process meanwhile. Each line on stdin ends a phase; each phase is answered with one line of JSON.
"""

import asyncio
import json
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from resource import getpagesize

import uvloop

ADDRESS = "127.0.0.2"
"""Where the innocent client calls from; limits count clients by address."""
_PAUSE = 0.005
_REQUESTS = 20
"""On one connection; then another is opened, for that has to be possible as well."""
_WITHIN = 30.0


@dataclass
class Phase:
    """What was seen between two lines on stdin."""

    worst_ms: float = 0.0
    """The longest time until an answer was there, connecting included."""
    answers: int = 0
    refused: int = 0
    """Answers that were none: another status, or a connection that was cut."""
    least_mib: float = float("inf")
    most_mib: float = 0.0


class _Observer:
    def __init__(self, port: int, pid: int, job: str) -> None:
        self._port = port
        self._statm = Path(f"/proc/{pid}/statm")
        body = json.dumps({"query": "query ($id: ID!) { job(id: $id) { id status } }", "variables": {"id": job}})
        head = (
            f"POST /graphql HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
            f"Accept: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._request = (head + body).encode()
        self.phase = Phase()

    async def look(self) -> None:
        """Ask, one request after the other, until cancelled."""
        while True:
            try:
                await self._on_one_connection()
            except (OSError, asyncio.IncompleteReadError):
                self.phase.refused += 1
                await asyncio.sleep(_PAUSE)

    async def _on_one_connection(self) -> None:
        began = time.monotonic()
        async with asyncio.timeout(_WITHIN):
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port, local_addr=(ADDRESS, 0))
        try:
            for _ in range(_REQUESTS):
                writer.write(self._request)
                phase = self.phase
                try:
                    async with asyncio.timeout(_WITHIN):
                        status, answer = await _answer(reader)
                finally:
                    phase.worst_ms = max(phase.worst_ms, (time.monotonic() - began) * 1000)
                phase.answers += 1
                if status != b"200" or b'"errors"' in answer:
                    phase.refused += 1
                await asyncio.sleep(_PAUSE)
                began = time.monotonic()
        finally:
            writer.close()

    async def weigh(self) -> None:
        """Look at the process's resident memory, until cancelled."""
        while True:
            with suppress(OSError):
                mebibytes = int(self._statm.read_text().split()[1]) * getpagesize() / (1 << 20)
                self.phase.least_mib = min(self.phase.least_mib, mebibytes)
                self.phase.most_mib = max(self.phase.most_mib, mebibytes)
            await asyncio.sleep(0.02)


async def _answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].partition(b"\r")[0])
    return head.split(b" ", 2)[1], await reader.readexactly(length)


async def _observe(port: int, pid: int, job: str) -> None:
    observer = _Observer(port, pid, job)
    looking = [asyncio.create_task(observer.look()), asyncio.create_task(observer.weigh())]
    lines = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
    )
    while await lines.readline():
        phase, observer.phase = observer.phase, Phase()
        print(json.dumps(asdict(phase)), flush=True)
    transport.close()
    for task in looking:
        task.cancel()
    await asyncio.wait(looking)


if __name__ == "__main__":
    uvloop.run(_observe(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
