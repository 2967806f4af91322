"""The context that resolvers are given: the parts of the process they may use. The web layer makes it."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, cast

import strawberry

from gql_jobs.access.authentication import Authentication
from gql_jobs.graphql.engine.budget import Budget
from gql_jobs.index.index import Index
from gql_jobs.index.reader import Reader
from gql_jobs.jobs.errors import BadRequest
from gql_jobs.jobs.fold import Event
from gql_jobs.jobs.model import Artifact, Cursor, Job
from gql_jobs.jobs.registry import Registry
from gql_jobs.jobs.requests import JobDefaults
from gql_jobs.jobs.viewer import ANYBODY, Scope, Viewer, Visibility
from gql_jobs.live.bulk_runs import BulkRuns
from gql_jobs.live.bus import Turn
from gql_jobs.live.feed import Feed
from gql_jobs.live.gate import GateHolder
from gql_jobs.live.polled import PolledFiguresByKind
from gql_jobs.live.queue_pauses import QueuePauses
from gql_jobs.live.steering import Steering
from gql_jobs.live.store_reach import StoreReach, no_store
from gql_jobs.live.watch import Watch
from gql_jobs.live.windows import Windows
from gql_jobs.log.commands import JobCommands
from gql_jobs.log.deletion import JobDeletions
from gql_jobs.log.heartbeats import WorkerSeen
from gql_jobs.log.schedules import ScheduleCommands

_T = TypeVar("_T")


class SeenWorkers(Protocol):
    """The workers that run jobs at the moment."""

    def workers(self) -> list[WorkerSeen]:
        """Return the workers whose last heartbeat is no older than 15 s."""


class Session:
    """Who asks, over one request or one socket. On a socket a renewal may replace the viewer while operations run."""

    __slots__ = ("_viewer", "has_ended", "is_held", "visibility")

    def __init__(self, viewer: Viewer = ANYBODY) -> None:
        self.viewer = viewer
        self.is_held = False
        """Whether nothing may be sent for now of what had begun before. A plain attribute, because it is read for each
        event."""
        self.has_ended = False
        """Whether the credential was revoked or has expired: until a renewal nothing else is answered."""

    @property
    def viewer(self) -> Viewer:
        """The viewer at the moment."""
        return self._viewer

    @viewer.setter
    def viewer(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self.visibility: Visibility = viewer.visibility
        """Which jobs there are for the viewer; read for each event, so it is not made each time."""

    @property
    def rights(self) -> tuple[Visibility, frozenset[Scope]]:
        """What the viewer may see and do at the moment."""
        return self.visibility, self.viewer.scopes

    async def until_free(self) -> None:
        """Wait until what is held may be sent."""

    async def renew(self, _token: str) -> Viewer:
        """Go on under another token of the same subject and tenant, and return its viewer.

        :raises BadRequest: if this is no socket, whose operations could go on.
        :raises Unauthenticated: if the token is not valid.
        :raises Forbidden: if it is of another subject or tenant.
        """
        raise BadRequest("Only the operations of a WebSocket can go on under another token; send a new request.")


class Services(Protocol):
    """The running parts of an API process, as far as resolvers need them."""

    @property
    def settings(self) -> JobDefaults:
        """Return the retries and the timeout of jobs that have none of their own and none by their type."""

    @property
    def registry(self) -> Registry:
        """Return the job types that this process can create."""

    @property
    def commands(self) -> JobCommands:
        """Return the commands that create, cancel and retry jobs."""

    @property
    def deletions(self) -> JobDeletions:
        """Return what deletes jobs."""

    @property
    def index(self) -> Index:
        """Return the index: the jobs as far as this process has followed the stream."""

    @property
    def reader(self) -> Reader:
        """Return the reader of the index, for pages and counts."""

    @property
    def feed(self) -> Feed:
        """Return the feed, which brings the stream into the index."""

    @property
    def watch(self) -> Watch:
        """Return the source of the events of jobs as they happen."""

    @property
    def windows(self) -> Windows:
        """Return the source of the changes of lists of jobs."""

    @property
    def polled(self) -> PolledFiguresByKind:
        """Return the figures that are watched."""

    @property
    def bulk_runs(self) -> BulkRuns:
        """Return what plans and runs bulk actions."""

    @property
    def pauses(self) -> QueuePauses:
        """Return what pauses queues, and knows which are."""

    @property
    def schedules(self) -> ScheduleCommands:
        """Return the commands that define, delete and run schedules."""

    @property
    def steering(self) -> Steering:
        """Return what steers jobs, as far as this process has followed the stream."""

    @property
    def gate(self) -> GateHolder:
        """Return what lets jobs go that are held back, and knows what holds them back."""

    @property
    def presence(self) -> SeenWorkers:
        """Return the workers that run jobs at the moment."""

    @property
    def access(self) -> Authentication:
        """Return what makes and ends tokens."""

    async def job(self, job_id: str, visibility: Visibility, budget: Budget) -> Job | None:
        """Return the job from the index, else from the stream; None for an id that is unknown or no UUID.

        :param visibility: a job that is not within it is as unknown as one that does not exist, and takes as long.
        :param budget: of which each message that the stream has of the job is taken.
        :raises OverBudget: if there is not so much left.
        :raises QueueUnavailable: if the index does not have it and the stream cannot be read.
        """

    async def events(self, job_id: str, after: Cursor, first: int, budget: Budget) -> list[Event]:
        """Return at most ``first`` of the job's events behind a cursor, oldest first, from the index or the stream.

        :param budget: of which each event is taken before it is read, and each message where the stream is read.
        :raises OverBudget: if there is not so much left.
        :raises QueueUnavailable: if the index does not have them and the stream cannot be read.
        """

    async def saved(self, job_id: str, budget: Budget) -> list[Artifact]:
        """Return the job's files by name, from the index, else from the stream.

        :param budget: of which each file is taken before it is read, and each message where the stream is read.
        :raises OverBudget: if there is not so much left.
        :raises QueueUnavailable: if the index does not have them and the stream cannot be read.
        """


async def _never() -> bool:
    return False


def _any_number(_jobs: int) -> None:
    """Let as many jobs be created as are asked for."""


async def _goes_on() -> None:
    return None


@dataclass
class Context:
    """The context of one operation."""

    services: Callable[[], Services]
    """Returns the services of this process; called for each use, because a socket may be older than they are.

    Raises QueueUnavailable while the server is starting.
    """
    session: Session = field(default_factory=Session)
    """Who asks."""
    store_reach: Callable[[], StoreReach] = no_store
    """Returns what knows whether this process reaches the store. It is none of the services, because it is told while
    they are not open."""
    is_abandoned: Callable[[], Awaitable[bool]] = _never
    """Whether the client has gone or has ended the operation, so that a long mutation may stop between two steps."""
    turn: Turn | None = None
    """The right of a subscription to answer, where others answer over the same connection."""
    resume_after: str | None = None
    """The cursor that the transport resumes from (``Last-Event-ID``). It is newer than the argument ``after``: a client
    that reconnects by itself repeats the request as it first was."""
    client: Callable[[], str | None] = lambda: None
    """Returns who asks, as one of those whose share of the time is limited; None for nobody."""
    count_creations: Callable[[int], None] = _any_number
    """Counts so many jobs that are asked to be created; raises RateLimited if these are too many for who asks."""
    retries: int = 0
    """Jobs that ``retryJobs`` has taken so far; what follows in the same operation may take only what is left."""
    retries_end: float | None = None
    """When ``retryJobs`` begins with no further job, by the event loop's clock; None before the first of them."""
    budget: Budget = field(default_factory=Budget)
    """What the operation may still read and show; the engine sets it before resolvers run."""
    recheck: Callable[[], Awaitable[None]] = _goes_on
    """Raises why a subscription may not go on for the session's viewer, once that is another one; its resolver sets it
    if there is more to that than permission and the filter of each event."""
    _shared: dict[object, Any] = field(default_factory=dict)
    _shared_under: Budget | None = None
    """The budget that what is shared was made under: each event of a subscription has one of its own."""

    def shared(self, what: object, make: Callable[[], _T]) -> _T:
        """Return what ``make`` returns: it is called once for all fields of an operation, or of an event.

        :param what: tells it from all else that is shared so.
        """
        if self._shared_under is not self.budget:
            self._shared, self._shared_under = {}, self.budget
        if what not in self._shared:
            self._shared[what] = make()
        return cast("_T", self._shared[what])

    async def once(self, what: object, read: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Return what ``read`` returns, or raise what it raises; it is called as seldom as that of ``shared``."""
        return await self.shared(what, lambda: asyncio.create_task(read()))


Info = strawberry.Info[Context, None]
