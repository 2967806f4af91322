"""Tests of one's own handlers and of what creates jobs, against the parts that run in production.

``run_handler`` runs one attempt of a handler without a server; ``JobsEnv`` is the whole system for one test. The same
for tests that are coroutines: ``arun_handler`` and ``AsyncJobsEnv``. docs/testing.md shows them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gql_jobs.testing.handler_runs import HandlerRunOptions, arun_handler, run_handler
from gql_jobs.testing.job_records import JobRecord
from gql_jobs.testing.outcomes import (
    AttemptError,
    AttemptFailed,
    ErrorKind,
    HandlerOutcome,
    LogLine,
    ProgressReport,
    SavedFile,
)

if TYPE_CHECKING:
    from gql_jobs.testing.environment import AsyncJobsEnv, Drained, NotDrained
    from gql_jobs.testing.nats_namespaces import NatsNamespaces
    from gql_jobs.testing.sync_environment import JobsEnv

__all__ = [
    "AsyncJobsEnv",
    "AttemptError",
    "AttemptFailed",
    "Drained",
    "ErrorKind",
    "HandlerOutcome",
    "HandlerRunOptions",
    "JobRecord",
    "JobsEnv",
    "LogLine",
    "NatsNamespaces",
    "NotDrained",
    "ProgressReport",
    "SavedFile",
    "arun_handler",
    "run_handler",
]

_LATE = {
    "AsyncJobsEnv": "environment",
    "Drained": "environment",
    "NotDrained": "environment",
    "NatsNamespaces": "nats_namespaces",
    "JobsEnv": "sync_environment",
}
"""The modules of what needs the whole API: a test of one handler should not wait for the import of that."""


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATE[name]}"), name)
