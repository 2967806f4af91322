"""What each process holds over time, and whether that grows. The judgement is pure: it is given the samples."""

import os
import signal
import statistics
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.chaos.processes import Program
from benchmarks.soak.probe import tasks_file

_SLACK = {"rss_mib": 8.0, "files": 8.0, "threads": 4.0, "tasks": 20.0, "consumers": 2.0}
"""What a median may differ by however little it is."""
_SHARE = 0.10
"""And by which share of what it was."""
TOMBSTONE = 1024
"""Bytes of nats-server's memory that an expired job may keep until its ``expired`` event has gone, in a week."""


@dataclass
class Samples:
    """``values``: (process, measure) → one number per moment, in order."""

    values: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))

    def take(self, program: Program, runs: Path) -> None:
        """Measure a program as it is now, with the processes it has started."""
        if program.pid is None:
            return
        with suppress(psutil.Error):
            process = psutil.Process(program.pid)
            whole = [process, *process.children(recursive=True)]
            self.add(program.name, "rss_mib", sum(p.memory_info().rss for p in whole) / (1 << 20))
            self.add(program.name, "files", process.num_fds())
            self.add(program.name, "threads", process.num_threads())
        # The count is of the signal before: a handler of signals cannot be waited for.
        counted = tasks_file(runs, program.pid)
        if counted.exists():
            text = counted.read_text()
            if text:
                self.add(program.name, "tasks", int(text))
            with suppress(ProcessLookupError):
                os.kill(program.pid, signal.SIGUSR1)

    def add(self, process: str, measure: str, value: float) -> None:
        """One number more."""
        self.values[process, measure].append(value)

    def thirds(self) -> dict[tuple[str, str], tuple[float, float, float]]:
        """The medians of the second and of the last third, and the most ever; the first third is for warming up."""
        shown = {}
        for key, values in self.values.items():
            third = max(len(values) // 3, 1)
            shown[key] = (
                statistics.median(values[third : 2 * third] or values),
                statistics.median(values[-third:]),
                max(values),
            )
        return shown

    def grown(self, jobs: float) -> list[str]:
        """What was larger in the last third than it may be, in sentences.

        :param jobs: how many were made from the middle of the second third to the middle of the last.
        """
        found = []
        for (process, measure), (before, after, _) in sorted(self.thirds().items()):
            allowed = before * (1 + _SHARE) + _SLACK[measure]
            if process.startswith("node") and measure == "rss_mib":
                allowed += jobs * TOMBSTONE / (1 << 20)
            if after > allowed:
                found.append(f"{process}: {measure} grew from {before:.1f} to {after:.1f}")
        return found

    def table(self) -> str:
        """For people, in Markdown."""
        lines = ["| process | measure | second third | last third | most |", "|---|---|---|---|---|"]
        for (process, measure), (before, after, most) in sorted(self.thirds().items()):
            lines.append(f"| {process} | {measure.replace('_', ', ')} | {before:.0f} | {after:.0f} | {most:.0f} |")
        return "\n".join(lines)
