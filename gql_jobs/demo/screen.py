"""What the demo shows: live bars on a terminal, plain lines elsewhere, then tables."""

import contextlib
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table


class Screen:
    """The terminal."""

    def __init__(self) -> None:
        self._console = Console()
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    @contextlib.contextmanager
    def live(self) -> Iterator[None]:
        """Bars of their own for what is watched in the block."""
        note = TextColumn("{task.percentage:>3.0f}% {task.fields[note]}")
        bars = Progress(TextColumn("{task.description:<22}"), BarColumn(), note, console=self._console)
        self._bars, self._tasks = (bars if self._console.is_terminal else None), {}
        with self._bars or contextlib.nullcontext():
            yield

    def show(self, name: str, event: dict[str, Any]) -> None:
        """One event of a job."""
        job = event["job"]
        note = job["progressMessage"] or ""
        if event["__typename"] == "JobFailed":
            note = f"failed, tries again: {job['error']['message']}"
        elif event["__typename"] == "JobDeadLetter":
            note = f"dead letter: {job['error']['message']}"
        if self._bars is None:
            self.say(f"{name}: {event['__typename']} {job['progress']}% {note}".rstrip())
            return
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=100, note="")
        self._bars.update(self._tasks[name], completed=job["progress"], note=f"{job['status']} {note}"[:70])

    def table(self, title: str, rows: list[tuple[str, dict[str, Any]]]) -> None:
        """Jobs by name, as ``jobs`` lists them."""
        table = Table("job", "status", "attempts", "took", "error", title=title, title_justify="left")
        for name, job in rows:
            error = job["error"]["message"] if job["error"] else ""
            took = f"{job['durationMs']} ms" if job["durationMs"] is not None else ""
            table.add_row(name, job["status"], str(job["attempt"]), took, error)
        self._console.print(table)

    def say(self, text: str) -> None:
        """A line, as it is: nothing in it is markup, and links stay whole."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
