"""A Django project with an API and workers as processes of their own, over HTTP."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from gql_jobs.django.results import TaskAttemptFailed
from gql_jobs.settings import Settings
from tests.child_processes import running_process
from tests.django import shop_tasks
from tests.django.conftest import enqueued, finished
from tests.running import PYTHON_PATH, worker_process
from tests.serving import Api, api_process, free_port

PROJECT = ("--import", "gql_jobs.django.project")


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def jobs_url(port: int) -> str:
    """Where jobs are created: an API."""
    return f"http://127.0.0.1:{port}"


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the processes find in their environment."""
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "tests.django.shop_settings")
    monkeypatch.setenv("SHOP_DATABASE", str(tmp_path / "shop.db"))


@pytest.mark.usefixtures("project", "outside")
async def test_tasks_run_in_processes_that_import_the_project_and_their_jobs_are_typed(
    settings: Settings, port: int
) -> None:
    async with api_process(settings, port, imports=PROJECT[1:]) as (api, _):
        result = await enqueued(shop_tasks.tell, "a", deep={"b": [1, 2]})
        async with worker_process(settings, *PROJECT):
            await finished(result)
        assert result.return_value["words"] == ["a"]
        assert result.return_value["named"] == {"deep": {"b": [1, 2]}}
        failed = await enqueued(shop_tasks.fail_later, "No more apples.")
        async with worker_process(settings, *PROJECT):
            await finished(failed)
        assert [error.exception_class for error in failed.errors] == [shop_tasks.OutOfStock]
        assert await _shown(api, result.id) == {
            "type": "django_task",
            "payload": {"task": "tests.django.shop_tasks.tell", "args": ["a"], "priority": 0},
        }


async def _shown(api: Api, job_id: str) -> object:
    document = """query ($id: ID!) {
        job(id: $id) { type ... on DjangoTaskJob { payload { task args priority } } }
    }"""
    return (await api.ask(document, id=job_id))["job"]


@pytest.mark.usefixtures("project", "outside")
async def test_a_task_whose_worker_is_killed_has_failed_and_is_not_run_again(settings: Settings, port: int) -> None:
    hasty = settings.model_copy(update={"ack_wait": 1.0})
    async with api_process(hasty, port, imports=PROJECT[1:]):
        result = await enqueued(shop_tasks.die)
        async with worker_process(hasty, *PROJECT) as worker:
            assert await worker.wait() == 1
        async with worker_process(hasty, *PROJECT):
            await finished(result)
    assert [error.exception_class for error in result.errors] == [TaskAttemptFailed]
    assert result.attempts == 1


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("", b"Django project cannot be loaded"),
        ("tests.django.no_settings", b"no_settings"),
        ("tests.django.other_settings", b"No backend in the setting TASKS"),
    ],
)
async def test_a_project_that_cannot_be_loaded_is_told_in_a_sentence(module: str, words: bytes) -> None:
    command = (sys.executable, "-m", "gql_jobs", "worker", *PROJECT)
    own = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    own |= {"PYTHONPATH": PYTHON_PATH} | ({"DJANGO_SETTINGS_MODULE": module} if module else {})
    async with running_process(*command, env=own, stderr=asyncio.subprocess.PIPE) as process:
        _, said = await process.communicate()
    assert process.returncode == 2
    assert words in said
    assert b"Traceback" not in said
