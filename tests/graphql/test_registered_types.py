"""How stored jobs become objects of their type, and when they cannot."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import UNSET, Raw

from gql_jobs import Model
from gql_jobs.graphql.engine.budget import Budget
from gql_jobs.graphql.job_types import Job, UnknownJob
from gql_jobs.graphql.registered_types import RegisteredTypes
from gql_jobs.jobs import model
from gql_jobs.jobs.registry import JobType, Registry
from tests.graphql.sample_jobs import shown_json

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


class Upload(Model):
    size_bytes: int


class Uploaded(Model):
    parts: list[int]


@pytest.fixture
def registered() -> RegisteredTypes:
    registry = Registry()
    registry.add(JobType("upload", Upload, Uploaded, "nowhere:run"))
    return RegisteredTypes(registry)


def _job(payload: bytes, *, kind: str = "upload", result: bytes | None = None) -> model.Job:
    spec = model.Spec(
        type=kind,
        payload=Raw(payload),
        payload_hash=payload.decode(),
        queue="default",
        priority=model.JobPriority.NORMAL,
        max_retries=5,
        timeout=300.0,
        created_at=NOW,
    )
    return model.Job(
        id="018f3c6e-7d3a-7c52-9d0a-3f5a8c1d7e42",
        spec=spec,
        status=model.JobStatus.COMPLETED if result else model.JobStatus.QUEUED,
        submission_seq=1,
        last_seq=1,
        updated_at=NOW,
        result_json=Raw(result) if result is not None else UNSET,
    )


def _name(job: Job) -> Any:
    return type(job).__name__


def test_a_job_becomes_an_object_of_its_type(registered: RegisteredTypes) -> None:
    job = registered.present(_job(b'{"sizeBytes":1}', result=b'{"parts":[1,2]}'))
    assert _name(job) == "UploadJob"
    assert shown_json(job.raw_payload) == {"sizeBytes": 1}
    assert shown_json(job.raw_result) == {"parts": [1, 2]}


@pytest.mark.parametrize(
    "job",
    [
        _job(b"{}", kind="fax"),
        _job(b"{}"),
        _job(b'{"sizeBytes":"many"}'),
        _job(b'{"sizeBytes":1}', result=b'{"pages":1}'),
        # GraphQL's Int has 32 bits.
        _job(b'{"sizeBytes":2147483648}'),
    ],
)
def test_a_job_that_its_type_cannot_describe_is_unknown(registered: RegisteredTypes, job: model.Job) -> None:
    # Twice, for the verdict on a payload is kept.
    for shown in (registered.present(job), registered.present(job)):
        assert isinstance(shown, UnknownJob)
        assert shown.type == job.spec.type


def test_a_job_of_a_type_without_result_has_no_such_field_and_is_completed_with_null() -> None:
    registry = Registry()
    registry.add(JobType("ping", Upload, None, "nowhere:run"))
    silent = RegisteredTypes(registry)
    job = silent.present(_job(b'{"sizeBytes":1}', kind="ping", result=b"null"))
    assert _name(job) == "PingJob"
    assert shown_json(job.raw_result) is None
    assert not hasattr(job, "result")


def test_a_job_that_completed_before_its_type_had_a_result_has_none(registered: RegisteredTypes) -> None:
    job: Any = registered.present(_job(b'{"sizeBytes":1}', result=b"null"))
    assert _name(job) == "UploadJob"
    info = SimpleNamespace(context=SimpleNamespace(budget=Budget()))
    (field,) = [one for one in type(job).__strawberry_definition__.fields if one.python_name == "result"]
    assert field.base_resolver.wrapped_func(job, info) is None


def test_what_a_job_had_for_a_result_is_shown_when_its_type_has_none_any_more() -> None:
    registry = Registry()
    registry.add(JobType("upload", Upload, None, "nowhere:run"))
    job = RegisteredTypes(registry).present(_job(b'{"sizeBytes":1}', result=b'{"parts":[1]}'))
    assert _name(job) == "UploadJob"
    assert shown_json(job.raw_result) == {"parts": [1]}
