"""docs/state_machine.md draws exactly the fold's table."""

import re

from gql_jobs.jobs.fold import MOVES
from gql_jobs.jobs.messages import Kind
from gql_jobs.jobs.model import JobStatus
from tests.running import ROOT

_ARROW = re.compile(r"^    (\S+) --> (\S+): (.+)$", re.MULTILINE)


def test_the_drawn_transitions_are_the_legal_moves() -> None:
    text = (ROOT / "docs/state_machine.md").read_text()
    diagram = text.partition("```mermaid\nstateDiagram-v2\n")[2].partition("```")[0]
    drawn = [
        (_state(before), Kind(kind.strip()), _state(after))
        for before, after, kinds in _ARROW.findall(diagram)
        for kind in kinds.split(",")
    ]
    assert len(drawn) == len(set(drawn))
    assert set(drawn) == {(before, kind, after) for (before, kind), after in MOVES.items()}
    assert diagram.count("-->") == len(_ARROW.findall(diagram))


def _state(name: str) -> JobStatus | None:
    return None if name == "[*]" else JobStatus[name]
