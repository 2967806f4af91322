"""Results as tables, for a terminal and for Markdown."""

from collections.abc import Iterable, Sequence

from benchmarks.goals import Verdict, verdicts
from benchmarks.measurement import ALL_OURS, OURS, Record


def amount(value: float) -> str:
    """A figure as it is read: thousands apart, three digits."""
    return f"{value:,.0f}".replace(",", " ") if abs(value) >= 1000 else f"{value:.3g}"  # noqa: PLR2004


def spread(record: Record) -> str:
    """Median and the range of the repetitions."""
    return f"{amount(record['value'])} [{amount(record['min'])}..{amount(record['max'])}]"


def ratio(record: Record, measured: Iterable[Record]) -> str:
    """Our figure by this one, of the same metric."""
    same = {
        other["system"]: other["value"]
        for other in measured
        if (other["bench"], other["metric"]) == (record["bench"], record["metric"])
    }
    first = next((system for system in ALL_OURS if system in same), None)
    if first is None or record["system"] == first or not record["value"]:
        return ""
    return f"{same[first] / record['value']:.2f}"


def results(measured: Sequence[Record]) -> str:
    """Every figure, for a terminal."""
    rows = [
        (r["bench"], r["metric"], r["system"], f"{spread(r)} {r['unit']}", ratio(r, measured), str(r["n"]))
        for r in measured
        if r["bench"] != "machine"
    ]
    return _aligned(("bench", "metric", "system", "median [min..max]", "ours : it", "n"), rows)


def goals(measured: Sequence[Record]) -> str:
    """Every goal that something is known about, for a terminal."""
    rows = [goal_row(verdict) for verdict in verdicts(measured) if verdict.ours is not None]
    return _aligned(("goal of", "metric", "goal", "measured", "ratio", ""), rows)


def goal_row(verdict: Verdict) -> tuple[str, str, str, str, str, str]:
    """Bench, metric, goal, our figure, the ratio, and whether it is met."""
    goal, ours = verdict.goal, verdict.ours
    met = {True: "met", False: "missed", None: "not measured"}[verdict.met]
    absolute = not goal.against and goal.own is None
    shown = "" if verdict.ratio is None or absolute else f"{verdict.ratio:.2f}"
    figure = "" if ours is None else f"{amount(ours['value'])} {ours['unit']}"
    metric = goal.metric if goal.system == OURS else f"{goal.metric}, {goal.system.partition(', ')[2]}"
    return goal.bench, metric, goal.text + (" (further)" if goal.further else ""), figure, shown, met


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = (head, ["-" * width for width in widths], *rows)
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
                     for line in lines)  # fmt: skip
