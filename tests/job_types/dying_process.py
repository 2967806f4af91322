"""``python -m tests.job_types.dying_process gql_jobs api …``: a process that is killed before it pauses a consumer.

Or, if it deletes a job, once that has ended and before anything of it is removed."""

import os
import runpy
import signal
import sys
from typing import Any

from gql_jobs.log import deletion, paused_consumers


async def _die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    # Only setattr is allowed to change what mypy knows as constants of another module.
    setattr(paused_consumers, "pause_consumers", _die)  # noqa: B010
    setattr(deletion, "delete_remains", _die)  # noqa: B010
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
