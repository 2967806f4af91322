"""Retrying, cancelling or deleting many jobs: counted, asked about, run by the API, followed to the end, and stopped.

The API runs the plan; what is here watches. A run whose process has ended is followed by another run of the same plan,
which does what is left, so that the command ends when all is done.
"""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

import click

from gql_jobs.terminal.client import ApiClient
from gql_jobs.terminal.command_line import Exit
from gql_jobs.terminal.output import Output

_DONE = {"RETRY": "retried", "CANCEL": "cancelled", "DELETE": "deleted"}
"""What has been done to a job, by the action."""
_LOOKS = 0.1
"""Seconds between two looks at whether the API shows what was done to a job."""
_SHOWN_WITHIN = 30.0
"""Seconds until it has to."""


def act_on_all(
    api: ApiClient,
    output: Output,
    action: str,
    wanted: dict[str, Any],
    *,
    group: str | None = None,
    first: int | None = None,
    max_per_second: float | None = None,
    yes: bool = False,
    follow: Callable[[str], int] | None = None,
) -> int:
    """Do an action to all jobs that match, once that is agreed to; return the exit code.

    :param action: RETRY, CANCEL or DELETE.
    :param first: to how many at most, the oldest.
    :param yes: whether that is agreed to.
    :param follow: follows the one job to which it was done, and returns the exit code.
    :raises UsageError: if there is nobody who can be asked.
    """
    plan = api.plan_bulk(action, wanted, group)
    number, sample = plan["count"], plan["sample"]
    meant = number if first is None else min(first, number)
    if first is not None and 0 < meant <= len(sample):
        # By their ids: so it is known which jobs these are, and a run that was interrupted does no others.
        plan = api.plan_bulk(action, {**wanted, "ids": [job["id"] for job in sample[:meant]]}, group)
        first = None
    if meant and not yes and not _is_agreed(output, action, sample[:meant], meant, number):
        output.note(f"Nothing was {_DONE[action]}.")
        return Exit.REFUSED
    with _CtrlC() as ctrl_c:
        code, done = _BulkCommand(api, output, action, ctrl_c).work(plan["token"], first, max_per_second)
    if follow is None or code is not Exit.DONE:
        return code
    if not done:
        return Exit.UNKNOWN
    _await_move(api, output, sample[0])
    return follow(sample[0]["id"])


def _is_agreed(output: Output, action: str, sample: list[dict[str, Any]], meant: int, number: int) -> bool:
    """Say what would be done, and ask whether it is to be.

    :raises UsageError: if there is nobody to ask.
    """
    jobs = _jobs(meant) if meant == number else f"{meant} of {_jobs(number)}"
    if not sys.stdin.isatty():
        raise click.UsageError(f"There is nobody to ask whether to {action.lower()} {jobs}: say --yes.")
    output.note(f"{_jobs(number)} can be {_DONE[action]}." + (" The oldest:" if meant > len(sample) else ""))
    output.samples(sample)
    return click.confirm(f"{action.capitalize()} {jobs}?", err=True)


class _CtrlC:
    """What Ctrl-C does in the block: as ever, but for when nothing may be left half known."""

    def __init__(self) -> None:
        self._times = 0
        self._is_held = False
        self._previous: Any = None

    def __enter__(self) -> Self:
        self._previous = signal.signal(signal.SIGINT, self._pressed)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._previous)

    def _pressed(self, _number: int, _frame: FrameType | None) -> None:
        self._times += 1
        if not self._is_held or self._times > 1:
            raise KeyboardInterrupt

    @contextmanager
    def held(self) -> Iterator[None]:
        """Have the first one wait for the end of the block."""
        before, self._is_held = self._times, True
        try:
            yield
        finally:
            self._is_held = False
        if self._times > before:
            raise KeyboardInterrupt


class _BulkCommand:
    """A plan that is run to its end, by several runs of the API where their processes end.

    What is shown of it are the states of these runs with the numbers of all: whatever is not left to a later run counts
    as done by an earlier one, or as skipped where that has said so.
    """

    def __init__(self, api: ApiClient, output: Output, action: str, ctrl_c: _CtrlC) -> None:
        self._api = api
        self._output = output
        self._action = action
        self._ctrl_c = ctrl_c
        self._run: dict[str, Any] = {}
        self._shown: dict[str, Any] = {}
        self._before = {"done": 0, "skipped": 0}
        self._planned: int | None = None

    def work(self, token: str, first: int | None, per_second: float | None) -> tuple[Exit, int]:
        """Run a plan, show how far it is, and say what has become of it; return the exit code and how many are done.

        :raises KeyboardInterrupt: if Ctrl-C comes again while it is being stopped.
        """
        was_stopped = False
        with self._output.bar():
            try:
                self._begin(token, first, per_second)
                self._follow()
                while self._run["state"] == "INTERRUPTED" and first is None:
                    self._output.note("The process of the API that did it has ended; going on with what is left.")
                    self._api.until_answered(lambda: self._begin(token, None, per_second), self._output.note)
                    self._follow()
            except KeyboardInterrupt:
                if not self._run:
                    raise
                was_stopped = True
                self._stop()
        self._output.note(self._outcome(was_stopped=was_stopped))
        return self._code(was_stopped=was_stopped), self._shown["done"]

    def _begin(self, token: str, first: int | None, per_second: float | None) -> None:
        with self._ctrl_c.held():
            run = self._api.run_bulk(token, first, per_second)
            if self._planned is None:
                self._planned = run["planned"]
            else:
                skipped = self._shown["skipped"]
                self._before = {"done": self._planned - run["planned"] - skipped, "skipped": skipped}
            self._show(run)

    def _show(self, run: dict[str, Any]) -> None:
        self._run = run
        counts = {name: run[name] + number for name, number in self._before.items()}
        self._shown = {**run, "planned": self._planned, **counts}
        self._output.run(self._shown)

    def _follow(self) -> None:
        """Show the states of the run until it has ended, or is shown to us no more."""
        for run in self._api.bulk_progress(self._run["id"], self._output.note):
            if run != self._run:
                self._show(run)
            if run["state"] != "RUNNING":
                return
        run_id = self._run["id"]
        found = self._api.until_answered(lambda: self._api.bulk_run(run_id), self._output.note)
        self._show(found or {**self._run, "state": "STOPPED"})

    def _stop(self) -> None:
        self._output.note("Stopping before the next job; Ctrl-C again leaves at once.")
        run_id = self._run["id"]
        self._show(self._api.until_answered(lambda: self._api.stop_bulk(run_id), self._output.note))
        if self._run["state"] == "RUNNING":
            self._follow()

    def _outcome(self, *, was_stopped: bool) -> str:
        run = self._shown
        if not run["planned"]:
            return f"No job that matches can be {_DONE[self._action]}."
        told = [f"{run['done']} of {_jobs(run['planned'])} {'was' if run['planned'] == 1 else 'were'}"]
        told[0] += f" {_DONE[self._action]}"
        if run["skipped"]:
            told.append(f"{run['skipped']} had moved since they were counted")
        if run["failed"]:
            told.append(f"{run['failed']} failed, for reasons that the log of the API has")
        sentence = f"{'; '.join(told)}."
        match run["state"]:
            case "DONE":
                return sentence
            case "INTERRUPTED" if not was_stopped:
                return f"The process of the API that did it has ended: at least {sentence} Look before you repeat it."
            case _ if was_stopped:
                return f"Stopped: {sentence} The same command goes on with the rest."
            case _:
                return f"Stopped by somebody else, or because the key or token has ended: {sentence}"

    def _code(self, *, was_stopped: bool) -> Exit:
        match self._shown["state"]:
            case "DONE":
                return Exit.SOME_FAILED if self._shown["failed"] else Exit.DONE
            case _ if was_stopped:
                return Exit.INTERRUPTED
            case "INTERRUPTED":
                return Exit.CUT_SHORT
            case _:
                return Exit.STOPPED


def _await_move(api: ApiClient, output: Output, job: dict[str, Any]) -> None:
    """Wait until the API shows that a job is not any more as it was: what it shows may come a moment later."""
    ends = time.monotonic() + _SHOWN_WITHIN
    while time.monotonic() < ends:
        found = api.until_answered(lambda: api.job(job["id"]), output.note)
        if found is None or found["updatedAt"] != job["updatedAt"]:
            return
        time.sleep(_LOOKS)


def _jobs(number: int) -> str:
    return "1 job" if number == 1 else f"{number} jobs"
