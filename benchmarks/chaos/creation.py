"""One creation of the load: which job a client wants, decided by the seed and its number alone."""

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from benchmarks.chaos.probe_jobs import LIMITED

GROUPS = 7
"""Groups of jobs that share places, and keys of which one job at a time may have each."""
LANES = 20
"""Tags among which the jobs are spread, so that subscriptions with a filter see a share of them."""


@dataclass(frozen=True)
class Creation:
    """What one client wants: ``kind`` is the payload's field. Without a key it is asked for once only."""

    token: str
    kind: str
    payload: dict[str, Any]
    tags: tuple[str, ...]
    keyed: bool
    delay: float | None
    priority: str
    max_retries: int
    key: str | None = None
    follows: bool = False
    """Whether it is to run after others, which whoever asks for it chooses."""

    @property
    def lasts(self) -> bool:
        """Whether it takes long enough to be cancelled on the way."""
        return self.delay is not None or self.payload.get("seconds", 0) >= 1 or "failAttempts" in self.payload

    def input(self) -> dict[str, Any]:
        """The argument of createJob; a repetition has the same run time as the first."""
        asked: dict[str, Any] = {
            "payload": {self.kind: {"token": self.token, **self.payload}},
            "tags": list(self.tags),
            "priority": self.priority,
            "maxRetries": self.max_retries,
        }
        if self.keyed:
            asked["idempotencyKey"] = self.token
        if self.key is not None:
            asked["key"] = {"value": self.key}
        if self.delay is not None:
            asked["runAt"] = (datetime.now(UTC) + timedelta(seconds=self.delay)).isoformat()
        return asked


def creation(seed: int, number: int, *, poison: bool = False) -> Creation:
    """The creation of that number, the same for the same seed."""
    chance = random.Random(seed << 32 | number)  # noqa: S311
    kind = chance.choices(["chaos", "chaosThread", "chaosCpu", LIMITED], [80, 3, 3, 14])[0]
    payload: dict[str, Any] = {}
    work = chance.random()
    if poison:
        kind, payload = "chaos", {"poison": True}
    elif kind == "chaosCpu":
        payload = {"seconds": round(chance.uniform(0.01, 0.2), 3)}
    elif work < 0.02:  # noqa: PLR2004
        payload = {"seconds": round(chance.uniform(1, 6), 2), "steps": 5}
    elif work < 0.05:  # noqa: PLR2004
        payload = {"failAttempts": chance.choice([1, 1, 2])}
    elif work < 0.07:  # noqa: PLR2004
        payload = {"permanent": True}
    else:
        payload = {"seconds": round(chance.uniform(0, 0.05), 3), "steps": int(chance.random() < 0.2)}  # noqa: PLR2004
    if kind == LIMITED:
        payload["group"] = f"group-{chance.randrange(GROUPS)}"
    lot = chance.random()
    return Creation(
        token=f"{seed}-{number}",
        kind=kind,
        payload=payload,
        tags=(f"lane-{number % LANES}",),
        keyed=chance.random() < 0.95,  # noqa: PLR2004
        delay=round(chance.uniform(1, 8), 1) if not poison and chance.random() < 0.03 else None,  # noqa: PLR2004
        priority=chance.choices(["LOW", "NORMAL", "HIGH", "CRITICAL"], [10, 70, 15, 5])[0],
        max_retries=1 if poison else 5,
        key=f"key-{kind}-{chance.randrange(GROUPS)}" if not poison and lot < 0.02 else None,  # noqa: PLR2004
        follows=not poison and 0.02 <= lot < 0.08,  # noqa: PLR2004
    )
