"""A key-value bucket of JetStream: a stream that keeps the newest value of each key.

It is laid out as other clients of NATS expect, so ``nats kv`` reads and writes it. Values are followed by an ordered
consumer, read from the stream's leader, and written under fences.
"""

import asyncio
from typing import Any

import msgspec

from gql_jobs.jetstream.client import EXPECTED_SEQ_HEADER, EXPECTED_SUBJECT_HEADER, TTL_HEADER, Publisher, Received
from gql_jobs.jetstream.connection import Connection
from gql_jobs.jetstream.errors import ApiError, Unavailable
from gql_jobs.jetstream.ordered_consumer import OrderedConsumer
from gql_jobs.jetstream.stored_messages import last_message, subjects_page

PUT_TIMEOUT = 5.0
"""Seconds that a write may take."""
_NAME_IN_USE = 10058
_CALL_TIMEOUT = 10.0
"""Seconds that the creation or update of the bucket may take."""


_FORGOTTEN = 5_000_000_000
"""Nanoseconds after which the server forgets a consumer that nobody listens to."""


class KeyValueState(msgspec.Struct):
    """Of a bucket: when it was made (another one of the same name differs), and its last sequence."""

    created: str
    last_seq: int


class _State(msgspec.Struct):
    last_seq: int = 0


class _Info(msgspec.Struct):
    created: str
    state: _State
    config: dict[str, Any] = msgspec.field(default_factory=dict)


class _Made(msgspec.Struct):
    num_pending: int = 0


class KeyValueBucket:
    """One bucket. Keys are parts of letters, digits, ``_`` and ``-``, with dots between them."""

    def __init__(self, connection: Connection, publisher: Publisher, name: str) -> None:
        self._connection = connection
        self._publisher = publisher
        self._prefix = _prefix_of(name)
        self._stream = _stream_of(name)

    async def ensure(self, replicas: int, max_value_bytes: int) -> None:
        """Make the bucket if there is none, with ``replicas`` copies; never fewer copies than it has.

        :raises ApiError: if the server refuses.
        :raises Unavailable: if it does not answer.
        """
        config = {
            "name": self._stream,
            "subjects": [f"{self._prefix}>"],
            "retention": "limits",
            "storage": "file",
            "discard": "new",
            "num_replicas": replicas,
            "max_msgs": -1,
            "max_bytes": -1,
            "max_age": 0,
            "max_msgs_per_subject": 1,
            "max_msg_size": max_value_bytes,
            "allow_direct": False,
            "allow_rollup_hdrs": True,
            "allow_msg_ttl": True,
            "deny_delete": True,
        }
        try:
            await self._connection.api(f"STREAM.CREATE.{self._stream}", config, _CALL_TIMEOUT)
        except ApiError as error:
            if error.err_code != _NAME_IN_USE:
                raise
            present = (await self._info()).config
            # What an operator has set otherwise stays; only what this needs is changed.
            needed = {"allow_msg_ttl": True, "num_replicas": max(replicas, present.get("num_replicas", 1))}
            if any(present.get(key) != value for key, value in needed.items()):
                await self._connection.api(f"STREAM.UPDATE.{self._stream}", {**present, **needed}, _CALL_TIMEOUT)

    async def state(self) -> KeyValueState:
        """Return the state of the bucket.

        :raises ApiError: if there is none.
        :raises Unavailable: if the server does not answer.
        """
        info = await self._info()
        return KeyValueState(info.created, info.state.last_seq)

    async def _info(self) -> _Info:
        return msgspec.json.decode(await self._connection.api(f"STREAM.INFO.{self._stream}"), type=_Info)

    async def keys(self, pattern: str) -> set[str]:
        """Return the keys that match, those that are marked as deleted among them.

        :raises ApiError: if there is no such bucket.
        :raises Unavailable: if the server does not answer.
        """
        found: set[str] = set()
        while True:
            page = await subjects_page(self._connection, self._stream, self._prefix + pattern, len(found))
            found |= {self.key_of(subject) for subject in page.subjects}
            if not page.subjects or len(found) >= page.total:
                return found

    async def get(self, key: str) -> tuple[bytes, int] | None:
        """Return the newest value of a key and its sequence, from the leader; None if there is none or it was deleted.

        :raises ApiError: if there is no such bucket.
        :raises Unavailable: if the leader does not answer.
        """
        found = await last_message(self._connection, self._stream, self._prefix + key)
        return (found.data, found.seq) if found is not None and found.data else None

    async def put(
        self, key: str, value: bytes, *, expected: int | None = None, fence: str | None = None, ttl: int | None = None
    ) -> int:
        """Store a value and return its sequence.

        :param expected: the sequence of the newest value; 0 for a key that must not exist.
        :param fence: the pattern of the keys that ``expected`` is about; without it the key itself.
        :param ttl: seconds after which the server removes the value.
        :raises FenceRefused: | StoreFull | PublicationRefused | Unavailable | MessageTooLarge: nothing was stored.
        :raises Unacknowledged: without an answer within ``PUT_TIMEOUT`` seconds; it may have been stored.
        """
        headers: dict[str, str] = {}
        if expected is not None:
            headers[EXPECTED_SEQ_HEADER] = str(expected)
            if fence is not None:
                headers[EXPECTED_SUBJECT_HEADER] = self._prefix + fence
        if ttl is not None:
            headers[TTL_HEADER] = f"{ttl}s"
        return await self._publisher.publish(self._prefix + key, value, headers, PUT_TIMEOUT)

    async def delete(self, key: str) -> None:
        """Mark a key as deleted, which whoever follows the bucket sees as an empty value.

        :raises PublicationError: | Unavailable: if it may still be there.
        """
        await self._publisher.publish(self._prefix + key, b"", {"KV-Operation": "DEL"}, PUT_TIMEOUT)

    def follow(self, patterns: tuple[str, ...]) -> OrderedConsumer:
        """Return a consumer of the newest values of the keys that match, and then of each change."""
        return OrderedConsumer(self._connection, self._stream, tuple(self._prefix + one for one in patterns), 1)

    def key_of(self, subject: str) -> str:
        """Return the key of a message that ``follow`` has brought."""
        return subject.removeprefix(self._prefix)


async def newest_values(connection: Connection, bucket: str, pattern: str) -> dict[str, bytes]:
    """Return the newest values of the keys of a bucket that match, by key; those that were deleted are left out.

    The user of the connection needs the right to make consumers of that pattern, and to read nothing else of the
    bucket.

    :raises ApiError: if there is no such bucket.
    :raises Unavailable: if the server does not answer.
    """
    arrived: asyncio.Queue[Received] = asyncio.Queue()
    inbox = connection.new_inbox()
    wanted = _prefix_of(bucket) + pattern
    config = {
        "name": inbox.rsplit(".", 1)[-1],
        "deliver_subject": inbox,
        "deliver_policy": "last_per_subject",
        "filter_subject": wanted,
        "ack_policy": "none",
        "max_deliver": 1,
        "inactive_threshold": _FORGOTTEN,
        "mem_storage": True,
        "num_replicas": 1,
    }
    call = f"CONSUMER.CREATE.{_stream_of(bucket)}.{config['name']}.{wanted}"
    subscription = await connection.receive(inbox, arrived.put_nowait)
    try:
        answer = await connection.api(call, {"stream_name": _stream_of(bucket), "config": config}, _CALL_TIMEOUT)
        made = msgspec.json.decode(answer, type=_Made)
        values: dict[str, bytes] = {}
        async with asyncio.timeout(_CALL_TIMEOUT):
            while made.num_pending > len(values):
                message = await arrived.get()
                values[message.subject.removeprefix(_prefix_of(bucket))] = message.data
    except TimeoutError:
        raise Unavailable("NATS did not answer in time.") from None
    finally:
        await connection.unsubscribe(subscription)
    return {key: value for key, value in values.items() if value}


def _prefix_of(bucket: str) -> str:
    return f"$KV.{bucket}."


def _stream_of(bucket: str) -> str:
    return f"KV_{bucket}"
