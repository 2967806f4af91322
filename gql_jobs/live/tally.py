"""What has happened to jobs since this process started, as counters and histograms for metrics.

Every API process follows the whole stream, so each of them counts every job: their counters may be compared, but never
added. Events that the stream held before this process started are not counted, also where the index is built anew; none
is counted twice.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from gql_jobs.jobs.fold import Event
from gql_jobs.jobs.messages import Kind
from gql_jobs.jobs.model import JobStatus
from gql_jobs.metrics import JOB_SECONDS, Histogram

UNKNOWN = "unknown"
"""The label of all job types that this process does not know, so that the number of labels is limited."""
TERMINAL_STATUSES = tuple(status for status in JobStatus if status.is_terminal)
_AFTER_ATTEMPT = (*TERMINAL_STATUSES, JobStatus.RETRYING)
"""The statuses that an attempt can leave a job in."""
_MAX_REQUEUED = 10_000
"""Jobs whose second wait in a queue is timed at once, at most."""

ByLabels = dict[tuple[str, ...], int]
HistogramsByLabels = dict[tuple[str, ...], Histogram]


class Tally:
    """Counters by type, and by status where it matters.

    :param types: the types that have a label of their own.
    :param after: the stream's last sequence when this process started.
    """

    def __init__(self, types: Iterable[str], after: int) -> None:
        self._types = frozenset(types)
        labels = [*sorted(self._types), UNKNOWN]
        self._after = after
        self._requeued_at: OrderedDict[str, float] = OrderedDict()
        """When jobs were queued again, in seconds since 1970, by job id."""
        # Every label begins at zero, so that Prometheus sees the first event of a kind as an increase.
        self.created: ByLabels = {(label,): 0 for label in labels}
        self.started = self.created.copy()
        self.retries = self.created.copy()
        self.superseded = self.created.copy()
        self.finished: ByLabels = {(label, status.name): 0 for label in labels for status in TERMINAL_STATUSES}
        self.time_to_start: HistogramsByLabels = {(label,): Histogram(JOB_SECONDS) for label in labels}
        self.run_time: HistogramsByLabels = {
            (label, status.name): Histogram(JOB_SECONDS) for label in labels for status in _AFTER_ATTEMPT
        }

    def count(self, events: Sequence[Event]) -> None:
        """Count events that the index has applied, in the order of the stream.

        Those that are not newer than the last one counted are ignored.
        """
        if not events or events[-1].cursor.seq <= self._after:
            return
        newest = self._after
        for event in events:
            if event.cursor.seq > self._after:
                newest = event.cursor.seq
                if event.kind is not Kind.PROGRESS:
                    self._count(event)
        # Only after all of them: one message may make two events.
        self._after = newest

    def _count(self, event: Event) -> None:
        job = event.job
        label = (job.spec.type if job.spec.type in self._types else UNKNOWN,)
        match event.kind:
            case Kind.SCHEDULED | Kind.WAITING:
                self.created[label] += job.event_seq == 0
            case Kind.QUEUED:
                self._queued(event, label)
            case Kind.STARTED:
                self._started(event, label)
            case Kind.FAILED:
                self.retries[label] += 1
                self._attempt_ended(event, label)
            case Kind.COMPLETED | Kind.DEAD_LETTER | Kind.CANCELLED:
                self.finished[(*label, job.status.name)] += 1
                self._attempt_ended(event, label)
                self._requeued_at.pop(job.id, None)

    def _queued(self, event: Event, label: tuple[str]) -> None:
        job = event.job
        if job.event_seq == 0:
            # A scheduled job was counted at its event SCHEDULED, one that the gate releases at WAITING.
            self.created[label] += job.spec.run_at is None and job.spec.gate is None
            if job.spec.gate is None:
                return
        # Retried by hand, or released by a worker or the gate: its wait begins now, not at its creation.
        self._requeued_at[job.id] = job.updated_at.timestamp()
        if len(self._requeued_at) > _MAX_REQUEUED:
            self._requeued_at.popitem(last=False)

    def _started(self, event: Event, label: tuple[str]) -> None:
        job = event.job
        self.started[label] += 1
        self.superseded[label] += job.superseded_attempt is not None
        if job.attempt == 1 and job.started_at is not None:
            due = max(job.spec.created_at, job.run_at or job.spec.created_at).timestamp()
            waited = job.started_at.timestamp() - self._requeued_at.pop(job.id, due)
            # The creation is timed by an API process's clock, the start by the server's: they may differ.
            self.time_to_start[label].observe(max(waited, 0.0))

    def _attempt_ended(self, event: Event, label: tuple[str]) -> None:
        job = event.job
        if job.started_at is not None:
            ran = (job.updated_at - job.started_at).total_seconds()
            self.run_time[(*label, job.status.name)].observe(ran)
