"""Spans of calendar days: the range of a report, the one before it, and the months it is cut into."""

from collections.abc import Iterator
from datetime import date, timedelta
from typing import NamedTuple

_DAY = timedelta(days=1)


class Period(NamedTuple):
    """Both days included."""

    start: date
    end: date

    def __str__(self) -> str:
        return f"{self.start} to {self.end}"

    @property
    def days(self) -> int:
        """How many days it has."""
        return (self.end - self.start).days + 1

    @property
    def after(self) -> date:
        """The day after the last one."""
        return self.end + _DAY

    def before(self) -> "Period":
        """The period of as many days that ends the day before this one begins."""
        return Period(self.start - _DAY * self.days, self.start - _DAY)

    def months(self) -> Iterator["Period"]:
        """The calendar months it touches, the first and the last one cut to its days."""
        start = self.start
        while start <= self.end:
            following = date(start.year + start.month // 12, start.month % 12 + 1, 1)
            yield Period(start, min(following - _DAY, self.end))
            start = following

    def meets(self, other: "Period") -> bool:
        """Whether they have a day in common."""
        return self.start <= other.end and other.start <= self.end
