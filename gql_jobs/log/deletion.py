"""Deletion of a job that somebody wants gone: a fenced ``expired`` event, then everything that was stored of the job.

The event is fenced over the job's events, by the identical string as starts, outcomes, edits and cancellations: of two
that cross, one is stored, and the other is decided again. What is not fenced by that (a retry, the firing of a
schedule, a release of the gate) may be stored behind the event and is then a ghost: no fold makes a job of it, no
worker can start it, and maintenance removes it (``retention.delete_remains``).

Unlike an expiry, a deletion has the server overwrite the bytes of each message that it removes. So a schedule is
removed as a message, not by a header of the event: the server would only mark it as gone.
"""

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from gql_jobs.jetstream.client import TTL_HEADER
from gql_jobs.jetstream.errors import ApiError
from gql_jobs.jobs.errors import InvalidState, NotFound, QueueFull, QueueUnavailable
from gql_jobs.jobs.messages import Expired, Kind
from gql_jobs.jobs.model import Job, JobStatus
from gql_jobs.jobs.viewer import ANYBODY, Viewer
from gql_jobs.log import codec
from gql_jobs.log.artifacts import ArtifactStore
from gql_jobs.log.codec import JobMessage
from gql_jobs.log.commands import JobCommands
from gql_jobs.log.job_log import JobLog, Superseded, Write, job_events, last_event_seq
from gql_jobs.log.keys import KeptKey, release_keys
from gql_jobs.log.retention import EXPIRED_EVENT_TTL, SUBMISSIONS, delete_remains
from gql_jobs.logs import job_fields

log = logging.getLogger(__name__)

_TRIES = 10
"""How often a deletion is decided again because others have written."""


class Deleted(NamedTuple):
    """What became of a deletion: whether it has ended the job (else there was none any more), and by which event."""

    deleted: bool
    seq: int


class JobDeletions:
    """Deletes jobs, with all that is stored of them. One instance per process."""

    def __init__(self, job_log: JobLog, commands: JobCommands, artifacts: ArtifactStore) -> None:
        self._log = job_log
        self._commands = commands
        self._artifacts = artifacts

    async def delete(self, job_id: str, viewer: Viewer = ANYBODY, *, moved_by: int | None = None) -> Deleted:
        """Delete a job that does not run; when this returns, nothing of it is left in the streams and file store.

        A job that is gone already, expired or deleted, is no error for those who see all jobs; whatever was left of it
        is removed.

        :param viewer: who deletes it.
        :param moved_by: the position behind which it must not have moved.
        :raises NotFound: if there is no such job, or none for the viewer, which takes as long.
        :raises InvalidState: if it runs, or has moved.
        :raises QueueFull: if the store has no room for the event, and the job has not ended.
        :raises QueueUnavailable: if the server does not answer, or others keep writing to the job. With
            ``extensions.jobId`` it may be deleted, and what is left of it is removed later.
        """
        for number in range(_TRIES):
            try:
                history, job = await self._commands.existing(job_id, viewer, whole=number > 0)
            except NotFound:
                if viewer.visibility.is_partial or (seq := await self._gone_at(job_id)) == 0:
                    raise
                await self._clear(job_id)
                return Deleted(False, seq)
            if job.status is JobStatus.PROCESSING:
                raise InvalidState(job_id, job.status.name, "deleted", "Cancel it first: its handler may still write.")
            if moved_by is not None and job.moved_at > moved_by:
                raise InvalidState(job_id, job.status.name, "deleted")
            try:
                seq = await self._end(job, history, viewer)
            except Superseded:
                continue
            log.info("job %s was deleted", job_id, extra=job_fields(job_id=job_id, type=job.spec.type))
            if (key := KeptKey.of(job)) is not None:
                # A key of a job that is gone is free; this removes what names it.
                with suppress(QueueUnavailable):
                    await release_keys(self._log, [(key, job_id, seq)])
            await self._clear(job_id)
            return Deleted(True, seq)
        raise QueueUnavailable(f"Job {job_id} keeps changing; it was not deleted. Try again.")

    async def _end(self, job: Job, history: Sequence[JobMessage], viewer: Viewer) -> int:
        """Store the event that ends the job, and return its sequence.

        :raises Superseded: if the job has another event by now.
        """
        last_event = last_event_seq(history)
        subject = codec.event_subject(job.id, Kind.EXPIRED)
        body = Expired(event_seq=job.last_seq, deleted=True, actor=viewer.actor)
        headers = {TTL_HEADER: f"{EXPIRED_EVENT_TTL}s"}
        write = Write(job.id, subject, body, job_events(job.id, last_event), headers)
        try:
            return await self._log.append(write)
        except QueueFull:
            if not job.status.is_terminal:
                raise
            # Into the room of its submissions, as an expiry is: the event that is left still allows the fence.
            await self._log.delete([m.seq for m in history if m.kind in SUBMISSIONS], erase=True)
            return await self._log.append(write)

    async def _gone_at(self, job_id: str) -> int:
        """Return the sequence of the event by which the job has ended for good; 0 if none is known."""
        if not codec.is_job_id(job_id):
            return 0
        last = await self._log.last(codec.event_subject(job_id, Kind.EXPIRED))
        return last.seq if last is not None else 0

    async def _clear(self, job_id: str) -> None:
        """Remove what is left of a job that has been deleted.

        :raises QueueUnavailable: with ``extensions.jobId``, if not all of it could be removed.
        """
        try:
            await delete_remains(self._log, self._artifacts, job_id)
        except (QueueUnavailable, ApiError) as error:
            raise QueueUnavailable(
                f"Job {job_id} is deleted, but not all that was stored of it could be removed yet; that goes on by "
                "itself. Repeat the deletion to know when it is done.",
                job_id,
            ) from error
