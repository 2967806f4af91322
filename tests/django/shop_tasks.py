"""The tasks of a Django project for tests."""

import asyncio
import os
from typing import Any

from django.db import connection, connections

try:
    from django.tasks import task
except ImportError:
    from django_tasks import task

from gql_jobs import PermanentError

kept: list[Any] = []
"""Connections to databases that tasks of this process have used."""


class OutOfStock(Exception):
    """An exception of the project's own."""


@task
def add(one: int, other: int = 1) -> int:
    return one + other


@task
async def add_later(one: int, other: int = 1) -> int:
    await asyncio.sleep(0)
    return one + other


@task
def fail(message: str) -> None:
    raise OutOfStock(message)


@task
def fail_without_text() -> None:
    raise OutOfStock("\ud800")


@task
async def fail_later(message: str) -> None:
    await asyncio.sleep(0)
    raise OutOfStock(message)


@task
def fail_for_good() -> None:
    raise PermanentError("There is no such order.")


@task
def return_no_json() -> Any:
    return object()


@task(takes_context=True)
def tell(context: Any, *words: str, **named: Any) -> dict[str, Any]:
    result = context.task_result
    return {
        "attempt": context.attempt,
        "id": result.id,
        "status": result.status,
        "args": result.args,
        "kwargs": result.kwargs,
        "backend": result.backend,
        "queue": result.task.queue_name,
        "priority": result.task.priority,
        "enqueued": result.enqueued_at is not None,
        "workers": len(result.worker_ids),
        "words": list(words),
        "named": named,
    }


@task(takes_context=True)
def succeed_at_last(context: Any) -> int:
    if context.attempt == 1:
        raise OutOfStock("Not yet.")
    return int(context.attempt)


@task
def count_in_database() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 40 + 2")
        return int(cursor.fetchone()[0])


@task
async def count_in_database_later() -> int:
    from asgiref.sync import sync_to_async  # noqa: PLC0415

    return int(await sync_to_async(count_in_database.func)())


@task
def keep_connection() -> int:
    kept.append(connections["default"])
    return int(count_in_database.func())


@task
async def never_end() -> None:
    await asyncio.Event().wait()


@task
def die() -> None:
    os._exit(1)


def no_task() -> int:
    return 1


@task(queue_name="e-mails", priority=10)
def send(to: str) -> str:
    return to
