"""Every place where Strawberry or graphql-core is reached into without a public way: what is expected of it there.

docs/architecture.md has the table; each of its rows names one of these tests.
"""

import asyncio
import dataclasses
from enum import Enum
from typing import Annotated, Any

import pytest
import strawberry
from graphql import (
    ExecutionResult,
    GraphQLEnumType,
    GraphQLError,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLOneOfDirective,
    GraphQLSchema,
    execute,
    get_named_type,
    is_introspection_type,
    parse,
)
from strawberry.execution.is_awaitable import optimized_is_awaitable
from strawberry.schema_directives import OneOf
from strawberry.tools import create_type

from gql_jobs.graphql.context import Context
from gql_jobs.graphql.engine.fast_path import EventExecutor, call_resolvers
from gql_jobs.graphql.engine.strawberry_internals import (
    attribute_of,
    brings_events,
    compute,
    computed,
    core_schema,
    describe_enum,
    describe_one_of,
    enum_class,
    named_field,
    object_name,
    read_as,
    resolver_of,
    selection_below,
)
from gql_jobs.graphql.job_types import presented_event
from gql_jobs.graphql.payload_types import Shown
from gql_jobs.graphql.schema import JobsSchema
from tests.graphql.sample_jobs import IDS


class Colour(Enum):
    """Belongs to somebody who knows nothing of GraphQL."""

    RED = "r"


describe_enum(Colour, "A colour.", {"RED": "Like a rose."}, name="Paint")


@strawberry.input
class Inner:
    """An input in an input."""

    some_number: int = 7
    left_out: str | None = strawberry.UNSET


@strawberry.input(one_of=True)
class Choice:
    """Exactly one of two."""

    first_one: Inner | None = strawberry.UNSET
    other: int | None = strawberry.UNSET


@strawberry.type
class Thing:
    """With a field of each sort."""

    plain_name: str
    colour: Colour = Colour.RED
    shown: str = computed("Read from another attribute.")

    @strawberry.field
    def of_itself(self) -> str:
        """Return what follows from the thing."""
        return f"of {self.plain_name}"

    @strawberry.field
    async def of_context(self, info: strawberry.Info[str, None], some_word: str = "by") -> str:
        """Return what follows from the context as well."""
        return f"{self.plain_name} {some_word} {info.context} in {type(info.schema).__name__}"


compute(Thing, shown=lambda thing: thing.plain_name.upper())


def _echo(choice: Annotated[dict[str, Any], strawberry.argument(graphql_type=Choice)]) -> str:
    return repr(choice)


def _thing() -> Thing:
    return Thing(plain_name="thing")


@pytest.fixture(scope="module")
def core() -> GraphQLSchema:
    query = create_type("Query", [strawberry.field(_echo, name="echo"), strawberry.field(_thing, name="thing")])
    core = core_schema(strawberry.Schema(query))
    call_resolvers(core)
    return core


def _run(core: GraphQLSchema, text: str, **variables: Any) -> Any:
    async def run() -> Any:
        found: Any = execute(core, parse(text), context_value="somebody", variable_values=variables)
        return await found if asyncio.iscoroutine(found) else found

    return asyncio.run(run())


def test_the_core_schema_is_the_one_that_strawberry_prints(schema: JobsSchema) -> None:
    core = core_schema(schema)
    assert set(core.type_map) >= {"Query", "Mutation", "Subscription", "Job", "CreateJobInput"}
    assert core._strawberry_schema is schema  # type: ignore[attr-defined]  # noqa: SLF001 -- Info.schema reads it


def test_every_field_and_argument_leads_back_to_its_definition(schema: JobsSchema) -> None:
    for named in core_schema(schema).type_map.values():
        if is_introspection_type(named):
            continue
        if isinstance(named, GraphQLInputObjectType):
            assert all(member.out_name is not None for member in named.fields.values()), named
        if isinstance(named, GraphQLObjectType | GraphQLInterfaceType):
            for name, field in named.fields.items():
                assert (attribute_of(field) is None) is (resolver_of(field) is not None), (named, name)
                assert brings_events(field) is (named.name == "Subscription")
                assert all(argument.out_name is not None for argument in field.args.values()), (named, name)


def test_a_resolver_is_called_with_its_source_an_info_and_arguments_by_python_names(core: GraphQLSchema) -> None:
    result = _run(core, '{ thing { plainName ofItself ofContext other: ofContext(someWord: "for") } }')
    assert result.errors is None
    assert result.data["thing"] == {
        "plainName": "thing",
        "ofItself": "of thing",
        "ofContext": "thing by somebody in Schema",
        "other": "thing for somebody in Schema",
    }


def test_an_input_object_is_a_dictionary_by_python_names_without_what_was_left_out(core: GraphQLSchema) -> None:
    assert _run(core, "{ echo(choice: {firstOne: {}}) }").data == {"echo": "{'first_one': {'some_number': 7}}"}
    by_variable = "query ($choice: Choice!) { echo(choice: $choice) }"
    assert _run(core, by_variable, choice={"firstOne": {"leftOut": None}}).data == {
        "echo": "{'first_one': {'some_number': 7, 'left_out': None}}"
    }


def test_an_input_object_is_read_as_what_is_made_of_its_dictionary() -> None:
    made = create_type(
        "Doubled", [named_field("number", strawberry.field(name="number", graphql_type=int))], is_input=True
    )
    read_as(made, lambda given: given["number"] * 2)

    def echo(value: Annotated[Any, strawberry.argument(graphql_type=made)]) -> int:
        return int(value)

    core = core_schema(strawberry.Schema(create_type("Query", [strawberry.field(echo, name="echo")])))
    call_resolvers(core)
    literal = execute(core, parse("{ echo(value: {number: 3}) }"))
    variable = execute(
        core, parse("query ($value: Doubled!) { echo(value: $value) }"), variable_values={"value": {"number": 4}}
    )
    assert isinstance(literal, ExecutionResult)
    assert isinstance(variable, ExecutionResult)
    assert (literal.data, variable.data) == ({"echo": 6}, {"echo": 8})


def test_an_object_of_a_union_says_itself_of_which_type_it_is() -> None:
    one: Any
    other: Any
    one, other = (
        create_type(name, [named_field("number", strawberry.field(name="number", graphql_type=int))])
        for name in ("One", "Other")
    )

    def either() -> Any:
        return Shown({"number": 1}, frozenset(), lacking=False, type_name="Other")

    union: Any = Annotated.__class_getitem__((one | other, strawberry.union("Either")))  # type: ignore[attr-defined]
    field = strawberry.field(either, name="either", graphql_type=union)
    core = core_schema(strawberry.Schema(create_type("Query", [field])))
    call_resolvers(core)
    answer = execute(core, parse("{ either { __typename ... on Other { number } } }"))
    assert isinstance(answer, ExecutionResult)
    assert (answer.errors, answer.data) == (None, {"either": {"__typename": "Other", "number": 1}})


def test_one_of_is_checked_by_graphql_core_whose_error_has_a_place(core: GraphQLSchema) -> None:
    for choice in ({}, {"other": None}, {"other": 1, "firstOne": {}}):
        (error,) = _run(core, "query ($choice: Choice!) { echo(choice: $choice) }", choice=choice).errors
        assert "choice" in error.message
        assert isinstance(error.original_error, GraphQLError)
        assert error.original_error.original_error is None


def test_a_resolver_sees_what_is_selected_below_its_field() -> None:
    seen = []

    @strawberry.type
    class Query:
        @strawberry.field
        def inner(self, info: strawberry.Info) -> str:
            seen.append(selection_below(info))
            return ""

    core = core_schema(strawberry.Schema(Query))
    call_resolvers(core)
    execute(core, parse("{ inner ...F } fragment F on Query { inner }"))
    ((nodes, fragments),) = seen
    assert [node.name.value for node in nodes] == ["inner", "inner"]
    assert list(fragments) == ["F"]


def test_one_of_is_described() -> None:
    describe_one_of()
    printed = strawberry.Schema(create_type("Query", [strawberry.field(_echo, name="echo")])).as_str()
    assert f'"""\n{GraphQLOneOfDirective.description}\n"""\ndirective @oneOf' in printed
    assert OneOf.__strawberry_directive__.description == GraphQLOneOfDirective.description  # type: ignore[attr-defined]


def test_a_computed_field_is_a_property_and_no_argument_of_the_constructor(core: GraphQLSchema) -> None:
    assert "shown" not in {field.name for field in dataclasses.fields(Thing) if field.init}
    assert _run(core, "{ thing { shown } }").data == {"thing": {"shown": "THING"}}


def test_a_foreign_enum_is_described_in_place_and_known_by_its_class(core: GraphQLSchema) -> None:
    paint = core.type_map["Paint"]
    assert isinstance(paint, GraphQLEnumType)
    assert (paint.description, paint.values["RED"].description) == ("A colour.", "Like a rose.")
    assert enum_class(paint) is Colour


def test_an_object_type_is_known_by_the_class_it_was_made_of_and_not_by_a_subclass() -> None:
    assert object_name(Thing) == "Thing"
    assert object_name(type("Sub", (Thing,), {})) is None
    assert object_name(int) is None


def test_a_field_of_a_made_type_reads_the_attribute_that_it_was_named_after() -> None:
    member = named_field("some_attribute", strawberry.field(name="shown", graphql_type=str))
    made = core_schema(strawberry.Schema(create_type("Query", [member])))
    assert made.query_type is not None
    assert attribute_of(made.query_type.fields["shown"]) == "some_attribute"


def test_what_can_be_awaited_is_told_from_what_cannot() -> None:
    async def later() -> None: ...

    waiting = later()
    assert optimized_is_awaitable(waiting)
    waiting.close()
    assert not any(map(optimized_is_awaitable, (None, 1, "text", [], {}, Thing(plain_name=""))))


def test_every_field_of_a_job_has_a_type_of_the_core_schema(core: GraphQLSchema) -> None:
    thing = core.type_map["Thing"]
    assert isinstance(thing, GraphQLObjectType)
    assert {name: get_named_type(field.type).name for name, field in thing.fields.items()}["colour"] == "Paint"


def test_what_graphql_core_caches_for_an_event_does_not_outlive_it(usual_schema: JobsSchema, context: Context) -> None:
    core = core_schema(usual_schema)
    document = parse("subscription { jobEvents { job { id error { message } } } }")
    executor = EventExecutor.build(core, document, context_value=context)
    assert isinstance(executor, EventExecutor)
    event = context.services().index.events(IDS[3])[-1]
    for _ in range(3):
        one: Any = executor.build_per_event_executor(presented_event(event, usual_schema.present))
        assert one.execute_operation().errors is None
        assert one._relevant_sub_fields  # noqa: SLF001 -- graphql-core still fills it
        assert not executor._relevant_sub_fields  # noqa: SLF001
