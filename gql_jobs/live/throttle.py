"""Progress for those who want few reports of it: the newest of each job, so many of them in a second.

What else happens to a job never waits, and is never told after a report that is older: that one is dropped.
"""

from collections.abc import Callable

from gql_jobs.jobs.fold import Event
from gql_jobs.jobs.model import Cursor

HELD_JOBS = 512
"""Jobs whose progress waits for a subscriber at most; beyond that the report that has waited longest is dropped."""
HELD_REPORT_BYTES = 1 << 20
"""Bytes that these jobs may take in memory, but for a single one."""

_FIRST_NTH, _LAST_NTH = 500, 998
"""Numbers of the positions at which reports are told that had to wait; no message makes so many events."""


class Throttle:
    """What waits of the progress of one subscriber, and when the next report may go out.

    Times are those of the event loop's clock, in seconds.
    """

    __slots__ = ("_due", "_forgotten", "_held", "_held_bytes", "_interval", "_last", "told")

    def __init__(self, per_second: float, told: Cursor, forgotten: Callable[[Event], None]) -> None:
        """:param told: the position up to which the subscriber has been told already.

        :param forgotten: called with each report that waits no more.
        """
        self._interval = 1 / per_second
        self._forgotten = forgotten
        self._last: Event | None = None
        """The report that was told last, if nothing else was told after it."""
        self._due = float("-inf")
        self._held: dict[str, Event] = {}
        """By job, the newest report; the job that has waited longest first."""
        self._held_bytes = 0
        self.told = told
        """The position of the last event that was told. Positions rise from one event to the next."""

    @property
    def due(self) -> float | None:
        """When the next report that waits may be told; None if none waits."""
        return self._due if self._held else None

    def hold(self, event: Event) -> None:
        """Have a report wait, in the place of an older one of its job."""
        job_id = event.job.id
        was = self._held.get(job_id)
        self._held[job_id] = event
        self._held_bytes += event.job.weight
        if was is not None:
            self._held_bytes -= was.job.weight
            self._forgotten(was)
        while len(self._held) > 1 and (len(self._held) > HELD_JOBS or self._held_bytes > HELD_REPORT_BYTES):
            self._forget(next(held for held in self._held if held != job_id))

    def pass_on(self, event: Event) -> None:
        """Note that an event other than progress is told now: a report of its job that waits is out of date."""
        self.outdate(event.job.id)
        self._last = None
        self.told = max(self.told, event.cursor)

    def outdate(self, job_id: str) -> None:
        """Drop the report of a job that waits, if there is one."""
        if job_id in self._held:
            self._forget(job_id)

    def take(self) -> Event | None:
        """Return the report that has waited longest, which waits no more.

        Its position is behind all that was told, so that whoever resumes from it is told nothing twice. None if there
        is no such position, or if none waits.
        """
        if not self._held:
            return None
        event = self._held[next(iter(self._held))]
        self._forget(event.job.id)
        if event.cursor > self.told:
            return event
        seq, nth = self.told
        position = Cursor(seq, max(nth + 1, _FIRST_NTH))
        return Event(event.kind, position, event.job) if position.nth <= _LAST_NTH else None

    def count(self, event: Event, now: float) -> None:
        """Note that a report is told now."""
        self._last = event
        self.told = max(self.told, event.cursor)
        self._due = now + self._interval

    def step_back(self) -> bool:
        """Have the last report wait again, to be told at once; return whether what was told last was one."""
        if self._last is None:
            return False
        if self._last.job.id not in self._held:
            self.hold(self._last)
        self._last = None
        self._due = float("-inf")
        return True

    def clear(self) -> None:
        """Drop what waits."""
        for job_id in list(self._held):
            self._forget(job_id)

    def _forget(self, job_id: str) -> None:
        event = self._held.pop(job_id)
        self._held_bytes -= event.job.weight
        self._forgotten(event)
