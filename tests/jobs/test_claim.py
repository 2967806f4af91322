"""What a worker does with a delivery, row by row of the design's table."""

from datetime import timedelta

import pytest

from gql_jobs.jobs.claim import Drop, Exhausted, Leave, Start, Wait, decide, first_start
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
    Message,
    Released,
    Started,
    Submission,
)
from gql_jobs.jobs.model import Gate, JobError
from tests.stories import BEGAN, attempt_body, error, said, spec, tell

NOW = BEGAN + timedelta(minutes=5)
FRESH = Submission(spec=spec(max_retries=2))
RETRIED = Submission(spec=spec(max_retries=2), event_seq=4)
"""A retry by hand of a job whose last event was 4; it lies at sequence 5."""
either = pytest.mark.parametrize("redelivered", [False, True])
ENDS: list[Body] = [attempt_body(Completed), attempt_body(DeadLetter), Cancelled(submission=1), Expired(submission=1)]


def _failed_until(moment: timedelta) -> Message:
    return said(3, Failed, 2, next_attempt_at=NOW + moment, errors=(error(1), error(2)), progress=7, message="m")


def test_a_first_delivery_starts_without_reading_anything() -> None:
    assert first_start(FRESH) == Start(attempt=1, event_seq=0)
    assert first_start(RETRIED) == Start(attempt=1, event_seq=4)


@either
def test_no_event_means_start(*, redelivered: bool) -> None:
    assert decide(FRESH, 1, None, redelivered=redelivered, now=NOW) == Start(attempt=1, event_seq=0)


@either
def test_a_renewed_job_whose_tombstone_is_gone_starts_expecting_nothing(*, redelivered: bool) -> None:
    assert decide(RETRIED, 5, None, redelivered=redelivered, now=NOW) == Start(attempt=1, event_seq=0)


@either
@pytest.mark.parametrize("end", ENDS)
def test_the_end_that_the_submission_answers_means_start(end: Body, *, redelivered: bool) -> None:
    assert decide(RETRIED, 5, tell(4, end), redelivered=redelivered, now=NOW) == Start(attempt=1, event_seq=4)


@either
@pytest.mark.parametrize("end", ENDS)
def test_any_other_end_means_drop(end: Body, *, redelivered: bool) -> None:
    assert decide(FRESH, 1, tell(4, end), redelivered=redelivered, now=NOW) == Drop()
    assert decide(RETRIED, 5, tell(9, end), redelivered=redelivered, now=NOW) == Drop()


@either
@pytest.mark.parametrize("kind", [Started, Failed, Released])
def test_an_event_of_another_submission_means_drop(kind: type[AttemptBody], *, redelivered: bool) -> None:
    assert decide(FRESH, 1, said(9, kind, 1, 5), redelivered=redelivered, now=NOW) == Drop()


@either
@pytest.mark.parametrize("due", [timedelta(), timedelta(seconds=-9), timedelta(milliseconds=20)])
def test_a_failure_whose_retry_is_due_means_the_next_attempt(due: timedelta, *, redelivered: bool) -> None:
    decision = decide(FRESH, 1, _failed_until(due), redelivered=redelivered, now=NOW)
    assert decision == Start(attempt=3, event_seq=3, errors=(error(1), error(2)), progress=7, message="m")


def test_a_failure_whose_retry_is_not_due_means_wait() -> None:
    decision = decide(FRESH, 1, _failed_until(timedelta(seconds=9)), redelivered=True, now=NOW)
    assert decision == Wait(9.0)


@either
def test_a_hand_back_means_the_same_attempt_again(*, redelivered: bool) -> None:
    last = said(3, Released, 2, errors=(error(1),), progress=60, message="m")
    decision = decide(FRESH, 1, last, redelivered=redelivered, now=NOW)
    assert decision == Start(attempt=2, event_seq=3, errors=(error(1),), progress=60, message="m")


def test_a_start_of_another_worker_means_leave_on_a_first_delivery() -> None:
    assert decide(FRESH, 1, said(3, Started), redelivered=False, now=NOW) == Leave()


def test_a_start_of_another_worker_is_taken_over_on_a_redelivery() -> None:
    last = said(3, Started, 2, worker_id="gone", errors=(error(1),), progress=60)
    decision = decide(FRESH, 1, last, redelivered=True, now=NOW)
    lost = JobError("The worker gone was lost during attempt 2.", "WorkerLost", attempt=2, at=NOW, retryable=True)
    assert decision == Start(
        attempt=3, event_seq=3, errors=(error(1), lost), progress=60, supersedes=2, lost_worker="gone"
    )


def test_the_last_attempt_is_not_taken_over_but_buried() -> None:
    last = said(3, Started, 3, worker_id="gone")
    decision = decide(FRESH, 1, last, redelivered=True, now=NOW)
    assert isinstance(decision, Exhausted)
    assert (decision.attempt, decision.event_seq) == (3, 3)
    assert [(e.type, e.attempt, e.retryable) for e in decision.errors] == [("WorkerLost", 3, False)]


GATED = Submission(spec=spec(max_retries=2, gate=Gate()))
AGAIN = Submission(
    spec=GATED.spec,
    event_seq=3,
    release=True,
    continues=Continued(attempt=2, errors=(error(1), error(2)), progress=7, message="m"),
)
"""A release after the second attempt has failed, which 3 tells; it lies at sequence 5."""


def test_a_release_after_a_failure_starts_the_next_attempt_without_reading_anything() -> None:
    expected = Start(attempt=3, event_seq=3, errors=(error(1), error(2)), progress=7, message="m")
    assert first_start(AGAIN) == expected


@either
def test_the_failure_that_a_release_follows_means_the_next_attempt(*, redelivered: bool) -> None:
    last = _failed_until(timedelta(hours=1))
    assert decide(AGAIN, 5, last, redelivered=redelivered, now=NOW) == first_start(AGAIN)


@either
def test_a_failure_of_its_own_means_drop_for_a_job_that_passes_the_gate(*, redelivered: bool) -> None:
    assert decide(GATED, 1, _failed_until(timedelta()), redelivered=redelivered, now=NOW) == Drop()


@either
def test_an_edit_voids_what_was_submitted_before_it_and_starts_what_answers_it(*, redelivered: bool) -> None:
    edited = tell(4, Edited(submission=1, spec=FRESH.spec))
    assert decide(FRESH, 1, edited, redelivered=redelivered, now=NOW) == Drop()
    answer = Submission(spec=FRESH.spec, event_seq=4, after_edit=True)
    assert decide(answer, 5, edited, redelivered=redelivered, now=NOW) == Start(attempt=1, event_seq=4)
