"""What the stream loses while it is followed: streams and consumers are made anew, jobs that are lost leave the index.

An operator may delete, purge or restore a stream, or wipe the store; nothing of that arrives as a message. So the
stream is looked at every few seconds. If all of it is another one, or its beginning is gone, the index is void: the
runtime has to be opened anew. So it is where an older copy was restored, also if that has grown beyond what was read:
then another message stands where the newest one was that was read before the start, or before the connection was lost.
Single jobs whose messages are gone are folded again from what is left of them.
"""

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta

from gql_jobs import clock
from gql_jobs.index.index import AppliedMessage, Index
from gql_jobs.index.reader import Reader
from gql_jobs.jetstream.errors import ApiError, ObjectStoreError, StreamReplaced, Unavailable
from gql_jobs.jetstream.stored_messages import message_at, subjects_page
from gql_jobs.jobs.errors import GqlJobsError
from gql_jobs.jobs.messages import Expired, Kind, Message
from gql_jobs.live.bus import EventBus
from gql_jobs.live.feed import Feed
from gql_jobs.log import codec
from gql_jobs.log.artifacts import ArtifactStore
from gql_jobs.log.codec import JobMessage
from gql_jobs.log.job_log import JobLog
from gql_jobs.log.streams import StreamInfo, make_missing
from gql_jobs.settings import Settings

log = logging.getLogger(__name__)

CHECK_INTERVAL = 2.0
"""Seconds between two looks at the stream."""
_START_PAUSE = 0.1
"""Seconds between two looks whether the index has caught up at the start."""
JOBS_AT_ONCE = 50
"""Jobs that are compared with the stream at each look, so that all of them are again and again: 25 a second."""
_BEHIND_AT_LEAST = 3
"""Looks in a row at which the stream must end before what was read of it: a new leader may still be catching up."""
_CAUGHT_UP_WITHIN = 1.0
"""Seconds to wait for the index to apply what the stream holds, before it is said to hold too little."""
_SAME_TIME = timedelta(milliseconds=1)
"""How far two readings of one message's time may be apart: their last digits are rounded."""
_KEPT = frozenset({"queued", "event", "scheduled"})
"""Third tokens of the subjects of submissions and events."""
_NOT_COUNTED = frozenset({Kind.SCHEDULED, Kind.PROGRESS})
"""Kinds whose messages may be gone although nothing is lost."""


class Losses:
    """Looks at the stream on behalf of one API process. ``queues``: those whose consumers must exist."""

    def __init__(
        self,
        job_log: JobLog,
        index: Index,
        reader: Reader,
        feed: Feed,
        bus: EventBus,
        *,
        artifacts: ArtifactStore,
        settings: Settings,
        queues: Sequence[str],
    ) -> None:
        self._log = job_log
        self._index = index
        self._reader = reader
        self._feed = feed
        self._bus = bus
        self._artifacts = artifacts
        self._settings = settings
        self._queues = queues
        self._behind = 0
        self._first_seq = 0
        self._below: int | None = None
        self._suspects: list[tuple[str, int]] = []
        self._last: StreamInfo | None = None
        self._unverified: list[AppliedMessage] = []
        """Messages that were read before this process or its connection was away, while a store may be restored."""
        self._doubt()

    async def run(self) -> None:
        """Look at the stream every ``CHECK_INTERVAL`` seconds; never end by itself.

        :raises StreamReplaced: if the index is void. All subscriptions have been ended with an error then.
        """
        reconnections = self._log.connection.on_reconnect
        reconnections.append(self._doubt)
        try:
            while not self._feed.caught_up:  # noqa: ASYNC110 - the feed has no event for it
                # At the start a purge that nobody was there for is found before anything else is done.
                await asyncio.sleep(_START_PAUSE)
            while True:
                try:
                    await self.check()
                except (GqlJobsError, ApiError, ObjectStoreError, Unavailable) as error:
                    log.debug("the stream could not be looked at: %s", error)
                await asyncio.sleep(CHECK_INTERVAL)
        finally:
            reconnections.remove(self._doubt)

    async def check(self) -> None:
        """Look at the stream once.

        :raises StreamReplaced: if the index is void.
        :raises ApiError: | ObjectStoreError: | GqlJobsError: | Unavailable: if the server refuses or does not answer.
        """
        connection = self._log.connection
        # Before the stream is asked: what is stored meanwhile is read before its answer is here.
        position = self._feed.position
        stream = await make_missing(connection, self._settings, self._queues)
        if stream.created != self._index.stream_created:
            self._void(
                f"The stream of jobs was deleted, or its store wiped, while this process followed it; it is a new one "
                f"since {stream.created}."
            )
        self._behind = self._behind + 1 if stream.state.last_seq < position else 0
        if self._behind >= _BEHIND_AT_LEAST:
            self._void(
                f"The stream of jobs ends at {stream.state.last_seq}, although it has gone as far as "
                f"{position}: an older copy of it was restored, or its newest messages are lost."
            )
        await self._compare_read(stream.state.last_seq)
        # Expiries are applied before their deletions are taken for losses.
        if not self._feed.caught_up or not await self._feed.wait_for(stream.state.last_seq, _CAUGHT_UP_WITHIN):
            return
        first_seq = stream.state.first_seq
        if first_seq != self._first_seq and await self._reader.has_older_than(first_seq):
            self._void(f"The stream of jobs begins at {first_seq} only, although there were older jobs: it was purged.")
        self._first_seq = first_seq
        await self._look_for_files()
        await self._compare_jobs(quick=self._has_shrunk(stream))

    def _void(self, what: str) -> None:
        """Keep in mind that the index is void, end all subscriptions, and raise ``StreamReplaced``."""
        what = f"{what} The {self._index.jobs} jobs that were known are gone, or some of them."
        log.error("%s The index is built anew", what)
        self._index.note_loss(what, void=True)
        self._bus.end("The jobs that this server followed are lost: the stream was deleted or purged. Subscribe again.")
        raise StreamReplaced(what)

    async def _look_for_files(self) -> None:
        """Make the object store if there is none, for workers who may not, and say so if jobs have files."""
        if await self._artifacts.make_missing() and await self._reader.has_files():
            what = "The object store of artifacts was deleted: the files of all jobs are gone."
            log.error("%s It is made anew, empty", what)
            self._index.note_loss(what)

    def _doubt(self) -> None:
        """Have the next look compare what was read last, before anything that has grown in its place is read."""
        newest = self._index.newest
        if newest is not None and newest not in self._unverified:
            self._unverified.append(newest)

    async def _compare_read(self, last_seq: int) -> None:
        """Look whether the stream still has the messages that are in doubt, as far as it goes.

        :raises StreamReplaced: if it has another one in the place of one of them.
        """
        for read in [read for read in self._unverified if read.seq <= last_seq]:
            stored = await message_at(self._log.connection, codec.JOBS_STREAM, read.seq)
            # Missing says nothing: progress makes room for newer progress.
            if stored is not None and abs(stored.at - read.at) > _SAME_TIME:
                self._void_from(read.seq)
            self._unverified.remove(read)

    def _void_from(self, seq: int) -> None:
        self._void(
            f"The stream of jobs has another message at {seq} than was read there: an older copy of it was "
            "restored and has grown since."
        )

    def _has_shrunk(self, stream: StreamInfo) -> bool:
        """Return whether messages were deleted since the last look while none came: so by nobody's progress."""
        before, self._last = self._last, stream
        if before is None or before.state.last_seq != stream.state.last_seq:
            return False
        return stream.state.messages < before.state.messages

    async def _compare_jobs(self, *, quick: bool) -> None:
        """Compare the next jobs of the index with the stream, or (``quick``) all of them."""
        # Missed at two looks: a leader that was just elected may not have everything at once.
        suspects, self._suspects = self._suspects, []
        if lost := [job_id for job_id, least in suspects if await self._stored(job_id) < least]:
            await self._fold_again(lost)
        left = None if quick else self._below
        while True:
            jobs = await self._reader.jobs_before(left, JOBS_AT_ONCE)
            missed = [(job_id, least) for _, job_id, least in jobs if await self._stored(job_id) < least]
            self._suspects += missed
            left = jobs[-1][0] if len(jobs) == JOBS_AT_ONCE else None
            if left is None or not (quick or missed):
                self._below = left
                return

    async def _stored(self, job_id: str) -> int:
        """Return how many submissions and events of a job the stream has."""
        page = await subjects_page(self._log.connection, codec.JOBS_STREAM, codec.job_subjects(job_id))
        return sum(number for subject, number in page.subjects.items() if _is_kept(subject))

    async def _fold_again(self, job_ids: Sequence[str]) -> None:
        """Fold jobs again from what is left of them in the stream; those that have changed since are left alone."""
        lost = []
        for job_id in job_ids:
            await self._compare_place(job_id)
            history = await self._log.history(job_id)
            # What the index does not know yet may have replaced what is missed: a fired schedule, an expiry.
            if not await self._feed.wait_for(max((m.seq for m in history), default=0), _CAUGHT_UP_WITHIN):
                continue
            async with self._feed.applying:
                if self._take_out(job_id, history):
                    lost.append(job_id)
        if lost:
            shown = ", ".join(lost[:5])
            what = f"Messages of {len(lost)} jobs were purged or deleted from the stream: {shown}."
            log.error("%s They are now what is left of them", what)
            self._index.note_loss(what)

    async def _compare_place(self, job_id: str) -> None:
        """Look whose message stands where the index has the job's last event.

        :raises StreamReplaced: if it is another job's: the stream goes on from an older copy, and jobs that were stored
            in the place of lost ones are not in the index.
        """
        job = self._index.job(job_id)
        if job is None:
            return
        seq = max(job.event_seq, job.submission_seq)
        stored = await message_at(self._log.connection, codec.JOBS_STREAM, seq)
        if stored is not None and codec.job_of_subject(stored.subject) != job_id:
            self._void_from(seq)

    def _take_out(self, job_id: str, history: Sequence[JobMessage]) -> bool:
        """Put what the messages make in the place of the job; return whether it was another one, or more of it."""
        position = self._index.position
        job = self._index.job(job_id)
        known = [message for message in history if message.seq <= position]
        events = {seq for seq, kind in self._index.messages(job_id) if kind not in _NOT_COUNTED}
        if job is None or sum(_is_kept(message.subject) for message in known) >= max(len(events), 1):
            return False
        gone = Message(job_id, Kind.EXPIRED, position, clock.now(), Expired(event_seq=job.last_seq))
        self._index.apply([gone, *_readable(known)], position)
        self._bus.end(f"Messages of job {job_id} were deleted from the stream. Ask for the job again.", job_id)
        return True


def _is_kept(subject: str) -> bool:
    return subject.split(".")[2] in _KEPT


def _readable(history: Sequence[JobMessage]) -> list[Message]:
    found: list[Message] = []
    for stored in history:
        try:
            message = stored.read()
        except codec.Unreadable:
            continue
        if message is not None:
            found.append(message)
    return found
