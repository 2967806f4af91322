"""Makes the jobs of schedules ahead of their time, in the process that holds the gate.

Schedules wait in a heap for the moment at which something is to be done about them, so that those which are not due
cost nothing. Whatever is made is written down first, in place of what was read: of two processes that take themselves
for the holder one is refused, and a process that ends in between is followed by one that makes what is missing.
"""

import asyncio
import heapq
import logging
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from gql_jobs import clock
from gql_jobs.index.index import Index
from gql_jobs.jobs.errors import GqlJobsError, QueueUnavailable
from gql_jobs.jobs.messages import SteeringMessage
from gql_jobs.jobs.schedules import (
    MOST_PENDING,
    SCHEDULE,
    SCHEDULE_STATE,
    Schedule,
    ScheduleState,
    SkipReason,
    plan,
    settled,
    state_of,
)
from gql_jobs.live.steering import Steering
from gql_jobs.log.job_log import JobLog, Superseded
from gql_jobs.log.schedules import ScheduleCommands, StoredState

log = logging.getLogger(__name__)

_AT_ONCE = 64
"""Schedules that are looked at together."""
_LONGEST_WAIT = 30.0
"""Seconds after which the server is asked for the time at the latest: its clock may have been set."""
_GATHERED = 0.05
"""Seconds for which changes are gathered before they are looked at."""
_FIRST_PAUSE = timedelta(seconds=1)
_LONGEST_PAUSE = timedelta(seconds=30)
"""How soon a schedule is looked at again of which something could not be made: doubled each time, up to the latter."""
_FORGOTTEN_AFTER = timedelta(seconds=30)
"""How long it is kept in mind that a job of a deleted schedule had just started."""
_AT_ONCE_DUE = datetime.min.replace(tzinfo=UTC)


class Ticks:
    """The ticks of all schedules. ``run`` belongs to the holder of the gate; ``has_work`` is known everywhere."""

    def __init__(self, job_log: JobLog, steering: Steering, index: Index, commands: ScheduleCommands) -> None:
        """Follow the schedules that ``steering`` has.

        :param index: where the jobs of ticks are looked up.
        """
        self._log = job_log
        self._steering = steering
        self._index = index
        self._commands = commands
        self._working: set[str] = set()
        self._own: dict[str, StoredState] = {}
        """What this process has written and has not heard of yet."""
        self._due: dict[str, datetime] = {}
        self._heap: list[tuple[datetime, str]] = []
        self._failures: dict[str, int] = {}
        self._changed = asyncio.Event()
        for name in {*steering.all(SCHEDULE), *steering.all(SCHEDULE_STATE)}:
            self._note(name)
        steering.on_change.append(self._on_change)

    @property
    def has_work(self) -> bool:
        """Whether a holder of the gate is needed: there are schedules that are not paused, or remains of others."""
        return bool(self._working)

    def _on_change(self, message: SteeringMessage) -> None:
        if message.what not in {SCHEDULE, SCHEDULE_STATE}:
            return
        self._note(message.name)
        own = self._own.get(message.name)
        if message.what == SCHEDULE:
            self._look_at(message.name, _AT_ONCE_DUE)
            self._changed.set()
        elif own is not None and own.seq <= message.seq:
            del self._own[message.name]

    def _note(self, name: str) -> None:
        schedule, state = self._schedule(name), self._state(name).state
        if schedule is None:
            has_work = state is not None
        else:
            has_work = not schedule.paused or (state is not None and state.incarnation != schedule.incarnation)
        (self._working.add if has_work else self._working.discard)(name)

    def _schedule(self, name: str) -> Schedule | None:
        return self._steering.value(SCHEDULE, name, Schedule)

    def _state(self, name: str) -> StoredState:
        message = self._steering.all(SCHEDULE_STATE).get(name)
        own = self._own.get(name)
        if own is not None and (message is None or own.seq > message.seq):
            return own
        if message is None:
            return StoredState(None, 0)
        return StoredState(self._steering.value(SCHEDULE_STATE, name, ScheduleState), message.seq)

    def _look_at(self, name: str, at: datetime | None) -> None:
        if at is None:
            self._due.pop(name, None)
        else:
            self._due[name] = at
            heapq.heappush(self._heap, (at, name))

    async def run(self) -> None:
        """Make what is due, and go on until cancelled; what fails is logged and tried again."""
        self._heap, self._due, self._failures, self._own = [], {}, {}, {}
        for name in list(self._working):
            self._look_at(name, _AT_ONCE_DUE)
        while True:
            self._changed.clear()
            try:
                now = await self._log.server_time()
                await self._look_at_due(now)
            except QueueUnavailable as error:
                log.info("schedules wait: %s", error)
                await asyncio.sleep(_FIRST_PAUSE.total_seconds())
                continue
            await self._wait(now)

    async def _wait(self, now: datetime) -> None:
        """Wait until something is due, or a schedule has changed."""
        delay = _LONGEST_WAIT
        if self._heap:
            delay = min(delay, max((self._heap[0][0] - now).total_seconds(), 0.0))
        try:
            async with asyncio.timeout(clock.delay_at_server(delay)):
                await self._changed.wait()
        except TimeoutError:
            return
        await asyncio.sleep(_GATHERED)

    async def _look_at_due(self, now: datetime) -> None:
        while names := list(self._pop(now)):
            looks = await asyncio.gather(*(self._look(name, now) for name in names))
            for name, look_at in zip(names, looks, strict=True):
                # A change that came meanwhile is looked at on its own.
                if name not in self._due:
                    self._look_at(name, look_at)

    def _pop(self, now: datetime) -> Iterable[str]:
        for _ in range(_AT_ONCE):
            while self._heap and self._due.get(self._heap[0][1]) != self._heap[0][0]:
                heapq.heappop(self._heap)
            if not self._heap or self._heap[0][0] > now:
                return
            _, name = heapq.heappop(self._heap)
            del self._due[name]
            yield name

    async def _look(self, name: str, now: datetime) -> datetime | None:
        """Do what is to be done about a schedule; return when to look at it again."""
        try:
            look_at = await self._make(name, now)
        except Superseded:
            # Somebody else has written: perhaps this process does not hold the gate any more.
            with suppress(QueueUnavailable):
                self._own[name] = await self._commands.state(name)
            return now + _FIRST_PAUSE
        except Exception as error:  # of one schedule, which must not hold up the others
            number = self._failures[name] = self._failures.get(name, 0) + 1
            if number == 1:
                is_told = isinstance(error, GqlJobsError)
                log.warning(
                    "a tick of the schedule %s could not be made: %s", name, error, exc_info=None if is_told else error
                )
            pause: timedelta = min(_FIRST_PAUSE * 2 ** min(number - 1, 10), _LONGEST_PAUSE)
            return now + pause
        if self._failures.pop(name, 0):
            log.info("the ticks of the schedule %s can be made again", name)
        return look_at

    async def _make(self, name: str, now: datetime) -> datetime | None:
        schedule, stored = self._schedule(name), self._state(name)
        if stored.state is not None and (schedule is None or stored.state.incarnation != schedule.incarnation):
            stored = await self._commands.retire(name, schedule)
            self._own[name] = stored
        if schedule is None:
            return await self._forget(name, stored, now)
        state = state_of(schedule, stored.state)
        state, missing = settled(state, now, self._index.job)
        state, missing = await self._without_refused(schedule, state, missing, now)
        was_full = stored.state is not None and len(stored.state.ahead) >= MOST_PENDING
        planned = plan(schedule, state, now, was_full=was_full)
        if planned.state != stored.state:
            seq = await self._commands.write_state(name, planned.state, stored.seq)
            self._own[name] = StoredState(planned.state, seq)
        for tick in (*missing, *planned.make):
            await self._commands.make(schedule, planned.state, tick)
        return planned.look_at

    async def _forget(self, name: str, stored: StoredState, now: datetime) -> datetime | None:
        """Forget what is left of a deleted schedule; return when to try that again."""
        state = stored.state
        if state is None:
            return None
        if state.started is not None and now < state.started + _FORGOTTEN_AFTER:
            return state.started + _FORGOTTEN_AFTER
        self._own[name] = StoredState(None, await self._commands.write_state(name, None, stored.seq))
        return None

    async def _without_refused(
        self, schedule: Schedule, state: ScheduleState, missing: tuple[datetime, ...], now: datetime
    ) -> tuple[ScheduleState, tuple[datetime, ...]]:
        """Return the state without the ticks whose jobs could not be made in time, and the others that are missing."""
        too_old = now - schedule.catch_up
        still = []
        for tick in missing:
            if state.due(tick) >= too_old:
                still.append(tick)
                continue
            was_made = await self._commands.was_made(state.job_id(tick))
            state = state.without(tick) if was_made else state.without(tick).skipping(SkipReason.REFUSED, tick)
        return state, tuple(still)
