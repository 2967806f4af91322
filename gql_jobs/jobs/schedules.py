"""Schedules as values: what is to be done and when, the ticks of it, and what has been made of them so far.

A tick is a moment at which a schedule is due. The id of its job follows from the schedule as it is now and from the
tick, so that it is one job, however many processes make it. ``plan`` says what is to be made at a moment; it is pure.
"""

import hashlib
import re
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import islice
from typing import NamedTuple

from msgspec import Raw, Struct, field
from msgspec.structs import replace

from gql_jobs.jobs.claim import MISSED
from gql_jobs.jobs.model import Job, JobPriority, JobStatus, Moment, OverlapPolicy
from gql_jobs.jobs.recurrence import Recurrence, check_previewed
from gql_jobs.jobs.requests import InvalidRequest

SCHEDULE = "schedule"
"""What the steering messages are called that hold schedules."""
SCHEDULE_STATE = "schedule-state"
"""What those are called that say what has been made of them; only the holder of the gate and commands write these."""
MAX_CATCH_UP = 7 * 86_400
"""Seconds: as long as an expired job is known, so that no tick within it can be made a second time."""
MAX_SPREAD = 86_400
"""Seconds by which the ticks of a schedule may be late at most, to spread those of many."""

AHEAD = timedelta(seconds=10)
"""The ticks of so long are made ahead; of those beyond, the next one alone."""
REFILL = timedelta(seconds=5)
"""How long before the first tick that is not made yet it is made, where several are made at a time."""
FARTHEST_AHEAD = timedelta(days=1)
"""How long before its time the next tick is made at the earliest: until then it follows what its type says by then."""
_IN_TIME = timedelta(seconds=2)
"""A tick that is late by less than that is in time, and made whatever ``catch_up_seconds`` says."""
BETWEEN_LOOKS = timedelta(seconds=1)
"""Between two looks at a schedule, at least."""
MOST_AT_ONCE = 16
"""Ticks that are made together, at most."""
MOST_MISSED_COUNTED = 5_000
"""Ticks of one outage that are counted as skipped, at most: to count takes as long as to find them."""
MOST_PENDING = 128
"""Ticks whose outcome is waited for, at most; no others are made meanwhile."""
HELD = frozenset({JobStatus.SCHEDULED, JobStatus.WAITING})
"""Where a job stands that has not been queued yet."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class SkipReason(StrEnum):
    """Why a tick had no run."""

    OVERLAP = "overlap"
    OUTAGE = "outage"
    REFUSED = "refused"


class Skips(Struct, frozen=True, rename="camel"):
    """How many ticks had no run for one reason, and when the last of them was due."""

    count: int
    last_at: Moment


class Schedule(Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """What is done again and again. ``incarnation`` is another UUID whenever anything of it is changed.

    ``payload`` is what the client has sent, as JSON, or what a codec has made of it (``encoded``); ``secrets`` are the
    places in it that clients are not shown; ``payload_hash`` tells whether another one is the same. Only ticks that are
    due after ``since`` count. ``source``: the module whose code defines it, None if clients do; ``coded``: a digest of
    what that said last.
    """

    name: str
    incarnation: str
    since: Moment
    type: str
    payload: Raw
    payload_hash: str
    cron: str | None = None
    every_seconds: int | None = None
    time_zone: str = "UTC"
    priority: JobPriority = JobPriority.NORMAL
    tags: tuple[str, ...] = ()
    overlap: OverlapPolicy = OverlapPolicy.SKIP
    catch_up_seconds: int = 60
    spread_seconds: int = 0
    paused: bool = False
    created_at: Moment
    created_by: str | None = None
    secrets: tuple[str, ...] = ()
    encoded: bool = False
    source: str | None = None
    coded: str | None = None
    version: int = field(name="v", default=1)

    @property
    def recurrence(self) -> Recurrence:
        """How often it is due."""
        return Recurrence(self.cron, self.every_seconds, self.time_zone)

    @property
    def offset(self) -> timedelta:
        """How much later than its ticks it is due: the same for all of them, and another one for another name."""
        digest = hashlib.sha256(self.name.encode()).digest()
        return timedelta(seconds=int.from_bytes(digest[:8], "big") % (self.spread_seconds + 1))

    @property
    def catch_up(self) -> timedelta:
        """How late a tick is still made."""
        return max(timedelta(seconds=self.catch_up_seconds), _IN_TIME)

    def ticks_after(self, tick: datetime) -> Iterator[datetime]:
        """Yield the ticks after one of them, or after any moment, however late they are due."""
        return self.recurrence.after(tick)

    def next_runs(self, now: datetime, first: int) -> list[datetime]:
        """Return when it is due next; nothing while it is paused.

        :raises InvalidRequest: if ``first`` is not from 1 to 100.
        """
        check_previewed(first)
        if self.paused:
            return []
        after = max(now, self.since) - self.offset
        return [tick + self.offset for tick in islice(self.ticks_after(after), first)]

    def asks_for_the_same(self, other: "Schedule") -> bool:
        """Return whether two schedules are for the same work at the same times, whoever asked for it and when."""
        mine = replace(self, **{name: getattr(other, name) for name in _OF_ONE_WRITING})
        return mine == other


_OF_ONE_WRITING = (
    *("incarnation", "since", "payload", "payload_hash", "created_at", "created_by", "secrets", "encoded"),
    *("source", "coded"),
)
"""What is another in each writing of the same: payloads are compared by their hashes, which a codec may hide."""


class ScheduleState(Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """What has been made of a schedule.

    All ticks of the ``incarnation`` up to ``until`` have been dealt with. ``ahead``: those of them whose jobs are made
    and whose outcome is not known yet; they are due ``offset`` seconds later. ``last_job``: of the latest tick that
    came to run. ``started``: when the latest tick of an earlier incarnation was due whose job could not be cancelled
    any more. It is kept when the schedule is changed, as ``skips`` and ``last_job`` are.
    """

    incarnation: str
    until: Moment
    ahead: tuple[Moment, ...] = ()
    offset: int = 0
    skips: dict[SkipReason, Skips] = {}
    last_job: str | None = None
    started: Moment | None = None
    version: int = field(name="v", default=1)

    def job_id(self, tick: datetime) -> str:
        """Return the id of the job of a tick."""
        return job_id_of_tick(self.incarnation, tick)

    def due(self, tick: datetime) -> datetime:
        """Return when the job of a tick is due."""
        return tick + timedelta(seconds=self.offset)

    def skipping(self, reason: SkipReason, tick: datetime, count: int = 1) -> "ScheduleState":
        """Return the state with further ticks skipped, of which ``tick`` was the last."""
        if not count:
            return self
        known = self.skips.get(reason)
        so_far = known.count if known is not None else 0
        return replace(self, skips={**self.skips, reason: Skips(so_far + count, self.due(tick))})

    def without(self, tick: datetime) -> "ScheduleState":
        """Return the state with a tick settled."""
        return replace(self, ahead=tuple(one for one in self.ahead if one != tick))

    @property
    def skipped(self) -> int:
        """How many ticks had no run."""
        return sum(skips.count for skips in self.skips.values())


def job_id_of_tick(incarnation: str, tick: datetime) -> str:
    """Return the id of the job of a tick: the same one in every process."""
    return str(uuid.uuid5(uuid.UUID(incarnation), str(round(tick.timestamp()))))


def state_of(schedule: Schedule, known: ScheduleState | None, started: datetime | None = None) -> ScheduleState:
    """Return the state with which a schedule begins, or goes on.

    :param known: what was known of it, or of what had its name before.
    :param started: when the latest tick of another incarnation was due whose job could not be cancelled any more: what
        is due by then has been done.
    """
    if known is not None and known.incarnation == schedule.incarnation:
        return known
    done = [moment for moment in (started, known.started if known is not None else None) if moment is not None]
    since = max([schedule.since, *done])
    return ScheduleState(
        incarnation=schedule.incarnation,
        until=since - schedule.offset,
        offset=round(schedule.offset.total_seconds()),
        skips=known.skips if known is not None else {},
        last_job=known.last_job if known is not None else None,
        started=max(done, default=None),
    )


class TickPlan(NamedTuple):
    """What is to be done now: ``make`` are the ticks whose jobs are to be made, ``state`` says so already.

    ``look_at``: when there is something to do again; None if never.
    """

    state: ScheduleState
    make: tuple[datetime, ...]
    look_at: datetime | None


def plan(schedule: Schedule, state: ScheduleState, now: datetime, *, was_full: bool = False) -> TickPlan:
    """Return which ticks of a schedule are to be made at a moment, and which were missed.

    :param state: as ``state_of`` returns it.
    :param was_full: whether as many of its jobs waited at the last look as may, so that no further one was made.
    """
    if schedule.paused:
        return TickPlan(state, (), None)
    offset, too_old = schedule.offset, now - schedule.catch_up
    ticks = schedule.ticks_after(state.until)
    tick = next(ticks, None)
    if tick is not None and tick + offset < too_old:
        state = _without_old(schedule, state, too_old, SkipReason.OVERLAP if was_full else SkipReason.OUTAGE)
        ticks = schedule.ticks_after(state.until)
        tick = next(ticks, None)
    make: list[datetime] = []
    has_next = any(state.due(one) > now for one in state.ahead)
    room = min(MOST_AT_ONCE, MOST_PENDING - len(state.ahead))
    while tick is not None and len(make) < room:
        due = tick + offset
        if due > now + AHEAD and (has_next or due > now + FARTHEST_AHEAD):
            break
        make.append(tick)
        has_next = has_next or due > now
        tick = next(ticks, None)
    if make:
        state = replace(state, until=make[-1], ahead=(*state.ahead, *make))
    look_at = _next_look(state, None if tick is None else tick + offset, now)
    return TickPlan(state, tuple(make), None if look_at is None else max(look_at, now + BETWEEN_LOOKS))


def _without_old(schedule: Schedule, state: ScheduleState, too_old: datetime, why: SkipReason) -> ScheduleState:
    """Return the state after the ticks that are too old to be made up for."""
    missed, last = 0, state.until
    for tick in schedule.ticks_after(state.until):
        if tick + schedule.offset >= too_old:
            break
        missed, last = missed + 1, tick
        if missed == MOST_MISSED_COUNTED:
            last = max(last, too_old - schedule.offset - timedelta(seconds=1))
            break
    return replace(state, until=last).skipping(why, last, missed)


def _next_look(state: ScheduleState, following: datetime | None, now: datetime) -> datetime | None:
    """Return when the tick that is due at ``following`` is to be made, or what has become of others is to be seen."""
    last = max((state.due(tick) for tick in state.ahead), default=None)
    if last is None:
        return following - FARTHEST_AHEAD if following is not None else None
    if last > now:
        return last if following is None else min(last, following - REFILL)
    # They are due, and it is not known yet what has become of them.
    return now + REFILL if following is None else min(now + REFILL, following - FARTHEST_AHEAD)


class Settled(NamedTuple):
    """A state after a look at its jobs. ``missing``: the ticks ahead whose job is not there."""

    state: ScheduleState
    missing: tuple[datetime, ...]


def settled(state: ScheduleState, now: datetime, job_of: Callable[[str], Job | None]) -> Settled:
    """Return what has become of the ticks that were made: those that have come to run, or were skipped, are settled.

    :param job_of: returns the job with an id; None if there is none.
    """
    missing, ahead = list[datetime](), list[datetime]()
    for tick in state.ahead:
        job_id = state.job_id(tick)
        job = job_of(job_id)
        if job is None:
            missing.append(tick)
        if job is None or state.due(tick) > now or job.status in HELD or job.is_missed:
            ahead.append(tick)
        elif job.status is not JobStatus.CANCELLED or job.attempt:
            state = replace(state, last_job=job_id)
        elif job.cancel_reason is not None:
            is_missed = job.cancel_reason == MISSED
            state = state.skipping(SkipReason.OUTAGE if is_missed else SkipReason.OVERLAP, tick)
    if len(ahead) < len(state.ahead):
        state = replace(state, ahead=tuple(ahead))
    return Settled(state, tuple(missing))


# What clients ask for, within its limits.


def check_schedule_name(name: str) -> str:
    """Return the name of a schedule.

    :raises InvalidRequest: if it has other characters than letters, digits, _ and -, or more than 64.
    """
    if not _NAME.fullmatch(name):
        raise InvalidRequest("name", "{} must have 1 to 64 letters of ASCII, digits, _ or -.")
    return name


def check_seconds(field: str, seconds: int, most: int) -> int:
    """Return a number of seconds.

    :raises InvalidRequest: if it is not from 0 to ``most``.
    """
    if not 0 <= seconds <= most:
        raise InvalidRequest(field, f"{{}} must be between 0 and {most}.")
    return seconds
