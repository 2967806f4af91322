"""Job ids."""

import uuid

import pytest

from gql_jobs.jobs.model import job_id_for_key, job_id_of_child, new_job_id, parse_job_id
from tests.stories import JOB, OTHER


def test_a_new_id_is_a_uuid_that_nobody_has() -> None:
    ids = {new_job_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(str(uuid.UUID(job_id)) == job_id == parse_job_id(job_id) for job_id in ids)


def test_a_key_has_one_id_for_ever() -> None:
    assert job_id_for_key("order-4711") == "cafc7a71-a3b9-51c3-9853-91a4e0650faf"
    assert job_id_for_key("order-4712") != job_id_for_key("order-4711")


def test_an_id_follows_from_tenant_and_key_and_no_other_pair_has_it() -> None:
    assert job_id_for_key("order-4711", "red") == job_id_for_key("order-4711", "red")
    pairs = [("b", "a"), ("ab", None), ("b", None), ("a", "b"), ("", "ab"), ("ab", ""), ("b", "a\0"), ("c", "a\0b")]
    assert len({job_id_for_key(key, tenant) for key, tenant in pairs}) == len(pairs)


def test_the_id_of_a_child_follows_from_the_job_the_submission_and_which_child_it_is() -> None:
    assert job_id_of_child(JOB, 7, "sms\x001") == "2f5f4344-cb03-54d6-a311-d3788caefd03"
    others = [(JOB, 7, "sms\x002"), (JOB, 8, "sms\x001"), (OTHER, 7, "sms\x001"), (JOB, 7, "\x00sms\x001")]
    ids = {job_id_of_child(*one) for one in [(JOB, 7, "sms\x001"), *others]}
    assert len(ids) == 5
    # Nor has it the id that any key of a client comes to.
    assert ids.isdisjoint({job_id_for_key(f"{job}\0{submission}\0{name}") for job, submission, name in others})
    assert ids.isdisjoint({job_id_for_key(f"{submission}\0{name}", job) for job, submission, name in others})


def test_an_id_is_read_in_any_case() -> None:
    assert parse_job_id(JOB.upper()) == JOB


@pytest.mark.parametrize(
    "text",
    [
        "",
        "*",
        ">",
        "*.event",
        "1",
        JOB[:-1],
        JOB + "0",
        f"{JOB}.event",
        f" {JOB}",
        f"{JOB}\n",
        f"{{{JOB}}}",
        f"urn:uuid:{JOB}",
        JOB.replace("-", ""),
        "0" * 36,
        JOB.replace("0", "\u0660"),
    ],
)
def test_whatever_could_name_another_subject_is_no_id(text: str) -> None:
    assert parse_job_id(text) is None
