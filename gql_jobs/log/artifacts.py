"""Artifacts: bytes in a JetStream object store, and the fenced record in the job's log that makes them visible.

A file exists for readers from its record on, and the record comes last: a partial upload is never visible, and a
superseded worker cannot replace its successor's file.
"""

import base64
import logging
import secrets
from datetime import UTC, datetime
from io import BufferedIOBase
from typing import BinaryIO

from nats.errors import Error as NatsError
from nats.js.api import ObjectMeta
from nats.js.errors import NotFoundError
from nats.js.object_store import ObjectStore
from typing_extensions import Buffer

from gql_jobs.jetstream.connection import ApiError
from gql_jobs.jetstream.publisher import FenceRefused
from gql_jobs.jetstream.stored_messages import StoredMessage
from gql_jobs.jobs.errors import QueueUnavailable
from gql_jobs.jobs.messages import Saved
from gql_jobs.jobs.model import Artifact, artifact_name
from gql_jobs.log import codec, subjects
from gql_jobs.log.job_log import Fence, JobLog
from gql_jobs.log.streams import update_stream
from gql_jobs.settings import Settings

log = logging.getLogger(__name__)

BUCKET = "artifacts"


class ArtifactStore:
    """Saves, reads and removes artifacts."""

    def __init__(self, job_log: JobLog, settings: Settings) -> None:
        self._log = job_log
        self._replicas = settings.replicas
        self._max_bytes = settings.max_artifact_bytes
        self._bucket: ObjectStore | None = None

    async def save(self, job_id: str, name: str, source: BinaryIO, content_type: str, fence: Fence) -> Artifact:
        """Store all of ``source``, then record it under the attempt's fence; an older file of the name goes.

        :raises ValueError: for a name that cannot be, or a file that is too large.
        :raises FenceRefused: if the attempt no longer has the job.
        :raises QueueUnavailable: if it could not be stored.
        """
        name = artifact_name(name)
        subject = subjects.artifact(job_id, name)
        older = await self._log.last(subject)
        # A place of its own each time: until the new record is stored, the old one still speaks of the old bytes.
        stored = f"{job_id}/{secrets.token_hex(4)}/{name}"
        artifact = await self._put(stored, name, source, content_type)
        body = codec.encode(Saved(artifact=artifact))
        try:
            await self._log.rollup(subject, body, fence)
        except FenceRefused:
            await self.remove(artifact)
            raise
        if older is not None:
            await self.remove_recorded(older)
        return artifact

    async def find(self, job_id: str, name: str) -> Artifact | None:
        """The job's file of that name, as the leader has it.

        :raises QueueUnavailable: if the stream does not answer.
        """
        record = await self._log.last(subjects.artifact(job_id, name))
        return _saved(record) if record is not None else None

    async def read(self, artifact: Artifact, target: BufferedIOBase) -> None:
        """Write the artifact's bytes into ``target`` and check their digest.

        :raises KeyError: if they are gone.
        :raises QueueUnavailable: if they cannot be read now.
        """
        try:
            await (await self._open()).get(artifact.object, writeinto=target)
        except NotFoundError:
            raise KeyError(artifact.object) from None
        except (NatsError, TimeoutError) as error:
            raise QueueUnavailable(f"The artifact {artifact.name} cannot be read: {error}") from error

    async def remove(self, artifact: Artifact) -> None:
        """Remove the bytes; a failure is logged, for nothing refers to them any more."""
        try:
            bucket = await self._open()
            await bucket.delete(artifact.object)
            # The library leaves a mark of what was deleted, for ever.
            encoded = base64.urlsafe_b64encode(artifact.object.encode()).decode()
            await self._log.connection.purge(f"OBJ_{BUCKET}", f"$O.{BUCKET}.M.{encoded}")
        except NotFoundError:
            return
        except (NatsError, QueueUnavailable) as error:
            log.warning("the artifact %s stays in the object store: %s", artifact.object, error)

    async def remove_recorded(self, record: StoredMessage) -> None:
        """Remove the bytes that a record speaks of."""
        artifact = _saved(record)
        if artifact is not None:
            await self.remove(artifact)

    async def _put(self, stored: str, name: str, source: BinaryIO, content_type: str) -> Artifact:
        meta = ObjectMeta(description=content_type)
        try:
            info = await (await self._open()).put(stored, _Limited(source, self._max_bytes), meta)
        except (NatsError, TimeoutError) as error:
            raise QueueUnavailable(f"The artifact {name} was not stored: {error or type(error).__name__}") from error
        digest = base64.urlsafe_b64decode((info.digest or "").removeprefix("SHA-256="))
        return Artifact(
            name=name,
            content_type=content_type,
            size_bytes=info.size or 0,
            sha256=digest.hex(),
            created_at=datetime.now(UTC),
            object=stored,
        )

    async def _open(self) -> ObjectStore:
        """The bucket, made at its first use: not every installation has artifacts."""
        if self._bucket is None:
            self._bucket = await self._log.connection.object_store(BUCKET, self._replicas)
            try:
                await update_stream(self._log.connection, {"name": f"OBJ_{BUCKET}", "num_replicas": self._replicas})
            except ApiError as error:
                log.warning("the object store %s cannot be brought up to date: %s", BUCKET, error)
        return self._bucket


class _Limited(BufferedIOBase):
    """A source that ends with an error instead of filling the store."""

    def __init__(self, source: BinaryIO, limit: int) -> None:
        self._source = source
        self._limit = limit
        self._left = limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self._source.read(len(view))
        self._left -= len(data)
        if self._left < 0:
            raise ValueError(f"The artifact is larger than {self._limit} bytes.")
        view[: len(data)] = data
        return len(data)


def _saved(record: StoredMessage) -> Artifact | None:
    try:
        message = record.read()
    except codec.Unreadable as error:
        log.warning("the record %d of an artifact cannot be read: %s", record.seq, error)
        return None
    return message.body.artifact if message is not None and isinstance(message.body, Saved) else None
