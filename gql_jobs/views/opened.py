"""A connection to the index file that is in use now: one that was replaced would be read as it was, for ever."""

import sqlite3
from typing import NamedTuple

from gql_jobs.views.index import Index
from gql_jobs.views.tables import read_only


class Opened(NamedTuple):
    """A connection to the file of that generation of the index."""

    generation: int
    database: sqlite3.Connection


def current(opened: Opened | None, index: Index, generation: int) -> Opened:
    """``opened``, or a new connection where it is none to that generation of the file."""
    if opened is not None:
        if opened.generation == generation:
            return opened
        opened.database.close()
    return Opened(generation, read_only(index.path))
