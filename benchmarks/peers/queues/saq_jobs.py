"""SAQ on Redis: acknowledged after the work, results kept for its usual ten minutes."""

from typing import Any

import driver
import uvloop
from saq import Queue, Worker

clock = driver.Clock()


async def noop(_: Any, *, sent: float, **_payload: str) -> None:
    clock.ran(sent)


async def main() -> None:
    queue = Queue.from_url(driver.URL)
    await queue.connect()
    if driver.COMMAND in driver.ENQUEUES:
        await driver.enqueue_all(lambda payload: queue.enqueue("noop", **payload))
        await queue.disconnect()
        return
    worker = Worker(queue, functions=[noop], concurrency=driver.SETTINGS["concurrency"])
    driver.say("ready")
    await worker.start()


uvloop.run(main())
