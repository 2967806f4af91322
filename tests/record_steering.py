"""The part of a recorded stream in which jobs are steered: held back, changed, with keys, of schedules, deleted."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec.structs import replace

from gql_jobs import clock
from gql_jobs.jobs.changes import JobChanges
from gql_jobs.jobs.limits import Limits
from gql_jobs.jobs.messages import Completed, Failed, Started
from gql_jobs.jobs.model import Gate, Job, JobPriority, JobStatus, OverlapPolicy
from gql_jobs.jobs.payload_codec import StoredPayloads
from gql_jobs.jobs.recurrence import Recurrence
from gql_jobs.jobs.registry import registry
from gql_jobs.jobs.requests import JobFilter, JobOrder, JobRequest
from gql_jobs.jobs.schedules import SCHEDULE_STATE
from gql_jobs.jobs.unique_keys import KeyPolicy, UniqueKey
from gql_jobs.log.commands import creation
from gql_jobs.log.edits import edited_event
from gql_jobs.log.job_log import Superseded
from gql_jobs.log.schedules import ScheduleDefinition
from tests.by_hand import say
from tests.deadline import until
from tests.job_types.probe_jobs import ProbePayload
from tests.recorder import Recorder
from tests.running import running_worker
from tests.stories import accepted, error, request, spec

FAR = datetime(2200, 1, 1, tzinfo=UTC)
"""Later than a client may ask for, so that the recording can be used for as long; a tick of the schedule ``yearly``."""
STEERED_QUEUE = "threads"
"""The queue that is limited, and in the end paused."""
KEY = UniqueKey("the index of shop 7", KeyPolicy.REPLACE)
KEY_OF_RUNNING = UniqueKey("the index of shop 8", KeyPolicy.REPLACE)

_S = JobStatus


def limited_request(payload: ProbePayload | None = None, **options: Any) -> JobRequest:
    """A creation in the queue that is limited."""
    job_type = registry.get("probe_thread")
    assert job_type is not None
    return JobRequest.of(job_type, accepted(payload or ProbePayload()), **options)


def _changes(payload: ProbePayload | None = None, **changes: Any) -> JobChanges:
    """Those of an edit of a job of type ``probe``."""
    return JobChanges.of(payload=accepted(payload) if payload is not None else None, **changes)


class RecordedSteering(Recorder):
    """Jobs of all that steers them, by name, and the values that steer them."""

    async def by_workers(self) -> None:
        """What has come of jobs that were steered."""
        limits = Limits.of(concurrency=2, concurrency_per_key=1, per_second=1000)
        seq = await self._runtime.commands.set_queue_limits(STEERED_QUEUE, limits)
        await self._runtime.feed.wait_for(seq, 5)
        async with running_worker(self._settings):
            await self._ended("released and run", limited_request(concurrency_key="a"))
            await self._ended("released twice", limited_request(ProbePayload(fail_attempts=1), concurrency_key="a"))
            failed = await self._ended("failed before others", ProbePayload(permanent=True))
            await self._ended("cancelled with what it needs", ProbePayload(), after=(failed.id,))
            edited = await self._created("edited and run", ProbePayload(), run_at=clock.now() + timedelta(hours=1))
            await self._edit(edited, ProbePayload(steps=1), run_at=None, tags=("edited",), priority=JobPriority.HIGH)
            await self._until(edited.id, lambda job: job.status.is_terminal)
            again = await self._ended("retried with another payload", ProbePayload(permanent=True, saves={"page": 1}))
            await self._runtime.commands.retry(again.id, payload=_changes(ProbePayload(steps=1)))
            await self._until(again.id, lambda job: job.status is _S.COMPLETED)
            await self._of_a_schedule()
            await self._deleted()

    async def by_hand(self) -> None:
        """What is not done yet, or never will be: nobody runs the jobs, and the queue that is limited is paused."""
        await self._with_keys()
        await self._edited()
        await self._ahead_of_a_schedule()
        late = spec(created_at=clock.now(), start_before=clock.now() - timedelta(seconds=1))
        await self._stored("too late", late)
        await self._until(self.ids["too late"], lambda job: job.status is _S.CANCELLED)
        await self._stored("to start before", spec(created_at=clock.now(), start_before=FAR))
        needed = await self._created("needed", ProbePayload())
        await self._created("after another", ProbePayload(), after=(needed.id,))
        freed = await self._created("cancelled while it waited", ProbePayload(), after=(needed.id,))
        await self._runtime.commands.cancel(freed.id)
        await self._held_back()

    async def _held_back(self) -> None:
        """Of four jobs with two keys two are released; one has failed, and one is cancelled and retried."""
        names = ("failed and held back", "released", "held back", "held back by its key")
        for name, key in zip(names, ("a", "b", "c", "b"), strict=True):
            await self._created(name, limited_request(concurrency_key=key))
        for name in names[:2]:
            await self._until(self.ids[name], lambda job: job.status is _S.QUEUED)
        await self._runtime.pauses.pause(STEERED_QUEUE, "the store is being moved", None, "ada")
        failing = await self._until(self.ids[names[0]], lambda job: job.status is _S.QUEUED)
        await say(self._log, failing, Started)
        await say(self._log, failing, Failed, errors=(error(1),), next_attempt_at=clock.now(), progress=40)
        retried = await self._created("retried and held back", limited_request(concurrency_key="d"))
        await self._runtime.commands.cancel(retried.id)
        await self._runtime.commands.retry(retried.id)

    async def _with_keys(self) -> None:
        held = await self._created("with a key", ProbePayload(), key=KEY)
        for steps in (1, 2):
            replaced = await self._runtime.commands.create(request(ProbePayload(steps=steps), key=KEY))
            assert replaced.id == held.id
        running = await self._created("with a key, running", ProbePayload(), key=KEY_OF_RUNNING)
        await say(self._log, running, Started)
        successor = await self._created("its successor", ProbePayload(steps=1), key=KEY_OF_RUNNING)
        assert successor.id != running.id
        ended = await self._created("with a key that is free", ProbePayload(), key=UniqueKey("a free one"))
        await say(self._log, ended, Started)
        await say(self._log, ended, Completed)

    async def _edited(self) -> None:
        edited = await self._created("edited", ProbePayload(), tags=("a",))
        await self._edit(edited, ProbePayload(steps=3), tags=("b",))
        ahead = await self._stored("edited before its time", spec(created_at=clock.now(), run_at=FAR))
        await self._edit(ahead, tags=("b",))
        again = await self._stored("cancelled and scheduled again", spec(created_at=clock.now(), run_at=FAR))
        await self._runtime.commands.cancel(again.id)
        await self._runtime.commands.retry(again.id)
        cut_short = await self._created("edited and not submitted", ProbePayload())
        new, changed = _changes(tags=("b",)).applied(cut_short, StoredPayloads(), clock.now())
        history = await self._log.history(cut_short.id)
        await self._log.append(edited_event(cut_short, new, changed, "ada", history))

    async def _edit(self, job: Job, payload: ProbePayload | None = None, **changes: Any) -> None:
        edited = await self._runtime.commands.update(job.id, _changes(payload, **changes))
        await self._until(job.id, lambda job: job.last_seq >= edited.last_seq)

    async def _deleted(self) -> None:
        whole = ProbePayload(saves={"page": 1}, artifact="b.txt", artifact_bytes=5)
        await self._delete(await self._ended("deleted", whole))
        await self._delete(await self._ended("deleted and made again", whole, idempotency_key="made again"))
        await self._ended("deleted and made again", ProbePayload(steps=1), idempotency_key="made again")

    async def _delete(self, job: Job) -> None:
        await self._runtime.deletions.delete(job.id)
        await until(lambda: self._runtime.index.job(job.id) is None, "it is gone")

    async def _of_a_schedule(self) -> None:
        """One tick has run, and those that were ahead when its schedule was paused are cancelled."""
        await self._runtime.schedules.upsert(_schedule("often", Recurrence(every_seconds=1)))
        self.ids["tick"] = (await until(lambda: self._tick(lambda job: job.status is _S.COMPLETED), "it has run")).id
        await until(lambda: self._tick(lambda job: job.status is _S.WAITING), "the next one is ahead")
        await self._runtime.schedules.pause("often", paused=True)
        ended = await until(lambda: self._tick(lambda job: job.cancel_reason is not None), "it is cancelled")
        self.ids["tick of a paused schedule"] = ended.id
        await until(self._none_is_held, "none of it is ahead")

    async def _ticks(self) -> list[Job]:
        page = await self._runtime.reader.page(JobFilter(), JobOrder(), first=100, after=None, offset=0)
        jobs = [self._runtime.index.job(one.id) for one in page.jobs]
        return [job for job in jobs if job is not None and job.spec.schedule == "often"]

    async def _tick(self, condition: Callable[[Job], bool]) -> Job | None:
        return next((job for job in await self._ticks() if condition(job)), None)

    async def _none_is_held(self) -> bool:
        return all(job.status.is_terminal for job in await self._ticks())

    async def _ahead_of_a_schedule(self) -> None:
        """A tick that is due so late that it can be made only as its message says that it was."""
        await self._runtime.schedules.upsert(_schedule("yearly", Recurrence(cron="0 0 1 1 *")))
        await until(lambda: self._runtime.steering.all(SCHEDULE_STATE).get("yearly"), "the holder knows of it")
        await _repeated(self._write_that_a_tick_is_made)

    async def _write_that_a_tick_is_made(self) -> None:
        known = await self._runtime.schedules.state("yearly")
        assert known.state is not None
        made = replace(known.state, until=FAR, ahead=(FAR,))
        await self._runtime.schedules.write_state("yearly", made, known.seq)
        gate = Gate(FAR, OverlapPolicy.SKIP, FAR + timedelta(minutes=1))
        tick = spec(created_at=clock.now(), schedule="yearly", gate=gate)
        await self._stored("tick ahead", tick, known.state.job_id(FAR))

    async def _stored(self, name: str, asked: Any, job_id: str | None = None) -> Job:
        """A job that no client can ask for."""
        self.ids[name] = job_id = job_id or request().job_id()
        seq = await self._log.append(creation(job_id, asked))
        return await self._until(job_id, lambda job: job.last_seq >= seq)


def _schedule(name: str, recurrence: Recurrence) -> ScheduleDefinition:
    probe = registry.get("probe")
    assert probe is not None
    return ScheduleDefinition(
        name=name, job_type=probe, payload=accepted(ProbePayload(steps=1)), recurrence=recurrence, tags=("ticks",)
    )


async def _repeated(write: Callable[[], Awaitable[None]]) -> None:
    """Do it, again if the holder of the gate has written in between."""
    for _ in range(10):
        try:
            return await write()
        except Superseded:
            await asyncio.sleep(0)
    raise AssertionError("others keep writing")
