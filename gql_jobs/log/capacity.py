"""How full the stream is, and the refusal of new jobs before the store's own limit would stop running ones."""

import asyncio

import msgspec

from gql_jobs.jobs.errors import QueueFull, QueueUnavailable
from gql_jobs.log.connection import ApiError, Connection
from gql_jobs.log.topology import stream_info
from gql_jobs.settings import Settings

MAX_AGE = 1.0
"""Seconds for which a known size is taken for the present one."""
PATIENCE = 0.5
"""Seconds that the question may add to a creation."""


class _Limits(msgspec.Struct):
    max_storage: int = -1


class _Account(msgspec.Struct):
    limits: _Limits = msgspec.field(default_factory=_Limits)


class Capacity:
    """Only creations ask; events, retries and firings of schedules are never refused."""

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self._connection = connection
        self._settings = settings
        self._limit: int | None = None
        self._used = 0
        self._known_until = 0.0

    async def refuse_if_full(self) -> None:
        """:raises QueueFull: if the stream is over its share of the store.

        While the server does not answer nothing is refused here: the write itself will say so.
        """
        now = asyncio.get_running_loop().time()
        if now >= self._known_until:
            # Set before asking, so that one caller asks and the others go by the last answer.
            self._known_until = now + MAX_AGE
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._ask()
            except (ApiError, QueueUnavailable, TimeoutError):
                return
        if self._limit is not None and self._used > self._limit:
            raise QueueFull(f"The stream holds {self._used} of at most {self._limit} bytes.")

    async def _ask(self) -> None:
        if self._limit is None:
            account = msgspec.json.decode(await self._connection.api("INFO"), type=_Account)
            store = self._settings.max_store_bytes
            if account.limits.max_storage > 0:
                store = min(store, account.limits.max_storage)
            self._limit = round(store * self._settings.queue_full_ratio)
        self._used = (await stream_info(self._connection)).state.bytes
