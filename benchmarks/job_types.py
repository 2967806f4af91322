"""Job types for measurements: the payload of an e-mail, and handlers that do nothing but tell the time.

Its addresses are plain text: the other systems do not look whether they are any.
"""

from pydantic import Field

from gql_jobs import Model, job_type


class Letter(Model):
    """What an e-mail is made of."""

    to: str = Field(description="Its reader.")
    subject: str = Field(description="Its title.")
    body: str = Field(description="Its text.")


class Nothing(Model):
    """An empty result."""


class Ticks(Model):
    """What a ticking job does."""

    reports: int = Field(description="Reports of progress.")
    pause: float = Field(description="Seconds between two of them.")
    first: float = Field(0.0, description="Seconds before the first.")


job_type(
    "noop",
    payload=Letter,
    result=Nothing,
    handler="benchmarks.handlers:noop",
    description="Does nothing.",
)
job_type(
    "stamp",
    payload=Letter,
    result=Nothing,
    handler="benchmarks.handlers:stamp",
    description="Notes how long ago the moment in the body was.",
)
job_type(
    "ticker",
    payload=Ticks,
    result=Nothing,
    handler="benchmarks.handlers:ticker",
    description="Reports progress, with the time as its message.",
)
