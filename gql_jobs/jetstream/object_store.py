"""Files in a JetStream object store: a bucket is a stream of chunks, with one record per file.

A thin layer over nats-py that translates its errors into this package's, and removes what its deletions leave.
"""

import base64
from io import BufferedIOBase
from typing import NamedTuple

from nats.errors import Error as NatsError
from nats.js.api import ObjectMeta
from nats.js.errors import NotFoundError
from nats.js.object_store import ObjectStore

from gql_jobs.jetstream.connection import Connection
from gql_jobs.jetstream.errors import ObjectStoreError


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


async def open_bucket(connection: Connection, name: str, replicas: int) -> Bucket:
    """Return the object store of that name; if there is none, create it with ``replicas`` copies.

    :raises ObjectStoreError: if the server refuses or does not answer.
    """
    try:
        return Bucket(connection, name, await connection.object_store(name, replicas))
    except (NatsError, TimeoutError) as error:
        raise ObjectStoreError(str(error)) from error
