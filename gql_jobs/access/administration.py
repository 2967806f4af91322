"""What ``gql-jobs keys`` does: makes, lists and revokes API keys, and replaces the key to sign view tokens with."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime

from gql_jobs import clock
from gql_jobs.access.records import KeyRecord, is_key_id, new_key
from gql_jobs.access.store import CredentialStore, open_credential_store
from gql_jobs.access.view_tokens import read_token_id
from gql_jobs.jetstream.connection import connect
from gql_jobs.jobs.errors import QueueUnavailable
from gql_jobs.jobs.viewer import ANYBODY, NO_LIMITS, Scope, ViewLimits
from gql_jobs.settings import Settings

_CONNECT_TIMEOUT = 5.0
"""Seconds to wait for the connection to NATS."""
_COLUMNS = ("id", "name", "scopes", "tenant", "limits", "created", "expires", "revoked")
_WIDEST = 60
"""Characters of a cell of the table, at most."""


@asynccontextmanager
async def open_administration(settings: Settings) -> AsyncIterator[CredentialStore]:
    """Yield the store of credentials as it is now; the bucket is made if there is none.

    :raises QueueUnavailable: if the NATS server does not answer, or refuses.
    """
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT):
                connection = await stack.enter_async_context(connect(settings, "gql-jobs keys"))
        except TimeoutError:
            raise QueueUnavailable("The NATS server cannot be reached; see GQL_JOBS_NATS_URL.") from None
        yield await stack.enter_async_context(open_credential_store(connection, settings.replicas))


async def create_key(
    settings: Settings,
    name: str,
    *,
    scopes: Iterable[Scope],
    tenant: str | None = None,
    limits: ViewLimits = NO_LIMITS,
    expires_at: datetime | None = None,
) -> tuple[str, KeyRecord]:
    """Make and store an API key; return its text, which is nowhere else, and its record.

    :raises InvalidArgument: if the name, the tenant or a limit is empty, too long, or unprintable.
    :raises QueueUnavailable: if it may not be stored.
    """
    text, record = new_key(name, frozenset(scopes), tenant, limits, expires_at)
    async with open_administration(settings) as store:
        await store.add_key(record)
    return text, record


async def list_keys(settings: Settings) -> list[KeyRecord]:
    """Return all API keys, the oldest first, those that have ended among them.

    :raises QueueUnavailable: if they cannot be read.
    """
    async with open_administration(settings) as store:
        return sorted(store.keys.values(), key=lambda key: (key.created_at, key.id))


async def revoke_credential(settings: Settings, credential_id: str) -> bool:
    """End an API key, with all view tokens made with it, or one view token; return False if there is none of that id.

    :raises QueueUnavailable: if it may not have ended.
    """
    async with open_administration(settings) as store:
        if is_key_id(credential_id):
            return await store.revoke_key(credential_id)
        found = read_token_id(credential_id, ANYBODY, store.signing_key)
        if found is None or found.ends_at <= clock.now():
            return False
        await store.revoke_token(credential_id, found.ends_at)
        return True


async def rotate_signing_key(settings: Settings, *, drop_older: bool) -> str:
    """Have view tokens be signed with a new key, and return its id.

    :param drop_older: end all view tokens that there are; without it they go on until their own end.
    :raises QueueUnavailable: if it may not be done.
    """
    async with open_administration(settings) as store:
        return (await store.rotate(drop_older=drop_older)).id


def as_table(keys: Iterable[KeyRecord]) -> str:
    """Return the keys as a table of text, without anything secret, not even the hash."""
    rows = [_COLUMNS, *(_row(key) for key in keys)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _row(key: KeyRecord) -> tuple[str, ...]:
    cells = (
        key.id,
        key.name,
        ",".join(scope for scope in Scope if scope in key.scopes),
        key.tenant if key.tenant is not None else "-",
        _limits(key.limits),
        _moment(key.created_at),
        _moment(key.expires_at),
        _moment(key.revoked_at),
    )
    return tuple(cell if len(cell) <= _WIDEST else f"{cell[: _WIDEST - 1]}…" for cell in cells)


def _limits(limits: ViewLimits) -> str:
    given = {kind: getattr(limits, kind) for kind in limits.__struct_fields__}
    return " ".join(f"{kind}={','.join(sorted(names))}" for kind, names in given.items() if names is not None) or "-"


def _moment(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M}" if at is not None else "-"
