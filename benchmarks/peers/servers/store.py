"""Jobs in a list, and topics in memory: what every Python server here stands on. Forgets everything when it ends."""

import asyncio
import os
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count, islice
from typing import Any

PRELOADED = int(os.environ.get("PEER_JOBS", "0"))


@dataclass
class StoredJob:
    id: str
    type: str
    payload: dict[str, Any]
    status: str = "QUEUED"
    priority: str = "NORMAL"
    queue: str = "default"
    progress: int = 0
    attempt: int = 0
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    finished_at: datetime | None = None
    duration_ms: int | None = None


@dataclass
class StoredEvent:
    cursor: str
    job: StoredJob


class Store:
    def __init__(self) -> None:
        self.jobs: list[StoredJob] = []
        self.by_id: dict[str, StoredJob] = {}
        self._topics: defaultdict[str, set[asyncio.Queue[StoredEvent]]] = defaultdict(set)
        self._number = count(1)
        for _ in range(PRELOADED):
            now = datetime.now(UTC)
            self._add(StoredJob(str(uuid.uuid4()), "noop", {}, "COMPLETED", finished_at=now, duration_ms=3, attempt=1))

    def create(self, payload: dict[str, Any]) -> StoredJob:
        job = StoredJob(str(uuid.uuid4()), "email", payload)
        self._add(job)
        self._publish(job, "")
        return job

    def tick(self) -> int:
        """Move every job that somebody watches."""
        watched = [name for name, queues in self._topics.items() if name and queues]
        for job_id in watched:
            job = self.by_id[job_id]
            job.progress = (job.progress + 1) % 100
            self._publish(job, job_id)
        return len(watched)

    def page(self, statuses: list[str] | None, types: list[str] | None, first: int) -> list[StoredJob]:
        """The newest that match."""
        matching = (
            job
            for job in reversed(self.jobs)
            if (statuses is None or job.status in statuses) and (types is None or job.type in types)
        )
        return list(islice(matching, first))

    async def watch(self, topic: str) -> AsyncIterator[StoredEvent]:
        """The events of a job, or of all for the empty topic."""
        queue: asyncio.Queue[StoredEvent] = asyncio.Queue()
        self._topics[topic].add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._topics[topic].discard(queue)

    def _add(self, job: StoredJob) -> None:
        self.jobs.append(job)
        self.by_id[job.id] = job

    def _publish(self, job: StoredJob, topic: str) -> None:
        event = StoredEvent(str(next(self._number)), job)
        for queue in self._topics[topic]:
            queue.put_nowait(event)


store = Store()
