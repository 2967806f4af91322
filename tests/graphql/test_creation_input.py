"""What a creation is refused for, in the words and with the paths of the schema."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from pydantic import Field

from gql_jobs import Model
from gql_jobs.graphql.inputs import accepted_payload
from gql_jobs.graphql.mutations import request_of
from gql_jobs.graphql.registered_types import RegisteredTypes
from gql_jobs.jobs.errors import InvalidArgument, InvalidPayload
from gql_jobs.jobs.model import JobPriority
from gql_jobs.jobs.registry import JobType, load_job_types
from tests.running import JOB_TYPES

NOW = datetime.now(UTC)
WEST = timezone(timedelta(hours=-12))
REGISTERED = RegisteredTypes(load_job_types(JOB_TYPES))
PRINTABLE = "idempotencyKey must have 1 to 255 printable characters."
RETRIES = "maxRetries must be between 0 and 100."
TIMEOUT = "timeoutSeconds must be between 0.1 and 86400."
TAG = "A tag must have 1 to 255 printable characters."
TOO_LATE = "runAt may be at most a year ahead."


class Part(Model):
    """Nested."""

    size_bytes: int = Field(ge=0)
    scale: float = 1.0


class Upload(Model):
    """With nested models and free JSON."""

    parts: list[Part]
    meta_data: dict[str, Any] = Field(default_factory=dict)


class Uploaded(Model):
    """Nothing."""


UPLOAD = JobType("upload", Upload, Uploaded, "nowhere:run")


@pytest.mark.parametrize(
    ("given", "argument", "message"),
    [
        ({"max_retries": -1}, "maxRetries", RETRIES),
        ({"max_retries": 101}, "maxRetries", RETRIES),
        ({"timeout_seconds": 0.0}, "timeoutSeconds", TIMEOUT),
        ({"timeout_seconds": 86_401.0}, "timeoutSeconds", TIMEOUT),
        ({"timeout_seconds": float("nan")}, "timeoutSeconds", TIMEOUT),
        ({"timeout_seconds": float("inf")}, "timeoutSeconds", TIMEOUT),
        ({"idempotency_key": ""}, "idempotencyKey", PRINTABLE),
        ({"idempotency_key": "k" * 256}, "idempotencyKey", PRINTABLE),
        ({"idempotency_key": "a\nb"}, "idempotencyKey", PRINTABLE),
        ({"idempotency_key": "\ud800"}, "idempotencyKey", PRINTABLE),
        ({"idempotency_key": "a\u202eb"}, "idempotencyKey", PRINTABLE),
        ({"tags": ["fine", ""]}, "tags.1", TAG),
        ({"tags": ["t" * 256]}, "tags.0", TAG),
        ({"tags": list(map(str, range(33)))}, "tags", "A job has at most 32 tags."),
        ({"run_at": NOW + timedelta(days=367)}, "runAt", TOO_LATE),
        ({"run_at": datetime.max.replace(tzinfo=WEST)}, "runAt", TOO_LATE),
    ],
)
def test_a_value_outside_its_limits_is_refused_and_named_as_the_client_wrote_it(
    given: dict[str, Any], argument: str, message: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        request_of({"payload": {"probe": {}}, **given}, REGISTERED, "inputs.3")
    assert refused.value.extensions["argument"] == f"inputs.3.{argument}"
    assert str(refused.value) == message


def test_a_payload_that_cannot_be_written_as_json_is_refused() -> None:
    with pytest.raises(InvalidPayload) as refused:
        request_of({"payload": {"probe": {"saves": "\ud800{}"}}}, REGISTERED, "input")
    (field,) = refused.value.extensions["fields"]
    assert field["path"] == "input.payload.probe"
    assert field["message"] == "A text has half of a surrogate pair, which UTF-8 cannot hold."


def test_what_was_left_out_is_left_to_the_type_and_the_settings() -> None:
    request = request_of({"payload": {"probe": {}}, "priority": None, "tags": None}, REGISTERED, "input")
    assert (request.priority, request.tags) == (JobPriority.NORMAL, ())
    assert (request.max_retries, request.timeout, request.run_at, request.idempotency_key) == (None,) * 4


def _invalid(fields: dict[str, Any]) -> list[str]:
    with pytest.raises(InvalidPayload) as refused:
        accepted_payload(UPLOAD, fields, "input.payload.upload")
    return [field["path"].removeprefix("input.payload.upload") for field in refused.value.extensions["fields"]]


@pytest.mark.parametrize(
    ("fields", "paths"),
    [
        ({}, [".parts"]),
        ({"parts": [{"size_bytes": 1}, {"size_bytes": -1}]}, [".parts.1.sizeBytes"]),
        ({"parts": [{"sizeBytes": "x", "more_more": 1}]}, [".parts.0.sizeBytes", ".parts.0.more_more"]),
        ({"parts": [{"sizeBytes": 1, "scale": float("inf")}]}, [".parts.0.scale"]),
        ({"parts": [{"sizeBytes": 1, "scale": float("nan")}]}, [".parts.0.scale"]),
        ({"parts": [], "metaData": 3}, [".metaData"]),
        ({"parts": None, "extra_one": 3}, [".parts", ".extra_one"]),
    ],
)
def test_an_invalid_payload_names_every_field_as_clients_write_it(fields: dict[str, Any], paths: list[str]) -> None:
    assert _invalid(fields) == paths


def test_the_message_of_an_invalid_payload_shows_three_fields_and_counts_the_rest() -> None:
    with pytest.raises(InvalidPayload, match=r"\(and 2 more\)$"):
        accepted_payload(UPLOAD, {"parts": [{}] * 5}, "input")
