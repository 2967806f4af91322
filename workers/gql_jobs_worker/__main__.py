"""``python -m gql_jobs_worker``: one worker process, stopped by SIGTERM or SIGINT in two stages.

A second signal begins the second stage at once.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys

import uvloop
from pydantic import ValidationError

from gql_jobs.jobs.errors import GqlJobsError, QueueUnavailable
from gql_jobs.jobs.registry import Registry, is_queue_name, load_job_types
from gql_jobs.logs import configure_logging, redact
from gql_jobs.processes.event_loop import raise_file_limit, tune_memory
from gql_jobs.processes.lock import keep_private
from gql_jobs.processes.parent import CANNOT_START, stop_with_parent
from gql_jobs.settings import Settings, setting_problems
from gql_jobs_worker.execution import HANDLER
from gql_jobs_worker.failures import HookFailed
from gql_jobs_worker.pool import run_pool

log = logging.getLogger("gql_jobs_worker")  # it is run as ``__main__``


def run_worker() -> None:
    """Run one worker as the arguments and the environment configure it, until a signal ends it.

    :raises SystemExit: with a sentence on stderr if the worker cannot start: with code 1 if NATS does not answer or a
        function that ``worker_startup`` has marked fails, which a restart may mend, else with ``CANNOT_START``.
    """
    arguments = _parser().parse_args()
    stop_with_parent()
    configure_logging()
    # Last: a folder of the user's that is called as one of our packages must not hide it.
    sys.path.append(os.getcwd())  # noqa: PTH109
    overrides = {} if arguments.concurrency is None else {"num_workers": arguments.concurrency}
    try:
        settings = Settings(**overrides)
        configure_logging(settings.log_level, settings.log_format, settings.secrets)
        keep_private(settings.data_dir)
        raise_file_limit()
        registry = load_job_types(tuple(arguments.imports), settings.types)
        queues = _queues(arguments.queues)
        tune_memory()
        uvloop.run(_work(settings, registry, queues))
    except (GqlJobsError, HookFailed, ImportError, ValueError) as error:
        print(f"gql-jobs worker: {redact(_sentence(error))}", file=sys.stderr)  # noqa: T201
        # What does not answer now may answer after a restart, NATS or a handler's database; nothing else changes by
        # itself.
        sys.exit(1 if isinstance(error, QueueUnavailable | HookFailed) else CANNOT_START)


async def _work(settings: Settings, registry: Registry, queues: tuple[str, ...]) -> None:
    stop_fetching, hand_back, started = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (hand_back if stop_fetching.is_set() else stop_fetching).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    pool = run_pool(settings, registry, queues, stop_fetching=stop_fetching, hand_back=hand_back, started=started)
    working, stopping = asyncio.create_task(pool), asyncio.create_task(stop_fetching.wait())
    await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not started.is_set() and not working.done():
        # Still waiting for NATS: there is nothing to end in stages.
        working.cancel()
    await asyncio.wait({working})
    if not working.cancelled():
        working.result()
    if abandoned := [task for task in asyncio.all_tasks() if task.get_name().startswith(HANDLER)]:
        # The outcomes of their attempts are recorded already; asyncio would wait for these tasks without end.
        log.warning("leaving %d handlers behind that ignore their cancellation", len(abandoned))
        logging.shutdown()
        os._exit(0)


def _queues(listed: str | None) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in (listed or "").split(",") if name.strip()))
    for name in names:
        if not is_queue_name(name):
            raise ValueError(
                f"{name[:100]!r} is no name of a queue: those have 1 to 63 of the characters a-z, 0-9, _ and -."
            )
    return names


def _sentence(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return " ".join(setting_problems(error))
    return str(error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gql-jobs worker", description="Runs jobs.")
    parser.add_argument(
        "--queues", help="queues to serve, separated by commas; also those of earlier versions (default: all)"
    )
    parser.add_argument("--concurrency", type=int, help="jobs to run at a time")
    parser.add_argument("--import", dest="imports", action="append", default=[], help="module with job types")
    return parser


if __name__ == "__main__":
    run_worker()
