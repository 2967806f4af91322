"""The pytest plugin of gql-jobs: fixtures with the whole system in them (docs/testing.md).

A package of its own, which imports nothing of gql-jobs before a test asks for it: pytest loads it wherever gql-jobs is
installed, also for tests that have nothing to do with jobs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from gql_jobs.testing import AsyncJobsEnv, JobsEnv, NatsNamespaces

async_fixture: Any = pytest.fixture
try:
    # In its strict mode it runs no asynchronous fixtures but its own. It is a plugin, so it is loaded anyway.
    import pytest_asyncio
except ImportError:
    pass
else:
    async_fixture = pytest_asyncio.fixture


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the configuration file."""
    parser.addini("gql_jobs_imports", "Modules that register job types, for the fixtures of gql-jobs.", type="args")


@pytest.fixture(scope="session")
def jobs_nats() -> Iterator[NatsNamespaces]:
    """A nats-server for all tests of this process; each environment has a namespace of its own there."""
    from gql_jobs.testing import NatsNamespaces

    with NatsNamespaces() as nats:
        yield nats


@pytest.fixture
def jobs_env_settings() -> dict[str, Any]:
    """Settings of the environments, others than those of the environment variables; to be overridden."""
    return {}


@pytest.fixture
def jobs_env(
    jobs_nats: NatsNamespaces, jobs_env_settings: dict[str, Any], pytestconfig: pytest.Config
) -> Iterator[JobsEnv]:
    """An API, a worker and a namespace for one test that is a plain function."""
    from gql_jobs.testing import JobsEnv

    with JobsEnv(jobs_nats, pytestconfig.getini("gql_jobs_imports"), jobs_env_settings) as env:
        yield env


@async_fixture  # type: ignore[untyped-decorator]  # it may be that of either
async def async_jobs_env(
    jobs_nats: NatsNamespaces, jobs_env_settings: dict[str, Any], pytestconfig: pytest.Config
) -> AsyncIterator[AsyncJobsEnv]:
    """An API, a worker and a namespace for one test that is a coroutine, on its event loop."""
    from gql_jobs.testing import AsyncJobsEnv

    async with AsyncJobsEnv(jobs_nats, pytestconfig.getini("gql_jobs_imports"), jobs_env_settings) as env:
        yield env
