"""The names of types within payloads and results follow from what there is, not from its order."""

from enum import Enum
from itertools import permutations
from typing import Annotated, Any, Literal

import pytest
from graphql import build_schema as parsed_schema
from graphql import lexicographic_sort_schema, print_schema
from pydantic import Field, create_model
from typing_extensions import TypeAliasType

from gql_jobs import Model
from gql_jobs.graphql.payload_types import RESERVED
from gql_jobs.graphql.registered_types import RegisteredTypes
from gql_jobs.graphql.schema import sdl
from gql_jobs.graphql.type_names import type_names
from gql_jobs.jobs.registry import JobType, Registry


def _made(module: str, name: str = "Box", **fields: Any) -> Any:
    return create_model(name, __base__=Model, __module__=module, **(fields or {"size": (int, ...)}))


def _holding(*models: Any) -> Any:
    return _made("app", "Holder", **{f"field_{number}": (model, ...) for number, model in enumerate(models)})


def _names(*models: Any, taken: frozenset[str] = RESERVED) -> list[str]:
    """The names of these, which one payload has."""
    names = type_names({"HolderPayload": _holding(*models)}, {}, taken)
    return [names[model] for model in models]


def test_a_class_keeps_its_name_where_nothing_else_has_it() -> None:
    assert _names(_made("app.video"), _made("app.audio", "Crate")) == ["Box", "Crate"]


def test_of_two_classes_of_one_name_both_are_told_apart_by_their_modules() -> None:
    one, other = _made("app.video_files"), _made("app.audio")
    assert _names(one, other) == ["VideoFilesBox", "AudioBox"]
    assert _names(other, one) == ["AudioBox", "VideoFilesBox"]


def test_as_much_of_a_module_stands_before_a_name_as_is_needed() -> None:
    assert _names(_made("one.jobs"), _made("two.jobs")) == ["OneJobsBox", "TwoJobsBox"]


def test_a_name_of_the_api_and_one_that_a_job_type_brings_are_not_to_be_had() -> None:
    assert _names(_made("app.video", "Job")) == ["VideoJob"]
    assert _names(_made("app.video", "Job"), taken=RESERVED | {"VideoJob"}) == ["AppVideoJob"]
    # Its input would be of that name.
    assert _names(_made("app.video", "CreateJob")) == ["VideoCreateJob"]


def test_what_comes_with_gql_jobs_keeps_its_name() -> None:
    assert _names(_made("gql_jobs.jobs.types.email"), _made("app.audio")) == ["Box", "AudioBox"]


def test_a_class_that_is_called_like_what_another_one_has_become_keeps_its_name() -> None:
    assert _names(_made("a.video"), _made("b.audio"), _made("c.files", "VideoBox")) == [
        "AVideoBox",
        "AudioBox",
        "VideoBox",
    ]


def test_an_enum_and_a_model_of_one_name_are_told_apart() -> None:
    made: Any = Enum
    assert _names(_made("app.video"), made("Box", {"RED": 1}, module="app.colours")) == ["VideoBox", "ColoursBox"]


def test_a_model_is_not_taken_for_the_input_of_another() -> None:
    assert _names(_made("app.video"), _made("app.audio", "BoxInput")) == ["VideoBox", "AudioBoxInput"]


def test_classes_that_stand_in_one_place_are_told_apart_by_what_they_are_a_part_of() -> None:
    one, other = _made("app.video"), _made("app.video")
    names = type_names({"SendPayload": _holding(one)}, {"SendResult": _holding(other)}, RESERVED)
    assert (names[one], names[other]) == ("SendPayloadBox", "SendResultBox")
    with pytest.raises(
        ValueError, match=r"The GraphQL type of app\.video\.Box would have the name of another one; rename"
    ):
        _names(one, other)


def _union(alias: bool, module: str = "app.video") -> Any:
    annotation: Any = Annotated[
        _made(module, "One", kind=(Literal.__getitem__("one"), ...))
        | _made(module, "Other", kind=(Literal.__getitem__("other"), ...)),
        Field(discriminator="kind"),
    ]
    return TypeAliasType("Shape", annotation) if alias else annotation


def test_a_union_is_named_after_its_alias_or_after_the_field_that_has_it() -> None:
    drawing = _made("app.video", "Drawing", best_shape=(_union(alias=False), ...))
    names = type_names({"SendPayload": drawing}, {}, RESERVED)
    assert set(names.values()) == {"DrawingBestShape", "One", "Other"}
    drawing = _made("app.video", "Drawing", best_shape=(_union(alias=True), ...))
    assert set(type_names({"SendPayload": drawing}, {}, RESERVED).values()) == {"Shape", "One", "Other"}


def test_the_schema_is_the_same_in_whatever_order_types_are_registered() -> None:
    inner = [_made("app.video"), _made("app.audio"), _made("app.video", "Tree", box=(_made("app.files"), ...))]
    drawing = _made("app", "Drawing", shape=(_union(alias=False), ...), box=(inner[0], ...))
    types = [
        JobType("one", _holding(inner[0], inner[2]), _holding(inner[1]), "m:f"),
        JobType("two", _holding(inner[1]), None, "m:f"),
        JobType("three", drawing, _holding(inner[0]), "m:f"),
    ]
    found = set()
    for ordered in permutations(types):
        registry = Registry()
        for job_type in ordered:
            registry.add(job_type)
        # Of JobPayloadInput the members stand in the order of registration.
        found.add(print_schema(lexicographic_sort_schema(parsed_schema(sdl(registry)))))
    assert len(found) == 1


def test_a_model_that_two_models_hold_is_the_same_whichever_comes_first() -> None:
    leaf = _made("app", "Leaf", size=(int, ...))
    branch = _made("app", "Branch", leaf=(leaf, ...))
    tree = _made("app", "Tree", branch=(branch, ...))
    for payloads in ({"a": tree, "b": branch}, {"a": branch, "b": tree}):
        registry = Registry()
        for name, payload in payloads.items():
            registry.add(JobType(name, payload, None, "m:f"))
        made = RegisteredTypes(registry).inputs
        fields = {name: shape.type.__strawberry_definition__.fields[0].type for name, shape in made.items()}
        assert {str(getattr(of, "__name__", of)) for of in fields.values()} == {"BranchInput", "LeafInput"}
