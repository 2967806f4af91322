"""What has happened to jobs since this process started, as plain counters.

Every API process follows the whole stream, so each of them counts every job: their counters are to be compared, never
added. What the stream held before this process started is no news, whether the index is built anew or catches up; nor
is what was counted already.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from gql_jobs.jobs.fold import Event
from gql_jobs.jobs.messages import Kind
from gql_jobs.jobs.model import JobStatus
from gql_jobs.metrics import JOBS, Histogram

UNKNOWN = "unknown"
"""The label of job types that this process does not know: whatever other processes write, labels stay few."""
ENDED = tuple(status for status in JobStatus if status.is_terminal)
RAN = (*ENDED, JobStatus.RETRYING)
_MOST_AGAIN = 10_000

ByType = dict[tuple[str, ...], int]
Times = dict[tuple[str, ...], Histogram]


class Tally:
    """Counters by type, and by status where it matters.

    :param types: the types that have a label of their own.
    :param after: the stream's last sequence when this process started.
    """

    def __init__(self, types: Iterable[str], after: int) -> None:
        self._types = frozenset(types)
        labels = [*sorted(self._types), UNKNOWN]
        self._after = after
        self._again: OrderedDict[str, float] = OrderedDict()
        # From zero, so that the first of a kind is seen as an increase.
        self.created: ByType = {(label,): 0 for label in labels}
        self.started = self.created.copy()
        self.retries = self.created.copy()
        self.superseded = self.created.copy()
        self.finished: ByType = {(label, status.name): 0 for label in labels for status in ENDED}
        self.time_to_start: Times = {(label,): Histogram(JOBS) for label in labels}
        self.run_time: Times = {(label, status.name): Histogram(JOBS) for label in labels for status in RAN}

    def count(self, events: Sequence[Event]) -> None:
        """Count events that the index has applied, in the order of the stream."""
        if not events or events[-1].cursor.seq <= self._after:
            return
        newest = self._after
        for event in events:
            if event.cursor.seq > self._after:
                newest = event.cursor.seq
                if event.kind is not Kind.PROGRESS:
                    self._count(event)
        # Only now: one message may make two events.
        self._after = newest

    def _count(self, event: Event) -> None:
        job = event.job
        label = (job.spec.type if job.spec.type in self._types else UNKNOWN,)
        match event.kind:
            case Kind.SCHEDULED:
                self.created[label] += 1
            case Kind.QUEUED:
                self._queued(event, label)
            case Kind.STARTED:
                self._started(event, label)
            case Kind.FAILED:
                self.retries[label] += 1
                self._ran(event, label)
            case Kind.COMPLETED | Kind.DEAD_LETTER | Kind.CANCELLED:
                self.finished[(*label, job.status.name)] += 1
                self._ran(event, label)
                self._again.pop(job.id, None)

    def _queued(self, event: Event, label: tuple[str]) -> None:
        job = event.job
        if job.event_seq == 0:
            # One that was scheduled was counted as such.
            self.created[label] += job.spec.run_at is None
            return
        # Retried by hand or handed back: it waits from now on, not since it was created.
        self._again[job.id] = job.updated_at.timestamp()
        if len(self._again) > _MOST_AGAIN:
            self._again.popitem(last=False)

    def _started(self, event: Event, label: tuple[str]) -> None:
        job = event.job
        self.started[label] += 1
        self.superseded[label] += job.superseded_attempt is not None
        if job.attempt == 1 and job.started_at is not None:
            due = max(job.spec.created_at, job.spec.run_at or job.spec.created_at).timestamp()
            waited = job.started_at.timestamp() - self._again.pop(job.id, due)
            # The moment of creation is an API process's, that of the start the server's: clocks differ.
            self.time_to_start[label].observe(max(waited, 0.0))

    def _ran(self, event: Event, label: tuple[str]) -> None:
        job = event.job
        if job.started_at is not None:
            ran = (job.updated_at - job.started_at).total_seconds()
            self.run_time[(*label, job.status.name)].observe(ran)
