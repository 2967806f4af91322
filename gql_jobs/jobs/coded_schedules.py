"""Schedules that code defines, beside the job types that they are of; an API process stores them when it starts.

A schedule belongs to the module that defines it. What clients have changed of it stays, until the code says something
else than it did; what a module defines no more is deleted when a process that has imported the module starts.
"""

import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from msgspec import Struct
from pydantic import BaseModel

from gql_jobs.jobs.model import JobPriority, OverlapPolicy
from gql_jobs.jobs.recurrence import Recurrence, checked_recurrence
from gql_jobs.jobs.requests import InvalidRequest
from gql_jobs.jobs.schedules import MAX_CATCH_UP, MAX_SPREAD, check_schedule_name, check_seconds

_MAIN = "__main__"
"""The module of a script: another one in each program, so that nothing can be said of what it defines no more."""


class CodedSchedule(Struct, frozen=True):
    """A schedule as code defines it; ``module`` is the one that does. ``type`` is needed if several have the model."""

    name: str
    payload: BaseModel
    recurrence: Recurrence
    type: str | None
    priority: JobPriority
    tags: tuple[str, ...]
    overlap: OverlapPolicy
    catch_up_seconds: int
    spread_seconds: int
    paused: bool
    module: str


class CodedSchedules:
    """The schedules that the modules of this process define, by name."""

    def __init__(self) -> None:
        self._defined: dict[str, CodedSchedule] = {}

    def add(self, one: CodedSchedule) -> None:
        """Take in a schedule.

        :raises ValueError: if another one has its name.
        """
        known = self._defined.get(one.name)
        if known is not None and known.module != one.module:
            raise ValueError(f"The schedule {one.name!r} is defined twice, by {known.module} and by {one.module}.")
        self._defined[one.name] = one

    def __iter__(self) -> Iterator[CodedSchedule]:
        return iter(list(self._defined.values()))

    def is_dropped(self, name: str, source: str) -> bool:
        """Return whether a module that has been imported here does not define a schedule any more that it had."""
        if source == _MAIN or source not in sys.modules:
            return False
        known = self._defined.get(name)
        return known is None or known.module != source


coded_schedules = CodedSchedules()
"""The schedules that code of this process defines; ``schedule`` adds to it."""


def schedule(
    name: str,
    *,
    payload: BaseModel,
    cron: str | None = None,
    every_seconds: int | None = None,
    time_zone: str = "UTC",
    type: str | None = None,  # noqa: A002 - as clients say it
    priority: JobPriority | str = JobPriority.NORMAL,
    tags: Sequence[str] = (),
    overlap: OverlapPolicy | str = OverlapPolicy.SKIP,
    catch_up_seconds: int = 60,
    spread_seconds: int = 0,
    paused: bool = False,
) -> None:
    """Define a schedule: each API process stores it when it starts, if that is not what code has stored last.

    :param name: 1 to 64 letters of ASCII, digits, ``_`` or ``-``.
    :param payload: of its jobs, as the model of their type; what factories of defaults draw is drawn for each job.
    :param cron: five fields, or six with the seconds first; either this or ``every_seconds`` is needed.
    :param time_zone: in which ``cron`` is meant, as ``Europe/Berlin``.
    :param type: the name of the job type, if several have the model.
    :param overlap: ``skip``, ``allow`` or ``cancel_other``: what becomes of a tick while an earlier job runs.
    :param catch_up_seconds: how late a tick may be made up for after an outage.
    :param spread_seconds: ticks are late by a part of that, which follows from the name.
    :raises ValueError: if any of this cannot be meant, or another module defines a schedule of this name.
    """
    if not isinstance(payload, BaseModel):
        raise ValueError(f"The payload of the schedule {name!r} must be an object of its model.")  # noqa: TRY004
    try:
        one = CodedSchedule(
            name=check_schedule_name(name),
            payload=payload,
            recurrence=checked_recurrence(cron, every_seconds, time_zone, datetime.now(UTC)),
            type=type,
            priority=JobPriority(priority),
            tags=tuple(tags),
            overlap=OverlapPolicy(overlap),
            catch_up_seconds=check_seconds("catch_up_seconds", catch_up_seconds, MAX_CATCH_UP),
            spread_seconds=check_seconds("spread_seconds", spread_seconds, MAX_SPREAD),
            paused=paused,
            module=sys._getframe(1).f_globals.get("__name__", _MAIN),  # noqa: SLF001 - who calls says whose it is
        )
    except InvalidRequest as invalid:
        raise ValueError(f"The schedule {name!r} cannot be meant: {invalid}") from None
    coded_schedules.add(one)
