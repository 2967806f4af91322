"""Subscribers of the same operation share what is made of an event, where it follows from the event alone."""

import asyncio
from contextlib import AsyncExitStack, aclosing
from types import AsyncGeneratorType
from typing import Any

import pytest
from graphql import GraphQLObjectType, get_operation_ast, parse, validate
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from gql_jobs.graphql.context import Context, Services
from gql_jobs.graphql.engine.documents import MAX_CACHED_LENGTH, ReadOperation
from gql_jobs.graphql.engine.fast_path import EventExecutor, follows_from_source, is_shareable
from gql_jobs.graphql.engine.operations import Result, ResultCaches
from gql_jobs.graphql.engine.strawberry_internals import core_schema
from gql_jobs.graphql.schema import JobsSchema, build_schema
from gql_jobs.graphql.subscriptions import PresentedEvents
from gql_jobs.jobs.registry import load_job_types
from gql_jobs.web.runtime import Runtime
from tests.graphql.engine.random_documents import subscriptions
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


@pytest.mark.parametrize(
    ("selected", "shared"),
    [
        ("cursor at __typename", True),
        (
            "job { id error { message } rawPayload rawResult ... on ProbeJob { payload { gate } result { attempt } } }",
            True,
        ),
        ("job { artifacts { name } }", False),
        ("job { cancellation { requestedAt } }", False),
        ("job { events { at } }", False),
        ("job { origin { id } }", False),
        ("job { parent { id } children { id } }", False),
        ("job { payloadPreview }", False),
        ("job { waiting { detail } }", False),
        ("... on JobCompleted { job { ...F } }", False),
        ("job { id artifacts @skip(if: true) { name } }", False),
    ],
)
def test_a_selection_is_shared_if_no_field_of_it_looks_at_anything_but_the_event(
    schema: JobsSchema, selected: str, shared: bool
) -> None:
    fragment = "fragment F on Job { id artifacts { name } }" if "...F" in selected else ""
    document = parse(f"subscription {{ jobEvents {{ {selected} }} }} {fragment}")
    core = core_schema(schema)
    assert validate(core, document) == []
    assert is_shareable(core, document) is shared


def test_a_field_that_may_look_elsewhere_takes_an_info_and_is_never_taken_for_one_that_does_not(
    schema: JobsSchema,
) -> None:
    core = core_schema(schema)
    elsewhere = set()
    for named in core.type_map.values():
        if isinstance(named, GraphQLObjectType) and not named.name.startswith("__"):
            elsewhere |= {f"{named.name}.{name}" for name, f in named.fields.items() if not follows_from_source(f)}
    jobs = {"EmailJob", "UnknownJob", "ProbeJob"}
    fields = ("artifacts", "cancellation", "children", "events", "origin", "parent", "payloadPreview", "waiting")
    of_jobs = {f"{job}.{field}" for job in jobs for field in fields}
    roots = ("Query.", "Mutation.", "Subscription.")
    assert {e for e in elsewhere if e.split(".")[0] in jobs} == of_jobs
    assert "JobConnection.totalCount" in elsewhere
    assert not any(e.startswith(("JobEvent", "JobQueued", "JobError", "Artifact")) for e in elsewhere)
    assert {f"{core.subscription_type}.{name}" for name in ("jobEvents", "jobProgress")} <= elsewhere
    assert all(f"{root}{name}" in elsewhere for root in roots for name in core.type_map[root[:-1]].fields)  # type: ignore[attr-defined]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_what_is_shared_was_made_without_a_look_at_the_services(
    usual_schema: JobsSchema, context: Context, data: st.DataObject
) -> None:
    core = core_schema(usual_schema)
    text = data.draw(subscriptions(core))
    assume(not validate(core, parse(text)))
    looks: list[Services] = []

    def counted() -> Services:
        looks.append(context.services())
        return looks[-1]

    async def first() -> None:
        async with aclosing(await usual_schema.subscribe(text, {"yes": True}, Context(counted))) as results:
            await anext(results)

    asyncio.run(first())
    # Once by the resolver of the subscription itself.
    assert len(looks) == 1 or not is_shareable(core, parse(text))


def test_an_event_passes_two_generators_at_most_from_the_bus_to_its_result(
    usual_schema: JobsSchema, context: Context
) -> None:
    async def nested() -> list[Any]:
        results: Any = await usual_schema.subscribe('subscription { jobEvents(after: "0") { cursor } }', None, context)
        async with aclosing(results):
            await anext(results)
            presented = results.ag_frame.f_locals["source"]
            return [results, presented, presented._events]  # noqa: SLF001 -- there is no other way to look

    passed = asyncio.run(nested())
    assert isinstance(passed[1], PresentedEvents)
    assert sum(isinstance(step, AsyncGeneratorType) for step in passed) <= 2


async def test_closing_the_results_ends_the_subscription_at_once(schema: JobsSchema, runtime: Runtime) -> None:
    results = await schema.subscribe(
        'subscription { jobEvents(after: "0") { cursor } }', None, Context(lambda: runtime)
    )
    await runtime.commands.create(request())
    await anext(results)
    assert runtime.bus.subscribers == 1
    await results.aclose()
    assert runtime.bus.subscribers == 0


async def test_a_long_document_is_looked_through_once_for_all_its_events(
    schema: JobsSchema, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[bool] = []

    def counting(*of: Any) -> bool:
        looks.append(is_shareable(*of))
        return looks[-1]

    monkeypatch.setattr("gql_jobs.graphql.engine.operations.is_shareable", counting)
    text = 'subscription { jobEvents(after: "0") { job { rawPayload } } }' + " " * MAX_CACHED_LENGTH
    await runtime.commands.create_many([request(), request()])

    async with aclosing(await schema.subscribe(text, None, Context(lambda: runtime))) as results:
        for _ in range(2):
            assert (await anext(results)).errors is None

    assert looks == [True]


def test_the_results_of_all_operations_share_a_budget_of_memory_and_the_oldest_go_first() -> None:
    caches = ResultCaches()
    document = parse("{ __typename }")
    node = get_operation_ast(document)
    assert node is not None
    operations = [ReadOperation(f"{{ __typename }} # {n}", document, node, None, {}) for n in range(8)]
    held = [caches.of(operation, None) for operation in operations]
    for number in range(5):
        for cache in held:
            cache.keep(str(number), Result({"text": "x" * 400_000}))
    kept = [[n for n in range(5) if cache.result(str(n)) is not None] for cache in held]
    assert 1 < sum(map(len, kept)) * 400_000 * 4 <= 16 << 20
    assert all(numbers == list(range(5))[-len(numbers) :] for numbers in kept if numbers)
    assert held[-1].result("4") is not None
