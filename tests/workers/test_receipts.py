"""A cancellation is receipted: whether the handler was told, and how it ended."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from gql_jobs import JobContext
from gql_jobs.index.writer import Note
from gql_jobs.jobs.errors import InvalidState
from gql_jobs.jobs.messages import Kind, Noted, Receipt
from gql_jobs.jobs.model import Job, JobStatus
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime
from gql_jobs_worker import execution, pool
from tests.deadline import until
from tests.running import RunningWorker, running_worker, worker_process
from tests.workers.stories import (
    assert_one_end,
    create,
    create_many,
    done_with,
    ended,
    handled_by,
    history,
    reached,
    running,
)


async def _receipted(runtime: Runtime, cancelled: Job) -> list[Note]:
    """The receipts of a cancellation, once the handler has ended."""

    def there() -> list[Note]:
        notes = runtime.index.notes(cancelled.id, cancelled.event_seq)
        return notes if any(note.receipt is not Receipt.DELIVERED for note in notes) else []

    return await until(there, "the end of the handler is receipted", within=20)


async def _cancelled(runtime: Runtime, job_id: str) -> list[Receipt]:
    notes = await _receipted(runtime, await runtime.commands.cancel(job_id))
    assert [note.at for note in notes] == sorted(note.at for note in notes)
    return [note.receipt for note in notes]


@pytest.mark.parametrize(
    ("type_name", "end"),
    [("probe", Receipt.STOPPED), ("probe_thread", Receipt.STOPPED), ("probe_cpu", Receipt.KILLED)],
)
async def test_the_worker_that_runs_it_says_how_the_handler_ended(
    runtime: Runtime, settings: Settings, tmp_path: Path, type_name: str, end: Receipt
) -> None:
    async with running_worker(settings), worker_process(settings):
        await until(lambda: len(runtime.presence.workers()) == 2, "both workers are there", within=20)
        job_ids = [await create(runtime, type_name, gate=tmp_path / "never") for _ in range(4)]
        await running(runtime, *job_ids, within=20)
        ran_by = {job_id: (await reached(runtime, job_id, JobStatus.PROCESSING)).worker_id for job_id in job_ids}
        for job_id in job_ids:
            cancelled = await runtime.commands.cancel(job_id)
            notes = await _receipted(runtime, cancelled)
            assert [note.receipt for note in notes] == [Receipt.DELIVERED, end]
            assert {(note.worker_id, note.attempt) for note in notes} == {(ran_by[job_id], 1)}
            assert (notes[0].at - cancelled.updated_at).total_seconds() < 1.0
            await assert_one_end(runtime.connection, job_id)


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("type_name", ["probe", "probe_thread"])
async def test_a_handler_that_does_not_end_is_given_up(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, type_name: str
) -> None:
    monkeypatch.setattr(execution, "STOP_GRACE", 0.3)
    let_go, let_thread_go = asyncio.Event(), threading.Event()

    async def endless(_: JobContext, __: Any) -> None:
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue

    def silent(_: JobContext, __: Any) -> None:
        let_thread_go.wait()

    handled_by(monkeypatch, endless if type_name == "probe" else silent)
    job_id = await create(runtime, type_name)
    await running(runtime, job_id)
    assert await _cancelled(runtime, job_id) == [Receipt.DELIVERED, Receipt.IGNORED]
    let_go.set()
    let_thread_go.set()


@pytest.mark.usefixtures("worker")
async def test_a_cancellation_that_comes_while_a_timeout_stops_the_handler_is_receipted_as_well(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed_out, let_go = asyncio.Event(), asyncio.Event()

    async def handler(_: JobContext, __: Any) -> None:
        try:
            await asyncio.sleep(30)
        finally:
            timed_out.set()
            await let_go.wait()

    handled_by(monkeypatch, handler)
    job_id = await create(runtime, timeout=0.2)
    await running(runtime, job_id)
    await timed_out.wait()
    cancelled = await runtime.commands.cancel(job_id)
    await until(lambda: runtime.index.notes(job_id, cancelled.event_seq), "its delivery is receipted")
    let_go.set()
    assert [note.receipt for note in await _receipted(runtime, cancelled)] == [Receipt.DELIVERED, Receipt.STOPPED]


async def test_a_job_that_does_not_run_has_none(runtime: Runtime, settings: Settings) -> None:
    job = await runtime.commands.cancel(await create(runtime))
    async with running_worker(settings):
        await done_with(runtime.connection, queue="default")
    assert runtime.index.notes(job.id, job.event_seq) == []
    assert Kind.NOTE not in {message.kind for message in await history(runtime.connection, job.id)}


async def test_a_handler_that_returns_before_it_is_told_has_finished(
    runtime: Runtime, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unheard(*_: Any) -> None:
        await asyncio.Event().wait()

    async def handler(context: JobContext, _: Any) -> dict[str, Any]:
        await runtime.commands.cancel(context.job_id)
        return {"attempt": context.attempt}

    monkeypatch.setattr(pool, "follow_cancellations", unheard)
    handled_by(monkeypatch, handler)
    async with running_worker(settings):
        cancelled = await ended(runtime, await create(runtime))
        assert (cancelled.status, cancelled.result) == (JobStatus.CANCELLED, None)
        assert [note.receipt for note in await _receipted(runtime, cancelled)] == [Receipt.FINISHED]
        await done_with(runtime.connection)


@pytest.mark.usefixtures("worker")
async def test_one_winner_and_receipts_for_the_cancellations_that_won(runtime: Runtime) -> None:
    job_ids = await create_many(runtime, 30, seconds=0.02)

    async def cancel(number: int, job_id: str) -> Job | None:
        await asyncio.sleep(number * 0.003)
        try:
            return await runtime.commands.cancel(job_id)
        except InvalidState:
            return None

    outcomes = await asyncio.gather(*(cancel(number, job_id) for number, job_id in enumerate(job_ids)))
    await done_with(runtime.connection)
    for job_id, cancelled in zip(job_ids, outcomes, strict=True):
        await assert_one_end(runtime.connection, job_id)
        happened = await history(runtime.connection, job_id)
        notes = [message.body for message in happened if message.kind is Kind.NOTE]
        if cancelled is None:
            assert (await ended(runtime, job_id)).status is JobStatus.COMPLETED
            assert notes == []
            continue
        if any(message.kind is Kind.STARTED for message in happened):
            assert {note.cancelled_seq for note in notes} == {cancelled.event_seq}
            assert len({note.receipt for note in notes} - {Receipt.DELIVERED}) == 1


async def test_each_cancellation_has_its_own_receipts(runtime: Runtime, worker: RunningWorker, tmp_path: Path) -> None:
    assert worker.task is not None
    job_id = await create(runtime, gate=tmp_path / "never")
    seen = []
    for _ in range(2):
        await running(runtime, job_id)
        cancelled = await runtime.commands.cancel(job_id)
        seen.append([note.at for note in await _receipted(runtime, cancelled)])
        await runtime.settled(await runtime.commands.retry(job_id))
    assert len({at for notes in seen for at in notes}) == 4
    notes = [m.body for m in await history(runtime.connection, job_id) if isinstance(m.body, Noted)]
    assert len({note.cancelled_seq for note in notes}) == 2
