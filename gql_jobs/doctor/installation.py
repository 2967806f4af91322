"""What checks are called with, an ``Installation``, and what they return: findings.

An installation has the connection, the settings, and an index that was just built from the stream. A finding has a
sentence about the problem, and one with advice.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec import Struct

from gql_jobs.doctor.inspection import last_folded
from gql_jobs.index.index import Index, open_index
from gql_jobs.index.reader import Reader, open_reader
from gql_jobs.jetstream.connection import Connection
from gql_jobs.jobs.registry import Registry
from gql_jobs.live.bus import EventBus
from gql_jobs.live.feed import Feed, run_feed
from gql_jobs.live.tally import Tally
from gql_jobs.log.heartbeats import Presence, watch_workers
from gql_jobs.log.streams import stream_info
from gql_jobs.settings import Settings

SHOWN = 5
"""Examples in a finding, at most."""
LOOK_EVERY = 5.0
"""Seconds to wait for the index before the stream's last sequence is read again."""
_NO_LIMIT = 1e9
"""Seconds; the index is new, so it cannot have missed expiries."""


class Finding(Struct, frozen=True):
    """A problem that ``check`` has found in ``count`` cases, of which ``examples`` are a few, and advice."""

    check: str
    problem: str
    advice: str
    count: int = 1
    examples: tuple[str, ...] = ()


def several(check: str, what: str, advice: str, found: Iterable[str]) -> list[Finding]:
    """Return one finding about all items of ``found``; an empty list if there are none.

    :param what: the rest of the sentence after the number of items, without the full stop.
    """
    names = sorted(found)
    if not names:
        return []
    return [Finding(check, f"{len(names)} {what}.", advice, len(names), tuple(names[:SHOWN]))]


class Installation(Struct):
    """What is examined. While the checks run, ``index`` goes on following the stream and ``presence`` the workers."""

    settings: Settings
    registry: Registry
    connection: Connection
    stream_created: str
    index: Index
    reader: Reader
    feed: Feed
    presence: Presence

    async def follow(self) -> None:
        """Wait until the index has applied everything that is in the stream now."""
        # The last message may have been deleted before the feed reads it.
        while not await self.feed.wait_for(await last_folded(self.connection), LOOK_EVERY):
            continue


@asynccontextmanager
async def open_installation(
    settings: Settings, registry: Registry, connection: Connection
) -> AsyncIterator[Installation]:
    """Yield an installation until the block ends; its index is built in a temporary folder and deleted then.

    :raises ApiError: if there is no stream.
    :raises QueueUnavailable: if the server does not answer.
    """
    stream = await stream_info(connection)
    with (
        TemporaryDirectory(prefix="gql-jobs-doctor-") as folder,
        open_index(Path(folder) / "rebuilt.sqlite", stream.created, stream.state.last_seq, _NO_LIMIT) as index,
    ):
        async with (
            open_reader(index) as reader,
            watch_workers(connection) as presence,
            run_feed(connection, index, EventBus(reader.events_after, 0), Tally((), 0)) as feed,
        ):
            installation = Installation(settings, registry, connection, stream.created, index, reader, feed, presence)
            await installation.follow()
            yield installation
