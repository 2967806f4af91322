"""What a person or a script is shown of jobs, events, queues and workers.

There are three forms: tables, colours and a bar on a terminal (where ``rich`` is installed), plain lines with tabs
elsewhere, and one JSON object a line with ``--json``. Whatever a job holds, nothing of it reaches a terminal that could
steer it: what does not print is escaped.
"""

import contextlib
import importlib.util
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

import click

from gql_jobs.logs import printable, redact
from gql_jobs.terminal.client import Refused

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.text import Text

_STYLES = {
    "SCHEDULED": "cyan",
    "QUEUED": "blue",
    "PROCESSING": "yellow",
    "RETRYING": "magenta",
    "COMPLETED": "green",
    "DEAD_LETTER": "bold red",
    "CANCELLED": "dim",
}
"""How states look on a terminal."""
_MOST_SHOWN = 2000
"""Characters of a payload or a result that are shown to a person; ``--json`` has all of it."""
_NARROWEST = 20
"""Characters of the last column of a table that there is room for at least."""
_NARROWEST_MESSAGE = 50
"""The same where the last column is what there is to read."""
_WIDEST_NOTE = 300
"""Characters of what is said of a job or an event on one line."""
_WIDEST_SAMPLE = 80
"""Characters of what is said of a job that stands for others."""
_BETWEEN_LINES = 1.0
"""Seconds between two plain lines about how far something is."""


class Output:
    """Where a command writes.

    :param as_json: whether to write JSON, whatever stdout is.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._console = _console() if not as_json and _is_terminal(sys.stdout) else None
        self._bar: Progress | None = None
        self._next_line = 0.0
        for stream in (sys.stdout, sys.stderr):
            # What an encoding of the terminal lacks must not end the command.
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")

    @property
    def is_rich(self) -> bool:
        """Whether there are tables, colours and a bar."""
        return self._console is not None

    # To stderr.

    def note(self, sentence: str) -> None:
        """Say something beside the output, such as that a connection is lost."""
        click.echo(printable(redact(sentence)), err=True)

    def refusal(self, refused: Refused, about: str = "") -> None:
        """Say what the API has refused, and each field at fault on a line of its own.

        :param about: what was asked for, where that is one of several things.
        """
        for error, extensions in zip(refused.errors, refused.extensions(), strict=True):
            fields = extensions.get("fields")
            faults = [one for one in fields if isinstance(one, dict)] if isinstance(fields, list) else []
            message = str(error.get("message", "refused"))
            if faults:
                message = message.partition(". ")[0] + "."  # the rest of it tells of the same fields
            code = f" ({extensions['code']})" if "code" in extensions else ""
            self.note(f"Error: {about}{message}{code}")
            for one in faults:
                self.note(f"  {one.get('path')}: {one.get('message')}")

    def samples(self, jobs: list[dict[str, Any]]) -> None:
        """Say which jobs are meant, before it is asked whether they are."""
        for job in jobs:
            self.note(f"  {job['id']} {job['status']} {job['type']} {_cut(_note_of_job(job), _WIDEST_SAMPLE)}")

    # To stdout.

    def line(self, *cells: str) -> None:
        """Write one plain line of cells, with tabs between them."""
        click.echo("\t".join(map(printable, cells)))

    def json(self, value: dict[str, Any]) -> None:
        """Write one object as a line of ASCII."""
        # The one character of ASCII that does not print and that JSON leaves as it is.
        click.echo(json.dumps(value).replace("\x7f", "\\u007f"))

    def table(
        self,
        columns: tuple[str, ...],
        rows: Sequence[tuple[str, ...]],
        spare: tuple[str, ...] = (),
        narrowest: int = _NARROWEST,
    ) -> None:
        """Write rows as a table, or as plain lines without a head. A cell that names a state has its colour.

        :param spare: columns of a table that are left out, the first of them first, until it fits the terminal; of
            what is in the last column as much is shown as there is room for.
        :param narrowest: characters of the last column that there is room for at least.
        """
        if self._console is None:
            for row in rows:
                self.line(*row)
            return
        from rich.cells import cell_len  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415

        widths = [max(map(cell_len, map(printable, column))) for column in zip(columns, *rows, strict=True)]
        last = len(columns) - 1
        shown = [*range(len(columns))]

        def needed() -> int:
            return int(sum(widths[i] + 2 for i in shown if i != last) + min(widths[last], narrowest))

        for name in spare:
            if needed() > self._console.width:
                shown.remove(columns.index(name))
        # Wider than the terminal rather than without the end of an id.
        self._console.width = max(self._console.width, needed())
        widths[last] = min(widths[last], self._console.width - needed() + min(widths[last], narrowest))
        table = Table(box=None, pad_edge=False, header_style="bold")
        for i in shown:
            table.add_column(columns[i], width=widths[i], no_wrap=True, overflow="ellipsis")
        for row in rows:
            table.add_row(*(_text(row[i]) for i in shown))
        self._console.print(table)

    def jobs(self, jobs: list[dict[str, Any]]) -> None:
        """Write jobs as they stand in a list."""
        rows = [
            (
                *(job["id"], job["status"], job["type"], job["priority"], f"{job['progress']}%"),
                *(self._moment(job["createdAt"]), ",".join(job["tags"]), _note_of_job(job)),
            )
            for job in jobs
        ]
        self.table(
            ("ID", "STATUS", "TYPE", "PRIORITY", "PROGRESS", "CREATED", "TAGS", "NOTE"),
            rows,
            ("TAGS", "PRIORITY", "CREATED"),
        )

    def groups(self, groups: list[dict[str, Any]]) -> None:
        """Write groups of dead letters."""
        rows = [
            (
                *(one["key"], str(one["count"]), one["type"], one["errorType"]),
                *(self._moment(one["lastAt"]), one["message"]),
            )
            for one in groups
        ]
        self.table(("KEY", "COUNT", "TYPE", "ERROR", "LAST", "MESSAGE"), rows, ("LAST", "ERROR"), _NARROWEST_MESSAGE)

    def run(self, run: dict[str, Any]) -> None:
        """Write how far a bulk action is: JSON, a step of the bar, or once a second a plain line."""
        has_ended = run["state"] != "RUNNING"
        if self.as_json:
            self.json(run)
        elif self._bar is not None:
            others = {name: run[name] for name in ("skipped", "failed") if run[name]}
            told = [f"{run['done']} of {run['planned']} done", *(f"{many} {name}" for name, many in others.items())]
            facts = {"total": run["planned"] or 1, "completed": run["done"] + sum(others.values())}
            (task,) = self._bar.task_ids
            self._bar.update(task, **facts, status=run["state"], note=", ".join(told))
        elif has_ended or time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _BETWEEN_LINES
            self.line(run["state"], *(str(run[name]) for name in ("planned", "done", "skipped", "failed")))

    def job(self, job: dict[str, Any]) -> None:
        """Write all there is to say of one job, a line for each thing; of a plain line the name is the first cell."""
        told = dict(job)
        for name in ("error", "waiting"):
            if told.get(name):
                told[name] = told[name]["message" if name == "error" else "detail"]
        for name in ("origin", "parent"):
            told[name] = (told.get(name) or {}).get("id")
        states = Counter(child["status"] for child in told.get("children", ()))
        told["children"] = ", ".join(f"{number} {status}" for status, number in sorted(states.items()))
        told["tags"] = ", ".join(told.get("tags", ()))
        told["artifacts"] = ", ".join(file["name"] for file in told.get("artifacts", ()))
        for name, value in told.items():
            if value in (None, "", {}):
                continue
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            text = self._moment(text) if name.endswith("At") else text
            self._named(name, _cut(text, _MOST_SHOWN))

    def event(self, event: dict[str, Any], *, of_one: bool) -> None:
        """Write an event: JSON, a line, or a step of the bar.

        :param of_one: whether all events are of one job, whose bar is shown on a terminal.
        """
        job = event["job"]
        if self.as_json:
            self.json(event)
            return
        note = _note_of_event(event)
        progress = f"{job['progress']}%"
        if self._console is None:
            self.line(event["at"], job["id"], job["type"], job["status"], progress, note)
            return
        from rich.text import Text  # noqa: PLC0415

        if self._bar is not None:
            (task,) = self._bar.task_ids
            self._bar.update(task, completed=job["progress"], status=job["status"], note=printable(note))
        if not of_one or event["__typename"] != "JobProgress":
            parts = [Text(self._moment(event["at"], clock_only=True), style="dim")]
            parts += [] if of_one else [_text(job["id"]), _text(job["type"])]
            parts += [_text(f"{job['status']:<11}"), _text(f"{progress:>4}"), _text(note)]
            self._console.print(Text(" ").join(parts), soft_wrap=True)

    @contextlib.contextmanager
    def bar(self) -> Iterator[None]:
        """Show a bar for the job or run whose steps are written in the block, if this is a terminal."""
        if self._console is None:
            yield
            return
        from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415

        columns = (
            TextColumn("{task.fields[status]}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}% {task.fields[note]}", markup=False),
        )
        # On the same terminal a sentence comes above the bar; elsewhere it goes where stderr goes.
        above = _is_terminal(sys.stderr)
        self._bar = Progress(
            *columns, console=self._console, transient=True, redirect_stdout=False, redirect_stderr=above
        )
        self._bar.add_task("", total=100, status="", note="")
        try:
            with self._bar:
                yield
        finally:
            self._bar = None

    def _named(self, name: str, text: str) -> None:
        if self._console is None:
            self.line(name, text)
            return
        from rich.text import Text  # noqa: PLC0415

        self._console.print(Text(f"{name:<16} ", style="bold") + _text(text), soft_wrap=True)

    def _moment(self, moment: str, *, clock_only: bool = False) -> str:
        """Return a moment as the API has it, or on a terminal by the clock of this machine."""
        if self._console is None:
            return moment
        try:
            local = datetime.fromisoformat(moment).astimezone()
        except ValueError:
            return moment
        return local.strftime("%H:%M:%S" if clock_only else "%Y-%m-%d %H:%M:%S")


def age_of(moment: str | None) -> str:
    """Return how long ago a moment was, as ``12 s``; an empty text for none."""
    if moment is None:
        return ""
    seconds = max(0, int((datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()))
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _console() -> "Console | None":
    """Return the console of ``rich``; None where that is not installed."""
    if importlib.util.find_spec("rich") is None:
        return None
    from rich.console import Console  # noqa: PLC0415 - it takes its time, and has nothing to do elsewhere

    return Console(highlight=False, markup=False, emoji=False)


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


def _text(cell: str) -> "Text":
    from rich.text import Text  # noqa: PLC0415

    return Text(printable(cell), style=_STYLES.get(cell.strip(), ""))


def _note_of_job(job: dict[str, Any]) -> str:
    return _cut(job["error"]["message"] if job["error"] else job["progressMessage"] or "", _WIDEST_NOTE)


def _note_of_event(event: dict[str, Any]) -> str:
    """Return what an event says beside the state of its job."""
    actor = f"by {event['actor']}" if event["actor"] else ""
    match event["__typename"]:
        case "JobScheduled":
            note = f"runs at {event['runAt']} {actor}".rstrip()
        case "JobStarted":
            instead = f", in place of attempt {event['supersedes']}" if event["supersedes"] is not None else ""
            note = f"attempt {event['attempt']} on {event['workerId']}{instead}"
        case "JobProgress":
            note = event["message"] or ""
        case "JobFailed":
            note = f"{event['error']['message']} (next attempt at {event['nextAttemptAt']})"
        case "JobCompleted":
            note = f"took {event['durationMs']} ms"
        case "JobDeadLetter":
            note = event["error"]["message"]
        case _:
            note = actor
    return _cut(note, _WIDEST_NOTE)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}…"
