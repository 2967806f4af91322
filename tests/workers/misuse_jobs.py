"""A job type for worker processes only: its handler starts programs. Not to be imported by a test."""

from gql_jobs import job_type
from tests.job_types.probe_jobs import ProbePayload, ProbeResult

job_type(
    "programs",
    payload=ProbePayload,
    result=ProbeResult,
    handler="tests.workers.misuse:start_programs",
    queue="cpu",
    cpu_bound=True,
)
