"""What lies in the streams and at the consumers, listed without touching anything: for whoever examines a system."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import msgspec
from msgspec import field

from gql_jobs.jetstream.connection import ApiError, Connection
from gql_jobs.jetstream.stored_messages import last_message, subjects_page
from gql_jobs.log import subjects
from gql_jobs.log.artifacts import BUCKET

CHUNKS = f"$O.{BUCKET}.C."
_OBJECTS = f"OBJ_{BUCKET}"
_NO_STREAM = 10059
_TIMEOUT = 30.0


class _Last(msgspec.Struct):
    last_active: datetime | None = None


class ConsumerInfo(msgspec.Struct):
    """What the server says of a consumer. ``num_pending``: never delivered; ``num_ack_pending``: not acknowledged;
    ``num_waiting``: pulls that wait for a delivery.
    """

    name: str
    num_pending: int = 0
    num_ack_pending: int = 0
    num_redelivered: int = 0
    num_waiting: int = 0
    delivered: _Last = field(default_factory=_Last)
    config: dict[str, Any] = field(default_factory=dict)


class _Consumers(msgspec.Struct):
    total: int
    consumers: list[ConsumerInfo] | None = None


class StoredObject(msgspec.Struct):
    """The record of a file in the object store: where its chunks lie is told by ``nuid``."""

    name: str
    nuid: str
    deleted: bool = False


async def has_stream(connection: Connection) -> bool:
    """Whether the stream JOBS is there.

    :raises QueueUnavailable: if the server does not answer.
    """
    try:
        await connection.api(f"STREAM.INFO.{subjects.STREAM}")
    except ApiError:
        return False
    return True


async def last_folded(connection: Connection) -> int:
    """The sequence of the newest message that is folded; 0 if there is none.

    :raises QueueUnavailable: if the server does not answer.
    """
    newest = [await last_message(connection, matching) for matching in subjects.FOLDED]
    return max((message.seq for message in newest if message is not None), default=0)


async def consumers(connection: Connection) -> list[ConsumerInfo]:
    """The consumers of the stream JOBS.

    :raises ApiError: if there is no such stream.
    :raises QueueUnavailable: if the server does not answer.
    """
    found: list[ConsumerInfo] = []
    while True:
        answer = await connection.api(f"CONSUMER.LIST.{subjects.STREAM}", {"offset": len(found)}, _TIMEOUT)
        page = msgspec.json.decode(answer, type=_Consumers)
        found += page.consumers or []
        if not page.consumers or len(found) >= page.total:
            return found


async def subjects_of(connection: Connection, stream: str, matching: str) -> AsyncIterator[tuple[str, int]]:
    """The subjects of a stream's messages that match, each with how many it has; none if there is no such stream.

    :raises QueueUnavailable: if the server does not answer.
    """
    seen = 0
    while True:
        try:
            page = await subjects_page(connection, stream, matching, seen, _TIMEOUT)
        except ApiError as error:
            if error.err_code == _NO_STREAM:
                return
            raise
        for subject, number in page.subjects.items():
            seen += 1
            yield subject, number
        if not page.subjects or seen >= page.total:
            return


async def stored_objects(connection: Connection) -> list[StoredObject]:
    """The records of the files in the object store.

    :raises QueueUnavailable: if the server does not answer.
    """
    found: list[StoredObject] = []
    async for subject, _ in subjects_of(connection, _OBJECTS, f"$O.{BUCKET}.M.>"):
        message = await last_message(connection, subject, _OBJECTS)
        if message is not None:
            found.append(msgspec.json.decode(message.data, type=StoredObject))
    return found


async def chunks(connection: Connection) -> AsyncIterator[tuple[str, datetime]]:
    """The nuid of every file of which chunks are stored, and when the last of them was.

    :raises QueueUnavailable: if the server does not answer.
    """
    async for subject, _ in subjects_of(connection, _OBJECTS, f"{CHUNKS}>"):
        message = await last_message(connection, subject, _OBJECTS)
        if message is not None:
            yield subject.removeprefix(CHUNKS), message.at
