"""Which jobs a filter means."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from gql_jobs.jobs.model import JobPriority, JobStatus
from gql_jobs.jobs.requests import JobFilter
from tests.stories import BEGAN, JOB, OTHER, job_after, queued

MOMENT = timedelta(microseconds=1)
STEERED: dict[str, Any] = {"schedule": "nightly", "key": "shop 7", "concurrency_key": "acme"}
WHOLE = job_after(queued(1, tags=("a", "b"), priority=JobPriority.HIGH, parent=OTHER, **STEERED))


def _filter(parts: dict[str, Any]) -> JobFilter:
    given: dict[str, Any] = {name: frozenset(p) if isinstance(p, tuple) else p for name, p in parts.items()}
    return JobFilter(**given)


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"ids": (OTHER, JOB)},
        {"status": (JobStatus.QUEUED, JobStatus.COMPLETED)},
        {"type": ("probe", "email")},
        {"queue": ("default",)},
        {"priority": (JobPriority.HIGH,)},
        {"tags": ("a",)},
        {"tags": ("b", "a")},
        {"created_after": BEGAN - MOMENT},
        {"created_before": BEGAN + MOMENT},
        {"parent": OTHER},
        {"schedule": "nightly"},
        {"key": "shop 7"},
        {"concurrency_key": "acme"},
        {"ids": (JOB,), "status": (JobStatus.QUEUED,), "tags": ("b",), "created_after": BEGAN - MOMENT},
    ],
)
def test_a_job_matches_where_every_part_does(parts: dict[str, Any]) -> None:
    assert _filter(parts).matches(WHOLE)


@pytest.mark.parametrize(
    "parts",
    [
        {"ids": (OTHER,)},
        {"status": (JobStatus.COMPLETED,)},
        {"type": ("email",)},
        {"queue": ("threads",)},
        {"priority": (JobPriority.LOW, JobPriority.NORMAL)},
        {"tags": ("a", "c")},
        {"created_after": BEGAN},
        {"created_before": BEGAN},
        {"parent": JOB},
        {"parent": ""},
        {"schedule": "Nightly"},
        {"key": "acme"},
        {"concurrency_key": ""},
        {"ids": (JOB,), "status": (JobStatus.COMPLETED,)},
    ],
)
def test_a_job_does_not_match_where_one_part_does_not(parts: dict[str, Any]) -> None:
    assert not _filter(parts).matches(WHOLE)


def test_a_filter_with_a_part_that_is_unknown_is_not_read_as_one_without() -> None:
    stored = msgspec.json.encode(JobFilter(parent=OTHER))
    assert msgspec.json.decode(stored, type=JobFilter) == JobFilter(parent=OTHER)
    with pytest.raises(msgspec.ValidationError, match="unknown field `laterPart`"):
        msgspec.json.decode(stored[:-1] + b', "laterPart": 1}', type=JobFilter)


@pytest.mark.parametrize("part", ["ids", "status", "type", "queue", "priority", "tags"])
def test_an_empty_list_matches_nothing(part: str) -> None:
    parts: dict[str, Any] = {part: ()}
    assert not _filter(parts).matches(WHOLE)
