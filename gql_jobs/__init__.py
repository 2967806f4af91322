"""Background jobs over one GraphQL API, with live progress, on NATS JetStream."""

from gql_jobs.jobs.coded_schedules import schedule
from gql_jobs.jobs.errors import PermanentError, TransientError
from gql_jobs.jobs.field_kinds import BigInt
from gql_jobs.jobs.handler import ChildJob, JobContext
from gql_jobs.jobs.registry import Model, Payload, job_type
from gql_jobs.jobs.unique_keys import Key
from gql_jobs.jobs.worker_hooks import WorkerState, worker_shutdown, worker_startup

__all__ = [
    "BigInt",
    "ChildJob",
    "JobContext",
    "Key",
    "Model",
    "Payload",
    "PermanentError",
    "TransientError",
    "WorkerState",
    "job_type",
    "schedule",
    "worker_shutdown",
    "worker_startup",
]
