"""Handlers that do what handlers should not, to the process they run in. Each runs for a probe type."""

import asyncio
import functools
import logging
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gql_jobs import JobContext

RESULT = {"attempt": 1, "text": "done"}


def _fork(in_the_copy: Callable[[], object]) -> dict[str, Any]:
    if (copy := os.fork()) == 0:
        in_the_copy()
        return RESULT
    _, status = os.waitpid(copy, 0)
    return {**RESULT, "saved": os.waitstatus_to_exitcode(status)}


def fork_and_exit(_: JobContext, __: Any) -> dict[str, Any]:
    return _fork(lambda: sys.exit(3))


def fork_and_return(_: JobContext, __: Any) -> dict[str, Any]:
    return _fork(lambda: None)


def fork_and_raise(_: JobContext, __: Any) -> dict[str, Any]:
    def copy() -> None:
        raise RuntimeError("in the copy")

    return _fork(copy)


def fork_and_report(context: JobContext, __: Any) -> dict[str, Any]:
    return _fork(lambda: context.progress(99, "from a copy"))


async def fork_and_exit_in_a_coroutine(_: JobContext, __: Any) -> dict[str, Any]:
    return _fork(lambda: sys.exit(3))


async def fork_and_await(_: JobContext, __: Any) -> dict[str, Any]:
    if (copy := os.fork()) == 0:
        await asyncio.sleep(0.01)
        os._exit(9)
    status = (await asyncio.to_thread(os.waitpid, copy, 0))[1]
    return {**RESULT, "saved": os.waitstatus_to_exitcode(status)}


def close_low_descriptors(_: JobContext, __: Any) -> dict[str, Any]:
    os.closerange(0, 90)
    return RESULT


def close_all_descriptors(_: JobContext, __: Any) -> dict[str, Any]:
    os.closerange(0, 1024)
    return RESULT


def close_output(_: JobContext, __: Any) -> dict[str, Any]:
    sys.stdin.close()
    sys.stdout.close()
    sys.stderr.close()
    return RESULT


def lower_the_limits(_: JobContext, __: Any) -> dict[str, Any]:
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    return RESULT


def leave_the_folder(_: JobContext, __: Any) -> dict[str, Any]:
    os.chdir("/")
    return RESULT


def exit_at_once(_: JobContext, __: Any) -> dict[str, Any]:
    os._exit(5)


def abort(_: JobContext, __: Any) -> dict[str, Any]:
    os.abort()


def exit_with_text(_: JobContext, __: Any) -> dict[str, Any]:
    sys.exit("bye")


def interrupt(_: JobContext, __: Any) -> dict[str, Any]:
    raise KeyboardInterrupt


def exit_generator(_: JobContext, __: Any) -> dict[str, Any]:
    raise GeneratorExit


def cancel(_: JobContext, __: Any) -> dict[str, Any]:
    raise asyncio.CancelledError


async def cancel_in_a_coroutine(_: JobContext, __: Any) -> dict[str, Any]:
    raise asyncio.CancelledError


async def exit_in_a_coroutine(_: JobContext, __: Any) -> dict[str, Any]:
    sys.exit(1)


async def exit_in_a_task(_: JobContext, __: Any) -> dict[str, Any]:
    async def step() -> None:
        sys.exit(1)

    await asyncio.create_task(step())
    return RESULT


async def interrupt_in_a_task_that_nobody_awaits(_: JobContext, __: Any) -> dict[str, Any]:
    async def step() -> None:
        raise KeyboardInterrupt

    task = asyncio.create_task(step())
    await asyncio.wait({task})
    task.exception()
    return RESULT


def log_by_other_means(_: JobContext, __: Any) -> dict[str, Any]:
    """Log by a library's logger, in a thread of its own, and by an exception that nobody handles."""

    def fail() -> None:
        logging.getLogger("a.library").warning("a line\n00:00:00.000 INFO forged")
        raise RuntimeError("in a thread\n00:00:00.000 INFO forged")

    logging.getLogger("a.library").warning("another line")
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    return RESULT


def take_memory(_: JobContext, __: Any) -> dict[str, Any]:
    taken = [bytearray(16 << 20)]
    while True:
        taken.append(bytearray(16 << 20))


def start_programs(_: JobContext, payload: Any) -> dict[str, Any]:
    """Start programs in groups and sessions of their own, one of them an orphan, then wait."""
    command = [sys.executable, "-c", "import time; time.sleep(120)", payload.trace]
    orphan = "import os, time\nif os.fork(): os._exit(0)\nos.setsid()\nif os.fork(): os._exit(0)\ntime.sleep(120)"
    subprocess.Popen(command)
    subprocess.Popen(command, start_new_session=True)
    subprocess.run([sys.executable, "-c", orphan, payload.trace], check=True)
    Path(payload.trace).write_text("started")
    while payload.gate is not None and not Path(payload.gate).exists():
        threading.Event().wait(0.02)
    return RESULT


def report_and_die(context: JobContext, _: Any) -> dict[str, Any]:
    for step in range(60):
        context.progress(step, f"step {step}")
    os._exit(1)


async def report_and_return(context: JobContext, _: Any) -> dict[str, Any]:
    for step in range(500):
        context.progress(step / 5, f"step {step}")
    return RESULT


def show_environment(_: JobContext, __: Any) -> dict[str, Any]:
    return {**RESULT, "saved": dict(os.environ)}


def wait_where_it_cannot(context: JobContext, _: Any) -> Coroutine[Any, Any, dict[str, Any]]:
    async def coroutine() -> dict[str, Any]:
        context.wait(context.checkpoint("x"))
        return RESULT

    return coroutine()


# Handlers whose call does not return a result, but something that comes to one.


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that does not look like a coroutine function."""

    def wrapper(*arguments: Any) -> Any:
        return function(*arguments)

    return wrapper


async def coroutine(_: JobContext, __: Any) -> dict[str, Any]:
    await asyncio.sleep(0)
    return RESULT


class Callee:
    """An object that is called as a coroutine function is."""

    async def __call__(self, _: JobContext, __: Any) -> dict[str, Any]:
        await asyncio.sleep(0)
        return RESULT


class Awaitable:
    """An object that can be awaited."""

    def __await__(self) -> Any:
        yield from asyncio.sleep(0).__await__()
        return RESULT


def future(_: JobContext, __: Any) -> Future[dict[str, Any]]:
    pool = ThreadPoolExecutor(1)
    submitted = pool.submit(lambda: RESULT)
    pool.shutdown(wait=False)
    return submitted


async def nested(context: JobContext, payload: Any) -> Any:
    return coroutine(context, payload)


def awaitable(_: JobContext, __: Any) -> Awaitable:
    return Awaitable()


wrapped = decorated(coroutine)
wrapped_twice = functools.wraps(coroutine)(decorated(wrapped))
curried = functools.partial(coroutine)
callee = Callee()
wrapped_callee = decorated(callee)


def generator(_: JobContext, __: Any) -> Iterator[Any]:
    yield RESULT


async def async_generator(_: JobContext, __: Any) -> Any:
    yield RESULT
