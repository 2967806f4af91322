"""Compare the schema with the contract that clients rely on: ``python -m tests.contract_check CONTRACT``.

Prints what would break them and exits with 1.
"""

import sys
from pathlib import Path

from graphql import build_schema, find_breaking_changes

from tests.shipped import shipped_schema


def breaking_changes(contract: str) -> list[str]:
    """What the schema takes from clients of the contract."""
    changes = find_breaking_changes(build_schema(contract), build_schema(shipped_schema().as_str()))
    return [change.description for change in changes]


def main() -> int:
    """Exit code of the check."""
    (path,) = sys.argv[1:]
    changes = breaking_changes(Path(path).read_text())
    for change in changes:
        sys.stdout.write(f"{change}\n")
    return 1 if changes else 0


if __name__ == "__main__":
    sys.exit(main())
