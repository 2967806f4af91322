"""Background jobs over one GraphQL API, with live progress, on NATS JetStream."""

from gql_jobs.jobs.errors import PermanentError, TransientError
from gql_jobs.jobs.handler import JobContext
from gql_jobs.jobs.registry import Model, job_type

__all__ = ["JobContext", "Model", "PermanentError", "TransientError", "job_type"]
