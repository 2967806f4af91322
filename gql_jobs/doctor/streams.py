"""Checks of streams and consumers: their configuration, and deliveries that no worker takes."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from gql_jobs import clock
from gql_jobs.doctor.installation import Finding, Installation
from gql_jobs.jetstream.connection import Connection
from gql_jobs.jetstream.errors import ApiError
from gql_jobs.jobs.model import JobPriority
from gql_jobs.log.paused_consumers import stored_pause
from gql_jobs.log.streams import (
    OLDEST_SERVER,
    ConsumerInfo,
    consumer_config,
    consumers,
    dead_letter_stream,
    is_too_old,
    jobs_stream,
    missing,
    queue_of_consumer,
    stream_info,
)
from gql_jobs.settings import Settings

_STREAMS = "streams"
_CONSUMERS = "consumers"
_PAUSES = "pauses"
LEASES = 3
"""A delivery that was not acknowledged for so many leases is reported."""


async def check_streams(connection: Connection, settings: Settings) -> list[Finding]:
    """Check the server's version, and compare each stream with the configuration that an API would give it."""
    found: list[Finding] = []
    if is_too_old(connection):
        oldest = ".".join(map(str, OLDEST_SERVER))
        found.append(
            Finding(
                _STREAMS,
                f"The NATS server is version {connection.server_version}.",
                f"Update it to {oldest} or newer.",
            )
        )
    for wanted in (jobs_stream(settings.replicas), dead_letter_stream(settings.replicas)):
        name = wanted["name"]
        try:
            present = (await stream_info(connection, name)).config
        except ApiError as error:
            found.append(
                Finding(
                    _STREAMS, f"The stream {name} cannot be had: {error.description}.", "Start an API, which makes it."
                )
            )
            continue
        found += [
            Finding(
                _STREAMS,
                f"The stream {name} has {key} {present.get(key)!r}, not {wanted[key]!r}.",
                "Nothing is lost by that yet; restart an API process with these settings, which updates the stream.",
            )
            for key in missing(present, wanted)
        ]
    return found


async def check_consumers(installation: Installation) -> list[Finding]:
    """Compare each consumer with the right configuration, and find deliveries that no worker takes or acknowledges.

    :raises QueueUnavailable: if the server does not answer.
    """
    found: list[Finding] = []
    present = {consumer.name: consumer for consumer in await consumers(installation.connection)}
    stuck_before = clock.now() - timedelta(seconds=LEASES * installation.settings.ack_wait)
    for queue in installation.registry.queues:
        for priority in JobPriority:
            wanted = consumer_config(queue, priority, installation.settings.ack_wait)
            consumer = present.get(wanted["durable_name"])
            if consumer is None:
                found.append(
                    Finding(
                        _CONSUMERS,
                        f"The consumer {wanted['durable_name']} is missing: no worker is given such jobs.",
                        "Start an API or a worker, which makes it.",
                    )
                )
            else:
                found += _differences(consumer, wanted)
                # Of a paused queue nobody asks for jobs.
                found += _stuck(consumer, queue, stuck_before) if not consumer.paused else []
    return found + await _paused(installation, present.values())


async def _paused(installation: Installation, present: Iterable[ConsumerInfo]) -> list[Finding]:
    """Find queues that are paused, and consumers that are not as the pauses say."""
    found: list[Finding] = []
    now = clock.now()
    by_queue: defaultdict[str, list[ConsumerInfo]] = defaultdict(list)
    for consumer in present:
        if (queue := queue_of_consumer(consumer.name)) is not None:
            by_queue[queue].append(consumer)
    for queue, lanes in sorted(by_queue.items()):
        pause = await stored_pause(installation.connection, queue)
        is_paused = pause is not None and not pause.is_over(now)
        if pause is not None and is_paused:
            waiting = sum(consumer.num_pending + consumer.num_ack_pending for consumer in lanes)
            found.append(
                Finding(
                    _PAUSES,
                    f"The queue {queue} {pause.described().rstrip('.')}, since {pause.at:%Y-%m-%d %H:%M:%S} UTC"
                    f"{f' until {pause.until:%Y-%m-%d %H:%M:%S} UTC' if pause.until is not None else ''}; "
                    f"{waiting} of its deliveries wait.",
                    f"If that is not meant any more: gql-jobs resume {queue}.",
                    waiting,
                )
            )
        found += [
            Finding(
                _PAUSES,
                f"The consumer {consumer.name} is {'' if consumer.paused else 'not '}paused, and its queue is"
                f"{'' if is_paused else ' not'}.",
                "An API process mends that within half a minute: see that one runs, and that its NATS user may call "
                "$JS.API.CONSUMER.PAUSE.JOBS.* and $JS.API.CONSUMER.LIST.JOBS.",
            )
            for consumer in lanes
            if consumer.paused is not is_paused
        ]
    return found


def _differences(consumer: ConsumerInfo, wanted: dict[str, Any]) -> list[Finding]:
    return [
        Finding(
            _CONSUMERS,
            f"The consumer {consumer.name} has {key} {consumer.config.get(key)!r}, not {value!r}.",
            "Restart an API process with these settings, which updates it; all processes need the same ACK_WAIT.",
        )
        for key, value in wanted.items()
        if consumer.config.get(key, type(value)()) != value
    ]


def _stuck(consumer: ConsumerInfo, queue: str, before: datetime) -> list[Finding]:
    found: list[Finding] = []
    if consumer.num_pending and not consumer.num_waiting:
        found.append(
            Finding(
                _CONSUMERS,
                f"The consumer {consumer.name} has {consumer.num_pending} jobs to give, and no worker asks for one.",
                f"Start workers that serve {queue}; if some run, all their slots are taken by longer jobs: start more.",
                consumer.num_pending,
            )
        )
    last = consumer.delivered.last_active
    if consumer.num_ack_pending and not consumer.num_waiting and last is not None and last < before:
        found.append(
            Finding(
                _CONSUMERS,
                f"The consumer {consumer.name} has given out {consumer.num_ack_pending} jobs, the last of them at "
                f"{last:%Y-%m-%d %H:%M:%S} UTC, that nobody has answered for.",
                f"Their worker is gone, and no other asks for them: start workers that serve {queue}.",
                consumer.num_ack_pending,
            )
        )
    return found
