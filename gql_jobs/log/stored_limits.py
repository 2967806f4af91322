"""The limits of queues and job types as the stream's leader has them, and those that types are registered with.

An API process follows the stream, and knows the limits as of the position that it has applied. Clients that write into
the log, relays and workers follow nothing: they ask, at most once a second for each queue and each type.
"""

import asyncio
import logging
from collections.abc import Iterable
from functools import partial

from msgspec import Raw

from gql_jobs.jobs.errors import QueueFull
from gql_jobs.jobs.limits import Limits, limits_of
from gql_jobs.jobs.messages import SteeringMessage
from gql_jobs.jobs.registry import JobType
from gql_jobs.log import codec
from gql_jobs.log.job_log import JobLog
from gql_jobs.log.steering import SteeringLog, as_value

log = logging.getLogger(__name__)

LIMITS_KEPT = 1.0
"""Seconds for which it is used again what the leader has said of the limits of a queue or a type."""


class StoredLimits:
    """What is limited, for processes that do not follow the stream. One instance per process."""

    def __init__(self, job_log: JobLog) -> None:
        self._steering_log = SteeringLog(job_log)
        self._known: dict[tuple[str, str], tuple[float, bool]] = {}

    async def are_there(self, queue: str, type_name: str) -> bool:
        """Return whether jobs of a type, in a queue, are limited; what was said a second ago may be out of date.

        :raises QueueUnavailable: if the leader does not answer.
        """
        asked = ((codec.QUEUE_LIMITS, queue), (codec.TYPE_LIMITS, type_name))
        now = asyncio.get_running_loop().time()
        old = [one for one in asked if one not in self._known or self._known[one][0] <= now]
        if old:
            found = await asyncio.gather(*(self._steering_log.read(*one) for one in old))
            for one, message in zip(old, found, strict=True):
                self._known[one] = now + LIMITS_KEPT, not _limits_in(message).is_none
        return any(self._known[one][1] for one in asked)


async def store_type_limits(job_log: JobLog, job_types: Iterable[JobType]) -> None:
    """Have the stream say what these types are limited to, as they are registered here; of others nothing is changed.

    Of processes with different registrations, the one that has started last is right. If the store is full, what it
    says stays as it is.

    :raises QueueUnavailable: if the leader does not answer.
    """
    steering_log = SteeringLog(job_log)
    stored = {message.name: message for message in await steering_log.all(codec.TYPE_LIMITS)}
    for job_type in job_types:
        limits = job_type.limits
        if _limits_in(stored.get(job_type.name)) == limits:
            continue
        try:
            await steering_log.change(codec.TYPE_LIMITS, job_type.name, partial(_new, limits))
        except QueueFull:
            log.warning("the limits of the job type %s are not stored: the store is full", job_type.name)
            return
        log.info("jobs of the type %s have another limit from now on: %s", job_type.name, limits)


async def set_queue_limits(job_log: JobLog, queue: str, limits: Limits, actor: str | None = None) -> int:
    """Have the stream say what a queue is limited to, and return the position as of which it does.

    To say the same again changes nothing.

    :param actor: who limits it.
    :raises QueueUnavailable: | QueueFull: if that was not stored.
    """
    message = await SteeringLog(job_log).change(codec.QUEUE_LIMITS, queue, partial(_new, limits), actor=actor)
    return message.seq if message is not None else 0


def _new(limits: Limits, present: SteeringMessage | None) -> Raw | SteeringMessage | None:
    if _limits_in(present) == limits:
        return present
    return None if limits.is_none else as_value(limits)


def _limits_in(message: SteeringMessage | None) -> Limits:
    return limits_of(message.value if message is not None else None)
