"""Any order of legal and illegal messages: what holds however badly the writers behave."""

from hypothesis import given, settings
from hypothesis import strategies as st

from gql_jobs.jobs.fold import MOVES, events_of, fold
from gql_jobs.jobs.messages import (
    AttemptBody,
    Cancelled,
    Completed,
    DeadLetter,
    Expired,
    Failed,
    Kind,
    Message,
    Progress,
    Released,
    Started,
)
from gql_jobs.jobs.model import Job
from tests.stories import queued, said, scheduled, spec, tell

WORDS: list[type[AttemptBody]] = [Started, Progress, Completed, Failed, DeadLetter, Released]
ENDS = frozenset({Kind.COMPLETED, Kind.DEAD_LETTER, Kind.CANCELLED})


@st.composite
def messages(draw: st.DrawFn, seq: int, job: Job | None) -> Message:
    """Mostly what the job's present state makes likely, sometimes anything."""
    wild = draw(st.integers(0, 9)) == 0 or job is None
    submission = draw(st.integers(0, seq)) if wild or job is None else job.submission_seq
    attempt = draw(st.integers(0, 4)) if wild or job is None else job.attempt
    event_seq = draw(st.integers(0, seq)) if wild or job is None else job.event_seq
    match draw(st.integers(0, 9)):
        case 0:
            return queued(seq, event_seq=event_seq, after_expiry=draw(st.booleans()))
        case 1:
            return scheduled(seq, event_seq=event_seq)
        case 2:
            return tell(seq, Cancelled(submission=submission, spec=draw(st.sampled_from([None, spec()]))))
        case 3:
            return tell(seq, Expired(submission=submission))
        case _:
            kind = draw(st.sampled_from(WORDS))
            return said(seq, kind, attempt + (kind is Started), submission)


@settings(deadline=None)
@given(st.data())
def test_every_history_leaves_a_legal_state_and_one_end_a_submission(data: st.DataObject) -> None:
    job: Job | None = None
    ends: dict[int, int] = {}
    cursors = []
    for seq in range(1, data.draw(st.integers(1, 40), label="messages") + 1):
        message = data.draw(messages(seq, job))
        after = fold(job, message)
        before = job.status if job is not None else None
        if after is not job:
            assert MOVES[before, message.kind] == (after.status if after is not None else None)
        events = events_of(job, message, after)
        cursors += [event.cursor for event in events]
        if after is not None and after is not job:
            assert after.last_seq == seq
            assert after.event_seq <= seq
            assert after.submission_seq <= seq
            assert after.attempt >= 0
            assert (after.finished_at is not None) is after.status.is_terminal
            if message.kind in ENDS:
                ends[after.submission_seq] = ends.get(after.submission_seq, 0) + 1
        if after is None:
            ends.clear()
        job = after
    assert cursors == sorted(set(cursors))
    assert set(ends.values()) <= {1}
