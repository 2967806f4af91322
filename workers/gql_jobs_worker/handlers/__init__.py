"""The handlers of the job types that come with gql-jobs: one module per type, importing what that type needs."""

from functools import cache

from gql_jobs.settings import Settings


@cache
def environment_settings() -> Settings:
    """Return the settings of the environment, read once per process; a handler is not given the worker's."""
    return Settings()
