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
from gql_jobs.jobs.requests import JobDefaults
from gql_jobs.live.feed import Feed
from gql_jobs.live.watch import Watch
from gql_jobs.log.commands import JobCommands
from gql_jobs.log.heartbeats import WorkerSeen


class SeenWorkers(Protocol):
    """Who runs jobs at the moment."""

    def workers(self) -> list[WorkerSeen]:
        """Return the workers heard of lately."""


class Services(Protocol):
    """The running parts of an API process, as far as resolvers need them."""

    @property
    def settings(self) -> JobDefaults:
        """What holds for a job where neither it nor its type says otherwise."""

    @property
    def registry(self) -> Registry:
        """The job types that this process can create."""

    @property
    def commands(self) -> JobCommands:
        """What can be decided about jobs."""

    @property
    def index(self) -> Index:
        """The jobs as far as this process has followed the stream."""

    @property
    def reader(self) -> Reader:
        """Pages and counts of the index, read beside the event loop."""

    @property
    def feed(self) -> Feed:
        """How far this process has followed the stream."""

    @property
    def watch(self) -> Watch:
        """The events of jobs as they happen."""

    @property
    def presence(self) -> SeenWorkers:
        """Who runs jobs at the moment."""

    async def job(self, job_id: str) -> Job | None:
        """Return the job from the index, else from the stream; None for an id that is unknown or no UUID."""

    async def events(self, job_id: str) -> list[Event]:
        """Return the job's history, from the index, else from the stream."""

    async def saved(self, job_id: str) -> list[Artifact]:
        """Return the job's files, from the index, else from the stream."""


@dataclass
class Context:
    """The context of one operation."""

    services: Callable[[], Services]
    """Returns what resolvers work with: at each call anew, because a socket may be older than they are.

    Raises QueueUnavailable while the server is starting.
    """
    connection_params: dict[str, object] | None = None
    """The payload of ``connection_init``, for an operation on a WebSocket."""
    resume_after: str | None = None
    """The cursor that the transport resumes from (``Last-Event-ID``). It is newer than the argument ``after``: a client
    that reconnects by itself repeats the request as it first was."""


Info = strawberry.Info[Context, None]
