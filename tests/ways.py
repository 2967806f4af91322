"""The three ways through the code, walked for real: ``python -m tests.ways`` lists the files of ours that run on each.

A file counts if one of its functions runs in the tasks of the way. What goes on beside it (sampling the event loop's
lag, heartbeats, the server's tick) does not count, nor does what runs once for each document or process: every way is
walked a few times before it is watched.
"""

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from gql_jobs.jetstream.connection import connect
from gql_jobs.jetstream.server import embedded_server
from gql_jobs.jobs.registry import load_job_types
from gql_jobs.log.commands import JobCommands
from gql_jobs.log.job_log import open_job_log
from gql_jobs.log.streams import ensure_consumers, ensure_streams
from gql_jobs.settings import Settings
from tests.deadline import until
from tests.running import JOB_TYPES, ROOT, running_worker, worker_process
from tests.serving import ServedApi, hear, say, serving
from tests.stories import request

CREATE = "mutation ($input: CreateJobInput!) { createJob(input: $input) { job { id status } } }"
PROBE: dict[str, Any] = {"input": {"payload": {"probe": {}}}}
EVENTS = "subscription { jobEvents { __typename cursor job { id status } } }"

_SOURCES = (f"{ROOT / 'gql_jobs'}/", f"{ROOT / 'workers'}/")
_FOLLOWS_THE_STREAM = "gql_jobs/jetstream/ordered_consumer.py"
_BESIDE = (
    "LoopLag.",
    "HttpServer.serve_beside",
    "publish_heartbeats",
    "keep_leases",
    "Subscription._wait_for_msgs",
    "Maintenance.",
    "GateHolder.",
    "Losses.",
    "Authentication.run",
    "CredentialStore.",
    "KeySet.",
    "_move_repeatedly",
    "Pool._follow_stream",
    "Pool._serve_earlier_queues",
)
"""Coroutines that run whether or not anything is created, delivered or watched."""


class Steps:
    """Which files ran in which task, and whether they did so for whoever follows the stream."""

    def __init__(self) -> None:
        self.seen: set[tuple[str, bool, str]] = set()
        self.ignored: asyncio.Task[Any] | None = None

    def files(self, *coroutines: str, follower: bool | None = None) -> list[str]:
        """The files that ran in tasks of coroutines with such names; ``""`` stands for callbacks outside of any task.

        :param follower: only what was called by the ordered consumer, or only what was not.
        """
        return sorted(
            {
                file
                for name, follows, file in self.seen
                if (name in coroutines or not coroutines)
                and not name.startswith(_BESIDE)
                and follower in {None, follows}
            }
        )

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        """The hook of ``sys.setprofile``."""
        path = frame.f_code.co_filename
        if event != "call" or not path.startswith(_SOURCES):
            return
        try:
            task = asyncio.current_task()
        except RuntimeError:
            task = None
        if task is not None and task is self.ignored:
            return
        name = getattr(task.get_coro(), "__qualname__", "") if task is not None else ""
        self.seen.add((name, _is_follower(frame), path.removeprefix(f"{ROOT}/")))


def _is_follower(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.endswith(_FOLLOWS_THE_STREAM):
            return True
        frame = frame.f_back
    return False


@contextmanager
def _watched() -> Iterator[Steps]:
    steps = Steps()
    steps.ignored = asyncio.current_task()
    before = sys.getprofile()
    sys.setprofile(steps)
    try:
        yield steps
    finally:
        sys.setprofile(before)


async def creation(settings: Settings) -> list[str]:
    """From the socket to the acknowledged write and back."""
    async with serving(settings) as api:
        for _ in range(3):
            await _create(api)
        with _watched() as steps:
            await _create(api)
    return sorted(
        {
            *steps.files("RequestResponseCycle.run_asgi", ""),
            *steps.files("Client._read_loop", follower=False),
        }
    )


async def delivery(settings: Settings) -> list[str]:
    """From the delivery to the handler, its outcome in the log, and the ack."""
    async with connect(settings, "test") as connection:
        await ensure_streams(connection, settings)
        await ensure_consumers(connection, load_job_types(JOB_TYPES).queues, settings.ack_wait)
        async with open_job_log(connection) as job_log, running_worker(settings) as worker:
            await worker.started.wait()
            commands = JobCommands(job_log, settings)

            async def run_one() -> None:
                created = await commands.create(request())

                async def has_ended() -> bool:
                    found = await commands.find(created.job.id)
                    return found is not None and found.status.is_terminal

                await until(has_ended, "the job has run")

            for _ in range(3):
                await run_one()
            with _watched() as steps:
                await run_one()
    return steps.files(follower=False)


async def event(settings: Settings) -> list[str]:
    """From a message of the stream to the fold, the index, the bus, and a frame in a browser."""
    async with serving(settings) as api, worker_process(settings), api.raw_socket() as opened:
        for number in range(3):
            steps = await _completion(api, opened, str(number))
    # Whoever reads from the socket passes it on to the ordered consumer.
    return sorted(
        {"gql_jobs/jetstream/client.py"}
        | {
            file
            for name in {name for name, _, _ in steps.seen}
            if not name.startswith(("RequestResponseCycle", *_BESIDE)) and name
            for file in steps.files(name, follower=True if name == "Client._read_loop" else None)
        }
    )


async def _completion(api: ServedApi, opened: Any, number: str) -> Steps:
    await say(opened, id=number, type="subscribe", payload={"query": EVENTS})
    await api.subscribers(1)
    with _watched() as steps:
        await _create(api)
        while (await hear(opened))["payload"]["data"]["jobEvents"]["__typename"] != "JobCompleted":
            pass
    await say(opened, id=number, type="complete")
    await api.subscribers(0)
    return steps


async def _create(api: ServedApi) -> None:
    answer = (await api.http.post("/graphql", json={"query": CREATE, "variables": PROBE})).json()
    assert "errors" not in answer, answer


@asynccontextmanager
async def _server() -> AsyncIterator[Settings]:
    with tempfile.TemporaryDirectory() as folder:
        async with embedded_server(Path(folder) / "store", max_store_bytes=1 << 30) as nats:
            yield Settings(nats_url=nats.url, data_dir=Path(folder) / "data")


async def _print() -> None:
    for way in (creation, delivery, event):
        async with _server() as settings:
            files = await way(settings)
        print(f"\n{way.__name__}: {len(files)} files", *files, sep="\n  ")  # noqa: T201


if __name__ == "__main__":
    asyncio.run(_print())
