"""Handlers that do what handlers should not, to the process they run in. Each runs for a probe type."""

import asyncio
import functools
import logging
import os
import resource
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
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


# What a CPU-bound handler changes of its process, and what the next one finds.


def show_the_process(_: JobContext, __: Any) -> dict[str, Any]:
    mask = os.umask(0o77)
    os.umask(mask)
    timers = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
    found = {
        "umask": mask,
        "folder": str(Path.cwd()),
        "environment": dict(os.environ),
        "handled": [str(signal.getsignal(number))[:20] for number in sorted(signal.valid_signals())],
        "blocked": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))),
        "timers": [signal.getitimer(timer) for timer in timers],
        "limits": [resource.getrlimit(limit) for limit in range(16)] if sys.platform == "linux" else [],
        "nice": os.nice(0),
        "path": list(sys.path),
        "depth": sys.getrecursionlimit(),
        "log": [logging.getLogger().level, len(logging.getLogger().handlers), logging.root.manager.disable],
        "open": len(os.listdir("/dev/fd")) < 100,  # noqa: PTH208
    }
    return {**RESULT, "saved": found}


def change_the_umask(_: JobContext, __: Any) -> dict[str, Any]:
    os.umask(0)
    return RESULT


def change_the_environment(_: JobContext, __: Any) -> dict[str, Any]:
    os.environ["TENANT"] = "a"
    del os.environ["PATH"]
    return RESULT


def leave_for_a_folder_that_goes(_: JobContext, __: Any) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
    return RESULT


def ignore_and_block_signals(_: JobContext, __: Any) -> dict[str, Any]:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD})
    return RESULT


def leave_timers_that_raise(_: JobContext, __: Any) -> dict[str, Any]:
    def rise(*_: object) -> None:
        raise TimeoutError

    for number, timer in ((signal.SIGALRM, signal.ITIMER_REAL), (signal.SIGPROF, signal.ITIMER_PROF)):
        signal.signal(number, rise)
        signal.setitimer(timer, 0.05, 0.001)
    return RESULT


def lower_other_limits(_: JobContext, __: Any) -> dict[str, Any]:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_STACK, (1 << 20, 1 << 20))
    return RESULT


def be_nicer(_: JobContext, __: Any) -> dict[str, Any]:
    os.nice(3)
    return RESULT


def change_the_interpreter(_: JobContext, __: Any) -> dict[str, Any]:
    sys.path.clear()
    sys.setrecursionlimit(80)
    logging.disable(logging.CRITICAL)
    logging.basicConfig(force=True, level=logging.CRITICAL)
    return RESULT


def open_all_descriptors(_: JobContext, __: Any) -> dict[str, Any]:
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    with suppress(OSError):
        while True:
            os.open(os.devnull, os.O_RDONLY)
    return RESULT


def leave_threads(_: JobContext, __: Any) -> dict[str, Any]:
    for _number in range(20):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    return RESULT


def write_to_all_sockets(_: JobContext, payload: Any) -> dict[str, Any]:
    """Write what is no message, or one that claims to be of four gigabytes, to the connection to the worker."""
    for fd in range(3, 200):
        with suppress(OSError):
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                os.write(fd, b"\xff\xff\xff\xff" if payload.steps else b"\0\0\0\7garbage")
    threading.Event().wait()
    return RESULT


def kill_the_guard(_: JobContext, payload: Any) -> dict[str, Any]:
    """Kill the guard, once a program in a session of its own runs."""
    command = [sys.executable, "-c", "import time; time.sleep(120)", payload.trace]
    subprocess.Popen(command, start_new_session=True)
    Path(payload.trace).write_text("started")
    while payload.gate is not None and not Path(payload.gate).exists():
        threading.Event().wait(0.02)
    os.kill(os.getppid(), signal.SIGKILL)
    threading.Event().wait()
    return RESULT
