"""Jobs that messages speak of are found, in memory or not."""

from pathlib import Path

import pytest
from msgspec import Raw

from gql_jobs.index.index import Index, open_index
from gql_jobs.jobs.messages import Cancelled, Kind, Message, Started
from gql_jobs.jobs.model import JobStatus
from tests.stories import JOB, OTHER, at, queued, said, tell

CREATED = "2026-01-31T12:00:00Z"


def test_more_jobs_than_are_cached_are_all_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gql_jobs.index.index._MAX_RECENT", 3)
    ids = [OTHER[:-2] + f"{n:02}" for n in range(10)]
    with open_index(tmp_path / "index.sqlite", CREATED, 1000, 86_400) as index:
        for seq, job_id in enumerate(ids, 1):
            index.apply([queued(seq, job_id=job_id)], seq)
        assert [_status(index, job_id) for job_id in ids] == [JobStatus.QUEUED] * 10
        index.apply([Message(ids[0], Kind.STARTED, 11, at(2), said(2, Started).body)], 11)
        assert [_status(index, job_id) for job_id in ids[:2]] == [JobStatus.PROCESSING, JobStatus.QUEUED]


def test_a_job_that_is_not_in_memory_is_found_whatever_submission_its_message_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gql_jobs.index.index._MAX_RECENT", 0)
    retried = [queued(1), tell(2, Cancelled(submission=1)), queued(3, event_seq=2), queued(4, job_id=OTHER)]
    with open_index(tmp_path / "index.sqlite", CREATED, 1000, 86_400) as index:
        index.apply(retried, 4)
        index.apply([said(5, Started, submission=3)], 5)
        assert (_status(index, JOB), _status(index, OTHER)) == (JobStatus.PROCESSING, JobStatus.QUEUED)
        others = Message(OTHER, Kind.STARTED, 6, at(6), said(6, Started, submission=1).body)
        index.apply([others], 6)
        assert (_status(index, JOB), _status(index, OTHER)) == (JobStatus.PROCESSING, JobStatus.QUEUED)


def test_jobs_in_memory_are_bounded_by_their_size_and_found_in_the_file_beyond_it(tmp_path: Path) -> None:
    ids = [OTHER[:-2] + f"{n:02}" for n in range(60)]
    with open_index(tmp_path / "index.sqlite", CREATED, 1000, 86_400) as index:
        for seq, job_id in enumerate(ids, 1):
            index.apply([queued(seq, job_id=job_id, payload=Raw(b'"%s"' % (b"x" * 1_000_000)))], seq)
        kept = list(index._recent.values())  # noqa: SLF001
        assert 0 < sum(known.job.weight for known in kept) <= 32 << 20
        assert kept[-1].job.id == ids[-1]
        assert [_status(index, job_id) for job_id in ids] == [JobStatus.QUEUED] * 60
        assert sum(known.job.weight for known in kept) == index._recent_bytes  # noqa: SLF001


def test_messages_about_large_jobs_are_applied_in_portions_that_fit_into_memory(tmp_path: Path) -> None:
    ids = [OTHER[:-2] + f"{n:02}" for n in range(60)]
    created = [
        queued(seq, job_id=job_id, payload=Raw(b'"%s"' % (b"x" * 1_000_000))) for seq, job_id in enumerate(ids, 1)
    ]
    started = [
        Message(job_id, Kind.STARTED, 60 + seq, at(60 + seq), said(60 + seq, Started, 1, seq).body)
        for seq, job_id in enumerate(ids, 1)
    ]
    path = tmp_path / "index.sqlite"
    with open_index(path, CREATED, 1000, 86_400) as index:
        index.apply(created, 60)
    with open_index(path, CREATED, 1000, 86_400) as index:
        portions = list(index.portions(started))
        assert [message for portion in portions for message in portion] == started
        assert 1 < max(map(len, portions)) <= 8
        for portion in portions:
            index.apply(portion, portion[-1].seq)
        assert [_status(index, job_id) for job_id in ids] == [JobStatus.PROCESSING] * 60
        assert list(index.portions([])) == [[]]


def _status(index: Index, job_id: str) -> JobStatus | None:
    job = index.job(job_id)
    return job.status if job is not None else None
