"""What a tally counts, and what it takes for history."""

from collections.abc import Sequence

from gql_jobs.jobs.fold import Event, events_of, fold
from gql_jobs.jobs.messages import Cancelled, Completed, DeadLetter, Failed, Message, Released, Started
from gql_jobs.jobs.model import Job
from gql_jobs.live.tally import UNKNOWN, Tally
from gql_jobs.metrics import Histogram
from tests.stories import queued, said, scheduled, tell

TYPE = ("email",)


def _events(messages: Sequence[Message]) -> list[Event]:
    jobs: dict[str, Job | None] = {}
    events: list[Event] = []
    for message in messages:
        before = jobs.get(message.job_id)
        jobs[message.job_id] = after = fold(before, message)
        events += events_of(before, message, after)
    return events


def _tally(*messages: Message, after: int = 0, types: Sequence[str] = TYPE) -> Tally:
    tally = Tally(types, after)
    tally.count(_events(messages))
    return tally


def _observed(histogram: Histogram) -> tuple[float, float]:
    """How many values, and their sum."""
    return histogram.buckets()[-1][1], histogram.sum


PROBE = ("probe",)


def test_a_job_is_counted_at_each_step() -> None:
    tally = _tally(
        queued(1), said(2, Started), said(5, Failed), said(9, Started, 2), said(10, Completed, 2), types=PROBE
    )
    assert (tally.created[PROBE], tally.started[PROBE], tally.retries[PROBE]) == (1, 2, 1)
    assert tally.finished["probe", "COMPLETED"] == 1
    assert _observed(tally.time_to_start[PROBE]) == (1, 2.0)
    assert _observed(tally.run_time["probe", "RETRYING"]) == (1, 3.0)
    assert _observed(tally.run_time["probe", "COMPLETED"]) == (1, 1.0)


def test_what_the_stream_held_before_is_no_news() -> None:
    messages = queued(1), said(2, Started), said(5, Failed), said(9, Started, 2), said(10, DeadLetter, 2)
    tally = _tally(*messages, after=9, types=PROBE)
    assert (tally.created[PROBE], tally.started[PROBE], tally.retries[PROBE]) == (0, 0, 0)
    assert tally.finished["probe", "DEAD_LETTER"] == 1


def test_an_index_that_is_built_anew_counts_nothing_twice() -> None:
    history = _events([queued(1), said(2, Started), said(5, Completed)])
    tally = Tally(PROBE, 0)
    tally.count(history[:2])
    tally.count(history)
    assert (tally.created[PROBE], tally.started[PROBE], tally.finished["probe", "COMPLETED"]) == (1, 1, 1)


def test_a_job_with_a_date_is_created_once_and_waits_from_its_date_on() -> None:
    due = 3600
    tally = _tally(
        scheduled(1),
        queued(due, run_at=queued(due).at),
        said(due + 3, Started, submission=due),
        types=PROBE,
    )
    assert (tally.created[PROBE], tally.started[PROBE]) == (1, 1)
    assert _observed(tally.time_to_start[PROBE]) == (1, 3.0)


def test_a_job_that_is_retried_by_hand_is_not_created_anew_and_waits_from_then_on() -> None:
    first = queued(1), said(2, Started), said(3, DeadLetter)
    tally = _tally(*first, queued(100, event_seq=3), said(104, Started, submission=100), types=PROBE)
    assert (tally.created[PROBE], tally.started[PROBE]) == (1, 2)
    assert _observed(tally.time_to_start[PROBE]) == (2, 2.0 + 4.0)


def test_a_job_that_is_handed_back_waits_from_then_on() -> None:
    tally = _tally(queued(1), said(2, Started), said(50, Released), said(51, Started), types=PROBE)
    assert _observed(tally.time_to_start[PROBE]) == (2, 2.0 + 1.0)


def test_a_lost_attempt_counts_as_superseded() -> None:
    tally = _tally(queued(1), said(2, Started), said(9, Started, 2, supersedes=1), tell(10, Cancelled()), types=PROBE)
    assert tally.superseded[PROBE] == 1
    assert tally.finished["probe", "CANCELLED"] == 1


def test_types_that_are_not_known_share_a_label() -> None:
    tally = _tally(queued(1), said(2, Started), said(3, Completed))
    assert (tally.created[UNKNOWN,], tally.finished[UNKNOWN, "COMPLETED"]) == (1, 1)
    assert PROBE not in tally.created
