"""What refusals say of what was named and is not there."""

import pytest

from gql_jobs.jobs.errors import no_such_job, no_such_queue


def test_a_queue_that_is_not_there_is_named_with_those_that_are() -> None:
    assert no_such_queue("mial", ["mail", "reports"]) == "There is no queue 'mial'; known are: mail, reports."
    assert no_such_queue("mial", []) == "There is no queue 'mial'."


@pytest.mark.parametrize("length", [1, 20, 63])
def test_however_many_queues_there_are_and_however_long_their_names_few_are_told(length: int) -> None:
    names = [f"{number:05}"[-length:].rjust(length, "q") for number in range(10_000)]
    sentence = no_such_queue("x" * 10_000, names)
    told = sentence.partition("known are: ")[2].rpartition(", and ")[0].split(", ")
    assert told == names[: len(told)]
    assert len(told) == min(10, 200 // length)
    assert sentence.endswith(f", and {10_000 - len(told)} more.")
    assert len(sentence.encode()) < 1000


def test_an_id_of_no_job_is_named_as_it_was_given_and_cut_if_it_is_long() -> None:
    assert no_such_job("018f3c6e") == "There is no job '018f3c6e'."
    assert no_such_job("x" * 10_000) == f"There is no job '{'x' * 99}…'."
