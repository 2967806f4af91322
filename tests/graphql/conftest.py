"""What tests of the schema need that do without a server: the schema, with and without plain readers, and jobs."""

from collections.abc import Iterator

import pytest

from gql_jobs.graphql.context import Context
from gql_jobs.graphql.schema import JobsSchema, build_schema
from gql_jobs.jobs.registry import load_job_types
from tests.graphql.sample_jobs import sample_context
from tests.running import JOB_TYPES


@pytest.fixture(scope="module")
def schema() -> JobsSchema:
    """The schema as it is served."""
    return build_schema(load_job_types(JOB_TYPES))


@pytest.fixture(scope="module")
def usual_schema() -> JobsSchema:
    """The same, all fields left to GraphQL's own executor."""
    return build_schema(load_job_types(JOB_TYPES), plain_fields=False)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    """A context that answers from jobs in each state."""
    with sample_context(tmp_path_factory.mktemp("index") / "index.sqlite") as opened:
        yield opened
