"""What an index makes of a deletion, of what has crossed it, and of jobs that others wait for."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gql_jobs.index.index import Index, open_index
from gql_jobs.index.reader import open_reader
from gql_jobs.jobs.messages import Cancelled, Completed, Expired, Kind, Message, Started
from gql_jobs.jobs.model import JobStatus
from tests.rows import rows
from tests.stories import BEGAN, JOB, OTHER, at, queued, released, said, scheduled, tell, waiting

DELETED = [queued(1), tell(5, Expired(event_seq=1, deleted=True))]
GHOSTS = [queued(6), released(6), queued(6, event_seq=3), scheduled(6), waiting(6), queued(6, event_seq=4)]


def _open(path: Path) -> Any:
    return open_index(path, "2026-01-31T12:00:00Z", 1000, 1e9)


def _remains(index: Index) -> list[str]:
    return index.with_remains(BEGAN, 10)


@pytest.mark.parametrize("ghost", GHOSTS)
@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_submission_that_has_crossed_a_deletion_makes_no_job_however_the_index_came_by_it(
    tmp_path: Path, ghost: Message, cut: int
) -> None:
    story = [*DELETED, ghost]
    with _open(tmp_path / "whole") as index:
        for start in range(0, 3, cut):
            batch = story[start : start + cut]
            assert not [e for e in index.apply(batch, batch[-1].seq) if e.cursor.seq == 6]
        assert index.job(JOB) is None
        assert index.jobs == 0
    with _open(tmp_path / "anew") as index:
        # As an index that is built later finds it: what came before the event is deleted.
        index.apply(story[1:], 6)
        assert index.job(JOB) is None


def test_what_may_be_left_of_a_deleted_job_is_known_until_it_is_cleared_and_again_when_more_comes(
    tmp_path: Path,
) -> None:
    with _open(tmp_path / "index") as index:
        index.apply(DELETED, 5)
        assert _remains(index) == [JOB]
        index.forget_expired([JOB], 5, at(6))
        assert _remains(index) == []
        index.apply([queued(6)], 6)
        assert index.job(JOB) is None
        assert _remains(index) == [JOB]
        index.forget_expired([JOB], 5, at(7))
        assert _remains(index) == [JOB]
        index.forget_expired([JOB], 6, at(7) + timedelta(days=1))
    assert rows(tmp_path / "index")["expired"] == []


def test_what_may_be_left_of_an_expired_job_is_looked_for_later(tmp_path: Path) -> None:
    with _open(tmp_path / "index") as index:
        index.apply([queued(1), tell(5, Expired(event_seq=1))], 5)
        assert _remains(index) == []
        assert index.with_remains(at(6), 10) == [JOB]
        index.forget_expired([JOB], 5, at(6))
        assert index.with_remains(at(6), 10) == []
    assert rows(tmp_path / "index")["expired"] == []


def test_a_creation_under_the_key_of_a_deleted_job_is_no_ghost(tmp_path: Path) -> None:
    with _open(tmp_path / "index") as index:
        index.apply([*DELETED, queued(6), queued(7, event_seq=5, after_expiry=True)], 7)
        job = index.job(JOB)
        assert job is not None
        assert (job.status, job.submission_seq) == (JobStatus.QUEUED, 7)
        index.apply([said(8, Started, 1, 7), queued(9, event_seq=1)], 9)
        job = index.job(JOB)
        assert job is not None
        assert job.status is JobStatus.PROCESSING


def test_a_creation_after_the_event_is_gone_is_no_ghost(tmp_path: Path) -> None:
    with _open(tmp_path / "index") as index:
        index.apply(DELETED, 5)
        index.forget_expired([JOB], 5, at(6))
        late = queued(6)
        index.apply([Message(JOB, Kind.QUEUED, 6, at(5) + timedelta(days=7, seconds=1), late.body)], 6)
        assert index.job(JOB) is not None


def test_a_retry_of_which_a_full_store_has_left_nothing_else_makes_the_job(tmp_path: Path) -> None:
    with _open(tmp_path / "index") as index:
        index.apply([*DELETED, queued(20, event_seq=15)], 20)
        job = index.job(JOB)
        assert job is not None
        assert job.status is JobStatus.QUEUED


async def test_jobs_that_others_wait_for_do_not_expire_until_those_have_ended(tmp_path: Path) -> None:
    done = [queued(1), said(2, Started), said(3, Completed)]
    dependant = waiting(4, job_id=OTHER, after=(JOB,))
    with _open(tmp_path / "index") as index:
        index.apply(done, 3)
        async with open_reader(index) as reader:
            assert await reader.finished(at(100), 10) == [JOB]
            index.apply([dependant], 4)
            assert index.is_needed(JOB)
            assert await reader.finished(at(100), 10) == []
            index.apply([tell(5, Cancelled(submission=4), OTHER)], 5)
            assert not index.is_needed(JOB)
            assert await reader.finished(at(100), 10) == [JOB, OTHER]


def test_a_deleted_job_waits_for_none_any_more(tmp_path: Path) -> None:
    with _open(tmp_path / "index") as index:
        index.apply([waiting(4, job_id=OTHER, after=(JOB,)), tell(5, Expired(deleted=True), OTHER)], 5)
        assert not index.is_needed(JOB)
        index.apply([waiting(6, job_id=OTHER, after=(JOB,), event_seq=5)], 6)
        assert index.is_needed(JOB)
        index.apply([tell(7, Expired(deleted=True), OTHER)], 7)
        assert not index.is_needed(JOB)
    assert rows(tmp_path / "index")["dependencies"] == []
