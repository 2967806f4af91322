"""Checks of jobs: those that have not gone on in time, and what is stored of jobs that do not exist."""

import asyncio
from datetime import datetime, timedelta

from gql_jobs import clock
from gql_jobs.doctor.inspection import CHUNKS, chunks, stored_objects, subjects_of
from gql_jobs.doctor.installation import SHOWN, Finding, Installation, several
from gql_jobs.doctor.streams import LEASES
from gql_jobs.jobs.model import JobStatus
from gql_jobs.jobs.requests import JobFilter, JobOrder, OrderField
from gql_jobs.jobs.viewer import EVERYTHING
from gql_jobs.log import codec
from gql_jobs.log.heartbeats import ANSWERS_WITHIN, MAX_TYPE_NAME, WorkerSeen, unserved_types

_JOBS = "jobs"
_WORKERS = "workers"
OVERDUE = timedelta(minutes=1)
"""How late a schedule must be to be reported."""
_PAGE = 500
_ORPHANS = "orphans"
UPLOAD_DEAD_AFTER = timedelta(hours=1)
"""An unfinished upload that has stored no chunk for so long is reported."""
_HARMLESS = "They are in nobody's way but take room; "


async def check_jobs(installation: Installation) -> list[Finding]:
    """Find schedules that should have fired, and jobs that run at a worker without heartbeats for three leases."""
    now = clock.now()
    return several(
        _JOBS,
        "scheduled jobs should have been queued more than a minute ago",
        "An API process fires them as soon as the store has room: see that one runs, and that the store is not full.",
        await installation.reader.overdue(now - OVERDUE),
    ) + several(
        _JOBS,
        "jobs are said to be run by workers that nobody hears of",
        "They are given to another worker once their lease has run out: see that workers run and serve their queues.",
        await _abandoned(installation, now - timedelta(seconds=LEASES * installation.settings.ack_wait)),
    )


async def _abandoned(installation: Installation, before: datetime) -> list[str]:
    alive = {worker.id for worker in installation.presence.workers()}
    running = JobFilter(status=frozenset({JobStatus.PROCESSING}))
    order = JobOrder(OrderField.UPDATED_AT, descending=False)
    found: list[str] = []
    after: str | None = None
    while True:
        page = await installation.reader.page(running, order, first=_PAGE, after=after, offset=0)
        found += [job.id for job in page.jobs if job.updated_at < before and job.worker_id not in alive]
        if not page.has_next:
            return found
        after = page.cursor(-1)


async def check_workers(installation: Installation) -> list[Finding]:
    """Find jobs that wait in queues of earlier versions which no worker serves, or for types that no worker can run."""
    waiting = await installation.reader.waiting_types(EVERYTHING)
    found = _unserved(waiting, installation)
    if found:
        # The workers were asked when the examination began; the last of them may answer only now.
        await asyncio.sleep(ANSWERS_WITHIN)
        found = _unserved(waiting, installation)
    return found


def _unserved(waiting: dict[str, dict[str, int]], installation: Installation) -> list[Finding]:
    found: list[Finding] = []
    workers = installation.presence.workers()
    for queue, types in sorted(waiting.items()):
        serving = [worker for worker in workers if queue in worker.queues]
        if not serving and queue not in installation.registry.queues:
            number = sum(types.values())
            found.append(
                Finding(
                    _WORKERS,
                    f"{number} jobs wait in the queue {queue}, which no worker serves and no job type uses any more.",
                    f"Start a worker with --queues {queue}: it runs them with the job types as they are now.",
                    number,
                    tuple(sorted(types))[:SHOWN],
                )
            )
        elif serving:
            found += [_unable(queue, name, types[name], serving) for name in unserved_types(queue, types, serving)]
    return found


def _unable(queue: str, name: str, number: int, serving: list[WorkerSeen]) -> Finding:
    reasons = {one.reason for worker in serving for one in worker.unable if one.job_type == name[:MAX_TYPE_NAME]}
    return Finding(
        _WORKERS,
        f"{number} jobs of type {name[:MAX_TYPE_NAME]!r} wait in the queue {queue}, and none of its {len(serving)} "
        "workers can run them all.",
        "Start a worker whose code knows the type and reads the payload, and has the libraries of its handler. What "
        "nobody can read is a dead letter after GQL_JOBS_UNABLE_TIMEOUT.",
        number,
        tuple(sorted(reasons))[:SHOWN],
    )


async def check_orphans(installation: Installation) -> list[Finding]:
    """Find dead letters, progress and checkpoints of jobs that do not exist, and files that no job refers to."""
    return await _dead_letters(installation) + await _remains(installation) + await _files(installation)


async def _dead_letters(installation: Installation) -> list[Finding]:
    orphans, repeated = [], []
    async for subject, number in subjects_of(
        installation.connection, codec.DEAD_LETTERS_STREAM, codec.ALL_DEAD_LETTERS
    ):
        job = installation.index.job(codec.job_of_subject(subject))
        if job is None or job.status is not JobStatus.DEAD_LETTER:
            orphans.append(subject)
        elif number > 1:
            repeated.append(subject)
    advice = (
        f"{_HARMLESS}an API process removes what a retry has left behind within minutes; what stays, remove with: "
        f"nats stream purge {codec.DEAD_LETTERS_STREAM} --subject SUBJECT"
    )
    return several(
        _ORPHANS, f"dead letters in {codec.DEAD_LETTERS_STREAM} are of jobs that are none", advice, orphans
    ) + several(
        _ORPHANS,
        f"dead letters in {codec.DEAD_LETTERS_STREAM} have copies of earlier submissions beside them",
        f"{advice} --keep 1",
        repeated,
    )


async def _remains(installation: Installation) -> list[Finding]:
    found = [
        subject
        for matching in (codec.ALL_PROGRESS, codec.ALL_CHECKPOINTS)
        async for subject, _ in subjects_of(installation.connection, codec.JOBS_STREAM, matching)
        if installation.index.job(codec.job_of_subject(subject)) is None
    ]
    advice = f"{_HARMLESS}remove each with: nats stream purge {codec.JOBS_STREAM} --subject SUBJECT"
    return several(_ORPHANS, "progress reports and checkpoints are of jobs that are gone", advice, found)


async def _files(installation: Installation) -> list[Finding]:
    objects = await stored_objects(installation.connection)
    whole = {stored.nuid for stored in objects}
    died_before = clock.now() - UPLOAD_DEAD_AFTER
    partial = [nuid async for nuid, at in chunks(installation.connection) if nuid not in whole and at < died_before]
    unknown = [stored.name for stored in objects if not stored.deleted and not _is_recorded(installation, stored.name)]
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


def _is_recorded(installation: Installation, name: str) -> bool:
    saved = installation.index.artifacts(name.split("/", 1)[0])
    return any(artifact.object == name for artifact in saved)
