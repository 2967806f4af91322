"""The connection of a client to NATS: what is open over it, and what is asked over it until patience is over.

It is opened at its first use. The streams have to be there: API processes make them, and this neither makes nor changes
any.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TypeVar

from msgspec import Struct

from gql_jobs.access.store import known_hash_key
from gql_jobs.client.errors import ClientError, InternalError, Unreachable, refusal
from gql_jobs.client.job_follower import JobFollower
from gql_jobs.jetstream.connection import Connection, connect
from gql_jobs.jobs.errors import GqlJobsError, QueueUnavailable
from gql_jobs.jobs.messages import Kind
from gql_jobs.jobs.payload_codec import CodecFailure, StoredPayloads
from gql_jobs.jobs.registry import registry
from gql_jobs.log import codec
from gql_jobs.log.artifacts import ArtifactStore
from gql_jobs.log.commands import JobCommands
from gql_jobs.log.deletion import JobDeletions
from gql_jobs.log.job_log import JobLog, open_job_log
from gql_jobs.log.paused_consumers import PauseCommands
from gql_jobs.log.schedules import ScheduleCommands
from gql_jobs.log.streams import UnsuitableServer, look_for_streams
from gql_jobs.processes.event_loop import in_background
from gql_jobs.settings import Settings

log = logging.getLogger(__name__)
_T = TypeVar("_T")

PAUSE = 0.25
"""Seconds between two tries."""
CLOSED = "The client was closed."
_ENDS = frozenset({Kind.COMPLETED, Kind.DEAD_LETTER, Kind.CANCELLED, Kind.EXPIRED})


class NatsSession(Struct):
    """What is open while the client is connected."""

    connection: Connection
    job_log: JobLog
    commands: JobCommands
    deletions: JobDeletions
    pauses: PauseCommands
    schedules: ScheduleCommands
    artifacts: ArtifactStore
    ends: JobFollower
    """Wakes those who wait for the end of a job."""
    moves: JobFollower
    """Wakes those who want to know all that happens to a job."""


class NatsConnection:
    """Opens what a client needs at its first use, and keeps it open until the client is closed."""

    def __init__(self, settings: Settings, stored: StoredPayloads, patience: float) -> None:
        """Use these settings, once something is asked for.

        :param stored: how payloads are stored.
        :param patience: seconds for which what passes by itself is tried again.
        """
        self._settings = settings
        self._stored = stored
        self._patience = patience
        self._runner: asyncio.Task[None] | None = None
        self._opened: asyncio.Future[NatsSession] | None = None
        self._trouble = "NATS did not answer."
        self.is_closed = False

    async def close(self) -> None:
        """Close the connection, and end what waits with ``RuntimeError``."""
        self.is_closed = True
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.cancel()
            await asyncio.wait({runner})

    async def session(self) -> NatsSession:
        """Return what is open, opened now if it is not.

        :raises Unreachable: if that takes longer than patience has it.
        """
        if self.is_closed:
            raise RuntimeError(CLOSED)
        if self._runner is None or self._runner.done():
            self._opened = asyncio.get_running_loop().create_future()
            self._runner = asyncio.create_task(self._run(self._opened))
        assert self._opened is not None
        if self._opened.done():
            return self._opened.result()
        try:
            async with asyncio.timeout(self._patience):
                return await asyncio.shield(self._opened)
        except TimeoutError:
            raise Unreachable(self._trouble) from None

    async def _run(self, opened: asyncio.Future[NatsSession]) -> None:
        """Keep everything open until the client is closed."""
        failure: Exception = RuntimeError(CLOSED)
        try:
            async with AsyncExitStack() as stack:
                opened.set_result(await self._open(stack))
                await asyncio.get_running_loop().create_future()
        except UnsuitableServer as error:
            failure = Unreachable(error.message)
        except Exception as error:
            log.exception("the connection to NATS has to be opened anew")
            failure = Unreachable(f"The client could not be opened: {type(error).__name__}.")
        finally:
            if not opened.done():
                opened.set_exception(failure)
                # Perhaps nobody waits for it any more.
                opened.exception()

    async def _open(self, stack: AsyncExitStack) -> NatsSession:
        connection = await stack.enter_async_context(connect(self._settings, "gql-jobs client", self._note_trouble))
        while True:
            try:
                await look_for_streams(connection)
                job_log = await stack.enter_async_context(open_job_log(connection))
                break
            except QueueUnavailable as error:
                self._note_trouble(error.message)
                await asyncio.sleep(PAUSE)
        ends = JobFollower(connection, codec.ALL_EVENTS, _ENDS)
        moves = JobFollower(connection, codec.ALL_JOBS)
        for follower in (ends, moves):
            await stack.enter_async_context(in_background(follower.run()))
        commands = JobCommands(job_log, self._settings, stored=self._stored)
        artifacts = ArtifactStore(job_log, self._settings, makes_bucket=False)
        return NatsSession(
            connection=connection,
            job_log=job_log,
            commands=commands,
            deletions=JobDeletions(job_log, commands, artifacts),
            pauses=PauseCommands(job_log),
            schedules=ScheduleCommands(job_log, commands, registry, self._stored),
            artifacts=artifacts,
            ends=ends,
            moves=moves,
        )

    async def know_hash_key(self, *, is_confidential: bool) -> None:
        """Have the key that all API processes hash confidential payloads with, if what is to be stored is so.

        :param is_confidential: whether it has secrets; where a codec is set everything is confidential.
        :raises QueueUnavailable: if it cannot be had.
        """
        stored = self._stored
        if stored.hash_key is not None or not (stored.encodes or is_confidential):
            return
        stored.hash_key = await known_hash_key((await self.session()).connection)
        if stored.hash_key is None:
            raise QueueUnavailable(
                "The key that confidential payloads are hashed with is not there yet: it is made by API processes, so "
                "one of these has to be started first."
            )

    def _note_trouble(self, trouble: str) -> None:
        self._trouble = trouble

    async def patiently(self, ask: Callable[[], Awaitable[_T]], doubts: list[QueueUnavailable] | None = None) -> _T:
        """Return what is asked for, and ask again where NATS does not answer.

        :param doubts: gets the errors of the tries that may have been done; None if it must not be done twice.
        :raises ClientError: what is left of that once patience is over.
        """
        deadline = time.monotonic() + self._patience
        while True:
            try:
                return await ask()
            except QueueUnavailable as error:
                is_uncertain = may_be_stored(error)
                if is_uncertain and doubts is not None:
                    doubts.append(error)
                    is_uncertain = False
                if is_uncertain or time.monotonic() + PAUSE > deadline or self.is_closed:
                    raise client_error(error) from error
            except GqlJobsError as error:
                raise client_error(error) from error
            await asyncio.sleep(PAUSE)


def client_error(error: BaseException, place: int | None = None) -> ClientError:
    """Return the error that a client gets.

    :param place: of the creation at fault.
    """
    if isinstance(error, GqlJobsError):
        at = {} if place is None else {"input": place}
        return refusal(error.message, {**error.extensions, **at})
    if isinstance(error, CodecFailure):
        return InternalError(str(error))
    log.error("something unexpected went wrong", exc_info=error)
    return InternalError(f"Something unexpected went wrong: {type(error).__name__}. The log has the details.")


def may_be_stored(outcome: object) -> bool:
    """Return whether it is not known if something was stored."""
    return isinstance(outcome, QueueUnavailable) and outcome.extensions.get("jobId") is not None
