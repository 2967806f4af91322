"""Which failures are the same one."""

from typing import Any

import pytest

from gql_jobs.jobs.messages import DeadLetter, Started
from gql_jobs.jobs.model import Job, failure_group, normalised
from tests.stories import error, job_after, queued, said


def _dead(message: str, **asked: Any) -> Job:
    return job_after(queued(**asked), said(2, Started), said(3, DeadLetter, errors=(error(1, message),)))


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (
            "Connection to 10.0.0.1:5432 refused after 3.5 s",
            "Connection to <address>:<number> refused after <number> s",
        ),
        ("user 'bob' (bob@example.org) not found: 550 5.1.1", "user <…> (<address>) not found: <number> <number>"),
        ("job 018f3c6e-7d3a-7c52-9d0a-3f5a8c1d7e42 at 0x7F8a failed", "job <id> at <number> failed"),
        ("GET https://api.example.org/v1/u/12?k=1 gave 503", "GET <url> gave <number>"),
        ('no such key: "a b" in `c`', "no such key: <…> in <…>"),
        ("It's the customer's fault", "It's the customer's fault"),
        ("commit deadbeef1 is missing\nand more", "commit <id> is missing"),
        ("  two   words\t", "two words"),
        ("", ""),
    ],
)
def test_what_differs_in_messages_of_one_failure_is_masked(message: str, shown: str) -> None:
    assert normalised(message) == shown


def test_a_normalised_message_is_short_however_long_the_message_is() -> None:
    assert len(normalised("word " * 100_000)) <= 200
    assert len(normalised("x@" * 100_000)) <= 200


def test_dead_letters_of_one_type_that_failed_alike_are_in_one_group_and_no_others() -> None:
    first, second = failure_group(_dead("timeout after 3 s")), failure_group(_dead("timeout after 12 s"))
    assert first is not None
    assert first == second
    assert (first.type, first.error_type, first.message) == ("probe", "TransientError", "timeout after <number> s")
    others = [failure_group(_dead("no timeout")), failure_group(_dead("timeout after 3 s", type="email"))]
    assert len({first.key, *(one.key for one in others if one is not None)}) == 3


def test_only_dead_letters_have_a_group() -> None:
    assert failure_group(job_after(queued(), said(2, Started))) is None
