"""Random histories of the model: what happens, one step after the other, and then everything recovers.

Each step has a seed of its own: without one of them the others do what they did, so that a history can be shortened.
"""

from collections.abc import Callable
from random import Random
from typing import NamedTuple

from gql_jobs.jobs.messages import Kind
from gql_jobs.jobs.model import JobStatus
from gql_jobs.log import codec
from tests.gate_model.api_process import ApiProcess
from tests.gate_model.fenced_stream import Put
from tests.gate_model.gate_promises import Broken
from tests.gate_model.model_clients import QUEUES, TYPES
from tests.gate_model.steered_world import SteeredWorld, Task

_SLOWLY = 100
"""Rounds of the recovery in which a second passes each."""


class Step(NamedTuple):
    """Something that happens; ``seed`` decides its details."""

    act: str
    seed: int


class History(NamedTuple):
    """The steps of a history, the seed of its world, and the rule that it breaks on purpose."""

    seed: int
    steps: tuple[Step, ...]
    mutation: str | None = None


# What happens to the processes.


def _awake(world: SteeredWorld) -> ApiProcess | None:
    awake = [api for api in world.apis if not api.is_stopped]
    return world.random.choice(awake) if awake else None


def _wait(world: SteeredWorld) -> None:
    world.stream.clock += world.random.choice((0.05, 0.3, 1.0, 1.0, 2.0, 4.0, 12.0))


def _apply(world: SteeredWorld) -> None:
    if (api := _awake(world)) is not None:
        api.apply(world.random.choice((1, 3, 10, 100, 1000)))


def _round(world: SteeredWorld) -> None:
    if (api := _awake(world)) is not None:
        if world.random.random() < 0.6:
            api.apply(1000)
        api.round()


def _stop(world: SteeredWorld) -> None:
    if (api := _awake(world)) is not None:
        api.paused_until = world.stream.clock + world.random.choice((3.0, 11.0, 30.0))


def _die(world: SteeredWorld) -> None:
    if (api := _awake(world)) is not None:
        if api.phase == "holding" and world.random.random() < 0.5:
            # By itself, so that another one takes the gate at once.
            world.begin(api, api.renew(ends=True))
        world.drop_tasks(api)
        api.start(keeps_index=world.random.random() < 0.7)


def _set_clock(world: SteeredWorld) -> None:
    world.random.choice(world.apis).wall_error = world.random.choice((0.0, -3600.0, 3600.0, 5.0))


def _stall(world: SteeredWorld) -> None:
    """Whoever holds the gate stops for longer than a lease lasts, and another one takes it with what it knows."""
    draw = world.random
    holders = [api for api in world.apis if api.phase == "holding"]
    others = [api for api in world.apis if api not in holders and not api.is_stopped]
    if holders and others:
        holder = draw.choice(holders)
        prompt, world.promptness = world.promptness, draw.choice((0.0, 0.5, 0.9))
        for _ in range(draw.choice((0, 0, 1, 2))):
            world.clients.create(holder)
        holder.apply(1000)
        holder.round()
        holder.paused_until = world.stream.clock + draw.choice((11.0, 12.0, 30.0))
        world.stream.clock += 11.0
        other = draw.choice(others)
        if draw.random() < 0.3:
            other.apply(1000)
        other.round()
        world.promptness = prompt


def _fire(world: SteeredWorld) -> None:
    """The server fires the schedules that are due."""
    for job in list(world.truth.jobs.values()):
        due = job.spec.run_at
        if job.status is JobStatus.SCHEDULED and due is not None and due <= world.stream.now:
            entry = world.stream.entry(job.submission_seq)
            if entry is not None and entry.put.kind is Kind.SCHEDULED:
                world.stream.fire(job.submission_seq)


# What happens to what is on its way.


def _waiting(world: SteeredWorld) -> list[Task]:
    """Those who may hear what has become of their write."""
    return [
        task
        for task in world.tasks
        if task.flight is not None and task.flight not in world.stream.accepted
        if not (isinstance(task.owner, ApiProcess) and task.owner.is_stopped)
    ]


def _some(world: SteeredWorld, most: int) -> range:
    return range(min(world.random.choice((1, 1, 3, 20)), most))


def _arrive(world: SteeredWorld) -> None:
    for _ in _some(world, len(world.loose)):
        world.arrive(world.random.randrange(len(world.loose)))


def _commit(world: SteeredWorld) -> None:
    for _ in _some(world, len(world.stream.accepted)):
        world.stream.commit()


def _answer(world: SteeredWorld) -> None:
    waiting = _waiting(world)
    for task in world.random.sample(waiting, len(_some(world, len(waiting)))):
        if task.flight is not None and task in world.tasks:
            world.answer(task)


def _settle_down(world: SteeredWorld) -> None:
    for _ in range(len(world.loose)):
        world.arrive(world.random.randrange(len(world.loose)))
    while world.stream.accepted:
        world.stream.commit()
    for task in _waiting(world):
        if task.flight is not None and task in world.tasks:
            world.answer(task)


def _give_up(world: SteeredWorld) -> None:
    if waiting := _waiting(world):
        world.give_up(world.random.choice(waiting))


def _lose(world: SteeredWorld) -> None:
    if world.loose:
        world.loose.pop(world.random.randrange(len(world.loose)))


# What clients and workers do.


def _create(world: SteeredWorld) -> None:
    if (api := _awake(world)) is not None:
        world.clients.create(api)


def _change_abilities(world: SteeredWorld) -> None:
    pair = world.random.choice(QUEUES), world.random.choice(TYPES)
    (world.unable.discard if world.random.random() < 0.6 else world.unable.add)(pair)
    for api in world.apis:
        api.state.look_again()


def _deliver(world: SteeredWorld) -> None:
    unacked = world.workers.unacked()
    running = {mine.submission for mine in world.workers.in_hand}
    is_early = world.random.random() < 0.12
    if some := [seq for seq in unacked if is_early or seq not in running]:
        seq, worker = world.random.choice(some), world.random.randint(1, 3)
        world.workers.deliver(seq, worker, on_time=not is_early)


def _finish(world: SteeredWorld) -> None:
    if in_hand := world.workers.in_hand:
        world.workers.finish(in_hand.pop(world.random.randrange(len(in_hand))))


def _lose_worker(world: SteeredWorld) -> None:
    if in_hand := world.workers.in_hand:
        in_hand.pop(world.random.randrange(len(in_hand)))


_Act = Callable[[SteeredWorld], None]
ACTS: dict[str, tuple[int, _Act]] = {
    "wait": (8, _wait),
    "apply": (16, _apply),
    "round": (40, _round),
    "stall": (4, _stall),
    "process stops": (1, _stop),
    "process dies": (1, _die),
    "clock": (1, _set_clock),
    "arrive": (8, _arrive),
    "commit": (6, _commit),
    "answer": (10, _answer),
    "settle down": (8, _settle_down),
    "give up": (3, _give_up),
    "lose": (1, _lose),
    "create": (12, _create),
    "cancel": (2, lambda world: world.clients.cancel()),
    "retry": (3, lambda world: world.clients.retry()),
    "edit": (3, lambda world: world.clients.edit()),
    "repair": (2, lambda world: world.clients.repair()),
    "delete": (1, lambda world: world.clients.delete()),
    "sweep": (1, lambda world: world.clients.sweep()),
    "pause": (1, lambda world: world.clients.pause()),
    "limits": (3, lambda world: world.clients.limit()),
    "abilities": (4, _change_abilities),
    "fire": (3, _fire),
    "deliver": (24, _deliver),
    "finish": (20, _finish),
    "worker dies": (1, _lose_worker),
}
"""What may happen, how often, and how."""


def drawn(seed: int, *, mutation: str | None = None, most: int = 600) -> History:
    """A random history."""
    draw = Random(seed)  # noqa: S311 - repeatable
    acts = draw.choices(list(ACTS), [weight for weight, _ in ACTS.values()], k=draw.randint(60, most))
    return History(seed, tuple(Step(act, draw.getrandbits(32)) for act in acts), mutation)


def run(history: History) -> SteeredWorld:
    """Run a history, and then let everything recover.

    :raises Broken: if a promise is broken.
    """
    world = SteeredWorld(history.seed, mutation=history.mutation)
    for step in history.steps:
        world.random = Random(step.seed)  # noqa: S311 - repeatable
        ACTS[step.act][1](world)
    recover(world)
    return world


def recover(world: SteeredWorld, most: int = 700) -> None:
    """Let everything come back, and time pass, until all has ended.

    :raises Broken: if it does not end.
    """
    world.is_calm = True
    world.unable.clear()
    for api in world.apis:
        api.paused_until = 0.0
        api.state.look_again()
    for number in range(most):
        world.random = Random(number)  # noqa: S311 - repeatable
        for queue in sorted(world.truth.paused):
            subject = codec.steering_subject(codec.PAUSES, queue)
            world.write(Put(subject, False, subject, world.stream.last_seq_of(subject)))
        while world.loose or world.stream.accepted:
            _settle_down(world)
        _settle_down(world)
        for api in world.apis:
            api.apply(10_000)
            api.round()
        world.clients.repair()
        world.clients.sweep()
        _fire(world)
        world.workers.work_off()
        world.stream.clock += 1.0 if number < _SLOWLY else 5.0
        if _is_over(world):
            break
    for api in world.apis:
        api.apply(10_000)
    world.promises.finished()


def _is_over(world: SteeredWorld) -> bool:
    busy = world.tasks or world.loose or world.stream.accepted or world.workers.in_hand or world.workers.unacked()
    return not busy and all(job.status.is_terminal for job in world.truth.jobs.values())


def shortest(history: History, promise: str) -> History:
    """A history with as few steps as possible that breaks the same promise."""
    steps = list(history.steps)
    size = max(len(steps) // 2, 1)
    while True:
        at = 0
        while at < len(steps):
            fewer = History(history.seed, (*steps[:at], *steps[at + size :]), history.mutation)
            try:
                run(fewer)
            except Broken as broken:
                if broken.promise == promise:
                    steps = list(fewer.steps)
                    continue
            at += size
        if size == 1:
            return History(history.seed, tuple(steps), history.mutation)
        size = max(size // 2, 1)
