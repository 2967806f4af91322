"""Run many histories of the model: ``python -m tests.gate_model --histories 1500 --seed 1``.

``--mutations`` breaks one rule after the other on purpose and tells which promises show it, and after how many
histories; ``--show`` tells the messages of the shortest history that breaks a promise.
"""

import argparse
import sys
import time
from collections import Counter
from random import Random
from typing import Any

from tests.gate_model.gate_promises import Broken
from tests.gate_model.histories import ACTS, History, drawn, recover, run, shortest
from tests.gate_model.mutations import MUTATIONS
from tests.gate_model.steered_world import SteeredWorld
from tests.stories import BEGAN, spec


def main() -> int:
    """Run what was asked for; return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.gate_model", description=__doc__.partition("\n")[0])
    parser.add_argument("--histories", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mutation", choices=MUTATIONS)
    parser.add_argument("--mutations", action="store_true")
    parser.add_argument("--show", action="store_true")
    asked = parser.parse_args()
    if asked.mutations:
        for mutation in MUTATIONS:
            _say(f"{mutation}: {_caught(asked, mutation)}")
        return 0
    began, steps, stored, released = time.monotonic(), 0, 0, 0
    broken: Counter[str] = Counter()
    for seed in range(asked.seed, asked.seed + asked.histories):
        history = drawn(seed, mutation=asked.mutation)
        steps += len(history.steps)
        try:
            world = run(history)
        except Broken as error:
            broken[error.promise] += 1
            if broken[error.promise] == 1:
                _say(f"seed {seed}: {error}")
                if asked.show:
                    _show(shortest(history, error.promise))
        else:
            stored += world.stream.last_seq
            released += world.promises.released
    took = time.monotonic() - began
    _say(f"{asked.histories} histories, {steps} steps, {stored} messages, {released} releases in {took:.0f} s")
    for promise, number in broken.most_common():
        _say(f"{number:6} {promise}")
    return int(bool(broken))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _caught(asked: argparse.Namespace, mutation: str) -> str:
    found: Counter[str] = Counter()
    first = 0
    for number in range(1, asked.histories + 1):
        try:
            run(drawn(asked.seed + number - 1, mutation=mutation))
        except Broken as broken:
            first = first or number
            found[broken.promise] += 1
    if not found:
        return f"not caught in {asked.histories}"
    return f"first in history {first}; {dict(found.most_common())}"


def _show(history: History) -> None:
    _say(f"{len(history.steps)} steps are enough: {[step.act for step in history.steps]}")
    world = SteeredWorld(history.seed, mutation=history.mutation)
    try:
        for step in history.steps:
            world.random = Random(step.seed)  # noqa: S311 - repeatable
            ACTS[step.act][1](world)
        recover(world)
    except Broken as broken:
        _say(str(broken))
    for entry in world.stream.entries:
        if entry is not None:
            at, put = (entry.at - BEGAN).total_seconds(), entry.put
            _say(f"{entry.seq} {at:.1f} {put.subject} {_told(put.body)}")


def _told(body: Any) -> str:
    """What a body says that is not the usual."""
    if not hasattr(body, "__struct_fields__"):
        return str(body)
    facts = {name: getattr(body, name) for name in body.__struct_fields__}
    asked, usual = facts.pop("spec", None), spec()
    if asked is not None:
        facts |= {name: getattr(asked, name) for name in asked.__struct_fields__}
    shown = {name: fact for name, fact in facts.items() if fact and fact != getattr(usual, name, None)}
    return " ".join(f"{name}={fact}" for name, fact in shown.items())


if __name__ == "__main__":
    sys.exit(main())
