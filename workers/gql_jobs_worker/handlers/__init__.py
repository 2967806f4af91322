"""The handlers of the job types that come with gql-jobs: one module per type, importing what that type needs."""

from functools import cache

from gql_jobs.settings import Settings


@cache
def environment_settings() -> Settings:
    """Return the settings as the environment has them, read once per process: a handler is given none."""
    return Settings()
