"""What the checks look at, and what they find.

An ``Installation`` is the connection, the settings, and an index that was built from the stream just now. A ``Finding``
is a sentence on what is wrong, and one on what to do.
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
"""Seconds between two looks at where the stream ends."""
_NEVER = 1e9


class Finding(Struct, frozen=True):
    """What a check has found: ``examples`` are a few of what is meant, of ``count`` in all."""

    check: str
    problem: str
    advice: str
    count: int = 1
    examples: tuple[str, ...] = ()


def several(check: str, what: str, advice: str, found: Iterable[str]) -> list[Finding]:
    """Return one finding about all of these, none if there are none; ``what`` follows their number in its sentence."""
    names = sorted(found)
    if not names:
        return []
    return [Finding(check, f"{len(names)} {what}.", advice, len(names), tuple(names[:SHOWN]))]


class Installation(Struct):
    """``index`` goes on following the stream while the checks run; ``presence`` knows who works."""

    settings: Settings
    registry: Registry
    connection: Connection
    stream_created: str
    index: Index
    reader: Reader
    feed: Feed
    presence: Presence

    async def follow(self) -> None:
        """Bring the index to what is the stream's end now."""
        # The message that was last may be gone before the feed has come to it.
        while not await self.feed.wait_for(await last_folded(self.connection), LOOK_EVERY):
            continue


@asynccontextmanager
async def open_installation(
    settings: Settings, registry: Registry, connection: Connection
) -> AsyncIterator[Installation]:
    """Yield an installation until the block ends; its index is built beside those of the API processes and thrown away.

    :raises ApiError: if there is no stream.
    :raises QueueUnavailable: if the server does not answer.
    """
    stream = await stream_info(connection)
    with (
        TemporaryDirectory(prefix="gql-jobs-doctor-") as folder,
        open_index(Path(folder) / "rebuilt.sqlite", stream.created, stream.state.last_seq, _NEVER) as index,
    ):
        async with (
            open_reader(index) as reader,
            watch_workers(connection) as presence,
            run_feed(connection, index, EventBus(reader.events_after, 0), Tally((), 0)) as feed,
        ):
            installation = Installation(settings, registry, connection, stream.created, index, reader, feed, presence)
            await installation.follow()
            yield installation
