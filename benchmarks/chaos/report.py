"""What a run found, as one JSON object or as tables for people."""

import statistics
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.chaos.checker import Findings
from benchmarks.chaos.nemesis import Outcome, by_kind

_FIRST = ("lost", "terminal_missing", "terminal_repeated", "gaps", "duplicates")


@dataclass
class Report:
    """``command``, ``seed`` and ``versions`` are what is needed to repeat it; ``seconds`` is how long it took."""

    command: str
    seed: int
    versions: dict[str, str]
    findings: Findings
    outcomes: list[Outcome]
    seconds: float
    figures: dict[str, Any] = field(default_factory=dict)

    def as_object(self) -> dict[str, Any]:
        """Counts of broken promises, figures, and per kind of fault: how often, recovery and unavailable seconds."""
        counts = {promise: len(cases) for promise, cases in self.findings.broken.items()}
        return {
            "acknowledged": self.findings.figures.get("acknowledged", 0),
            **{promise: counts.get(promise, 0) for promise in (*_FIRST, *sorted(counts))},
            "faults": dict(sorted(by_kind(self.outcomes).items())),
            "recovery_seconds": self._seconds("recovery"),
            "unavailable_seconds": self._seconds("unavailable"),
            **self.findings.figures,
            **self.figures,
            "kept": self.findings.kept,
            "cases": self.findings.shown(),
            "seed": self.seed,
            "command": self.command,
            "seconds": round(self.seconds, 1),
            "versions": self.versions,
            "outcomes": [_rounded(outcome) for outcome in self.outcomes],
        }

    def as_text(self) -> str:
        """Two tables in Markdown, and what was broken."""
        whole = self.as_object()
        promises = [name for name in (*_FIRST, *sorted(self.findings.broken)) if name in whole]
        lines = [f"`{self.command}` (seed {self.seed}), {self.seconds:.0f} s", "", "| what | count |", "|---|---|"]
        lines += [
            f"| {name.replace('_', ' ')} | {whole[name]} |" for name in dict.fromkeys(("acknowledged", *promises))
        ]
        lines += [f"| {name.replace('_', ' ')} | {_shown(value)} |" for name, value in self._figures().items()]
        lines += [
            "",
            "| fault | times | recovery: median, longest | unavailable: median, longest |",
            "|---|---|---|---|",
        ]
        for kind, times in whole["faults"].items():
            recovery, unavailable = whole["recovery_seconds"][kind], whole["unavailable_seconds"][kind]
            lines.append(f"| {kind} | {times} | {_pair(recovery)} | {_pair(unavailable)} |")
        for promise, cases in self.findings.shown().items():
            lines += ["", f"BROKEN: {promise}", *(f"  {case}" for case in cases)]
        return "\n".join(lines)

    def _figures(self) -> dict[str, Any]:
        known = {**self.findings.figures, **self.figures, **self.versions}
        return {name: value for name, value in known.items() if name != "acknowledged"}

    def _seconds(self, measure: str) -> dict[str, dict[str, float]]:
        times: dict[str, list[float]] = {}
        for outcome in self.outcomes:
            value = getattr(outcome, measure)
            if value is not None:
                times.setdefault(outcome.fault.value, []).append(value)
        measured = {
            kind: {"median": round(statistics.median(all_), 1), "longest": round(max(all_), 1)}
            for kind, all_ in sorted(times.items())
        }
        return {kind: measured.get(kind, {}) for kind in sorted(by_kind(self.outcomes))}


def _rounded(outcome: Outcome) -> dict[str, Any]:
    return {
        name: round(value, 2) if isinstance(value, float) else value
        for name, value in asdict(outcome).items()
        if name not in {"began", "ended"}
    }


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {part}" for name, part in value.items()) or "none"
    return str(value)


def _pair(measured: dict[str, float]) -> str:
    return f"{measured['median']} s, {measured['longest']} s" if measured else "none"
