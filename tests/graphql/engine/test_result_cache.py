"""Subscribers of the same operation share what is made of an event, where it follows from the event alone."""

from contextlib import AsyncExitStack, aclosing
from typing import Any

import pytest

from gql_jobs.graphql.context import Context
from gql_jobs.graphql.engine.fast_path import EventExecutor
from gql_jobs.graphql.schema import JobsSchema, build_schema
from gql_jobs.jobs.registry import load_job_types
from gql_jobs.web.runtime import Runtime
from tests.running import JOB_TYPES
from tests.stories import request

WATCH = (
    "subscription W($id: ID!) { jobProgress(id: $id) { __typename cursor job { id status ... on ProbeJob { %s } } } }"
)


@pytest.fixture
def schema() -> JobsSchema:
    return build_schema(load_job_types(JOB_TYPES))


async def _first_results(schema: JobsSchema, runtime: Runtime, *operations: tuple[str, dict[str, Any]]) -> list[Any]:
    """The first result of each operation, all of which are open at once."""
    async with AsyncExitStack() as stack:
        results = []
        for text, variables in operations:
            stream = await schema.subscribe(text, variables, Context(lambda: runtime))
            results.append(await anext(await stack.enter_async_context(aclosing(stream))))
            assert results[-1].errors is None
        return results


async def test_an_event_is_run_once_for_all_who_watch_the_same(
    schema: JobsSchema, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = (await runtime.commands.create(request())).job
    runs: list[Any] = []
    usual = EventExecutor.build_per_event_executor

    def counting(self: EventExecutor, event: Any) -> Any:
        runs.append(event)
        return usual(self, event)

    monkeypatch.setattr(EventExecutor, "build_per_event_executor", counting)
    text = WATCH % "payload { gate }"

    one, two, other = await _first_results(
        schema, runtime, (text, {"id": job.id}), (text, {"id": job.id}), (text + " ", {"id": job.id})
    )

    assert one is two
    assert other is not one
    assert other.data == one.data
    assert len(runs) == 2


@pytest.mark.parametrize("field", ["events { at }", "artifacts { name }"])
async def test_what_may_be_another_answer_a_moment_later_is_not_shared(
    schema: JobsSchema, runtime: Runtime, field: str
) -> None:
    job = (await runtime.commands.create(request())).job

    one, two = await _first_results(schema, runtime, *[(WATCH % field, {"id": job.id})] * 2)

    assert one is not two


async def test_nothing_is_kept_of_an_operation_that_nobody_watches(schema: JobsSchema, runtime: Runtime) -> None:
    job = (await runtime.commands.create(request())).job

    await _first_results(schema, runtime, (WATCH % "id", {"id": job.id}))

    assert len(schema.operations._caches) == 0  # noqa: SLF001
