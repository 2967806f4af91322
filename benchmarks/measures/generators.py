"""What the load generators can count when the server does nothing: above that, no other bench may be believed."""

from benchmarks.http_load import Asker
from benchmarks.machine import python
from benchmarks.measurement import Bench, Contender, Plan, Sample
from benchmarks.measures.pushes import fan_out
from benchmarks.measures.requests import creations
from benchmarks.measures.target import PEER_CREATION, Target
from benchmarks.processes import free_port, listening, program


async def _limits(plan: Plan) -> list[Sample]:
    """What the generators count when the server does nothing."""
    port = free_port()
    async with program(python(), "-m", "benchmarks.limits", str(port)) as process:
        await listening(port, process)
        async with Asker(port) as asker:
            target = Target(port, asker, (process.pid,), PEER_CREATION)
            return [
                *await creations(target, plan, "limits", "HTTP"),
                *await fan_out(target, plan, "limits", "WebSocket"),
            ]


BENCHES = (
    Bench("limits", "constant answers: what the load generators can count", (Contender("constant", _limits),)),
)  # fmt: skip
