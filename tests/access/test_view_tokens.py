"""Keys and view tokens on a real server: who is let in, who is not, and who is not any more."""

import asyncio

import pytest

from gql_jobs.access.authentication import Authentication
from gql_jobs.access.records import new_key
from gql_jobs.jobs.errors import Unauthenticated
from gql_jobs.jobs.viewer import Scope, ViewLimits
from tests.deadline import until

READ = frozenset({Scope.READ})
ALL = frozenset(Scope)


async def _key(access: Authentication, scopes: frozenset[Scope] = ALL, **options: object) -> str:
    text, record = new_key("shop", scopes, **options)  # type: ignore[arg-type]
    await access._store.add_key(record)  # noqa: SLF001
    await until(lambda: record.id in access._store.keys, "the key is known")  # noqa: SLF001
    return text


async def test_a_key_makes_a_token_that_is_revoked(access: Authentication) -> None:
    viewer = await access.viewer_of(await _key(access, tenant="acme"))
    assert (viewer.subject, viewer.tenant, viewer.actor) == ("key:shop", "acme", "key:shop")
    issued = access.issue(viewer, ViewLimits(tags=frozenset({"a"})), READ, 60)
    seen = await access.viewer_of(issued.token)
    assert seen.limits == ViewLimits(tags=frozenset({"a"}))
    assert seen.tenant == "acme"
    assert await access.viewer_of(issued.token) is seen
    told = asyncio.Event()
    with access.watch(lambda: seen, told.set):
        assert await access.revoke(viewer, issued.id)
        await asyncio.wait_for(told.wait(), 1)
    with pytest.raises(Unauthenticated):
        await access.viewer_of(issued.token)
