"""Do jobs stand still that somebody should have moved?"""

from datetime import UTC, datetime, timedelta

from gql_jobs.doctor.inspection import CHUNKS, chunks, stored_objects, subjects_of
from gql_jobs.doctor.patient import Finding, Patient, several
from gql_jobs.doctor.streams import LEASES
from gql_jobs.jobs.model import JobStatus
from gql_jobs.jobs.requests import JobFilter, JobOrder, OrderField
from gql_jobs.log import subjects

# Is anything stored that belongs to nothing any more?

_ORPHANS = "orphans"
UPLOAD = timedelta(hours=1)
"""An upload that has stored nothing for so long has died."""
_HARMLESS = "They are in nobody's way but take room; "


async def check_orphans(patient: Patient) -> list[Finding]:
    """Dead letters, progress and checkpoints without their job, and files that no job speaks of."""
    return await _dead_letters(patient) + await _remains(patient) + await _files(patient)


async def _dead_letters(patient: Patient) -> list[Finding]:
    orphans, repeated = [], []
    async for subject, number in subjects_of(patient.connection, subjects.DEAD_LETTERS, subjects.DEAD_LETTER_EVENTS):
        job = patient.index.job(subject.split(".")[1])
        if job is None or job.status is not JobStatus.DEAD_LETTER:
            orphans.append(subject)
        elif number > 1:
            repeated.append(subject)
    advice = (
        f"{_HARMLESS}an API process removes what a retry has left behind within minutes; what stays, remove with: "
        f"nats stream purge {subjects.DEAD_LETTERS} --subject SUBJECT"
    )
    return several(
        _ORPHANS, f"dead letters in {subjects.DEAD_LETTERS} are of jobs that are none", advice, orphans
    ) + several(
        _ORPHANS,
        f"dead letters in {subjects.DEAD_LETTERS} have copies of earlier submissions beside them",
        f"{advice} --keep 1",
        repeated,
    )


async def _remains(patient: Patient) -> list[Finding]:
    found = [
        subject
        for matching in (subjects.PROGRESS, subjects.CHECKPOINTS)
        async for subject, _ in subjects_of(patient.connection, subjects.STREAM, matching)
        if patient.index.job(subject.split(".")[1]) is None
    ]
    advice = f"{_HARMLESS}remove each with: nats stream purge {subjects.STREAM} --subject SUBJECT"
    return several(_ORPHANS, "progress reports and checkpoints are of jobs that are gone", advice, found)


async def _files(patient: Patient) -> list[Finding]:
    objects = await stored_objects(patient.connection)
    whole = {stored.nuid for stored in objects}
    died_before = datetime.now(UTC) - UPLOAD
    partial = [nuid async for nuid, at in chunks(patient.connection) if nuid not in whole and at < died_before]
    unknown = [stored.name for stored in objects if not stored.deleted and not _is_recorded(patient, stored.name)]
    return several(
        _ORPHANS,
        "uploads of artifacts were never finished",
        f"{_HARMLESS}remove each with: nats stream purge OBJ_artifacts --subject '{CHUNKS}NAME'",
        partial,
    ) + several(
        _ORPHANS,
        "files in the object store are artifacts of no job",
        f"{_HARMLESS}remove each with: nats object rm artifacts NAME",
        unknown,
    )


def _is_recorded(patient: Patient, name: str) -> bool:
    saved = patient.index.artifacts(name.split("/", 1)[0])
    return any(artifact.object == name for artifact in saved)


_JOBS = "jobs"
OVERDUE = timedelta(minutes=1)
_PAGE = 500


async def check_jobs(patient: Patient) -> list[Finding]:
    """Schedules that should have fired, and jobs whose worker is not heard of."""
    now = datetime.now(UTC)
    return several(
        _JOBS,
        "scheduled jobs should have been queued more than a minute ago",
        "An API process fires them as soon as the store has room: see that one runs, and that the store is not full.",
        await patient.reader.overdue(now - OVERDUE),
    ) + several(
        _JOBS,
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
