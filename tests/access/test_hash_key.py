"""The key that confidential payloads are hashed with."""

import asyncio

from gql_jobs.access.authentication import Authentication, open_authentication
from gql_jobs.access.store import known_hash_key
from gql_jobs.jetstream.connection import Connection, connect
from gql_jobs.settings import Settings


async def test_all_processes_hash_with_one_key_also_when_they_ask_at_once_or_after_it_was_deleted(
    access: Authentication, other: Authentication
) -> None:
    first, second = await asyncio.gather(access.hash_key(), other.hash_key())
    assert first == second == await other.hash_key()
    assert str(first) == f"<HashKey {first.id}>"
    await access._store._bucket.delete(f"hmac.{first.id}")  # noqa: SLF001
    third = await access.hash_key()
    assert third.id != first.id
    assert await other.hash_key() == third


async def test_whoever_may_not_make_the_key_reads_it_without_the_rest_of_the_bucket(
    connection: Connection, settings: Settings
) -> None:
    assert await known_hash_key(connection) is None
    async with connect(settings, "api") as api, open_authentication(api, settings) as access:
        assert await known_hash_key(connection) is None
        made = await access.hash_key()
        assert await known_hash_key(connection) == made
        await access._store._bucket.delete(f"hmac.{made.id}")  # noqa: SLF001
        assert await known_hash_key(connection) is None
        again = await access.hash_key()
        assert await known_hash_key(connection) == again
