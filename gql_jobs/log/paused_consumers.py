"""Queues are paused and resumed: by a message in the stream, and by the pause of the server's consumers.

That a queue is paused says its message in the stream, for whoever asks why; a consumer's own pause only follows it. It
survives a restart of the server, ends by itself at the moment that it was given, and holds back workers of releases
that know nothing of pauses.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from gql_jobs import clock
from gql_jobs.jetstream.connection import Connection
from gql_jobs.jetstream.errors import ApiError
from gql_jobs.jetstream.stored_messages import last_message
from gql_jobs.jobs.errors import QueueUnavailable
from gql_jobs.jobs.messages import SteeringMessage
from gql_jobs.jobs.model import JobPriority
from gql_jobs.jobs.pause import FAR, Pause, checked_reason, checked_until, pause_of
from gql_jobs.log import codec
from gql_jobs.log.job_log import RETRY_PAUSE, JobLog, queue_errors
from gql_jobs.log.steering import SteeringLog, as_value

log = logging.getLogger(__name__)
_T = TypeVar("_T")

_PATIENCE = 8.0
"""Seconds for which a pause or a resume is tried again that the server does not answer."""
NO_CONSUMER = 10014
"""The server's error number for: there is no such consumer."""


def consumer_pause(pause: Pause | None) -> datetime | None:
    """Return the moment that the server is told, until which a queue's consumers are paused; None if they are not."""
    if pause is None:
        return None
    return FAR if pause.until is None else clock.for_server(pause.until)


async def stored_pause(connection: Connection, queue: str) -> Pause | None:
    """Return the pause of a queue as the stream's leader has it; one that is over by now among them.

    :raises ApiError: if there is no stream.
    :raises QueueUnavailable: if the leader does not answer.
    """
    with queue_errors():
        stored = await last_message(connection, codec.JOBS_STREAM, codec.steering_subject(codec.PAUSES, queue))
    if stored is None:
        return None
    try:
        message = codec.read_steering(stored)
    except codec.Unreadable:
        # Of a newer release: its own processes see to it.
        return None
    return pause_of(message.value) if message is not None else None


async def has_queue(job_log: JobLog, queue: str) -> bool:
    """Return whether a job was submitted to a queue and is kept, or the queue is or was lately paused.

    :raises QueueUnavailable: if the leader does not answer.
    """
    for subjects in (codec.submissions_of_queue(queue), codec.steering_subject(codec.PAUSES, queue)):
        if await job_log.last(subjects) is not None:
            return True
    return False


async def _patiently(ask: Callable[[], Awaitable[_T]]) -> _T:
    """Return what is asked for, and ask again where the server does not answer: a queue is paused because of its load.

    :raises QueueUnavailable: if it has not answered within ``_PATIENCE`` seconds.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _PATIENCE
    while True:
        try:
            return await ask()
        except QueueUnavailable:
            if loop.time() > deadline:
                raise
        await asyncio.sleep(RETRY_PAUSE)


class PauseCommands:
    """Pauses and resumes queues. One instance per process."""

    def __init__(self, job_log: JobLog) -> None:
        self._log = job_log
        self._steering = SteeringLog(job_log)

    async def pause(
        self, queue: str, reason: str | None, until: datetime | None, actor: str | None = None
    ) -> tuple[Pause, int]:
        """Pause a queue, or change why and until when it is paused; to ask for the same again changes nothing.

        The message is stored first, which workers of this release obey. If the server does not answer after that, API
        processes pause the consumers later.

        :param queue: the name of a queue that exists.
        :param until: when the pause ends by itself; None for no end.
        :param actor: who pauses it.
        :returns: the pause, and the sequence of its message.
        :raises InvalidArgument: for a reason or an end that a pause cannot have.
        :raises QueueUnavailable: | QueueFull: if that was not stored.
        """
        reason = checked_reason(reason)
        pause, seq = await _patiently(lambda: self._store(queue, reason, until, actor))
        await self._pause_consumers(queue, pause)
        return pause, seq

    async def _store(
        self, queue: str, reason: str | None, until: datetime | None, actor: str | None
    ) -> tuple[Pause, int]:
        now = await self._log.server_time()
        until = checked_until(until, now)
        pause = Pause(at=now, by=actor, reason=reason, until=until)

        def decide(present: SteeringMessage | None) -> Raw | SteeringMessage | None:
            nonlocal pause
            known = pause_of(present.value) if present is not None else None
            if known is None or known.is_over(now):
                return as_value(pause)
            if (known.reason, known.until) == (reason, until):
                pause = known
                return present
            pause = Pause(at=known.at, by=actor, reason=reason, until=until)
            return as_value(pause)

        message = await self._steering.change(codec.PAUSES, queue, decide, actor=actor)
        return pause, message.seq if message is not None else 0

    async def resume(self, queue: str, actor: str | None = None) -> int:
        """End the pause of a queue; of one that is not paused, see to it that its consumers are not.

        The consumers are resumed first: the message has workers open their pulls anew, and one that is opened while its
        consumer is paused may not be served after that.

        :param actor: who resumes it.
        :returns: the sequence of the message that says so, 0 if there is none.
        :raises QueueUnavailable: | QueueFull: if that was not stored.
        """
        await self._pause_consumers(queue, None)
        change = partial(self._steering.change, codec.PAUSES, queue, lambda _: None, actor=actor)
        message = await _patiently(change)
        return message.seq if message is not None else 0

    async def _pause_consumers(self, queue: str, pause: Pause | None) -> None:
        try:
            await pause_consumers(self._log.connection, queue, consumer_pause(pause))
        except (QueueUnavailable, ApiError) as error:
            log.warning("consumers of the queue %s are not yet as its pause says: %s", queue, error)


async def pause_consumers(connection: Connection, queue: str, until: datetime | None) -> None:
    """Pause the consumers of all priorities of a queue, or (None) resume them; those that do not exist are left out.

    :param until: when the server resumes them by itself.
    :raises ApiError: if the server refuses.
    :raises QueueUnavailable: if it does not answer; some of them may have been paused then.
    """
    names = [codec.consumer_name(queue, priority) for priority in JobPriority]
    pauses = (pause_consumer(connection, name, until) for name in names)
    outcomes = await asyncio.gather(*pauses, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome


async def pause_consumer(connection: Connection, name: str, until: datetime | None) -> None:
    """Pause a consumer, or (None) resume it; do nothing if there is none.

    :raises ApiError: if the server refuses.
    :raises QueueUnavailable: if it does not answer.
    """
    body = {"pause_until": until} if until is not None else None
    try:
        with queue_errors():
            await connection.api(f"CONSUMER.PAUSE.{codec.JOBS_STREAM}.{name}", body)
    except ApiError as error:
        if error.err_code != NO_CONSUMER:
            raise


def is_paused_as(paused: bool, config: dict[str, Any], until: datetime | None) -> bool:
    """Return whether a consumer is paused until that moment, or (None) not paused.

    :param paused: whether it is, as the server says.
    :param config: its configuration, as the server says.
    """
    if until is None or not paused:
        return until is None and not paused
    told = config.get("pause_until")
    return told is not None and msgspec.convert(told, datetime) == until
