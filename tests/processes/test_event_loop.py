"""The garbage collector of a process that serves."""

import subprocess
import sys

PROGRAM = """
import gc
from gql_jobs.processes.event_loop import tune_garbage_collector
tune_garbage_collector()
print(gc.get_freeze_count() > 1000, gc.get_threshold()[0])
"""


def test_what_start_up_has_made_is_not_walked_again() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["True", "10000"]
