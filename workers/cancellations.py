"""Hearing of cancellations of what runs here: one ordered consumer per process, of cancelled events only."""

import logging
from collections.abc import Mapping

from gql_jobs.log import codec, subjects
from gql_jobs.log.connection import Connection
from gql_jobs.log.tail import Tail
from workers.attempt import Attempt, InHand

log = logging.getLogger(__name__)


async def follow_cancellations(connection: Connection, start: int, running: Mapping[InHand, Attempt]) -> None:
    """Stop each running attempt that is cancelled; never ends by itself. ``start``: the first sequence to look at."""
    async for batch in Tail(connection, (subjects.CANCELLATIONS,), start).batches():
        for message in batch:
            named = subjects.kind_of(message.subject)
            if named is None:
                continue
            try:
                body = codec.decode(named[1], message.data)
            except codec.Unreadable as error:
                log.warning("a cancellation of job %s cannot be read: %s", named[0], error)
                continue
            attempt = running.get((named[0], body.submission))
            if attempt is not None:
                attempt.cancel(message.seq)
