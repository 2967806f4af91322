"""Whatever jobs there are and whoever asks: pages, counts, live events and ``Visibility.shows`` agree."""

import tempfile
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gql_jobs.index.index import Index, open_index
from gql_jobs.index.page import count_jobs, read_page
from gql_jobs.index.reader import open_reader
from gql_jobs.index.tables import open_read_only
from gql_jobs.jobs.messages import Cancelled, Completed, Expired, Message, Started
from gql_jobs.jobs.model import Job, JobStatus, new_job_id
from gql_jobs.jobs.requests import JobFilter, JobOrder, OrderField
from gql_jobs.jobs.viewer import ViewLimits, Visibility
from tests.library import CREATED
from tests.stories import BEGAN, queued, said, tell

TENANTS, SUBJECTS, TAGS = ("red", "blue"), ("ada", "bob"), ("a", "b", "c")
TYPES, QUEUES = ("probe", "email"), ("default", "threads")
IDS = [new_job_id() for _ in range(12)]
PARENTS = [new_job_id() for _ in range(2)]

histories = st.lists(
    st.tuples(
        st.fixed_dictionaries(
            {
                "type": st.sampled_from(TYPES),
                "queue": st.sampled_from(QUEUES),
                "tags": st.lists(st.sampled_from(TAGS), unique=True).map(tuple),
                "tenant": st.none() | st.sampled_from(TENANTS),
                "created_by": st.none() | st.sampled_from(SUBJECTS),
                "parent": st.none() | st.sampled_from(PARENTS),
                "created_at": st.integers(0, 3).map(lambda number: BEGAN + timedelta(microseconds=number)),
            }
        ),
        st.sampled_from([(), (Started,), (Started, Completed), (Cancelled,), (Cancelled, Expired)]),
    ),
    max_size=len(IDS),
)


def _some(values: Any) -> st.SearchStrategy[frozenset[Any] | None]:
    return st.none() | st.lists(st.sampled_from(values), unique=True).map(frozenset)


limits = st.builds(ViewLimits, ids=_some(IDS), tags=_some(TAGS), types=_some(TYPES), queues=_some(QUEUES))
visibilities = st.builds(
    Visibility,
    tenant=st.none() | st.sampled_from(TENANTS),
    limits=st.just(ViewLimits()) | limits,
    created_by=st.none() | st.sampled_from(SUBJECTS),
)
filters = st.builds(
    JobFilter,
    type=_some(TYPES),
    status=_some(tuple(JobStatus)),
    tags=_some(TAGS),
    parent=st.none() | st.sampled_from(PARENTS),
    visibility=visibilities,
)


def _tell(index: Index, told: list[Any]) -> list[Any]:
    """Jobs that have come so far; the events that the bus would hand on."""
    events = []
    for job_id, (asked, steps) in zip(IDS, told, strict=False):
        first = index.position + 1
        messages: list[Message] = [queued(first, job_id=job_id, **asked)]
        for seq, kind in enumerate(steps, first + 1):
            if kind in (Started, Completed):
                messages.append(replace(said(seq, kind, 1, first), job_id=job_id))
            else:
                messages.append(tell(seq, kind(submission=first), job_id))
        events += index.apply(messages, messages[-1].seq)
    return events


@settings(max_examples=150, deadline=None)
@given(told=histories, asked=filters, field=st.sampled_from(OrderField), descending=st.booleans())
def test_pages_counts_live_events_and_visibility_agree(
    told: list[Any], asked: JobFilter, field: OrderField, descending: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index.sqlite"
        with open_index(path, CREATED, 0, 86_400) as index, closing(open_read_only(path)) as database:
            events = _tell(index, told)
            everything = read_page(database, JobFilter(), JobOrder(), first=99, after=None, offset=0).jobs
            page = read_page(database, asked, JobOrder(field, descending=descending), first=99, after=None, offset=0)
            counted = count_jobs(database, asked)
            unlimited = replace(asked, visibility=Visibility())
    there = {job.id for job in everything if asked.visibility.shows(job) and unlimited.matches(job)}
    assert {job.id for job in page.jobs} == {job.id for job in everything if asked.matches(job)} == there
    assert counted == len(page.jobs) == len(there)
    for event in events:
        assert asked.matches(event.job) == (asked.visibility.shows(event.job) and unlimited.matches(event.job))


@settings(max_examples=60, deadline=None)
@given(told=histories, visibility=visibilities)
def test_a_visibility_shows_what_its_tenant_creator_and_limits_say(told: list[Any], visibility: Visibility) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index.sqlite"
        with open_index(path, CREATED, 0, 86_400) as index:
            _tell(index, told)
            jobs = [job for job_id in IDS if (job := index.job(job_id)) is not None]
    for job in jobs:
        assert visibility.shows(job) == _shown(visibility, job)


def _shown(visibility: Visibility, job: Job) -> bool:
    """The rule in other words."""
    limits, spec = visibility.limits, job.spec
    kinds: list[tuple[Iterable[str] | None, Iterable[str | None]]] = [
        (limits.ids, [job.id]),
        (limits.types, [spec.type]),
        (limits.queues, [spec.queue]),
        (limits.tags, spec.tags),
        (visibility.tenant and [visibility.tenant], [spec.tenant]),
        # The subject of one tenant is not that of another, or of none, with the same name.
        (
            visibility.created_by and [f"{visibility.created_by} of {visibility.tenant}"],
            [f"{spec.created_by} of {spec.tenant}"],
        ),
    ]
    return all(names is None or set(names) & set(values) for names, values in kinds)


@pytest.mark.parametrize(
    "visibility",
    [
        Visibility(),
        Visibility("red"),
        Visibility("red", ViewLimits(types=frozenset({"email"}))),
        Visibility(None, ViewLimits(tags=frozenset({"a", "b"}))),
        Visibility("blue", created_by="ada"),
        Visibility(created_by="ada"),
        Visibility("red", ViewLimits(queues=frozenset())),
    ],
)
async def test_the_numbers_of_queues_are_those_of_visible_jobs(tmp_path: Path, visibility: Visibility) -> None:
    told = [
        ({"type": kind, "queue": queue, "tenant": tenant, "tags": tags, "created_by": "ada"}, steps)
        for kind, queue, tenant, tags, steps in (
            ("probe", "default", "red", ("a",), ()),
            ("probe", "default", "blue", ("a",), (Started,)),
            ("email", "threads", "red", ("c",), ()),
            ("email", "threads", "red", (), (Started, Completed)),
            ("email", "default", "blue", ("b",), ()),
            ("probe", "threads", None, ("b",), ()),
        )
    ]
    path = tmp_path / "index.sqlite"
    with open_index(path, CREATED, 0, 86_400) as index:
        _tell(index, told)
        there = [job for job_id in IDS if (job := index.job(job_id)) is not None and visibility.shows(job)]
        waiting = [job for job in there if job.status is JobStatus.QUEUED]
        async with open_reader(index) as reader:
            counts = await reader.queue_counts(visibility)
            oldest = await reader.oldest_queued_at(visibility)
            types = await reader.waiting_types(visibility)
    assert _flat(counts) == Counter((job.spec.queue, job.status) for job in there)
    assert _flat(types) == Counter((job.spec.queue, job.spec.type) for job in waiting)
    assert oldest == {
        queue: min(job.updated_at for job in waiting if job.spec.queue == queue)
        for queue in {job.spec.queue for job in waiting}
    }


def _flat(numbers: dict[str, Any]) -> dict[Any, int]:
    return {(queue, key): number for queue, of in numbers.items() for key, number in of.items() if number}
