"""The lines that are logged about one job, as a worker would write them: without secrets, by whatever logger."""

import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from gql_jobs.logs import JsonLine, name_job
from gql_jobs.testing.outcomes import LogLine

_OWN = ("time", "level", "logger", "message", "exception", "stack", "job_id", "attempt", "type", "worker")
"""The members of a line that are no fields of its own, or the same in all lines of an attempt."""
_LAST_LINES_WITHIN = 2.0
"""Seconds for the last lines of processes that have ended; a program that they have left behind may never end."""
_counting = threading.Lock()
_lowered: list[int] = []
"""The level of the root logger before it was lowered, once for each job whose lines are collected now."""


class _Collector(logging.Handler):
    """Collects the records of one job, whichever thread or task has made them."""

    def __init__(self, job_id: str, lines: list[LogLine]) -> None:
        super().__init__(logging.INFO)
        self._job_id = job_id
        self._lines = lines
        self._formatter = JsonLine()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record, if it is about the job."""
        # Of a copy: what else handles the record is not to find fields that nobody gave it.
        own = logging.makeLogRecord(vars(record))
        name_job(own)
        if vars(own).get("job_id") == self._job_id:
            self._lines.append(_line(msgspec.json.decode(self._formatter.format(own))))


def _line(members: dict[str, Any]) -> LogLine:
    return LogLine(
        level=members["level"],
        logger=members["logger"],
        message=members["message"],
        exception=members.get("exception"),
        fields={name: value for name, value in members.items() if name not in _OWN},
    )


@contextmanager
def lines_about(job_id: str) -> Iterator[list[LogLine]]:
    """Yield a list that gets each line about a job, at INFO and above, until the block ends.

    Meanwhile the root logger takes lines at INFO, as a worker's does.
    """
    lines: list[LogLine] = []
    collector, root = _Collector(job_id, lines), logging.getLogger()
    with _counting:
        _lowered.append(_lowered[0] if _lowered else root.level)
        root.setLevel(min(root.level, logging.INFO))
    root.addHandler(collector)
    try:
        yield lines
    finally:
        root.removeHandler(collector)
        with _counting:
            before = _lowered.pop()
            if not _lowered:
                root.setLevel(before)


@contextmanager
def lines_of_processes(job_id: str, lines: list[LogLine]) -> Iterator[int]:
    """Yield a descriptor to be the standard error of processes that log in JSON; add what they say about a job.

    What else they write there goes to the standard error of this process.
    """
    reading, writing = os.pipe()
    reader = threading.Thread(
        target=_read, args=(reading, job_id, lines), name="log of handlers' processes", daemon=True
    )
    reader.start()
    try:
        yield writing
    finally:
        os.close(writing)
        reader.join(_LAST_LINES_WITHIN)


def _read(reading: int, job_id: str, lines: list[LogLine]) -> None:
    with open(reading, "rb") as file:
        for text in file:
            try:
                members = msgspec.json.decode(text)
                about = isinstance(members, dict) and members.get("job_id") == job_id
                if about:
                    lines.append(_line(members))
            except (msgspec.MsgspecError, UnicodeDecodeError, KeyError):
                about = False
            if not about:
                sys.stderr.write(text.decode(errors="replace"))
