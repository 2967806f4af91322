"""What a viewer may not see does not exist: each field, argument and mutation is tried by each kind of viewer."""

from collections.abc import AsyncIterator, Iterator

import pytest
from graphql import GraphQLObjectType, GraphQLSchema

from gql_jobs.graphql.engine.strawberry_internals import attribute_of, core_schema
from gql_jobs.graphql.schema import JobsSchema
from gql_jobs.settings import Settings
from tests.graphql.doors import PROBES, VIEWERS, Installation, installation, verdict

META = ("Query.__typename", "Query.__schema", "Query.__type", "Mutation.__typename")


@pytest.fixture
async def found(settings: Settings) -> AsyncIterator[Installation]:
    async with installation(settings) as opened:
        yield opened


def _places(schema: GraphQLSchema) -> Iterator[str]:
    """Each root field, each field that is more than an attribute of what was found, and each argument of these."""
    yield from META
    for named in schema.type_map.values():
        if not isinstance(named, GraphQLObjectType) or named.name.startswith("__"):
            continue
        # The jobs of all types have the resolvers of their interface.
        owner = "Job" if any(one.name == "Job" for one in named.interfaces) else named.name
        is_root = named in {schema.query_type, schema.mutation_type, schema.subscription_type}
        for name, field in named.fields.items():
            if is_root or attribute_of(field) is None:
                yield f"{owner}.{name}"
                yield from (f"{owner}.{name}({argument})" for argument in field.args)


def test_each_field_and_each_argument_has_its_verdict_for_each_viewer(schema: JobsSchema) -> None:
    places = set(_places(core_schema(schema)))
    assert set(PROBES) == places
    for place, probe in PROBES.items():
        field, _, argument = place.rpartition(".")[2].rstrip(")").partition("(")
        assert field in probe.text
        assert not argument or f"{argument}:" in probe.text, place
        assert len(probe.verdicts) == len(VIEWERS)


@pytest.mark.parametrize("way", ["fast", "usual"])
async def test_each_viewer_finds_what_is_there_for_it_behind_each_field_and_nothing_else(
    found: Installation, schema: JobsSchema, usual_schema: JobsSchema, way: str
) -> None:
    by = schema if way == "fast" else usual_schema
    variables = found.variables
    got = {
        place: tuple([await verdict(found, by, probe, viewer, variables) for viewer in VIEWERS])
        for place, probe in PROBES.items()
    }
    assert got == {place: probe.verdicts for place, probe in PROBES.items()}
