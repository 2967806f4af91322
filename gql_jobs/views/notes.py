"""The receipts of cancellations in the index: beside jobs and events, because they change neither."""

import sqlite3
from datetime import datetime
from typing import NamedTuple

from gql_jobs.jobs.messages import Message, Noted, Receipt
from gql_jobs.views.tables import microseconds, moment


class Note(NamedTuple):
    """One receipt, and when the stream stored it."""

    receipt: Receipt
    at: datetime
    attempt: int
    worker_id: str


def note_row(message: Message) -> tuple[str | int, ...]:
    """The row of table ``notes``, in the order of its columns."""
    body: Noted = message.body
    at = microseconds(message.at)
    return message.job_id, message.seq, body.cancelled_seq, body.receipt.value, at, body.attempt, body.worker_id


def notes_of(database: sqlite3.Connection, job_id: str, cancelled_seq: int) -> list[Note]:
    """The receipts of one cancellation, oldest first."""
    sql = "SELECT receipt, at, attempt, worker_id FROM notes WHERE job_id = ? AND cancelled_seq = ? ORDER BY seq"
    rows = database.execute(sql, (job_id, cancelled_seq))
    return [Note(Receipt(receipt), moment(at), attempt, worker) for receipt, at, attempt, worker in rows]
