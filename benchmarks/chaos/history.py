"""A job's history as the design words it, written once more and independently of the fold under test.

Says of each message whether it was legal, and counts what must not be there.
"""

from dataclasses import dataclass, field
from typing import Any

from benchmarks.chaos.stream import Stored

STEERING = "gate"
"""Stands in the place of a job's id where a message steers jobs."""
TERMINAL = {"event.completed": "COMPLETED", "event.dead_letter": "DEAD_LETTER", "event.cancelled": "CANCELLED"}
EVENT_NAMES = {
    "queued": "JobQueued",
    "event.released": "JobQueued",
    "event.started": "JobStarted",
    "event.completed": "JobCompleted",
    "event.failed": "JobFailed",
    "event.dead_letter": "JobDeadLetter",
    "event.cancelled": "JobCancelled",
    "event.edited": "JobEdited",
}
"""What a subscription calls a message of that kind."""


@dataclass
class Submission:
    """One creation or retry by hand. ``attempts`` counts starts less hand-backs.

    ``held``: no message of it has been queued yet, or an edit has made that void. ``fresh``: no attempt has started
    since its newest message.
    """

    seq: int
    held: bool = False
    fresh: bool = True
    terminal: str | None = None
    attempts: int = 0
    starts: int = 0
    releases: int = 0
    superseded: int = 0


@dataclass
class History:
    """What became of one job. ``lifecycle``: sequence and name of every event that subscriptions have to bring.

    ``spec``: what was asked for, as it is stored. ``places``: from where to where it has held a place, by sequences, of
    a job that passes the gate; ``lives``: from where to where it had not ended; None stands for the end of the stream.
    """

    job_id: str
    token: str | None = None
    key: str | None = None
    tags: tuple[str, ...] = ()
    submissions: list[Submission] = field(default_factory=list)
    scheduled: bool = False
    lifecycle: list[tuple[int, str]] = field(default_factory=list)
    last_event: int = 0
    completed_attempts: list[int] = field(default_factory=list)
    """Of every result that was recorded, legal or not: a job has one at most."""
    cancelled: bool = False
    repeated: list[int] = field(default_factory=list)
    """Sequences of events after a terminal one."""
    illegal: list[int] = field(default_factory=list)
    """Sequences of other events that the fence should have refused."""
    miscounted: list[int] = field(default_factory=list)
    """Sequences of events whose attempt number is wrong."""
    spec: dict[str, Any] = field(default_factory=dict)
    places: list[tuple[int, int | None]] = field(default_factory=list)
    lives: list[tuple[int, int | None]] = field(default_factory=list)
    ends: list[tuple[int, str]] = field(default_factory=list)
    """Where it has ended, each time, and how."""
    first_start: int | None = None
    _running: bool = False
    _failed: bool = False

    @property
    def is_gated(self) -> bool:
        """Whether the gate alone queues it."""
        return self.spec.get("gate") is not None

    @property
    def exists(self) -> bool:
        """Whether what was asked for is there, held by a schedule or submitted."""
        return self.scheduled or bool(self.submissions)

    @property
    def status(self) -> str:
        """As the API calls it."""
        if not self.submissions:
            return "SCHEDULED"
        newest = self.submissions[-1]
        if newest.terminal:
            return TERMINAL[newest.terminal]
        if newest.held:
            return "WAITING"
        return "PROCESSING" if self._running else "RETRYING" if newest.attempts else "QUEUED"

    def tell(self, message: Stored) -> None:
        """Take the next message of the job."""
        if message.kind in {"queued", "scheduled"}:
            self._submitted(message)
        elif message.kind.startswith("event."):
            self._happened(message)

    def _submitted(self, message: Stored) -> None:
        newest = self.submissions[-1] if self.submissions else None
        continues = newest is not None and not self._over and (newest.held or self._failed)
        if message.body.get("eventSeq", 0) != self.last_event or (
            newest is not None and not self._over and not continues
        ):
            # A schedule that fired after it was cancelled, or twice, or a second release: the design ignores it, as its
            # start is refused.
            return
        self._asked(message.body["spec"])
        if not self.lives or self._over:
            self.lives.append((message.seq, None))
        if message.kind == "scheduled":
            self.scheduled = True
            if self.is_gated:
                self.submissions.append(Submission(message.seq, held=True))
                self.lifecycle.append((message.seq, "JobWaiting"))
            return
        if newest is not None and continues:
            newest.seq, newest.held, newest.fresh = message.seq, False, True
        else:
            self.submissions.append(Submission(message.seq))
        self._failed = False
        if self.is_gated:
            self.places.append((message.seq, None))
        self.lifecycle.append((message.seq, EVENT_NAMES["queued"]))

    def _leave(self, seq: int) -> None:
        """Give the place up that it holds."""
        if self.places and self.places[-1][1] is None:
            self.places[-1] = (self.places[-1][0], seq)

    def _asked(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.token = spec["payload"].get("token")
        self.key = spec.get("idempotencyKey")
        self.tags = tuple(spec.get("tags", ()))

    @property
    def _over(self) -> bool:
        return bool(self.submissions) and self.submissions[-1].terminal is not None

    def _happened(self, message: Stored) -> None:
        if message.kind == "event.cancelled" and not self.submissions and "spec" in message.body:
            # Cancelled before its time: the schedule itself has been deleted.
            self._asked(message.body["spec"])
            self.scheduled = True
            self.submissions.append(Submission(0))
            self.lives.append((message.seq, None))
        if message.kind == "event.completed":
            self.completed_attempts.append(message.body["attempt"])
        legal = self._legal(message)
        self.last_event = message.seq
        if not legal:
            (self.repeated if self._over else self.illegal).append(message.seq)
            return
        self.lifecycle.append((message.seq, EVENT_NAMES[message.kind]))
        newest = self.submissions[-1]
        self._count(message, newest)
        self._failed = message.kind == "event.failed"
        if self._failed or message.kind in TERMINAL or message.kind == "event.edited":
            self._leave(message.seq)
        if message.kind == "event.started" and self.first_start is None:
            self.first_start = message.seq
        if message.kind == "event.edited":
            self._asked(message.body["spec"])
            newest.held = True
        if message.kind in TERMINAL:
            newest.terminal = message.kind
            self.lives[-1] = (self.lives[-1][0], message.seq)
            self.ends.append((message.seq, TERMINAL[message.kind]))
            self.cancelled = self.cancelled or message.kind == "event.cancelled"

    def _legal(self, message: Stored) -> bool:  # noqa: PLR0911 - a line for each kind
        if not self.submissions or self._over or message.kind not in EVENT_NAMES:
            return False
        newest = self.submissions[-1]
        match message.kind:
            case "event.cancelled":
                return True
            case "event.edited":
                return not newest.starts
            case "event.started" if newest.held:
                return False
            case "event.started" if newest.fresh:
                # The second copy of a submission, which a late firing or a second release stores, may be what starts.
                return bool(message.body["submission"] >= newest.seq)
            case "event.started":
                return bool(message.body["submission"] == newest.seq)
        return self._running and bool(message.body["submission"] == newest.seq)

    def _count(self, message: Stored, newest: Submission) -> None:
        attempt = message.body.get("attempt")
        if message.kind == "event.started":
            newest.seq, newest.fresh = message.body["submission"], False
            newest.starts += 1
            newest.attempts += 1
            newest.superseded += self._running
            if self._running != (message.body.get("supersedes") is not None):
                self.miscounted.append(message.seq)
        self._running = message.kind == "event.started"
        if attempt is not None and attempt != newest.attempts:
            self.miscounted.append(message.seq)
        if message.kind == "event.released":
            newest.attempts -= 1
            newest.releases += 1


def histories(messages: list[Stored]) -> dict[str, History]:
    """The jobs of the stream."""
    jobs: dict[str, History] = {}
    for message in messages:
        if message.job_id == STEERING:
            continue
        jobs.setdefault(message.job_id, History(message.job_id)).tell(message)
    return jobs
