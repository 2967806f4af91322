"""The streams, their consumers and the store: created or updated at every start and when they vanish, never deleted.

First the configurations, then the functions that apply them, then those that read the server's state.
"""

import logging
import re
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import msgspec
from msgspec import field

from gql_jobs.jetstream.connection import Connection
from gql_jobs.jetstream.errors import ApiError
from gql_jobs.jetstream.stored_messages import NO_STREAM, last_message
from gql_jobs.jobs.errors import GqlJobsError, QueueUnavailable
from gql_jobs.jobs.model import JobPriority
from gql_jobs.log import codec
from gql_jobs.log.job_log import queue_errors
from gql_jobs.log.paused_consumers import consumer_pause, stored_pause
from gql_jobs.settings import Settings

log = logging.getLogger(__name__)

OLDEST_SERVER = (2, 12, 0)
"""The first server with message schedules (``Nats-Schedule``), which hold the jobs that run later."""
_NAME_IN_USE = 10058
_NOT_YET = frozenset({10005, 10008})
"""Error numbers of a cluster without a leader, or with too few servers for the copies: both pass while it starts."""
_FOLDER_GONE = "no such file or directory"
"""What the server says of a consumer that was created while another one of its name was being deleted.

The folder of the new one went with the old one: it delivers, but whatever changes it is refused from then on.
"""
_TIMEOUT = 10.0
"""Seconds for each call that changes a stream or a consumer."""
_LIST_TIMEOUT = 30.0
"""Seconds for each page of a list."""
_PULL_CONSUMER = re.compile(rf"queue-([a-z0-9_-]+)-(?:{'|'.join(JobPriority)})")


class UnsuitableServer(GqlJobsError):
    """The NATS server lacks something that the log needs, so that waiting does not help; the message says what."""


def jobs_stream(replicas: int) -> dict[str, Any]:
    """Return the configuration of the stream ``JOBS``: no limit of age or size, because either would drop jobs."""
    return {
        "name": codec.JOBS_STREAM,
        "subjects": [codec.ALL_JOBS],
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "num_replicas": replicas,
        "max_msgs": -1,
        "max_bytes": -1,
        "max_age": 0,
        "max_msg_size": -1,
        "allow_direct": False,
        "allow_rollup_hdrs": True,
        "allow_msg_ttl": True,
        "allow_msg_schedules": True,
    }


def dead_letter_stream(replicas: int) -> dict[str, Any]:
    """Return the configuration of the stream ``jobs-dlq``, into which the server itself copies dead letters."""
    return {
        "name": codec.DEAD_LETTERS_STREAM,
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "num_replicas": replicas,
        "sources": [{"name": codec.JOBS_STREAM, "filter_subject": codec.ALL_DEAD_LETTERS}],
    }


def consumer_config(queue: str, priority: JobPriority, ack_wait: float) -> dict[str, Any]:
    """Return the configuration of the pull consumer of one queue and priority, with leases of ``ack_wait`` seconds.

    ``max_ack_pending`` is off, because deliveries that wait for their retry would use it up; ``backoff`` is not set,
    because it would add to the delay of a nak.
    """
    return {
        "durable_name": codec.consumer_name(queue, priority),
        "filter_subject": codec.queue_subjects(queue, priority),
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "ack_wait": round(ack_wait * 1e9),
        "max_deliver": -1,
        "max_ack_pending": -1,
        "max_waiting": 4096,
        "replay_policy": "instant",
    }


async def ensure_streams(connection: Connection, settings: Settings) -> None:
    """Create or update the streams.

    :raises UnsuitableServer: if the server is too old or refuses.
    :raises QueueUnavailable: if it does not answer.
    """
    _check_version(connection)
    for config in (jobs_stream(settings.replicas), dead_letter_stream(settings.replicas)):
        with _refusals_explained(connection, f"the stream {config['name']}"):
            # Not made first: a user who may make streams can read every other one into them, so workers' may not.
            try:
                await update_stream(connection, config)
            except ApiError as error:
                if error.err_code != NO_STREAM:
                    raise
                await _create_stream(connection, config)


def _check_version(connection: Connection) -> None:
    if is_too_old(connection):
        raise UnsuitableServer(
            f"The NATS server is version {connection.server_version}; gql-jobs needs "
            f"{'.'.join(map(str, OLDEST_SERVER))} or newer, because jobs that run later are held by its schedules."
        )


async def look_for_streams(connection: Connection) -> None:
    """Check that there is a stream for jobs; nothing is made or changed.

    :raises UnsuitableServer: if the server is too old, or has no JetStream.
    :raises QueueUnavailable: if it has no such stream yet, or does not answer.
    """
    _check_version(connection)
    try:
        with _refusals_explained(connection, f"the stream {codec.JOBS_STREAM}"):
            await stream_info(connection)
    except UnsuitableServer as error:
        if isinstance(error.__cause__, ApiError) and error.__cause__.err_code == NO_STREAM:
            raise QueueUnavailable(
                f"The NATS server has no stream {codec.JOBS_STREAM} yet: streams are made by API processes, so one of "
                "these has to be started first."
            ) from error
        raise


async def _create_stream(connection: Connection, config: dict[str, Any]) -> None:
    try:
        await connection.api(f"STREAM.CREATE.{config['name']}", config, _TIMEOUT)
    except ApiError as error:
        if error.err_code != _NAME_IN_USE:
            raise
        # Another process has made it meanwhile, otherwise.
        await update_stream(connection, config)


async def ensure_consumers(
    connection: Connection, queues: Iterable[str], ack_wait: float, *, only: Container[str] | None = None
) -> None:
    """Create or update the consumers of every priority of the queues; those of a paused queue are created paused.

    An update neither pauses a consumer nor resumes it.

    :param only: the names of those that are wanted; None for all.
    :raises UnsuitableServer: if the server refuses.
    :raises QueueUnavailable: if it does not answer.
    """
    for queue in queues:
        for priority in JobPriority:
            config = consumer_config(queue, priority, ack_wait)
            name = config["durable_name"]
            if only is not None and name not in only:
                continue
            with _refusals_explained(connection, f"the consumer {name}"):
                if (until := consumer_pause(await stored_pause(connection, queue))) is not None:
                    config["pause_until"] = until
                try:
                    await _create_consumer(connection, config)
                except ApiError as error:
                    if _FOLDER_GONE not in error.description:
                        raise
                    await connection.api(f"CONSUMER.DELETE.{codec.JOBS_STREAM}.{name}", timeout=_TIMEOUT)
                    await _create_consumer(connection, config)


async def _create_consumer(connection: Connection, config: dict[str, Any]) -> None:
    body = {"stream_name": codec.JOBS_STREAM, "config": config}
    await connection.api(f"CONSUMER.CREATE.{codec.JOBS_STREAM}.{config['durable_name']}", body, _TIMEOUT)


async def make_missing(connection: Connection, settings: Settings, queues: Iterable[str]) -> "StreamInfo":
    """Make anew those streams and consumers that have vanished while this process runs, and say so in the log.

    :returns: the stream ``JOBS`` as it is now.
    :raises ApiError: if the server refuses to show them.
    :raises UnsuitableServer: if it refuses to make them.
    :raises QueueUnavailable: if it does not answer.
    """
    for stream in (codec.DEAD_LETTERS_STREAM, codec.JOBS_STREAM):
        try:
            info = await stream_info(connection, stream)
        except ApiError as error:
            if error.err_code != NO_STREAM:
                raise
            log.error(  # noqa: TRY400 - the traceback would say nothing
                "the stream %s is gone, with all that it held: it was deleted, or the server has lost its store. "
                "It is made anew, empty (docs/operations.md, A store that was wiped)",
                stream,
            )
            await ensure_streams(connection, settings)
            info = await stream_info(connection, stream)
    if gone := await missing_consumers(connection, queues):
        log.error("consumers of the stream %s are gone and are made anew: %s", codec.JOBS_STREAM, ", ".join(gone))
        await ensure_consumers(connection, queues, settings.ack_wait, only=gone)
    return info


@contextmanager
def _refusals_explained(connection: Connection, what: str) -> Iterator[None]:
    """Raise ``UnsuitableServer`` for a refusal, or ``QueueUnavailable`` if the server may accept it later."""
    try:
        with queue_errors():
            yield
    except ApiError as error:
        message = f"The NATS server refuses {what}: {error.description}."
        if error.err_code in _NOT_YET:
            raise QueueUnavailable(message) from error
        raise UnsuitableServer(message) from error
    except QueueUnavailable as error:
        if connection.has_jetstream:
            raise
        raise UnsuitableServer(
            "The NATS server has no JetStream: start it with -js, or with a jetstream block in its configuration."
        ) from error


def is_too_old(connection: Connection) -> bool:
    """Return whether the server is older than ``OLDEST_SERVER``."""
    return tuple(int(part) for part in connection.server_version.split(".")) < OLDEST_SERVER


async def update_stream(connection: Connection, config: dict[str, Any]) -> None:
    """Update the settings of a stream that ``config`` names; others, which an operator may have set, are kept.

    The number of copies is never reduced: a process without that setting would remove redundancy that others want.

    :raises ApiError: if the server refuses.
    :raises QueueUnavailable: if it does not answer.
    """
    name = config["name"]
    present = (await stream_info(connection, name)).config
    replicas = present.get("num_replicas", 1)
    if replicas > config["num_replicas"]:
        log.warning("the stream %s keeps its %d copies; fewer have to be asked for with the NATS CLI", name, replicas)
    wanted = {**present, **config, "num_replicas": max(replicas, config["num_replicas"])}
    if missing(present, wanted):
        with queue_errors():
            await connection.api(f"STREAM.UPDATE.{name}", wanted, _TIMEOUT)


def missing(config: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Return the names of the settings in ``wanted`` that a stream has otherwise; more copies than wanted are right."""
    more_copies = config.get("num_replicas", 1) > wanted["num_replicas"]
    return [
        key
        for key, value in wanted.items()
        if not _has(config, key, value) and not (key == "num_replicas" and more_copies)
    ]


def _has(config: dict[str, Any], key: str, value: Any) -> bool:
    """Return whether a stream has that setting."""
    if key == "sources":
        # The server adds details to each source.
        return [_source(source) for source in config.get(key, [])] == [_source(source) for source in value]
    # The server leaves out flags that are false.
    return bool(config.get(key, type(value)()) == value)


def _source(source: dict[str, Any]) -> tuple[Any, Any]:
    return source.get("name"), source.get("filter_subject")


class StreamState(msgspec.Struct):
    """The state of a stream: its number of messages, their size in bytes, the first and the last sequence."""

    messages: int = 0
    bytes: int = 0
    first_seq: int = 0
    last_seq: int = 0


class StreamInfo(msgspec.Struct):
    """A stream's state and configuration; ``created`` differs for a stream that was deleted and created again."""

    created: str
    state: StreamState
    config: dict[str, Any] = field(default_factory=dict)


async def stream_info(connection: Connection, stream: str = codec.JOBS_STREAM) -> StreamInfo:
    """Return a stream's state and configuration.

    :raises ApiError: if there is no such stream.
    :raises QueueUnavailable: if the server does not answer.
    """
    with queue_errors():
        answer = await connection.api(f"STREAM.INFO.{stream}")
    return msgspec.json.decode(answer, type=StreamInfo)


class _ConsumerNames(msgspec.Struct):
    total: int
    consumers: list[str] | None = None


async def missing_consumers(connection: Connection, queues: Iterable[str]) -> list[str]:
    """Return the names of those pull consumers of the queues that do not exist, which nothing is delivered without.

    :raises ApiError: if there is no stream.
    :raises QueueUnavailable: if the server does not answer.
    """
    missing = {codec.consumer_name(queue, priority) for queue in queues for priority in JobPriority}
    seen = 0
    while missing:
        with queue_errors():
            answer = await connection.api(f"CONSUMER.NAMES.{codec.JOBS_STREAM}", {"offset": seen})
        page = msgspec.json.decode(answer, type=_ConsumerNames)
        names = page.consumers or []
        missing.difference_update(names)
        seen += len(names)
        if not names or seen >= page.total:
            break
    return sorted(missing)


async def unsuitable_streams(connection: Connection, settings: Settings) -> str | None:
    """Return what is wrong with the configuration of the streams, in a sentence; None if it is right.

    :raises QueueUnavailable: if the server does not answer.
    """
    for wanted in (jobs_stream(settings.replicas), dead_letter_stream(settings.replicas)):
        name = wanted["name"]
        try:
            config = (await stream_info(connection, name)).config
        except ApiError as error:
            return f"the stream {name}: {error.description}"
        for key in missing(config, wanted):
            return f"the stream {name} has {key} {config.get(key)!r}, not {wanted[key]!r}"
    return None


class _Limits(msgspec.Struct):
    max_storage: int = -1


class _Account(msgspec.Struct):
    """What the account stores in all streams and object stores, in bytes, each replica counted."""

    storage: int = 0
    limits: _Limits = field(default_factory=_Limits)


class StoreUse(msgspec.Struct, frozen=True):
    """Bytes that are stored and that may be, of the server or of the account, whichever is fuller."""

    used: int
    limit: int

    @property
    def share(self) -> float:
        """How full it is, from 0 to 1."""
        return self.used / self.limit


async def store_use(connection: Connection, settings: Settings) -> StoreUse:
    """Return how full the store is now.

    :raises ApiError: if the server refuses.
    :raises QueueUnavailable: if it does not answer.
    """
    with queue_errors():
        answer = await connection.api("INFO")
    account = msgspec.json.decode(answer, type=_Account)
    # A server does not report its own limit. It has at most one copy of each message.
    on_one_server = StoreUse(account.storage // settings.replicas, settings.max_store_bytes)
    account_limit = account.limits.max_storage
    if account_limit <= 0:
        return on_one_server
    return max(on_one_server, StoreUse(account.storage, account_limit), key=lambda use: use.share)


class _Last(msgspec.Struct):
    last_active: datetime | None = None


class ConsumerInfo(msgspec.Struct):
    """The server's state of a consumer.

    ``num_pending``: messages that were never delivered; ``num_ack_pending``: deliveries that are not acknowledged;
    ``num_waiting``: pulls that wait for a delivery; ``paused``: whether it gives nothing until its pause is over.
    """

    name: str
    num_pending: int = 0
    num_ack_pending: int = 0
    num_redelivered: int = 0
    num_waiting: int = 0
    paused: bool = False
    delivered: _Last = field(default_factory=_Last)
    config: dict[str, Any] = field(default_factory=dict)


class _Consumers(msgspec.Struct):
    total: int
    consumers: list[ConsumerInfo] | None = None


async def consumers(connection: Connection) -> list[ConsumerInfo]:
    """Return the consumers of the stream ``JOBS``.

    :raises ApiError: if there is no such stream.
    :raises QueueUnavailable: if the server does not answer.
    """
    found: list[ConsumerInfo] = []
    while True:
        with queue_errors():
            answer = await connection.api(f"CONSUMER.LIST.{codec.JOBS_STREAM}", {"offset": len(found)}, _LIST_TIMEOUT)
        page = msgspec.json.decode(answer, type=_Consumers)
        found += page.consumers or []
        if not page.consumers or len(found) >= page.total:
            return found


async def stored_queues(connection: Connection, queues: Iterable[str]) -> list[str]:
    """Return those of the queues that the server knows: they have a pull consumer, or a job was submitted to them.

    :raises QueueUnavailable: if the server does not answer.
    """
    consumed = {queue_of_consumer(consumer.name) for consumer in await consumers(connection)}
    found: list[str] = []
    for queue in queues:
        with queue_errors():
            submitted = await last_message(connection, codec.JOBS_STREAM, codec.submissions_of_queue(queue))
        if queue in consumed or submitted is not None:
            found.append(queue)
    return found


async def waiting_queues(connection: Connection) -> set[str]:
    """Return the queues with jobs that were not delivered yet, or of which a delivery was not acknowledged.

    :raises QueueUnavailable: if the server does not answer.
    """
    waiting = [one.name for one in await consumers(connection) if one.num_pending or one.num_ack_pending]
    return {queue for queue in map(queue_of_consumer, waiting) if queue is not None}


def queue_of_consumer(name: str) -> str | None:
    """Return the queue of a pull consumer; None for a consumer of another kind."""
    match = _PULL_CONSUMER.fullmatch(name)
    return match[1] if match is not None else None
