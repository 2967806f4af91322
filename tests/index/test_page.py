"""Pages and counts: the filter as SQL means what the filter as a function means, and no page skips or repeats."""

import base64
import random
from contextlib import closing
from datetime import timedelta
from itertools import product
from typing import Any

import pytest
from msgspec.structs import replace

from gql_jobs.index.page import read_page
from gql_jobs.index.tables import open_read_only
from gql_jobs.jobs.errors import InvalidArgument
from gql_jobs.jobs.messages import AttemptBody, Cancelled, Completed, DeadLetter, Failed, Message, Started
from gql_jobs.jobs.model import Job, JobPriority, JobStatus, new_job_id
from gql_jobs.jobs.requests import JobFilter, JobOrder, OrderField
from gql_jobs.jobs.viewer import EVERYTHING, Visibility
from tests.library import Library
from tests.stories import BEGAN, queued, said, tell

ORDERS = [JobOrder(field, descending) for field, descending in product(OrderField, (True, False))]
ENDS: list[tuple[type[AttemptBody], ...]] = [
    (),
    (Started,),
    (Started, Failed),
    (Started, Completed),
    (Started, DeadLetter),
]
PRIORITIES = list(JobPriority)
PARENTS = [new_job_id() for _ in range(3)]


class Shelf:
    """Jobs of every kind in a library."""

    def __init__(self, library: Library, seed: int = 7) -> None:
        self.library = library
        self.ids: list[str] = []
        self._random = random.Random(seed)  # noqa: S311

    def add(self, jobs: int) -> None:
        """Jobs of random kinds; many are created in the same microsecond."""
        seq = self.library.index.position
        messages: list[Message] = []
        for _ in range(jobs):
            seq, job_id, pick = seq + 1, new_job_id(), self._random
            self.ids.append(job_id)
            facts: dict[str, Any] = {
                "type": pick.choice(["probe", "email", "report"]),
                "queue": pick.choice(["default", "threads"]),
                "priority": pick.choice(PRIORITIES),
                "tags": tuple(pick.sample(["a", "b", "c"], pick.randrange(4))),
                "parent": pick.choice([None, *PARENTS]),
                "schedule": pick.choice([None, "nightly", "hourly"]),
                "key": pick.choice([None, "shop 7", "shop 8"]),
                "concurrency_key": pick.choice([None, "acme", "it's"]),
                "created_at": BEGAN + timedelta(microseconds=seq // 5),
            }
            submission = seq
            messages.append(queued(seq, job_id=job_id, **facts))
            for kind in pick.choice(ENDS):
                seq += 1
                messages.append(replace(said(seq, kind, 1, submission), job_id=job_id))
            if pick.randrange(6) == 0 and messages[-1].kind.value in {"queued", "failed", "started"}:
                seq += 1
                messages.append(tell(seq, Cancelled(submission=submission), job_id))
        self.library.tell(*messages)

    @property
    def jobs(self) -> list[Job]:
        """All of them."""
        found = [self.library.index.job(job_id) for job_id in self.ids]
        return [job for job in found if job is not None]

    def expected(self, job_filter: JobFilter, order: JobOrder) -> list[str]:
        """The ids of the jobs that match, sorted."""

        def key(job: Job) -> tuple[Any, ...]:
            created = job.spec.created_at
            keys: dict[OrderField, tuple[Any, ...]] = {
                OrderField.CREATED_AT: (created,),
                OrderField.UPDATED_AT: (job.updated_at,),
                OrderField.FINISHED_AT: (job.finished_at or BEGAN - timedelta(days=1),),
                OrderField.PRIORITY: (job.spec.priority.rank, created),
            }
            return (*keys[order.field], job.id)

        matching = [job for job in self.jobs if job_filter.matches(job)]
        return [job.id for job in sorted(matching, key=key, reverse=order.descending)]

    async def pages(self, job_filter: JobFilter, order: JobOrder, first: int) -> list[str]:
        """The ids on all pages, one after the other."""
        ids: list[str] = []
        after: str | None = None
        while True:
            page = await self.library.reader.page(job_filter, order, first=first, after=after, offset=0)
            assert len(page.jobs) == len(page.keys) <= first
            assert page.has_previous is (after is not None)
            ids += [job.id for job in page.jobs]
            if not page.has_next:
                return ids
            after = page.cursor(-1)


@pytest.fixture
def shelf(library: Library) -> Shelf:
    shelf = Shelf(library)
    shelf.add(150)
    return shelf


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("first", [1, 7, 150, 500])
async def test_all_pages_together_are_all_jobs_in_their_order(shelf: Shelf, order: JobOrder, first: int) -> None:
    assert await shelf.pages(JobFilter(), order, first) == shelf.expected(JobFilter(), order)


@pytest.mark.parametrize(
    ("job_filter", "order"),
    [
        (JobFilter(queue=frozenset({"default"})), JobOrder()),
        (JobFilter(status=frozenset({JobStatus.COMPLETED, JobStatus.DEAD_LETTER})), JobOrder()),
        (JobFilter(status=frozenset({JobStatus.COMPLETED})), JobOrder(OrderField.UPDATED_AT)),
        (JobFilter(type=frozenset({"email"})), JobOrder(OrderField.FINISHED_AT, descending=False)),
        (JobFilter(type=frozenset({"email"}), queue=frozenset({"default"})), JobOrder(OrderField.PRIORITY)),
    ],
)
def test_a_page_of_what_many_jobs_match_is_found_in_order_and_not_sorted(
    shelf: Shelf, job_filter: JobFilter, order: JobOrder
) -> None:
    ids, plan = _page_and_plan(shelf, job_filter, order)

    assert ids == shelf.expected(job_filter, order)[:5]
    assert "TEMP B-TREE" not in plan


def test_the_few_jobs_that_match_are_looked_up_and_not_walked_to(shelf: Shelf) -> None:
    few = JobFilter(
        queue=frozenset({"default"}),
        type=frozenset({"email"}),
        priority=frozenset({JobPriority.LOW}),
        status=frozenset({JobStatus.CANCELLED}),
    )
    ids, plan = _page_and_plan(shelf, few, JobOrder(OrderField.UPDATED_AT))

    assert ids == shelf.expected(few, JobOrder(OrderField.UPDATED_AT))[:5]
    assert "SEARCH jobs USING INDEX" in plan


@pytest.mark.parametrize("visibility", [EVERYTHING, Visibility("red", created_by="ada")])
def test_the_children_of_a_job_are_found_in_order_by_their_index(shelf: Shelf, visibility: Visibility) -> None:
    children = JobFilter(parent=PARENTS[0], visibility=visibility)
    for order in (JobOrder(), JobOrder(descending=False)):
        ids, plan = _page_and_plan(shelf, children, order)
        assert ids == shelf.expected(children, order)[:5]
        assert plan == "SEARCH jobs USING INDEX jobs_parent (parent=?)"


@pytest.mark.parametrize(("part", "value"), [("schedule", "nightly"), ("key", "shop 7"), ("concurrency_key", "acme")])
def test_jobs_of_one_schedule_or_key_are_found_in_order_by_their_index(shelf: Shelf, part: str, value: str) -> None:
    parts: dict[str, Any] = {part: value}
    wanted = JobFilter(**parts)
    for order in (JobOrder(), JobOrder(descending=False)):
        ids, plan = _page_and_plan(shelf, wanted, order)
        assert ids == shelf.expected(wanted, order)[:5]
        assert plan == f"SEARCH jobs USING INDEX jobs_{part} ({part}=?)"


def _page_and_plan(shelf: Shelf, job_filter: JobFilter, order: JobOrder) -> tuple[list[str], str]:
    asked: list[str] = []
    with closing(open_read_only(shelf.library.index.path)) as database:
        database.set_trace_callback(asked.append)
        page = read_page(database, job_filter, order, first=5, after=None, offset=0)
        database.set_trace_callback(None)
        plan = database.execute(f"EXPLAIN QUERY PLAN {asked[-1]}").fetchall()
    return [job.id for job in page.jobs], "; ".join(row[3] for row in plan)


@pytest.mark.parametrize("order", [o for o in ORDERS if o.field in {OrderField.CREATED_AT, OrderField.PRIORITY}])
async def test_no_page_skips_or_repeats_a_job_while_others_arrive(shelf: Shelf, order: JobOrder) -> None:
    before = shelf.expected(JobFilter(), order)
    ids: list[str] = []
    after: str | None = None
    while True:
        page = await shelf.library.reader.page(JobFilter(), order, first=9, after=after, offset=0)
        ids += [job.id for job in page.jobs]
        if not page.has_next:
            break
        after = page.cursor(-1)
        if len(shelf.ids) < 250:
            shelf.add(10)
    assert len(ids) == len(set(ids))
    assert [job_id for job_id in ids if job_id in set(before)] == before


def _filters(shelf: Shelf) -> list[JobFilter]:
    """Random combinations of all parts, and each part alone."""
    pick = random.Random(11)  # noqa: S311
    middle = BEGAN + timedelta(microseconds=30)
    parts: dict[str, list[Any]] = {
        "ids": [(), tuple(shelf.ids[:1]), tuple(shelf.ids[::3]), (new_job_id(),)],
        "status": [(), (JobStatus.QUEUED,), (JobStatus.COMPLETED, JobStatus.RETRYING), tuple(JobStatus)],
        "type": [(), ("email",), ("email", "probe"), ("no such type",)],
        "queue": [(), ("default",), ("default", "threads")],
        "priority": [(), (JobPriority.LOW,), (JobPriority.HIGH, JobPriority.CRITICAL)],
        "tags": [(), ("a",), ("a", "b"), ("b", "b"), ("z",), ("a' OR 1=1 --",)],
        "created_after": [BEGAN, middle, middle + timedelta(days=1)],
        "created_before": [BEGAN, middle, middle + timedelta(microseconds=10)],
        "parent": [PARENTS[0], new_job_id(), ""],
        "schedule": ["nightly", "no such schedule"],
        "key": ["shop 7", "acme"],
        "concurrency_key": ["acme", "it's", ""],
    }
    parts = {name: [frozenset(v) if isinstance(v, tuple) else v for v in values] for name, values in parts.items()}
    alone = [JobFilter(**{name: value}) for name, values in parts.items() for value in values]
    mixed = [
        JobFilter(**{name: pick.choice(values) for name, values in parts.items() if pick.random() < 0.2})
        for _ in range(300)
    ]
    return [JobFilter(), *alone, *mixed]


async def test_every_combination_of_filters_finds_and_counts_exactly_the_jobs_that_match(shelf: Shelf) -> None:
    pick = random.Random(3)  # noqa: S311
    found = 0
    for job_filter in _filters(shelf):
        order = pick.choice(ORDERS)
        expected = shelf.expected(job_filter, order)
        found += bool(expected)
        page = await shelf.library.reader.page(job_filter, order, first=500, after=None, offset=0)
        assert [job.id for job in page.jobs] == expected, job_filter
        assert await shelf.library.reader.count(job_filter) == len(expected), job_filter
        assert await shelf.library.reader.ids(job_filter, 500) == shelf.expected(job_filter, JobOrder(descending=False))
    assert found > 100


@pytest.mark.parametrize("order", ORDERS)
async def test_filters_hold_on_every_page(shelf: Shelf, order: JobOrder) -> None:
    job_filter = JobFilter(type=frozenset({"email", "probe"}), tags=frozenset({"a"}))
    assert await shelf.pages(job_filter, order, 4) == shelf.expected(job_filter, order)


async def test_an_offset_counts_from_the_beginning_or_from_a_cursor(shelf: Shelf) -> None:
    reader, order = shelf.library.reader, JobOrder()
    expected = shelf.expected(JobFilter(), order)
    page = await reader.page(JobFilter(), order, first=10, after=None, offset=20)
    assert [job.id for job in page.jobs] == expected[20:30]
    assert (page.has_previous, page.has_next) == (True, True)
    on = await reader.page(JobFilter(), order, first=10, after=page.cursor(-1), offset=5)
    assert [job.id for job in on.jobs] == expected[35:45]
    beyond = await reader.page(JobFilter(), order, first=10, after=None, offset=2**31 - 1)
    assert (beyond.jobs, beyond.has_next) == ([], False)


async def test_a_page_of_nothing_says_whether_there_is_something(shelf: Shelf) -> None:
    page = await shelf.library.reader.page(JobFilter(), JobOrder(), first=0, after=None, offset=0)
    assert (page.jobs, page.has_next, page.has_previous) == ([], True, False)


def _encoded(place: str) -> str:
    return base64.urlsafe_b64encode(place.encode()).decode()


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "12",
        "\u00e4",
        "====",
        "' OR 1=1",
        _encoded("null"),
        _encoded("{}"),
        _encoded("[]"),
        _encoded('["created_at",true]'),
        _encoded('["created_at",true,[]]'),
        _encoded('["created_at",true,["a","b"]]'),
        _encoded('["created_at",true,[1,2]]'),
        _encoded('["created_at",true,[true,"a"]]'),
        _encoded('["created_at",true,[1.5,"a"]]'),
        _encoded('["created_at",true,[9223372036854775808,"a"]]'),
        _encoded(f'["created_at",true,[{"9" * 4000},"a"]]'),
        _encoded('["created_at",true,[1,"\\ud800"]]'),
        _encoded('["created_at",true,[1,"a"],' + "[" * 5000 + "]" * 5000 + "]"),
        _encoded('["colour",true,[1,"a"]]'),
    ],
)
async def test_a_cursor_that_was_never_given_out_is_refused(library: Library, cursor: str) -> None:
    with pytest.raises(InvalidArgument, match="not one this API has given out") as refused:
        await library.reader.page(JobFilter(), JobOrder(), first=1, after=cursor, offset=0)
    assert refused.value.extensions["argument"] == "after"


async def test_a_cursor_of_another_order_is_refused(shelf: Shelf) -> None:
    for given, used in product(ORDERS, ORDERS):
        page = await shelf.library.reader.page(JobFilter(), given, first=1, after=None, offset=0)
        follow = shelf.library.reader.page(JobFilter(), used, first=1, after=page.cursor(0), offset=0)
        if given == used:
            assert (await follow).has_previous
        else:
            with pytest.raises(InvalidArgument):
                await follow


async def test_queues_are_counted_and_the_oldest_queued_job_is_known(shelf: Shelf) -> None:
    counts = await shelf.library.reader.queue_counts(EVERYTHING)
    for queue in ("default", "threads"):
        of_queue = [job for job in shelf.jobs if job.spec.queue == queue]
        assert sum(counts[queue].values()) == len(of_queue)
        for status in JobStatus:
            assert counts[queue].get(status, 0) == sum(job.status is status for job in of_queue)
    waiting = [job for job in shelf.jobs if job.status is JobStatus.QUEUED]
    assert await shelf.library.reader.oldest_queued_at(EVERYTHING) == {
        queue: min(job.updated_at for job in waiting if job.spec.queue == queue) for queue in ("default", "threads")
    }


async def test_finished_jobs_come_the_longest_ago_first(shelf: Shelf) -> None:
    ended = sorted((job.finished_at, job.id) for job in shelf.jobs if job.finished_at is not None)
    before = ended[len(ended) // 2][0]
    found = await shelf.library.reader.finished(before, 1000)
    assert found == [job_id for moment, job_id in ended if moment < before]
    assert await shelf.library.reader.finished(before, 3) == found[:3]
