"""What a check has found: a sentence on what is wrong, and one on what to do."""

from collections.abc import Iterable

from msgspec import Struct

SHOWN = 5


class Finding(Struct, frozen=True):
    """``check``: the name of the module that found it; ``examples``: a few of what is meant, of ``count`` in all."""

    check: str
    problem: str
    advice: str
    count: int = 1
    examples: tuple[str, ...] = ()


def several(check: str, what: str, advice: str, found: Iterable[str]) -> list[Finding]:
    """One finding about all of these, none if there are none. ``what`` says what they are, behind their number."""
    names = sorted(found)
    if not names:
        return []
    return [Finding(check, f"{len(names)} {what}.", advice, len(names), tuple(names[:SHOWN]))]
