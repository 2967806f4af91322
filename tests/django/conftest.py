"""A Django project whose tasks are jobs: in the process of the tests, and in processes of its own."""

import asyncio
import os
from collections.abc import Iterator
from typing import Any

import pytest

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.django.shop_settings")

import django

django.setup()

from django.db import connections  # noqa: E402
from django.test import override_settings  # noqa: E402 - it needs settings

from gql_jobs.django import backend  # noqa: E402
from gql_jobs.django.results import TaskResult, task_backends  # noqa: E402
from gql_jobs.jetstream.connection import Connection  # noqa: E402
from gql_jobs.settings import Settings  # noqa: E402
from tests.deadline import until  # noqa: E402
from tests.django import shop_settings  # noqa: E402

for _alias in task_backends:
    task_backends[_alias]


@pytest.fixture(scope="session", autouse=True)
def database(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A database in a file: Django never closes one in memory."""
    connections.settings["default"]["NAME"] = str(tmp_path_factory.mktemp("shop") / "shop.db")


@pytest.fixture
async def jobs_url(settings: Settings, connection: Connection) -> str:
    """Where jobs are created: the NATS server itself."""
    assert connection.connected
    return settings.nats_url or ""


@pytest.fixture
def project(jobs_url: str) -> Iterator[None]:
    """The project, with backends that create jobs there."""
    tasks: dict[str, Any] = {
        alias: {**given, "OPTIONS": {**given["OPTIONS"], "url": jobs_url}} if "OPTIONS" in given else given
        for alias, given in shop_settings.TASKS.items()
    }
    with override_settings(TASKS=tasks):
        yield
    for client in backend._clients.values():  # noqa: SLF001
        client.close()
    backend._clients.clear()  # noqa: SLF001


async def enqueued(task: Any, *args: Any, **kwargs: Any) -> "TaskResult[Any]":
    """The result of a task that was enqueued as code enqueues it that does not await."""

    def enqueue() -> "TaskResult[Any]":
        try:
            result: TaskResult[Any] = task.enqueue(*args, **kwargs)
            return result
        finally:
            # Django's own backend has run the task in this thread.
            connections.close_all()

    return await asyncio.to_thread(enqueue)


async def finished(result: "TaskResult[Any]") -> "TaskResult[Any]":
    """The result, once the task has finished."""

    async def is_finished() -> bool:
        await result.arefresh()
        return bool(result.is_finished)

    await until(is_finished, "the task has finished", within=20)
    return result
