"""What resolvers may use of the process they run in. Made by the web layer, which this package never imports."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import strawberry

from gql_jobs.index.index import Index
from gql_jobs.index.reader import Reader
from gql_jobs.jobs.fold import Event
from gql_jobs.jobs.model import Artifact, Job
from gql_jobs.jobs.registry import Registry
from gql_jobs.jobs.requests import Limits
from gql_jobs.live.watch import Watch
from gql_jobs.log.commands import JobCommands
from gql_jobs.log.heartbeats import WorkerSeen


class SeenWorkers(Protocol):
    """Who runs jobs at the moment."""

    def workers(self) -> list[WorkerSeen]:
        """The workers heard of lately."""


class Services(Protocol):
    """The running parts of an API process, as far as resolvers need them."""

    @property
    def settings(self) -> Limits: ...
    @property
    def registry(self) -> Registry: ...
    @property
    def commands(self) -> JobCommands: ...
    @property
    def index(self) -> Index: ...
    @property
    def reader(self) -> Reader: ...
    @property
    def watch(self) -> Watch: ...
    @property
    def presence(self) -> SeenWorkers: ...

    async def settled(self, job: Job) -> Job:
        """The job as the index has it, once the index has applied ``job.last_seq`` or a second has passed."""

    async def job(self, job_id: str) -> Job | None:
        """The job from the index, else from the stream; None for an id that is unknown or no UUID."""

    async def events(self, job_id: str) -> list[Event]:
        """The job's history, from the index, else from the stream."""

    async def saved(self, job_id: str) -> list[Artifact]:
        """The job's files, from the index, else from the stream."""


@dataclass
class Context:
    """The context of one operation."""

    open_services: Callable[[], Services]
    """Asked by each operation, because a socket may be older than they are; raises QueueUnavailable until then."""
    connection_params: dict[str, object] | None = None
    """The payload of ``connection_init``, for an operation on a WebSocket."""
    resume_after: str | None = None
    """The cursor that the transport resumes from (``Last-Event-ID``). It is newer than the argument ``after``: a client
    that reconnects by itself repeats the request as it first was."""
    cursor: str | None = None
    """The cursor of the event that the subscription has brought last, whether or not the client selects it."""

    looked: bool = False
    """Set when a resolver looks at more than the event it was given."""


Info = strawberry.Info[Context, None]


def services(info: Info) -> Services:
    """What the resolver works with.

    :raises QueueUnavailable: while the server is starting.
    """
    info.context.looked = True
    return info.context.open_services()
