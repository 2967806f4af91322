"""Compares the indexes of the API processes on this machine with one that was just built from the stream.

API processes that run go on writing their indexes meanwhile, so jobs that differ are compared again after both indexes
have applied more; only what still differs is wrong.

Events ``scheduled`` are left out of the comparison: an index that was built later does not have those whose message has
been deleted since. Nothing here writes.
"""

import asyncio
import sqlite3
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from gql_jobs.doctor.installation import Finding, Installation, several
from gql_jobs.index.tables import LOSS_SHOWN, READ_ERRORS, losses_of, meta_of, open_read_only
from gql_jobs.jobs.messages import Kind
from gql_jobs.processes.lock import is_held

_CHECK = "indexes"
RECHECKS = 4
"""How often jobs that differ are compared again before they are reported."""
RECHECK_INTERVAL = 1.0
"""Seconds before each of these comparisons."""
_ADVICE = "Stop the API process that uses {path}, delete the file and start it again: it is built anew from the stream."

_JOBS = """
SELECT id FROM two.jobs WHERE id NOT IN (SELECT id FROM one.jobs)
UNION SELECT a.id FROM one.jobs AS a LEFT JOIN two.jobs AS b USING (id)
WHERE b.id IS NULL OR a.state != b.state OR a.spec != b.spec
  OR (a.status, a.updated, a.finished, a.created, a.type, a.queue, a.priority)
  != (b.status, b.updated, b.finished, b.created, b.type, b.queue, b.priority)
"""
_ROWS = {
    "events": "SELECT jobs.id, seq, nth, kind, e.state FROM {0}.events AS e JOIN {0}.jobs ON number = job"
    " WHERE kind != 'scheduled'",
    "progress": "SELECT jobs.id, seq, 0, '', p.state FROM {0}.progress AS p JOIN {0}.jobs ON number = job",
    "tags": "SELECT job_id, tenant, tag FROM {0}.tags",
    "artifacts": "SELECT job_id, name, artifact FROM {0}.artifacts",
    "notes": "SELECT * FROM {0}.notes",
}


async def check_indexes(installation: Installation) -> list[Finding]:
    """Find index files in the data folder that are damaged, differ from the stream, or have wrong counters."""
    found: list[Finding] = []
    for path in sorted(installation.settings.data_dir.glob("index-*.sqlite")):
        try:
            found += await _check(installation, path)
        except sqlite3.DatabaseError as error:
            found.append(Finding(_CHECK, f"The index {path} cannot be read: {error}.", _ADVICE.format(path=path)))
    return found


async def check_losses(installation: Installation) -> list[Finding]:
    """Find what API processes have noted lately that the stream has lost: deleted, purged, wiped or restored."""
    noted: set[tuple[str, str]] = set()
    for path in sorted(installation.settings.data_dir.glob("index-*.sqlite")):
        # One that cannot be read is another check's finding.
        with suppress(*READ_ERRORS), closing(open_read_only(path)) as database:
            noted |= {(f"{loss.at:%Y-%m-%d %H:%M:%S} UTC", loss.what) for loss in losses_of(database)}
    return [
        Finding(
            "losses",
            f"Jobs were lost, noticed at {at}: {what}",
            "Only a backup of the store has them (docs/operations.md, A store that was wiped). This is shown for "
            f"{LOSS_SHOWN.days} days, or until the index files are deleted.",
        )
        for at, what in sorted(noted)
    ]


async def _check(installation: Installation, path: Path) -> list[Finding]:
    advice = _ADVICE.format(path=path)
    position = await asyncio.to_thread(position_of, path, installation.stream_created)
    if position is None:
        # Of another stream or version: an API process replaces it when it starts.
        return []
    faults = await asyncio.to_thread(faults_of, path)
    if faults:
        return [Finding(_CHECK, f"The index {path} is damaged: {'; '.join(faults)}.", advice)]
    if not is_held(path.with_suffix(".lock")) and position < installation.feed.position:
        # No process writes it, and it lacks messages, which its process will read when it starts again.
        return []
    different = await _different(installation, path)
    miscount = await asyncio.to_thread(miscounted, path) if not different else []
    return several(_CHECK, f"jobs in the index {path} are not what the stream says", advice, different) + several(
        _CHECK, f"counters of the index {path} are not the number of its jobs", advice, miscount
    )


async def _different(installation: Installation, path: Path) -> set[str]:
    different = await asyncio.to_thread(different_jobs, installation.index.path, path)
    for _ in range(RECHECKS):
        if not different:
            break
        await asyncio.sleep(RECHECK_INTERVAL)
        await installation.follow()
        different = await asyncio.to_thread(still_different, installation.index.path, path, different)
    return different


def different_jobs(one: Path, two: Path) -> set[str]:
    """Return the ids of jobs that differ between two index files, each as of its own position.

    :raises sqlite3.DatabaseError: if one of them is damaged.
    """
    with closing(sqlite3.connect(":memory:", uri=True)) as database:
        for name, path in (("one", one), ("two", two)):
            database.execute(f"ATTACH ? AS {name}", (f"{path.absolute().as_uri()}?mode=ro",))
        found = {row[0] for row in database.execute(_JOBS)}
        for sql in _ROWS.values():
            first, second = sql.format("one"), sql.format("two")
            both = f"SELECT * FROM ({first} EXCEPT {second}) UNION SELECT * FROM ({second} EXCEPT {first})"  # noqa: S608
            found |= {row[0] for row in database.execute(both)}
        return found


def rows_of_job(path: Path, job_id: str) -> list[Any]:
    """Return all rows of a job but its events ``scheduled``, for comparison; empty if there is no such job."""
    with closing(open_read_only(path)) as database:
        job = database.execute("SELECT number, spec, state FROM jobs WHERE id = ?", (job_id,)).fetchone()
        if job is None:
            return []
        number, *job_row = job
        events = database.execute(
            "SELECT seq, nth, kind, state FROM events WHERE job = ? AND kind != ? ORDER BY seq, nth",
            (number, Kind.SCHEDULED.value),
        ).fetchall()
        progress = database.execute("SELECT seq, state FROM progress WHERE job = ?", (number,)).fetchall()
        tags = database.execute("SELECT tenant, tag FROM tags WHERE job_id = ? ORDER BY 1, 2", (job_id,)).fetchall()
        files = database.execute("SELECT name, artifact FROM artifacts WHERE job_id = ? ORDER BY name", (job_id,))
        notes = database.execute("SELECT * FROM notes WHERE job_id = ? ORDER BY seq", (job_id,))
        return [job_row, events, progress, tags, files.fetchall(), notes.fetchall()]


def miscounted(path: Path) -> list[str]:
    """Return the counters that are not the number of jobs that they count, each as ``status/type/queue``."""
    counted = "SELECT status, type, queue, priority, tenant, n FROM counts WHERE n != 0"
    kinds = "status, type, queue, priority"
    of_all = f"SELECT {kinds}, '' AS tenant, count(*) FROM jobs GROUP BY {kinds}"  # noqa: S608
    of_tenants = f"SELECT {kinds}, tenant, count(*) FROM jobs WHERE tenant IS NOT NULL GROUP BY {kinds}, tenant"  # noqa: S608
    there = f"SELECT * FROM ({of_all} UNION ALL {of_tenants})"  # noqa: S608
    both = f"SELECT * FROM ({counted} EXCEPT {there}) UNION SELECT * FROM ({there} EXCEPT {counted})"  # noqa: S608
    with closing(open_read_only(path)) as database:
        return sorted({"/".join(map(str, row[:3])) for row in database.execute(both)})


def faults_of(path: Path) -> list[str]:
    """Return what SQLite's check of the file reports, at most five faults; empty if it is sound."""
    with closing(open_read_only(path)) as database:
        faults = [str(row[0]) for row in database.execute("PRAGMA quick_check(5)")]
    return [] if faults == ["ok"] else faults


def position_of(path: Path, stream_created: str) -> int | None:
    """Return the last sequence that an index file has applied; None for one of another stream or version."""
    with closing(open_read_only(path)) as database:
        return meta_of(database, stream_created)


def still_different(one: Path, two: Path, job_ids: Iterable[str]) -> set[str]:
    """Return those of the jobs that differ between the two files now."""
    return {job_id for job_id in job_ids if rows_of_job(one, job_id) != rows_of_job(two, job_id)}
