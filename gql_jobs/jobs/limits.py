"""Limits as a value: how many jobs of a queue or a type run at a time and start in a second, and how rates are written.

A job that is created while its queue or its type has limits passes the gate, which lets it go as they allow.
"""

import re
from typing import Any

import msgspec
from msgspec import Raw, Struct

MAX_CONCURRENCY = 1_000_000
"""Jobs that a limit lets run at a time, at most."""
MAX_PER_SECOND = 100_000.0
MIN_PER_SECOND = 1 / 86_400
"""Jobs that a limit lets start in a second: from one a day on."""

_RATE = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)/(s|min|h|day)")
_SECONDS = {"s": 1, "min": 60, "h": 3600, "day": 86_400}
"""The length of each unit that a rate may be written with, the shortest first."""


class InvalidLimit(ValueError):
    """A limit is outside its bounds.

    ``field`` is its name in ``Limits``. ``problem`` is a sentence with ``{}`` in place of the field's name, which
    callers may know under another name.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(problem.format(field))
        self.field = field
        self.problem = problem


class Limits(Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """What a queue or a type is limited to; None is no limit. Those of a queue and a type hold together.

    ``concurrency``: how many of its jobs run at a time, counted from the release of each to the end of its attempt.
    ``concurrency_per_key``: how many of those with one concurrency key do. ``per_second``: how many start in a second,
    on average; a fraction means one in several seconds.
    """

    concurrency: int | None = None
    concurrency_per_key: int | None = None
    per_second: float | None = None

    @classmethod
    def of(
        cls, *, concurrency: int | None = None, concurrency_per_key: int | None = None, per_second: float | None = None
    ) -> "Limits":
        """Return limits that are within their bounds.

        :raises InvalidLimit: for the first that is not.
        """
        for field, number in (("concurrency", concurrency), ("concurrency_per_key", concurrency_per_key)):
            if number is not None and not (type(number) is int and 1 <= number <= MAX_CONCURRENCY):
                problem = (
                    f"{{}} must be a whole number from 1 to {MAX_CONCURRENCY}; to have no job start, pause the queue."
                )
                raise InvalidLimit(field, problem)
        if per_second is not None:
            per_second = _checked_rate("per_second", per_second)
        return cls(concurrency, concurrency_per_key, per_second)

    @property
    def is_none(self) -> bool:
        """Whether nothing is limited."""
        return self == UNLIMITED

    def __str__(self) -> str:
        """Say what is limited in words, as ``5 at a time, 1 per key, 10/s``."""
        said = [
            *([f"{self.concurrency} at a time"] if self.concurrency is not None else []),
            *([f"{self.concurrency_per_key} per key"] if self.concurrency_per_key is not None else []),
            *([rate_text(self.per_second)] if self.per_second is not None else []),
        ]
        return ", ".join(said) or "no limits"


UNLIMITED = Limits()

_decode = msgspec.json.Decoder(Limits).decode


def limits_of(value: Raw | None) -> Limits:
    """Return a stored value as limits; none of them if it is removed, or cannot be read."""
    if value is None:
        return UNLIMITED
    try:
        return _decode(value)
    except msgspec.MsgspecError:
        return UNLIMITED


def parse_rate(text: Any) -> float:
    """Return how many a second a rate stands for that is written as ``10/s``, ``30/min``, ``5/h`` or ``1/day``.

    :raises InvalidLimit: for the field ``rate``, if it is not written so, or outside its bounds.
    """
    match = _RATE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise InvalidLimit(
            "rate", "{} must be written as a number of starts in a time, like 10/s, 30/min, 5/h or 1/day."
        )
    number, unit = match.groups()
    return _checked_rate("rate", float(number) / _SECONDS[unit])


def rate_text(per_second: float) -> str:
    """Return a rate as ``parse_rate`` reads it, in the shortest time in which at least one starts."""
    for unit, seconds in _SECONDS.items():
        number = round(per_second * seconds, 6)
        if number >= 1 or seconds == max(_SECONDS.values()):
            return f"{number:.6f}".rstrip("0").rstrip(".") + f"/{unit}"
    raise AssertionError(per_second)


def _checked_rate(field: str, per_second: Any) -> float:
    # Not infinite, and not NaN, which is in no order.
    is_number = type(per_second) in (int, float)
    if not is_number or not MIN_PER_SECOND * 0.999 <= per_second <= MAX_PER_SECOND:
        raise InvalidLimit(
            field, f"{{}} must allow from one start a day (1/86400 in a second) to {MAX_PER_SECOND:.0f} in a second."
        )
    return float(per_second)
