"""Compare the schema with the contract that clients rely on: ``python -m tests.contract_check CONTRACT``.

``contract_next.graphql`` beside the contract says what later releases add, in parts; those that are done are kept like
the contract itself. Prints what would break clients and exits with 1.
"""

import re
import sys
from pathlib import Path

from graphql import build_schema, extend_schema, find_breaking_changes, is_interface_type, parse

from tests.shipped import shipped_schema

DONE = ("doors", "screen")
"""The parts of ``contract_next.graphql`` that are done."""
_GAINS = re.compile(r"^# interface (\w+) and all its types gain:([^(\n]*)", re.MULTILINE)


def breaking_changes(contract: str, coming: str = "") -> list[str]:
    """What the schema takes from clients of the contract.

    :param coming: what later releases add; only what is done of it counts.
    """
    parts = [_part(coming, issue) for issue in DONE] if coming else []
    agreed = build_schema("\n".join([contract, *parts]))
    for interface, fields in [gained for part in parts for gained in _GAINS.findall(part)]:
        of = agreed.type_map[interface]
        assert is_interface_type(of)
        types = [f"extend type {one.name} {{ {fields} }}" for one in agreed.get_possible_types(of)]
        agreed = extend_schema(agreed, parse("\n".join([f"extend interface {interface} {{ {fields} }}", *types])))
    changes = find_breaking_changes(agreed, build_schema(shipped_schema().as_str()))
    return [change.description for change in changes]


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
