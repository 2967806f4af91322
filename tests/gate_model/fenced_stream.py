"""The stream of the model: sequences, fences by their literal strings, and writes that are on their way for long.

With three copies a write that was accepted is stored later: others with the same string are refused meanwhile (10164),
and those whose fence is spelled differently are not, although both cannot be right.
"""

from collections import defaultdict, deque
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from gql_jobs.jobs.messages import Kind, Message
from gql_jobs.log import codec
from tests.stories import BEGAN


class Put(NamedTuple):
    """A write: ``over`` is the filter string of its fence, ``expected`` the sequence that has to be its last.

    ``kind`` and ``job_id`` are those of a job's message, ``body`` is any value of a steering message. ``ends``: the
    sequence of a message that is deleted with it. ``about``: what the checks have to know of it.
    """

    subject: str
    body: Any
    over: str
    expected: int
    job_id: str | None = None
    kind: Kind | None = None
    ends: int = 0
    about: Any = None


class Stored(NamedTuple):
    """The write has this sequence."""

    seq: int


class Refused(NamedTuple):
    """The fence does not hold: ``last`` is what it found, None for nothing."""

    last: "Entry | None"


BUSY = object()
"""The answer 10164: another write with that string is on its way."""


class Flight:
    """A write on its way, and what the server has answered; ``told`` is whom it is for, None if nobody waits."""

    __slots__ = ("answer", "number", "put", "told")

    def __init__(self, put: Put, number: int, told: Any) -> None:
        self.put = put
        self.number = number
        self.told = told
        self.answer: Any = None


class Entry(NamedTuple):
    """A stored message; ``number`` is that of the write, however often that was sent."""

    seq: int
    at: datetime
    put: Put
    number: int

    @property
    def message(self) -> Message:
        """The message of a job as its readers have it."""
        put = self.put
        assert put.job_id is not None
        assert put.kind is not None
        return Message(put.job_id, put.kind, self.seq, self.at, put.body)


class FencedStream:
    """A stream on one server, or on three."""

    def __init__(self, *, copies: int, on_stored: Callable[[Entry], None]) -> None:
        self.copies = copies
        self.clock = 0.0
        self.entries: list[Entry | None] = []
        self.accepted: deque[Flight] = deque()
        self._on_stored = on_stored
        self._under: defaultdict[str, list[int]] = defaultdict(list)

    @property
    def now(self) -> datetime:
        """The time of the server."""
        return BEGAN + timedelta(seconds=self.clock)

    @property
    def last_seq(self) -> int:
        """The newest sequence."""
        return len(self.entries)

    def entry(self, seq: int) -> Entry | None:
        """The message with this sequence, unless it is deleted."""
        return self.entries[seq - 1]

    def last(self, over: str) -> Entry | None:
        """The last message that a filter matches, as the leader has it."""
        seqs = self._under[over]
        return self.entries[seqs[-1] - 1] if seqs else None

    def last_seq_of(self, over: str) -> int:
        """Its sequence; 0 for none."""
        seqs = self._under[over]
        return seqs[-1] if seqs else 0

    def of_job(self, job_id: str) -> list[Entry]:
        """All messages of a job."""
        return [entry for seq in self._under[codec.job_subjects(job_id)] if (entry := self.entry(seq)) is not None]

    def arrive(self, flight: Flight) -> None:
        """The server looks at a write: it is refused, or accepted, and with one copy stored at once."""
        put = flight.put
        if any(other.put.over == put.over for other in self.accepted):
            flight.answer = BUSY
        elif self.last_seq_of(put.over) != put.expected:
            flight.answer = Refused(self.last(put.over))
        else:
            self.accepted.append(flight)
            if self.copies == 1:
                self.commit()

    def commit(self) -> None:
        """Store the write that was accepted first."""
        flight = self.accepted.popleft()
        entry = self._append(flight.put, flight.number)
        flight.answer = Stored(entry.seq)

    def _append(self, put: Put, number: int) -> Entry:
        entry = Entry(self.last_seq + 1, self.now, put, number)
        self.entries.append(entry)
        for over in _filters(put):
            self._under[over].append(entry.seq)
        if put.ends:
            self.delete(put.ends)
        self._on_stored(entry)
        return entry

    def delete(self, seq: int) -> None:
        """Delete a message, if it is there."""
        entry = self.entry(seq)
        if entry is None:
            return
        self.entries[seq - 1] = None
        for over in _filters(entry.put):
            self._under[over].remove(seq)

    def fire(self, seq: int) -> None:
        """The server queues a job whose time has come: the message of its schedule becomes a submission."""
        entry = self.entry(seq)
        assert entry is not None
        put = entry.put
        assert put.job_id is not None
        subject = codec.queued_subject(put.job_id, put.body.spec.queue, put.body.spec.priority)
        self.delete(seq)
        self._append(put._replace(subject=subject, kind=Kind.QUEUED, ends=0), 0)

    def outcome_of(self, flight: Flight) -> Stored | Refused | None:
        """What a writer finds who asks the leader; None if it has to send the write again."""
        put = flight.put
        for over in (put.subject, put.over):
            last = self.last(over)
            if last is not None and last.number == flight.number:
                return Stored(last.seq)
        if self.last_seq_of(put.over) != put.expected:
            return Refused(self.last(put.over))
        return None


def aliased(subject: str) -> str:
    """A filter with a wildcard that matches a steering message: the same fence, spelled differently."""
    return subject.removesuffix("checkpoint") + "*"


def _filters(put: Put) -> list[str]:
    if put.job_id is None:
        # Also under a wildcard, which spells the same fence differently.
        return [put.subject, aliased(put.subject)]
    found = [put.subject, codec.job_subjects(put.job_id)]
    return [*found, codec.event_subjects(put.job_id)] if codec.is_event_subject(put.subject) else found
