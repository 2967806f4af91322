"""What one operation may use while it runs, rows that are read and bytes of its result; and a client's time before.

``complexity`` measures what a document asks for before it runs; how long the lists turn out to be is known only then.
Each operation, and each event of a subscription, has a ``Budget`` of its own in its context. Resolvers take from it
what they are about to read or to show, so that an operation ends at the first row too many, and ``encode_result``
writes no more than what is left of the bytes.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, Protocol, TypeVar

from msgspec import Struct, json

from gql_jobs.jobs.errors import ErrorCode, GqlJobsError

_T = TypeVar("_T")
_R = TypeVar("_R", bound=Callable[..., Any])

_LARGEST_INT = 2**31 - 1
"""The largest number that an error can show: GraphQL's Int."""
_SAVED_SECONDS = 4.0
"""Seconds of which a client may have saved its share."""
_MAX_CLIENTS = 10_000
"""Clients whose time is known."""
_MAX_REFUSALS = 1000
_MAX_REFUSALS_SIZE = 1 << 20
"""Refusals that are kept, and their bytes."""
FEW_ROWS = 8
"""Rows up to which a result needs no ``encode_result``: what so few can hold is bounded by what a job may hold."""


class OperationLimits(Protocol):
    """The most that one operation may ask for, with every fragment counted at each of its spreads."""

    @property
    def max_operation_depth(self) -> int:
        """Return how many levels of fields there may be."""

    @property
    def max_operation_root_fields(self) -> int:
        """Return how many fields there may be at the first level."""

    @property
    def max_operation_aliases(self) -> int:
        """Return how many fields may have an alias."""

    @property
    def max_operation_directives(self) -> int:
        """Return how many directives there may be, in all."""

    @property
    def max_operation_cost(self) -> int:
        """Return how many values the answer may have, with the sizes of lists counted, before it runs and after."""

    @property
    def max_document_tokens(self) -> int:
        """Return how many tokens a document may have, and how many comments."""

    @property
    def max_document_length(self) -> int:
        """Return how many characters a document may have."""

    @property
    def max_operation_rows(self) -> int:
        """Return how many items of lists may be read while it runs."""

    @property
    def max_operation_bytes(self) -> int:
        """Return how many bytes its result may have."""

    @property
    def max_reading_time(self) -> float:
        """Return how many seconds of each second the new documents of one client may take to be read; 0 for any."""

    @property
    def query_timeout(self) -> float:
        """Return the seconds that a query may take."""


class TooComplex(GqlJobsError):
    """An operation asks for more than one may: ``actual`` of a ``measure`` (its depth, its cost) above ``limit``."""

    code = ErrorCode.TOO_COMPLEX

    def __init__(self, measure: str, limit: int, actual: int) -> None:
        # Fragments that double can make a number of any length.
        shown = str(actual) if actual < _LARGEST_INT else f"more than {_LARGEST_INT}"
        message = f"The operation asks for too much: its {measure} may be {limit} at most, and it has {shown}."
        super().__init__(message, measure=measure, limit=limit, actual=min(actual, _LARGEST_INT))


class OverBudget(TooComplex):
    """An operation was stopped while it ran, because it would have used more than its budget."""


class Budget(Struct):
    """What one operation may use, and what of it was taken."""

    max_rows: int | None = None
    """Items of lists that may be read; None for any number."""
    max_size: int | None = None
    """Bytes that the result may have, and bytes of jobs that may be read for it; None for any number."""
    max_values: int | None = None
    """Values of objects that may be made one by one, those of introspections apart; None for any number."""
    max_introspected: int | None = None
    """Values of an introspection; None for any number."""
    rows: int = 0
    """Items that were taken."""
    size: int = 0
    """Bytes that were taken."""
    read: int = 0
    """Bytes of jobs that were read, whether or not they are shown."""
    values: int = 0
    """Values that were made."""
    introspected: int = 0
    """Values of an introspection that were made."""
    spent: OverBudget | None = None
    """The refusal, once more was wanted than there is; whatever is wanted later is refused by it as well."""

    def take(self, rows: int = 0, size: int = 0, read: int = 0) -> None:
        """Take rows and bytes, before they are read or made; threads may do so too.

        :raises OverBudget: if there is not so much left.
        """
        self.rows += rows
        self.size += size
        self.read += read
        if self.spent is None:
            if self.max_rows is not None and self.rows > self.max_rows:
                self.spent = OverBudget("number of rows read", self.max_rows, self.rows)
            elif self.max_size is not None and self.size > self.max_size:
                self.spent = OverBudget("size in bytes", self.max_size, self.size)
            elif self.max_size is not None and self.read > self.max_size:
                self.spent = OverBudget("number of bytes read", self.max_size, self.read)
        if self.spent is not None:
            raise self.spent

    def make(self, values: int, *, introspected: bool) -> None:
        """Take the values of one object, before they are made.

        Lists turn out to be longer than the cost of their document has assumed, where no argument says their size.

        :raises OverBudget: if there are not so many left.
        """
        if introspected:
            self.introspected += values
            limit, made = self.max_introspected, self.introspected
        else:
            self.values += values
            limit, made = self.max_values, self.values
        if self.spent is None and limit is not None and made > limit:
            self.spent = OverBudget("number of values", limit, made)
        if self.spent is not None:
            raise self.spent

    def encode_result(self, data: dict[str, Any] | None) -> bytes:
        """Return the JSON of a result's data, written object by object.

        Strings of a few rows may stand in the result very often, so what was taken says little about its size.

        :raises OverBudget: if it is longer than the bytes that an operation may have.
        """
        if self.max_size is None:
            return json.encode(data)
        written = bytearray()
        self._write(data, written, self.max_size)
        return bytes(written)

    def _write(self, value: Any, written: bytearray, limit: int) -> None:
        """Append the JSON of a value, object by object."""
        if type(value) is dict and any(type(part) in {dict, list} for part in value.values()):
            opening = b"{"
            for key, part in value.items():
                written += opening
                json_key = json.encode(key)
                written += json_key
                written += b":"
                self._write(part, written, limit)
                opening = b","
            written += b"}"
        elif type(value) is list and value and type(value[0]) in {dict, list}:
            opening = b"["
            for part in value:
                written += opening
                self._write(part, written, limit)
                opening = b","
            written += b"]"
        else:
            written += json.encode(value)
        if len(written) > limit:
            self.spent = OverBudget("size in bytes", limit, len(written))
            raise self.spent


def spends_only(resolver: _R) -> _R:
    """Mark a resolver that takes ``Info`` for the budget only, and return it.

    Whatever else it looks at follows from its source, so that all subscribers may share what it returns.
    """
    resolver.only_spends = True  # type: ignore[attr-defined]
    return resolver


def only_spends_budget(resolver: Callable[..., Any]) -> bool:
    """Return whether the resolver was marked by ``spends_only``."""
    return getattr(resolver, "only_spends", False)


class ReadingTimes:
    """The time that clients have new documents read for them: the CPU that parsing, measuring and validating takes.

    A client may take a share of every second, and what it has not taken of the last seconds besides.

    :param share: seconds of each second; 0 for any.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._spent: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """By client, how many seconds were spent, less what time has made good, and when that was so."""

    def is_exhausted(self, client: str) -> bool:
        """Return whether the client has to wait before another new document is read for it."""
        return self._share > 0 and self._left(client) > self._share * _SAVED_SECONDS

    @contextmanager
    def spent(self, client: str | None) -> Iterator[None]:
        """Count the CPU that the block takes as the client's; None counts for nobody."""
        began = time.thread_time()
        try:
            yield
        finally:
            if client is not None and self._share > 0:
                self._spent[client] = (self._left(client) + time.thread_time() - began, time.monotonic())
                self._spent.move_to_end(client)
                if len(self._spent) > _MAX_CLIENTS:
                    self._spent.popitem(last=False)

    def _left(self, client: str) -> float:
        seconds, at = self._spent.get(client, (0.0, 0.0))
        return max(seconds - (time.monotonic() - at) * self._share, 0.0)


class Refusals(Generic[_T]):
    """The refusals of texts that were refused lately, by the texts' digests: a text is not read twice for one."""

    def __init__(self) -> None:
        self._refusals: OrderedDict[bytes, tuple[_T, int]] = OrderedDict()
        self._size = 0

    def find(self, digest: bytes) -> _T | None:
        """Return the refusal of that text, or None."""
        found = self._refusals.get(digest)
        if found is None:
            return None
        self._refusals.move_to_end(digest)
        return found[0]

    def keep(self, digest: bytes, refusal: _T, size: int) -> None:
        """Keep a refusal of ``size`` bytes; the oldest are dropped when there are too many, or too many bytes."""
        if digest in self._refusals:
            return
        self._refusals[digest] = (refusal, size)
        self._size += size
        while self._size > _MAX_REFUSALS_SIZE or len(self._refusals) > _MAX_REFUSALS:
            _, (_, dropped) = self._refusals.popitem(last=False)
            self._size -= dropped
