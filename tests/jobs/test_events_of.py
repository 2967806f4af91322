"""What clients see of a message."""

from msgspec import Struct

from gql_jobs.jobs.fold import Event, events_of, fold
from gql_jobs.jobs.messages import Cancelled, Completed, Expired, Kind, Message, Progress, Released, Started
from gql_jobs.jobs.model import Cursor, Job, JobStatus
from tests.stories import BEGAN, at, queued, said, scheduled, spec, tell


class Seen(Struct, frozen=True):
    """An event in short."""

    kind: Kind
    cursor: Cursor
    status: JobStatus


def _seen(*messages: Message) -> list[Seen]:
    return [Seen(event.kind, event.cursor, event.job.status) for event in _events(*messages)]


def _events(*messages: Message) -> list[Event]:
    job: Job | None = None
    events: list[Event] = []
    for message in messages:
        after = fold(job, message)
        events += events_of(job, message, after)
        job = after
    return events


def test_every_legal_message_is_one_event_with_the_job_as_of_it() -> None:
    seen = _seen(queued(1), said(2, Started), said(3, Progress, progress=5), said(4, Completed))
    assert seen == [
        Seen(Kind.QUEUED, Cursor(1), JobStatus.QUEUED),
        Seen(Kind.STARTED, Cursor(2), JobStatus.PROCESSING),
        Seen(Kind.PROGRESS, Cursor(3), JobStatus.PROCESSING),
        Seen(Kind.COMPLETED, Cursor(4), JobStatus.COMPLETED),
    ]


def test_an_illegal_message_is_no_event() -> None:
    story = (queued(1), said(2, Started), said(3, Completed))
    told = _seen(*story)
    assert _seen(*story, said(4, Progress), said(5, Completed), said(6, Started, 2), queued(7)) == told


def test_progress_of_another_attempt_is_no_event() -> None:
    assert _seen(queued(1), said(2, Started, 2), said(3, Progress, 1))[-1].kind is Kind.STARTED


def test_a_hand_back_is_seen_as_queued() -> None:
    assert _seen(queued(1), said(2, Started), said(3, Released))[-1] == Seen(Kind.QUEUED, Cursor(3), JobStatus.QUEUED)


def test_an_expiry_is_no_event() -> None:
    story = (queued(1), said(2, Started), said(3, Completed))
    assert _seen(*story, tell(4, Expired(submission=1))) == _seen(*story)


def test_a_schedule_that_was_seen_is_one_event_and_its_firing_another() -> None:
    assert _seen(scheduled(1), queued(2, run_at=at(3600))) == [
        Seen(Kind.SCHEDULED, Cursor(1), JobStatus.SCHEDULED),
        Seen(Kind.QUEUED, Cursor(2, 1), JobStatus.QUEUED),
    ]


def test_a_firing_tells_of_its_schedule_too_where_that_is_gone() -> None:
    events = _events(queued(2, run_at=at(3600)))
    assert [(event.kind, event.cursor) for event in events] == [
        (Kind.SCHEDULED, Cursor(2)),
        (Kind.QUEUED, Cursor(2, 1)),
    ]
    assert events[0].job.status is JobStatus.SCHEDULED
    assert events[0].job.updated_at == BEGAN


def test_a_cancellation_tells_of_its_schedule_too_where_that_is_gone() -> None:
    assert _seen(tell(2, Cancelled(submission=1, spec=spec(run_at=at(3600))))) == [
        Seen(Kind.SCHEDULED, Cursor(2), JobStatus.SCHEDULED),
        Seen(Kind.CANCELLED, Cursor(2, 1), JobStatus.CANCELLED),
    ]


def test_a_job_cancelled_before_its_time_and_retried_is_seen_as_queued_only() -> None:
    cancelled = tell(2, Cancelled(submission=1, spec=spec(run_at=at(3600))))
    seen = _seen(scheduled(1), cancelled, queued(3, event_seq=2, run_at=at(3600)))
    assert [event.kind for event in seen] == [Kind.SCHEDULED, Kind.CANCELLED, Kind.QUEUED]
    assert [event.cursor for event in seen] == [Cursor(1), Cursor(2, 1), Cursor(3)]


def test_only_the_end_of_a_job_is_terminal() -> None:
    events = _events(queued(1), said(2, Started), said(3, Completed))
    assert [event.is_terminal for event in events] == [False, False, True]
