"""How full the store is, and the refusal of new jobs before the store's own limit would stop running ones."""

import asyncio

import msgspec

from gql_jobs.jobs.errors import QueueFull, QueueUnavailable
from gql_jobs.log.connection import ApiError, Connection
from gql_jobs.settings import Settings

MAX_AGE = 1.0
"""Seconds for which a known size is taken for the present one."""
PATIENCE = 0.5
"""Seconds that the question may add to a creation."""


class _Limits(msgspec.Struct):
    max_storage: int = -1


class _Account(msgspec.Struct):
    """All that the account stores, in bytes, every replica counted: jobs, dead letters, artifacts, whatever else."""

    storage: int = 0
    limits: _Limits = msgspec.field(default_factory=_Limits)


class StoreUse(msgspec.Struct, frozen=True):
    """What is stored and what may be, in bytes: of the server or of the account, whichever is fuller."""

    used: int
    limit: int

    @property
    def share(self) -> float:
        """How full it is: 1 is full."""
        return self.used / self.limit


async def store_use(connection: Connection, settings: Settings) -> StoreUse:
    """How full the store is now.

    :raises ApiError, QueueUnavailable: if the server does not say.
    """
    account = msgspec.json.decode(await connection.api("INFO"), type=_Account)
    # A server tells nobody its own limit. It may have a copy of everything, and of nothing twice.
    on_one_server = StoreUse(account.storage // settings.replicas, settings.max_store_bytes)
    theirs = account.limits.max_storage
    if theirs <= 0:
        return on_one_server
    return max(on_one_server, StoreUse(account.storage, theirs), key=lambda use: use.share)


class Capacity:
    """Only creations ask; events, retries and firings of schedules are never refused."""

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self._connection = connection
        self._settings = settings
        self._use = StoreUse(0, settings.max_store_bytes)
        self._known_until = 0.0

    async def refuse_if_full(self) -> None:
        """:raises QueueFull: if the account, or a server of it, is over its share of the store.

        While the server does not answer nothing is refused here: the write itself will say so.
        """
        now = asyncio.get_running_loop().time()
        if now >= self._known_until:
            # Set before asking, so that one caller asks and the others go by the last answer.
            self._known_until = now + MAX_AGE
            try:
                async with asyncio.timeout(PATIENCE):
                    self._use = await store_use(self._connection, self._settings)
            except (ApiError, QueueUnavailable, TimeoutError):
                return
        limit = round(self._use.limit * self._settings.queue_full_ratio)
        if self._use.used > limit:
            raise QueueFull(f"The store holds {self._use.used} of at most {limit} bytes.")
