"""The fold: which moves are legal, and what each of them makes of a job."""

from datetime import timedelta
from typing import Any

import pytest
from msgspec import Raw

from gql_jobs.jobs.fold import MOVES, fold
from gql_jobs.jobs.messages import (
    AttemptBody,
    Cancelled,
    Completed,
    Continued,
    DeadLetter,
    Edited,
    Expired,
    Failed,
    Kind,
    Message,
    Progress,
    Receipt,
    Released,
    Saved,
    Started,
    Submission,
)
from gql_jobs.jobs.model import Gate, Job, JobStatus
from tests.stories import (
    JOB,
    after,
    artifact,
    at,
    error,
    job_after,
    noted,
    queued,
    released,
    said,
    scheduled,
    spec,
    tell,
    waiting,
)

S = JobStatus
WORDS: dict[Kind, type[AttemptBody]] = {
    Kind.STARTED: Started,
    Kind.PROGRESS: Progress,
    Kind.COMPLETED: Completed,
    Kind.FAILED: Failed,
    Kind.DEAD_LETTER: DeadLetter,
    Kind.RELEASED: Released,
}
STORIES: dict[JobStatus | None, list[Message]] = {
    None: [],
    S.SCHEDULED: [scheduled(1)],
    S.WAITING: [waiting(1)],
    S.QUEUED: [queued(1)],
    S.PROCESSING: [queued(1), said(2, Started)],
    S.RETRYING: [queued(1), said(2, Started), said(3, Failed)],
    S.COMPLETED: [queued(1), said(2, Started), said(3, Completed)],
    S.DEAD_LETTER: [queued(1), said(2, Started), said(3, DeadLetter)],
    S.CANCELLED: [queued(1), tell(2, Cancelled(submission=1))],
}
"""A shortest history to every state."""


def _said_of(job: Job | None, kind: Kind) -> Message:  # noqa: PLR0911 - a line for each kind
    """A message of that kind that means exactly the submission and attempt the job is at."""
    submission = job.submission_seq if job is not None else 1
    event_seq = job.event_seq if job is not None else 0
    attempt = job.attempt if job is not None else 1
    if kind in {Kind.QUEUED, Kind.SCHEDULED, Kind.WAITING}:
        return Message(JOB, kind, 9, at(9), Submission(spec=spec(), event_seq=event_seq))
    if kind in {Kind.CANCELLED, Kind.EDITED} and job is not None and job.status.is_terminal:
        # Of the schedule of a retry since then, the message of which is deleted.
        submission = event_seq + 1
    if kind is Kind.CANCELLED:
        return tell(9, Cancelled(submission=submission, spec=spec()))
    if kind is Kind.EDITED:
        return tell(9, Edited(submission=submission, spec=spec()))
    if kind is Kind.EXPIRED:
        return tell(9, Expired(submission=submission))
    if kind is Kind.ARTIFACT:
        return tell(9, Saved(artifact=artifact()))
    if kind is Kind.NOTE:
        return noted(9, Receipt.STOPPED, event_seq)
    if kind is Kind.STARTED:
        attempt += 1
    return said(9, WORDS[kind], attempt, submission)


@pytest.mark.parametrize("status", list(STORIES))
@pytest.mark.parametrize("kind", list(Kind))
def test_exactly_the_moves_of_the_table_change_a_job(status: JobStatus | None, kind: Kind) -> None:
    before = after(*STORIES[status])
    assert (before.status if before is not None else None) == status
    moved = fold(before, _said_of(before, kind))
    if (status, kind) not in MOVES:
        assert moved is before
        return
    expected = MOVES[status, kind]
    assert (moved.status if moved is not None else None) == expected
    if moved is not None:
        assert (moved.last_seq, moved.updated_at) == (9, at(9))


@pytest.mark.parametrize("status", list(S))
def test_every_state_can_be_reached_and_left_by_expiry_and_none_that_runs_is_queued_again(
    status: JobStatus,
) -> None:
    assert status in MOVES.values()
    kinds = {kind for (before, kind) in MOVES if before is status}
    assert Kind.EXPIRED in kinds
    assert (Kind.QUEUED in kinds) is (status not in {S.QUEUED, S.PROCESSING, S.COMPLETED})


@pytest.mark.parametrize("kind", [Progress, Completed, Failed, DeadLetter, Released])
@pytest.mark.parametrize(("attempt", "submission"), [(1, 1), (3, 1), (2, 7), (2, 0)])
def test_a_word_of_another_attempt_or_submission_changes_nothing(
    kind: type[AttemptBody], attempt: int, submission: int
) -> None:
    second = job_after(queued(1), said(2, Started), said(3, Failed), said(4, Started, 2))
    assert fold(second, said(5, kind, attempt, submission)) is second


@pytest.mark.parametrize("kind", [Completed, DeadLetter])
def test_progress_after_the_end_changes_nothing(kind: type[AttemptBody]) -> None:
    ended = job_after(queued(1), said(2, Started), said(3, kind))
    assert fold(ended, said(4, Progress, progress=99)) is ended


def test_a_started_upon_a_started_supersedes_the_earlier_attempt() -> None:
    first = job_after(queued(1), said(2, Started, worker_id="lost"), said(3, Progress, progress=40))
    second = fold(first, said(4, Started, 2, supersedes=1, worker_id="heir", errors=(error(1),), progress=40))
    assert second is not None
    assert (second.attempt, second.worker_id, second.superseded_attempt) == (2, "heir", 1)
    assert (second.progress, second.errors, second.started_at) == (40, (error(1),), at(4))
    assert fold(second, said(5, Completed, 1)) is second
    third = fold(second, said(6, Failed, 2))
    assert third is not None
    assert third.status is S.RETRYING


def test_a_released_attempt_does_not_count() -> None:
    released = job_after(queued(1), said(2, Started), said(3, Released, 1, progress=30, message="half"))
    assert (released.status, released.attempt, released.retry_count) == (S.QUEUED, 0, 0)
    assert (released.worker_id, released.started_at, released.progress) == (None, None, 30)
    again = fold(released, said(4, Started, 1))
    assert again is not None
    assert again.attempt == 1
    second = after(said(5, Failed), said(6, Started, 2), said(7, Released, 2), job=again)
    assert second is not None
    assert second.attempt == 1
    assert second.retry_count == 0


def test_progress_is_a_hundred_once_completed() -> None:
    done = job_after(queued(1), said(2, Started), said(3, Progress, progress=40), said(5, Completed, progress=40))
    assert done.progress == 100
    assert done.result == Raw(b'{"attempt":1}')
    assert done.duration == timedelta(seconds=3)


def test_a_job_cancelled_before_its_next_attempt_ran_as_long_as_its_last_one() -> None:
    waiting = job_after(queued(), said(2, Started), said(4, Failed))
    cancelled = job_after(tell(90, Cancelled(submission=1)), job=waiting)
    assert cancelled.duration == timedelta(seconds=2)
    again = job_after(said(5, Started, 2), tell(90, Cancelled(submission=1)), job=waiting)
    assert again.duration == timedelta(seconds=85)


def test_errors_are_those_of_the_submission_and_a_completed_job_has_none_left_to_show() -> None:
    failed = job_after(queued(1), said(2, Started), said(3, Failed, errors=(error(1),), progress=10))
    assert failed.error == error(1)
    assert failed.worker_id is None
    assert failed.next_attempt_at is not None
    done = job_after(
        queued(1),
        said(2, Started),
        said(3, Failed, errors=(error(1),)),
        said(4, Started, 2, errors=(error(1),)),
        said(5, Completed, 2),
    )
    assert done.error is None
    assert done.errors == (error(1),)
    assert done.next_attempt_at is None
    assert done.retry_count == 1


def test_a_retry_by_hand_starts_with_a_fresh_budget() -> None:
    dead = job_after(
        queued(1),
        said(2, Started),
        said(3, Failed, errors=(error(1),)),
        said(4, Started, 2),
        said(5, DeadLetter, 2, errors=(error(1), error(2)), progress=70),
    )
    assert dead.event_seq == 5
    again = fold(dead, queued(6, event_seq=5))
    assert again is not None
    assert again.status is S.QUEUED
    assert (again.attempt, again.retry_count, again.progress, again.errors) == (0, 0, 0, ())
    assert (again.submission_seq, again.event_seq, again.finished_at) == (6, 5, None)
    assert fold(again, said(7, Started, 1, 1)) is again
    running = fold(again, said(7, Started, 1, 6))
    assert running is not None
    assert running.attempt == 1


@pytest.mark.parametrize("event_seq", [0, 1, 2, 4])
def test_a_submission_made_on_another_end_changes_nothing(event_seq: int) -> None:
    dead = job_after(*STORIES[S.DEAD_LETTER])
    assert fold(dead, queued(5, event_seq=event_seq)) is dead


def test_a_firing_that_comes_after_the_cancellation_changes_nothing() -> None:
    cancelled = job_after(scheduled(1), tell(2, Cancelled(submission=1, spec=spec())))
    assert fold(cancelled, queued(3, run_at=at(3600))) is cancelled


def test_of_a_submission_that_was_stored_twice_either_copy_may_start() -> None:
    job = job_after(scheduled(1), queued(2), queued(3))
    assert job.submission_seq == 2
    for submission in (2, 3):
        running = fold(job, said(4, Started, 1, submission))
        assert running is not None
        assert running.submission_seq == submission
    assert fold(job, said(4, Started, 1, 1)) is job


@pytest.mark.parametrize("first", [queued, scheduled])
def test_a_submission_alone_makes_the_job_whichever_end_it_answers(first: Any) -> None:
    """What came before has been deleted: of a job that expired when the store was full, a retry may be left."""
    assert job_after(first(1)).submission_seq == 1
    job = job_after(said(4, Started), said(5, DeadLetter), first(6, event_seq=5))
    assert (job.submission_seq, job.event_seq, job.attempt) == (6, 5, 0)


def test_of_a_job_cancelled_before_its_time_the_cancellation_alone_makes_the_job() -> None:
    assert after(tell(2, Cancelled(submission=1))) is None
    job = job_after(tell(2, Cancelled(submission=1, spec=spec(run_at=at(3600)))))
    assert (job.status, job.event_seq, job.finished_at) == (S.CANCELLED, 2, at(2))
    cancelled = tell(2, Cancelled(submission=1, spec=scheduled(1).body.spec))
    assert job_after(cancelled) == job_after(scheduled(1), cancelled)
    again = fold(job, queued(3, event_seq=2, run_at=at(3600)))
    assert again is not None
    assert again.status is S.QUEUED


def test_a_retry_by_hand_is_for_at_once_and_a_schedule_that_fires_is_what_was_asked_for() -> None:
    run_at = at(3600)
    fired = job_after(scheduled(1), queued(2, run_at=run_at))
    assert (fired.retried, fired.run_at) == (False, run_at)
    cancelled = [queued(1, run_at=run_at), tell(2, Cancelled(submission=1))]
    retried = job_after(*cancelled, queued(3, event_seq=2, run_at=run_at))
    assert (retried.retried, retried.run_at, retried.spec.run_at) == (True, None, run_at)
    # What follows changes nothing about it, and of a retry that is all that is left it is known, too.
    assert job_after(said(4, Started, 1, 3), job=retried).run_at is None
    assert job_after(queued(3, event_seq=2, run_at=run_at)).run_at is None
    renewed = job_after(queued(5, event_seq=4, after_expiry=True, run_at=run_at))
    assert (renewed.retried, renewed.run_at) == (False, run_at)


def test_an_expired_job_is_gone_and_its_key_may_make_a_new_one() -> None:
    gone = [*STORIES[S.COMPLETED], tell(4, Expired(submission=1))]
    assert after(*gone) is None
    renewed = job_after(*gone, queued(5, event_seq=4, after_expiry=True))
    assert (renewed.status, renewed.submission_seq, renewed.event_seq) == (S.QUEUED, 5, 4)


def test_a_renewed_job_that_runs_later_is_queued_when_it_fires() -> None:
    renewed = scheduled(5, event_seq=4, after_expiry=True)
    fired = queued(6, event_seq=4, after_expiry=True, run_at=at(3600))
    assert job_after(renewed, fired) == job_after(fired)


def test_times_never_run_backwards() -> None:
    job = job_after(queued(5), Message(JOB, Kind.STARTED, 6, at(3), said(6, Started, 1, 5).body))
    assert job.updated_at == at(5)


def test_a_release_goes_on_from_the_failure_that_it_follows() -> None:
    failed = job_after(waiting(1), released(2), said(3, Started, 1, 2), said(4, Failed, 1, 2, errors=(error(1),)))
    continued = Continued(attempt=1, errors=(error(1),), progress=30, message="a third")
    again = fold(failed, released(5, event_seq=4, continues=continued))
    assert again is not None
    assert (again.status, again.attempt, again.errors) == (S.QUEUED, 1, (error(1),))
    assert (again.progress, again.progress_message, again.submission_seq) == (30, "a third", 5)
    second = fold(again, said(6, Started, 2, 5, errors=(error(1),)))
    assert second is not None
    assert (second.status, second.attempt) == (S.PROCESSING, 2)


def test_a_second_release_and_one_that_an_event_has_overtaken_change_nothing() -> None:
    once = job_after(waiting(1), released(2))
    assert fold(once, released(3)) is once
    cancelled = job_after(waiting(1), tell(2, Cancelled(submission=1)))
    assert fold(cancelled, released(3)) is cancelled
    edited = job_after(waiting(1), tell(2, Edited(submission=1, spec=spec(gate=Gate()))))
    assert fold(edited, released(3)) is edited
    assert job_after(released(4, event_seq=2), job=edited).status is S.QUEUED


def test_an_edit_takes_back_what_was_queued_whatever_submission_it_was_written_for() -> None:
    changed = spec(gate=Gate(), tags=("a",))
    edited = job_after(
        waiting(1), released(2), tell(3, Edited(submission=1, spec=changed, changed=("tags",), actor="ada"))
    )
    assert (edited.status, edited.spec.tags, edited.changed, edited.actor) == (S.WAITING, ("a",), ("tags",), "ada")
    assert fold(edited, said(4, Started, 1, 2)) is edited
    again = job_after(released(5, event_seq=3), job=edited)
    assert (again.status, again.changed) == (S.QUEUED, ())


def test_an_edit_is_all_that_is_left_of_a_schedule_that_it_has_ended() -> None:
    edited = job_after(tell(2, Edited(submission=1, spec=spec(run_at=at(9000)), changed=("runAt",))))
    assert (edited.status, edited.run_at, edited.event_seq) == (S.WAITING, at(9000), 2)
    body = Submission(spec=spec(run_at=at(9000)), event_seq=2, after_edit=True)
    held = job_after(Message(JOB, Kind.SCHEDULED, 3, at(3), body), job=edited)
    assert (held.status, held.run_at) == (S.SCHEDULED, at(9000))


def test_what_an_earlier_release_has_not_kept_of_a_job_that_it_cancelled_is_lost_in_every_index_alike() -> None:
    held_back = waiting(1, after=("a",), concurrency_key="k", tags=("t",))
    cancelled = tell(2, Cancelled(submission=1, spec=spec(tags=("t",))))
    assert job_after(held_back, cancelled) == job_after(cancelled)


def test_why_the_system_has_cancelled_a_job_is_told_until_it_is_retried() -> None:
    cancelled = job_after(queued(1), tell(2, Cancelled(submission=1, reason="It had not started in time.")))
    assert cancelled.cancel_reason == "It had not started in time."
    assert job_after(queued(3, event_seq=2), job=cancelled).cancel_reason is None


def test_a_retry_by_hand_is_known_through_releases_and_edits_and_no_renewal_is_one() -> None:
    cancelled = job_after(waiting(1), tell(2, Cancelled(submission=1)))
    assert not cancelled.again
    retried = job_after(waiting(3, event_seq=2), job=cancelled)
    edited = job_after(tell(4, Edited(submission=3, spec=spec(gate=Gate()))), job=retried)
    assert job_after(released(5, event_seq=4), job=edited).again
    assert not job_after(queued(7, event_seq=6, after_expiry=True)).again
