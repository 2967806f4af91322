"""What a handler is given. The workers implement it; handlers and their tests only need to know its shape."""

from collections.abc import Coroutine
from logging import LoggerAdapter
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

from gql_jobs.jobs.model import Artifact

T = TypeVar("T")


class JobContext(Protocol):
    """The handler's view of the attempt it runs.

    ``attempt`` starts at 1. ``idempotency_token`` is the same for every attempt of the job, for outside systems
    that can refuse a repetition. ``saved`` is the data of the last checkpoint of an earlier attempt, or None.
    """

    @property
    def job_id(self) -> str: ...
    @property
    def attempt(self) -> int: ...
    @property
    def idempotency_token(self) -> str: ...
    @property
    def log(self) -> "LoggerAdapter[Any]": ...
    @property
    def saved(self) -> Any: ...

    def progress(self, percent: float, message: str | None = None) -> None:
        """Tell watchers how far the work is: 0 to 100. Never waits; at most ten a second are stored.

        In the thread of a plain handler it raises ``AttemptStoppedError`` once the attempt has been stopped.
        """

    async def checkpoint(self, data: Any) -> None:
        """Keep JSON data (at most 256 KiB) for the next attempt; returns once it is durable, however long NATS is away.

        :raises ValueError: if the data is no JSON or too large.
        :raises TransientError: if it could not be stored.
        """

    async def save_artifact(
        self, name: str, data: bytes | Path | BinaryIO, content_type: str | None = None
    ) -> Artifact:
        """Keep a file with the job; it is visible once all of it is durable. A name saved again is replaced.

        Waits while NATS is away, but for a file that cannot be read a second time.

        :param name: such as ``report.pdf`` or ``output/processed.jpg``.
        :param data: the bytes, a file to read, or an open binary file; never held in memory as a whole.
        :param content_type: guessed from the name's extension if left out.
        :raises ValueError: for a name that cannot be.
        :raises TransientError: if it could not be stored.
        """

    def wait(self, step: Coroutine[Any, Any, T]) -> T:
        """From the thread of a plain handler: run a coroutine such as ``context.checkpoint(…)`` and wait for it."""
