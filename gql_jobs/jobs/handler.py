"""What a handler is called with, in workers and in tests of handlers.

A handler is a function ``handler(context, payload)`` that returns what its type's result model takes. The worker gives
it a ``JobContext``; a test may give it anything of this shape. docs/handlers.md shows how the parts are used.
"""

from collections.abc import Coroutine
from logging import LoggerAdapter
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

from gql_jobs.jobs.model import Artifact

_T = TypeVar("_T")


class JobContext(Protocol):
    """The handler's view of the attempt it runs."""

    @property
    def job_id(self) -> str:
        """The job's id, a UUID."""

    @property
    def attempt(self) -> int:
        """The number of the attempt; the first is 1."""

    @property
    def idempotency_token(self) -> str:
        """A text that is the same for every attempt of the job, for outside systems that can refuse a repetition."""

    @property
    def log(self) -> "LoggerAdapter[Any]":
        """A logger whose lines name the job."""

    @property
    def saved(self) -> Any:
        """The data of the last checkpoint of an earlier attempt, or None."""

    def progress(self, percent: float, message: str | None = None) -> None:
        """Report how far the work is, in percent, 0 to 100. Never waits; at most ten reports a second are stored.

        A report is no reason to fail: what is outside is brought to the nearer end, what is no number is logged.
        In the thread of a plain handler it raises ``AttemptStoppedError`` once the attempt has been stopped.
        """

    async def checkpoint(self, data: Any) -> None:
        """Keep JSON data, at most 256 KiB, for the next attempt. Returns when it is stored, however long NATS is away.

        :raises RefusedValue: a ``ValueError``, if the data is no JSON, has a number that is infinite or NaN, or is too
            large.
        :raises TransientError: if it could not be stored.
        """

    async def save_artifact(
        self, name: str, data: bytes | Path | BinaryIO, content_type: str | None = None
    ) -> Artifact:
        """Keep a file with the job. Clients see it once all of it is stored; an older file of that name is replaced.

        While NATS is away it waits, unless ``data`` is a file that cannot be read a second time.

        :param name: such as ``report.pdf`` or ``output/processed.jpg``.
        :param data: the bytes, a file to read, or an open binary file; never held in memory as a whole.
        :param content_type: a media type such as ``text/csv``; guessed from the name's extension if left out.
        :raises RefusedValue: a ``ValueError``, for an invalid name or content type, or a file that is too large.
        :raises TransientError: if it could not be stored.
        """

    def wait(self, step: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine such as ``context.checkpoint(…)`` from the thread of a plain handler, and wait for it.

        :raises PermanentError: in a coroutine, which awaits the step itself: waiting would stop the event loop.
        """
