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


class Capacity:
    """Only creations ask; events, retries and firings of schedules are never refused."""

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self._connection = connection
        self._settings = settings
        self._account = _Account()
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
                    self._account = msgspec.json.decode(await self._connection.api("INFO"), type=_Account)
            except (ApiError, QueueUnavailable, TimeoutError):
                return
        # A server tells nobody its own limit. It may have a copy of everything, and of nothing twice.
        on_one_server = self._account.storage // self._settings.replicas
        self._check(on_one_server, self._settings.max_store_bytes)
        if self._account.limits.max_storage > 0:
            self._check(self._account.storage, self._account.limits.max_storage)

    def _check(self, used: int, store: int) -> None:
        limit = round(store * self._settings.queue_full_ratio)
        if used > limit:
            raise QueueFull(f"The store holds {used} of at most {limit} bytes.")
