"""The client for code that does not await: ``Client`` has what ``AsyncClient`` has, and waits for it.

Generated from ``async_client.py`` by ``python -m gql_jobs.client.sync_generator``; changes belong there.
"""

# ruff: noqa: A002, SLF001 - as in the source, whose other half this is
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, Unpack, overload

from pydantic import BaseModel

from gql_jobs.client.async_client import AsyncClient, AsyncJobArtifact, AsyncJobHandle, OneOrMore
from gql_jobs.client.background_loop import BackgroundLoop
from gql_jobs.client.creation import Asked, JobOptions
from gql_jobs.client.editing import EditOptions
from gql_jobs.client.schedule_options import ScheduleOptions
from gql_jobs.client.transport import JobEvent, JobSnapshot, ScheduleSnapshot, Token, Transport
from gql_jobs.jobs.limits import Limits
from gql_jobs.jobs.model import JobPriority, JobStatus
from gql_jobs.jobs.pause import Pause
from gql_jobs.jobs.registry import Payload

_R = TypeVar("_R", bound=BaseModel | None)


class Client:
    """A client of one server: creates jobs, finds them, and follows them to their results.

    It waits for what is asked, and so is not for code that runs in an event loop, which has ``AsyncClient``. Any number
    of threads may use one. It opens connections when they are needed, in a thread of its own, and anew in a process
    that was forked. ``with`` closes it.

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
        self._loop = BackgroundLoop(
            lambda: AsyncClient(address, token, patience=patience, transport=transport), is_remade=transport is None
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections; may be called again. Whatever waits for a job ends with ``RuntimeError``."""
        self._loop.close()

    @overload
    def create(self, payload: Payload[_R], **options: Unpack[JobOptions]) -> "JobHandle[_R]": ...

    @overload
    def create(self, payload: BaseModel, **options: Unpack[JobOptions]) -> "JobHandle[Any]": ...

    def create(self, payload: BaseModel, **options: Unpack[JobOptions]) -> "JobHandle[Any]":
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
        return JobHandle(self._loop, self._loop.run(lambda client: client.create(payload, **options)))

    def create_many(self, payloads: Iterable[Asked]) -> "list[JobHandle[Any]]":
        """Create jobs in this order, many at a time, and return their handles in it.

        They are sent in batches within the limits of the server; while one is stored, the next one is made.

        :param payloads: each a payload, or a pair of one and its options as a dictionary.
        :raises PartlyCreated: if some were stored and others were not: ``created`` says which, in order.
        :raises ClientError: as ``create`` does, if none was stored; ``extensions["input"]`` is the place of the payload
            at fault, from 0.
        """
        return [JobHandle(self._loop, one) for one in self._loop.run(lambda client: client.create_many(list(payloads)))]

    @overload
    def job(self, job: str | JobSnapshot, result: type[_R]) -> "JobHandle[_R]": ...

    @overload
    def job(self, job: str | JobSnapshot, result: None = None) -> "JobHandle[Any]": ...

    def job(self, job: str | JobSnapshot, result: type[Any] | None = None) -> "JobHandle[Any]":
        """Return a handle of a job that there is; nothing is asked.

        :param job: its id, or what ``jobs`` has shown of it.
        :param result: the model of its result. By default that of its type, if it is registered in this process, else
            the result is what JSON says.
        """
        return JobHandle(self._loop, self._loop.client.job(job, result))

    def jobs(
        self,
        *,
        status: OneOrMore[JobStatus | str] = None,
        type: OneOrMore[str] = None,
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
    ) -> Iterator[JobSnapshot]:
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
        return self._loop.iterate(
            lambda client: client.jobs(
                status=status,
                type=type,
                queue=queue,
                priority=priority,
                tags=tags,
                ids=ids,
                parent=parent,
                schedule=schedule,
                key=key,
                concurrency_key=concurrency_key,
                created_after=created_after,
                created_before=created_before,
                first=first,
            )
        )

    def pause_queue(self, name: str, *, reason: str | None = None, until: datetime | timedelta | None = None) -> Pause:
        """Have nothing of a queue start, on any worker, until it is resumed; return its pause.

        What runs may finish, and jobs can be created as ever. A queue that is paused already gets this reason and this
        end.

        :param reason: why, for all who wonder why their jobs wait: 1 to 500 printable characters.
        :param until: when the queue goes on by itself: a moment, in UTC where it has no offset, or how long from now.
        :raises InvalidArgument: if there is no such queue, or a pause cannot have this reason or this end.
        :raises Forbidden: without the scope OPERATE, or with a tenant or limits.
        """
        return self._loop.run(lambda client: client.pause_queue(name, reason=reason, until=until))

    def resume_queue(self, name: str) -> None:
        """Have what waits in a paused queue start again; of a queue that is not paused nothing changes.

        :raises InvalidArgument: if there is no such queue.
        :raises Forbidden: without the scope OPERATE, or with a tenant or limits.
        """
        return self._loop.run(lambda client: client.resume_queue(name))

    def set_queue_limits(
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
        return self._loop.run(
            lambda client: client.set_queue_limits(
                name, concurrency=concurrency, concurrency_per_key=concurrency_per_key, per_second=per_second
            )
        )

    def upsert_schedule(self, name: str, payload: BaseModel, **options: Unpack[ScheduleOptions]) -> ScheduleSnapshot:
        """Define a schedule of jobs with this payload, or replace the one of this name; return it.

        To ask for the same again changes nothing.

        :param options: when it is due, by ``cron`` or ``every``, and what else ``ScheduleOptions`` has.
        :raises TypeError: | LookupError: if the payload is that of no registered type, or there is no such option.
        :raises InvalidArgument: | InvalidPayload: if it can be no schedule.
        :raises Forbidden: without the scope OPERATE, or with a tenant or limits.
        """
        return self._loop.run(lambda client: client.upsert_schedule(name, payload, **options))

    def pause_schedule(self, name: str) -> ScheduleSnapshot:
        """Have a schedule be without ticks until it is resumed, and cancel what is ahead of it; return it.

        :raises NotFound: if there is none.
        :raises Forbidden: without the scope OPERATE, or with a tenant or limits.
        """
        return self._loop.run(lambda client: client.pause_schedule(name))

    def resume_schedule(self, name: str) -> ScheduleSnapshot:
        """Have a schedule have ticks again, from now on; return it.

        :raises NotFound: if there is none.
        :raises Forbidden: without the scope OPERATE, or with a tenant or limits.
        """
        return self._loop.run(lambda client: client.resume_schedule(name))

    def delete_schedule(self, name: str) -> bool:
        """Delete a schedule, and cancel its jobs that have not been queued; return whether it was there.

        :raises Forbidden: without the scope OPERATE, or with a tenant or limits.
        """
        return self._loop.run(lambda client: client.delete_schedule(name))

    def run_schedule(self, name: str) -> "JobHandle[Any]":
        """Create a job of a schedule at once, outside of its ticks; return its handle.

        :raises NotFound: if there is none.
        :raises Forbidden: without the scope OPERATE, or with a tenant or limits.
        """
        return JobHandle(self._loop, self._loop.run(lambda client: client.run_schedule(name)))

    def schedules(self) -> list[ScheduleSnapshot]:
        """Return all schedules, sorted by name; none to whoever sees some jobs only."""
        return self._loop.run(lambda client: client.schedules())

    def schedule(self, name: str) -> ScheduleSnapshot | None:
        """Return a schedule; None if there is none, and to whoever sees some jobs only."""
        return self._loop.run(lambda client: client.schedule(name))

    def schedule_preview(
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
        return self._loop.run(
            lambda client: client.schedule_preview(
                cron=cron, every=every, time_zone=time_zone, first=first, after=after
            )
        )


class JobHandle(Generic[_R]):
    """A job, and what can be done with it; ``client.create`` and ``client.job`` return it."""

    def __init__(self, loop: BackgroundLoop[AsyncClient], twin: AsyncJobHandle[_R]) -> None:
        self._loop = loop
        self._twin = twin

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._twin!r}>"

    @property
    def id(self) -> str:
        """The job's id, a UUID."""
        return self._twin.id

    @property
    def deduplicated(self) -> bool:
        """Whether its key had made the job before it was created by this call."""
        return self._twin.deduplicated

    def state(self) -> JobSnapshot:
        """Return the job as it is now.

        :raises NotFound: if there is no such job, or not any more, or not for whoever asks.
        """
        return self._loop.run(lambda client: self._twin._with(client).state())

    def result(self, timeout: float | timedelta | None = None) -> _R:
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
        return self._loop.run(lambda client: self._twin._with(client).result(timeout))

    def events(self, after: str | None = None) -> Iterator[JobEvent]:
        """Yield what happens to the job, first its latest event, until it has ended.

        Each event comes once and none is left out, also where the connection is lost or the server restarts.

        :param after: the ``cursor`` of an event: what followed it comes instead, as for a program that has been
            restarted itself.
        :raises NotFound: if there is no such job, or it has expired.
        :raises InvalidArgument: if the cursor is of no event that is kept.
        """
        return self._loop.iterate(lambda client: self._twin._with(client).events(after))

    def cancel(self) -> JobSnapshot:
        """Cancel the job, and return it; if it runs, its worker is told at once.

        :raises InvalidState: if it has ended.
        :raises NotFound: if there is no such job.
        """
        return self._loop.run(lambda client: self._twin._with(client).cancel())

    def update(self, **changes: Unpack[EditOptions]) -> JobSnapshot:
        """Change the job, which has not started yet, and return it; ``EditOptions`` says what may be changed.

        It is queued or scheduled anew. Where nothing would be another, nothing is done.

        :raises InvalidState: if it has started or ended.
        :raises InvalidPayload: | InvalidArgument: if it cannot be changed so: a payload has to be of its own type.
        :raises NotFound: if there is no such job.
        """
        return self._loop.run(lambda client: self._twin._with(client).update(**changes))

    def retry(self, payload: BaseModel | None = None) -> JobSnapshot:
        """Run the job again, which has failed for good or was cancelled, and return it.

        If its ``run_at`` still lies ahead, it is held back until then once more.

        :param payload: another one in the place of its own, of the same type.
        :raises InvalidState: if it is neither.
        :raises InvalidPayload: | InvalidArgument: if it cannot have that payload.
        :raises NotFound: if there is no such job.
        :raises Unreachable: | QueueUnavailable: also if the answer was lost: it may run again then.
        """
        return self._loop.run(lambda client: self._twin._with(client).retry(payload))

    def delete(self) -> bool:
        """Delete the job for good, with everything that was stored of it; return whether it was there.

        False means that it had expired or was deleted before. Its key is free again.

        :raises InvalidState: if it runs: cancel it first.
        :raises NotFound: if there is no such job.
        :raises Forbidden: without the scope OPERATE.
        """
        return self._loop.run(lambda client: self._twin._with(client).delete())

    def artifacts(self) -> "list[JobArtifact]":
        """Return the files that the handler has saved and that are complete, by name.

        :raises NotFound: if there is no such job.
        """
        return [
            JobArtifact(self._loop, one) for one in self._loop.run(lambda client: self._twin._with(client).artifacts())
        ]

    def artifact(self, name: str) -> "JobArtifact":
        """Return the file of this name that the handler has saved and that is complete.

        :raises NotFound: if there is no such file, or no such job.
        """
        return JobArtifact(self._loop, self._loop.run(lambda client: self._twin._with(client).artifact(name)))


class JobArtifact:
    """A file that a handler has saved with its job."""

    def __init__(self, loop: BackgroundLoop[AsyncClient], twin: AsyncJobArtifact) -> None:
        self._loop = loop
        self._twin = twin

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._twin!r}>"

    @property
    def name(self) -> str:
        """Its path among the files of the job."""
        return self._twin.name

    @property
    def content_type(self) -> str:
        """Its media type."""
        return self._twin.content_type

    @property
    def size_bytes(self) -> int:
        """Bytes of the whole file."""
        return self._twin.size_bytes

    @property
    def sha256(self) -> str:
        """Its SHA-256, in hexadecimal digits."""
        return self._twin.sha256

    @property
    def created_at(self) -> datetime:
        """When it was saved."""
        return self._twin.created_at

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes of the file, part by part; its digest is checked at the end.

        :raises NotFound: if there is no such file any more.
        :raises DamagedArtifact: if it was replaced while it was read, or is not what was saved.
        """
        return self._loop.iterate(lambda client: self._twin._with(client).chunks())

    def read(self) -> bytes:
        """Return the bytes of the file; raises as ``chunks`` does."""
        return self._loop.run(lambda client: self._twin._with(client).read())

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the file to a path, and return that; what stands there is replaced once all is there.

        :raises OSError: if it cannot be written.
        :raises ClientError: as ``chunks`` does; what stands there is left as it is.
        """
        return self._loop.run(lambda client: self._twin._with(client).save(path))
