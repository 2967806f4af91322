"""Which job has a key: a pointer in the stream that is claimed under a fence before the job is created or retried.

A claim names the job that is to have the key, and keeps the names of those that may have it until that is there. The
write that makes the job is fenced on the pointer, by the same string as claims are: once another claim is stored, no
write of an earlier one is. So a claimant that was killed in between is replaced, and one that is slow makes no second
job. What a claimant has found of the job named before, it looks at once more behind its own claim: a write of that
one's may have come just before.
"""

import asyncio
import random
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from typing import NamedTuple
from weakref import WeakValueDictionary

import msgspec

from gql_jobs import clock
from gql_jobs.jobs.errors import QueueFull, QueueUnavailable
from gql_jobs.jobs.messages import SteeringMessage
from gql_jobs.jobs.model import Job
from gql_jobs.jobs.unique_keys import KeyHolder, key_name
from gql_jobs.log.codec import KEYS
from gql_jobs.log.job_log import Fence, JobLog, Superseded, decidable
from gql_jobs.log.steering import SteeringLog, as_value, steering_fence

CLAIM_TIMEOUT = 4.5
"""Seconds for which a claim is made again because others have claimed the key."""
_PAUSE = 0.02
"""Seconds between two looks at a claim whose job is not there yet, and at most between two claims."""
_CLAIM_PATIENCE = 0.5
"""Seconds that a claimant has for creating its job before it is taken for one that was killed."""
_CLAIMED_LATELY = timedelta(minutes=1)
"""How old a claim for a job that has ended is at least, when that expires: a younger one is of a retry."""
KEY_REMOVAL_TTL = 600
"""Seconds for which the server keeps the message that nobody has a key; no index has to hear of it."""


class KeptKey(NamedTuple):
    """The key of a job, whose tenant is None for jobs without one."""

    value: str
    tenant: str | None

    @classmethod
    def of(cls, job: Job) -> "KeptKey | None":
        """Return the key that a job has while it has not ended; None if it never has one."""
        return cls(job.spec.key, job.spec.tenant) if job.spec.key is not None else None

    @property
    def name(self) -> str:
        """What the key is called in the stream."""
        return key_name(self.value, self.tenant)


class _Known(NamedTuple):
    """What the leader has of a job: whether any message, and the job if it has not ended and has the key."""

    is_there: bool
    unended: Job | None


class JobKeys:
    """Claims keys for jobs. One instance per process."""

    def __init__(self, job_log: JobLog, first_seq: Callable[[str], int] = lambda _: 1) -> None:
        """Read from and write to ``job_log``.

        :param first_seq: returns where a job's history begins, 1 if unknown; spares the server a search.
        """
        self._log = job_log
        self._steering = SteeringLog(job_log)
        self._first_seq = first_seq
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def turn(self, key: KeptKey) -> asyncio.Lock:
        """Return the lock that those of this process take who want the key, so that they do not refuse each other."""
        return self._turns.setdefault(key.name, asyncio.Lock())

    async def claim(self, key: KeptKey, job_id: str, beside: Collection[str] = ()) -> Fence | Job:
        """Have the key be for a job, unless another one has it.

        Whoever gets a fence has to look whether the job is there already: a claim of others may have been for it.

        :param beside: the ids of jobs that may have it as well, because this one waits for their end.
        :returns: the fence for the write that creates or retries the job; or the job that has the key.
        :raises QueueUnavailable: if the leader does not answer, or others keep claiming it.
        :raises QueueFull: if the server has no room.
        """
        clock_of_loop = asyncio.get_running_loop().time
        deadline = clock_of_loop() + CLAIM_TIMEOUT
        seen = 0, 0.0
        while (now := clock_of_loop()) < deadline:
            pointer = await self._steering.read(KEYS, key.name)
            held = _holder(pointer)
            others = [named for named in held.named if named != job_id] if held is not None else []
            known = dict(zip(others, await asyncio.gather(*(self._known(one, key) for one in others)), strict=True))
            unended = [one.unended for one in known.values() if one.unended is not None]
            if (other := next((one for one in unended if one.id not in beside), None)) is not None:
                return other
            if held is not None and pointer is not None and held.id in known and not known[held.id].is_there:
                seen = seen if seen[0] == pointer.seq else (pointer.seq, now)
                if now < seen[1] + _CLAIM_PATIENCE:
                    await asyncio.sleep(_PAUSE)
                    continue
            # Of the others nothing can come any more that is not known: their claims are older than this pointer.
            doubtful = [held.id] if held is not None and held.id != job_id else []
            before = tuple(dict.fromkeys([*doubtful, *(one.id for one in unended)]))
            try:
                value = as_value(KeyHolder(job_id, before))
                seq = await self._steering.write(KEYS, key.name, value, pointer.seq if pointer is not None else 0)
            except Superseded:
                await asyncio.sleep(random.uniform(0, _PAUSE))  # noqa: S311 - no secret
                continue
            for named in doubtful:
                other = (await self._known(named, key)).unended
                if other is not None and other.id not in beside:
                    return other
            return steering_fence(KEYS, key.name, seq)
        raise QueueUnavailable("Others keep claiming the key; nothing was stored. Try again.")

    async def _known(self, job_id: str, key: KeptKey) -> _Known:
        history = await self._log.history(job_id, self._first_seq(job_id), since_edit=True)
        job = decidable(job_id, history)
        has_it = job is not None and not job.status.is_terminal and KeptKey.of(job) == key
        return _Known(bool(history), job if has_it else None)

    async def release(self, key: KeptKey, job_id: str, ended_seq: int) -> bool:
        """Free the key of a job that has ended and is going to expire, if it still names that.

        A retry that has claimed the key, and whose write is still on its way, does not cross the expiry then.

        :param ended_seq: the last event of the job.
        :returns: whether the job may expire: False if somebody has claimed the key for it since it has ended.
        :raises QueueUnavailable: if the leader does not answer.
        """
        pointer = await self._steering.read(KEYS, key.name)
        held = _holder(pointer)
        if pointer is None or held is None or job_id not in held.named:
            return True
        if clock.now() - pointer.at < _CLAIMED_LATELY and (held.id != job_id or pointer.seq > ended_seq):
            # Whoever has claimed it is at it.
            return held.id != job_id
        others = [named for named in held.named if named != job_id]
        left = [one for one in others if (await self._known(one, key)).unended is not None]
        value = as_value(KeyHolder(left[0], tuple(left[1:]))) if left else None
        try:
            await self._steering.write(KEYS, key.name, value, pointer.seq, removal_ttl=KEY_REMOVAL_TTL)
        except Superseded:
            return held.id != job_id
        except QueueFull:
            # Where there is no room for a message that nobody has it, it can still be taken away.
            await self._log.delete([pointer.seq])
        return True


async def release_keys(job_log: JobLog, ended: Sequence[tuple[KeptKey, str, int]]) -> set[str]:
    """Free the keys of jobs that are going to expire; return the ids of those that may not, because they are retried.

    :param ended: the key of each job, its id, and the sequence of its last event.
    :raises QueueUnavailable: if the leader does not answer.
    """
    keys = JobKeys(job_log)
    freed = await asyncio.gather(*(keys.release(*one) for one in ended))
    return {job_id for (_, job_id, _), may_expire in zip(ended, freed, strict=True) if not may_expire}


def _holder(pointer: SteeringMessage | None) -> KeyHolder | None:
    if pointer is None or pointer.value is None:
        return None
    try:
        return msgspec.json.decode(pointer.value, type=KeyHolder)
    except msgspec.MsgspecError:
        return None
