"""Celery on Redis: acknowledged after the work, results kept in Redis."""

import time

import driver
from celery import Celery

clock = driver.Clock()
app = Celery("peer", broker=driver.URL, backend=driver.URL if driver.SETTINGS["results"] else None)
app.conf.update(
    task_acks_late=True,
    task_ignore_result=not driver.SETTINGS["results"],
    worker_prefetch_multiplier=driver.SETTINGS["prefetch"],
    worker_redirect_stdouts=False,
    worker_enable_remote_control=False,
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
)


@app.task(name="noop")
def noop(*, sent: float, **_payload: str) -> None:
    clock.ran(sent)


def enqueue() -> None:
    pause = 1 / float(driver.REST[0]) if driver.REST else 0.0
    began = time.monotonic()
    with app.producer_pool.acquire(block=True) as producer:
        for number in range(driver.JOBS):
            if pause:
                time.sleep(max(0.0, began + number * pause - time.monotonic()))
            sent = time.monotonic() if pause else 0.0
            noop.apply_async(kwargs={**driver.PAYLOAD, "sent": sent}, producer=producer)
    driver.say(time.monotonic() - began)


if driver.COMMAND in {"fill", "send"}:
    enqueue()
else:
    driver.say("ready")
    options = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING"]
    app.worker_main(["worker", "--pool", driver.SETTINGS["pool"], "--concurrency", "1", *options])
