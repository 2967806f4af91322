"""What a handler is called with, in workers and in tests of handlers.

A handler is a function ``handler(context, payload)`` that returns what its type's result model takes. The worker gives
it a ``JobContext``; a test may give it anything of this shape. docs/handlers.md shows how the parts are used.
"""

from collections.abc import Coroutine, Iterable, Sequence
from datetime import datetime
from logging import LoggerAdapter
from pathlib import Path
from typing import Any, BinaryIO, Generic, Literal, Protocol, TypeVar, overload

import typing_extensions
from msgspec import Struct
from pydantic import BaseModel

from gql_jobs.jobs.model import Artifact, DependencyPolicy, JobPriority
from gql_jobs.jobs.registry import Payload
from gql_jobs.jobs.unique_keys import Key

_T = TypeVar("_T")
_R = TypeVar("_R", bound=BaseModel | None)
_State_co = typing_extensions.TypeVar("_State_co", covariant=True, default=Any)


class ChildJob(Struct, Generic[_R], frozen=True):
    """A job that a handler has created; its type names the result model.

    ``id`` is the child's. ``deduplicated``: whether an earlier attempt of the handler, or an earlier call with the same
    key, had created it.
    """

    id: str
    deduplicated: bool = False


class JobContext(Protocol[_State_co]):
    """The handler's view of the attempt it runs; ``JobContext[ShopState]`` tells type checkers what ``state`` has."""

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

    @property
    def state(self) -> _State_co:
        """What functions marked by ``@worker_startup`` have set in this process, for all of its handlers to use."""

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

    @overload
    async def create(
        self,
        payload: Payload[_R],
        *,
        key: str | Key | None = None,
        priority: JobPriority | str | None = None,
        run_at: datetime | None = None,
        max_retries: int | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
        tags: Sequence[str] = (),
        concurrency_key: str | None = None,
        start_before: datetime | None = None,
        after: Iterable[str | ChildJob[Any]] = (),
        after_policy: DependencyPolicy | Literal["cancel", "run"] = DependencyPolicy.CANCEL,
        type: str | None = None,
    ) -> ChildJob[_R]: ...

    @overload
    async def create(
        self,
        payload: BaseModel,
        *,
        key: str | Key | None = None,
        priority: JobPriority | str | None = None,
        run_at: datetime | None = None,
        max_retries: int | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
        tags: Sequence[str] = (),
        concurrency_key: str | None = None,
        start_before: datetime | None = None,
        after: Iterable[str | ChildJob[Any]] = (),
        after_policy: DependencyPolicy | Literal["cancel", "run"] = DependencyPolicy.CANCEL,
        type: str | None = None,
    ) -> ChildJob[Any]: ...

    async def create(
        self,
        payload: BaseModel,
        *,
        key: str | Key | None = None,
        priority: JobPriority | str | None = None,
        run_at: datetime | None = None,
        max_retries: int | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
        tags: Sequence[str] = (),
        concurrency_key: str | None = None,
        start_before: datetime | None = None,
        after: Iterable[str | ChildJob[Any]] = (),
        after_policy: DependencyPolicy | Literal["cancel", "run"] = DependencyPolicy.CANCEL,
        type: str | None = None,  # noqa: A002
    ) -> ChildJob[Any]:
        """Create a job, a child of this one. Returns when it is stored, however long NATS is away.

        Every attempt makes the same children, so a retried one creates no second: a child is known by its ``key``, else
        by being the first, second, … of its type that the attempt creates without one. Give keys where an attempt may
        begin further on, or create in another order, than the one before. A retry by hand makes new children.

        A child is of this job's tenant and creator. It is a job of its own: it goes on if this one fails, is cancelled
        or expires, and nothing of it is waited for.

        :param payload: of the payload model of a registered job type, which says the child's type.
        :param key: 1 to 255 printable characters; apart from the idempotency keys of clients. A ``Key`` instead says
            what becomes of the child while another job of the tenant has it.
        :param priority: that of this job where left out.
        :param run_at: hold it back until then, at most a year; UTC where no offset is given.
        :param max_retries: attempts after the first, 0 to 100; the type's own where left out.
        :param timeout: seconds that one attempt may take, 0.1 to 86400; the type's own where left out.
        :param tags: at most 32, of 1 to 255 printable characters each; none are taken over from this job.
        :param concurrency_key: what it has in common with the jobs that it shares limits per key with.
        :param start_before: when it is cancelled if it has not started; later than ``run_at``.
        :param after: the jobs that have to complete first, children or ids, at most 1000.
        :param after_policy: what becomes of it when one of these does not.
        :param type: the name of the job type, where several have this payload model.
        :raises PermanentError: if the payload or an option cannot be that of a job, the payload is too large, or there
            is such a child with another payload.
        :raises TransientError: if it could not be stored, as where the store is full, or another job has its ``Key``.
        """

    def artifact_url(self, name: str) -> str:
        """Return the address at which clients find a file that is, or will be, kept under that name.

        It begins with ``GQL_JOBS_PUBLIC_URL``; where that is not set, it is a path below the API's address. Whoever
        fetches it needs what the API asks of them, a key or a token; ``Artifact.url`` in the API has one that does
        without for some minutes.

        :raises RefusedValue: a ``ValueError``, for an invalid name.
        """

    def wait(self, step: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine such as ``context.checkpoint(…)`` from the thread of a plain handler, and wait for it.

        :raises PermanentError: in a coroutine, which awaits the step itself: waiting would stop the event loop.
        """
