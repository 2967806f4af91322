"""The creation of a job whose key no other one may have: it is stored, or the job that has the key is what comes of it.

Everything is decided on the leader: whether there is the job already, who has the key, and what its policy makes of
that. Where others come in between, it is decided again.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from gql_jobs.jobs.changes import is_changeable
from gql_jobs.jobs.errors import Forbidden, InvalidState, KeyTaken, NotFound, QueueUnavailable
from gql_jobs.jobs.model import Job
from gql_jobs.jobs.requests import JobRequest
from gql_jobs.jobs.unique_keys import KeyPolicy
from gql_jobs.jobs.viewer import Scope, Viewer
from gql_jobs.log.job_log import Contended, JobLog, Superseded, Write
from gql_jobs.log.keys import CLAIM_TIMEOUT, JobKeys, KeptKey

_PAUSE = 0.1
"""Seconds after which a change that others have crossed is made again, at most."""
_BUSY = "Others create jobs with the key all the time; nothing was stored. Try again."


class KeyedCommands(Protocol):
    """What a creation with a key does by other commands."""

    async def repeated(self, request: JobRequest, write: Write, viewer: Viewer) -> Job | Write:
        """Return the job whose creation a request repeats; if there is none, the write that creates it.

        :raises IdempotencyConflict: if its id belongs to another creation.
        :raises QueueUnavailable: if the server does not answer.
        """

    async def replaced(self, request: JobRequest, holder: Job, viewer: Viewer) -> Job:
        """Give a job that has not started the payload and the time of a request, and return it.

        :raises InvalidState: | NotFound: if it has started or ended, or is gone.
        :raises GqlJobsError: as other changes of jobs do.
        """

    def succeeding(self, write: Write, holder: Job) -> Write:
        """Return the same creation of a job that runs after another one, whatever becomes of that."""


async def create_keyed(
    job_log: JobLog, keys: JobKeys, commands: KeyedCommands, *, request: JobRequest, write: Write, viewer: Viewer
) -> tuple[Write, int] | Job:
    """Store a job, or return the one that there is in its place.

    :returns: what was stored and its sequence; or the job that has one of the keys of the request.
    :raises KeyTaken: if the job that has the key is not given back or replaced.
    :raises Forbidden: if it would be replaced, and the viewer may not change it.
    :raises GqlJobsError: as creations and changes of jobs do.
    """
    assert request.key is not None
    key = KeptKey(request.key.value, request.tenant(viewer))
    clock = asyncio.get_running_loop().time
    beside: tuple[str, ...] = ()
    made = write
    async with in_turn(keys, key):
        deadline = clock() + CLAIM_TIMEOUT
        while clock() < deadline:
            found = await commands.repeated(request, made, viewer)
            if isinstance(found, Job):
                return found
            claimed = await keys.claim(key, write.job_id, beside)
            if isinstance(claimed, Job):
                outcome = await _with_holder(commands, request, claimed, viewer)
                if outcome is not None:
                    return outcome
                is_started = not is_changeable(claimed)
                beside = (claimed.id,) if is_started else ()
                made = commands.succeeding(write, claimed) if is_started else write
                continue
            # Another creation of the very same job may have come before the claim, and none can come behind it.
            found = await commands.repeated(request, made, viewer)
            if isinstance(found, Job):
                return found
            try:
                stored = found._replace(fence=claimed)
                return stored, await job_log.append(stored)
            except Superseded:
                beside, made = (), write
    raise QueueUnavailable(_BUSY)


@asynccontextmanager
async def in_turn(keys: JobKeys, key: KeptKey) -> AsyncIterator[None]:
    """Be the only one of this process who claims a key within the block.

    :raises QueueUnavailable: if that takes too long.
    """
    turn = keys.turn(key)
    try:
        async with asyncio.timeout(CLAIM_TIMEOUT):
            await turn.acquire()
    except TimeoutError:
        raise QueueUnavailable(_BUSY) from None
    try:
        yield
    finally:
        turn.release()


def taken(key: str, holder: Job, viewer: Viewer, why: str = "which has not ended") -> KeyTaken:
    """Return the refusal of a key that a job has; of one that is not there for the viewer nothing is told."""
    return KeyTaken(key, holder.id if viewer.visibility.shows(holder) else None, why)


async def _with_holder(commands: KeyedCommands, request: JobRequest, holder: Job, viewer: Viewer) -> Job | None:
    """Return what becomes of a creation whose key another job has; None if that has to be decided again.

    :raises KeyTaken: | Forbidden: as ``create_keyed`` does.
    """
    key = request.key
    assert key is not None
    if not viewer.visibility.shows(holder) or key.policy is KeyPolicy.REJECT:
        raise taken(key.value, holder, viewer)
    if holder.spec.type != request.job_type.name:
        raise taken(key.value, holder, viewer, f"which is of the type {holder.spec.type} and has not ended")
    if key.policy is KeyPolicy.RETURN:
        return holder
    if holder.spec.created_by != viewer.actor and not viewer.may(Scope.CONTROL):
        raise Forbidden(f"The job {holder.id} has the key and is somebody else's: to replace it takes CONTROL.")
    if not is_changeable(holder):
        return None
    try:
        return await commands.replaced(request, holder, viewer)
    except (InvalidState, NotFound):
        # It has started, ended or expired meanwhile.
        return None
    except Contended:
        # Others replace it, too.
        await asyncio.sleep(random.uniform(0, _PAUSE))  # noqa: S311 - no secret
        return None
