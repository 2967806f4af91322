"""What a long history costs: the index of a million jobs built from nothing, and pages of it."""

from functools import partial

from benchmarks import stack
from benchmarks.measurement import Bench, Plan, Sample
from benchmarks.measures.requests import FINISHED, pages
from benchmarks.measures.target import of_ours, ours
from benchmarks.stock import finish


async def _million(plan: Plan) -> list[Sample]:
    """The index of a long history built from nothing, then pages of it."""
    jobs = plan.size(1_000_000, 10_000)
    async with stack.running(prepare=partial(finish, jobs=jobs)) as system:
        assert await system.count(**FINISHED["filter"]) == jobs
        samples = [Sample("rebuild", "events", 3 * jobs / system.start_seconds, "events/s")]
        for _ in range(3):
            samples += await pages(of_ours(system), plan, "1 000 000 jobs")
        return samples


BENCHES = (
    Bench(
        "rebuild", "index from an empty file, 1 000 000 jobs in 3 000 000 messages; then pages of it",
        (ours(_million),), quick=False, repetitions=1,
    ),
)  # fmt: skip
