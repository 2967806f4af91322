"""Operations that ask for too much are refused before they run; what real clients send is not."""

from pathlib import Path
from typing import Any

import pytest
from graphql import OperationDefinitionNode, get_introspection_query, parse

from gql_jobs.graphql.engine import documents
from gql_jobs.graphql.engine.complexity import LARGEST_PAGE, Measurement
from gql_jobs.graphql.engine.documents import INTROSPECTION_DEPTH, excess_of
from gql_jobs.graphql.engine.strawberry_internals import core_schema
from gql_jobs.graphql.schema import JobsSchema, build_schema
from gql_jobs.settings import Settings
from tests.graphql.engine.bombs import doubling_fragments, nested_events
from tests.shipped import shipped_schema, shipped_types

EXAMPLES = sorted((Path(__file__).parents[2] / "queries").glob("*.graphql"))

THREE = "{...R ...R __typename} fragment R on Query {__typename}"


@pytest.fixture(scope="module")
def schema() -> JobsSchema:
    return shipped_schema()


def _tight(**limits: int) -> JobsSchema:
    return build_schema(shipped_types(), Settings(**limits))  # type: ignore[arg-type]


async def _refusal(schema: JobsSchema, query: str, **variables: Any) -> dict[str, Any]:
    """The extensions of the one error of a query that has to be refused before it runs."""
    result = await schema.execute(query, variables)
    assert result.data is None
    (error,) = result.errors or []
    assert error.extensions is not None
    assert error.extensions["code"] == "TOO_COMPLEX", error
    return {**error.extensions, "message": error.message}


async def _codes(schema: JobsSchema, query: str) -> list[Any]:
    return [(error.extensions or {})["code"] for error in (await schema.execute(query)).errors or []]


@pytest.mark.parametrize(
    ("measure", "setting", "passes", "refused"),
    [
        ("depth", {"max_operation_depth": 5}, nested_events(1), nested_events(2)),
        ("number of root fields", {"max_operation_root_fields": 2}, "{a:__typename b:__typename}", THREE),
        ("number of aliases", {"max_operation_aliases": 1}, "{a:__typename}", "{a:__typename b:__typename}"),
        ("number of directives", {"max_operation_directives": 0}, "{__typename}", "{__typename @skip(if: false)}"),
        ("cost", {"max_operation_cost": 100}, "{jobs(first: 49) {nodes{id}}}", "{jobs{nodes{id}}}"),
    ],
)  # fmt: skip
async def test_a_limit_refuses_what_is_above_it(
    measure: str, setting: dict[str, int], passes: str, refused: str
) -> None:
    schema = _tight(**setting)
    (limit,) = setting.values()
    assert "TOO_COMPLEX" not in await _codes(schema, passes)
    refusal = await _refusal(schema, refused)
    assert (refusal["measure"], refusal["limit"]) == (measure, limit)
    assert refusal["actual"] > limit
    assert measure in refusal["message"]


@pytest.mark.parametrize(
    ("setting", "refused"),
    [
        ({"max_document_tokens": 100}, "{" + "__typename " * 100 + "}"),
        ({"max_document_tokens": 100}, "#\n" * 101 + "{__typename}"),
        ({"max_document_length": 1024}, "{__typename}" + " " * 1024),
        ({}, nested_events(300)),
    ],
    ids=["tokens", "comments", "length", "nesting"],
)
async def test_the_parser_gives_up_on_an_endless_document(setting: dict[str, int], refused: str) -> None:
    refusal = await _refusal(_tight(**setting), refused)
    assert "Parsing aborted" in refusal["message"]
    assert not refusal["message"].startswith("Syntax Error")


@pytest.mark.parametrize("levels", [7, 20, 90])
async def test_events_of_jobs_of_events_are_refused_before_they_overflow(schema: JobsSchema, levels: int) -> None:
    assert (await _refusal(schema, nested_events(levels)))["measure"] == "depth"


async def test_a_number_of_any_length_fits_into_the_answer(schema: JobsSchema) -> None:
    refusal = await _refusal(schema, doubling_fragments(40))
    assert (refusal["measure"], refusal["actual"]) == ("cost", 2**31 - 1)


async def test_a_refused_operation_is_measured_once_and_never_validated(
    schema: JobsSchema, monkeypatch: pytest.MonkeyPatch
) -> None:
    walks: list[Measurement] = []

    class Watched(Measurement):
        def __init__(self, *parts: Any) -> None:
            super().__init__(*parts)
            walks.append(self)

    monkeypatch.setattr(documents, "Measurement", Watched)
    await _refusal(schema, doubling_fragments(40) + " fragment Unused on Nope { id }")
    assert [walk.visited for walk in walks] == [2 + 1 + 2 * 40 + 1]


async def test_a_known_document_is_measured_anew_only_for_its_variables(
    schema: JobsSchema, monkeypatch: pytest.MonkeyPatch
) -> None:
    paged = "query ($n: Int) { jobs(first: $n) { nodes { events { job { events { at } } } } } }"
    fixed = "{ __typename }"
    for document in paged, fixed, fixed:
        await schema.execute(document, {"n": 1})
    assert schema.operations.documents.find(paged) is not None
    assert (await _refusal(schema, paged, n=500))["measure"] == "cost"
    monkeypatch.delattr(Measurement, "operation")
    assert (await schema.execute(fixed)).errors is None


async def test_a_cycle_of_fragments_is_left_to_validation(schema: JobsSchema) -> None:
    cycle = "{ job(id: 1) { ...A } } fragment A on Job { ...B } fragment B on Job { ...A }"
    assert await _codes(schema, cycle) == ["GRAPHQL_VALIDATION_FAILED"]


async def test_only_the_operation_that_runs_is_measured() -> None:
    document = f"query Small {{ __typename }} query Large {nested_events(20)}"
    schema = _tight()
    assert (await schema.execute(document, operation_name="Small")).errors is None
    assert (await schema.execute(document, operation_name="Large")).errors


async def test_subscriptions_are_refused_before_their_first_event(schema: JobsSchema) -> None:
    query = "subscription { jobEvents { ...E } } " + doubling_fragments(40).split("} } }", 1)[1]
    query += " fragment E on JobEvent { job { ...F0 } }"
    results = [result async for result in await schema.subscribe(query)]
    assert [[(e.extensions or {})["code"] for e in result.errors or []] for result in results] == [["TOO_COMPLEX"]]


async def test_requests_at_the_same_time_do_not_share_a_refusal(schema: JobsSchema) -> None:
    one, other = schema.get_extensions(), schema.get_extensions()
    assert not {id(extension) for extension in one} & {id(extension) for extension in other}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_are_within_the_limits(schema: JobsSchema, path: Path) -> None:
    document = parse(path.read_text())
    for operation in document.definitions:
        if isinstance(operation, OperationDefinitionNode):
            walk = Measurement(core_schema(schema), {}, {"first": LARGEST_PAGE})
            assert excess_of(walk.operation(operation), Settings()) is None


async def test_the_introspection_of_tools_is_within_the_limits(schema: JobsSchema) -> None:
    full = get_introspection_query(True, True, True, True, True)
    assert (await schema.execute(full)).errors is None
    deeper = '{ __type(name: "Job") { ' + "ofType { " * INTROSPECTION_DEPTH + "name" + " }" * INTROSPECTION_DEPTH + "}}"
    assert (await _refusal(schema, deeper))["measure"] == "introspection depth"
