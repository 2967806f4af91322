"""Job types as an application has them, with their handlers: what tests of ``gql_jobs.testing`` run."""

import asyncio
import logging
import sys
import threading
from typing import Any, NoReturn

from pydantic import Field, SecretStr, field_validator

from gql_jobs import JobContext, Model, Payload, PermanentError, TransientError
from gql_jobs.jobs.payload_codec import CodecContext, StoredPart
from gql_jobs.jobs.registry import JobType, Registry

log = logging.getLogger("sms_gateway")


class SmsResult(Model):
    """What was sent."""

    parts: int
    token: str = ""


class SmsPayload(Payload[SmsResult]):
    """A message."""

    to: str = Field(pattern=r"^\+\d+$")
    text: str = ""
    password: SecretStr | None = None

    @field_validator("text")
    @classmethod
    def _is_no_insult(cls, text: str) -> str:
        if text == "insult":
            raise ValueError("be nice")
        return text


class PlainPayload(Model):
    """A number of steps."""

    steps: int = 0
    fails: bool = False


async def send_sms(context: JobContext, payload: SmsPayload) -> SmsResult:
    """Send it in parts of ten characters, from the part that is not sent yet."""
    parts = range(0, len(payload.text), 10)
    for number in range(context.saved or 0, len(parts)):
        context.log.info("part %d goes to %s", number, payload.to)
        context.progress(100 * (number + 1) / len(parts), f"part {number + 1}")
        await context.checkpoint(number + 1)
    await context.save_artifact("sent.txt", payload.text.encode())
    return SmsResult(parts=len(parts), token=context.idempotency_token)


async def refuse(context: JobContext, payload: SmsPayload) -> SmsResult:
    """Say a secret in every way that there is, and fail for good."""
    assert payload.password is not None
    secret = payload.password.get_secret_value()
    log.info("logging in with %s", secret)
    context.progress(10, f"logging in with {secret}")
    raise PermanentError(f"The gateway does not know {secret}.")


def count(context: JobContext, payload: PlainPayload) -> dict[str, int]:
    """Count in a thread."""
    for step in range(payload.steps):
        context.progress(step, threading.current_thread().name)
        context.wait(context.checkpoint({"step": step}))
    return {"parts": payload.steps}


async def compute(context: JobContext, payload: PlainPayload) -> None:
    """Count in a process of its own, and return nothing."""
    log.warning("computing %d", payload.steps)
    sys.stderr.write("said beside the log\n")
    for step in range(payload.steps):
        context.progress(step)
        await context.checkpoint(step)
    await context.save_artifact("steps.csv", b"1,2\n")
    while payload.fails:
        sum(range(1000))


async def wait(context: JobContext, _payload: PlainPayload) -> NoReturn:
    """Wait until it is stopped."""
    for step in range(3):
        context.progress(step)
    await asyncio.Event().wait()
    raise AssertionError


async def ask_again(_context: JobContext, payload: PlainPayload) -> Any:
    """Fail in a way that passes, or in one that nobody has thought of."""
    if payload.fails:
        raise KeyError("gateway_password=hunter22")
    raise TransientError("The gateway is busy.", retry_after=60)


async def spread(context: JobContext, payload: PlainPayload) -> None:
    """Have a message sent for each step, and the first one again."""
    for step in (*range(payload.steps), 0):
        message = SmsPayload(to="+44", text=str(step))
        await context.create(message, type="sms", key=str(step), priority="high", tags=("spread",))
    context.progress(100, f"see {context.artifact_url('log.txt')} of {context.state}")


class Backwards:
    """A codec that is easily undone; remembers which parts it was given."""

    def __init__(self) -> None:
        self.encoded: set[StoredPart] = set()

    def encode(self, data: bytes, context: CodecContext) -> bytes:
        """Turn the bytes round."""
        self.encoded.add(context.kind)
        return data[::-1]

    def decode(self, data: bytes, _context: CodecContext) -> bytes:
        """Turn them round again."""
        return data[::-1]


backwards = Backwards()
types = Registry()
"""The types of this module alone: a process of tests has others, of which a schema is made."""
for job_type in (
    JobType("sms", SmsPayload, SmsResult, f"{__name__}:send_sms", max_retries=3),
    JobType("sms_refused", SmsPayload, SmsResult, f"{__name__}:refuse"),
    JobType("count", PlainPayload, SmsResult, f"{__name__}:count"),
    JobType("compute", PlainPayload, None, f"{__name__}:compute", cpu_bound=True),
    JobType("spread", PlainPayload, None, f"{__name__}:spread"),
    JobType("wait", PlainPayload, None, f"{__name__}:wait", timeout=60),
    JobType("wait_long", PlainPayload, None, f"{__name__}:wait", timeout=600),
    JobType("ask_again", PlainPayload, None, f"{__name__}:ask_again", max_retries=1),
):
    types.add(job_type)
