"""Keys of jobs: no two jobs of a tenant have the same one at a time, but for one that waits for the other.

Unlike an idempotency key, which holds for as long as its job is kept, a key is free again as soon as its job has ended.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal, TypeAlias

from msgspec import Struct

MAX_KEY_DELAY = 366 * 86_400
"""Seconds by which a waiting job may be pushed back in all, at most."""


class KeyPolicy(StrEnum):
    """What becomes of a creation whose key a job has that has not ended."""

    RETURN = "return"
    REJECT = "reject"
    REPLACE = "replace"


PolicyName: TypeAlias = Literal["return", "reject", "replace"]


@dataclass(frozen=True)
class Key:
    """A key to create a job with.

    While another job with it has not ended, ``return`` gives that one back, ``reject`` refuses with ``KeyTaken``, and
    ``replace`` has that one take over payload and ``run_at`` of this creation, as long as it has not started; else the
    new job runs after it. ``value``: 1 to 255 printable characters. ``max_delay``: with ``replace``, how long after its
    creation a waiting job may be pushed back, in whole seconds or as a ``timedelta``; without end by default.
    """

    value: str
    policy: KeyPolicy | PolicyName = KeyPolicy.RETURN
    max_delay: int | timedelta | None = None

    def asked(self) -> "UniqueKey":
        """Return it as requests have it.

        :raises ValueError: naming the attribute, and what is wrong with it.
        """
        if not isinstance(self.value, str):
            raise ValueError(f"value is a text, not {self.value!r}.")  # noqa: TRY004 - what a caller gives, as any other
        try:
            policy = KeyPolicy(str(self.policy).lower())
        except ValueError:
            raise ValueError(f"policy is one of {', '.join(KeyPolicy)}, not {self.policy!r}.") from None
        delay = self.max_delay.total_seconds() if isinstance(self.max_delay, timedelta) else self.max_delay
        if delay is not None and (
            isinstance(delay, bool) or not isinstance(delay, int | float) or not float(delay).is_integer()
        ):
            raise ValueError(f"max_delay is a whole number of seconds or a timedelta, not {self.max_delay!r}.")
        return UniqueKey(self.value, policy, int(delay) if delay is not None else None)


class UniqueKey(Struct, frozen=True):
    """The key of a request: its value, what becomes of the request while it is taken, and a delay in seconds."""

    value: str
    policy: KeyPolicy = KeyPolicy.RETURN
    max_delay: int | None = None

    def name(self, tenant: str | None) -> str:
        """Return what the key is called in the stream, where values of clients may not stand."""
        return key_name(self.value, tenant)

    def pushed_back(self, run_at: datetime | None, created_at: datetime) -> datetime | None:
        """Return when a waiting job runs that is to run at another time now: no later than its delay allows.

        :param created_at: when the waiting job was created.
        """
        if run_at is None or self.max_delay is None:
            return run_at
        return min(run_at, created_at + timedelta(seconds=self.max_delay))


class KeyHolder(Struct, frozen=True, omit_defaults=True):
    """What is stored of a key: which job it is for, and which others may have it while there is no such job.

    ``before``: jobs that had not ended when the key was claimed for ``id``, or of which that was not known yet.
    """

    id: str
    before: tuple[str, ...] = ()

    @property
    def named(self) -> tuple[str, ...]:
        """All jobs that may have the key."""
        return (self.id, *self.before)


def key_name(value: str, tenant: str | None) -> str:
    """Return the SHA-256, in hexadecimal, of a key and the tenant whose it is."""
    # No tenant has an empty name, and no key a NUL.
    return hashlib.sha256(f"{tenant or ''}\0{value}".encode("utf-8", "surrogatepass")).hexdigest()
