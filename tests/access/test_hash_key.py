"""The key that confidential payloads are hashed with."""

import asyncio

from gql_jobs.access.authentication import Authentication


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
