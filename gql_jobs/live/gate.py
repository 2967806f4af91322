"""The holder of the gate: the one API process that queues the jobs that are held back, and what it needs to be that.

Every process keeps a ``GateState`` up to date from its index. One of them holds the lease, as long as there is any job
for which that is needed, and acts: it releases jobs, cancels those that come too late, and takes back what nobody can
run. What it writes is fenced, so that a holder that was replaced while it was paused changes nothing any more; what it
decides on is what its index has applied, at least up to the lease.
"""

import asyncio
import heapq
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from gql_jobs import clock
from gql_jobs.index.index import Index, JobChange
from gql_jobs.jetstream.client import SENT_AT_ONCE
from gql_jobs.jetstream.errors import ApiError
from gql_jobs.jobs.errors import GqlJobsError, InvalidState, NotFound, QueueUnavailable
from gql_jobs.jobs.gate import Action, Cancellation, GateState, Release
from gql_jobs.jobs.gate_lines import World
from gql_jobs.jobs.limits import Limits
from gql_jobs.jobs.messages import Continued, Edited, Kind, SteeringMessage, Submission
from gql_jobs.jobs.model import Job, JobStatus
from gql_jobs.live.feed import Feed
from gql_jobs.log import codec
from gql_jobs.log.codec import errors_beside
from gql_jobs.log.commands import JobCommands
from gql_jobs.log.gate_lease import RENEWED_EVERY, GateLease, GateLost
from gql_jobs.log.heartbeats import Presence
from gql_jobs.log.job_log import JobLog, Superseded, Write, job_events
from gql_jobs.log.steering import SteeringLog
from gql_jobs.log.streams import stream_info
from gql_jobs.logs import job_fields

log = logging.getLogger(__name__)

RELEASED_AT_ONCE = SENT_AT_ONCE
"""Releases that are sent together: as many as leave at once, so that the next ones, which follow, are stored behind."""
RELEASED_BYTES = 8 << 20
"""Bytes that the payloads of these may have, but for the last one's."""
_GROUPS_AT_ONCE = 4
"""Such groups of which it is not known yet what has become of them; one on a cluster, where their fences would meet."""
LOOKED_EVERY = 1.0
"""Seconds between two looks at what workers can run and which pauses have ended."""
RECALLED_EVERY = 5.0
"""Seconds between two looks for released jobs that nobody can run."""
IDLE_AFTER = 2.0
"""Seconds without anything to hold the gate for after which it is given up."""
_APPLIED_WITHIN = 5.0
"""Seconds to wait for the index before it is waited for again."""
_ALONE_AFTER = 2 * RENEWED_EVERY + 2
"""Seconds without a word of the server after which nothing is decided: what becomes due then is not attended."""
RETRY_DELAY = 1.0
"""Seconds after an error until the gate is looked at again."""
MOVED_DELAY = 0.2
"""Seconds after which a job is looked at again that has moved meanwhile."""
_CHUNK = 500
"""Jobs that are read together when this process starts."""
_TURN = 0.002
"""Seconds that decisions take the event loop at a time."""
_PLACED = (JobStatus.QUEUED, JobStatus.PROCESSING)


class _Outage(Exception):
    """Whether a release is stored cannot be told before it is too late for it: the gate has to be taken anew."""


class HeldWork(Protocol):
    """Work that only the holder of the gate does, beside that of the gate itself."""

    @property
    def has_work(self) -> bool:
        """Whether somebody has to hold the gate for it."""

    async def run(self) -> None:
        """Do it, again and again, until cancelled."""


class GateCounters(Struct, frozen=True):
    """The gate's figures for metrics: whether this process holds it, and what it has done since it started."""

    holds: bool
    acquired: int
    released: int
    cancelled: int
    recalled: int


class GateHolder:
    """Keeps the state of the gate, and holds it when that is needed and nobody else does."""

    def __init__(
        self,
        job_log: JobLog,
        commands: JobCommands,
        index: Index,
        feed: Feed,
        presence: Presence,
        *,
        beside: Sequence[HeldWork] = (),
    ) -> None:
        """Decide by an index, and write to ``job_log``.

        :param beside: what else the holder does.
        """
        self._log = job_log
        self._commands = commands
        self._index = index
        self._feed = feed
        self._presence = presence
        self._beside = beside
        self._able: dict[tuple[str, str], bool] = {}
        self._abilities: object = None
        self._told_at = clock.now()
        self._told_moment = time.monotonic()
        self._attended_until: datetime | None = None
        """When this process last held the gate and heard from the server, by whose clock; None for never."""
        self.lease = GateLease(SteeringLog(job_log))
        """The lease as this process knows it."""
        self.state = GateState(World(self._standing, self._occupied, self._is_paused, self._is_able, self._idle))
        """What is held back, and why."""
        self._changed = asyncio.Event()
        self._is_watching = False
        """Whether a change of a job may concern another one that is known here."""
        self._stored: list[tuple[int, str]] = []
        """What was stored and may not be applied here yet: sequences and ids of jobs."""
        self._figures = {"acquired": 0, "released": 0, "cancelled": 0, "recalled": 0}

    @property
    def counters(self) -> GateCounters:
        """The present figures."""
        return GateCounters(holds=bool(self.lease.held), **self._figures)

    async def run(self) -> None:
        """Keep the state, and hold the gate whenever it is needed; never ends by itself."""
        self._index.on_change.append(self._on_change)
        self._feed.steering.on_change.append(self._on_steering)
        try:
            for what in (codec.GATE_LEASES, codec.QUEUE_LIMITS, codec.TYPE_LIMITS):
                for message in self._feed.steering.all(what).values():
                    self._on_steering(message)
            await self._read_all()
            while True:
                try:
                    await self._until_wanted()
                    await self._hold()
                except GateLost:
                    log.info("another process holds the gate now")
                except _Outage:
                    log.info("the gate is taken anew once NATS is back")
                except (GqlJobsError, ApiError) as error:
                    log.info("the gate is not held: %s", error)
                    await asyncio.sleep(RETRY_DELAY)
                except Exception:
                    log.exception("the gate failed, and is taken up again")
                    await asyncio.sleep(RETRY_DELAY)
        finally:
            self._index.on_change.remove(self._on_change)
            self._feed.steering.on_change.remove(self._on_steering)
            with suppress(GateLost, GqlJobsError):
                async with asyncio.timeout(RETRY_DELAY):
                    await self.lease.renew(ends=True)

    # What the state is told.

    def _on_change(self, changes: list[JobChange], position: int, *, in_turn: bool) -> None:  # noqa: ARG002
        # Nearly all changes are of jobs that nothing steers, while nothing waits for them.
        if not self._is_watching and not any(after is not None and after.is_steered for _, after in changes):
            return
        state = self.state
        for before, after in changes:
            if after is not None and after.is_steered:
                state.put(after)
            elif (known := after or before) is not None and state.concerns(known.id):
                ended = after.status if after is not None and after.status.is_terminal else None
                state.forget(known.id, ended)
        state.totals_changed()
        self._is_watching = not state.is_empty
        self._changed.set()

    def _on_steering(self, message: SteeringMessage) -> None:
        if message.what == codec.GATE_LEASES:
            self.lease.observe(message)
        elif message.what in {codec.QUEUE_LIMITS, codec.TYPE_LIMITS}:
            of = "queue" if message.what == codec.QUEUE_LIMITS else "type"
            limits = self._feed.steering.value(message.what, message.name, Limits)
            self.state.limit(of, message.name, limits, time.monotonic())
        else:
            self.state.look_again()
        self._changed.set()

    async def _read_all(self) -> None:
        """Take in what the index has; what changes meanwhile is told besides."""
        number = 0
        while chunk := self._index.steered_after(number, _CHUNK):
            for _, job in chunk:
                self.state.put(job)
            self._is_watching = True
            number = chunk[-1][0]
            await asyncio.sleep(0)

    # What the state asks.

    def _standing(self, job_id: str) -> JobStatus | None:
        job = self._index.job(job_id)
        if job is None and self._index.failure is not None:
            # Nothing is known then: as of a job that goes on, nothing follows from that.
            return JobStatus.QUEUED
        return job.status if job is not None else None

    def _occupied(self, of: str, name: str) -> int:
        return self._index.count(_PLACED, "queue" if of == "queue" else "type", name)

    def _is_paused(self, queue: str) -> bool:
        return self._feed.steering.is_paused(queue, self._now())

    def _is_able(self, queue: str, type_name: str) -> bool:
        known = self._able.get((queue, type_name))
        if known is None:
            serving = [worker for worker in self._presence.workers() if queue in worker.queues]
            known = not serving or any(worker.can_run(queue, type_name) for worker in serving)
            self._able[queue, type_name] = known
        return known

    def _idle(self, of: str, name: str) -> float | None:
        moved = self._index.last_moved("queue" if of == "queue" else "type", name)
        return max((self._now() - moved).total_seconds(), 0.0) if moved is not None else None

    # Holding the gate.

    @property
    def _is_wanted(self) -> bool:
        return self.state.has_work or any(work.has_work for work in self._beside)

    @property
    def _may_decide(self) -> bool:
        """Whether what this process knows is enough: its index follows, and nothing there is of a newer release."""
        return self._feed.caught_up and self._index.failure is None and not self._index.has_newer

    @property
    def _is_alone(self) -> bool:
        """Whether the server has not been heard of for so long that it may be away."""
        return time.monotonic() - self._told_moment > _ALONE_AFTER

    async def _until_wanted(self) -> None:
        """Wait until there is work for a holder, and nobody seems to be it."""
        while True:
            self._changed.clear()
            free_in = self.lease.free_in()
            if self._is_wanted and self._may_decide and free_in <= 0:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(max(free_in, LOOKED_EVERY) if self._is_wanted else None):
                    await self._changed.wait()
            # Changes come by the thousand where nobody needs the gate.
            await asyncio.sleep(0.005)

    async def _hold(self) -> None:
        """Acquire the gate and act until it is lost, or not needed any more.

        :raises GateLost: if another process has it.
        :raises QueueUnavailable: | QueueFull: if the server does not answer, or has no room.
        """
        last = await self.lease.acquire()
        while not await self._feed.wait_for(last, _APPLIED_WITHIN):
            if self.lease.lost.is_set():
                raise GateLost
        self._figures["acquired"] += 1
        await self._tell_time()
        is_cluster = (await stream_info(self._log.connection)).config.get("num_replicas", 1) > 1
        # Every renewal of another holder is known by now, as is what was on its way then, unless it was refused.
        attended = [moment for moment in (self.lease.attended_until, self._attended_until) if moment is not None]
        attended_until = max(attended, default=None)
        self.state.begin(time.monotonic(), self._now(), attended_until)
        self._attended_until = self._told_at
        outgoing = _Outgoing(1 if is_cluster else _GROUPS_AT_ONCE)
        senders = (self._send_all(outgoing, is_cluster=is_cluster) for _ in range(outgoing.most))
        parts = [self._act(outgoing), *senders, self._renew(), self.lease.lost.wait()]
        # Each job that ends makes room for another one: batches of the index are not gathered for as long then.
        self._feed.is_followed = lambda: self.state.has_blocked
        tasks = [asyncio.ensure_future(part) for part in (*parts, *(work.run() for work in self._beside))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            # Of what acts first: it says why the gate is lost.
            for task in sorted(done, key=tasks.index):
                await task
            if self.lease.lost.is_set():
                raise GateLost
        finally:
            self._feed.is_followed = lambda: False
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _renew(self) -> None:
        """Renew the lease for as long as it is needed; then give it up and return."""
        idle_since: float | None = None
        while True:
            await asyncio.sleep(RENEWED_EVERY if idle_since is None else IDLE_AFTER / 2)
            if not self._may_decide:
                continue
            moment = time.monotonic()
            idle_since = None if self._is_wanted else idle_since or moment
            if idle_since is not None and moment - idle_since >= IDLE_AFTER:
                await self.lease.renew(ends=True)
                return
            with suppress(QueueUnavailable):
                was_alone = self._is_alone
                await self.lease.renew()
                await self._tell_time()
                if was_alone:
                    self.state.skip_missed(self._now(), self._attended_until)
                    self._changed.set()
                self._attended_until = self._told_at

    async def _tell_time(self) -> None:
        """Learn the time by the server's clock, by which jobs are due."""
        told = await self._log.server_time()
        # Once it is told, some time has passed there: what is due is late by that, and never early.
        self._told_at, self._told_moment = told, time.monotonic()

    def _now(self) -> datetime:
        """Return the time by the server's clock; this machine's may be wrong, and may be set while the gate is held."""
        if clock.advances is not None:
            return clock.now()
        return self._told_at + timedelta(seconds=time.monotonic() - self._told_moment)

    async def _act(self, outgoing: "_Outgoing") -> None:
        """Carry out what the state says, again and again."""
        looked_at = recalled_at = time.monotonic()
        while True:
            self._changed.clear()
            await self._carry_out(outgoing)
            now, moment = self._now(), time.monotonic()
            delay = self.state.delay(now, moment)
            wait = LOOKED_EVERY if delay is None else min(clock.delay_at_server(delay), LOOKED_EVERY)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            moment = time.monotonic()
            if moment - looked_at >= LOOKED_EVERY:
                looked_at = moment
                self._look_at_workers()
            if moment - recalled_at >= RECALLED_EVERY and self._may_decide:
                recalled_at = moment
                recalls = list(self.state.recalls())[:RELEASED_AT_ONCE]
                for recall in recalls:
                    self.state.sent(recall)
                await asyncio.gather(*map(self._undo, recalls))

    def _look_at_workers(self) -> None:
        """Look again at what is held back if what workers can run has changed, or a pause may have ended."""
        abilities = [(worker.id, worker.queues, worker.job_types, worker.unable) for worker in self._presence.workers()]
        if abilities != self._abilities or self._feed.steering.all(codec.PAUSES):
            self._abilities = abilities
            self._able.clear()
            self.state.look_again()

    async def _carry_out(self, outgoing: "_Outgoing") -> None:
        """Carry out all that the state says now, if enough is known for that."""
        while self._may_decide and not self._is_alone:
            releases: list[Write] = []
            others: list[Action] = []
            room = RELEASED_BYTES
            pause_at = time.monotonic() + _TURN
            self._settle_applied()
            while len(releases) + len(others) < RELEASED_AT_ONCE:
                action = self.state.next(self._now(), time.monotonic())
                if action is None:
                    break
                self.state.sent(action)
                if isinstance(action, Release):
                    write = self._release(action.job_id)
                    if write is not None:
                        releases.append(write)
                        body = write.body
                        room -= len(body.spec.payload) if isinstance(body, Submission) else 0
                else:
                    others.append(action)
                if room <= 0 or time.monotonic() > pause_at:
                    break
            if not releases and not others:
                return
            if releases:
                await outgoing.put(releases)
            if others:
                await asyncio.gather(*map(self._undo, others))
            await asyncio.sleep(0)

    # Releases.

    def _release(self, job_id: str) -> Write | None:
        """Return the write that queues a job; None if there is no such job here any more.

        :raises GateLost: if the gate is not held.
        """
        job = self._index.job(job_id)
        if job is None:
            self.state.stored(job_id, time.monotonic(), stored=False)
            self.state.settled(job_id)
            self.state.forget(job_id)
            return None
        body = Submission(spec=job.spec, event_seq=job.event_seq, release=True)
        if job.attempt or job.errors:
            # Also if its release was taken back after an attempt.
            body = self._continued(body, job)
        subject = codec.queued_subject(job_id, job.spec.queue, job.spec.priority)
        return Write(job_id, subject, body, self.lease.fence_of(job_id))

    def _continued(self, body: Submission, job: Job) -> Submission:
        """Return a submission that goes on from what the job's failed attempts have left, as much as there is room."""
        without = Continued(attempt=job.attempt, progress=job.progress, message=job.progress_message)
        errors = errors_beside(replace(body, continues=without), job.errors, self._log.max_payload)
        return replace(body, continues=replace(without, errors=errors))

    async def _send_all(self, outgoing: "_Outgoing", *, is_cluster: bool) -> None:
        """Store group after group, for as long as the gate is held.

        :raises GateLost: if a release is refused because another process has the gate.
        :raises _Outage: if it cannot be told what has become of one that it is too late for.
        """
        while True:
            await self._send(await outgoing.get(), is_cluster=is_cluster)
            outgoing.done()
            # It may be applied here already, and rates count from now on.
            self._changed.set()

    async def _send(self, writes: list[Write], *, is_cluster: bool) -> None:
        """Store releases, and have what has become of each be known.

        :raises GateLost: | _Outage: as ``_send_all``.
        """
        for portion in _one_a_lane(writes) if is_cluster else [writes]:
            outcomes = await self._log.append_in_order(portion)
            for write, outcome in zip(portion, outcomes, strict=True):
                if isinstance(outcome, QueueUnavailable) and "jobId" in outcome.extensions:
                    # It may have been stored. A second one is harmless, and tells the same once it is.
                    await self._repeat(write)
                else:
                    self._note_outcome(write.job_id, outcome)

    async def _repeat(self, write: Write) -> None:
        """Send a release again until it is known what has become of it.

        :raises GateLost: if another process has the gate.
        :raises _Outage: if that is not known when it is too late for it: a gate that is taken anew refuses what may
            still be on its way.
        """
        latest = self.state.latest_release(write.job_id)
        left = None if latest is None else (latest - self._now()).total_seconds()
        stored: int | BaseException | None = None
        if left is None or left > 0:
            try:
                stored = await self._log.append(write, timeout=left)
            except (Superseded, GqlJobsError) as error:
                stored = error
        if stored is None or (left is not None and isinstance(stored, QueueUnavailable)):
            self.lease.lose()
            raise _Outage
        self._note_outcome(write.job_id, stored)

    def _note_outcome(self, job_id: str, outcome: int | BaseException) -> None:
        is_stored = isinstance(outcome, int)
        self.state.stored(job_id, time.monotonic(), stored=is_stored)
        if isinstance(outcome, int):
            self._figures["released"] += 1
            heapq.heappush(self._stored, (outcome, job_id))
            return
        if isinstance(outcome, Superseded):
            self.lease.lose()
            raise GateLost
        log.warning("job %s was not released: %s", job_id, outcome, extra=job_fields(job_id=job_id))
        self._settle_later(job_id, RETRY_DELAY)

    def _settle_applied(self) -> None:
        """Have the state forget that things were on their way which the index has applied by now."""
        while self._stored and self._stored[0][0] <= self._feed.position:
            self.state.settled(heapq.heappop(self._stored)[1])

    def _settle_later(self, job_id: str, delay: float) -> None:
        """Have a job looked at again after so many seconds, for what was decided about it was not done."""
        held = self.lease.held

        def settle() -> None:
            if self.lease.held != held:
                # The gate was taken anew: that is settled, and something else may be on its way.
                return
            self.state.settled(job_id)
            self._changed.set()

        asyncio.get_running_loop().call_later(delay, settle)

    # What ends, or takes back.

    async def _undo(self, action: Action) -> None:
        """Cancel a job, or take its release back; it is looked at again if that cannot be done now."""
        job = self._index.job(action.job_id)
        if job is None:
            self.state.settled(action.job_id)
            self.state.forget(action.job_id)
            return
        try:
            if isinstance(action, Cancellation):
                moved_by = None if action.whatever_it_does else job.moved_at
                seq = (await self._commands.cancel(job.id, moved_by=moved_by, reason=action.reason)).last_seq
                self._figures["cancelled"] += 1
            else:
                seq = await self._recall(job)
                self._figures["recalled"] += 1
        except (InvalidState, NotFound, Superseded):
            # Something has happened to it that the index does not know of yet.
            self._settle_later(action.job_id, MOVED_DELAY)
        except (GqlJobsError, ApiError) as error:
            log.info("job %s waits longer than it should: %s", action.job_id, error)
            self._settle_later(action.job_id, RETRY_DELAY)
        else:
            heapq.heappush(self._stored, (seq, action.job_id))

    async def _recall(self, job: Job) -> int:
        """Take the release of a job back; return the sequence of the event.

        :raises Superseded: if something else has happened to the job.
        :raises QueueUnavailable: | QueueFull: if the server does not answer, or has no room.
        """
        subject = codec.event_subject(job.id, Kind.EDITED)
        body = Edited(submission=job.submission_seq, spec=job.spec.never_too_late)
        return await self._log.append(Write(job.id, subject, body, job_events(job.id, job.event_seq)))


class _Outgoing:
    """Groups of releases, of which ``most`` are sent at a time. None waits: it was decided on what holds now."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._groups: asyncio.Queue[list[Write]] = asyncio.Queue()
        self._free = asyncio.Semaphore(most - 1)
        """How many more can be sent, after the next one."""

    async def put(self, writes: list[Write]) -> None:
        """Hand on a group, and wait until another one could be sent at once."""
        self._groups.put_nowait(writes)
        await self._free.acquire()

    async def get(self) -> list[Write]:
        """Return the next group, when there is one; ``done`` has to be called once it is sent."""
        return await self._groups.get()

    def done(self) -> None:
        """Note that what has become of a group is known."""
        self._free.release()


def _one_a_lane(writes: list[Write]) -> list[list[Write]]:
    """Return releases in portions in which no two have the same fence.

    A cluster takes one write with a fence at a time, and refuses the others although they are right.
    """
    lanes: dict[str, list[Write]] = {}
    for write in writes:
        lanes.setdefault(write.fence.over, []).append(write)
    return [
        [lane[turn] for lane in lanes.values() if turn < len(lane)] for turn in range(max(map(len, lanes.values())))
    ]
