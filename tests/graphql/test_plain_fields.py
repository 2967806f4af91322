"""Reading plain fields past the executor changes no answer: the same documents, answered both ways."""

# Strawberry types its decorators as Any.
# mypy: disable-error-code="untyped-decorator"

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import strawberry
from graphql import (
    GraphQLEnumType,
    GraphQLNamedType,
    GraphQLSchema,
    execute,
    get_named_type,
    is_abstract_type,
    is_leaf_type,
    is_object_type,
    is_required_argument,
    parse,
    validate,
)
from graphql.execution.collect_fields import collect_subfields
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from gql_jobs.graphql import plain_fields
from gql_jobs.graphql.context import Context
from gql_jobs.graphql.hooks import EventExecutor, core_schema
from gql_jobs.graphql.plain_fields import PlainExecutor
from gql_jobs.graphql.schema import JobsSchema, build_schema
from gql_jobs.jobs.messages import Completed, DeadLetter, Failed, Message, Progress, Released, Saved, Started
from gql_jobs.jobs.registry import load_job_types
from gql_jobs.views.index import open_index
from gql_jobs.views.reader import Reader
from tests.running import JOB_TYPES
from tests.stories import BEGAN, artifact, queued, said, scheduled, spec, tell

DEEPEST = 5
IDS = [f"018f3c6e-7d3a-7c52-9d0a-3f5a8c1d7e{n:02d}" for n in range(6)]


def _stories() -> Iterator[Message]:
    """A job in each state, an unknown type, a file, errors: whatever a page may have to show."""
    seq = count(1)
    asked: list[dict[str, Any]] = [{"tags": ("a", "ä")}, {}, {"type": "gone"}, {"max_retries": 0}, {}]
    for job_id, options in zip(IDS, asked, strict=False):
        yield queued(next(seq), job_id=job_id, **options)
    yield scheduled(next(seq), job_id=IDS[5])
    told: list[tuple[str, type[Any], dict[str, Any]]] = [
        (IDS[0], Started, {}),
        (IDS[0], Progress, {"progress": 40, "message": "half"}),
        (IDS[1], Started, {}),
        (IDS[1], Completed, {}),
        (IDS[2], Started, {}),
        (IDS[2], Failed, {}),
        (IDS[3], Started, {}),
        (IDS[3], DeadLetter, {"spec": spec(max_retries=0)}),
        (IDS[4], Started, {}),
        (IDS[4], Released, {}),
    ]
    for job_id, kind, facts in told:
        submission = IDS.index(job_id) + 1
        body = said(0, kind, submission=submission, **facts).body
        yield tell(next(seq), body, job_id)
    yield tell(next(seq), Saved(artifact=artifact()), IDS[1])


@pytest.fixture(scope="module")
def schema() -> JobsSchema:
    return build_schema(load_job_types(JOB_TYPES))


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    path: Path = tmp_path_factory.mktemp("index") / "index.sqlite"
    with ExitStack() as stack:
        index = stack.enter_context(open_index(path, "2026-01-31T12:00:00Z", 1000, 86_400.0))
        messages = list(_stories())
        index.apply(messages, messages[-1].seq)
        reader = Reader(index)
        stack.callback(reader.close)

        async def job(job_id: str) -> Any:
            return index.job(job_id)

        async def events(job_id: str) -> Any:
            return index.events(job_id)

        async def saved(job_id: str) -> Any:
            return index.artifacts(job_id)

        services: Any = SimpleNamespace(
            index=index, reader=reader, registry=load_job_types(JOB_TYPES), job=job, events=events, saved=saved
        )
        yield Context(lambda: services)


@st.composite
def documents(draw: st.DrawFn, schema: GraphQLSchema) -> str:
    """A query of the jobs, with any selection below them."""
    number = count()
    directives = draw(st.sampled_from([[""], ["", "", "", " @include(if: $yes)", " @skip(if: $yes)"]]))

    def selection(of: GraphQLNamedType, depth: int, *, apart: bool) -> str:
        fields = {
            name: field
            for name, field in getattr(of, "fields", {}).items()
            if not any(map(is_required_argument, field.args.values()))
            and (depth > 0 or is_leaf_type(get_named_type(field.type)))
        }
        parts = ["__typename"]
        for name in draw(st.lists(st.sampled_from(sorted(fields)), max_size=6)) if fields else []:
            below = get_named_type(fields[name].type)
            inner = "" if is_leaf_type(below) else selection(below, depth - 1, apart=apart)
            # The same name twice is merged; below a condition on the type it might mean another type.
            alias = f"{name}_{next(number)}: " if apart or draw(st.booleans()) else ""
            directive = draw(st.sampled_from(directives))
            parts.append(f"{alias}{name}{directive} {inner}")
        if is_abstract_type(of) and depth > 0:
            kinds = draw(st.lists(st.sampled_from(schema.get_possible_types(of)), max_size=2))
            parts.extend(f"... on {kind.name} {selection(kind, depth - 1, apart=True)}" for kind in kinds)
        return "{ " + " ".join(parts) + " }"

    connection, job = schema.type_map["JobConnection"], schema.type_map["Job"]
    found = draw(st.sampled_from(IDS))
    asked = (
        f"{{ jobs {selection(connection, DEEPEST, apart=False)}"
        f' job(id: "{found}") {selection(job, DEEPEST, apart=False)} }}'
    )
    return f"query ($yes: Boolean!) {asked}" if "$yes" in asked else asked


def answers(schema: GraphQLSchema, text: str, context: Any = None, root: Any = None) -> list[tuple[Any, Any]]:
    """Data and errors of a document, by the plain executor and by the one that reads past it."""
    document = parse(text)

    async def answer(executor: type[EventExecutor]) -> tuple[Any, Any]:
        result: Any = execute(schema, document, root_value=root, context_value=context, executor_class=executor)
        if asyncio.iscoroutine(result):
            result = await result
        return result.data, [error.formatted for error in result.errors or []]

    return [asyncio.run(answer(executor)) for executor in (EventExecutor, PlainExecutor)]


@pytest.fixture(scope="module")
def usual_schema() -> JobsSchema:
    return build_schema(load_job_types(JOB_TYPES), plain_fields=False)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_any_document_is_answered_the_same_in_the_same_order_however_often_and_with_which_variables(
    schema: JobsSchema, usual_schema: JobsSchema, context: Context, data: st.DataObject
) -> None:
    text = data.draw(documents(core_schema(schema)))
    assume(not validate(core_schema(schema), parse(text)))

    async def answer(by: JobsSchema, *, yes: bool) -> str:
        result = await by.execute(text, {"yes": yes}, context)
        return repr((result.data, [error.formatted for error in result.errors or []]))

    for yes in (True, False, True):
        assert asyncio.run(answer(schema, yes=yes)) == asyncio.run(answer(usual_schema, yes=yes))


class Colour(Enum):
    RED = "red"


Colours = strawberry.enum(Colour)


@strawberry.type
class Thing:
    text: str
    number: int
    ratio: float
    flag: bool
    colour: Colours  # type: ignore[valid-type]
    moment: datetime
    day: date
    price: Decimal
    maybe: str | None
    words: list[str]
    nested: "Thing | None"
    others: "list[Thing | None]"


@strawberry.type
class Root:
    thing: Thing | None
    things: list[Thing]


RIGHT: dict[str, Any] = {
    "text": "t",
    "number": 1,
    "ratio": 0.5,
    "flag": True,
    "colour": Colour.RED,
    "moment": datetime(2026, 1, 31, tzinfo=UTC),
    "day": date(2026, 1, 31),
    "price": Decimal("1.50"),
    "maybe": None,
    "words": ["a"],
    "nested": None,
    "others": [],
}
ODD = [
    None,
    "",
    "red",
    7,
    -(2**31) - 1,
    1.0,
    float("nan"),
    float("inf"),
    True,
    Colour.RED,
    datetime(2026, 1, 31),  # noqa: DTZ001
    [],
    ("a", "b"),
    ["a", None],
    {"a"},
    {},
    object(),
    ValueError("not a value"),
]
EVERYTHING = """{ thing { ...T nested { ...T } others { text nested { number } } } things { ...T __typename } }
fragment T on Thing { text number ratio flag colour moment day price maybe words }"""


@pytest.fixture(scope="module")
def things() -> GraphQLSchema:
    return core_schema(strawberry.Schema(Root))


@pytest.mark.parametrize("field", sorted(RIGHT))
@pytest.mark.parametrize("value", ODD, ids=lambda value: type(value).__name__ + str(value)[:12])
def test_a_value_of_any_other_kind_is_left_to_the_executor(things: GraphQLSchema, field: str, value: Any) -> None:
    odd = Thing(**{**RIGHT, field: value})
    outer = Thing(**{**RIGHT, "nested": odd, "others": [odd, None]})

    usual, past = answers(things, EVERYTHING, root=Root(thing=outer, things=[odd, Thing(**RIGHT)]))

    assert repr(past) == repr(usual)


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

    monkeypatch.setattr("gql_jobs.graphql.plain_fields.collect_subfields", counting)

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


def test_every_enum_and_scalar_of_the_schema_that_jobs_show_has_a_reader(schema: JobsSchema) -> None:
    core = core_schema(schema)
    job = core.type_map["Job"]
    assert is_object_type(job) or is_abstract_type(job)
    leaves = {get_named_type(field.type) for field in job.fields.values()}  # type: ignore[union-attr]
    read = {*plain_fields._SIMPLE, *plain_fields._EXACT}  # noqa: SLF001
    assert {leaf.name for leaf in leaves if is_leaf_type(leaf) and not isinstance(leaf, GraphQLEnumType)} - read == {
        "JSON"
    }
