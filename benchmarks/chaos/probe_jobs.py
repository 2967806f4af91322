"""The job types of the load: one a coroutine, one a thread, one a process."""

from pydantic import Field

from gql_jobs import Model, job_type


class ProbePayload(Model):
    """What the handler shall do, in this order."""

    token: str = Field(description="Names this creation, whoever asks for it and how often.")
    fail_attempts: int = Field(0, description="Attempts that raise a TransientError.")
    permanent: bool = Field(False, description="Raise a PermanentError.")
    poison: bool = Field(False, description="Kill the process that runs it.")
    seconds: float = Field(0.0, description="How long to work, in seconds.")
    steps: int = Field(0, ge=0, description="Progress reports, evenly spread over that time.")
    group: str | None = Field(None, description="With whom it shares places, where these are limited.")


class ProbeResult(Model):
    """Which attempt made the result."""

    token: str = Field(description="The payload's.")
    attempt: int = Field(description="The attempt that succeeded.")


for _name, _handler, _cpu_bound in (
    ("chaos", "run", False),
    ("chaos_thread", "run_in_thread", False),
    ("chaos_cpu", "compute", True),
):
    job_type(
        _name,
        payload=ProbePayload,
        result=ProbeResult,
        handler=f"benchmarks.chaos.probe_handlers:{_handler}",
        cpu_bound=_cpu_bound,
        description="A load on purpose, which writes down that it ran.",
    )


LIMITED = "limited"
"""The queue whose jobs pass the gate, and the type of these."""
OF_A_GROUP = 2
"""Jobs of one group that run at a time."""

job_type(
    LIMITED,
    payload=ProbePayload,
    result=ProbeResult,
    handler="benchmarks.chaos.probe_handlers:run",
    queue=LIMITED,
    concurrency=OF_A_GROUP,
    concurrency_key=lambda payload: payload.group,
    description="A load on purpose, of which few run at a time.",
)
