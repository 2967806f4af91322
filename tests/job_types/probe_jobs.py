"""A job type whose handler does what a test asks of it."""

from typing import Any

from pydantic import Field

from gql_jobs import Model, job_type


class ProbePayload(Model):
    """What the handler shall do, in this order."""

    fail_attempts: int = Field(0, description="Attempts that raise a TransientError.")
    permanent: bool = Field(False, description="Raise a PermanentError.")
    steps: int = Field(0, description="Progress reports, evenly spread.")
    seconds: float = Field(0.0, description="How long to work, in seconds.")
    gate: str | None = Field(None, description="A file to wait for before going on.")
    saves: Any = Field(None, description="Data for a checkpoint.")
    children: int = Field(
        0, description="Jobs of the type probe to create, each with so many steps as were before it, and resultBytes."
    )
    child_key: str | None = Field(None, description="The key of all of them.")
    crash: bool = Field(False, description="Kill the process.")
    blocks: float = Field(0.0, description="How long to hold up the event loop, in seconds.")
    deaf: bool = Field(False, description="Ignore a cancellation.")
    result_bytes: int = Field(0, description="Length of the result's text.")
    artifact: str | None = Field(None, description="Name of a file to save.")
    artifact_bytes: int = Field(0, description="Its size.")
    trace: str | None = Field(None, description="A file that gets a line per run.")


class ProbeResult(Model):
    """What the handler found."""

    attempt: int = Field(description="The attempt that succeeded.")
    saved: Any = Field(None, description="What an earlier attempt had saved.")
    text: str = Field("", description="As long as asked for; the address of the file, where one was saved.")


job_type(
    "probe",
    payload=ProbePayload,
    result=ProbeResult,
    handler="tests.job_types.probe_handlers:run",
    description="Does what a test asks of it.",
)
job_type(
    "probe_thread",
    payload=ProbePayload,
    result=ProbeResult,
    handler="tests.job_types.probe_handlers:run_in_thread",
    queue="threads",
    description="The same in a thread.",
)
job_type(
    "probe_cpu",
    payload=ProbePayload,
    result=ProbeResult,
    handler="tests.job_types.probe_handlers:compute",
    queue="cpu",
    cpu_bound=True,
    description="The same in a process, without ever pausing.",
)
