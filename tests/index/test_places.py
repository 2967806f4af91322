"""How many jobs start before others, of their queue."""

import random
import sqlite3
from contextlib import closing

import pytest

from gql_jobs.index import reader
from gql_jobs.index.reader import QueuePlace
from gql_jobs.jobs.messages import Kind, Message, Started
from gql_jobs.jobs.model import Job, JobPriority, JobStatus, new_job_id
from tests.library import Library
from tests.stories import at, queued, said


@pytest.mark.parametrize("seed", range(3))
async def test_jobs_that_start_before_others_are_counted_as_if_each_were_compared_with_all(
    library: Library, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311
    jobs: dict[str, Job] = {}
    for seq in range(1, 120):
        queue, priority = chance.choice(["a", "b"]), chance.choice(list(JobPriority))
        started = [job for job in jobs.values() if job.status is JobStatus.QUEUED and chance.random() < 0.01]
        messages = [queued(seq, job_id=new_job_id(), queue=queue, priority=priority)]
        if started:
            job = started[0]
            messages = [Message(job.id, Kind.STARTED, seq, at(seq), said(seq, Started, 1, job.submission_seq).body)]
        jobs |= {event.job.id: event.job for event in library.tell(*messages)}
    waiting = [job for job in jobs.values() if job.status is JobStatus.QUEUED]
    places = {job.id: QueuePlace(job.spec.queue, job.spec.priority.rank, job.updated_at) for job in waiting}
    found = await library.reader.ahead(set(places.values()))
    for job in waiting:
        queue, rank, since = places[job.id]
        before = [
            p for p in places.values() if p.queue == queue and (p.rank > rank or (p.rank == rank and p.since < since))
        ]
        assert found[places[job.id]] == len(before)


def test_queued_jobs_are_counted_without_reading_their_rows(library: Library) -> None:
    with closing(sqlite3.connect(library.index.path)) as database:
        plan = database.execute(f"EXPLAIN QUERY PLAN {reader._QUEUED_BETWEEN}", ("a", 0, 1)).fetchall()  # noqa: SLF001
    assert "COVERING INDEX jobs_queue" in plan[0][3]
