"""What a handler is given. The workers implement it; handlers and their tests only need to know its shape."""

from logging import LoggerAdapter
from typing import Any, Protocol


class JobContext(Protocol):
    """The handler's view of the attempt it runs.

    ``attempt`` starts at 1. ``idempotency_token`` is the same for every attempt of the job, for outside systems
    that can refuse a repetition.
    """

    @property
    def job_id(self) -> str: ...
    @property
    def attempt(self) -> int: ...
    @property
    def idempotency_token(self) -> str: ...
    @property
    def log(self) -> "LoggerAdapter[Any]": ...

    def progress(self, percent: float, message: str | None = None) -> None:
        """Tell watchers how far the work is: 0 to 100. Never waits; at most ten a second are stored."""

    async def checkpoint(self, data: Any) -> None:
        """Keep JSON data (at most 256 KiB) for the next attempt; returns once it is durable."""

    @property
    def saved(self) -> Any:
        """The data of the last checkpoint of an earlier attempt, or None."""
