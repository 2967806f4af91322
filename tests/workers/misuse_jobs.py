"""Job types for worker processes only: their handlers do what others should not. Not to be imported by a test."""

from gql_jobs import job_type
from tests.job_types.probe_jobs import ProbePayload, ProbeResult

for name, function, cpu_bound in (
    ("programs", "start_programs", True),
    ("logging", "log_by_other_means", False),
    ("logging_cpu", "log_by_other_means", True),
):
    handler = f"tests.workers.misuse:{function}"
    queue = "cpu" if cpu_bound else "threads"
    job_type(name, payload=ProbePayload, result=ProbeResult, handler=handler, queue=queue, cpu_bound=cpu_bound)
