"""The jobs that messages speak of, as the index has them: the latest are kept in memory, all others read at once.

A message names its job's submission. That is the number of the job's row for all but retried and scheduled ones, and
jobs that run one after the other have been created so: their rows lie side by side, while random ids lie anywhere.
"""

import sqlite3
from collections import OrderedDict
from collections.abc import Iterable, Mapping

import msgspec

from gql_jobs.jobs.messages import Message
from gql_jobs.views.changes import Known
from gql_jobs.views.tables import job_of

_KEPT = 10_000
_BY_NUMBER = "SELECT number, id, spec, state FROM jobs WHERE number IN (SELECT value FROM json_each(?))"
_BY_ID = "SELECT number, id, spec, state FROM jobs WHERE id IN (SELECT value FROM json_each(?))"


class KnownJobs:
    """Jobs as of the index's position. May raise what SQLite raises of a damaged file."""

    def __init__(self) -> None:
        self._latest: OrderedDict[str, Known] = OrderedDict()

    def one(self, database: sqlite3.Connection, job_id: str) -> Known | None:
        """The job of that id, if there is one."""
        return self._latest.get(job_id) or _read(database, _BY_ID, [job_id]).get(job_id)

    def of(self, database: sqlite3.Connection, messages: Iterable[Message]) -> dict[str, Known]:
        """The jobs of these messages that there are."""
        known: dict[str, Known] = {}
        submissions: dict[str, int] = {}
        for message in messages:
            job_id = message.job_id
            kept = self._latest.get(job_id)
            if kept is not None:
                known[job_id] = kept
            else:
                submissions[job_id] = message.body.submission
        known |= _read(database, _BY_NUMBER, [number for number in submissions.values() if number])
        return known | _read(database, _BY_ID, [job_id for job_id in submissions if job_id not in known])

    def keep(self, jobs: Mapping[str, Known | None]) -> None:
        """Keep what has become of these jobs; None for what is gone."""
        for job_id, known in jobs.items():
            self._latest.pop(job_id, None)
            if known is not None:
                self._latest[job_id] = known
        while len(self._latest) > _KEPT:
            self._latest.popitem(last=False)

    def forget(self) -> None:
        """The index begins anew."""
        self._latest.clear()


def _read(database: sqlite3.Connection, sql: str, keys: list[int] | list[str]) -> dict[str, Known]:
    rows = database.execute(sql, (msgspec.json.encode(keys).decode(),)) if keys else ()
    return {job_id: Known(number, job_of(job_id, spec, state)) for number, job_id, spec, state in rows}
