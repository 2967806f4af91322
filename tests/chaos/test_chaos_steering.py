"""The checker of the fault harness finds what breaks the promises of steering, and nothing where they are kept."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.chaos.checker import Evidence, Promised, check
from benchmarks.chaos.ledger import Ledger
from benchmarks.chaos.stream import Stored

FIRST, SECOND, REPORT = "first", "second", "report"
_PROMISED = Promised(places={"limited": 1}, places_of_key={"limited": 1}, every={"each": 2})


def _spec(job_id: str, **facts: Any) -> dict[str, Any]:
    return {"payload": {"token": f"t-{job_id}"}, "type": "limited", "queue": "limited", **facts}


def _held(seq: int, job_id: str, **facts: Any) -> Stored:
    return Stored(seq, job_id, "scheduled", {"spec": _spec(job_id, gate={}, **facts)})


def _released(seq: int, job_id: str, event_seq: int = 0, **facts: Any) -> Stored:
    return Stored(seq, job_id, "queued", {"spec": _spec(job_id, gate={}, **facts), "eventSeq": event_seq})


def _told(seq: int, job_id: str, kind: str, submission: int, attempt: int = 1) -> Stored:
    return Stored(seq, job_id, f"event.{kind}", {"submission": submission, "attempt": attempt})


def _tick(seq: int, second: int, job_id: str = "", schedule: str = "each") -> list[Stored]:
    job_id = job_id or f"tick {second}"
    spec = _spec(job_id, schedule=schedule, runAt=f"2026-01-31T12:00:{second:02}Z", queue="default", type="chaos")
    return [
        Stored(seq, job_id, "queued", {"spec": spec}),
        _told(seq + 1, job_id, "started", seq),
        _told(seq + 2, job_id, "completed", seq),
    ]


def _messages() -> list[Stored]:
    """Two jobs of one key take turns, the first one after a failure; a third one runs after both; three ticks."""
    key: dict[str, Any] = {"concurrencyKey": "g"}
    return [
        _held(1, FIRST, key="one", **key),
        _held(2, SECOND, **key),
        _held(3, REPORT, after=[FIRST, SECOND]),
        _released(4, FIRST, key="one", **key),
        _released(5, FIRST, key="one", **key),
        _told(6, FIRST, "started", 5),
        _told(7, FIRST, "failed", 5),
        _released(8, SECOND, **key),
        _told(9, SECOND, "started", 8),
        _told(10, SECOND, "completed", 8),
        _released(11, FIRST, 7, key="one", **key),
        _told(12, FIRST, "started", 11, 2),
        _told(13, FIRST, "completed", 11, 2),
        _held(14, "next", key="one"),
        Stored(15, "next", "event.cancelled", {"submission": 14}),
        _released(16, REPORT, after=[FIRST, SECOND]),
        Stored(17, REPORT, "event.edited", {"submission": 16, "spec": _spec(REPORT, gate={}, after=[FIRST, SECOND])}),
        _released(18, REPORT, 17, after=[FIRST, SECOND]),
        _told(19, REPORT, "started", 18),
        _told(20, REPORT, "completed", 18),
        *_tick(21, 2),
        *_tick(24, 4),
        *_tick(27, 6),
        Stored(30, "gate", "lease", {}),
    ]


def _broken(messages: list[Stored]) -> set[str]:
    runs: Counter[tuple[str, int]] = Counter()
    for message in messages:
        if message.kind == "event.started":
            runs[message.job_id, message.body["attempt"]] += 1
    evidence = Evidence(sorted(messages), [], Ledger(), runs, {}, _PROMISED)
    return set(check(evidence).shown())


def test_a_history_in_which_steering_keeps_its_promises_breaks_nothing() -> None:
    assert _broken(_messages()) == set()


def _moved(seq: int, to: Any) -> Callable[[list[Stored]], None]:
    def move(messages: list[Stored]) -> None:
        place = next(n for n, m in enumerate(messages) if m.seq == seq)
        messages[place] = messages[place]._replace(seq=to)

    return move


def _without(*seqs: int) -> Callable[[list[Stored]], None]:
    def remove(messages: list[Stored]) -> None:
        messages[:] = [message for message in messages if message.seq not in seqs]

    return remove


PLANTED: list[tuple[str, Callable[[list[Stored]], Any], str]] = [
    ("two of one key at a time", _moved(8, 6.5), "places_exceeded"),
    ("a retry without a place", _moved(11, 8.5), "places_exceeded"),
    ("a second job under a key", _moved(14, 3.5), "keys_held_twice"),
    ("a job before another has ended", _without(10), "dependencies_out_of_order"),
    ("a tick that is missing", _without(24, 25, 26), "ticks_missing"),
    ("a tick that was made twice", lambda messages: messages.extend(_tick(40, 4, "again")), "ticks_repeated"),
    ("an attempt that begins anew", lambda messages: messages[11].body.update(attempt=1), "attempts_miscounted"),
]


@pytest.mark.parametrize(("plant", "promise"), [case[1:] for case in PLANTED], ids=[case[0] for case in PLANTED])
def test_a_broken_promise_that_was_planted_is_found(plant: Callable[[list[Stored]], Any], promise: str) -> None:
    messages = _messages()
    plant(messages)
    assert promise in _broken(messages)
