"""The schema as a whole: complete, described, and what clients rely on."""

import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

import pytest
from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLSchema,
    build_schema,
    is_introspection_type,
    is_specified_scalar_type,
    parse,
    validate,
)
from pydantic import Field

from gql_jobs import Model
from gql_jobs.graphql import schema as schemas
from gql_jobs.graphql.payload_types import RESERVED
from gql_jobs.graphql.registered_types import type_stem
from gql_jobs.jobs.registry import JobType, Registry
from tests.contract_check import breaking_changes, coming_beside
from tests.shipped import shipped_schema, shipped_types

ROOT = Path(__file__).parents[2]
CONTRACT = ROOT.parent / "shared" / "contract.graphql"
EXAMPLES = sorted((ROOT / "tests" / "queries").glob("*.graphql"))


_EMPTY_WORDS = {"", "a", "an", "the", "of", "it", "its", "this", "that", "is", "to", "in", "value", "field", "type"}
"""Words that say nothing by themselves, as they are without an s at their end."""


class Quality(Enum):
    LOW = "LOW"
    HIGH = "h"


class Bare(Model):
    code: int
    quality: Quality = Quality.LOW


class Message(Model):
    """A text message."""

    number: str = Field(description="Whom to send it to.")


class Sent(Model):
    """What became of it."""

    cost: float = Field(description="In euros.")


def _core() -> GraphQLSchema:
    return build_schema(shipped_schema().as_str())


def test_the_file_is_what_the_code_prints() -> None:
    assert (ROOT / "schema.graphql").read_text() == schemas.sdl(shipped_types())


@pytest.mark.skipif(not CONTRACT.exists(), reason="the contract is not beside this checkout")
def test_clients_of_the_contract_keep_working() -> None:
    assert breaking_changes(CONTRACT.read_text(), coming_beside(CONTRACT)) == []


def _undescribed(schema: GraphQLSchema) -> Iterator[str]:
    for name, kind in schema.type_map.items():
        if is_introspection_type(kind) or is_specified_scalar_type(kind):
            continue
        if not kind.description:
            yield name
        if isinstance(kind, GraphQLEnumType):
            yield from (f"{name}.{value}" for value, v in kind.values.items() if not v.description)
        if isinstance(kind, GraphQLInputObjectType):
            yield from (f"{name}.{field}" for field, f in kind.fields.items() if not f.description)
        if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType):
            for field_name, field in kind.fields.items():
                if not field.description:
                    yield f"{name}.{field_name}"
                yield from (f"{name}.{field_name}({a})" for a, arg in field.args.items() if not arg.description)


def test_everything_is_described() -> None:
    assert list(_undescribed(_core())) == []


def _words(text: str) -> set[str]:
    spaced = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", text.replace("_", " "))
    return {word.rstrip("s") for word in re.findall(r"[a-z0-9]+", spaced.lower())} - _EMPTY_WORDS


def _repeated(schema: GraphQLSchema) -> Iterator[str]:
    """What has a description in which no word is new to somebody who has read its name and that of its type."""
    for name, kind in schema.type_map.items():
        if is_introspection_type(kind) or is_specified_scalar_type(kind):
            continue
        described = {name: kind.description}
        if isinstance(kind, GraphQLEnumType):
            described |= {f"{name}.{value}": v.description for value, v in kind.values.items()}
        if isinstance(kind, GraphQLInputObjectType | GraphQLObjectType | GraphQLInterfaceType):
            described |= {f"{name}.{field}": f.description for field, f in kind.fields.items()}
        for place, text in described.items():
            if text and not _words(text) - _words(place.replace(".", " ")):
                yield place


def test_no_description_merely_repeats_its_name() -> None:
    assert list(_repeated(_core())) == []


def test_what_a_model_does_not_describe_has_no_description_made_up() -> None:
    registry = Registry()
    registry.add(JobType("bare", Bare, Bare, "nowhere:handle"))
    schema = build_schema(schemas.sdl(registry))
    assert list(_repeated(schema)) == []
    bare, quality = schema.type_map["BarePayloadInput"], schema.type_map["Quality"]
    assert isinstance(bare, GraphQLInputObjectType)
    assert isinstance(quality, GraphQLEnumType)
    assert (bare.description, quality.description) == (None, None)
    assert {name: field.description for name, field in bare.fields.items()} == {
        "code": None,
        "quality": "Default: `LOW`.",
    }
    assert {name: value.description for name, value in quality.values.items()} == {
        "LOW": None,
        "HIGH": "The value `h`.",
    }


def test_names_that_every_schema_has_are_reserved() -> None:
    stems = [type_stem(job_type) for job_type in shipped_types()]
    of_types = {f"{stem}{part}" for stem in stems for part in ("Job", "Payload", "PayloadInput", "Result")}
    of_all = {name for name in _core().type_map if not name.startswith("__")} - of_types
    nested = {name for name in of_all if name.startswith(("Image", "Report", "DateRange"))}
    assert of_all - nested <= RESERVED


def test_schemas_of_different_registries_do_not_meet() -> None:
    ours, theirs = shipped_types(), Registry()
    theirs.add(JobType("sms", payload=Message, result=Sent, handler="nowhere:send"))
    before = schemas.sdl(ours)
    other = schemas.sdl(theirs)
    assert "sms: SmsPayloadInput" in other
    assert "type SmsJob implements Job {" in other
    assert "EmailJob" not in other
    assert schemas.sdl(ours) == before


def test_a_registry_without_types_is_refused() -> None:
    with pytest.raises(ValueError, match="No job type is registered"):
        schemas.build_schema(Registry())


def test_a_job_type_cannot_take_a_name_of_the_api() -> None:
    registry = Registry()
    registry.add(JobType("create_job", payload=Message, result=Sent, handler="nowhere:send"))
    with pytest.raises(ValueError, match="'CreateJobPayload' of a job type is taken"):
        schemas.build_schema(registry)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_example_is_valid(path: Path) -> None:
    assert path.read_text().startswith("# ")
    assert validate(_core(), parse(path.read_text())) == []


def test_there_is_an_example_for_every_operation() -> None:
    core = _core()
    roots = [core.query_type, core.mutation_type, core.subscription_type]
    fields = {field for root in roots if root is not None for field in root.fields}
    text = "\n".join(path.read_text() for path in EXAMPLES)
    assert {field for field in fields if f" {field}" not in text} == set()
