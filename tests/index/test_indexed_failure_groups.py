"""Groups of dead letters in the index: they follow what becomes of the jobs, and are the tenant's own."""

from typing import Any

from gql_jobs.jobs.messages import DeadLetter, Expired, Message, Started
from gql_jobs.jobs.model import failure_group, new_job_id
from gql_jobs.jobs.requests import JobFilter
from gql_jobs.jobs.viewer import Visibility
from tests.library import Library
from tests.stories import at, error, queued, said, tell


class _Story:
    def __init__(self, library: Library) -> None:
        self._library = library
        self.seq = 0

    def _next(self) -> int:
        self.seq += 1
        return self.seq

    def dead(self, message: str, **asked: Any) -> str:
        """A job that has failed for good."""
        job_id = new_job_id()
        first = self._next()
        messages: list[Message] = [queued(first, job_id=job_id, **asked)]
        for kind, facts in ((Started, {}), (DeadLetter, {"errors": (error(1, message),)})):
            told = said(self._next(), kind, 1, first, **facts)
            messages.append(tell(told.seq, told.body, job_id))
        self._library.tell(*messages)
        return job_id

    def retried(self, job_id: str) -> None:
        """It is queued again by hand."""
        job = self._library.index.job(job_id)
        assert job is not None
        self._library.tell(queued(self._next(), job_id=job_id, event_seq=job.event_seq))

    def gone(self, job_id: str) -> None:
        """It has expired."""
        self._library.tell(tell(self._next(), Expired(submission=1), job_id))


async def _groups(library: Library, job_filter: JobFilter | None = None) -> list[tuple[int, str]]:
    """How many there are in each group, and its sample."""
    found = await library.reader.failure_groups(job_filter or JobFilter(), 10)
    return [(group.jobs, group.sample) for group in found]


async def test_groups_count_the_dead_letters_that_there_are_the_largest_first(library: Library) -> None:
    story = _Story(library)
    story.dead("no room for 3")
    first = story.dead("timeout after 1 s")
    second = story.dead("timeout after 2 s")
    (large, small) = await library.reader.failure_groups(JobFilter(), 10)
    assert (large.jobs, large.sample, small.jobs) == (2, second, 1)
    job, last = library.index.job(first), library.index.job(second)
    assert job is not None
    assert last is not None
    assert (large.first_at, large.last_at) == (job.finished_at, last.finished_at) == (at(6), at(9))
    group = failure_group(job)
    assert group is not None
    assert large.key == group.key
    assert [one.key for one in await library.reader.failure_groups(JobFilter(), 1)] == [large.key]


async def test_a_job_that_is_retried_or_expires_leaves_its_group_and_comes_back_where_it_fails_again(
    library: Library,
) -> None:
    story = _Story(library)
    first, second = story.dead("timeout after 1 s"), story.dead("timeout after 2 s")
    story.retried(second)
    assert await _groups(library) == [(1, first)]
    story.gone(first)
    assert await _groups(library) == []


async def test_a_filter_by_a_group_finds_its_jobs_in_pages_counts_and_live(library: Library) -> None:
    story = _Story(library)
    inside = {story.dead("timeout after 1 s"), story.dead("timeout after 2 s", tenant="red")}
    story.dead("no room")
    (group, _) = await library.reader.failure_groups(JobFilter(), 10)
    for visibility, expected in ((Visibility(), 2), (Visibility("red"), 1)):
        wanted = JobFilter(failure_group=group.key, visibility=visibility)
        found = await library.reader.ids(wanted, 10)
        assert set(found) <= inside
        assert len(found) == await library.reader.count(wanted) == expected
        assert all(wanted.matches(job) for job_id in found if (job := library.index.job(job_id)) is not None)


async def test_a_tenant_sees_groups_of_its_own_dead_letters_alone(library: Library) -> None:
    story = _Story(library)
    red = story.dead("timeout after 1 s", tenant="red")
    story.dead("timeout after 2 s", tenant="blue")
    story.dead("timeout after 3 s")
    assert await _groups(library, JobFilter(visibility=Visibility("red"))) == [(1, red)]
    assert [number for number, _ in await _groups(library)] == [3]
