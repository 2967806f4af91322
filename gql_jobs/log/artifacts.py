"""Artifacts: bytes in a JetStream object store, and a fenced record in the job's history that makes them visible.

The record is written after the bytes: a partial upload is never visible, and a superseded worker cannot replace its
successor's file.
"""

import logging
import secrets
from io import BufferedIOBase
from typing import BinaryIO

from typing_extensions import Buffer

from gql_jobs import clock
from gql_jobs.jetstream.errors import ApiError, FenceRefused, JetStreamError, ObjectStoreError
from gql_jobs.jetstream.object_store import Bucket, bucket_stream, open_bucket
from gql_jobs.jetstream.stored_messages import NO_STREAM
from gql_jobs.jobs.errors import QueueUnavailable, RefusedValue
from gql_jobs.jobs.messages import Saved
from gql_jobs.jobs.model import Artifact, artifact_name, media_type
from gql_jobs.log import codec
from gql_jobs.log.codec import JobMessage
from gql_jobs.log.job_log import Fence, JobLog
from gql_jobs.log.streams import stream_info, update_stream
from gql_jobs.settings import Settings

log = logging.getLogger(__name__)

BUCKET = "artifacts"
"""The object store that holds all artifacts."""


class ArtifactStore:
    """Saves, reads and removes artifacts. The bucket is created when it is first used, or by an API process.

    :param makes_bucket: False to leave it as it is, and to raise ``QueueUnavailable`` where there is none.
    """

    def __init__(self, job_log: JobLog, settings: Settings, *, makes_bucket: bool = True) -> None:
        self._log = job_log
        self._makes_bucket = makes_bucket
        self._replicas = settings.replicas
        self._max_bytes = settings.max_artifact_bytes
        self._bucket: Bucket | None = None

    async def save(self, job_id: str, name: str, source: BinaryIO, content_type: str, fence: Fence) -> Artifact:
        """Store all of ``source``, then its record; the bytes of an older file of that name are removed.

        :param fence: under which the record is written: the attempt's.
        :raises ValueError: for an invalid name or content type, or a file over the limit ``max_artifact_bytes``.
        :raises FenceRefused: if the job has a newer event, so that the attempt no longer has it.
        :raises QueueUnavailable: if it could not be stored.
        """
        name, content_type = artifact_name(name), media_type(content_type)
        subject = codec.artifact_subject(job_id, name)
        older = await self._log.last(subject)
        # An object of its own each time: until the new record is stored, the old one refers to the old bytes.
        stored = f"{job_id}/{secrets.token_hex(4)}/{name}"
        artifact = await self._put(stored, name, source, content_type)
        body = codec.encode_body(Saved(artifact=artifact))
        try:
            await self._log.rollup(subject, body, fence)
        except FenceRefused:
            await self.remove(artifact)
            raise
        if older is not None:
            await self.remove_recorded(older)
        return artifact

    async def find(self, job_id: str, name: str) -> Artifact | None:
        """Return the job's file of that name, as the leader has it, or None.

        :raises QueueUnavailable: if the stream does not answer.
        """
        record = await self._log.last(codec.artifact_subject(job_id, name))
        return _artifact_of(record) if record is not None else None

    async def read(self, artifact: Artifact, target: BufferedIOBase) -> None:
        """Write the artifact's bytes into ``target`` and check their digest.

        :raises KeyError: if they have been removed.
        :raises QueueUnavailable: if they cannot be read now.
        """
        try:
            await (await self._open()).get(artifact.object, target)
        except ObjectStoreError as error:
            self._bucket = None
            raise QueueUnavailable(f"The artifact {artifact.name} cannot be read: {error}") from error

    async def remove(self, artifact: Artifact, *, erase: bool = False) -> None:
        """Remove the bytes; a failure is logged only, because nothing refers to them any more.

        :param erase: whether they are overwritten where the server has stored them; a failure is an error then.
        :raises QueueUnavailable: if they are to be overwritten, and some may still be there.
        """
        try:
            bucket = await self._open()
            await (bucket.erase(artifact.object) if erase else bucket.delete(artifact.object))
        except KeyError:
            return
        except (JetStreamError, QueueUnavailable) as error:
            if erase:
                self._bucket = None
                raise QueueUnavailable(f"The artifact {artifact.name} was not removed: {error}") from error
            log.warning("the artifact %s stays in the object store: %s", artifact.object, error)

    async def remove_recorded(self, record: JobMessage, *, erase: bool = False) -> None:
        """Remove the bytes that a record refers to, as ``remove`` does; a record that cannot be read is logged."""
        artifact = _artifact_of(record)
        if artifact is not None:
            await self.remove(artifact, erase=erase)

    async def make_missing(self) -> bool:
        """Make the object store if there is none; return whether there was none.

        :raises QueueUnavailable: if the server does not answer.
        :raises ApiError: | ObjectStoreError: if it refuses.
        """
        try:
            await stream_info(self._log.connection, bucket_stream(BUCKET))
        except ApiError as error:
            if error.err_code != NO_STREAM:
                raise
            self._bucket = None
            await self._open()
            return True
        return False

    async def _put(self, stored: str, name: str, source: BinaryIO, content_type: str) -> Artifact:
        try:
            file = await (await self._open()).put(stored, LimitedSource(source, self._max_bytes), content_type)
        except ObjectStoreError as error:
            # Looked for again at the next use: it may have been deleted.
            self._bucket = None
            raise QueueUnavailable(f"The artifact {name} was not stored: {error}") from error
        return Artifact(
            name=name,
            content_type=content_type,
            size_bytes=file.size,
            sha256=file.sha256,
            created_at=clock.now(),
            object=stored,
        )

    async def _open(self) -> Bucket:
        """Return the bucket; create it at its first use, if no API process has made it yet."""
        if self._bucket is None:
            connection = self._log.connection
            if not self._makes_bucket:
                self._bucket = await open_bucket(connection, BUCKET)
                return self._bucket
            self._bucket = await open_bucket(connection, BUCKET, self._replicas)
            try:
                await update_stream(connection, {"name": bucket_stream(BUCKET), "num_replicas": self._replicas})
            except ApiError as error:
                log.warning("the object store %s cannot be brought up to date: %s", BUCKET, error)
        return self._bucket


class LimitedSource(BufferedIOBase):
    """The content of an artifact: raises ``RefusedValue`` instead of yielding more than ``limit`` bytes."""

    def __init__(self, source: BinaryIO, limit: int) -> None:
        self._source = source
        self._limit = limit
        self._left = limit

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        """Read into ``buffer`` and return the bytes read.

        :raises RefusedValue: if the source has more bytes than the limit.
        """
        view = memoryview(buffer).cast("B")
        data = self._source.read(len(view))
        self._left -= len(data)
        if self._left < 0:
            raise RefusedValue(f"The artifact is larger than {self._limit} bytes.")
        view[: len(data)] = data
        return len(data)


def _artifact_of(record: JobMessage) -> Artifact | None:
    try:
        message = record.read()
    except codec.Unreadable as error:
        log.warning("the record %d of an artifact cannot be read: %s", record.seq, error)
        return None
    return message.body.artifact if message is not None and isinstance(message.body, Saved) else None
