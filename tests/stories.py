"""Builders of tests: specs, requests, and the messages that a job's history is told in."""

from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Raw
from pydantic import BaseModel

from gql_jobs.jobs.fold import fold
from gql_jobs.jobs.messages import (
    AttemptBody,
    Body,
    Cancelled,
    Completed,
    Continued,
    DeadLetter,
    Edited,
    Expired,
    Failed,
    Kind,
    Message,
    Noted,
    Progress,
    Receipt,
    Released,
    Saved,
    Started,
    Submission,
)
from gql_jobs.jobs.model import Artifact, Gate, Job, JobError, JobPriority, Spec
from gql_jobs.jobs.payloads import AcceptedPayload, accept
from gql_jobs.jobs.registry import load_job_types
from gql_jobs.jobs.requests import JobRequest
from tests.job_types.probe_jobs import ProbePayload
from tests.running import JOB_TYPES

JOB = "018f3c6e-7d3a-7c52-9d0a-3f5a8c1d7e42"
OTHER = "018f3c6e-7d3a-7c52-9d0a-3f5a8c1d7e43"
_TYPES = {job_type.name: job_type for job_type in load_job_types(JOB_TYPES)}
PROBE = _TYPES["probe"]
BEGAN = datetime(2026, 1, 31, 12, tzinfo=UTC)
KIND_OF: dict[type[Body], Kind] = {
    Started: Kind.STARTED,
    Progress: Kind.PROGRESS,
    Completed: Kind.COMPLETED,
    Failed: Kind.FAILED,
    DeadLetter: Kind.DEAD_LETTER,
    Cancelled: Kind.CANCELLED,
    Edited: Kind.EDITED,
    Released: Kind.RELEASED,
    Expired: Kind.EXPIRED,
    Saved: Kind.ARTIFACT,
    Noted: Kind.NOTE,
}


def request(payload: ProbePayload | None = None, **options: Any) -> JobRequest:
    """A valid creation of type ``probe``."""
    return JobRequest.of(PROBE, accepted(payload or ProbePayload()), **options)


def accepted(payload: BaseModel) -> AcceptedPayload:
    """The payload, given with those fields that were set."""
    return accept(type(payload), payload.model_dump(by_alias=True, exclude_unset=True))


def spec(**changes: Any) -> Spec:
    """What was asked for, of type ``probe``."""
    facts: dict[str, Any] = {
        "type": "probe",
        "payload": Raw(b"{}"),
        "payload_hash": "hash",
        "queue": "default",
        "priority": JobPriority.NORMAL,
        "max_retries": 5,
        "timeout": 300.0,
        "created_at": BEGAN,
        **changes,
    }
    return Spec(**facts)


def at(seq: int) -> datetime:
    """The time of a message: one second per sequence."""
    return BEGAN + timedelta(seconds=seq)


def error(attempt: int, message: str = "It failed.") -> JobError:
    """The failure of an attempt."""
    return JobError(message=message, type="TransientError", attempt=attempt, at=BEGAN, retryable=True)


def attempt_body(kind: type[AttemptBody], attempt: int = 1, submission: int = 1, **facts: Any) -> Any:
    """What a worker says of an attempt, with what its kind cannot do without."""
    needed: dict[type[AttemptBody], dict[str, Any]] = {
        Completed: {"result": Raw(b'{"attempt":1}')},
        Failed: {"next_attempt_at": BEGAN + timedelta(hours=1)},
        DeadLetter: {"spec": spec()},
    }
    whole = {"submission": submission, "attempt": attempt, "worker_id": "w1", **needed.get(kind, {}), **facts}
    return kind(**whole)


def tell(seq: int, body: Body, job_id: str = JOB) -> Message:
    """An event or a progress report as it lies in the stream."""
    return Message(job_id, KIND_OF[type(body)], seq, at(seq), body)


def artifact(name: str = "a.txt") -> Artifact:
    """A file of a job."""
    return Artifact(name, "text/plain", size_bytes=3, sha256="00" * 32, created_at=BEGAN, object=f"here/{name}")


def noted(seq: int, receipt: Receipt, cancelled_seq: int, job_id: str = JOB) -> Message:
    """A receipt for a cancellation."""
    body = Noted(submission=1, receipt=receipt, cancelled_seq=cancelled_seq, attempt=1, worker_id="w1")
    return tell(seq, body, job_id)


def queued(seq: int = 1, *, job_id: str = JOB, event_seq: int = 0, after_expiry: bool = False, **asked: Any) -> Message:
    """A submission."""
    body = Submission(spec=spec(**asked), event_seq=event_seq, after_expiry=after_expiry)
    return Message(job_id, Kind.QUEUED, seq, at(seq), body)


def scheduled(seq: int = 1, *, job_id: str = JOB, after_expiry: bool = False, event_seq: int = 0) -> Message:
    """A submission held until an hour after the beginning."""
    body = Submission(spec=spec(run_at=at(3600)), event_seq=event_seq, after_expiry=after_expiry)
    return Message(job_id, Kind.SCHEDULED, seq, at(seq), body)


def waiting(seq: int = 1, *, job_id: str = JOB, event_seq: int = 0, **asked: Any) -> Message:
    """A submission that the gate holds back."""
    body = Submission(spec=spec(**{"gate": Gate(), **asked}), event_seq=event_seq)
    return Message(job_id, Kind.WAITING, seq, at(seq), body)


def released(seq: int, *, job_id: str = JOB, event_seq: int = 0, continues: Continued | None = None) -> Message:
    """A submission by which the gate lets a job go."""
    body = Submission(spec=spec(gate=Gate()), event_seq=event_seq, release=True, continues=continues)
    return Message(job_id, Kind.QUEUED, seq, at(seq), body)


def said(seq: int, kind: type[AttemptBody], attempt: int = 1, submission: int = 1, **facts: Any) -> Message:
    """A message of a worker about an attempt."""
    return tell(seq, attempt_body(kind, attempt, submission, **facts))


def after(*messages: Message, job: Job | None = None) -> Job | None:
    """The job that these messages make."""
    for message in messages:
        job = fold(job, message)
    return job


def job_after(*messages: Message, job: Job | None = None) -> Job:
    """The job that these messages make, which there is."""
    job = after(*messages, job=job)
    assert job is not None
    return job
