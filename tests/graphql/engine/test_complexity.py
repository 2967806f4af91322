"""What an operation comes to, and that measuring it takes one look at each of its selections."""

from typing import Any

import pytest
from graphql import (
    DocumentNode,
    FragmentDefinitionNode,
    Node,
    OperationDefinitionNode,
    SelectionNode,
    Visitor,
    parse,
    visit,
)

from gql_jobs.graphql.engine.complexity import ASSUMED_LIST, LARGEST_PAGE, Complexity, Measurement, TooDeep
from gql_jobs.graphql.engine.strawberry_internals import core_schema
from tests.graphql.engine.bombs import doubling_fragments
from tests.shipped import shipped_schema

CORE = core_schema(shipped_schema())


def _measured(query: str, **variables: Any) -> tuple[Complexity, int]:
    """The complexity of the document's only operation, and how many selections were visited."""
    document = parse(query)
    fragments = {d.name.value: d for d in document.definitions if isinstance(d, FragmentDefinitionNode)}
    (operation,) = (d for d in document.definitions if isinstance(d, OperationDefinitionNode))
    walk = Measurement(CORE, fragments, variables)
    return walk.operation(operation), walk.visited


def _selections(document: DocumentNode) -> int:
    found = 0

    class Counter(Visitor):
        def enter(self, node: Node, *_args: Any) -> None:
            nonlocal found
            found += isinstance(node, SelectionNode)

    visit(document, Counter())
    return found


@pytest.mark.parametrize(
    ("query", "depth"),
    [
        ("{ workers { id } }", 2),
        ("{ jobs { nodes { error { message } } totalCount } }", 4),
        ("{ jobs { ...C } } fragment C on JobConnection { nodes { ... on EmailJob { payload { to } } } }", 4),
        ("{ __schema { types { name } } workers { id } }", 2),
    ],
)
def test_depth_is_the_longest_way_down_and_fragments_add_none(query: str, depth: int) -> None:
    assert _measured(query)[0].depth == depth


@pytest.mark.parametrize(
    ("query", "cost"),
    [
        ("{ workers { id } }", ASSUMED_LIST * 2),
        ("{ job(id: 1) { id } }", 2),
        ("{ jobs { totalCount } }", 2),
        ("{ jobs { nodes { id } } }", 1 + 50 * 2),
        ("{ jobs(first: null) { nodes { id } } }", 1 + 50 * 2),
        ("{ jobs(first: 7) { nodes { id } edges { node { id } } } }", 1 + 7 * 2 + 7 * 3),
        ("{ jobs(first: 0) { nodes { id } } }", 1),
        ("{ jobs(first: -3) { nodes { id } } }", 1),
        ("{ jobs(first: 7) { nodes { events { at } } } }", 1 + 7 * (1 + ASSUMED_LIST * 2)),
        (
            "{ jobs(first: 7) { ...C } } fragment C on JobConnection { nodes { ...J ...J } } fragment J on Job { id }",
            22,
        ),
        ("{ jobs(first: 999999) { nodes { id } } }", 1 + LARGEST_PAGE * 2),
        (f"{{ jobs(first: {'9' * 5000}) {{ nodes {{ id }} }} }}", 1 + LARGEST_PAGE * 2),
        ("{ job(id: 1) { tags } }", 2),
        ("{ nope { nope } }", 2),
    ],
    ids=lambda value: str(value)[:60],
)
def test_cost_counts_the_sizes_of_lists(query: str, cost: int) -> None:
    assert _measured(query)[0].cost == cost


@pytest.mark.parametrize(
    ("variables", "items"),
    [({"n": 9}, 9), ({"n": 9.0}, 9), ({"n": None}, 50), ({}, 4), ({"n": "x"}, ASSUMED_LIST)],
)
def test_the_size_of_a_list_may_come_from_a_variable(variables: dict[str, Any], items: int) -> None:
    query = "query ($n: Int = 4) { jobs(first: $n) { nodes { id } } }"
    assert _measured(query, **variables)[0].cost == 1 + items * 2


def test_a_variable_without_value_leaves_the_default_of_the_argument() -> None:
    assert _measured("query ($n: Int) { jobs(first: $n) { nodes { id } } }")[0].cost == 1 + 50 * 2


def test_a_mutation_answers_as_many_items_as_it_is_given() -> None:
    many = "mutation ($inputs: [CreateJobInput!]!) { createJobs(inputs: $inputs) { jobs { id } } }"
    assert _measured(many, inputs=[{}] * 30)[0].cost == 1 + 30 * 2
    assert _measured("mutation { createJobs(inputs: [{}, {}]) { jobs { id } } }")[0].cost == 1 + 2 * 2


def test_aliases_directives_and_root_fields_count_at_each_spread() -> None:
    query = """query @a { ...R ...R ... @include(if: true) { workers { a: id } } }
    fragment R on Query { b: workers { c: id @skip(if: false) } queues { name } }"""
    found = _measured(query)[0]
    assert (found.fields, found.aliases, found.directives) == (5, 5, 4)


@pytest.mark.parametrize("number", [1, 10, 40, 70])
def test_every_selection_is_visited_once_however_often_its_fragment_is_spread(number: int) -> None:
    query = doubling_fragments(number)
    found, visited = _measured(query)
    assert visited == _selections(parse(query))
    assert found.cost == 1 + 50 * (1 + 2**number)


def test_a_cycle_of_fragments_ends() -> None:
    query = "{ job(id: 1) { ...A } } fragment A on Job { ...B id } fragment B on Job { ...A ...B id }"
    assert _measured(query)[1] == _selections(parse(query))


def test_what_is_nested_too_deeply_to_be_walked_says_so() -> None:
    with pytest.raises(TooDeep):
        _measured(doubling_fragments(1000))
