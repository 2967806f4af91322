"""The clock by which all is dated, due and expired: this machine's, and what the NATS server says of its own.

Tests may move it forward (``gql_jobs.testing``). The server's clock cannot be moved: what it has dated is moved when it
is read, by as much as this clock was ahead when the server wrote it, so that times keep their order. What waits there
has to be asked for again: the server is told shorter delays than are meant. Where nothing is moved, this costs
nothing: ``now`` and ``timestamp`` are then what Python itself has.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from time import time
from typing import NamedTuple

LONGEST_DELAY = 0.2
"""Seconds that something waits at the server before it is asked for again, where the clock may be moved."""


class Advance(NamedTuple):
    """From ``since`` on, by the machine's clock, this one is ahead of it by ``ahead``."""

    since: datetime
    ahead: timedelta


_machine_now = partial(datetime.now, UTC)
now: Callable[[], datetime] = _machine_now
"""Returns the present time in UTC. Call it as ``clock.now()``: it is replaced where the clock may be moved."""
timestamp: Callable[[], float] = time
"""Returns the present time in seconds since 1970; call it as ``clock.timestamp()``."""
advances: tuple[Advance, ...] | None = None
"""How the clock was moved, the last time first; None where it cannot be moved."""


def told_by_server(moment: datetime) -> datetime:
    """Return what this clock showed when the server's showed ``moment``."""
    return moment + next((one.ahead for one in advances or () if moment >= one.since), timedelta(0))


def for_server(moment: datetime) -> datetime:
    """Return what the server's clock will show at ``moment``, unless this one is moved before that."""
    return moment - _ahead()


def delay_at_server(seconds: float) -> float:
    """Return the delay that the server is told, of ``seconds`` after which something is due."""
    return seconds if advances is None else min(seconds, LONGEST_DELAY)


def make_movable() -> None:
    """Have the clock of this process be movable from now on, for tests; it shows the machine's time as yet."""
    global advances, now, timestamp  # there is one clock
    advances, now, timestamp = (), _moved_now, _moved_timestamp


def advance(by: timedelta) -> None:
    """Advance the clock of this process forward.

    :raises ValueError: if it is not movable, or would go back.
    """
    global advances  # noqa: PLW0603
    if advances is None:
        raise ValueError("The clock of this process cannot be moved: make_movable() has not been called.")
    if by < timedelta(0):
        raise ValueError("The clock goes forward only.")
    advances = (Advance(_machine_now(), _ahead() + by), *advances)


def make_fixed() -> None:
    """Have the clock show the machine's time again, and be movable no more."""
    global advances, now, timestamp
    advances, now, timestamp = None, _machine_now, time


def _ahead() -> timedelta:
    return advances[0].ahead if advances else timedelta(0)


def _moved_now() -> datetime:
    return _machine_now() + _ahead()


def _moved_timestamp() -> float:
    return time() + _ahead().total_seconds()
