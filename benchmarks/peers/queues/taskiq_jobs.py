"""taskiq on NATS JetStream: acknowledged after the work, with results in NATS or without any."""

import asyncio
import logging

import driver
import uvloop
from taskiq.api import run_receiver_task
from taskiq_nats import NATSObjectStoreResultBackend, PullBasedJetStreamBroker

clock = driver.Clock()
broker = PullBasedJetStreamBroker(
    servers=[driver.URL],
    pull_consume_batch=driver.SETTINGS["batch"],
    pull_consume_timeout=driver.SETTINGS.get("timeout", 0.2),
)
if driver.SETTINGS["results"]:
    broker = broker.with_result_backend(NATSObjectStoreResultBackend(servers=[driver.URL]))


@broker.task(task_name="noop")
async def noop(*, sent: float, **_payload: str) -> None:
    clock.ran(sent)


async def main() -> None:
    logging.getLogger("taskiq").setLevel(logging.ERROR)
    if driver.COMMAND in driver.ENQUEUES:
        await broker.startup()
        await driver.enqueue_all(lambda payload: noop.kiq(**payload))
        await broker.shutdown()
        return
    broker.is_worker_process = True
    driver.say("ready")
    await run_receiver_task(broker, run_startup=True, max_async_tasks=driver.SETTINGS["concurrency"])


with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(main())
