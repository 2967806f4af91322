"""Pages of jobs: a filter and an order as SQL, and the cursor that names a place in that order.

A cursor holds the sort key of a job, not a number of rows, so the next page is right also when jobs have come or gone.
"""

import base64
import binascii
import sqlite3
from contextlib import closing
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias

import msgspec

from gql_jobs.index.tables import json_array, microseconds, moment_at, stored_job
from gql_jobs.jobs.errors import InvalidArgument
from gql_jobs.jobs.model import Job
from gql_jobs.jobs.requests import JobFilter, JobOrder, OrderField
from gql_jobs.jobs.viewer import EVERYTHING, Names, Visibility

SortKey: TypeAlias = tuple[int | str, ...]
"""The values that a job is sorted by, the id as the last; keys of one order can be compared."""

_KEYS: dict[OrderField, tuple[str, ...]] = {
    OrderField.CREATED_AT: ("created", "id"),
    OrderField.UPDATED_AT: ("updated", "id"),
    OrderField.FINISHED_AT: ("finished", "id"),
    OrderField.PRIORITY: ("priority", "created", "id"),
}
_INDEXES: dict[OrderField, str] = {
    OrderField.CREATED_AT: "jobs_created",
    OrderField.UPDATED_AT: "jobs_updated",
    OrderField.FINISHED_AT: "jobs_finished",
    OrderField.PRIORITY: "jobs_priority",
}
_TENANT_INDEXES: dict[OrderField, str] = {
    OrderField.CREATED_AT: "jobs_tenant_created",
    OrderField.UPDATED_AT: "jobs_tenant_updated",
}
"""They hold the jobs of tenants only, and have those of one in that order."""
_OF_FEW = ("parent", "schedule", "key", "concurrency_key")
"""Columns that have a value in few jobs; each has an index of its own."""
_LONGEST_CURSOR = 512
"""Characters of a cursor; those that are given out have fewer."""
_SCANNED_FROM = 10
"""The index of the order is scanned if at least one job in so many matches the filter (docs/decisions.md)."""


class Page(msgspec.Struct, frozen=True):
    """Some jobs in ``order``; ``keys[i]`` holds the values of the columns that ``jobs[i]`` is sorted by.

    ``size``: the bytes that were read of them. ``unread``: the places of those whose payload and result were not read,
    although such as are not large were.
    """

    jobs: list[Job]
    order: JobOrder
    keys: list[list[int | str]]
    size: int
    unread: list[int]
    has_next: bool
    has_previous: bool

    def cursor(self, n: int) -> str:
        """Return the cursor that names the place of ``jobs[n]``."""
        # Made only when a document selects it: making all of them is a good part of what a page costs.
        place = msgspec.json.encode(_Key(self.order.field, self.order.descending, self.keys[n]))
        return base64.urlsafe_b64encode(place).decode().rstrip("=")


class _Key(msgspec.Struct, array_like=True, frozen=True):
    field: OrderField
    descending: bool
    key: list[int | str]


class Where(NamedTuple):
    """The ``WHERE`` clause of conditions that all hold, empty where there are none, and what they are bound to."""

    sql: str
    values: tuple[Any, ...]

    def also(self, condition: str, *values: Any) -> "Where":
        """Return a copy with one further condition, whose ``?`` are bound to ``values``."""
        return Where(f"{self.sql} AND {condition}" if self.sql else f" WHERE {condition}", (*self.values, *values))


def where(job_filter: JobFilter) -> Where:
    """Return the filter as SQL over table ``jobs``, of the same few conditions however much it lists."""
    found = Where("", ())
    names: list[tuple[str, list[Any] | None]] = [
        ("id", None if job_filter.ids is None else list(job_filter.ids)),
        ("status", None if job_filter.status is None else [s.value for s in job_filter.status]),
        ("type", None if job_filter.type is None else list(job_filter.type)),
        ("queue", None if job_filter.queue is None else list(job_filter.queue)),
        ("priority", None if job_filter.priority is None else [p.rank for p in job_filter.priority]),
    ]
    for column, values in names:
        found = _one_of(found, column, values)
    if job_filter.tags is not None:
        found = _tagged(found, list(job_filter.tags), job_filter.visibility.tenant)
    if job_filter.failure_group is not None:
        dead = "SELECT job FROM dead_letters WHERE owner = ? AND failure_group = ?"
        found = found.also(f"number IN ({dead})", job_filter.visibility.tenant or "", job_filter.failure_group)
    if job_filter.moved_by is not None:
        found = found.also("moved <= ?", job_filter.moved_by)
    for column in _OF_FEW:
        if (value := getattr(job_filter, column)) is not None:
            found = found.also(f"{column} = ?", value)
    if job_filter.created_after is not None:
        found = found.also("created > ?", microseconds(job_filter.created_after))
    if job_filter.created_before is not None:
        found = found.also("created < ?", microseconds(job_filter.created_before))
    return found if job_filter.visibility is EVERYTHING else _visible(found, job_filter.visibility)


def _one_of(found: Where, column: str, values: list[Any] | None) -> Where:
    if values is None:
        return found
    if len(values) == 1:
        return found.also(f"{column} = ?", values[0])
    return found.also(f"{column} IN (SELECT value FROM json_each(?))", json_array(values))  # noqa: S608


def _visible(found: Where, visibility: Visibility) -> Where:
    """Return the same for those jobs only for which ``Visibility.shows`` is true."""
    limits = visibility.limits
    if visibility.tenant is None and visibility.created_by is not None:
        found = found.also("tenant IS NULL")
    names: list[tuple[str, Names]] = [
        ("tenant", None if visibility.tenant is None else frozenset({visibility.tenant})),
        ("created_by", None if visibility.created_by is None else frozenset({visibility.created_by})),
        ("id", limits.ids),
        ("type", limits.types),
        ("queue", limits.queues),
    ]
    for column, values in names:
        found = _one_of(found, column, None if values is None else list(values))
    if limits.tags is not None:
        carrying = "SELECT job_id FROM tags WHERE tenant = ? AND tag IN (SELECT value FROM json_each(?))"
        found = found.also(f"id IN ({carrying})", visibility.tenant or "", json_array(list(limits.tags)))
    return found


def _tagged(found: Where, tags: list[str], tenant: str | None) -> Where:
    if not tags:
        # As a condition on ids: a tenant's read names an index that has them, and SQLite knows no way by it without.
        return _one_of(found, "id", [])
    whose = tenant or ""
    if len(tags) == 1:
        return found.also("id IN (SELECT job_id FROM tags WHERE tenant = ? AND tag = ?)", whose, tags[0])
    carrying = "SELECT job_id FROM tags WHERE tenant = ? AND tag IN (SELECT value FROM json_each(?)) GROUP BY job_id"
    return found.also(f"id IN ({carrying} HAVING count(*) = ?)", whose, json_array(tags), len(tags))


def read_page(
    database: sqlite3.Connection,
    job_filter: JobFilter,
    order: JobOrder,
    *,
    first: int,
    after: str | None,
    offset: int,
    largest: int | None = None,
    max_bytes: int | None = None,
) -> Page:
    """Return a page of at most ``first`` jobs.

    :param after: the cursor of the job before the page; None begins with the first job of the order.
    :param offset: how many further jobs to leave out before the page.
    :param largest: the payload and the result of a job are read if they have no more bytes together; 0 reads none, None
        reads all. Nobody may show what was not read.
    :param max_bytes: the read ends with the first row that makes the page larger, which ``Page.size`` tells.
    :raises InvalidArgument: if ``after`` is no cursor of this order.
    """
    columns = _KEYS[order.field]
    found = where(job_filter)
    if after is not None:
        sign, marks = ("<" if order.descending else ">"), ", ".join("?" * len(columns))
        found = found.also(f"({', '.join(columns)}) {sign} ({marks})", *_decode_cursor(after, order))
    direction = "DESC" if order.descending else "ASC"
    sql = (
        f"SELECT id, spec, state, {_parts_up_to(largest)}, {', '.join(columns)}"  # noqa: S608
        f" FROM {jobs_table(database, job_filter, order)}{found.sql}"
        f" ORDER BY {', '.join(f'{column} {direction}' for column in columns)} LIMIT ? OFFSET ?"
    )
    jobs: list[Job] = []
    keys: list[list[int | str]] = []
    unread: list[int] = []
    size, has_next = 0, False
    # Row by row: a page may have as many bytes as it likes, and only so many are read at a time.
    with closing(database.execute(sql, (*found.values, first + 1, offset))) as rows:
        for job_id, spec, state, payload, result, *key in rows:
            if len(jobs) == first:
                has_next = True
                break
            size += len(spec) + len(state) + len(payload or b"") + len(result or b"")
            if max_bytes is not None and size > max_bytes:
                break
            if largest and payload is None:
                unread.append(len(jobs))
            jobs.append(stored_job(job_id, spec, state, payload, result))
            keys.append(key)
    has_previous = after is not None or offset > 0
    return Page(jobs, order, keys, size=size, unread=unread, has_next=has_next, has_previous=has_previous)


class FailureCount(NamedTuple):
    """The dead letters of a group that match a filter: how many, and when the first and the last of them failed.

    ``sample``: the id of the one that failed last.
    """

    key: str
    jobs: int
    first_at: datetime
    last_at: datetime
    sample: str


def read_failure_groups(database: sqlite3.Connection, job_filter: JobFilter, first: int) -> list[FailureCount]:
    """Return the groups of the dead letters that match, the largest first."""
    owner, found = job_filter.visibility.tenant or "", where(job_filter)
    # In this order of tables: the dead letters of one tenant are few beside its jobs.
    joined = f"FROM dead_letters AS dead CROSS JOIN jobs ON number = dead.job{found.also('dead.owner = ?').sql}"
    counted = (
        f"SELECT dead.failure_group, count(*) AS n, min(finished), max(finished) {joined}"
        " GROUP BY dead.failure_group ORDER BY n DESC, dead.failure_group LIMIT ?"
    )
    latest = f"SELECT id {joined} AND dead.failure_group = ? ORDER BY finished DESC, id LIMIT 1"
    groups = []
    for key, number, first_at, last_at in database.execute(counted, (*found.values, owner, first)).fetchall():
        row = database.execute(latest, (*found.values, owner, key)).fetchone()
        if row is not None:
            groups.append(FailureCount(key, number, moment_at(first_at), moment_at(last_at), row[0]))
    return groups


class KeysRead(NamedTuple):
    """The keys of the first jobs of a filter in an order, how many match, and the position that this is of.

    ``is_whole``: whether these are the keys of all that match.
    """

    position: int
    total: int
    keys: list[SortKey]
    is_whole: bool


def read_sort_keys(database: sqlite3.Connection, job_filter: JobFilter, order: JobOrder, limit: int) -> KeysRead:
    """Return the keys of at most ``limit`` jobs, the first in the order, as of one position of the index."""
    columns, direction = _KEYS[order.field], "DESC" if order.descending else "ASC"
    found = where(job_filter)
    # One transaction, so that all is of one moment.
    database.execute("BEGIN")
    try:
        row = database.execute("SELECT value FROM meta WHERE key = 'position'").fetchone()
        table = jobs_table(database, job_filter, order)
        sql = (
            f"SELECT {', '.join(columns)} FROM {table}{found.sql}"  # noqa: S608
            f" ORDER BY {', '.join(f'{column} {direction}' for column in columns)} LIMIT ?"
        )
        keys = database.execute(sql, (*found.values, limit + 1)).fetchall()
        total = count_jobs(database, job_filter)
    finally:
        database.execute("ROLLBACK")
    return KeysRead(int(row[0]) if row is not None else 0, total, keys[:limit], len(keys) <= limit)


def sort_key(job: Job, field: OrderField) -> SortKey:
    """Return the values that a job is sorted by, as ``read_sort_keys`` reads them; its id is the last."""
    spec = job.spec
    created = microseconds(spec.created_at)
    match field:
        case OrderField.CREATED_AT:
            return created, job.id
        case OrderField.UPDATED_AT:
            return microseconds(job.updated_at), job.id
        case OrderField.FINISHED_AT:
            return (0 if job.finished_at is None else microseconds(job.finished_at)), job.id
        case OrderField.PRIORITY:
            return spec.priority.rank, created, job.id


def _parts_up_to(largest: int | None) -> str:
    """Return the columns of payload and result; SQLite tells the length of a blob without reading it."""
    if largest is None:
        return "payload, result"
    if largest == 0:
        return "NULL, NULL"
    is_small = f"length(payload) + ifnull(length(result), 0) <= {largest:d}"
    return f"CASE WHEN {is_small} THEN payload END, CASE WHEN {is_small} THEN result END"


def where_counted(job_filter: JobFilter) -> Where:
    """Return the filter as SQL over table ``counts``, which has rows for each tenant and for all jobs together.

    :param job_filter: one for which ``is_counted`` is true.
    """
    found = where(job_filter)
    return found if job_filter.visibility.tenant is not None else found.also("tenant = ''")


def count_jobs(database: sqlite3.Connection, job_filter: JobFilter) -> int:
    """Return how many jobs match: from the table of counts where the filter allows it, else counted row by row."""
    if is_counted(job_filter):
        found, what = where_counted(job_filter), "total(n) FROM counts"
    else:
        found, what = where(job_filter), f"count(*) FROM {jobs_table(database, job_filter)}"
    return int(database.execute(f"SELECT {what}{found.sql}", found.values).fetchone()[0])


def jobs_table(database: sqlite3.Connection, job_filter: JobFilter, order: JobOrder | None = None) -> str:
    """Return the table ``jobs`` as it is named in a read of what a filter matches.

    Jobs that are named by their ids are looked for one by one: SQLite might look at all that have a status instead. A
    tenant's jobs are read by an index of theirs: SQLite might choose another one and look at the jobs of others, so
    that the time it takes would tell how many there are.

    :param order: of a read of which only the first rows are wanted.
    """
    if job_filter.failure_group is not None:
        # Found by their numbers, of which there are no more than dead letters of that group and that tenant.
        return "jobs NOT INDEXED"
    if job_filter.ids is not None or job_filter.visibility.limits.ids is not None:
        return "jobs INDEXED BY jobs_id"
    if job_filter.parent is not None:
        # All of them are of one tenant.
        return "jobs INDEXED BY jobs_parent"
    if job_filter.visibility.tenant is not None:
        return "jobs" + _tenant_index_clause(database, job_filter, order or JobOrder())
    for column in _OF_FEW:
        if getattr(job_filter, column) is not None:
            return f"jobs INDEXED BY jobs_{column}"
    return "jobs" + (_index_clause(database, job_filter, order) if order is not None else "")


def is_counted(job_filter: JobFilter) -> bool:
    """Return whether the table of counts tells how many jobs match."""
    visibility = job_filter.visibility
    return all(
        part is None
        for part in (
            job_filter.ids,
            job_filter.tags,
            job_filter.created_after,
            job_filter.created_before,
            job_filter.failure_group,
            job_filter.moved_by,
            *(getattr(job_filter, column) for column in _OF_FEW),
            visibility.created_by,
            visibility.limits.ids,
            visibility.limits.tags,
        )
    )


def _index_clause(database: sqlite3.Connection, job_filter: JobFilter, order: JobOrder) -> str:
    """Return the ``INDEXED BY`` clause that has SQLite scan the order's index instead of sorting all jobs that match.

    It is empty where SQLite does not sort anyway, or where too few jobs match: sorting a job costs more than skipping
    one, so the scan is faster only if many match (docs/decisions.md).
    """
    by_status_or_type = any(part is not None and len(part) == 1 for part in (job_filter.status, job_filter.type))
    is_in_order = job_filter == JobFilter() or (order.field is OrderField.CREATED_AT and by_status_or_type)
    if is_in_order or not is_counted(job_filter):
        return ""
    if count_jobs(database, job_filter) * _SCANNED_FROM < count_jobs(database, JobFilter()):
        return ""
    return f" INDEXED BY {_INDEXES[order.field]}"


def _tenant_index_clause(database: sqlite3.Connection, job_filter: JobFilter, order: JobOrder) -> str:
    """Return the clause for the jobs of a tenant.

    Those that its tags name are looked for one by one. Where few jobs of all tenants have the status or the type, their
    index is scanned instead of the tenant's jobs.
    """
    visibility = job_filter.visibility
    if job_filter.tags is not None or visibility.limits.tags is not None:
        return " INDEXED BY jobs_id"
    assert visibility.tenant is not None
    if order.field is OrderField.CREATED_AT:
        named = {
            column: str(value)
            for column, values in (("type", job_filter.type), ("status", job_filter.status))
            if values is not None and len(values) == 1
            for value in values
        }
        if named and _are_fewer(database, named, visibility.tenant):
            return f" INDEXED BY jobs_{'_'.join(named)}"
    own = _TENANT_INDEXES.get(order.field)
    of_tenant = JobFilter(visibility=Visibility(visibility.tenant))
    if own is None and count_jobs(database, of_tenant) * _SCANNED_FROM >= count_jobs(database, JobFilter()):
        own = _INDEXES[order.field]
    return f" INDEXED BY {own or 'jobs_tenant_created'}"


def _are_fewer(database: sqlite3.Connection, named: dict[str, str], tenant: str) -> bool:
    """Return whether fewer jobs of all tenants have these values than the tenant has jobs.

    Each page of a tenant asks this, so it is one statement.

    :param named: the values by columns of ``counts``.
    """
    conditions = " AND ".join(f"{column} = ?" for column in named)
    row = database.execute(
        f"SELECT (SELECT total(n) FROM counts WHERE tenant = '' AND {conditions})"  # noqa: S608
        " < (SELECT total(n) FROM counts WHERE tenant = ?)",
        (*named.values(), tenant),
    ).fetchone()
    return bool(row[0])


def _decode_cursor(cursor: str, order: JobOrder) -> list[int | str]:
    if len(cursor) > _LONGEST_CURSOR:
        raise InvalidArgument("after", "The cursor is not one this API has given out.")
    try:
        place = msgspec.json.decode(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)), type=_Key)
    except (msgspec.MsgspecError, binascii.Error, ValueError, RecursionError):
        raise InvalidArgument("after", "The cursor is not one this API has given out.") from None
    kinds = [str if column == "id" else int for column in _KEYS[order.field]]
    if [type(part) for part in place.key] != kinds or any(abs(p) >= 1 << 63 for p in place.key if isinstance(p, int)):
        raise InvalidArgument("after", "The cursor is not one this API has given out.")
    if (place.field, place.descending) != (order.field, order.descending):
        raise InvalidArgument("after", "The cursor belongs to a page of another order.")
    return place.key
