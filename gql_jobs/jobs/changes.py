"""What a client changes about a job that has not started, within the limits of a creation.

Pure values: ``JobChanges`` are checked when they are made, and applied to the job's spec when the job is known. What a
repeated creation is compared by stays that of the creation, so that it still finds its job. A concurrency key that the
job's type makes of the payload is that of the payload which the job has: by another one it shares limits with others.
"""

from datetime import datetime

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType
from msgspec.structs import replace
from pydantic_core import from_json

from gql_jobs.jobs.model import Job, JobPriority, JobStatus, Spec
from gql_jobs.jobs.payload_codec import CodecFailure, StoredPart, StoredPayloads
from gql_jobs.jobs.payloads import AcceptedPayload, ModelMismatch, accept
from gql_jobs.jobs.registry import JobType
from gql_jobs.jobs.requests import InvalidRequest, checked_run_at, checked_tags, key_of_type

_NOT_STARTED = {JobStatus.SCHEDULED, JobStatus.WAITING, JobStatus.QUEUED}


class JobChanges(Struct, frozen=True):
    """What is to be another about a job; make it with ``of``.

    ``payload`` with its ``job_type``, ``priority`` and ``tags`` stay as they are where they are None.
    ``run_at`` stays where it is UNSET; None stands for at once.
    """

    payload: AcceptedPayload | None = None
    job_type: JobType | None = None
    run_at: datetime | UnsetType | None = UNSET
    priority: JobPriority | None = None
    tags: tuple[str, ...] | None = None

    @classmethod
    def of(
        cls,
        *,
        payload: AcceptedPayload | None = None,
        job_type: JobType | None = None,
        run_at: datetime | UnsetType | None = UNSET,
        priority: JobPriority | None = None,
        tags: tuple[str, ...] | None = None,
    ) -> "JobChanges":
        """Return changes that are within the limits of a creation.

        :param job_type: whose payload it is; to be given with one.
        :param run_at: UTC where it has no offset.
        :raises InvalidRequest: for a value outside its limits.
        """
        return cls(
            payload=payload,
            job_type=job_type,
            run_at=checked_run_at(run_at) if isinstance(run_at, datetime) else run_at,
            priority=priority,
            tags=checked_tags(tags) if tags is not None else None,
        )

    def applied(self, job: Job, stored: StoredPayloads, now: datetime) -> tuple[Spec, tuple[str, ...]]:
        """Return what is asked for with these changes, and the names, as clients know them, of what is another then.

        :param stored: how payloads are stored.
        :param now: the time by which a moment has passed, and then stands for at once.
        :raises InvalidRequest: if the payload is of another type than the job, or its type makes no concurrency key of
            it, or the job would run later than it may start.
        :raises CodecFailure: if the codec fails to encode the payload.
        """
        spec = replace(job.spec, run_at=None) if job.retried else job.spec
        if job.status is JobStatus.QUEUED:
            spec = spec.never_too_late
        changed = []
        if not isinstance(self.run_at, UnsetType):
            # What is due already runs at once, whenever it was to run.
            run_at, present = _ahead(self.run_at, now), _ahead(spec.earliest, now)
            if run_at != present:
                spec, changed = _running_at(spec, run_at), ["runAt"]
        if self.priority is not None and self.priority is not spec.priority:
            spec = replace(spec, priority=self.priority)
            changed.append("priority")
        if self.payload is not None:
            self._check_type(spec)
            if not _is_payload(self.payload, job, stored):
                key = self._concurrency_key(job, self.payload, stored)
                spec = replace(_with_payload(job, spec, self.payload, stored), concurrency_key=key)
                changed.append("payload")
        if self.tags is not None and self.tags != spec.tags:
            spec = replace(spec, tags=self.tags)
            changed.append("tags")
        return spec, tuple(changed)

    def _check_type(self, spec: Spec) -> None:
        if self.job_type is not None and self.job_type.name != spec.type:
            raise InvalidRequest("payload", f"{{}} is of type {self.job_type.name}, and the job of type {spec.type}.")

    def _concurrency_key(self, job: Job, payload: AcceptedPayload, stored: StoredPayloads) -> str | None:
        """Return the concurrency key of the job once it has this payload: one that its creation gave stays."""
        present, job_type = job.spec.concurrency_key, self.job_type
        if job_type is None or job_type.concurrency_key is None:
            return present
        try:
            before = accept(job_type.payload, from_json(bytes(stored.payload(job.id, job.spec))))
            is_of_type = key_of_type(job_type, before) == present
        except (CodecFailure, ModelMismatch, InvalidRequest, ValueError, RecursionError):
            # What the type made of the payload before is not known here.
            return present
        return key_of_type(job_type, payload) if is_of_type else present


def _with_payload(job: Job, spec: Spec, payload: AcceptedPayload, stored: StoredPayloads) -> Spec:
    # The hashes are still those of the creation.
    made = stored.encode(job.id, spec, StoredPart.PAYLOAD, payload.stored)
    facts = {"secrets": payload.secrets, "encoded": stored.encodes, "checkpoints_after": job.event_seq}
    return replace(spec, payload=Raw(made), **facts)


def is_changeable(job: Job) -> bool:
    """Return whether no attempt of the job's newest submission has begun, not even one that was handed back."""
    if job.status not in _NOT_STARTED or job.attempt > 0:
        return False
    return job.status is not JobStatus.QUEUED or job.event_seq < job.submission_seq


def _running_at(spec: Spec, run_at: datetime | None) -> Spec:
    if run_at is not None and spec.start_before is not None and run_at >= spec.start_before:
        raise InvalidRequest("run_at", f"{{}} must be before {spec.start_before:%Y-%m-%dT%H:%M:%SZ} (startBefore).")
    # Whoever moves the job of a schedule wants it to run then, however late that is.
    spec = spec.never_too_late
    if spec.gate is None:
        return replace(spec, run_at=run_at)
    return replace(spec, gate=replace(spec.gate, run_at=run_at))


def _ahead(moment: datetime | None, now: datetime) -> datetime | None:
    return moment if moment is not None and moment > now else None


def _is_payload(payload: AcceptedPayload, job: Job, stored: StoredPayloads) -> bool:
    """Return whether a payload is the one that the job has: what defaults would draw anew is another one."""
    try:
        present = stored.payload(job.id, job.spec)
        return _canonical(present) == _canonical(payload.stored)
    except (CodecFailure, ValueError, RecursionError):
        return False


def _canonical(stored: bytes | Raw) -> bytes:
    return msgspec.json.encode(msgspec.json.decode(stored), order="sorted")
