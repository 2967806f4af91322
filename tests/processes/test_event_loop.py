"""The memory of a process that serves, and its open files."""

import asyncio
import resource
import subprocess
import sys

import pytest

from gql_jobs.processes.event_loop import in_background

PROGRAM = """
import gc
from gql_jobs.processes.event_loop import tune_memory
tune_memory()
print(gc.get_freeze_count() > 1000, gc.get_threshold()[0])
"""


def test_what_start_up_has_made_is_not_walked_again() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["True", "10000"]


BLOCKS = """
import sys
from pathlib import Path
from gql_jobs.processes.event_loop import tune_memory
if sys.argv[1:] == ["tuned"]:
    tune_memory()

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) >> 8

before = resident()
large = b"x" * (1 << 24)
del large
kept, blocks = [], []
for _ in range(200):
    blocks.append(b"x" * 300_000)
    kept.append(b"x" * 5000)
del blocks
print(resident() - before)
"""
"""How many MiB are left of large blocks that were freed between small ones that were not."""


def test_what_large_blocks_took_goes_back_to_the_system() -> None:
    def left(*arguments: str) -> int:
        command = [sys.executable, "-c", BLOCKS, *arguments]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert left("tuned") < 10 < left()


async def _fails_at(begun: asyncio.Event) -> None:
    await begun.wait()
    raise ValueError("in the background")


async def test_what_a_block_raises_beside_something_in_the_background_is_raised_as_it_is() -> None:
    cause, error = KeyError("before"), LookupError("of the block")

    async def block() -> None:
        async with in_background(_fails_at(asyncio.Event())):
            try:
                raise cause
            except KeyError:
                raise error  # noqa: B904 - how it came about has to stay as well

    with pytest.raises(LookupError) as raised:
        await block()
    assert raised.value is error
    assert error.__context__ is cause
    assert not error.__suppress_context__


@pytest.mark.parametrize("fails", [False, True])
async def test_a_failure_in_the_background_cancels_the_block_and_comes_in_a_group_with_the_block_s(fails: bool) -> None:
    async def block() -> None:
        begun = asyncio.Event()
        async with in_background(_fails_at(begun)):
            begun.set()
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                if fails:
                    raise LookupError("of the block")

    with pytest.raises(ExceptionGroup) as raised:
        await block()
    assert raised.group_contains(ValueError, match="in the background")
    assert raised.group_contains(LookupError) is fails


LIMITED = """
import resource, sys
from gql_jobs.logs import configure_logging
from gql_jobs.processes.event_loop import raise_file_limit
configure_logging("WARNING", "text")
resource.setrlimit(resource.RLIMIT_NOFILE, (64, int(sys.argv[1])))
raise_file_limit()
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(("hard", "warned"), [(64, True), (1024, False)])
def test_as_many_files_may_be_open_as_the_machine_allows_and_few_are_named(hard: int, *, warned: bool) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < hard:
        pytest.skip("this machine allows fewer")
    ran = subprocess.run([sys.executable, "-c", LIMITED, str(hard)], capture_output=True, text=True, check=True)
    assert int(ran.stdout) == hard
    assert ("only 64 files and connections may be open" in ran.stderr) is warned
