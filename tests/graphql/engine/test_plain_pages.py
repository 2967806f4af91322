"""Reading plain fields of pages past the executor changes no answer: the same documents, answered both ways."""

import asyncio
from typing import Any

import pytest
from graphql import execute, parse, validate
from graphql.execution.collect_fields import collect_subfields
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from gql_jobs.graphql.context import Context, Session
from gql_jobs.graphql.engine.fast_path import EventExecutor, PlainExecutor
from gql_jobs.graphql.engine.strawberry_internals import core_schema
from gql_jobs.graphql.schema import JobsSchema, build_schema
from gql_jobs.jobs.registry import load_job_types
from gql_jobs.jobs.viewer import Viewer
from tests.graphql.engine.random_documents import queries
from tests.graphql.sample_jobs import IDS, SEEN_BY
from tests.running import JOB_TYPES
from tests.stories import BEGAN


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_any_document_is_answered_the_same_in_the_same_order_however_often_for_whom_and_with_which_variables(
    schema: JobsSchema, usual_schema: JobsSchema, context: Context, data: st.DataObject
) -> None:
    text = data.draw(queries(core_schema(schema)))
    viewers = data.draw(st.lists(st.sampled_from(SEEN_BY), min_size=3, max_size=3))
    assume(not validate(core_schema(schema), parse(text)))

    async def answer(by: JobsSchema, who: Viewer, *, yes: bool) -> str:
        result = await by.execute(text, {"yes": yes}, Context(context.services, Session(who)))
        return result.payload.decode()

    for who, yes in zip(viewers, (True, False, True), strict=True):
        assert asyncio.run(answer(schema, who, yes=yes)) == asyncio.run(answer(usual_schema, who, yes=yes))


def test_plain_fields_of_a_page_never_reach_the_executor(monkeypatch: pytest.MonkeyPatch, context: Context) -> None:
    reached: list[str] = []
    usual = EventExecutor.execute_field

    def counting(self: EventExecutor, parent: Any, source: Any, details: Any, *where: Any) -> Any:
        reached.append(details[0].node.name.value)
        return usual(self, parent, source, details, *where)

    monkeypatch.setattr(EventExecutor, "execute_field", counting)
    core = core_schema(build_schema(load_job_types(JOB_TYPES)))
    text = "{ jobs { nodes { id status tags createdAt error { message at } } edges { cursor node { id } } } }"
    result: Any = execute(core, parse(text), context_value=context, executor_class=PlainExecutor)
    answer = asyncio.run(_awaited(result))

    assert answer.errors is None
    assert len(answer.data["jobs"]["nodes"]) == len(IDS)
    assert reached == ["jobs"]
    assert BEGAN.isoformat() == answer.data["jobs"]["nodes"][0]["createdAt"]


@pytest.mark.parametrize(("selected", "kept"), [("id status", True), ("id status @skip(if: false)", False)])
def test_what_is_selected_is_found_once_for_a_document_without_conditions(
    monkeypatch: pytest.MonkeyPatch, context: Context, selected: str, *, kept: bool
) -> None:
    plain = build_schema(load_job_types(JOB_TYPES))
    text = f"query Page($first: Int) {{ jobs(first: $first) {{ nodes {{ {selected} }} }} }}"
    planned = 0

    def counting(*of: Any) -> Any:
        nonlocal planned
        planned += 1
        return collect_subfields(*of)

    monkeypatch.setattr("gql_jobs.graphql.engine.fast_path.collect_subfields", counting)

    def sizes(*firsts: int) -> list[int]:
        answers = [asyncio.run(plain.execute(text, {"first": first}, context)) for first in firsts]
        return [len(answer.data["jobs"]["nodes"]) for answer in answers if answer.data is not None]

    # The first finds that the document is valid, and keeps the plan with it.
    assert sizes(1) == [1]
    before = planned
    assert sizes(2, 3, 0) == [2, 3, 0]
    assert (planned > before) is not kept


async def _awaited(result: Any) -> Any:
    return await result
