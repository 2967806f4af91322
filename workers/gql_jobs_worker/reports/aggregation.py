"""The aggregation of a report, month by month, and the checkpoint that it can go on from.

Its size is bounded for any data: long ranges are kept by month instead of by day, and a dimension with too many names
is left out here and ranked by the source at the end.
"""

import hashlib
from decimal import Decimal
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec
from msgspec import Struct

from gql_jobs_worker.reports.source import Period, Source, Sums

Grouping: TypeAlias = Literal["product", "region"]
GROUPINGS: tuple[Grouping, ...] = ("product", "region")
MAX_DAYS = 366
"""Longer ranges are reported by month."""
MAX_NAMES = 1000
"""Names of a dimension beyond which it is left out."""
MAX_SUMS_BYTES = 240 * 1024
"""Bytes of a checkpoint as JSON, below the limit of ``JobContext.checkpoint``."""
_DAYS_OF_A_MONTH = 31


class Part(NamedTuple):
    """A month of the range, or of the period before it if ``is_before``."""

    period: Period
    is_before: bool

    @property
    def label(self) -> str:
        """Return the month as progress messages show it."""
        month = f"{self.period.start:%Y-%m}"
        return f"{month} (for comparison)" if self.is_before else month


class Both(NamedTuple):
    """The sums of the range and of the period before."""

    now: Sums = Sums()
    before: Sums = Sums()


class SavedSums(Struct, forbid_unknown_fields=True):
    """A checkpoint. Decimals are text, so that no digit is lost; a dimension with too many names is None.

    ``key``: the report and the data that it belongs to (``key_of``); ``done``: how many parts have been added.
    """

    key: str
    done: int
    before: tuple[int, str, str]
    times: list[tuple[str, int, str, str]]
    product: list[tuple[str, int, str, str, int, str, str]] | None
    region: list[tuple[str, int, str, str, int, str, str]] | None


class Aggregation:
    """The sums of the parts that have been added so far: the first ``done`` of ``parts``."""

    def __init__(self, period: Period) -> None:
        self.period = period
        self.by_month = period.days > MAX_DAYS
        self.parts = [
            *(Part(month, is_before=False) for month in period.months()),
            *(Part(month, is_before=True) for month in period.before().months()),
        ]
        self.done = 0
        self.before = Sums()
        self.times: dict[str, Sums] = {}
        self.names: dict[Grouping, dict[str, Both] | None] = {grouping: {} for grouping in GROUPINGS}

    @property
    def total(self) -> Sums:
        """Return the sums of the range, without the period before."""
        total = Sums()
        for sums in self.times.values():
            total = total.plus(sums)
        return total

    def add(self, source: Source) -> int:
        """Add the next part and return how many rows it had.

        :raises PermanentError, TransientError: as the source raises them; nothing has been added then.
        """
        part = self.parts[self.done]
        with source.snapshot():
            days = source.sums("date", part.period, _DAYS_OF_A_MONTH)
            for grouping in self._kept():
                self._add_names(grouping, part, source.sums(grouping, part.period, MAX_NAMES + 1))
        for day, sums in days:
            if part.is_before:
                self.before = self.before.plus(sums)
            else:
                key = day[:7] if self.by_month else day
                self.times[key] = self.times.get(key, Sums()).plus(sums)
        self.done += 1
        return sum(sums.rows for _, sums in days)

    def skip(self) -> None:
        """Pass over a part that is known to have no rows."""
        self.done += 1

    def saved(self, key: str) -> Any:
        """Return the checkpoint as JSON values; a dimension that makes it too large is left out from now on."""
        while len(msgspec.json.encode(state := self._state(key))) > MAX_SUMS_BYTES and (kept := self._kept()):
            largest = max(kept, key=lambda grouping: len(msgspec.json.encode(getattr(state, grouping))))
            self.names[largest] = None
        return msgspec.to_builtins(state)

    def restore(self, data: Any, key: str) -> bool:
        """Replace the sums by those of a checkpoint and return true; false if it is not one of this key."""
        try:
            state = msgspec.convert(data, SavedSums)
            restored = _restored(state)
        except (msgspec.ValidationError, ArithmeticError):
            return False
        if state.key != key or not 0 <= state.done <= len(self.parts):
            return False
        self.done, self.before, self.times, self.names = restored
        return True

    def _kept(self) -> list[Grouping]:
        return [grouping for grouping in GROUPINGS if self.names[grouping] is not None]

    def _add_names(self, grouping: Grouping, part: Part, found: list[tuple[str, Sums]]) -> None:
        names = self.names[grouping]
        assert names is not None
        for name, sums in found:
            now, before = names.get(name, Both())
            names[name] = Both(now, before.plus(sums)) if part.is_before else Both(now.plus(sums), before)
        if len(names) > MAX_NAMES:
            self.names[grouping] = None

    def _state(self, key: str) -> SavedSums:
        def lines(names: dict[str, Both] | None) -> Any:
            return (
                None if names is None else [(n, *_texts(both.now), *_texts(both.before)) for n, both in names.items()]
            )

        return SavedSums(
            key=key,
            done=self.done,
            before=_texts(self.before),
            times=[(time, *_texts(sums)) for time, sums in self.times.items()],
            product=lines(self.names["product"]),
            region=lines(self.names["region"]),
        )


def key_of(payload: bytes, fingerprint: str) -> str:
    """Return the key of a checkpoint, a digest of the range that was asked for and of the data's fingerprint."""
    return hashlib.sha256(payload + b"\n" + fingerprint.encode()).hexdigest()


def _texts(sums: Sums) -> tuple[int, str, str]:
    return sums.rows, str(sums.quantity), str(sums.amount)


def _sums(rows: int, quantity: str, amount: str) -> Sums:
    return Sums(rows, Decimal(quantity), Decimal(amount))


def _restored(state: SavedSums) -> tuple[int, Sums, dict[str, Sums], dict[Grouping, dict[str, Both] | None]]:
    def both(lines: list[tuple[str, int, str, str, int, str, str]] | None) -> dict[str, Both] | None:
        if lines is None:
            return None
        return {line[0]: Both(_sums(*line[1:4]), _sums(*line[4:7])) for line in lines}

    times = {time: _sums(*texts) for time, *texts in state.times}  # type: ignore[arg-type]
    return state.done, _sums(*state.before), times, {"product": both(state.product), "region": both(state.region)}
