"""The errors of a client: every code of the API has a class, and each says what the API has said."""

from datetime import date
from typing import Any
from uuid import UUID

import pytest
from graphql import GraphQLEnumType, build_schema

from gql_jobs.client import errors
from gql_jobs.client.async_client import AsyncClient
from gql_jobs.client.errors import ClientError, InvalidArgument, InvalidPayload, refusal
from tests.job_types.probe_jobs import ProbePayload
from tests.running import ROOT

ERROR_CODES = build_schema((ROOT / "schema.graphql").read_text()).type_map["ErrorCode"]
assert isinstance(ERROR_CODES, GraphQLEnumType)
CODES = sorted(ERROR_CODES.values)


@pytest.mark.parametrize("code", CODES)
def test_each_code_of_the_api_has_a_class_of_its_own(code: str) -> None:
    made = refusal("No.", {"code": code})
    assert type(made) is not ClientError
    assert type(made) is getattr(errors, type(made).__name__)
    assert (made.code, str(made)) == (code, "No.")
    assert len({type(refusal("No.", {"code": each})) for each in CODES}) == len(CODES)


def test_a_code_that_this_release_does_not_know_is_told() -> None:
    made = refusal("No.", {"code": "NEW_CODE", "retryAfter": 3})
    assert (type(made), made.code, made.retry_after) == (ClientError, "NEW_CODE", 3.0)


def test_a_refused_payload_says_which_field_is_at_fault() -> None:
    faults = [{"path": "to", "message": "It is too short."}, {"path": "text", "message": "It is empty."}]
    made = refusal("No.", {"code": "INVALID_PAYLOAD", "fields": faults})
    assert isinstance(made, InvalidPayload)
    assert (made.field, made.fields) == ("to", faults)
    assert refusal("No.", {"code": "INVALID_ARGUMENT", "argument": "tags"}).field == "tags"


@pytest.mark.parametrize(
    ("option", "field", "said"),
    [
        ({"run_at": "tomorrow"}, "run_at", "run_at is a datetime, not 'tomorrow'."),
        ({"run_at": date(2026, 1, 1)}, "run_at", "run_at is a datetime, not datetime.date(2026, 1, 1)."),
        ({"timeout": "5"}, "timeout", "timeout is a number of seconds or a timedelta, not '5'."),
        ({"max_retries": 1.5}, "max_retries", "max_retries is a whole number, not 1.5."),
        ({"max_retries": True}, "max_retries", "max_retries is a whole number, not True."),
        ({"key": 42}, "key", "key is a text or a Key, not 42."),
        ({"origin": UUID(int=1)}, "origin", f"origin is the id of a job, a text, not {UUID(int=1)!r}."),
        ({"tags": ["a", 1]}, "tags.1", "A tag is a text, not 1."),
    ],
)
@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "nats://127.0.0.1:9"])
async def test_an_option_of_another_kind_is_refused_by_its_own_name_before_anything_is_sent(
    address: str, option: Any, field: str, said: str
) -> None:
    async with AsyncClient(address, patience=60) as client:
        with pytest.raises(InvalidArgument) as refused:
            await client.create(ProbePayload(), type="probe", **option)
    assert (refused.value.field, str(refused.value)) == (field, said)
