"""Do jobs stand still that somebody should have moved?"""

from datetime import UTC, datetime, timedelta

from gql_jobs.doctor.consumers import LEASES
from gql_jobs.doctor.finding import Finding, several
from gql_jobs.doctor.patient import Patient
from gql_jobs.jobs.filter import JobFilter, JobOrder, OrderField
from gql_jobs.jobs.model import JobStatus

CHECK = "jobs"
OVERDUE = timedelta(minutes=1)
_PAGE = 500


async def check_jobs(patient: Patient) -> list[Finding]:
    """Schedules that should have fired, and jobs whose worker is not heard of."""
    now = datetime.now(UTC)
    return several(
        CHECK,
        "scheduled jobs should have been queued more than a minute ago",
        "An API process fires them as soon as the store has room: see that one runs, and that the store is not full.",
        await patient.reader.overdue(now - OVERDUE),
    ) + several(
        CHECK,
        "jobs are said to be run by workers that nobody hears of",
        "They are given to another worker once their lease has run out: see that workers run and serve their queues.",
        await _abandoned(patient, now - timedelta(seconds=LEASES * patient.settings.ack_wait)),
    )


async def _abandoned(patient: Patient, before: datetime) -> list[str]:
    heard = {worker.id for worker in patient.presence.workers()}
    running = JobFilter(status=(JobStatus.PROCESSING,))
    order = JobOrder(OrderField.UPDATED_AT, descending=False)
    found: list[str] = []
    after: str | None = None
    while True:
        page = await patient.reader.page(running, order, first=_PAGE, after=after, offset=0)
        found += [job.id for job in page.jobs if job.updated_at < before and job.worker_id not in heard]
        if not page.has_next:
            return found
        after = page.cursor(-1)
