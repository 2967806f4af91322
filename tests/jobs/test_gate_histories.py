"""The gate in random histories of many processes: holders that stop, workers that die, clients that change their minds.

``python -m tests.gate_model`` runs as many as one likes; here are a few, and a proof that a broken rule is seen.
"""

import pytest

from tests.gate_model.gate_promises import Broken
from tests.gate_model.histories import drawn, run, shortest
from tests.gate_model.mutations import MUTATIONS

_HISTORIES = 120


def test_the_gate_keeps_its_promises_whatever_its_holders_the_workers_and_the_clients_go_through() -> None:
    released = 0
    for seed in range(_HISTORIES):
        released += run(drawn(seed)).promises.released
    assert released > _HISTORIES, "the histories are worth something"


@pytest.mark.parametrize(
    "mutation",
    [
        "forget a release once it is sent",
        "settle a release before it is applied",
        "release without what the attempts have left",
        "start again after a failure without the gate",
        "pass over dependencies",
        "pass over startBefore",
        "pass over priorities",
        "take up what an outage has kept",
        "take a take-over for attendance",
    ],
)
def test_the_model_sees_a_rule_that_is_broken(mutation: str) -> None:
    seen = set()
    for seed in range(_HISTORIES):
        try:
            run(drawn(seed, mutation=mutation))
        except Broken as broken:
            seen.add(broken.promise)
            if broken.promise == MUTATIONS[mutation]:
                return
    raise AssertionError(f"not seen, but {seen}")


def test_a_history_that_breaks_a_promise_is_shortened_to_what_it_takes() -> None:
    mutation = "pass over priorities"
    promise = MUTATIONS[mutation]
    assert promise is not None
    for seed in range(_HISTORIES):
        history = drawn(seed, mutation=mutation, most=60)
        try:
            run(history)
        except Broken as broken:
            if broken.promise == promise:
                break
    short = shortest(history, promise)
    assert 0 < len(short.steps) < len(history.steps)
    with pytest.raises(Broken, match=promise):
        run(short)
