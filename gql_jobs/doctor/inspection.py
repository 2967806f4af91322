"""Lists of what is stored in streams, consumers and the object store. Nothing here changes them."""

from collections.abc import AsyncIterator
from datetime import datetime

import msgspec

from gql_jobs.jetstream.connection import Connection
from gql_jobs.jetstream.errors import ApiError
from gql_jobs.jetstream.object_store import bucket_stream, chunks_prefix, records_prefix
from gql_jobs.jetstream.stored_messages import last_message, subjects_page
from gql_jobs.log import codec
from gql_jobs.log.artifacts import BUCKET
from gql_jobs.log.job_log import queue_errors

CHUNKS = chunks_prefix(BUCKET)
"""The beginning of the subjects of all chunks of artifacts."""
_OBJECTS = bucket_stream(BUCKET)
_NO_STREAM = 10059
_TIMEOUT = 30.0
"""Seconds for each page of a list."""


class StoredObject(msgspec.Struct):
    """The record of a file in the object store; ``nuid`` is the last token of the subject of its chunks."""

    name: str
    nuid: str
    deleted: bool = False


async def has_stream(connection: Connection) -> bool:
    """Return whether the stream ``JOBS`` exists.

    :raises QueueUnavailable: if the server does not answer.
    """
    try:
        with queue_errors():
            await connection.api(f"STREAM.INFO.{codec.JOBS_STREAM}")
    except ApiError:
        return False
    return True


async def last_folded(connection: Connection) -> int:
    """Return the sequence of the newest message that is folded, so none of a checkpoint; 0 if there is none.

    :raises QueueUnavailable: if the server does not answer.
    """
    with queue_errors():
        newest = [await last_message(connection, codec.JOBS_STREAM, matching) for matching in codec.FOLDED_SUBJECTS]
    return max((message.seq for message in newest if message is not None), default=0)


async def subjects_of(connection: Connection, stream: str, matching: str) -> AsyncIterator[tuple[str, int]]:
    """Yield the subjects of a stream that match, each with its number of messages; none if there is no such stream.

    :raises QueueUnavailable: if the server does not answer.
    """
    seen = 0
    while True:
        try:
            with queue_errors():
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
    """Return the records of all files in the object store of artifacts.

    :raises QueueUnavailable: if the server does not answer.
    """
    found: list[StoredObject] = []
    async for subject, _ in subjects_of(connection, _OBJECTS, f"{records_prefix(BUCKET)}>"):
        with queue_errors():
            message = await last_message(connection, _OBJECTS, subject)
        if message is not None:
            found.append(msgspec.json.decode(message.data, type=StoredObject))
    return found


async def chunks(connection: Connection) -> AsyncIterator[tuple[str, datetime]]:
    """Yield the nuid of every file of which chunks are stored, and the time of its last chunk.

    :raises QueueUnavailable: if the server does not answer.
    """
    async for subject, _ in subjects_of(connection, _OBJECTS, f"{CHUNKS}>"):
        with queue_errors():
            message = await last_message(connection, _OBJECTS, subject)
        if message is not None:
            yield subject.removeprefix(CHUNKS), message.at
