"""The client: jobs are created, found and followed, whatever the transport.

``sync_client`` has the same for code that does not await; it is generated from this file, by
``python -m gql_jobs.client.sync_generator``, and a test compares the two.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterable
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import datetime, timedelta
from os import PathLike
from pathlib import Path
from secrets import token_hex
from types import TracebackType
from typing import Any, Generic, Self, TypeAlias, TypeVar, Unpack, cast, overload
from weakref import WeakSet

import msgspec
from pydantic import BaseModel

from gql_jobs import clock
from gql_jobs.client.address import BadAddress, address_and_token, is_of_nats
from gql_jobs.client.creation import (
    Asked,
    JobOptions,
    creation_batches,
    creation_of,
    error_of_many,
    first_of,
    moment_of,
    next_batch,
    priority_of,
    queue_limits_of,
    result_model_of,
    seconds_of,
    status_of,
)
from gql_jobs.client.editing import EditOptions, edit_of, payload_of_edit
from gql_jobs.client.errors import (
    ClientError,
    JobCancelled,
    JobFailed,
    NotFound,
    ResultTimeout,
    UnreadableResult,
)
from gql_jobs.client.schedule_options import ScheduleOptions, asked_recurrence, asked_schedule
from gql_jobs.client.transport import (
    ArtifactInfo,
    CreatedJob,
    Creation,
    JobEvent,
    JobSnapshot,
    ScheduleSnapshot,
    Token,
    Transport,
)
from gql_jobs.jobs.limits import Limits
from gql_jobs.jobs.model import JobPriority, JobStatus
from gql_jobs.jobs.pause import Pause
from gql_jobs.jobs.payloads import ModelMismatch, read
from gql_jobs.jobs.registry import Payload
from gql_jobs.jobs.requests import JobFilter

_R = TypeVar("_R", bound=BaseModel | None)
_T = TypeVar("_T")
_LARGEST_PAGE = 500
OneOrMore: TypeAlias = _T | Collection[_T] | None
"""One value or several, any of which will do; None for every one."""


class AsyncClient:
    """A client of one server: creates jobs, finds them, and follows them to their results.

    It opens connections when they are needed, belongs to the event loop that uses it first, and is used there by as
    many tasks as like. ``async with`` closes it.

    :param address: ``http://…`` or ``https://…`` of the API; ``nats://…`` or ``tls://…`` of the NATS servers, for back
        ends beside them. By default ``GQL_JOBS_URL``, else the ``gql-jobs dev`` that runs here.
    :param token: a key or token for the API, or a function that returns a valid one and is called before each request.
        By default ``GQL_JOBS_TOKEN``.
    :param patience: seconds for which what passes by itself is tried again: a connection that is refused or lost, a
        store that does not answer.
    :param transport: what to speak by, in the place of all of these.
    :raises ValueError: if the address or the token can be none.
    :raises ModuleNotFoundError: if httpx is not installed, which the API is spoken to by.
    """

    def __init__(
        self,
        address: str | None = None,
        token: Token = None,
        *,
        patience: float = 30.0,
        transport: Transport | None = None,
    ) -> None:
        self._transport = transport if transport is not None else transport_to(address, token, patience)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False
        self._iterations: WeakSet[AsyncGenerator[Any, None]] = WeakSet()
        """Of events and files, which somebody may have left in the middle."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; may be called again. Whatever waits for a job ends with ``RuntimeError``."""
        if not self._is_closed:
            transport = self._used()
            self._is_closed = True
            for iteration in list(self._iterations):
                # One that is just waited in ends with its connection.
                with suppress(RuntimeError):
                    await iteration.aclose()
            await transport.close()

    @overload
    async def create(self, payload: Payload[_R], **options: Unpack[JobOptions]) -> "AsyncJobHandle[_R]": ...

    @overload
    async def create(self, payload: BaseModel, **options: Unpack[JobOptions]) -> "AsyncJobHandle[Any]": ...

    async def create(self, payload: BaseModel, **options: Unpack[JobOptions]) -> "AsyncJobHandle[Any]":
        """Create a job; it is durable once this returns.

        The type of the job follows from the model of the payload, and so does that of its result. Whatever becomes of
        connections meanwhile, one call makes one job. Two calls with one ``key`` and the same payload make one as well:
        the handle of the second is ``deduplicated``.

        :param payload: an object of the payload model that ``job_type`` has registered in this process.
        :param options: as ``JobOptions`` says.
        :raises InvalidPayload: | InvalidArgument: | PayloadTooLarge: | IdempotencyConflict: | QueueFull: if it is
            refused: nothing was stored, and ``field`` says what is at fault.
        :raises Unreachable: | QueueUnavailable: if no answer came for as long as patience has it. Whether the job was
            stored is not known then, unless a key tells.
        :raises LookupError: if the model of the payload is that of no registered type, or of several.
        """
        transport, creation = self._used(), creation_of(payload, options)
        (made,) = await transport.create([creation])
        return AsyncJobHandle(self, made.id, creation.job_type.result, deduplicated=made.deduplicated)

    async def create_many(self, payloads: Iterable[Asked]) -> "list[AsyncJobHandle[Any]]":
        """Create jobs in this order, many at a time, and return their handles in it.

        They are sent in batches within the limits of the server; while one is stored, the next one is made.

        :param payloads: each a payload, or a pair of one and its options as a dictionary.
        :raises PartlyCreated: if some were stored and others were not: ``created`` says which, in order.
        :raises ClientError: as ``create`` does, if none was stored; ``extensions["input"]`` is the place of the payload
            at fault, from 0.
        """
        transport = self._used()
        batches = creation_batches(payloads, transport.largest_batch, transport.largest_batch_bytes)
        made: list[CreatedJob] = []
        models: list[type[BaseModel] | None] = []
        batch: list[Creation] = await anext(batches, [])
        while batch:
            making = asyncio.create_task(next_batch(batches))
            try:
                made += await transport.create(batch)
                following = await making
            except ClientError as error:
                raise error_of_many(error, made, len(batch)) from error
            finally:
                making.cancel()
            if isinstance(following, Exception):
                raise error_of_many(following, made, 0) from following
            models += [creation.job_type.result for creation in batch]
            batch = following
        return [
            AsyncJobHandle(self, one.id, model, deduplicated=one.deduplicated)
            for one, model in zip(made, models, strict=True)
        ]

    @overload
    def job(self, job: str | JobSnapshot, result: type[_R]) -> "AsyncJobHandle[_R]": ...

    @overload
    def job(self, job: str | JobSnapshot, result: None = None) -> "AsyncJobHandle[Any]": ...

    def job(self, job: str | JobSnapshot, result: type[Any] | None = None) -> "AsyncJobHandle[Any]":
        """Return a handle of a job that there is; nothing is asked.

        :param job: its id, or what ``jobs`` has shown of it.
        :param result: the model of its result. By default that of its type, if it is registered in this process, else
            the result is what JSON says.
        """
        return AsyncJobHandle(self, job if isinstance(job, str) else job.id, Any if result is None else result)

    async def jobs(
        self,
        *,
        status: OneOrMore[JobStatus | str] = None,
        type: OneOrMore[str] = None,  # noqa: A002 - the schema's name
        queue: OneOrMore[str] = None,
        priority: OneOrMore[JobPriority | str] = None,
        tags: OneOrMore[str] = None,
        ids: OneOrMore[str] = None,
        parent: str | None = None,
        schedule: str | None = None,
        key: str | None = None,
        concurrency_key: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        first: int | None = None,
    ) -> AsyncIterator[JobSnapshot]:
        """Yield the jobs that match, newest first, without their results; page by page, as they are taken.

        All conditions that are given have to hold: a job has one of the values of each, but all of the ``tags``.

        :param status: ``"dead_letter"`` or ``JobStatus.DEAD_LETTER``, say.
        :param parent: the id of the job whose handler has created them.
        :param schedule: the name of the schedule that has made them.
        :param key: theirs, also of those that have ended.
        :param created_after: later than this; UTC where it has no offset.
        :param first: no more than so many.
        :raises InvalidArgument: for a condition that cannot be meant.
        """
        transport = self._used()
        wanted = JobFilter(
            ids=_set(ids, str),
            status=_set(status, status_of),
            type=_set(type, str),
            queue=_set(queue, str),
            priority=_set(priority, priority_of),
            tags=_set(tags, str),
            created_after=moment_of("created_after", created_after),
            created_before=moment_of("created_before", created_before),
            parent=parent,
            schedule=schedule,
            key=key,
            concurrency_key=concurrency_key,
        )
        left, after = first_of(first), None
        while left is None or left > 0:
            size = _LARGEST_PAGE if left is None else min(left, _LARGEST_PAGE)
            page = await transport.jobs(wanted, size, after)
            for job in page.jobs:
                yield job
            left = None if left is None else left - len(page.jobs)
            after = page.next
            if after is None:
                return

    async def pause_queue(
        self, name: str, *, reason: str | None = None, until: datetime | timedelta | None = None
    ) -> Pause:
        """Have nothing of a queue start, on any worker, until it is resumed; return its pause.

        What runs may finish, and jobs can be created as ever. A queue that is paused already gets this reason and this
        end.

        :param reason: why, for all who wonder why their jobs wait: 1 to 500 printable characters.
        :param until: when the queue goes on by itself: a moment, in UTC where it has no offset, or how long from now.
        :raises InvalidArgument: if there is no such queue, or a pause cannot have this reason or this end.
        :raises Forbidden: without the scope OPERATE, or with a tenant or limits.
        """
        end = clock.now() + until if isinstance(until, timedelta) else moment_of("until", until)
        return await self._used().pause_queue(name, reason, end)

    async def resume_queue(self, name: str) -> None:
        """Have what waits in a paused queue start again; of a queue that is not paused nothing changes.

        :raises InvalidArgument: if there is no such queue.
        :raises Forbidden: without the scope OPERATE, or with a tenant or limits.
        """
        await self._used().resume_queue(name)

    async def set_queue_limits(
        self,
        name: str,
        *,
        concurrency: int | None = None,
        concurrency_per_key: int | None = None,
        per_second: float | None = None,
    ) -> Limits:
        """Limit how many jobs of a queue run at a time and start in a second, on all workers; return the limits.

        They take the place of those that the queue has: what is not given is not limited. In effect at once.

        :param concurrency: how many run at a time.
        :param concurrency_per_key: how many of those with one concurrency key do.
        :param per_second: how many start in a second, on average; a fraction is one in several seconds.
        :raises InvalidArgument: if there is no such queue, or a limit is outside its bounds.
        :raises Forbidden: without the scope OPERATE, or with a tenant or limits.
        """
        limits = queue_limits_of(
            concurrency=concurrency, concurrency_per_key=concurrency_per_key, per_second=per_second
        )
        await self._used().set_queue_limits(name, limits)
        return limits

    async def upsert_schedule(
        self, name: str, payload: BaseModel, **options: Unpack[ScheduleOptions]
    ) -> ScheduleSnapshot:
        """Define a schedule of jobs with this payload, or replace the one of this name; return it.

        To ask for the same again changes nothing.

        :param options: when it is due, by ``cron`` or ``every``, and what else ``ScheduleOptions`` has.
        :raises TypeError: | LookupError: if the payload is that of no registered type, or there is no such option.
        :raises InvalidArgument: | InvalidPayload: if it can be no schedule.
        :raises Forbidden: without the scope OPERATE, or with a tenant or limits.
        """
        return await self._used().schedules.upsert(asked_schedule(name, payload, options))

    async def pause_schedule(self, name: str) -> ScheduleSnapshot:
        """Have a schedule be without ticks until it is resumed, and cancel what is ahead of it; return it.

        :raises NotFound: if there is none.
        :raises Forbidden: without the scope OPERATE, or with a tenant or limits.
        """
        return await self._used().schedules.pause(name, paused=True)

    async def resume_schedule(self, name: str) -> ScheduleSnapshot:
        """Have a schedule have ticks again, from now on; return it.

        :raises NotFound: if there is none.
        :raises Forbidden: without the scope OPERATE, or with a tenant or limits.
        """
        return await self._used().schedules.pause(name, paused=False)

    async def delete_schedule(self, name: str) -> bool:
        """Delete a schedule, and cancel its jobs that have not been queued; return whether it was there.

        :raises Forbidden: without the scope OPERATE, or with a tenant or limits.
        """
        return await self._used().schedules.delete(name)

    async def run_schedule(self, name: str) -> "AsyncJobHandle[Any]":
        """Create a job of a schedule at once, outside of its ticks; return its handle.

        :raises NotFound: if there is none.
        :raises Forbidden: without the scope OPERATE, or with a tenant or limits.
        """
        return self.job(await self._used().schedules.run(name))

    async def schedules(self) -> list[ScheduleSnapshot]:
        """Return all schedules, sorted by name; none to whoever sees some jobs only."""
        return await self._used().schedules.all()

    async def schedule(self, name: str) -> ScheduleSnapshot | None:
        """Return a schedule; None if there is none, and to whoever sees some jobs only."""
        return await self._used().schedules.find(name)

    async def schedule_preview(
        self,
        *,
        cron: str | None = None,
        every: int | timedelta | None = None,
        time_zone: str | None = None,
        first: int | None = None,
        after: datetime | None = None,
    ) -> list[datetime]:
        """Return when such a schedule would be due, in UTC.

        :param first: how many moments, 5 by default.
        :param after: those after this moment; after now by default.
        :raises InvalidArgument: if it could be no schedule.
        """
        asked = asked_recurrence({"cron": cron, "every": every, "time_zone": time_zone})
        return await self._used().schedules.preview(asked, first_of(first), moment_of("after", after))

    def _used(self) -> Transport:
        """Return the transport, for use by the event loop that runs.

        :raises RuntimeError: if the client is closed, or belongs to another event loop.
        """
        loop = asyncio.get_running_loop()
        if self._is_closed:
            raise RuntimeError("The client is closed.")
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise RuntimeError(
                "This AsyncClient belongs to the event loop that has used it first: make one for each loop, or use "
                "Client, which any thread may use."
            )
        return self._transport

    @asynccontextmanager
    async def _iterated(self, begun: AsyncGenerator[_T, None]) -> AsyncIterator[AsyncGenerator[_T, None]]:
        """Yield an iteration of the transport, which ends with the block, or when this client is closed."""
        self._iterations.add(begun)
        async with aclosing(begun):
            yield begun


class AsyncJobHandle(Generic[_R]):
    """A job, and what can be done with it; ``client.create`` and ``client.job`` return it."""

    def __init__(self, client: AsyncClient, job_id: str, model: Any, *, deduplicated: bool = False) -> None:
        """Stand for a job of a client.

        :param model: that of its result, None if its handler returns nothing, ``Any`` for that of its type.
        """
        self._client = client
        self._id = job_id
        self._model = model
        self._deduplicated = deduplicated

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._id}>"

    @property
    def id(self) -> str:
        """The job's id, a UUID."""
        return self._id

    @property
    def deduplicated(self) -> bool:
        """Whether its key had made the job before it was created by this call."""
        return self._deduplicated

    async def state(self) -> JobSnapshot:
        """Return the job as it is now.

        :raises NotFound: if there is no such job, or not any more, or not for whoever asks.
        """
        job = await self._client._used().find(self._id)  # noqa: SLF001
        if job is None:
            raise NotFound(f"There is no job {self._id!r}.", {"code": "NOT_FOUND", "jobId": self._id})
        return job

    async def result(self, timeout: float | timedelta | None = None) -> _R:  # noqa: ASYNC109 - ends the waiting alone
        """Wait until the job has ended, and return its result; None if its handler returns nothing.

        It is told of the end, and does not ask again and again. A server that restarts meanwhile is waited for.
        Secrets in a result are stored nowhere, and stand in it as ``[redacted]``.

        :param timeout: seconds to wait at most; without it, as long as it takes. The job goes on.
        :raises JobFailed: if the job failed for good: with its error, and those of all its attempts.
        :raises JobCancelled: if it was cancelled.
        :raises ResultTimeout: a ``TimeoutError``, if it has not ended in time.
        :raises InvalidArgument: for a timeout that is no such time.
        :raises NotFound: if there is no such job, or it has expired.
        :raises UnreadableResult: if the stored result does not fit the model.
        """
        seconds = seconds_of(timeout)
        transport = self._client._used()  # noqa: SLF001
        try:
            async with asyncio.timeout(seconds) as limit:
                job = await transport.ended(self._id)
        except TimeoutError:
            if not limit.expired() or seconds is None:
                raise
            raise ResultTimeout(self._id, seconds) from None
        if job.status is JobStatus.CANCELLED:
            raise JobCancelled(job)
        if job.status is JobStatus.DEAD_LETTER:
            raise JobFailed(job)
        return cast("_R", self._read(job))

    def _read(self, job: JobSnapshot) -> Any:
        model = result_model_of(job.type) if self._model is Any else self._model
        if model is None or model is type(None):
            return None
        stored = job.result if job.result is not None else b"null"
        if model is Any:
            return msgspec.json.decode(stored)
        try:
            return read(model, stored)
        except ModelMismatch as mismatch:
            raise UnreadableResult(self._id, stored, mismatch.told_faults()) from None

    async def events(self, after: str | None = None) -> AsyncIterator[JobEvent]:
        """Yield what happens to the job, first its latest event, until it has ended.

        Each event comes once and none is left out, also where the connection is lost or the server restarts.

        :param after: the ``cursor`` of an event: what followed it comes instead, as for a program that has been
            restarted itself.
        :raises NotFound: if there is no such job, or it has expired.
        :raises InvalidArgument: if the cursor is of no event that is kept.
        """
        begun = self._client._used().events(self._id, after)  # noqa: SLF001
        async with self._client._iterated(begun) as events:  # noqa: SLF001
            async for event in events:
                yield event

    async def cancel(self) -> JobSnapshot:
        """Cancel the job, and return it; if it runs, its worker is told at once.

        :raises InvalidState: if it has ended.
        :raises NotFound: if there is no such job.
        """
        return await self._client._used().cancel(self._id)  # noqa: SLF001

    async def update(self, **changes: Unpack[EditOptions]) -> JobSnapshot:
        """Change the job, which has not started yet, and return it; ``EditOptions`` says what may be changed.

        It is queued or scheduled anew. Where nothing would be another, nothing is done.

        :raises InvalidState: if it has started or ended.
        :raises InvalidPayload: | InvalidArgument: if it cannot be changed so: a payload has to be of its own type.
        :raises NotFound: if there is no such job.
        """
        return await self._client._used().update(self._id, edit_of(changes))  # noqa: SLF001

    async def retry(self, payload: BaseModel | None = None) -> JobSnapshot:
        """Run the job again, which has failed for good or was cancelled, and return it.

        If its ``run_at`` still lies ahead, it is held back until then once more.

        :param payload: another one in the place of its own, of the same type.
        :raises InvalidState: if it is neither.
        :raises InvalidPayload: | InvalidArgument: if it cannot have that payload.
        :raises NotFound: if there is no such job.
        :raises Unreachable: | QueueUnavailable: also if the answer was lost: it may run again then.
        """
        return await self._client._used().retry(self._id, payload_of_edit(payload))  # noqa: SLF001

    async def delete(self) -> bool:
        """Delete the job for good, with everything that was stored of it; return whether it was there.

        False means that it had expired or was deleted before. Its key is free again.

        :raises InvalidState: if it runs: cancel it first.
        :raises NotFound: if there is no such job.
        :raises Forbidden: without the scope OPERATE.
        """
        return await self._client._used().delete(self._id)  # noqa: SLF001

    async def artifacts(self) -> "list[AsyncJobArtifact]":
        """Return the files that the handler has saved and that are complete, by name.

        :raises NotFound: if there is no such job.
        """
        infos = await self._client._used().artifacts(self._id)  # noqa: SLF001
        return [AsyncJobArtifact(self._client, self._id, info) for info in infos]

    async def artifact(self, name: str) -> "AsyncJobArtifact":
        """Return the file of this name that the handler has saved and that is complete.

        :raises NotFound: if there is no such file, or no such job.
        """
        for file in await self.artifacts():
            if file.name == name:
                return file
        raise NotFound(f"The job {self._id} has no file {name!r}.", {"code": "NOT_FOUND", "jobId": self._id})

    def _with(self, client: AsyncClient) -> "AsyncJobHandle[_R]":
        """Return a handle of the same job by another client."""
        return AsyncJobHandle(client, self._id, self._model, deduplicated=self._deduplicated)


class AsyncJobArtifact:
    """A file that a handler has saved with its job."""

    def __init__(self, client: AsyncClient, job_id: str, info: ArtifactInfo) -> None:
        self._client = client
        self._job_id = job_id
        self._info = info

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._info.name!r}, {self._info.size_bytes} bytes>"

    @property
    def name(self) -> str:
        """Its path among the files of the job."""
        return self._info.name

    @property
    def content_type(self) -> str:
        """Its media type."""
        return self._info.content_type

    @property
    def size_bytes(self) -> int:
        """Bytes of the whole file."""
        return self._info.size_bytes

    @property
    def sha256(self) -> str:
        """Its SHA-256, in hexadecimal digits."""
        return self._info.sha256

    @property
    def created_at(self) -> datetime:
        """When it was saved."""
        return self._info.created_at

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the bytes of the file, part by part; its digest is checked at the end.

        :raises NotFound: if there is no such file any more.
        :raises DamagedArtifact: if it was replaced while it was read, or is not what was saved.
        """
        begun = self._client._used().artifact(self._job_id, self._info.name)  # noqa: SLF001
        async with self._client._iterated(begun) as chunks:  # noqa: SLF001
            async for chunk in chunks:
                yield chunk

    async def read(self) -> bytes:
        """Return the bytes of the file; raises as ``chunks`` does."""
        return b"".join([chunk async for chunk in self.chunks()])

    async def save(self, path: str | PathLike[str]) -> Path:
        """Write the file to a path, and return that; what stands there is replaced once all is there.

        :raises OSError: if it cannot be written.
        :raises ClientError: as ``chunks`` does; what stands there is left as it is.
        """
        whole = Path(path)
        partial = whole.with_name(f".{whole.name[:100]}.{token_hex(4)}")
        file = await asyncio.to_thread(partial.open, "xb")
        try:
            with file:
                async for chunk in self.chunks():
                    await asyncio.to_thread(file.write, chunk)
            await asyncio.to_thread(partial.replace, whole)
        finally:
            await asyncio.to_thread(partial.unlink, missing_ok=True)
        return whole

    def _with(self, client: AsyncClient) -> "AsyncJobArtifact":
        """Return the same file by another client."""
        return AsyncJobArtifact(client, self._job_id, self._info)


def transport_to(address: str | None, token: Token, patience: float) -> Transport:
    """Return the transport that an address is for.

    :raises ValueError: | ModuleNotFoundError: as ``AsyncClient`` does.
    """
    address, found = address_and_token(address, token if isinstance(token, str) else None)
    if is_of_nats(address):
        if token is not None:
            raise BadAddress(
                "A NATS server takes no key or token of the API: give its user and password in the address."
            )
        # Each by itself, because it needs what the other one does not.
        from gql_jobs.client.nats_transport import NatsTransport, nats_settings  # noqa: PLC0415

        return NatsTransport(nats_settings(address), patience=patience)
    try:
        from gql_jobs.client.http_transport import HttpTransport  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("gql_jobs"):
            raise
        advice = f"{error.name} is not installed: run pip install 'gql-jobs[client]'."
        raise ModuleNotFoundError(advice, name=error.name) from None
    return HttpTransport(address, token if callable(token) else found, patience=patience)


def _set(given: OneOrMore[Any], of: Callable[[Any], _T]) -> frozenset[_T] | None:
    if given is None:
        return None
    return frozenset(map(of, [given] if isinstance(given, str) else given))
