"""Who caused an event: whoever created, cancelled or retried; nobody where the system did it."""

import pytest
from msgspec.structs import replace

from gql_jobs.jobs.fold import events_of, fold
from gql_jobs.jobs.messages import (
    Cancelled,
    Completed,
    DeadLetter,
    Failed,
    Kind,
    Message,
    Progress,
    Released,
    Started,
    Submission,
)
from gql_jobs.jobs.model import Job
from tests.stories import JOB, at, queued, said, spec, tell


def _actors(*messages: Message) -> list[tuple[Kind, str | None]]:
    job: Job | None = None
    found = []
    for message in messages:
        before, job = job, fold(job, message)
        found += [(event.kind, event.job.actor) for event in events_of(before, message, job)]
    return found


def _retried(seq: int, event_seq: int, actor: str | None) -> Message:
    message = queued(seq, event_seq=event_seq, created_by="ada")
    return replace(message, body=replace(message.body, actor=actor))


def test_a_creation_is_by_its_creator_and_what_workers_do_is_by_nobody() -> None:
    story = [queued(1, created_by="ada"), said(2, Started), said(3, Progress), said(4, Failed), said(5, Started, 2)]
    assert _actors(*story, said(6, Completed, 2)) == [
        (Kind.QUEUED, "ada"),
        (Kind.STARTED, None),
        (Kind.PROGRESS, None),
        (Kind.FAILED, None),
        (Kind.STARTED, None),
        (Kind.COMPLETED, None),
    ]


def test_a_cancellation_and_a_retry_are_by_whoever_asked_for_them() -> None:
    story = [queued(1, created_by="ada"), tell(2, Cancelled(submission=1, actor="bob")), _retried(3, 2, "eve")]
    story += [said(4, Started, 1, 3), said(5, DeadLetter, 1, 3), _retried(6, 5, None)]
    assert _actors(*story) == [
        (Kind.QUEUED, "ada"),
        (Kind.CANCELLED, "bob"),
        (Kind.QUEUED, "eve"),
        (Kind.STARTED, None),
        (Kind.DEAD_LETTER, None),
        (Kind.QUEUED, None),
    ]


def test_a_job_that_is_handed_back_is_queued_by_nobody() -> None:
    assert _actors(queued(1, created_by="ada"), said(2, Started), said(3, Released))[-1] == (Kind.QUEUED, None)


@pytest.mark.parametrize("known", [True, False], ids=["as it happened", "after its first message was replaced"])
def test_a_schedule_is_by_its_creator_and_queued_by_nobody(known: bool) -> None:
    body = Submission(spec=spec(run_at=at(3600), created_by="ada"))
    held = Message(JOB, Kind.SCHEDULED, 1, at(1), body)
    fired = Message(JOB, Kind.QUEUED, 2, at(3600), body)
    assert _actors(*([held] if known else []), fired) == [(Kind.SCHEDULED, "ada"), (Kind.QUEUED, None)]


def test_a_schedule_that_is_cancelled_is_by_both() -> None:
    gone = spec(run_at=at(3600), created_by="ada")
    story = tell(2, Cancelled(submission=1, spec=gone, actor="bob"))
    assert _actors(story) == [(Kind.SCHEDULED, "ada"), (Kind.CANCELLED, "bob")]


def test_of_a_job_whose_beginning_is_gone_a_retry_is_by_whoever_asked_for_it() -> None:
    assert _actors(_retried(9, 8, "eve")) == [(Kind.QUEUED, "eve")]
