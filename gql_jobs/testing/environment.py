"""The whole system for one test: ``AsyncJobsEnv``, an API and a worker on the test's event loop, with a real server.

Handlers run in the process of the test: what it replaces is replaced for them, and they may share its objects. The
clock of gql-jobs can be moved; handlers and their timeouts go by the machine's.
"""

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from contextlib import AsyncExitStack, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self, TypeVar, overload

from msgspec import Struct
from pydantic import BaseModel

from gql_jobs import clock
from gql_jobs.client import AsyncClient, AsyncJobHandle, JobSnapshot
from gql_jobs.client.creation import DRAWN_KEY
from gql_jobs.client.snapshots import snapshot_of
from gql_jobs.jobs.model import Job, JobStatus
from gql_jobs.jobs.payload_codec import CodecFailure, load_codec
from gql_jobs.jobs.payloads import ModelMismatch, read
from gql_jobs.jobs.registry import Payload, load_job_types
from gql_jobs.jobs.requests import JobFilter, JobOrder, OrderField
from gql_jobs.log.job_log import open_job_log
from gql_jobs.log.streams import stream_info
from gql_jobs.maintenance import Maintenance
from gql_jobs.settings import Settings
from gql_jobs.testing.job_records import JobRecord, matching, record_lines, wanted_text
from gql_jobs.testing.nats_namespaces import NatsNamespaces, settings_of
from gql_jobs.testing.running_parts import RunningWorker, ServedApi, until
from gql_jobs.web.runtime import Runtime

_R = TypeVar("_R", bound=BaseModel | None)

DRAINED_WITHIN = 30.0
"""Seconds that ``drain`` waits by default."""
_LOOK_AGAIN = 0.2
"""Seconds until all jobs are looked at again, if nothing happens to any."""
_INDEXED_WITHIN = 10.0
"""Seconds that the index has to apply what is stored."""
_PAGE = 500
_LISTED = 20
"""Jobs that a message lists, at most."""
_ENDED = JobFilter(status=frozenset(status for status in JobStatus if status.is_terminal))
_UNDONE = JobFilter(status=frozenset(status for status in JobStatus if not status.is_terminal))
_ADDRESS = ("GQL_JOBS_URL", "GQL_JOBS_URL_FILE", "GQL_JOBS_TOKEN", "GQL_JOBS_TOKEN_FILE")
"""The environment variables by which a client finds an API, and says who asks."""
_OLDEST_FIRST = JobOrder(OrderField.CREATED_AT, descending=False)
_DEFAULTS: dict[str, Any] = {"auth": "none", "metrics_port": None, "retry_jitter": 0.0}
"""Settings of which neither the environment variables nor a file ``.env`` decide."""


class Drained(Struct, frozen=True):
    """How things stand when nothing is left to do now: the jobs that have ended, and those that wait for later.

    All are told of since the environment began, each oldest first. ``waiting``: scheduled jobs, and failed ones whose
    next attempt is not due yet.
    """

    completed: tuple[JobSnapshot, ...]
    dead_letters: tuple[JobSnapshot, ...]
    cancelled: tuple[JobSnapshot, ...]
    waiting: tuple[JobSnapshot, ...]


class NotDrained(AssertionError):
    """Jobs were still under way, or waited for a worker, when the time of ``drain`` was over; the text lists them."""


@contextmanager
def _address_in_environment(url: str) -> Iterator[None]:
    """Have clients that are told no address, as those of handlers and of the application, find this API.

    A token for another API would be refused by this one, or told to it.
    """
    before = {name: os.environ.pop(name, None) for name in _ADDRESS}
    os.environ["GQL_JOBS_URL"] = url
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


class AsyncJobsEnv:
    """An API and a worker over a namespace of their own; ``async with`` starts and ends them.

    :param nats: the server; one for all tests of a process will do.
    :param imports: modules that register job types, beside those that are installed or imported already.
    :param settings: others than those of the environment variables, by name: ``{"num_workers": 10}``.
    :param queues: those that the worker serves; all by default.
    """

    settings: Settings
    """The settings of the API and the worker, which lead to this namespace."""
    nats: "NatsOfEnv"
    """The server: ``await env.nats.stop()`` and ``await env.nats.start()``."""

    def __init__(
        self,
        nats: NatsNamespaces,
        imports: Collection[str] = (),
        settings: dict[str, Any] | None = None,
        queues: Collection[str] = (),
    ) -> None:
        self.nats = NatsOfEnv(nats, self._reconnected)
        self._namespaces = nats
        self._imports = tuple(imports)
        self._given = {**_DEFAULTS, **(settings or {})}
        self._queues = tuple(queues)
        self._ended = AsyncExitStack()
        self._client: AsyncClient | None = None

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            namespace = await asyncio.to_thread(self._namespaces.take)
            stack.callback(self._namespaces.give_back, namespace)
            stack.enter_context(_movable_clock())
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="gql-jobs-env-"))
            self.settings = Settings(**{**self._given, "data_dir": Path(folder), **settings_of(namespace)})
            self._registry = load_job_types(self._imports, self.settings.types)
            self._stored = load_codec(self.settings.codec)
            self._api = ServedApi(self.settings, self._imports)
            stack.enter_context(_address_in_environment(self.url))
            self._worker = self._new_worker()
            stack.push_async_callback(self._stop_parts)
            await self._api.ready()
            runtime = self._runtime
            self._log = await stack.enter_async_context(open_job_log(runtime.connection))
            self._maintenance = Maintenance(
                self._log,
                runtime.artifacts,
                runtime.index,
                runtime.reader,
                runtime.feed,
                settings=self.settings,
                fire_after=timedelta(0),
            )
            await self._worker.ready()
            stack.push_async_callback(self._close_client)
            # Whatever ends here has to say so to the server.
            stack.push_async_callback(self.nats.start)
            self._ended = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._ended.aclose()

    @property
    def url(self) -> str:
        """The address of the API, ``http://…``."""
        return self._api.url

    @property
    def client(self) -> AsyncClient:
        """A client of the API, made when it is first used."""
        if self._client is None:
            self._client = AsyncClient(self.url)
        return self._client

    async def drain(self, timeout: float = DRAINED_WITHIN) -> Drained:  # noqa: ASYNC109 - ends the waiting alone
        """Wait until no job is queued, runs or is due, and return how things stand.

        Children that are created meanwhile are waited for, too. What is scheduled for later, and what is tried again
        later, is left: ``advance`` makes it due.

        :param timeout: seconds to wait at most, by the machine's clock.
        :raises NotDrained: an ``AssertionError`` that lists the jobs that are left then.
        """
        deadline = asyncio.get_running_loop().time() + timeout
        while True:
            position = await self._index_all()
            now = clock.now()
            undone = await self._jobs(_UNDONE)
            left = [job for job in undone if _is_to_be_done(job, now)]
            if not left and position == (await stream_info(self._runtime.connection)).state.last_seq:
                ended = await self._jobs(_ENDED)
                return Drained(
                    completed=_with_status(ended, JobStatus.COMPLETED),
                    dead_letters=_with_status(ended, JobStatus.DEAD_LETTER),
                    cancelled=_with_status(ended, JobStatus.CANCELLED),
                    waiting=tuple(map(snapshot_of, undone)),
                )
            if asyncio.get_running_loop().time() > deadline:
                raise NotDrained(_left_text(left, timeout))
            await self._runtime.feed.wait_for(position + 1, _LOOK_AGAIN)

    async def advance(
        self, by: timedelta | None = None, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0
    ) -> None:
        """Move the clock of gql-jobs forward: what is due by then is queued, and what has expired is gone.

        API and worker go by this clock (schedules, retries, retention, tokens), and so do the times of jobs. Handlers,
        the timeouts of attempts and the rest of the process go by the machine's. ``drain`` runs what has become due.

        :raises ValueError: for a negative time.
        """
        clock.advance((by or timedelta(0)) + timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds))
        # Schedules that lie in what the index has not read yet would be missed.
        await self._index_all()
        while await self._maintenance.sweep():
            pass
        await self._index_all()

    @overload
    async def assert_created(self, payload: type[Payload[_R]], /, **fields: Any) -> AsyncJobHandle[_R]: ...

    @overload
    async def assert_created(self, payload: type[BaseModel], /, **fields: Any) -> AsyncJobHandle[Any]: ...

    async def assert_created(self, payload: type[BaseModel], /, **fields: Any) -> AsyncJobHandle[Any]:
        """Return the newest job whose payload is of this model and has these values in its fields.

        :param fields: compared by ``==``; those that are left out may have any value.
        :raises AssertionError: if there is none; the text lists what was created.
        :raises TypeError: if the model has no such field.
        """
        records = await self.created()
        found = matching(records, payload, fields)
        if not found:
            listed = record_lines(records, payload, fields)
            raise AssertionError(f"No job was created with {wanted_text(payload, fields)}. {listed}")
        return self.client.job(found[-1].id)

    async def assert_not_created(self, payload: type[BaseModel], /, **fields: Any) -> None:
        """Check that there is no job whose payload is of this model and has these values in its fields.

        :raises AssertionError: if there is one; the text lists what was created.
        :raises TypeError: if the model has no such field.
        """
        records = await self.created()
        if matching(records, payload, fields):
            listed = record_lines(records, payload, fields)
            raise AssertionError(f"A job was created with {wanted_text(payload, fields)}. {listed}")

    async def created(self, payload: type[BaseModel] | None = None, /, **fields: Any) -> list[JobRecord]:
        """Return the jobs that there are, oldest first: all, or those that ``assert_created`` would find.

        :raises TypeError: if the model has no such field.
        """
        await self._index_all()
        records = [record for job in await self._jobs(JobFilter()) if (record := self._record(job)) is not None]
        return records if payload is None else matching(records, payload, fields)

    async def kill_worker(self) -> None:
        """End the worker as if its process were killed, and start another one.

        Nothing more of its attempts is written or acknowledged, and what it had in hand is delivered again at once: in
        production that takes until the lease runs out. Its handlers are cancelled, and functions marked by
        ``worker_shutdown`` run, because the process of the test goes on.
        """
        await self._worker.kill(self._runtime.connection)
        self._worker = self._new_worker()
        await self._worker.ready()

    # Parts.

    @property
    def _runtime(self) -> Runtime:
        return self._api.runtime

    def _new_worker(self) -> RunningWorker:
        return RunningWorker(self.settings, self._registry, self._queues)

    async def _stop_parts(self) -> None:
        await asyncio.gather(self._api.stop(), self._worker.stop())

    async def _close_client(self) -> None:
        if self._client is not None:
            await self._client.close()

    async def _reconnected(self) -> None:
        """Wait until all parts are connected again."""
        await until(
            lambda: self._runtime.connection.connected and self._worker.is_connected,
            "API and worker are not connected to NATS again",
        )

    # What there is.

    async def _index_all(self) -> int:
        """Have the index up to date with all that is stored now, and return the sequence that it has reached."""
        feed = self._runtime.feed
        last = (await stream_info(self._runtime.connection)).state.last_seq
        if not await feed.wait_for(last, _INDEXED_WITHIN):
            raise RuntimeError(f"The index has not reached {last} within {_INDEXED_WITHIN:g} s.")
        return feed.position

    async def _jobs(self, wanted: JobFilter) -> list[Job]:
        """Return all jobs that match, oldest first."""
        jobs: list[Job] = []
        after: str | None = None
        while True:
            page = await self._runtime.reader.page(wanted, _OLDEST_FIRST, first=_PAGE, after=after, offset=0)
            jobs += page.jobs
            if not page.has_next:
                return jobs
            after = page.cursor(-1)

    def _record(self, job: Job) -> JobRecord | None:
        """Return what is known of a job, None if its payload cannot be read here."""
        spec = job.spec
        job_type = self._registry.get(spec.type)
        if job_type is None:
            return None
        try:
            payload = read(job_type.payload, bytes(self._stored.payload(job.id, spec)))
        except (CodecFailure, ModelMismatch):
            return None
        return JobRecord(
            id=job.id,
            type=spec.type,
            payload=payload,
            priority=spec.priority,
            run_at=spec.earliest,
            key=spec.idempotency_key if not _is_drawn(spec.idempotency_key) else None,
            tags=spec.tags,
            status=job.status,
        )


class NatsOfEnv:
    """The server of an environment, which goes away and comes back; with it all environments of the process."""

    def __init__(self, namespaces: NatsNamespaces, reconnected: Callable[[], Awaitable[None]]) -> None:
        self._namespaces = namespaces
        self._reconnected = reconnected

    async def stop(self) -> None:
        """Stop it: nothing is stored or delivered from now on; what is stored stays."""
        await asyncio.to_thread(self._namespaces.stop)

    async def start(self) -> None:
        """Start it, and wait until the API and the worker are connected again; do nothing if it runs."""
        await asyncio.to_thread(self._namespaces.start)
        await self._reconnected()


_environments = 0


@contextmanager
def _movable_clock() -> Iterator[None]:
    """Have the clock of this process be movable, until the last environment has ended."""
    global _environments  # noqa: PLW0603  # as there is one clock
    if _environments == 0:
        clock.make_movable()
    _environments += 1
    try:
        yield
    finally:
        _environments -= 1
        if _environments == 0:
            clock.make_fixed()


def _is_drawn(key: str | None) -> bool:
    """Return whether a client has drawn a key, for its repetitions."""
    return key is not None and key.startswith(DRAWN_KEY)


def _is_to_be_done(job: Job, now: datetime) -> bool:
    """Return whether a job that has not ended is under way, or due."""
    if job.status is JobStatus.SCHEDULED:
        return job.spec.run_at is None or job.spec.run_at <= now
    if job.status is JobStatus.RETRYING:
        return job.next_attempt_at is None or job.next_attempt_at <= now
    return True


def _with_status(jobs: Iterable[Job], status: JobStatus) -> tuple[JobSnapshot, ...]:
    return tuple(snapshot_of(job) for job in jobs if job.status is status)


def _left_text(left: list[Job], timeout: float) -> str:
    lines = [f"{len(left)} jobs have not ended within {timeout:g} s:"]
    for job in left[:_LISTED]:
        told = f", {job.progress} %" if job.status is JobStatus.PROCESSING else ""
        error = f", after: {job.error.message}" if job.error is not None else ""
        lines.append(f"  {job.spec.type} {job.id} {job.status.name}, attempt {job.attempt}{told}{error}")
    if len(left) > _LISTED:
        lines.append(f"  … and {len(left) - _LISTED} more")
    return "\n".join(lines)
