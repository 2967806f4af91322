"""Records a real stream of this version, with jobs of every state and every kind of message in it.

``python -m tests.record_stream`` writes ``tests/fixtures/stream_<version>.jsonl``; with a word behind it, such as
``steering``, ``stream_<version>+steering.jsonl``, for what has come since. A recording is made once for each version
that is released and never changed: tests/test_recorded_streams.py reads all of them with the present software.
"""

import asyncio
import json
import logging
import os
import socket
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from gql_jobs.jetstream.server import embedded_server
from gql_jobs.jobs.messages import Failed, Started
from gql_jobs.jobs.model import Job, JobStatus
from gql_jobs.log import codec
from gql_jobs.log.commands import creation
from gql_jobs.log.job_log import open_job_log
from gql_jobs.log.retention import expire
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import open_runtime
from tests.by_hand import say
from tests.deadline import until
from tests.job_types.probe_jobs import ProbePayload
from tests.record_steering import FAR, RecordedSteering
from tests.recorded import FOLDER, lines, seen, steered_jobs, steering_values
from tests.recorder import Recorder
from tests.running import JOB_TYPES, running_worker
from tests.stories import error, request
from tests.viewers import viewer

ADA = viewer("ada", "red")
VERSION = version("gql-jobs")
GATE = "gate"
"""A file in the working directory that lets the held jobs go on."""


async def recorded() -> list[str]:
    """The lines of a recording; uses the working directory for everything."""
    async with embedded_server(Path("store")) as server:
        settings = Settings(nats_url=server.url, data_dir=Path("data"), base_retry_delay=0.05, num_workers=9)
        async with open_runtime(settings, JOB_TYPES) as runtime, open_job_log(runtime.connection) as job_log:
            made, steering = (kind(runtime, job_log, settings) for kind in (_Recording, RecordedSteering))
            await steering.by_workers()
            await made.by_workers()
            await made.by_hand()
            await steering.by_hand()
            folded = await until(lambda: job_log.last(codec.ALL_EVENTS), "there are events")
            await runtime.feed.wait_for(folded.seq, 10)
            jobs = seen(runtime.index, made.ids)
            steered = steered_jobs(runtime.index, steering.ids)
            steers = await steering_values(job_log)
            head = {"version": VERSION, "nats": runtime.connection.server_version, "jobs": jobs}
            head |= {"steered": steered, "steering": steers}
            text = [json.dumps(head), *[line async for line in lines(runtime.connection)]]
    named_after_this_machine = rf"workerId\":\"{socket.gethostname()}-"
    return [line.replace(named_after_this_machine, r"workerId\":\"host-") for line in text]


class _Recording(Recorder):
    async def by_workers(self) -> None:
        """What comes of jobs that workers run."""
        async with running_worker(self._settings) as worker:
            await self._ended("completed", ProbePayload(steps=2, saves={"page": 3}, artifact="a.txt", artifact_bytes=5))
            await self._ended("retried", ProbePayload(fail_attempts=1, steps=1))
            await self._ended("fired", ProbePayload(), run_at=datetime.now(UTC) + timedelta(seconds=0.3))
            await self._ended("dead letter", ProbePayload(permanent=True), tags=("a", "b"))
            again = await self._ended("dead letter again", ProbePayload(permanent=True))
            await self._runtime.commands.retry(again.id)
            await self._until(again.id, lambda job: job.finished_at is not None and job.last_seq > again.last_seq + 1)
            await self._expired("expired", ProbePayload(saves={"page": 1}))
            renewed = await self._expired("renewed", ProbePayload(), idempotency_key="renewed")
            await self._ended("renewed", ProbePayload(), idempotency_key="renewed")
            assert renewed.id == self.ids["renewed"]
            running = await self._created("cancelled while it ran", ProbePayload(gate=GATE))
            released = await self._created("released", ProbePayload(gate=GATE, steps=1))
            for job in (running, released):
                await self._until(job.id, lambda job: job.status is JobStatus.PROCESSING)
            cancelled = await self._runtime.commands.cancel(running.id)
            receipts = partial(self._runtime.index.notes, running.id, cancelled.event_seq)
            await until(lambda: len(receipts()) == 2, "the worker has said what became of the cancellation")
            worker.stop_fetching.set()
            worker.hand_back.set()
            await self._until(released.id, lambda job: job.status is JobStatus.QUEUED)

    async def by_hand(self) -> None:
        """What nobody runs yet, or any more."""
        commands = self._runtime.commands
        await commands.cancel((await self._created("cancelled", ProbePayload())).id)
        owned = (await commands.create(request(ProbePayload()), ADA)).job
        self.ids["of a tenant"] = owned.id
        await commands.cancel(owned.id, ADA)
        later = datetime.now(UTC) + timedelta(days=1)
        # A retry is for at once whenever the recording is used: its time has passed by then.
        soon = datetime.now(UTC) + timedelta(seconds=5)
        await commands.cancel((await self._created("cancelled before its time", ProbePayload(), run_at=soon)).id)
        # Later than a client may ask for, so that the recording can be used for as long.
        asked = request(ProbePayload(), run_at=later)
        spec = asked.spec(datetime.now(UTC), self._settings)
        self.ids["scheduled"] = asked.job_id()
        await self._log.append(creation(self.ids["scheduled"], replace(spec, run_at=FAR)))
        retrying = await self._created("retrying", ProbePayload())
        await say(self._log, retrying, Started)
        await say(self._log, retrying, Failed, errors=(error(1),), next_attempt_at=datetime.now(UTC))
        superseded = await self._created("superseded", ProbePayload())
        await say(self._log, superseded, Started)
        await say(self._log, superseded, Started, 2, supersedes=1, errors=(error(1),))
        await self._created("queued", ProbePayload())

    async def _expired(self, name: str, payload: ProbePayload, **options: Any) -> Job:
        job = await self._ended(name, payload, **options)
        assert await expire(self._log, self._runtime.artifacts, job.id, FAR)
        await until(lambda: self._runtime.index.job(job.id) is None, "the index has heard of it")
        return job


def main() -> int:
    """Record, in a folder that is thrown away."""
    logging.basicConfig(level=logging.INFO)
    target = FOLDER / f"stream_{'+'.join([VERSION, *sys.argv[1:]])}.jsonl"
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        text = asyncio.run(recorded())
    FOLDER.mkdir(exist_ok=True)
    target.write_text("\n".join(text) + "\n")
    logging.getLogger(__name__).info("%s: %d messages, %d bytes", target.name, len(text) - 1, target.stat().st_size)
    return 0


if __name__ == "__main__":
    sys.exit(main())
