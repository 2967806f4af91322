"""What happened in each queue minute by minute: the same for whoever has the same messages, and kept for a day."""

import random
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gql_jobs.index.index import Index, open_index
from gql_jobs.index.minutes import BOUNDS, KEPT_MINUTES, Minute, read_minutes
from gql_jobs.index.tables import Loss, create_index_file, minute_at, minute_of, open_read_only
from gql_jobs.jobs.fold import fold
from gql_jobs.jobs.messages import (
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
    Submission,
)
from gql_jobs.jobs.model import Job, JobStatus, new_job_id
from tests.library import CREATED
from tests.stories import BEGAN, JOB, at, attempt_body, queued, said, spec, tell

QUEUES = ("a", "b")


class History:
    """A stream that jobs write to, by chance, with what is deleted of it."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.messages: list[Message] = []
        self.deleted: set[int] = set()
        self.expired: list[int] = []
        """The newest events of jobs that have expired."""
        self._now = BEGAN
        self._jobs: dict[str, Job] = {}

    def step(self) -> None:
        """Have something happen that may happen."""
        self._now += timedelta(seconds=self.chance.random() * 40)
        job = self.chance.choice([None, *self._jobs.values()])
        if job is None:
            self._create()
            return
        kinds: dict[JobStatus, tuple[Any, ...]] = {
            JobStatus.SCHEDULED: (Submission, Cancelled),
            JobStatus.QUEUED: (Started, Started, Cancelled),
            JobStatus.PROCESSING: (Progress, Completed, Completed, Failed, DeadLetter, Released, Started, Cancelled),
            JobStatus.RETRYING: (Started,),
        }
        body = self.chance.choice(kinds.get(job.status, (Expired, Submission)))
        if body is Expired:
            self._expire(job)
        elif body is Submission:
            self._submit(job)
        elif body is Cancelled:
            is_scheduled = job.status is JobStatus.SCHEDULED
            self._say(job.id, Cancelled(submission=job.submission_seq, spec=job.spec if is_scheduled else None))
            self._forget_schedule(job)
        else:
            attempt = job.attempt + (body is Started)
            self._say(job.id, attempt_body(body, attempt, job.submission_seq))

    def _create(self) -> None:
        created_at = self._now - timedelta(milliseconds=self.chance.randrange(2000))
        asked: dict[str, Any] = {"queue": self.chance.choice(QUEUES), "created_at": created_at}
        is_scheduled = self.chance.random() < 0.3
        if is_scheduled:
            asked["run_at"] = self._now + timedelta(seconds=60)
        self._write(new_job_id(), Kind.SCHEDULED if is_scheduled else Kind.QUEUED, Submission(spec=spec(**asked)))

    def _submit(self, job: Job) -> None:
        if job.status is JobStatus.COMPLETED:
            return
        self._write(job.id, Kind.QUEUED, Submission(spec=job.spec, event_seq=job.event_seq))
        if job.status is JobStatus.SCHEDULED:
            self._forget_schedule(job)

    def _forget_schedule(self, job: Job) -> None:
        if job.status is JobStatus.SCHEDULED:
            self.deleted.add(job.submission_seq)

    def _expire(self, job: Job) -> None:
        self.deleted |= {message.seq for message in self.messages if message.job_id == job.id}
        self.expired.append(job.event_seq)
        self._say(job.id, Expired(event_seq=job.event_seq))

    def _say(self, job_id: str, body: Any) -> None:
        self._write(job_id, tell(1, body, job_id).kind, body)

    def _write(self, job_id: str, kind: Kind, body: Any) -> None:
        message = Message(job_id, kind, len(self.messages) + 1, self._now, body)
        self.messages.append(message)
        after = fold(self._jobs.get(job_id), message)
        if after is None:
            del self._jobs[job_id]
        else:
            self._jobs[job_id] = after

    @property
    def left(self) -> list[Message]:
        """What the stream still has."""
        return [message for message in self.messages if message.seq not in self.deleted]

    def minute(self, seq: int) -> int:
        """The minute in which that message was stored."""
        return minute_of(self.messages[seq - 1].at)


@contextmanager
def _index(path: Path) -> Iterator[Index]:
    with open_index(path, CREATED, 0, 86_400) as index:
        yield index


def _apply(index: Index, messages: Sequence[Message], chance: random.Random) -> None:
    """Apply messages in batches of any size."""
    start = 0
    while start < len(messages):
        end = start + chance.randrange(1, 30)
        batch = messages[start:end]
        index.apply(batch, batch[-1].seq)
        start = end


def _minutes(index: Index, queue: str, first: int, last: int) -> list[Minute]:
    with closing(open_read_only(index.path)) as database:
        return read_minutes(database, queue, first, last)


@pytest.mark.parametrize("seed", range(12))
def test_an_index_that_was_rebuilt_agrees_with_one_that_saw_everything_as_far_as_it_says_anything(
    tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311
    history = History(chance)
    for _ in range(chance.choice([20, 300])):
        history.step()
    first, last = minute_of(BEGAN) - 5, minute_of(history.messages[-1].at) + 2
    with _index(tmp_path / "live") as live, _index(tmp_path / "rebuilt") as rebuilt:
        _apply(live, history.messages, chance)
        _apply(rebuilt, history.left, chance)
        known_from = first
        for queue in QUEUES:
            whole, rest = _minutes(live, queue, first, last), _minutes(rebuilt, queue, first, last)
            assert len(whole) == last - first + 1
            known_from = last + 1 - len(rest)
            assert whole[known_from - first :] == rest
            assert sum(minute.created for minute in whole) > 0
        if history.expired:
            lost = max(history.minute(seq) for seq in history.expired)
            began = {minute_of(message.at): message.seq for message in reversed(history.left)}
            after = [minute for minute, seq in began.items() if seq > max(history.expired)]
            assert lost < known_from <= min(after, default=last) + 1
        else:
            assert known_from == first


def test_figures_are_those_of_their_minute_with_times_rounded_up_by_a_fifth_at_most(tmp_path: Path) -> None:
    with _index(tmp_path / "index") as index:
        messages = [
            queued(1, queue="a"),
            said(31, Started),
            said(40, Failed),
            said(61, Started, 2),
            said(100, Completed, 2),
        ]
        index.apply(messages, 100)
        minute = minute_of(BEGAN)
        first, second = _minutes(index, "a", minute, minute + 1)
    assert first[1:6] == (1, 1, 0, 1, 0)
    assert second[1:6] == (0, 1, 1, 0, 0)
    assert first.start_delay_p50 == first.start_delay_p95
    assert 30_000 <= (first.start_delay_p50 or 0) <= 36_000
    assert 9_000 <= (first.run_p50 or 0) <= 10_800
    assert 39_000 <= (second.run_p95 or 0) <= 46_800
    assert second.start_delay_p50 is None
    assert all(high <= low * 1.2 or low < 100 for low, high in pairwise(BOUNDS))


def test_figures_outlive_their_jobs_and_a_restart_and_an_expiry_that_is_told_twice(tmp_path: Path) -> None:
    path, minute = tmp_path / "index", minute_of(BEGAN)
    with _index(path) as index:
        index.apply([queued(1, queue="a"), said(2, Started), said(3, Completed)], 3)
        before = _minutes(index, "a", minute - 1, minute)
        gone = tell(70, Expired(event_seq=3))
        index.apply([gone, replace(gone, seq=71)], 71)
        index.apply([replace(gone, seq=72)], 72)
        assert index.job(JOB) is None
        assert before[1].completed == 1
        assert _minutes(index, "a", minute - 1, minute) == before
    with open_index(path, CREATED, 72, 86_400 * 3650) as index:
        assert _minutes(index, "a", minute - 1, minute) == before


def test_an_index_that_is_begun_anew_after_a_loss_tells_nothing_of_the_time_before(tmp_path: Path) -> None:
    lost_at = at(3 * 60)
    with closing(create_index_file(tmp_path / "index", CREATED, [Loss(lost_at, "All jobs are lost.")])) as database:
        first = minute_of(lost_at)
        assert [minute.at for minute in read_minutes(database, "a", first - 2, first + 1)] == [minute_at(first + 1)]


def test_figures_are_kept_for_a_day(tmp_path: Path) -> None:
    with _index(tmp_path / "index") as index:
        index.apply([queued(1, queue="a")], 1)
        first = minute_of(at(1))
        for minutes in (KEPT_MINUTES, KEPT_MINUTES + 1):
            assert _minutes(index, "a", first, first)[0].created == 1
            late = at(1) + timedelta(minutes=minutes)
            index.apply([replace(queued(minutes, queue="a", job_id=new_job_id()), at=late)], minutes)
        assert _minutes(index, "a", first, first)[0].created == 0
