"""The pause of a queue as a value: since when, by whom, why and until when; and what a client may ask for.

While a queue is paused nothing of it starts. What runs goes on, and jobs are created as ever.
"""

from datetime import UTC, datetime

import msgspec
from msgspec import Raw, Struct

from gql_jobs.jobs.errors import InvalidArgument
from gql_jobs.jobs.model import Moment

MAX_PAUSE_REASON = 500
"""Characters of a reason, at most."""
FAR = datetime(2200, 1, 1, tzinfo=UTC)
"""When a pause ends at the latest: the NATS server, which has to be told a moment, counts in 64 bits of nanoseconds."""
_JOINERS = frozenset("\u200c\u200d")
"""Characters that are not printable, and without which some languages and emoji cannot be written."""


class Pause(Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """A queue is paused since ``at``. ``by``: who has said so last, None if nobody was authenticated.

    ``until``: when the pause ends by itself; None if somebody has to end it.
    """

    at: Moment
    by: str | None = None
    reason: str | None = None
    until: Moment | None = None

    def is_over(self, now: datetime) -> bool:
        """Return whether the pause has ended by itself.

        :param now: by the server's clock.
        """
        return self.until is not None and self.until <= now

    def described(self, *, names_whom: bool = True) -> str:
        """Return who has paused the queue and why, in words that go on a sentence about it.

        :param names_whom: False for whom it is none of their business.
        """
        by = f" by {self.by}" if names_whom and self.by is not None else ""
        return f"is paused{by}: {self.reason}" if self.reason is not None else f"is paused{by}"


_decode = msgspec.json.Decoder(Pause).decode


def pause_of(value: Raw | None) -> Pause | None:
    """Return a stored value as a pause; None if it is removed, or cannot be read."""
    if value is None:
        return None
    try:
        return _decode(value)
    except msgspec.MsgspecError:
        return None


def checked_reason(reason: str | None) -> str | None:
    """Return a reason that may be stored.

    :raises InvalidArgument: for one that is empty, too long, or of which a terminal would not show each character.
    """
    if reason is None:
        return None
    if not 1 <= len(reason) <= MAX_PAUSE_REASON or not all(c.isprintable() or c in _JOINERS for c in reason):
        raise InvalidArgument(
            "reason", f"reason must have 1 to {MAX_PAUSE_REASON} printable characters, or be left out."
        )
    return reason


def checked_until(until: datetime | None, now: datetime) -> datetime | None:
    """Return the moment in UTC until which a queue may be paused; one without an offset is in UTC.

    :param now: by the server's clock.
    :raises InvalidArgument: for a moment that has passed, or is too far away to be told the NATS server.
    """
    if until is None:
        return None
    aware = until if until.tzinfo is not None else until.replace(tzinfo=UTC)
    if aware <= now:
        raise InvalidArgument("until", "until must be in the future; to end a pause, resume the queue.")
    if aware >= FAR:
        raise InvalidArgument("until", f"until must be before the year {FAR.year}; leave it out for no end.")
    return aware.astimezone(UTC)
