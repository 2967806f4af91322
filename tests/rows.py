"""An index file, row by row, and noise in place of them."""

import os
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

PAGE_SIZE = 4096
"""Bytes of a page of the file."""
TABLES = (
    *("meta", "jobs", "tags", "dead_letters", "counts", "events", "progress", "artifacts", "notes", "expired"),
    *("unreadable", "minutes", "minutes_began", "steering", "dependencies"),
)


def rows(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, but counters that have come to nothing, the clock, and which message was read last."""
    database = sqlite3.connect(path)
    try:
        tables = {row[0] for row in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        assert tables == set(TABLES)
        found = {table: sorted(database.execute(f"SELECT * FROM {table}").fetchall()) for table in TABLES}  # noqa: S608
    finally:
        database.close()
    found["meta"] = [row for row in found["meta"] if row[0] not in {"applied", "newest"}]
    found["counts"] = [row for row in found["counts"] if row[-1]]
    return found


def counted(path: Path) -> tuple[Counter[tuple[Any, ...]], Counter[tuple[Any, ...]]]:
    """Jobs per status, type, queue and priority, of each tenant and of all: as the counters say, and as counted."""
    database = sqlite3.connect(path)
    try:
        counters = database.execute("SELECT status, type, queue, priority, tenant, n FROM counts WHERE n").fetchall()
        jobs = database.execute("SELECT status, type, queue, priority, tenant FROM jobs").fetchall()
    finally:
        database.close()
    return Counter({row[:5]: row[5] for row in counters}), Counter(
        (*job[:4], tenant) for job in jobs for tenant in ("", job[4]) if tenant is not None
    )


def overwrite(path: Path, first_page: int = 1) -> None:
    """Noise in place of every page from that one on, also of what has not been moved from the log into the file."""
    for place, start in ((path, first_page * PAGE_SIZE), (path.with_name(path.name + "-wal"), 32)):
        if place.exists():
            with place.open("r+b") as file:
                file.seek(start)
                file.write(os.urandom(max(place.stat().st_size - start, 0)))
