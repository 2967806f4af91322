"""The authentication of an API process that asks for it, on the server of the test."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from gql_jobs.access.authentication import Authentication, open_authentication
from gql_jobs.access.records import new_key
from gql_jobs.access.store import open_credential_store
from gql_jobs.jetstream.connection import connect
from gql_jobs.jobs.errors import Unauthenticated
from gql_jobs.jobs.viewer import NO_LIMITS, Scope, ViewLimits
from gql_jobs.settings import Settings
from tests.deadline import until

MakeKey = Callable[..., Awaitable[str]]
"""Makes an API key as ``gql-jobs keys create`` does, with the arguments of ``new_key``, all scopes by default."""


@pytest.fixture
def required(settings: Settings) -> Settings:
    """Settings under which whoever asks needs a key or a token."""
    return settings.model_copy(update={"auth": "required"})


@pytest.fixture
async def access(required: Settings) -> AsyncIterator[Authentication]:
    """The authentication of such a process."""
    async with connect(required, "test") as connection, open_authentication(connection, required) as opened:
        yield opened


@pytest.fixture
async def other(required: Settings) -> AsyncIterator[Authentication]:
    """That of another process of the installation."""
    async with connect(required, "test") as connection, open_authentication(connection, required) as opened:
        yield opened


@pytest.fixture
async def make_key(required: Settings, access: Authentication) -> AsyncIterator[MakeKey]:
    """Make keys that ``access`` knows."""
    async with connect(required, "test") as connection, open_credential_store(connection, 1) as store:

        async def make(
            name: str = "shop",
            scopes: frozenset[Scope] = frozenset(Scope),
            tenant: str | None = None,
            limits: ViewLimits = NO_LIMITS,
            **options: object,
        ) -> str:
            text, record = new_key(name, scopes, tenant, limits, **options)  # type: ignore[arg-type]
            await store.add_key(record)
            await until(lambda: is_accepted(access, text), "the process knows the key", within=1.0)
            return text

        yield make


async def is_accepted(access: Authentication, token: str) -> bool:
    """Whether somebody comes with this token; a refusal says nothing about its reason."""
    try:
        await access.viewer_of(token)
    except Unauthenticated as error:
        assert error.message == Unauthenticated().message  # noqa: PT017 - nothing but the message is asked for
        return False
    return True
