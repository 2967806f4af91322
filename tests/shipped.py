"""The schema of the job types that come with gql-jobs, whatever else a test has registered in this process."""

from gql_jobs.graphql.schema import JobsSchema, build_schema
from gql_jobs.jobs.registry import Registry, load_job_types
from gql_jobs.settings import Settings


def shipped_types() -> Registry:
    """The registry of a fresh installation."""
    registry = Registry()
    for job_type in load_job_types():
        if job_type.payload.__module__.startswith("gql_jobs.jobs.types."):
            registry.add(job_type)
    return registry


def shipped_schema() -> JobsSchema:
    """The schema of a fresh installation."""
    return build_schema(shipped_types(), Settings())
