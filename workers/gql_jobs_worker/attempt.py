"""One attempt while it runs: what it is fenced by, and the ways in which it can be told to stop."""

import asyncio
from enum import StrEnum

from gql_jobs.jobs.messages import Kind, Receipt, Submission
from gql_jobs.log import codec
from gql_jobs.log.deliveries import Delivery
from gql_jobs.log.job_log import Fence, JobLog, job_events

InHand = tuple[str, int]
"""A job and the sequence of its submission: at most one attempt of it is in hand in a process."""


class Stop(StrEnum):
    """Why a running handler is stopped from outside."""

    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"
    HANDED_BACK = "handed back"


class Attempt:
    """``started_seq`` is the sequence of its ``started`` event: every write of the attempt is fenced by it.

    ``cancelled_seq``: of the event that cancelled it; ``ending``: how its handler
    ended; ``told``: writes the receipt that it was told.
    ``delivery`` is the newest of its submission: the lease of an earlier one ran out while NATS was away.
    """

    def __init__(self, delivery: Delivery, submission: Submission) -> None:
        self.delivery = delivery
        self.submission = submission
        self.spec = submission.spec
        self.job_id = delivery.job_id
        self.number = 0
        self.started_seq = 0
        self.started_at = 0.0
        self.adopted = False
        self.cancelled_seq = 0
        self.ending = Receipt.FINISHED
        self.told: asyncio.Task[None] | None = None
        self.stopped: asyncio.Future[Stop] = asyncio.get_running_loop().create_future()

    @property
    def fence(self) -> Fence:
        """Nothing has happened to the job since this attempt began."""
        return job_events(self.job_id, self.started_seq)

    def adopt(self, delivery: Delivery) -> None:
        """Go on under the lease of a redelivery: that this attempt runs is no secret to this process.

        Whether the job is still ours has to be asked from now on: another worker may have had it in between.
        """
        self.delivery = delivery
        self.adopted = True

    async def confirm(self, log: JobLog) -> bool:
        """Whether nothing has happened to the job since the attempt began, as the leader has it; else it is stopped.

        :raises QueueUnavailable: if the leader does not answer.
        """
        last = await log.last(codec.event_subjects(self.job_id))
        if (last.seq if last is not None else 0) == self.started_seq:
            return True
        if last is not None and last.kind is Kind.CANCELLED:
            self.cancel(last.seq)
        else:
            self.stop(Stop.SUPERSEDED)
        return False

    def cancel(self, seq: int) -> None:
        """Have the handler stopped by the cancellation of that sequence."""
        self.cancelled_seq = seq
        self.stop(Stop.CANCELLED)

    def stop(self, why: Stop) -> None:
        """Have the handler stopped; the first reason counts."""
        if not self.stopped.done():
            self.stopped.set_result(why)
