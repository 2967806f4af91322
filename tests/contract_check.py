"""Compare the schema with the contract that clients rely on: ``python -m tests.contract_check CONTRACT``.

``contract_next.graphql`` beside the contract says what later releases add, in parts; those that are done are kept like
the contract itself. Prints what would break clients and exits with 1.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from graphql import (
    DangerousChangeType,
    GraphQLEnumType,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLNamedType,
    GraphQLSchema,
    build_schema,
    extend_schema,
    find_breaking_changes,
    find_dangerous_changes,
    is_interface_type,
    parse,
    print_ast,
)

from tests.shipped import shipped_schema

DONE = ("doors", "screen", "steering")
"""The parts of ``contract_next.graphql`` that are done."""
_GAINS = re.compile(r"^# interface (\w+) (?:and all its types gain|gains):([^\n]*)", re.MULTILINE)
_ADDS = re.compile(r";\s*(\w+) gains\s+(\w+)")
"""An input that gains a field, or an enum that gains a value, behind what an interface gains, on the same line."""
_REMARK = re.compile(r"\([^)]*\)")


def breaking_changes(contract: str, coming: str = "") -> list[str]:
    """What the schema takes from clients of the contract.

    :param coming: what later releases add; only what is done of it counts.
    """
    parts = [_part(coming, issue) for issue in DONE] if coming else []
    agreed = build_schema("\n".join([contract, *parts]))
    for interface, said in [gained for part in parts for gained in _GAINS.findall(part)]:
        fields = _REMARK.sub("", said).split(";")[0]
        of = agreed.type_map[interface]
        assert is_interface_type(of)
        types = [f"extend type {one.name} {{ {fields} }}" for one in agreed.get_possible_types(of)]
        agreed = extend_schema(agreed, parse("\n".join([f"extend interface {interface} {{ {fields} }}", *types])))
    shipped = build_schema(shipped_schema().as_str())
    changes = [change.description for change in find_breaking_changes(agreed, shipped)]
    lacking = [
        f"{name} lacks {member}."
        for part in parts
        for name, member in _ADDS.findall(part)
        if member not in _members(shipped.type_map.get(name))
    ]
    return [*changes, *lacking, *_other_defaults(agreed, shipped)]


def _members(kind: GraphQLNamedType | None) -> set[str]:
    if isinstance(kind, GraphQLEnumType):
        return set(kind.values)
    return set(kind.fields) if isinstance(kind, GraphQLInputObjectType) else set()


def _other_defaults(agreed: GraphQLSchema, shipped: GraphQLSchema) -> Iterator[str]:
    """Whatever means something else where a client leaves it out: of arguments, and of fields of inputs."""
    for change in find_dangerous_changes(agreed, shipped):
        if change.type is DangerousChangeType.ARG_DEFAULT_VALUE_CHANGE:
            yield change.description
    for name, kind in agreed.type_map.items():
        now = shipped.type_map.get(name)
        if not isinstance(kind, GraphQLInputObjectType) or not isinstance(now, GraphQLInputObjectType):
            continue
        for field, was in kind.fields.items():
            if field in now.fields and (before := _default(was)) != (after := _default(now.fields[field])):
                yield f"{name}.{field} has changed its default from {before} to {after}."


def _default(field: GraphQLInputField) -> str | None:
    """Return the default as the schema writes it."""
    node = field.ast_node and field.ast_node.default_value
    return print_ast(node) if node else None


def coming_beside(contract: Path) -> str:
    """What later releases add, from the file beside the contract; empty where there is none."""
    path = contract.with_name("contract_next.graphql")
    return path.read_text() if path.exists() else ""


def _part(coming: str, issue: str) -> str:
    found = re.search(rf'^# ─+ issue "{issue}"[^\n]*\n(.*?)(?=^# ─+ issue "|\Z)', coming, re.MULTILINE | re.DOTALL)
    assert found is not None, f"there is no part {issue!r}"
    return found[1]


def main() -> int:
    """Exit code of the check."""
    path = Path(*sys.argv[1:])
    changes = breaking_changes(path.read_text(), coming_beside(path))
    for change in changes:
        sys.stdout.write(f"{change}\n")
    return 1 if changes else 0


if __name__ == "__main__":
    sys.exit(main())
