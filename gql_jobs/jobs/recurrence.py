"""When a schedule is due: the moments of a cron expression in a time zone, or of an interval, in order.

cronsim says which wall-clock times an expression means; what becomes of those at a change of clocks is decided here, on
naive times, so that all expressions follow the same rules:

- A time that the clock leaves out is due at the moment at which it is put forward. An expression that means every hour
  needs that only where less than an hour is left out: else the next run is as far away as always.
- A time that there is twice is due the first time. It is due both times if the expression means an interval: every
  hour, or minutes that begin with ``*``.

Nothing here takes long, whatever the expression: a search ends after fifty years without a match.
"""

import copy
from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from itertools import islice
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError
from msgspec import Struct

from gql_jobs.jobs.errors import shortened
from gql_jobs.jobs.requests import InvalidRequest

MAX_CRON = 256
"""Characters of a cron expression, at most."""
MAX_INTERVAL = 366 * 86_400
"""Seconds between two runs by ``every_seconds``, at most."""
MAX_PREVIEWED = 100
"""Moments of one preview, at most."""
DEFAULT_PREVIEWED = 5
"""Moments that are shown where nobody says how many."""

_FIELDS = (5, 6)
_LAST_YEAR = 9_900
"""Nothing is looked for after it: the calendar ends soon."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)
_HOUR = timedelta(hours=1)
_EVERY_HOUR = frozenset(range(24))
_LOCAL_NAMES = frozenset({"localtime", "Factory", "posixrules"})
"""What some systems have among their zones, although it means another one on each machine."""


class Recurrence(Struct, frozen=True):
    """How often something is due: by a cron expression in a time zone, or every so many seconds since 1970."""

    cron: str | None = None
    every_seconds: int | None = None
    time_zone: str = "UTC"

    def after(self, moment: datetime) -> Iterator[datetime]:
        """Yield the moments after this one in UTC, each later than the one before; none if it is never due again.

        An expression or a zone that this machine does not know yields none.

        :param moment: with an offset.
        """
        moment = moment.astimezone(UTC)
        if moment.year > _LAST_YEAR:
            return iter(())
        if self.every_seconds is not None:
            return _interval(self.every_seconds, moment)
        zone = _zone(self.time_zone)
        return _cron(self.cron, zone, moment) if self.cron is not None and zone is not None else iter(())

    def first_after(self, moment: datetime) -> datetime | None:
        """Return the first moment after this one; None if it is never due again."""
        return next(self.after(moment), None)

    def preview(self, moment: datetime, first: int) -> list[datetime]:
        """Return the first moments after this one.

        :raises InvalidRequest: if ``first`` is not from 1 to 100.
        """
        return list(islice(self.after(moment), check_previewed(first)))


def check_previewed(first: int) -> int:
    """Return how many moments a preview is to have.

    :raises InvalidRequest: if that is not from 1 to 100.
    """
    if not 1 <= first <= MAX_PREVIEWED:
        raise InvalidRequest("first", f"{{}} must be between 1 and {MAX_PREVIEWED}.")
    return first


def checked_recurrence(cron: str | None, every_seconds: int | None, time_zone: str, now: datetime) -> Recurrence:
    """Return what a client asks for, with one space between the fields of the expression.

    :raises InvalidRequest: naming the argument at fault: unless just one of ``cron`` and ``every_seconds`` is given; if
        the expression cannot be read, or matches no moment after ``now``; if the interval is out of range; if there is
        no such time zone.
    """
    if (cron is None) == (every_seconds is None):
        raise InvalidRequest("cron", "Either {} or everySeconds is needed, and not both.")
    if _zone(time_zone) is None:
        raise InvalidRequest(
            "time_zone", f"There is no time zone {shortened(time_zone)!r}; name one as Europe/Berlin or UTC."
        )
    if every_seconds is not None:
        if not 1 <= every_seconds <= MAX_INTERVAL:
            raise InvalidRequest("every_seconds", f"{{}} must be between 1 and {MAX_INTERVAL}.")
        return Recurrence(every_seconds=every_seconds, time_zone=time_zone)
    assert cron is not None
    if len(cron) > MAX_CRON:
        raise InvalidRequest("cron", f"{{}} must have at most {MAX_CRON} characters.")
    recurrence = Recurrence(cron=" ".join(cron.split()), time_zone=time_zone)
    problem = _problem(recurrence.cron or "")
    if problem is not None:
        raise InvalidRequest("cron", f"{{}} is no cron expression: {problem}")
    if recurrence.first_after(now) is None:
        raise InvalidRequest("cron", "{} matches no moment of the next fifty years.")
    return recurrence


def _problem(cron: str) -> str | None:
    """Return what is wrong with an expression, in a sentence; None if it can be read."""
    number = len(cron.split())
    if number not in _FIELDS:
        return f"it has {number} fields. Five are needed, as in 0 3 * * *, or six with the seconds first."
    if not cron.isascii():
        return "it has other characters than those of ASCII."
    try:
        _parsed(cron)
    except CronSimError as error:
        return f"{str(error).removeprefix('Bad ')} cannot be what it says."
    return None


@lru_cache(maxsize=4096)
def _parsed(cron: str) -> CronSim:
    """Return what cronsim makes of an expression, on naive times.

    :raises CronSimError: if it cannot be read.
    """
    try:
        return CronSim(cron, datetime(2000, 1, 1))  # noqa: DTZ001 - wall-clock times have no offset
    except CronSimError:
        raise
    except (ValueError, TypeError, AssertionError, OverflowError) as error:
        raise CronSimError("Bad expression") from error


class _WallTimes:
    """The wall-clock times after one that an expression means, in order; ``pending`` is the next, None at their end."""

    def __init__(self, parsed: CronSim, after: datetime) -> None:
        # A copy shares the parsed fields, and parsing takes longer than finding the next match.
        self._search = copy.copy(parsed)
        self._search.dt = after.replace(microsecond=0)
        self.pending: datetime | None = next(self._search, None)

    def before(self, end: datetime) -> Iterator[datetime]:
        """Yield the times before this one, and go on behind them."""
        while self.pending is not None and self.pending < end:
            yield self.pending
            self.pending = next(self._search, None)

    def first_from(self, start: datetime) -> datetime | None:
        """Return the first time that is not before this one, without going there."""
        return _WallTimes(self._search, start - _SECOND).pending


@lru_cache(maxsize=1024)
def _zone(name: str) -> tzinfo | None:
    """Return a time zone of the IANA database; None if it has none of this name."""
    return ZoneInfo(name) if name in _zone_names() else None


@lru_cache(maxsize=1)
def _zone_names() -> frozenset[str]:
    # Names are looked up in the list, which needs no file that somebody might choose by them.
    return frozenset(available_timezones() - _LOCAL_NAMES)


def _interval(seconds: int, moment: datetime) -> Iterator[datetime]:
    number = (moment - _EPOCH) // timedelta(seconds=seconds) + 1
    while True:
        try:
            yield _EPOCH + timedelta(seconds=number * seconds)
        except OverflowError:
            return
        number += 1


class _Change(Struct, frozen=True, gc=False):
    """From ``at`` on, in UTC, a zone is ahead of UTC by ``after`` instead of ``before``."""

    at: datetime
    before: timedelta
    after: timedelta


def _cron(cron: str, zone: tzinfo, moment: datetime) -> Iterator[datetime]:
    try:
        parsed = _parsed(cron)
    except CronSimError:
        return
    means_every_hour = parsed.hours == _EVERY_HOUR
    is_interval = means_every_hour or cron.split()[-5].startswith("*")
    ahead, start = _place(zone, moment, is_interval=is_interval)
    times = _WallTimes(parsed, start)
    year = moment.year
    while times.pending is not None:
        changes = _changes_of(zone, year)
        for change in changes[bisect_right(changes, moment, key=_at) :]:
            for wall_time in times.before(_naive(change.at, change.before)):
                yield _utc(wall_time, ahead)
            ahead, resumed = change.after, _naive(change.at, change.after)
            if times.pending is not None and times.pending < resumed:
                if _leaves_out(times, change, means_every_hour=means_every_hour):
                    yield change.at
                times = _WallTimes(parsed, resumed - _SECOND)
            elif change.after < change.before and is_interval:
                times = _WallTimes(parsed, resumed - _SECOND)
        year += 1
        if times.pending is not None and times.pending.year > year + 1:
            # Nothing is due in the years between, so no change in them matters.
            year = times.pending.year - 1
            ahead = _ahead(zone, datetime(year, 1, 1, tzinfo=UTC))


def _leaves_out(times: _WallTimes, change: _Change, *, means_every_hour: bool) -> bool:
    """Return whether something is due only because a clock is put forward past it."""
    resumed = _naive(change.at, change.after)
    first = times.pending
    if means_every_hour:
        if (change.after - change.before) % _HOUR == timedelta(0):
            return False
        first = times.first_from(max(first or resumed, resumed.replace(minute=0, second=0)))
    return first is not None and first < resumed and times.first_from(resumed) != resumed


def _place(zone: tzinfo, moment: datetime, *, is_interval: bool) -> tuple[timedelta, datetime]:
    """Return how far a zone is ahead at a moment, and the wall-clock time after which to search from there."""
    ahead = _ahead(zone, moment)
    naive = _naive(moment, ahead)
    if not is_interval:
        for change in _changes_of(zone, moment.year - 1) + _changes_of(zone, moment.year):
            # What there is twice has been due the first time.
            if change.at <= moment and naive < _naive(change.at, change.before):
                return ahead, _naive(change.at, change.before) - _SECOND
    return ahead, naive


@lru_cache(maxsize=2048)
def _changes_of(zone: tzinfo, year: int) -> tuple[_Change, ...]:
    """Return the changes of a zone's offset in a year of UTC, and at its end one to the same offset.

    Two on one day that undo each other are none.
    """
    found: list[_Change] = []
    day = datetime(year, 1, 1, tzinfo=UTC)
    before = _ahead(zone, day)
    for _ in range((datetime(year + 1, 1, 1, tzinfo=UTC) - day).days):
        after = _ahead(zone, day + _DAY)
        if after != before:
            found.append(_Change(_change_between(zone, day, day + _DAY, before), before, after))
        day, before = day + _DAY, after
    return *found, _Change(day, before, before)


def _change_between(zone: tzinfo, low: datetime, high: datetime, before: timedelta) -> datetime:
    """Return the first second at which a zone has another offset than it had at ``low``."""
    while high - low > _SECOND:
        middle = low + ((high - low) // 2 // _SECOND) * _SECOND
        low, high = (middle, high) if _ahead(zone, middle) == before else (low, middle)
    return high


def _at(change: _Change) -> datetime:
    return change.at


def _ahead(zone: tzinfo, moment: datetime) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta(0)


def _naive(moment: datetime, ahead: timedelta) -> datetime:
    return moment.replace(tzinfo=None) + ahead


def _utc(naive: datetime, ahead: timedelta) -> datetime:
    return (naive - ahead).replace(tzinfo=UTC)
