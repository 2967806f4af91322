"""Properties of pages: whatever is asked for and whatever arrives meanwhile, no job is skipped and none comes twice."""

import tempfile
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gql_jobs.index.index import Index, open_index
from gql_jobs.index.page import count_jobs, read_page
from gql_jobs.index.tables import open_read_only
from gql_jobs.jobs.messages import Completed, Message, Started
from gql_jobs.jobs.model import Job, JobPriority, new_job_id
from gql_jobs.jobs.requests import JobFilter, JobOrder, OrderField
from tests.library import CREATED
from tests.stories import BEGAN, queued, said

TYPES = ("probe", "email")
QUEUES = ("default", "threads")
TAGS = ("a", "b")
PARENTS = (new_job_id(), new_job_id())

facts = st.fixed_dictionaries(
    {
        "type": st.sampled_from(TYPES),
        "queue": st.sampled_from(QUEUES),
        "priority": st.sampled_from(JobPriority),
        "tags": st.lists(st.sampled_from(TAGS), unique=True).map(tuple),
        "parent": st.none() | st.sampled_from(PARENTS),
        # Few moments, so that many jobs share theirs; also ones before those that pages have passed.
        "created_at": st.integers(0, 5).map(lambda number: BEGAN + timedelta(microseconds=number)),
    }
)
arrivals = st.lists(st.tuples(facts, st.integers(0, 2)), max_size=8)


def _some(values: tuple[Any, ...]) -> st.SearchStrategy[frozenset[Any] | None]:
    return st.none() | st.lists(st.sampled_from(values), unique=True).map(frozenset)


filters = st.builds(
    JobFilter,
    type=_some(TYPES),
    queue=_some(QUEUES),
    priority=_some(tuple(JobPriority)),
    tags=_some(TAGS),
    parent=st.none() | st.sampled_from(PARENTS),
    created_after=st.none() | st.integers(-1, 5).map(lambda number: BEGAN + timedelta(microseconds=number)),
)
orders = st.builds(
    JobOrder, field=st.sampled_from([OrderField.CREATED_AT, OrderField.PRIORITY]), descending=st.booleans()
)


def _arrive(index: Index, jobs: list[tuple[dict[str, Any], int]]) -> list[Job]:
    """Jobs that come and go so far: queued, started, completed."""
    seq, messages, ids = index.position, list[Message](), []
    for asked, steps in jobs:
        seq, job_id = seq + 1, new_job_id()
        ids.append(job_id)
        messages.append(queued(seq, job_id=job_id, **asked))
        for kind in (Started, Completed)[:steps]:
            submission = messages[-1].seq if kind is Started else messages[-2].seq
            seq += 1
            messages.append(replace(said(seq, kind, 1, submission), job_id=job_id))
    if messages:
        index.apply(messages, seq)
    return [job for job_id in ids if (job := index.job(job_id)) is not None]


def _place(order: JobOrder, job: Job) -> tuple[Any, ...]:
    key = (job.spec.created_at, job.id)
    return key if order.field is OrderField.CREATED_AT else (job.spec.priority.rank, *key)


@settings(max_examples=40, deadline=None)
@given(
    first_jobs=arrivals,
    later=st.lists(arrivals, max_size=6),
    job_filter=filters,
    order=orders,
    first=st.integers(1, 4),
)
def test_all_pages_hold_every_job_that_was_there_once_and_in_order_while_others_arrive(
    first_jobs: list[Any], later: list[list[Any]], job_filter: JobFilter, order: JobOrder, first: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index.sqlite"
        with open_index(path, CREATED, 0, 86_400) as index, closing(open_read_only(path)) as database:
            there = [job for job in _arrive(index, first_jobs) if job_filter.matches(job)]
            assert count_jobs(database, job_filter) == len(there)
            everybody, shown, after = list(there), list[Job](), None
            while True:
                page = read_page(database, job_filter, order, first=first, after=after, offset=0)
                shown += page.jobs
                if not page.has_next:
                    break
                after = page.cursor(-1)
                everybody += _arrive(index, later.pop() if later else [])
    places = [_place(order, job) for job in shown]
    assert places == sorted(set(places), reverse=order.descending)
    assert {job.id for job in there} <= {job.id for job in shown} <= {job.id for job in everybody}
    assert all(job_filter.matches(job) for job in shown)
