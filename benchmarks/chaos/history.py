"""A job's history as the design words it, written once more and independently of the fold under test.

Says of each message whether it was legal, and counts what must not be there.
"""

from dataclasses import dataclass, field
from typing import Any

from benchmarks.chaos.stream import Stored

TERMINAL = {"event.completed": "COMPLETED", "event.dead_letter": "DEAD_LETTER", "event.cancelled": "CANCELLED"}
EVENT_NAMES = {
    "queued": "JobQueued",
    "event.released": "JobQueued",
    "event.started": "JobStarted",
    "event.completed": "JobCompleted",
    "event.failed": "JobFailed",
    "event.dead_letter": "JobDeadLetter",
    "event.cancelled": "JobCancelled",
}
"""What a subscription calls a message of that kind."""


@dataclass
class Submission:
    """One creation or retry by hand. ``attempts`` counts starts less hand-backs."""

    seq: int
    terminal: str | None = None
    attempts: int = 0
    starts: int = 0
    releases: int = 0
    superseded: int = 0


@dataclass
class History:
    """What became of one job. ``lifecycle``: sequence and name of every event that subscriptions have to bring."""

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
    _running: bool = False

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
        return "PROCESSING" if self._running else "RETRYING" if newest.attempts else "QUEUED"

    def tell(self, message: Stored) -> None:
        """Take the next message of the job."""
        if message.kind in {"queued", "scheduled"}:
            self._submitted(message)
        elif message.kind.startswith("event."):
            self._happened(message)

    def _submitted(self, message: Stored) -> None:
        if message.body.get("eventSeq", 0) != self.last_event or (self.submissions and not self._over):
            # A schedule that fired after it was cancelled, or twice: the design ignores it, as its start is refused.
            return
        self._asked(message.body["spec"])
        if message.kind == "scheduled":
            self.scheduled = True
            return
        self.submissions.append(Submission(message.seq))
        self.lifecycle.append((message.seq, EVENT_NAMES["queued"]))

    def _asked(self, spec: dict[str, Any]) -> None:
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
        if message.kind in TERMINAL:
            newest.terminal = message.kind
            self.cancelled = self.cancelled or message.kind == "event.cancelled"

    def _legal(self, message: Stored) -> bool:
        if not self.submissions or self._over or message.kind not in EVENT_NAMES:
            return False
        newest = self.submissions[-1]
        match message.kind:
            case "event.cancelled":
                return True
            case "event.started" if not newest.starts:
                # The second copy of a submission, which a late firing stores, may be the one that starts.
                return bool(message.body["submission"] >= newest.seq)
            case "event.started":
                return bool(message.body["submission"] == newest.seq)
        return self._running and bool(message.body["submission"] == newest.seq)

    def _count(self, message: Stored, newest: Submission) -> None:
        attempt = message.body.get("attempt")
        if message.kind == "event.started":
            newest.seq = message.body["submission"]
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
        jobs.setdefault(message.job_id, History(message.job_id)).tell(message)
    return jobs
