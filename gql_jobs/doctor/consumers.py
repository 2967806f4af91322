"""Is there a consumer for every queue and priority, and does somebody take what it has?"""

from datetime import UTC, datetime, timedelta
from typing import Any

from gql_jobs.doctor.finding import Finding
from gql_jobs.doctor.patient import Patient
from gql_jobs.jobs.model import JobPriority
from gql_jobs.log.inspection import ConsumerInfo, consumers
from gql_jobs.log.topology import lane_consumer

CHECK = "consumers"
LEASES = 3
"""A delivery that nobody has answered for so many leases is stuck."""


async def check_consumers(patient: Patient) -> list[Finding]:
    """Each lane against what the API would make, and deliveries that nobody takes or answers."""
    found: list[Finding] = []
    present = {consumer.name: consumer for consumer in await consumers(patient.connection)}
    stuck_before = datetime.now(UTC) - timedelta(seconds=LEASES * patient.settings.ack_wait)
    for queue in patient.registry.queues:
        for priority in JobPriority:
            wanted = lane_consumer(queue, priority, patient.settings.ack_wait)
            consumer = present.get(wanted["durable_name"])
            if consumer is None:
                found.append(
                    Finding(
                        CHECK,
                        f"The consumer {wanted['durable_name']} is missing: no worker is given such jobs.",
                        "Start an API or a worker, which makes it.",
                    )
                )
            else:
                found += _differences(consumer, wanted) + _stuck(consumer, queue, stuck_before)
    return found


def _differences(consumer: ConsumerInfo, wanted: dict[str, Any]) -> list[Finding]:
    return [
        Finding(
            CHECK,
            f"The consumer {consumer.name} has {key} {consumer.config.get(key)!r}, not {value!r}.",
            "Restart an API process with these settings, which updates it; all processes need the same ACK_WAIT.",
        )
        for key, value in wanted.items()
        if consumer.config.get(key, type(value)()) != value
    ]


def _stuck(consumer: ConsumerInfo, queue: str, before: datetime) -> list[Finding]:
    found: list[Finding] = []
    if consumer.num_pending and not consumer.num_waiting:
        found.append(
            Finding(
                CHECK,
                f"The consumer {consumer.name} has {consumer.num_pending} jobs to give, and no worker asks for one.",
                f"Start workers that serve {queue}; if some run, all their slots are taken by longer jobs: start more.",
                consumer.num_pending,
            )
        )
    last = consumer.delivered.last_active
    if consumer.num_ack_pending and not consumer.num_waiting and last is not None and last < before:
        found.append(
            Finding(
                CHECK,
                f"The consumer {consumer.name} has given out {consumer.num_ack_pending} jobs, the last of them at "
                f"{last:%Y-%m-%d %H:%M:%S} UTC, that nobody has answered for.",
                f"Their worker is gone, and no other asks for them: start workers that serve {queue}.",
                consumer.num_ack_pending,
            )
        )
    return found
