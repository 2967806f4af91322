"""How often clients may do things, by the library ``limits``: operations, creations of jobs, connections, wrong tokens.

A limit holds for each of those that a request is counted for: the address it comes from, and the viewer who asks
(``Viewer.counted_as``). Counts are of one process; a window of time
begins with the first request that is counted in it.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from math import ceil
from typing import Literal

from limits import RateLimitItem, parse
from limits.storage import Storage
from limits.strategies import FixedWindowRateLimiter

from gql_jobs.jobs.errors import RateLimited
from gql_jobs.jobs.viewer import Viewer
from gql_jobs.settings import Settings

MOST_COUNTED = 20_000
"""Addresses and subjects that one limit counts at a time; above that those counted longest are forgotten."""
MOST_GOOD_TOKENS = 4096
"""Tokens that are remembered to have been valid lately."""

Limited = Literal["operations", "creations", "connections"]
"""What has a limit of its own."""


class RateWindows(Storage):
    """Counters that end with their window of time, without a thread or a task, and no more of them than ``most``.

    All of them have windows of one length, so that the oldest ends first. Times are those of ``clock``.
    """

    STORAGE_SCHEME = None

    def __init__(self, most: int = MOST_COUNTED, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._most = most
        self._clock = clock
        self._windows: OrderedDict[str, tuple[int, float]] = OrderedDict()
        """Count and end of each window, the oldest first."""

    @property
    def base_exceptions(self) -> type[Exception]:
        """What the library would wrap; nothing is raised here."""
        return Exception

    def __len__(self) -> int:
        return len(self._windows)

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Add to a counter, whose window begins now unless there is one, and return it."""
        now = self._clock()
        count, end = self._windows.get(key, (0, 0.0))
        if end <= now:
            self._windows.pop(key, None)
            count, end = 0, now + expiry
        self._windows[key] = count + amount, end
        while len(self._windows) > self._most or next(iter(self._windows.values()))[1] <= now:
            self._windows.popitem(last=False)
        return count + amount

    def get(self, key: str) -> int:
        """Return a counter, 0 once its window has ended."""
        count, end = self._windows.get(key, (0, 0.0))
        return count if end > self._clock() else 0

    def get_expiry(self, key: str) -> float:
        """Return when its window ends, or now if there is none."""
        return max(self._windows.get(key, (0, 0.0))[1], self._clock())

    def check(self) -> bool:
        """Return whether it works, which it does."""
        return True

    def reset(self) -> int:
        """Forget all counters, and return how many there were."""
        number = len(self._windows)
        self._windows.clear()
        return number

    def clear(self, key: str) -> None:
        """Forget a counter."""
        self._windows.pop(key, None)


class RateLimit:
    """One limit, for each of those who are counted.

    :param text: such as ``100/second`` or ``5000/10 minutes``.
    :param what: is limited, as a noun in the plural, for the message.
    """

    def __init__(self, text: str, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._item: RateLimitItem = parse(text)
        self._what = what
        self._clock = clock
        self._limiter = FixedWindowRateLimiter(RateWindows(clock=clock))

    def spend(self, counted: Sequence[str], number: int = 1) -> None:
        """Count so many more for each of those.

        :raises RateLimited: if that is too many for one of them; then nothing is counted.
        """
        self.check(counted, number)
        for name in counted:
            self._limiter.hit(self._item, name, cost=number)

    def check(self, counted: Sequence[str], number: int = 1) -> None:
        """Check that so many more are not too many for any of those, and count nothing.

        :raises RateLimited: if they are.
        """
        full = [name for name in counted if not self._limiter.test(self._item, name, cost=number)]
        if not full:
            return
        ends = max(self._limiter.get_window_stats(self._item, name).reset_time for name in full)
        wait = max(1, ceil(ends - self._clock()))
        if number > self._item.amount:
            message = f"These are {number} {self._what} at once, and there may be {self._item}; send fewer."
        else:
            message = f"There may be {self._item} of {self._what}; try again in {wait} s."
        raise RateLimited(message, wait)


class RateLimits:
    """The limits of one process, as its settings have them."""

    def __init__(self, settings: Settings) -> None:
        texts: dict[Limited, str | None] = {
            "operations": settings.rate_limit_operations,
            "creations": settings.rate_limit_creations,
            "connections": settings.rate_limit_connections,
        }
        self._limits = {name: RateLimit(text, name) for name, text in texts.items() if text is not None}
        self._failures = RateLimit(settings.rate_limit_failures, "failed authentications")
        self._good: OrderedDict[bytes, None] = OrderedDict()

    def spend(self, what: Limited, address: Callable[[], str], viewer: Viewer | None = None, number: int = 1) -> None:
        """Count so many more of what an address, and a viewer where one is known, ask for.

        :param address: returns it; called only where there is a limit.
        :raises RateLimited: if that is too many.
        """
        limit = self._limits.get(what)
        if limit is not None:
            limit.spend(_counted(address(), viewer), number)

    def check_token(self, address: str, digest: bytes) -> None:
        """Check that a token of this address may be verified: too many others of it were wrong, and this one is new.

        A token that was valid lately is verified all the same, so that nobody locks out others at the same address.

        :param digest: the token's, as ``digest_of`` has it.
        :raises RateLimited: if it may not.
        """
        if digest not in self._good:
            self._failures.check([address])

    def token_verified(self, address: str, digest: bytes, *, valid: bool) -> None:
        """Note what came of the verification of a token."""
        if not valid:
            self._good.pop(digest, None)
            try:
                self._failures.spend([address])
            except RateLimited:
                return
        else:
            self._good[digest] = None
            self._good.move_to_end(digest)
            if len(self._good) > MOST_GOOD_TOKENS:
                self._good.popitem(last=False)


def _counted(address: str, viewer: Viewer | None) -> list[str]:
    names = [f"address {address}"]
    if viewer is not None and viewer.is_known:
        names.append(viewer.counted_as)
    return names
