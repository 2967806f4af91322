"""What others have written into the stream never turns a page into an error."""

import json
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from msgspec import Raw
from msgspec.structs import replace

from gql_jobs.graphql.engine.budget import Budget
from gql_jobs.graphql.job_types import UnknownJob
from gql_jobs.graphql.registered_types import RegisteredTypes
from gql_jobs.jobs.messages import Kind
from gql_jobs.jobs.model import Job, JobPriority, JobStatus, Spec
from gql_jobs.jobs.registry import load_job_types
from gql_jobs.log.codec import Unreadable, decode_body, encode_body
from tests.graphql.sample_jobs import shown_json
from tests.stories import queued

GOOD = b'{"body":"b","subject":"s","to":"ada@example.com"}'


def job(payload: bytes) -> Job:
    """A queued e-mail with that payload, whoever wrote it; the hash beside it is always the same."""
    spec = Spec(
        type="email",
        payload=Raw(payload),
        payload_hash="0" * 64,
        queue="default",
        priority=JobPriority.NORMAL,
        max_retries=5,
        timeout=1.0,
        created_at=datetime.now(UTC),
    )
    return Job(
        id="550e8400-e29b-41d4-a716-446655440000",
        spec=spec,
        status=JobStatus.QUEUED,
        submission_seq=1,
        last_seq=1,
        updated_at=spec.created_at,
    )


@pytest.mark.parametrize("payload", [b"null", b'"\xff"', b"1e999", b"[1]", b"{}", b'{"a":\r\n[1,\n2]}'])
def test_a_payload_that_its_type_cannot_read_is_not_shown_because_nothing_says_what_of_it_is_secret(
    payload: bytes,
) -> None:
    presented = RegisteredTypes(load_job_types()).present(job(payload))
    assert isinstance(presented, UnknownJob)
    assert shown_json(presented.raw_payload) == "[redacted]"


def test_a_result_that_no_client_could_be_given_is_shown_as_text() -> None:
    registered = RegisteredTypes(load_job_types())
    for result, shown in ((b'"\xff"', '"\ufffd"'), (b"1e999", "1e999"), (b"[1]", [1])):
        presented = registered.present(replace(job(GOOD), result_json=Raw(result)))
        assert isinstance(presented, UnknownJob)
        assert shown_json(presented.raw_result) == shown


def test_a_payload_in_lines_is_shown_in_one() -> None:
    presented = RegisteredTypes(load_job_types()).present(job(GOOD.replace(b",", b",\r\n")))
    info = SimpleNamespace(context=SimpleNamespace(budget=Budget()))
    assert bytes(presented.raw_payload(info)) == GOOD


def test_a_wrong_hash_does_not_lend_one_payload_the_verdict_of_another() -> None:
    registered = RegisteredTypes(load_job_types())
    assert not isinstance(registered.present(job(GOOD)), UnknownJob)
    assert isinstance(registered.present(job(b"{}")), UnknownJob)


@pytest.mark.parametrize("number", [-1, 1 << 31, 1 << 80])
def test_numbers_that_no_client_could_be_given_make_a_message_unreadable(number: int) -> None:
    fields = json.loads(encode_body(queued().body))
    fields["spec"]["maxRetries"] = number
    with pytest.raises(Unreadable):
        decode_body(Kind.QUEUED, json.dumps(fields).encode())
