"""What it costs that jobs pass the gate: the same backlog drained with limits and without, from a queue's resume on."""

import time
from collections.abc import Callable, Iterator

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from benchmarks import stack
from benchmarks.measurement import Bench, Plan, Sample
from benchmarks.measures.target import ours
from benchmarks.stock import submissions, write_all
from gql_jobs import clock
from gql_jobs.jobs.limits import Limits
from gql_jobs.jobs.messages import Body, Steered, Submission
from gql_jobs.jobs.model import Gate
from gql_jobs.jobs.pause import Pause
from gql_jobs.log import codec

CONCURRENCY = 200
QUEUE = "default"
_RESUME = "mutation ($name: String!) { resumeQueue(name: $name) { queue { name } } }"


def _written(jobs: int, limits: Limits | None, key_of: Callable[[int], str]) -> Iterator[tuple[str, Body]]:
    """Yield the messages of a paused queue with its limits, and of jobs that wait in it."""
    pause = Raw(msgspec.json.encode(Pause(at=clock.now())))
    yield codec.steering_subject(codec.PAUSES, QUEUE), Steered(value=pause)
    if limits is not None:
        yield codec.steering_subject(codec.QUEUE_LIMITS, QUEUE), Steered(value=Raw(msgspec.json.encode(limits)))
    for number, (job_id, body) in zip(range(jobs), submissions(), strict=False):
        assert isinstance(body, Submission)
        if limits is None:
            yield codec.queued_subject(job_id, body.spec.queue, body.spec.priority), body
            continue
        spec = replace(body.spec, gate=Gate(), concurrency_key=key_of(number))
        yield codec.scheduled_subject(job_id), replace(body, spec=spec)


async def _rate(jobs: int, limits: Limits | None, key_of: Callable[[int], str]) -> float:
    """Jobs per second from the resume of the queue until the index has the last of them."""

    async def prepare(url: str) -> None:
        await write_all(url, _written(jobs, limits, key_of))

    async with stack.running(prepare=prepare) as system:
        await system.work(CONCURRENCY)
        await system.workers_ready()
        began = time.monotonic()
        await system.asker.ask(_RESUME, {"name": QUEUE})
        return jobs / (await system.completed(jobs) - began)


_KINDS: tuple[tuple[str, Limits | None, Callable[[int], str]], ...] = (
    ("without limits", None, str),
    ("a key for each job", Limits(concurrency_per_key=1), str),
    ("1 000 keys", Limits(concurrency_per_key=1), lambda number: str(number % 1000)),
    ("one key, 50 at a time", Limits(concurrency_per_key=50), lambda _: "one"),
)


async def _drain(plan: Plan) -> list[Sample]:
    jobs = plan.size(20_000, 2_000)
    return [Sample("gated_drain", name, await _rate(jobs, limits, key_of), "jobs/s") for name, limits, key_of in _KINDS]


BENCHES = (
    Bench(
        "gated_drain",
        "no-op jobs that wait in a paused queue, from its resume to the last one in the index; one worker process",
        (ours(_drain, concurrency=CONCURRENCY),),
    ),
)
