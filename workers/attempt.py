"""One attempt while it runs: what it is fenced by, and the ways in which it can be told to stop."""

import asyncio
from enum import StrEnum

from gql_jobs.jobs.messages import Submission
from gql_jobs.log.delivery import Delivery
from gql_jobs.log.job_log import Fence, job_events


class Stop(StrEnum):
    """Why a running handler is stopped from outside."""

    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"
    HANDED_BACK = "handed back"


class Attempt:
    """``started_seq`` is the sequence of its ``started`` event: every write of the attempt is fenced by it."""

    def __init__(self, delivery: Delivery, submission: Submission) -> None:
        self.delivery = delivery
        self.submission = submission
        self.spec = submission.spec
        self.job_id = delivery.job_id
        self.number = 0
        self.started_seq = 0
        self.started_at = 0.0
        self.stopped: asyncio.Future[Stop] = asyncio.get_running_loop().create_future()

    @property
    def fence(self) -> Fence:
        """Nothing has happened to the job since this attempt began."""
        return job_events(self.job_id, self.started_seq)

    def stop(self, why: Stop) -> None:
        """Have the handler stopped; the first reason counts."""
        if not self.stopped.done():
            self.stopped.set_result(why)
