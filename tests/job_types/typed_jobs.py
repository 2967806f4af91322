"""Job types whose payload models name their result models; a test that needs them adds them to the registry."""

from uuid import UUID, uuid4

from pydantic import Field, SecretStr

from gql_jobs import JobContext, Model, Payload
from gql_jobs.jobs.registry import JobType


class CountedMessage(Model):
    """What became of a message."""

    sent_to: str
    length: int
    number: UUID
    note: str | None = None


class MessagePayload(Payload[CountedMessage]):
    """A message to count."""

    to: str = Field(min_length=2)
    words: list[str] = Field(default_factory=list)
    number: UUID = Field(default_factory=uuid4)
    password: SecretStr | None = None


class PingPayload(Payload[None]):
    """Nothing comes of it."""

    to: str = "all"


async def count(_context: JobContext, payload: MessagePayload) -> CountedMessage:
    """Count the message."""
    note = str(len(payload.password.get_secret_value())) if payload.password is not None else None
    length = len(" ".join(payload.words))
    return CountedMessage(sent_to=payload.to, length=length, number=payload.number, note=note)


async def ping(_context: JobContext, _payload: PingPayload) -> None:
    """Do nothing."""


TYPED = (
    JobType("typed_message", MessagePayload, CountedMessage, "tests.job_types.typed_jobs:count"),
    JobType("typed_ping", PingPayload, None, "tests.job_types.typed_jobs:ping"),
)
