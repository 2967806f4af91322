"""Results kept, and what is written from them: charts, the README's section on performance, docs/performance.md.

Nothing here measures; the documents hold no figure that is not in ``results/latest.json``.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.charts import chart
from benchmarks.goals import verdicts
from benchmarks.machine import ROOT
from benchmarks.measurement import OURS, Record
from benchmarks.table import amount, goal_row, markdown, ratio, spread

RESULTS = ROOT / "benchmarks/results"
LATEST = RESULTS / "latest.json"
CHARTS = {
    ("drain", "20 000 jobs"): "Draining 20 000 queued jobs, one worker process",
    ("create", "createJob"): "createJob over HTTP, one server process",
    ("page", "10 000 jobs"): "A page of 50 jobs with 10 fields, filtered",
    ("fanout_shared", "deliveries"): "The same events to 1 000 sockets",
    ("fanout_own", "deliveries"): "Their own events to 1 000 sockets",
    ("start_latency", "p50"): "From creation to the handler's first line, median",
    ("idle", "memory"): "Memory per idle subscription",
}
WORK = {
    "drain": "queued no-op jobs, one worker process",
    "create": "`createJob` over HTTP, 50 connections",
    "create_bulk": "creation in bulk",
    "enqueue": "creation by a back end with the system's own client; many: in bulk, where there is a call for it",
    "page": "page of 50 jobs, 10 fields, filtered",
    "authentication": "CPU time of the API where whoever asks has to be known, by what it is without",
    "fanout_shared": "one subscription, 1 000 sockets",
    "fanout_own": "a subscription each, 1 000 sockets",
    "start_latency": "creation to the handler's first line",
    "event_latency": "report of progress to the frame in the client",
    "idle": "memory per idle subscription",
    "drain_scaling": "draining with more processes, and from a long queue",
    "gated_drain": "draining jobs that pass the gate",
    "rebuild": "index from an empty file",
    "cost": "what 100 000 jobs cost",
    "sync": "flushed before each acknowledgement",
}


PRINTED_BY = {"limits": "limits"}
"""The command where it is not the name of the bench."""


def load() -> list[Record]:
    """The kept records."""
    kept: list[Record] = json.loads(LATEST.read_text()) if LATEST.exists() else []
    return kept


def save(measured: Sequence[Record], *, whole: bool) -> None:
    """Keep records: all anew, or in place of those of the same bench, system and metric.

    The others were measured at another time, perhaps on another machine: then the machine is kept for each bench alone.
    """
    kept = [] if whole else load()
    if not whole:
        benches = dict.fromkeys(r["bench"] for r in measured if r["bench"] != "machine")
        machines: list[Record] = [
            {**r, "system": bench} for r in measured if r["bench"] == "machine" for bench in benches
        ]
        measured = [*(r for r in measured if r["bench"] != "machine"), *machines]
    new = {(r["bench"], r["system"], r["metric"]): r for r in measured}
    old = [r for r in kept if (r["bench"], r["system"], r["metric"]) not in new]
    RESULTS.mkdir(exist_ok=True)
    lines = ",\n".join(json.dumps(record, ensure_ascii=False) for record in (*old, *new.values()))
    LATEST.write_text(f"[\n{lines}\n]\n")


def publish(measured: Sequence[Record]) -> None:
    """Write charts and documents."""
    for (bench, metric), title in CHARTS.items():
        bars = [r for r in measured if (r["bench"], r["metric"]) == (bench, metric)]
        if bars:
            (RESULTS / f"{bench}.svg").write_text(chart(title, bars))
    _replace(ROOT / "README.md", "performance", _summary(measured))
    _replace(ROOT / "docs/performance.md", "goals", _goals(measured))
    _replace(ROOT / "docs/performance.md", "figures", _figures(measured))


def _summary(measured: Sequence[Record]) -> str:
    """Where we are ahead and where behind, system by system, then the charts."""
    rows = []
    for bench, metric in CHARTS:
        same = [r for r in measured if (r["bench"], r["metric"]) == (bench, metric)]
        ours = next((r for r in same if r["system"] == OURS), None)
        if ours is None:
            continue
        less = not ours["unit"].endswith("/s")
        ahead: list[str] = []
        behind: list[str] = []
        for record in same:
            if record is not ours:
                wins = (ours["value"] < record["value"]) == less
                (ahead if wins else behind).append(f"{record['system']} {ratio(record, same)}")
        rows.append((WORK[bench], f"{amount(ours['value'])} {ours['unit']}", ", ".join(ahead), ", ".join(behind)))
    head = ("work", "gql-jobs", "ahead of (ours : theirs)", "behind (ours : theirs)")
    shown = [f"![{title}](benchmarks/results/{bench}.svg)" for (bench, _), title in CHARTS.items()
             if any(r["bench"] == bench for r in measured)]  # fmt: skip
    where = _where(measured) or "No run is kept yet: `make bench` writes this."
    return "\n\n".join([where, *([markdown(head, rows), "\n".join(shown)] if rows else [])])


def _where(measured: Sequence[Record], bench: str = "host") -> str:
    """Return where and when a bench was measured by itself, or (``host``) all together; empty if it was not."""
    machine = next((r for r in measured if (r["bench"], r["system"]) == ("machine", bench)), None)
    if machine is None:
        return ""
    about = machine["settings"]
    load = max(about["load_average"])
    quiet = (
        ""
        if load < about["cores"]
        else f" The machine was shared while this ran (load average up to {load:g} on {about['cores']} cores): "
        "read the ratios, not the figures."
    )
    command = "python -m benchmarks --quick --save" if about["quick"] else "make bench"
    command = command if bench == "host" else f"python -m benchmarks {bench} --save"
    repeated = "each figure once" if about["quick"] else "medians of three or more repetitions"
    return (
        f"Measured by `{command}` on {about['cores']} cores ({about['cpu']}), commit `{about['commit']}`, "
        f"{repeated}.{quiet}"
    )


def _goals(measured: Sequence[Record]) -> str:
    rows = [goal_row(verdict) for verdict in verdicts(measured)]
    return markdown(("bench", "metric", "goal", "measured", "ours : theirs", "outcome"), rows)


def _figures(measured: Sequence[Record]) -> str:
    parts = [_where(measured)]
    for bench in dict.fromkeys(r["bench"] for r in measured if r["bench"] != "machine"):
        rows = [
            (r["metric"], r["system"], f"{spread(r)} {r['unit']}", ratio(r, measured), str(r["n"]))
            for r in measured
            if r["bench"] == bench
        ]
        parts.append(f"### {bench}\n\n`python -m benchmarks {PRINTED_BY.get(bench, bench)}`: {WORK.get(bench, bench)}.")
        if where := _where(measured, bench):
            parts.append(where)
        parts.append(markdown(("metric", "system", "median [min..max]", "ours : it", "n"), rows))
    return "\n\n".join(parts)


def _replace(path: Path, name: str, text: str) -> None:
    """Put text between the markers of that name."""
    start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    document = path.read_text()
    before, _, rest = document.partition(start)
    _, _, after = rest.partition(end)
    path.write_text(f"{before}{start}\n{text}\n\n{end}{after}")
