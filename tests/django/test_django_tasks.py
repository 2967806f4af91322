"""Django's tasks as jobs: what its own backends answer is answered here, and what they cannot do is done."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from django.utils import timezone

from gql_jobs.client.errors import InvalidArgument
from gql_jobs.django.backend import JobsBackend
from gql_jobs.django.queues import TaskCall, priority_of_task, type_of_queue
from gql_jobs.django.results import (
    TaskAttemptFailed,
    TaskCancelled,
    TaskResult,
    TaskResultDoesNotExist,
    TaskResultStatus,
    task_backends,
    task_enqueued,
    task_finished,
    task_started,
)
from gql_jobs.jobs.errors import PermanentError
from gql_jobs.jobs.model import JobPriority, JobStatus
from gql_jobs.jobs.registry import Registry
from gql_jobs.log.commands import JobCommands
from gql_jobs.log.job_log import JobLog
from gql_jobs.settings import Settings
from tests.deadline import until
from tests.django import shop_tasks
from tests.django.conftest import enqueued, finished
from tests.django.shop_tasks import OutOfStock
from tests.running import RunningWorker

pytestmark = pytest.mark.usefixtures("project")
NAMES = ("default", "immediate")
"""Our backend, and Django's that runs tasks at once."""


@pytest.fixture
def commands(job_log: JobLog, settings: Settings) -> JobCommands:
    """What is in the log."""
    return JobCommands(job_log, settings)


def told(result: "TaskResult[Any]") -> dict[str, Any]:
    """What a result says that is the same whoever runs the task."""
    try:
        returned = result.return_value
    except ValueError as error:
        returned = str(error)
    return {
        "task": result.task.module_path,
        "status": result.status,
        "returned": returned,
        "args": result.args,
        "kwargs": result.kwargs,
        "errors": [error.exception_class for error in result.errors],
        "raised_by": [error.traceback.splitlines()[-1] for error in result.errors],
        "attempts": result.attempts,
        "workers": len(result.worker_ids),
        "is_finished": result.is_finished,
        "times": all((result.enqueued_at, result.started_at, result.finished_at, result.last_attempted_at)),
    }


@pytest.mark.parametrize(
    ("name", "args", "kwargs"),
    [
        ("add", (1,), {"other": 2}),
        ("add", (), {"one": 40, "other": 2}),
        ("add_later", (1,), {}),
        ("add", ("one",), {}),
        ("fail", ("No more apples.",), {}),
        ("fail_later", ("No more apples.",), {}),
        ("fail_for_good", (), {}),
        ("return_no_json", (), {}),
        ("add", (1, 2, 3), {}),
        ("count_in_database", (), {}),
        ("count_in_database_later", (), {}),
        ("tell", (("a", "b"), b"c"), {"deep": {"tuple": (1, 2.5, None, True)}}),
    ],
)
async def test_a_task_has_the_result_that_django_s_own_backend_has(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], worker: RunningWorker
) -> None:
    assert worker.task is not None
    task = getattr(shop_tasks, name)
    results = [await finished_on(alias, task, *args, **kwargs) for alias in NAMES]
    ours, own = map(told, results)
    if name == "tell":
        for result in (ours, own):
            assert result["returned"].pop("id")
        assert (ours["returned"].pop("backend"), own["returned"].pop("backend")) == NAMES
    assert ours == own


async def finished_on(alias: str, task: Any, *args: Any, **kwargs: Any) -> "TaskResult[Any]":
    result = await enqueued(task.using(backend=alias), *args, **kwargs)
    return await finished(result) if alias != "immediate" else result


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"priority": 101}, "priority must be a whole number"),
        ({"priority": -101}, "priority must be a whole number"),
        ({"priority": 1.5}, "priority must be a whole number"),
        ({"queue_name": "unknown"}, "is not valid for backend"),
        ({"run_after": datetime(2030, 1, 1)}, "run_after"),  # noqa: DTZ001 - that is the fault
    ],
)
def test_a_task_that_django_s_own_backends_refuse_is_refused(change: dict[str, Any], words: str) -> None:
    refusals = []
    for alias in (*NAMES, "dummy"):
        with pytest.raises(Exception, match=words) as refused:
            shop_tasks.add.using(backend=alias, **change)
        refusals.append(type(refused.value))
    assert len(set(refusals)) == 1


async def test_arguments_that_are_no_json_are_refused_as_by_django_s_own_backends() -> None:
    for alias in (*NAMES, "dummy"):
        with pytest.raises(TypeError, match="Unsupported type"):
            await enqueued(shop_tasks.add.using(backend=alias), datetime.now(UTC))


async def test_a_task_that_was_enqueued_is_ready_as_with_django_s_own_backend(commands: JobCommands) -> None:
    results = [await enqueued(shop_tasks.add.using(backend=alias), 1, other=2) for alias in ("default", "dummy")]
    for result in results:
        assert (result.status, result.is_finished, result.attempts) == (TaskResultStatus.READY, False, 0)
        assert (result.args, result.kwargs, result.errors, result.worker_ids) == ([1], {"other": 2}, [], [])
        assert result.enqueued_at is not None
        assert (result.started_at, result.finished_at, result.last_attempted_at) == (None, None, None)
        assert len(result.id) < 64
        with pytest.raises(ValueError, match="not finished"):
            _ = result.return_value
    ours = results[0]
    job = await commands.find(ours.id)
    assert job is not None
    assert (job.spec.type, job.spec.queue, job.spec.max_retries) == ("django_task", "default", 0)
    again = await shop_tasks.add.aget_result(ours.id)
    assert told(again) == told(ours)
    assert again.task == ours.task


async def test_a_result_that_is_not_there_or_of_another_task_is_told_so() -> None:
    for unknown in ("unknown", "00000000-0000-4000-8000-000000000000"):
        with pytest.raises(TaskResultDoesNotExist):
            await shop_tasks.add.aget_result(unknown)
        with pytest.raises(TaskResultDoesNotExist):
            await asyncio.to_thread(task_backends["default"].get_result, unknown)
    result = await shop_tasks.add.aenqueue(1)
    with pytest.raises(Exception, match="does not match") as refused:
        await shop_tasks.fail.aget_result(result.id)
    assert type(refused.value).__name__ == "TaskResultMismatch"


async def test_tasks_are_enqueued_from_coroutines_and_many_at_once(worker: RunningWorker) -> None:
    assert worker.task is not None
    results = await asyncio.gather(*(shop_tasks.add_later.aenqueue(number) for number in range(30)))
    assert [(await finished(result)).return_value for result in results] == [number + 1 for number in range(30)]


async def test_queue_priority_and_time_become_those_of_the_job(commands: JobCommands) -> None:
    at = timezone.now() + timedelta(hours=1)
    result = await enqueued(shop_tasks.send.using(run_after=at), "ada")
    job = await commands.find(result.id)
    assert job is not None
    assert (job.spec.type, job.spec.queue, job.spec.priority) == ("django_task_e_mails", "e-mails", JobPriority.HIGH)
    assert (job.status, job.spec.run_at) == (JobStatus.SCHEDULED, at)
    again = await shop_tasks.send.aget_result(result.id)
    assert again.task == shop_tasks.send.using(run_after=at)
    assert again.status is TaskResultStatus.READY


async def test_a_task_is_run_after_its_time(worker: RunningWorker) -> None:
    assert worker.task is not None
    at = timezone.now() + timedelta(seconds=1)
    result = await finished(await enqueued(shop_tasks.add.using(run_after=at), 1))
    assert result.started_at is not None
    assert result.started_at >= at


async def test_a_time_of_more_than_a_year_is_refused_by_the_server() -> None:
    with pytest.raises(InvalidArgument, match="year"):
        await enqueued(shop_tasks.add.using(run_after=timezone.now() + timedelta(days=400)), 1)


@pytest.mark.parametrize(
    ("priority", "job_priority"),
    [(-100, "low"), (-1, "low"), (0, "normal"), (1, "high"), (50, "high"), (51, "critical"), (100, "critical")],
)
def test_each_priority_of_django_s_is_one_of_four(priority: int, job_priority: str) -> None:
    assert priority_of_task(priority) == job_priority


async def test_a_failed_task_has_the_traceback_of_its_exception(worker: RunningWorker) -> None:
    assert worker.task is not None
    result = await finished(await enqueued(shop_tasks.fail, "No more apples."))
    (error,) = result.errors
    assert error.exception_class is OutOfStock
    assert error.traceback.startswith("Traceback (most recent call last):")
    assert "in fail" in error.traceback
    assert error.traceback.endswith("OutOfStock: No more apples.\n")


@pytest.fixture
def without_log() -> Iterator[None]:
    """Nothing is logged: what pytest captures has to be text, for processes of tests tell each other of it."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("without_log")
async def test_an_exception_that_is_no_text_is_kept_as_far_as_it_can_be_written(worker: RunningWorker) -> None:
    assert worker.task is not None
    # JSON has no half of a surrogate pair, so that the task makes one.
    result = await finished(await enqueued(shop_tasks.fail_without_text))
    (error,) = result.errors
    assert error.exception_class is OutOfStock
    assert error.traceback.endswith("OutOfStock: ?\n")


async def test_a_job_whose_queue_or_backend_is_no_more_is_told_so(worker: RunningWorker) -> None:
    assert worker.task is not None
    backend: JobsBackend = task_backends["default"]
    for change in ({"queue": "gone"}, {"backend": "gone"}):
        call = TaskCall.model_validate({"task": "tests.django.shop_tasks.add", "enqueuedAt": timezone.now(), **change})
        handle = await asyncio.to_thread(lambda call=call: backend._client.create(call, type="django_task"))  # type: ignore[misc]  # noqa: SLF001
        state = await until(lambda handle=handle: asyncio.to_thread(_dead, handle), "it has failed", within=20)  # type: ignore[misc]
        assert "is none for its backend here" in state.error.message
        with pytest.raises(TaskResultDoesNotExist, match="is none for its backend here"):
            await backend.aget_result(handle.id)


async def test_a_task_is_tried_again_if_the_backend_is_told_so(worker: RunningWorker) -> None:
    assert worker.task is not None
    result = await finished(await enqueued(shop_tasks.succeed_at_last.using(backend="retrying")))
    assert (result.return_value, result.attempts, result.backend) == (2, 2, "retrying")
    assert [error.exception_class for error in result.errors] == [OutOfStock]
    assert len(set(result.worker_ids)) == 1
    failed = await finished(await enqueued(shop_tasks.fail.using(backend="retrying"), "Never."))
    assert [error.exception_class for error in failed.errors] == [OutOfStock] * 2
    for_good = await finished(await enqueued(shop_tasks.fail_for_good.using(backend="retrying")))
    assert [error.exception_class for error in for_good.errors] == [PermanentError]


async def test_an_attempt_that_took_too_long_has_failed_though_not_by_an_exception_of_the_task(
    worker: RunningWorker,
) -> None:
    assert worker.task is not None
    result = await finished(await enqueued(shop_tasks.never_end.using(backend="hurried")))
    (error,) = result.errors
    assert error.exception_class is TaskAttemptFailed
    assert error.traceback.startswith("Timeout")


async def test_the_connections_of_a_task_s_thread_are_closed_behind_it(worker: RunningWorker) -> None:
    assert worker.task is not None
    result = await finished(await enqueued(shop_tasks.keep_connection))
    assert result.return_value == 42
    assert [connection.connection for connection in shop_tasks.kept] == [None]
    shop_tasks.kept.clear()


async def test_a_cancelled_job_is_a_failed_task(commands: JobCommands) -> None:
    result = await enqueued(shop_tasks.add, 1)
    await commands.cancel(result.id)
    await result.arefresh()
    assert result.status is TaskResultStatus.FAILED
    assert [error.exception_class for error in result.errors] == [TaskCancelled]


async def test_what_is_no_task_is_not_run(worker: RunningWorker) -> None:
    assert worker.task is not None
    backend: JobsBackend = task_backends["default"]
    for path in ("tests.django.shop_tasks.no_task", "os._exit", "nowhere.at_all"):
        call = TaskCall(task=path, args=[1], enqueued_at=timezone.now())
        handle = await asyncio.to_thread(lambda call=call: backend._client.create(call, type="django_task"))  # type: ignore[misc]  # noqa: SLF001
        state = await until(lambda handle=handle: asyncio.to_thread(_dead, handle), "it has failed", within=20)  # type: ignore[misc]
        assert "task" in state.error.message
        with pytest.raises(TaskResultDoesNotExist):
            await backend.aget_result(handle.id)


def _dead(handle: Any) -> Any:
    state = handle.state()
    return state if state.status is JobStatus.DEAD_LETTER else None


@pytest.fixture
async def signals() -> AsyncIterator[list[tuple[str, Any]]]:
    """What Django's signals tell: which one, and the status of the task."""
    heard: list[tuple[str, Any]] = []
    receivers = {
        name: (signal, lambda name=name, **given: heard.append((name, given["task_result"].status)))
        for name, signal in (("enqueued", task_enqueued), ("started", task_started), ("finished", task_finished))
    }
    for signal, receiver in receivers.values():
        signal.connect(receiver, weak=False)
    yield heard
    for signal, receiver in receivers.values():
        signal.disconnect(receiver)


@pytest.mark.parametrize("name", ["add", "add_later"])
async def test_signals_tell_when_a_task_is_enqueued_starts_and_finishes(
    name: str, signals: list[tuple[str, Any]], worker: RunningWorker
) -> None:
    assert worker.task is not None
    await finished(await enqueued(getattr(shop_tasks, name), 1))
    assert sorted(signals) == [("enqueued", "READY"), ("finished", "SUCCESSFUL"), ("started", "RUNNING")]


async def test_a_task_that_is_tried_again_finishes_once(signals: list[tuple[str, Any]], worker: RunningWorker) -> None:
    assert worker.task is not None
    await finished(await enqueued(shop_tasks.fail.using(backend="retrying"), "Never."))
    assert [name for name, _ in signals] == ["enqueued", "started", "started", "finished"]
    assert signals[-1] == ("finished", "FAILED")


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"QUEUES": ["E-mails"]}, "E-mails"),
        ({"QUEUES": []}, "QUEUES must name the queues"),
        ({"QUEUES": ["a" * 51]}, "1 to 50"),
        ({"QUEUES": ["e_mails", "e-mails"]}, "would both have the job type"),
        ({"OPTIONS": {"urls": "x"}}, "no option 'urls'"),
        ({"OPTIONS": {"max_retries": 101}}, "'max_retries' must be"),
        ({"OPTIONS": {"max_retries": True}}, "'max_retries' must be"),
        ({"OPTIONS": {"timeout": 0}}, "'timeout' must be"),
    ],
)
def test_a_backend_that_cannot_be_is_told_in_a_sentence(params: dict[str, Any], words: str) -> None:
    settings = {"default": {"BACKEND": "gql_jobs.django.backend.JobsBackend", **params}}
    with override_settings(TASKS=settings), pytest.raises(ImproperlyConfigured, match=words):
        _ = task_backends["default"]


def test_each_queue_has_a_job_type_of_its_own() -> None:
    registry = Registry()
    names = [type_of_queue(queue, registry).name for queue in ("default", "e-mails", "reports_2")]
    assert names == ["django_task", "django_task_e_mails", "django_task_reports_2"]
    assert type_of_queue("default", registry) is registry.get("django_task") or len(list(registry)) == 3


def test_the_checks_of_django_say_which_server_is_meant_where_the_settings_do_not() -> None:
    backend = JobsBackend("default", {})
    assert [message.id for message in backend.check()] == ["gql_jobs.I001"]
    assert list(JobsBackend("default", {"OPTIONS": {"url": "nats://h"}}).check()) == []
    assert TaskAttemptFailed.__module__ == "gql_jobs.django.results"
