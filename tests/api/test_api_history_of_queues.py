"""Queue.history: what happened in a queue, minute by minute."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gql_jobs.settings import Settings
from tests.api.operations import create, ended
from tests.deadline import until
from tests.running import RunningWorker
from tests.serving import Data, ServedApi, serving

HISTORY = """query ($minutes: Int) { queues { name history(minutes: $minutes) {
  at created started completed failed deadLettered startDelayP50Ms startDelayP95Ms runP50Ms runP95Ms
} } }"""
COUNTED = """query ($minutes: Int) { queues { name history(minutes: $minutes) {
  created started completed failed deadLettered
} } }"""
"""Few fields, because the queues of all job types of the tests are asked for a day of minutes."""
COUNTS = ("created", "started", "completed", "failed", "deadLettered")


async def _history(
    api: ServedApi, minutes: int | None = None, queue: str = "default", query: str = HISTORY
) -> list[Data]:
    queues = (await api.ask(query, minutes=minutes))["queues"]
    found: list[Data] = next(one["history"] for one in queues if one["name"] == queue)
    return found


def _total(history: list[Data]) -> tuple[Any, ...]:
    return tuple(sum(minute[name] for minute in history) for name in COUNTS)


async def test_what_happened_is_told_by_the_minute_on_every_process_and_after_a_restart(
    api: ServedApi, settings: Settings, worker: RunningWorker, tmp_path: Path
) -> None:
    assert worker.task is not None
    jobs = [await create(api, {"seconds": 0.2}), await create(api, {"failAttempts": 1})]
    jobs.append(await create(api, {"permanent": True}))
    for job, status in zip(jobs, ("COMPLETED", "COMPLETED", "DEAD_LETTER"), strict=True):
        await ended(api, job["id"], status)
    history = await _history(api)
    assert len(history) == 60
    assert _total(history) == (3, 4, 2, 1, 1)
    starts = [datetime.fromisoformat(minute["at"]) for minute in history]
    assert all(later - earlier == timedelta(minutes=1) for earlier, later in pairwise(starts))
    assert timedelta(0) <= datetime.now(UTC) - starts[-1] < timedelta(minutes=2)
    (busiest, *_) = sorted(history, key=lambda minute: -minute["started"])
    assert 0 < busiest["startDelayP50Ms"] <= busiest["startDelayP95Ms"] < 60_000
    assert 0 < busiest["runP50Ms"] <= busiest["runP95Ms"] < 60_000
    assert history[0]["startDelayP50Ms"] is history[0]["runP95Ms"] is None
    assert _total(await _history(api, queue="cpu")) == (0,) * 5
    happened = [minute for minute in history if any(minute[name] for name in COUNTS)]
    for folder in (tmp_path / "other", settings.data_dir / "again"):
        async with serving(settings.model_copy(update={"data_dir": folder})) as other:

            async def agrees(other: ServedApi = other) -> bool:
                told = await _history(other)
                return [minute for minute in told if any(minute[name] for name in COUNTS)] == happened

            await until(agrees, "the other process tells the same")


@pytest.mark.parametrize("minutes", [0, -1, 1441])
async def test_a_history_has_a_length_within_limits(api: ServedApi, minutes: int) -> None:
    refusal = await api.refusal(HISTORY, minutes=minutes)
    assert refusal["extensions"] == {"code": "INVALID_ARGUMENT", "argument": "minutes"}


async def test_minutes_in_which_nothing_happened_are_there_with_zeros(api: ServedApi) -> None:
    for minutes in (1, 1440):
        history = await _history(api, minutes, query=COUNTED)
        assert (len(history), _total(history)) == (minutes, (0,) * 5)
