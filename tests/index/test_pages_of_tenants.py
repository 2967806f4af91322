"""Pages and counts of a tenant look at that tenant's jobs only, however many others have."""

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gql_jobs.index.index import Index, open_index
from gql_jobs.index.page import count_jobs, read_page
from gql_jobs.index.reader import open_reader
from gql_jobs.index.tables import open_read_only
from gql_jobs.jobs.model import JobStatus, new_job_id
from gql_jobs.jobs.requests import JobFilter, JobOrder, OrderField
from gql_jobs.jobs.viewer import ViewLimits, Visibility
from tests.library import CREATED
from tests.rows import counted
from tests.stories import BEGAN, queued

RED = Visibility("red")
OTHERS = 400


class Planned:
    """A connection that notes how SQLite would do what it is asked."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self.plans: list[str] = []

    def execute(self, sql: str, values: Any = ()) -> sqlite3.Cursor:
        """Note the plan and run the statement."""
        plan = self._database.execute(f"EXPLAIN QUERY PLAN {sql}", values).fetchall()
        self.plans.append("; ".join(row[3] for row in plan))
        return self._database.execute(sql, values)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    """Three jobs of one tenant among many of another and of none."""
    path = tmp_path_factory.mktemp("index") / "index.sqlite"
    with open_index(path, CREATED, 0, 86_400) as index:
        messages = [
            queued(
                seq,
                job_id=new_job_id(),
                tenant="red" if seq in (50, 150, 250) else ("blue" if seq % 2 else None),
                created_at=BEGAN + timedelta(seconds=seq),
                tags=("a",),
                created_by="ada",
            )
            for seq in range(1, OTHERS)
        ]
        index.apply(messages, OTHERS)
        counters, jobs = counted(path)
        assert counters == jobs
        yield index


@pytest.fixture
def database(filled: Index) -> Iterator[sqlite3.Connection]:
    """A connection to the file of the index."""
    with closing(open_read_only(filled.path)) as opened:
        yield opened


def _page(database: Any, field: OrderField = OrderField.CREATED_AT, **asked: Any) -> list[str]:
    found = JobFilter(**{"visibility": RED, **asked})
    jobs = read_page(database, found, JobOrder(field), first=2, after=None, offset=0).jobs
    return [job.id for job in jobs]


@pytest.mark.parametrize(
    ("field", "index"),
    [
        (OrderField.CREATED_AT, "jobs_tenant_created"),
        (OrderField.UPDATED_AT, "jobs_tenant_updated"),
        (OrderField.FINISHED_AT, "jobs_tenant_created"),
        (OrderField.PRIORITY, "jobs_tenant_created"),
    ],
)
@pytest.mark.parametrize(
    "asked", [{}, {"status": frozenset({JobStatus.QUEUED})}, {"type": frozenset({"probe"})}, {"created_after": BEGAN}]
)
def test_a_page_of_a_tenant_looks_at_its_jobs_by_their_index(
    database: sqlite3.Connection, field: OrderField, index: str, asked: dict[str, Any]
) -> None:
    planned = Planned(database)
    assert len(_page(planned, field, **asked)) == 2
    (plan,) = [plan for plan in planned.plans if "jobs" in plan and "counts" not in plan]
    assert f"USING INDEX {index} (tenant=?" in plan
    assert ("TEMP B-TREE" in plan) == (field in {OrderField.FINISHED_AT, OrderField.PRIORITY})


def test_the_next_page_of_a_tenant_goes_on_in_the_index(database: sqlite3.Connection) -> None:
    planned: Any = Planned(database)
    order, own = JobOrder(), JobFilter(visibility=RED)
    first = read_page(database, own, order, first=2, after=None, offset=0)
    last = read_page(planned, own, order, first=2, after=first.cursor(-1), offset=0)
    assert (len(first.jobs), first.has_next, len(last.jobs), last.has_next) == (2, True, 1, False)
    assert "USING INDEX jobs_tenant_created (tenant=? AND (created,id)<(?,?))" in planned.plans[-1]


def test_a_status_that_few_jobs_have_is_found_by_its_own_index_among_a_tenant_s_many(
    database: sqlite3.Connection,
) -> None:
    planned = Planned(database)
    rare = frozenset({JobStatus.DEAD_LETTER})
    assert _page(planned, status=rare, visibility=Visibility("blue")) == []
    assert "USING INDEX jobs_status (status=?" in planned.plans[-1]


def test_a_tenant_s_jobs_are_counted_by_its_own_counters(database: sqlite3.Connection) -> None:
    planned: Any = Planned(database)
    assert count_jobs(planned, JobFilter(visibility=RED)) == 3
    assert planned.plans[-1] == "SEARCH counts USING PRIMARY KEY (tenant=?)"
    assert count_jobs(planned, JobFilter(created_after=BEGAN + timedelta(seconds=100), visibility=RED)) == 2
    assert "jobs_tenant_created (tenant=? AND created>?)" in planned.plans[-1]


@pytest.mark.parametrize(
    "asked",
    [
        JobFilter(tags=frozenset({"a"}), visibility=RED),
        JobFilter(tags=frozenset({"a", "b"}), visibility=RED),
        JobFilter(visibility=Visibility("red", ViewLimits(tags=frozenset({"a", "b"})))),
    ],
)
def test_a_tenant_s_tags_are_looked_for_among_its_own(database: sqlite3.Connection, asked: JobFilter) -> None:
    """Else the time would tell how many jobs of others carry a tag, which may be the name of a customer."""
    planned: Any = Planned(database)
    expected = 0 if asked.tags is not None and "b" in asked.tags else 3
    assert count_jobs(planned, asked) == expected
    assert len(read_page(planned, asked, JobOrder(), first=9, after=None, offset=0).jobs) == expected
    assert all("SEARCH tags USING PRIMARY KEY (tenant=? AND tag=?)" in plan for plan in planned.plans)


@pytest.mark.parametrize(
    "visibility",
    [
        RED,
        Visibility("red", created_by="ada"),
        Visibility("red", ViewLimits(types=frozenset({"probe"}), queues=frozenset({"default"}))),
        Visibility("red", ViewLimits(tags=frozenset({"a"}))),
        Visibility("red", ViewLimits(ids=frozenset({new_job_id()}))),
    ],
)
@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"ids": frozenset({new_job_id()}), "status": frozenset({JobStatus.QUEUED})},
        {"queue": frozenset({"default"}), "created_after": BEGAN},
        {"tags": frozenset({"a"}), "type": frozenset({"probe"})},
    ],
)
async def test_no_read_for_a_tenant_looks_at_jobs_of_others(
    filled: Index,
    database: sqlite3.Connection,
    visibility: Visibility,
    asked: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    planned: Any = Planned(database)

    async def read(of: Callable[[Any], Any]) -> Any:
        return of(planned)

    job_filter = JobFilter(visibility=visibility, **asked)
    async with open_reader(filled) as reader:
        for name in ("_read", "_read_short"):
            monkeypatch.setattr(reader, name, read)
        await reader.page(job_filter, JobOrder(), first=9, after=None, offset=0)
        await reader.count(job_filter)
        await reader.ids(job_filter, 9)
        await reader.queue_counts(visibility)
        await reader.waiting_types(visibility)
        await reader.oldest_queued_at(visibility)
    of_jobs = [plan for plan in planned.plans if " jobs " in plan]
    assert len(of_jobs) >= 3
    own = re.compile(r"USING (COVERING )?INDEX (jobs_tenant_[a-z]+ \(tenant=|jobs_id \(id=\? AND tenant=\?\))")
    assert all(own.search(plan) for plan in of_jobs), of_jobs
    if "ids" in asked or visibility.limits.ids is not None:
        assert any("jobs_id (id=? AND tenant=?)" in plan for plan in of_jobs)


@pytest.mark.parametrize("visibility", [Visibility(), Visibility(None, ViewLimits(types=frozenset({"probe"}))), RED])
def test_jobs_that_are_named_by_their_ids_are_looked_for_one_by_one(
    database: sqlite3.Connection, visibility: Visibility
) -> None:
    planned: Any = Planned(database)
    status, ids = frozenset({JobStatus.QUEUED}), frozenset({new_job_id(), new_job_id()})
    assert _page(planned, ids=ids, status=status, visibility=visibility) == []
    assert count_jobs(planned, JobFilter(ids=ids, status=status, visibility=visibility)) == 0
    assert all("SEARCH jobs USING INDEX jobs_id (id=?" in plan for plan in planned.plans), planned.plans


def test_tags_are_found_among_all_jobs_by_whoever_sees_all(database: sqlite3.Connection) -> None:
    assert count_jobs(database, JobFilter(tags=frozenset({"a"}))) == OTHERS - 1
    assert count_jobs(database, JobFilter(visibility=Visibility(None, ViewLimits(tags=frozenset({"a"}))))) == OTHERS - 1


def test_a_creator_s_own_jobs_have_an_index(database: sqlite3.Connection) -> None:
    planned = Planned(database)
    _page(planned, visibility=Visibility(None, ViewLimits(), "ada"))
    assert "USING INDEX jobs_created_by (created_by=?)" in planned.plans[-1]


def test_jobs_without_a_tenant_take_no_room_in_the_indexes_of_tenants(tmp_path: Path) -> None:
    with open_index(tmp_path / "index.sqlite", CREATED, 0, 86_400) as index:
        index.apply([queued(seq, job_id=new_job_id()) for seq in range(1, 100)], 99)
        with closing(open_read_only(index.path)) as opened:
            sql = "SELECT sum(pgsize) FROM dbstat WHERE name = ?"
            sizes = [opened.execute(sql, (name,)).fetchone()[0] for name in ("jobs_tenant_created", "jobs_created")]
    assert sizes[0] == 4096 < sizes[1]
