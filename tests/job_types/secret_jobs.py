"""Job types with secrets in their payloads, whose handlers tell them to whoever listens."""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import SecretStr

from gql_jobs import JobContext, Model, PermanentError, TransientError
from gql_jobs.jobs.registry import JobType, Registry


class Account(Model):
    """Who logs in."""

    user: str
    password: SecretStr


class SecretPayload(Model):
    """Secrets, and where the digests of what a handler gets go."""

    account: Account
    tokens: list[SecretStr]
    trace: str
    fails: bool = True
    unexpected: bool = False


class SecretResult(Model):
    """A result that tells the secret."""

    password: SecretStr
    address: str = ""


def _tell(context: JobContext, payload: SecretPayload) -> SecretResult:
    password = payload.account.password.get_secret_value()
    with Path(payload.trace).open("a") as file:
        file.write(hashlib.sha256(password.encode()).hexdigest() + "\n")
    told = [password, repr(password), json.dumps(password), quote(password, safe="")]
    told += [token.get_secret_value() for token in payload.tokens]
    context.log.warning("logging in with %s", told, extra={"given": told, "by_name": {"p": password}})
    logging.getLogger("some.library").error("connecting to %s", f"https://ada:{quote(password, safe='')}@db/")
    context.progress(50, f"with {told}")
    if payload.unexpected and context.attempt == 1:
        raise KeyError(password)
    if payload.fails:
        raise (PermanentError if context.attempt > 1 else TransientError)(f"refused: {told}")
    return SecretResult(password=payload.account.password)


async def run(context: JobContext, payload: SecretPayload) -> SecretResult:
    """Tell the secrets on the event loop."""
    return _tell(context, payload)


def run_elsewhere(context: JobContext, payload: SecretPayload) -> SecretResult:
    """Tell the secrets in a thread, or in a process."""
    return _tell(context, payload)


def registered(**changes: Any) -> Registry:
    """The types: on the loop, in a thread, in a process."""
    registry = Registry()
    for name, handler, cpu_bound in (
        ("secret", "run", False),
        ("secret_thread", "run_elsewhere", False),
        ("secret_process", "run_elsewhere", True),
    ):
        facts: dict[str, Any] = {"payload": SecretPayload, "result": SecretResult, **changes}
        registry.add(JobType(name, handler=f"{__name__}:{handler}", cpu_bound=cpu_bound, **facts))
    return registry
