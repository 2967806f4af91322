"""Files in a JetStream object store: a bucket is a stream of chunks, with one record per file.

A thin layer over nats-py that translates its errors into this package's, and removes what its deletions leave.
"""

import base64
from contextlib import aclosing
from io import BufferedIOBase
from typing import NamedTuple

import msgspec
from nats.errors import Error as NatsError
from nats.js.api import ObjectMeta
from nats.js.errors import NotFoundError
from nats.js.object_store import ObjectStore

from gql_jobs.jetstream.connection import Connection
from gql_jobs.jetstream.errors import ObjectStoreError
from gql_jobs.jetstream.ordered_consumer import OrderedConsumer
from gql_jobs.jetstream.stored_messages import delete_message, last_message


def bucket_stream(bucket: str) -> str:
    """Return the name of the stream that holds the bucket."""
    return f"OBJ_{bucket}"


def chunks_prefix(bucket: str) -> str:
    """Return what the subjects of the bucket's chunks begin with; the file's ``nuid`` follows."""
    return f"$O.{bucket}.C."


def record_subject(bucket: str, name: str) -> str:
    """Return the subject of a file's record."""
    return f"{records_prefix(bucket)}{base64.urlsafe_b64encode(name.encode()).decode()}"


def records_prefix(bucket: str) -> str:
    """Return what the subjects of the bucket's records begin with."""
    return f"$O.{bucket}.M."


class _Described(msgspec.Struct):
    """What the record of a file says: the name of its chunks."""

    nuid: str


class StoredFile(NamedTuple):
    """A file as it was stored: its size in bytes, and its SHA-256 in hexadecimal."""

    size: int
    sha256: str


class Bucket:
    """One object store."""

    def __init__(self, connection: Connection, name: str, objects: ObjectStore) -> None:
        self._connection = connection
        self._name = name
        self._objects = objects

    async def put(self, name: str, source: BufferedIOBase, description: str) -> StoredFile:
        """Store all of ``source`` under a name; errors that ``source`` raises are passed on.

        :raises ObjectStoreError: if it could not be stored.
        """
        try:
            info = await self._objects.put(name, source, ObjectMeta(description=description))
        except (NatsError, TimeoutError) as error:
            raise ObjectStoreError(str(error)) from error
        digest = base64.urlsafe_b64decode((info.digest or "").removeprefix("SHA-256="))
        return StoredFile(info.size or 0, digest.hex())

    async def get(self, name: str, target: BufferedIOBase) -> None:
        """Write a file's bytes into ``target`` and check their digest.

        :raises KeyError: if there is no such file.
        :raises ObjectStoreError: if it cannot be read now.
        """
        try:
            await self._objects.get(name, writeinto=target)
        except NotFoundError:
            raise KeyError(name) from None
        except (NatsError, TimeoutError) as error:
            raise ObjectStoreError(str(error)) from error

    async def delete(self, name: str) -> None:
        """Remove a file, and its record, which nats-py only marks as deleted.

        :raises KeyError: if there is no such file.
        :raises ObjectStoreError: | ApiError | Unavailable: if the file or its record may still be there.
        """
        try:
            await self._objects.delete(name)
        except NotFoundError:
            raise KeyError(name) from None
        except NatsError as error:
            raise ObjectStoreError(str(error)) from error
        await self._connection.purge(bucket_stream(self._name), record_subject(self._name, name))

    async def erase(self, name: str) -> None:
        """Remove a file as ``delete`` does, and have the server overwrite the bytes that it has stored of it.

        It takes the server a write for each chunk.

        :raises KeyError: if there is no such file.
        :raises ObjectStoreError: | ApiError | Unavailable: if some of it may still be there.
        """
        stream, record = bucket_stream(self._name), record_subject(self._name, name)
        described = await last_message(self._connection, stream, record)
        if described is None:
            raise KeyError(name)
        nuid = msgspec.json.decode(described.data, type=_Described).nuid
        # The chunks first: the record is what they are found by.
        for subject in (f"{chunks_prefix(self._name)}{nuid}", record):
            for seq in await self._seqs(stream, subject):
                await delete_message(self._connection, stream, seq, erase=True)

    async def _seqs(self, stream: str, subject: str) -> list[int]:
        """Return the sequences of all messages on a subject, without their bytes."""
        if (last := await last_message(self._connection, stream, subject)) is None:
            return []
        found: list[int] = []
        batches = OrderedConsumer(self._connection, stream, (subject,), 1, headers_only=True).batches()
        async with aclosing(batches):
            async for batch in batches:
                found += [message.seq for message in batch]
                if not batch or found[-1] >= last.seq:
                    break
        return found


async def open_bucket(connection: Connection, name: str, replicas: int | None = None) -> Bucket:
    """Return the object store of that name; if there is none, create it with ``replicas`` copies.

    :param replicas: None to create none.
    :raises ObjectStoreError: if the server refuses or does not answer, or there is none and none is created.
    """
    try:
        return Bucket(connection, name, await connection.object_store(name, replicas))
    except (NatsError, TimeoutError) as error:
        raise ObjectStoreError(str(error)) from error
