"""What a worker process has done and met since its start, as plain numbers for metrics and tests."""

from collections import Counter, defaultdict


class Counts:
    """Only ever added to, and within the event loop's thread."""

    def __init__(self) -> None:
        self.outcomes: Counter[tuple[str, str]] = Counter()
        """Job type and what an attempt came to: started, completed, failed, dead-letter, released, cancelled."""
        self.seconds: defaultdict[str, float] = defaultdict(float)
        """By job type: how long its attempts ran."""
        self.superseded = 0
        """Attempts that another worker had taken over: their outcomes were refused."""
        self.late = 0
        """Outcomes that were refused because the job had ended, by a cancellation for example."""
        self.adopted = 0
        """Redeliveries of what ran here already, because its lease had run out."""
        self.passed_on = 0
        """Redeliveries left to the worker that still ran the job."""
        self.unreadable = 0
        """Submissions that no version can read, set aside."""
        self.newer = 0
        """Submissions left to workers of a newer version."""
        self.unable = 0
        """Deliveries left to workers that have what their handler needs."""
        self.stalls = 0
        """Times that the event loop stood still for so long that leases were in danger."""

    def ran(self, job_type: str, outcome: str, seconds: float) -> None:
        """An attempt has ended."""
        self.outcomes[job_type, outcome] += 1
        self.seconds[job_type] += seconds
