"""The index file: what it holds, when it is resumed and when it is begun anew."""

import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import UNSET, Raw, UnsetType
from msgspec.structs import fields, replace

from gql_jobs.index.index import UnreadableMessage, open_index
from gql_jobs.index.tables import FORMAT, UNREAD, new_row, row_state, stored_job
from gql_jobs.jobs.messages import (
    Cancelled,
    Completed,
    Expired,
    Failed,
    Kind,
    Message,
    Progress,
    Receipt,
    Saved,
    Started,
)
from gql_jobs.jobs.model import Cursor, Job, JobError, JobState, JobStatus
from tests.rows import counted, rows
from tests.stories import JOB, OTHER, after, artifact, at, error, noted, queued, said, scheduled, tell

CREATED = "2026-01-31T12:00:00Z"
DAY = 86_400.0
STORY = [
    queued(1, tags=("a", "b")),
    said(2, Started),
    said(3, Progress, progress=5),
    said(4, Progress, progress=9),
    said(5, Failed),
    said(6, Started, 2),
    said(7, Progress, 2, progress=50),
    said(8, Completed, 2),
]

CANCELLED_IN_A_BACKOFF = [*STORY[:5], tell(90, Cancelled(submission=1))]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "index.sqlite"


def _open(path: Path, *, created: str = CREATED, last_seq: int = 1000, absence: float = DAY) -> Any:
    return open_index(path, created, last_seq, absence)


def _fill(path: Path, messages: list[Message] = STORY) -> dict[str, list[tuple[Any, ...]]]:
    with _open(path) as index:
        index.apply(messages, messages[-1].seq)
    return rows(path)


@pytest.mark.parametrize("length", range(1, len(CANCELLED_IN_A_BACKOFF) + 1))
def test_a_job_read_from_the_file_is_the_fold_of_its_messages(path: Path, length: int) -> None:
    messages = CANCELLED_IN_A_BACKOFF[:length]
    with _open(path) as index:
        index.apply(messages, length)
    with _open(path) as reopened:
        assert reopened.job(JOB) == after(*messages)


def test_a_row_keeps_every_field_of_a_job() -> None:
    told = after(*STORY)
    assert told is not None
    moments = {"updated_at": 1, "started_at": 2, "failed_at": 3, "finished_at": 4, "next_attempt_at": 5}
    job = replace(
        told,
        submission_seq=11,
        last_seq=12,
        event_seq=13,
        attempt=14,
        progress=15,
        superseded_attempt=16,
        progress_message="a message",
        worker_id="a worker",
        errors=(error(3),),
        **{name: at(second) for name, second in moments.items()},
    )
    assert _of_row(job) == job


VALUES: dict[Any, Any] = {
    str: JOB,
    int: 7,
    bool: True,
    datetime: at(7),
    JobStatus: JobStatus.RETRYING,
    str | None: "text",
    int | None: 7,
    datetime | None: at(7),
    tuple[JobError, ...]: (error(3),),
    tuple[str, ...]: ("tags",),
    Raw | UnsetType: Raw(b'{"a":[1,"b"]}'),
}
"""Of each type that a field of a job has, a value that no field has by default."""


def _of_row(job: Job) -> Job:
    """The job as its row keeps it."""
    spec, state, payload, result = new_row(1, job, row_state(job))[-4:]
    return stored_job(job.id, spec, state, payload, result)


def test_payload_and_result_are_read_only_where_they_are_asked_for() -> None:
    job = after(*STORY)
    assert job is not None
    done = replace(job, result_json=Raw(b'{"large":true}'))
    spec, state, payload, result = new_row(1, done, row_state(done))[-4:]
    assert (payload, result) == (bytes(job.spec.payload), b'{"large":true}')
    assert payload not in spec
    assert b"large" not in state
    unread = stored_job(job.id, spec, state, None, None)
    expected = replace(job, result_json=UNSET, spec=replace(job.spec, payload=UNREAD))
    assert msgspec.json.encode(unread) == msgspec.json.encode(expected)


def test_a_row_keeps_whatever_fields_a_job_has_and_another_field_is_another_format() -> None:
    told = after(*STORY)
    assert told is not None
    state = {field.name: VALUES[field.type] for field in fields(JobState)}
    assert all(state[field.name] != field.default for field in fields(JobState))
    assert FORMAT.split()[1:] == [name for name in state if name != "id"]
    job = replace(told, **state)
    kept = _of_row(job)
    assert msgspec.json.encode(kept) == msgspec.json.encode(job)
    assert kept.result is not None
    assert bytes(kept.result) == bytes(state["result_json"])


def test_a_job_is_the_fold_of_its_messages(path: Path) -> None:
    with _open(path) as index:
        index.apply(STORY, 8)
        assert index.job(JOB) == after(*STORY)
        assert index.job(OTHER) is None
    with _open(path) as index:
        job = index.job(JOB)
        assert job is not None
        assert (job.status, job.attempt, job.spec.tags) == (JobStatus.COMPLETED, 2, ("a", "b"))
        assert index.position == 8


def test_the_history_is_every_lifecycle_event_and_the_newest_progress(path: Path) -> None:
    with _open(path) as index:
        index.apply(STORY, 8)
        events = index.events(JOB)
        assert [(event.cursor.seq, event.kind) for event in events] == [
            (1, Kind.QUEUED),
            (2, Kind.STARTED),
            (5, Kind.FAILED),
            (6, Kind.STARTED),
            (7, Kind.PROGRESS),
            (8, Kind.COMPLETED),
        ]
        assert [event.job.attempt for event in events] == [0, 1, 1, 2, 2, 2]
        latest = index.latest_event(JOB)
        assert latest is not None
        assert latest.cursor == Cursor(8)
        assert (index.events(OTHER), index.latest_event(OTHER)) == ([], None)
        assert (index.first_seq(JOB), index.first_seq(OTHER)) == (1, 1)


@pytest.mark.parametrize("cut", range(1, 8))
def test_however_the_messages_are_cut_into_batches_the_rows_are_the_same(tmp_path: Path, cut: int) -> None:
    whole = _fill(tmp_path / "whole")
    with _open(tmp_path / "cut") as index:
        index.apply(STORY[:cut], cut)
    with _open(tmp_path / "cut") as index:
        assert index.position == cut
        index.apply(STORY[cut:], 8)
    assert rows(tmp_path / "cut") == whole


def test_counters_agree_with_the_rows_they_count(path: Path) -> None:
    others = [queued(9 + n, job_id=OTHER[:-2] + f"{n:02}", queue=("a", "b")[n % 2]) for n in range(10)]
    _fill(path, [*STORY, *others, said(30, Started)])
    assert counted(path)[0] == counted(path)[1]
    assert sum(counted(path)[0].values()) == 11


def test_an_expiry_removes_everything_of_the_job_and_nothing_of_others(path: Path, tmp_path: Path) -> None:
    other = queued(9, job_id=OTHER, tags=("a",))
    with _open(path) as index:
        index.apply([*STORY, tell(10, Saved(artifact=artifact())), other], 10)
        assert index.artifact(JOB, "a.txt") == artifact()
        index.apply([tell(11, Expired(submission=1))], 11)
        assert (index.job(JOB), index.events(JOB), index.artifacts(JOB)) == (None, [], [])
        assert index.horizon == 8
    left = rows(path)
    assert [row[0] for row in left.pop("expired")] == [JOB]
    with _open(tmp_path / "alone") as index:
        index.apply([other], 11)
    alone = rows(tmp_path / "alone")
    alone.pop("expired")
    left["meta"] = [row for row in left["meta"] if row[0] != "horizon"]
    alone["meta"] = [row for row in alone["meta"] if row[0] != "horizon"]
    left["counts"] = [row for row in left["counts"] if row[-1]]
    # What happened by the minute outlives the jobs.
    for figures in ("minutes", "minutes_began"):
        assert left.pop(figures) != alone.pop(figures)
    assert left == alone


def test_a_job_that_is_created_ends_and_expires_within_one_batch_leaves_nothing(path: Path) -> None:
    with _open(path) as index:
        events = index.apply([*STORY, tell(9, Expired(submission=1))], 9)
        assert events == []
        assert (index.job(JOB), index.events(JOB)) == (None, [])
    assert sum(counted(path)[0].values()) == 0


def test_an_index_that_came_after_an_expiry_knows_that_events_are_missing(tmp_path: Path) -> None:
    expired = Expired(event_seq=8)
    with _open(tmp_path / "live") as live, _open(tmp_path / "late") as late:
        live.apply([*STORY, tell(20, expired)], 20)
        late.apply([tell(20, expired)], 20)
        assert live.horizon == late.horizon == 8
        late.apply([tell(21, Expired(submission=1), OTHER)], 21)
        assert late.horizon == 21, "one that does not say where its events ended"
    with _open(tmp_path / "late") as late:
        assert late.horizon == 21


def test_a_job_renewed_within_the_batch_of_its_expiry_is_there(path: Path) -> None:
    with _open(path) as index:
        index.apply(STORY, 8)
        renewed = queued(10, event_seq=9, after_expiry=True, tags=("b", "c"))
        events = index.apply([tell(9, Expired(submission=1)), renewed], 10)
        assert [event.kind for event in events] == [Kind.QUEUED]
        assert [event.cursor.seq for event in index.events(JOB)] == [10]
    assert sorted(row[1] for row in rows(path)["tags"]) == ["b", "c"]
    assert counted(path)[0] == counted(path)[1]


def test_a_scheduled_job_has_one_schedule_in_its_history_however_much_of_it_was_seen(tmp_path: Path) -> None:
    fired = queued(2, run_at=scheduled(1).body.spec.run_at)
    for name, messages in (("seen", [scheduled(1), fired]), ("gone", [fired])):
        with _open(tmp_path / name) as index:
            index.apply(messages, 2)
            assert [event.kind for event in index.events(JOB)] == [Kind.SCHEDULED, Kind.QUEUED]
            assert index.events(JOB)[-1].cursor == Cursor(2, 1)


def test_the_index_of_another_stream_is_begun_anew(path: Path) -> None:
    _fill(path)
    with _open(path, created="2026-02-01T00:00:00Z") as index:
        assert (index.position, index.job(JOB)) == (0, None)


def test_an_index_that_knows_more_than_the_stream_is_begun_anew(path: Path) -> None:
    _fill(path)
    with _open(path, last_seq=8) as index:
        assert index.position == 8
    with _open(path, last_seq=7) as index:
        assert (index.position, index.job(JOB)) == (0, None)
        index.apply(STORY, 8)
        assert index.job(JOB) is not None


def test_an_index_that_was_away_too_long_to_have_heard_of_every_expiry_is_begun_anew(path: Path) -> None:
    _fill(path)
    with _open(path) as index:
        assert not index.away_since(datetime.now(UTC) - timedelta(hours=1))
    database = sqlite3.connect(path)
    with database:
        database.execute("UPDATE meta SET value = '1' WHERE key = 'applied'")
    database.close()
    with _open(path) as index:
        assert (index.position, index.job(JOB)) == (0, None)


@pytest.mark.parametrize("damage", [b"", b"garbage" * 1000, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_file_that_cannot_be_read_is_begun_anew(path: Path, damage: bytes) -> None:
    _fill(path)
    path.write_bytes(damage)
    with _open(path) as index:
        assert (index.position, index.job(JOB)) == (0, None)
        index.apply(STORY, 8)
    assert rows(path) == _fill(path.with_name("other"))


def test_an_index_of_another_format_is_begun_anew(path: Path) -> None:
    _fill(path)
    database = sqlite3.connect(path)
    with database:
        database.execute("UPDATE meta SET value = '0' WHERE key = 'format'")
        database.execute("DROP TABLE counts")
    database.close()
    with _open(path) as index:
        assert index.position == 0


def test_a_batch_that_fails_changes_nothing(path: Path) -> None:
    before = _fill(path, STORY[:2])
    with _open(path) as index:
        refuse = "CREATE TEMP TRIGGER full BEFORE INSERT ON unreadable BEGIN SELECT raise(ABORT, 'full'); END"
        index._database.execute(refuse)  # noqa: SLF001
        with pytest.raises(sqlite3.IntegrityError, match="full"):
            index.apply(STORY[2:], 8, [UnreadableMessage(8, "jobs.x", "why")])
        index._database.execute("DROP TRIGGER full")  # noqa: SLF001
        assert index.position == 2
        job = index.job(JOB)
        assert job is not None
        assert job.last_seq == 2
    assert rows(path) == before


def test_what_nobody_can_read_is_counted_and_passed_over(path: Path) -> None:
    with _open(path) as index:
        index.apply(STORY, 9, [UnreadableMessage(9, "jobs.x", "why")])
        index.apply([], 9, [UnreadableMessage(9, "jobs.x", "why")])
        assert (index.unreadable, index.position) == (1, 9)


def test_the_receipts_of_a_cancellation_stay_until_the_job_expires(path: Path) -> None:
    story = [
        *(queued(1), said(2, Started), tell(3, Cancelled(submission=1))),
        *(noted(4, Receipt.DELIVERED, 3), noted(5, Receipt.KILLED, 3), noted(6, Receipt.STOPPED, 2)),
    ]
    with _open(path) as index:
        assert index.apply([*story, noted(7, Receipt.STOPPED, 3, OTHER)], 7)[-1].kind is Kind.CANCELLED
        assert index.job(JOB) == after(*story[:3])
        assert [(n.receipt, n.at) for n in index.notes(JOB, 3)] == [(Receipt.DELIVERED, at(4)), (Receipt.KILLED, at(5))]
        assert index.notes(OTHER, 3) == []
        index.apply([tell(8, Expired(submission=1))], 8)
        assert index.notes(JOB, 3) == []
    assert rows(path)["notes"] == []
