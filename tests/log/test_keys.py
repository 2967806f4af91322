"""No two jobs of a tenant have one key at a time, whoever creates, retries or expires them, and whenever that dies."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from gql_jobs.jetstream.connection import Connection
from gql_jobs.jetstream.errors import Unacknowledged
from gql_jobs.jobs.errors import Forbidden, IdempotencyConflict, InvalidState, KeyTaken
from gql_jobs.jobs.messages import Started
from gql_jobs.jobs.model import DependencyPolicy, Job, JobStatus, job_id_for_key, new_job_id
from gql_jobs.jobs.requests import JobRequest
from gql_jobs.jobs.unique_keys import KeyHolder, KeyPolicy, UniqueKey
from gql_jobs.jobs.viewer import Scope, Viewer, ViewLimits
from gql_jobs.log import codec, keys
from gql_jobs.log.artifacts import ArtifactStore
from gql_jobs.log.commands import Created, JobCommands, creation
from gql_jobs.log.deletion import JobDeletions
from gql_jobs.log.job_log import Fence, JobLog, Superseded
from gql_jobs.log.keys import JobKeys, KeptKey, release_keys
from gql_jobs.log.retention import Ended, expire, expire_ended
from gql_jobs.log.steering import SteeringLog, steering_fence
from gql_jobs.settings import Settings
from tests.by_hand import bring_to, say, stored
from tests.job_types.probe_jobs import ProbePayload
from tests.stories import _TYPES, accepted, request

VALUE = "report 7"
KEY = KeptKey(VALUE, None)
SUBJECT = codec.steering_subject(codec.KEYS, KEY.name)
LATER = datetime.now(UTC) + timedelta(hours=1)
FAR_AHEAD = datetime.now(UTC) + timedelta(days=1)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Claimants that are given little time, as for tests of those that have died."""
    monkeypatch.setattr(keys, "_CLAIM_PATIENCE", 0.05)


def keyed(
    steps: int = 0, policy: KeyPolicy = KeyPolicy.RETURN, max_delay: int | None = None, **more: Any
) -> JobRequest:
    """A creation under the key."""
    return request(ProbePayload(steps=steps), key=UniqueKey(VALUE, policy, max_delay), **more)


def replacing(steps: int, max_delay: int | None = None, **more: Any) -> JobRequest:
    """A creation that takes the place of what waits under the key."""
    return keyed(steps, KeyPolicy.REPLACE, max_delay, **more)


def steps_of(job: Job | None) -> int:
    """The payload of a job that there is."""
    assert job is not None
    return int(msgspec.json.decode(job.spec.payload).get("steps", 0))


async def all_jobs(connection: Connection, commands: JobCommands) -> list[Job]:
    """Every job of the stream."""
    ids = {m.subject.split(".")[1] for m in await stored(connection) if not m.subject.startswith("jobs.gate.")}
    return [job for job_id in ids if (job := await commands.find(job_id)) is not None]


async def unended(connection: Connection, commands: JobCommands) -> list[Job]:
    """Every job that has not ended."""
    return [job for job in await all_jobs(connection, commands) if not job.status.is_terminal]


async def pointer(job_log: JobLog) -> KeyHolder | None:
    """What is stored of the key."""
    found = await SteeringLog(job_log).read(codec.KEYS, KEY.name)
    return msgspec.json.decode(found.value, type=KeyHolder) if found is not None and found.value is not None else None


# One creation after another.


async def test_a_key_gives_back_the_job_that_has_not_ended_and_is_free_again_after_it(
    commands: JobCommands, job_log: JobLog
) -> None:
    first = await commands.create(keyed(1))
    assert not first.deduplicated
    for _ in range(2):
        again = await commands.create(keyed(2))
        assert (again.id, again.deduplicated, steps_of(again.job)) == (first.id, True, 1)
    await bring_to(job_log, commands, first.job, JobStatus.COMPLETED)
    second = await commands.create(keyed(3))
    assert (second.id != first.id, second.deduplicated, steps_of(await commands.find(second.id))) == (True, False, 3)


@pytest.mark.parametrize("status", [JobStatus.QUEUED, JobStatus.PROCESSING, JobStatus.RETRYING])
async def test_a_key_that_rejects_names_the_job_that_has_it(
    commands: JobCommands, job_log: JobLog, status: JobStatus
) -> None:
    first = await commands.create(keyed(1))
    await bring_to(job_log, commands, first.job, status)
    with pytest.raises(KeyTaken) as refused:
        await commands.create(keyed(2, KeyPolicy.REJECT))
    assert refused.value.extensions == {"code": "KEY_TAKEN", "jobId": first.id}
    await commands.cancel(first.id)
    assert not (await commands.create(keyed(2, KeyPolicy.REJECT))).deduplicated


async def test_what_waits_takes_over_payload_and_time_of_what_replaces_it(commands: JobCommands) -> None:
    first = await commands.create(replacing(1, run_at=LATER, tags=("a",)))
    again = await commands.create(replacing(2, run_at=LATER + timedelta(minutes=5), tags=("b",)))
    assert (again.id, again.deduplicated) == (first.id, True)
    job = await commands.find(first.id)
    assert job is not None
    assert (steps_of(job), job.run_at, job.spec.tags, job.status) == (
        2, LATER + timedelta(minutes=5), ("a",), JobStatus.SCHEDULED
    )  # fmt: skip
    await commands.create(replacing(3))
    job = await commands.find(first.id)
    assert job is not None
    assert (steps_of(job), job.run_at, job.status) == (3, None, JobStatus.QUEUED)


async def test_a_waiting_job_is_pushed_back_no_further_than_its_delay_allows(commands: JobCommands) -> None:
    first = await commands.create(replacing(1, 60, run_at=datetime.now(UTC) + timedelta(seconds=30)))
    await commands.create(replacing(2, 60, run_at=LATER))
    job = await commands.find(first.id)
    assert job is not None
    assert job.run_at == job.spec.created_at + timedelta(seconds=60)
    assert steps_of(job) == 2


async def test_what_replaces_a_job_that_has_started_runs_after_it_and_is_replaced_itself(
    commands: JobCommands, job_log: JobLog
) -> None:
    first = await commands.create(replacing(1))
    await bring_to(job_log, commands, first.job, JobStatus.PROCESSING)
    second = await commands.create(replacing(2, run_at=LATER))
    assert (second.id != first.id, second.deduplicated) == (True, False)
    job = await commands.find(second.id)
    assert job is not None
    assert (job.status, job.spec.after, job.spec.after_policy) == (JobStatus.WAITING, (first.id,), DependencyPolicy.RUN)
    assert job.run_at == LATER
    third = await commands.create(replacing(3))
    assert (third.id, third.deduplicated, steps_of(await commands.find(second.id))) == (second.id, True, 3)
    with pytest.raises(KeyTaken) as refused:
        await commands.create(keyed(4, KeyPolicy.REJECT))
    assert refused.value.extensions["jobId"] == second.id
    # The one that runs has the key as long as it runs, whatever becomes of the one behind it.
    await commands.cancel(second.id)
    assert (await commands.create(keyed(5))).id == first.id
    with pytest.raises(KeyTaken):
        await commands.create(keyed(5, KeyPolicy.REJECT))
    fourth = await commands.create(replacing(6))
    job = await commands.find(fourth.id)
    assert job is not None
    assert job.spec.after == (first.id,)
    # A job that waits for another one beside it may be retried while that runs.
    await commands.cancel(fourth.id)
    assert (await commands.retry(second.id)).status is JobStatus.WAITING
    assert await pointer(job_log) == KeyHolder(second.id, (fourth.id, first.id))


async def test_a_key_is_of_one_type_and_of_one_tenant_at_a_time(commands: JobCommands) -> None:
    first = await commands.create(keyed(1))
    other = JobRequest.of(_TYPES["probe_thread"], accepted(ProbePayload()), key=UniqueKey(VALUE, KeyPolicy.REPLACE))
    with pytest.raises(KeyTaken, match="of the type probe and") as refused:
        await commands.create(other)
    assert refused.value.extensions["jobId"] == first.id
    of_acme = Viewer("ada", frozenset(Scope), tenant="acme")
    second = await commands.create(keyed(2), of_acme)
    assert (second.deduplicated, (await commands.create(keyed(2), of_acme)).id) == (False, second.id)


@pytest.mark.parametrize("policy", list(KeyPolicy))
async def test_nothing_is_told_of_a_job_that_the_viewer_may_not_see(commands: JobCommands, policy: KeyPolicy) -> None:
    await commands.create(keyed(1))
    limited = Viewer("ada", frozenset(Scope), limits=ViewLimits(tags=frozenset({"mine"})))
    with pytest.raises(KeyTaken) as refused:
        await commands.create(keyed(2, policy, tags=("mine",)), limited)
    assert refused.value.extensions == {"code": "KEY_TAKEN"}


async def test_the_job_of_somebody_else_is_replaced_by_those_who_may_change_it(commands: JobCommands) -> None:
    ada, bob = (Viewer(name, frozenset({Scope.READ, Scope.CREATE})) for name in ("ada", "bob"))
    first = await commands.create(replacing(1), ada)
    assert (await commands.create(replacing(2), ada)).id == first.id
    with pytest.raises(Forbidden):
        await commands.create(replacing(3), bob)
    assert (await commands.create(replacing(4), Viewer("eve", frozenset(Scope)))).id == first.id
    assert steps_of(await commands.find(first.id)) == 4


async def test_an_idempotency_key_comes_first(commands: JobCommands, job_log: JobLog) -> None:
    first = await commands.create(keyed(1, idempotency_key="once"))
    assert first.id == job_id_for_key("once")
    await bring_to(job_log, commands, first.job, JobStatus.COMPLETED)
    second = await commands.create(keyed(2))
    again = await commands.create(keyed(1, idempotency_key="once"))
    assert (again.id, again.deduplicated) == (first.id, True)
    with pytest.raises(IdempotencyConflict):
        await commands.create(keyed(3, idempotency_key="once"))
    given = await commands.create(keyed(4, idempotency_key="another"))
    assert (given.id, given.deduplicated) == (second.id, True)
    assert await commands.find(job_id_for_key("another")) is None


async def test_a_batch_that_repeats_a_key_decides_in_its_order(commands: JobCommands) -> None:
    outcomes = await commands.create_each(
        [
            keyed(1),
            request(ProbePayload(steps=2)),
            keyed(3),
            replacing(4),
            keyed(5, KeyPolicy.REJECT),
            request(key=UniqueKey("another")),
        ]
    )
    created = [one for one in outcomes if isinstance(one, Created)]
    assert [type(one) for one in outcomes] == [Created] * 4 + [KeyTaken, Created]
    assert [one.deduplicated for one in created] == [False, False, True, True, False]
    assert len({one.id for one in created}) == 3
    assert steps_of(await commands.find(created[0].id)) == 4


# At once.


def processes(job_log: JobLog, settings: Settings, number: int) -> list[JobCommands]:
    """The decisions of several processes."""
    return [JobCommands(job_log, settings) for _ in range(number)]


@pytest.mark.parametrize("number", [1, 10])
async def test_fifty_creators_of_one_key_make_one_job(
    job_log: JobLog, settings: Settings, connection: Connection, number: int
) -> None:
    several = processes(job_log, settings, number)
    made = await asyncio.gather(*(several[n % number].create(keyed(n)) for n in range(50)))
    assert len({one.id for one in made}) == 1
    assert sum(not one.deduplicated for one in made) == 1
    assert len(await all_jobs(connection, several[0])) == 1


async def test_of_fifty_creators_whose_key_rejects_one_makes_a_job(
    job_log: JobLog, settings: Settings, connection: Connection
) -> None:
    several = processes(job_log, settings, 10)
    asked = (several[n % 10].create(keyed(n, KeyPolicy.REJECT)) for n in range(50))
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    (made,) = (one for one in outcomes if isinstance(one, Created))
    refused = [one for one in outcomes if isinstance(one, KeyTaken)]
    assert len(refused) == 49
    assert {one.extensions["jobId"] for one in refused} == {made.id}
    assert len(await all_jobs(connection, several[0])) == 1


@pytest.mark.parametrize("is_started", [False, True])
async def test_fifty_replacements_leave_one_waiting_job_with_the_last_of_their_payloads(
    job_log: JobLog, settings: Settings, connection: Connection, is_started: bool
) -> None:
    several = processes(job_log, settings, 5)
    if is_started:
        first = await several[0].create(keyed(0))
        await bring_to(job_log, several[0], first.job, JobStatus.PROCESSING)
    made = await asyncio.gather(*(several[n % 5].create(replacing(n + 1, run_at=FAR_AHEAD)) for n in range(50)))
    assert len({one.id for one in made}) == 1
    waiting = [job for job in await unended(connection, several[0]) if job.status is not JobStatus.PROCESSING]
    assert [job.id for job in waiting] == [made[0].id]
    last = max(made, key=lambda one: one.last_seq)
    assert steps_of(waiting[0]) == steps_of(last.job)
    await several[0].create(replacing(99))
    assert steps_of(await several[0].find(made[0].id)) == 99


async def test_a_replacement_that_crosses_the_start_is_never_lost(job_log: JobLog, settings: Settings) -> None:
    commands, *_ = processes(job_log, settings, 1)
    kept = []
    for round_ in range(20):
        value = UniqueKey(f"round {round_}", KeyPolicy.REPLACE)
        first = await commands.create(request(ProbePayload(steps=1), key=value))

        async def start(job: Job = first.job) -> None:
            with suppress(Superseded):
                await say(job_log, job, Started)

        second, _ = await asyncio.gather(commands.create(request(ProbePayload(steps=2), key=value)), start())
        found = await commands.find(second.id)
        assert steps_of(found) == 2
        kept.append(second.id == first.id)
        ran = await commands.find(first.id)
        assert ran is not None
        assert ran.status is not JobStatus.PROCESSING or steps_of(ran) == 1 or second.id == first.id
    assert len(kept) == 20


async def test_of_a_retry_and_a_creation_that_cross_one_loses(
    job_log: JobLog, settings: Settings, connection: Connection
) -> None:
    retrying, creating = processes(job_log, settings, 2)
    won = {"retry": 0, "creation": 0}
    for round_ in range(25):
        value = UniqueKey(f"round {round_}", KeyPolicy.REJECT)
        first = await creating.create(request(key=value))
        await bring_to(job_log, creating, first.job, JobStatus.DEAD_LETTER)
        retried, created = await asyncio.gather(
            retrying.retry(first.id, wait_for_copy=False), creating.create(request(key=value)), return_exceptions=True
        )
        left = [job for job in await unended(connection, creating) if job.spec.key == value.value]
        assert len(left) == 1
        if isinstance(retried, Job):
            won["retry"] += 1
            assert isinstance(created, KeyTaken)
        else:
            won["creation"] += 1
            assert isinstance(retried, KeyTaken)
            assert isinstance(created, Created)
        await creating.cancel(left[0].id)
    assert sum(won.values()) == 25


async def test_of_five_retries_of_a_job_with_a_key_one_is_accepted(job_log: JobLog, settings: Settings) -> None:
    several = processes(job_log, settings, 5)
    first = await several[0].create(keyed(1))
    await several[0].cancel(first.id)
    outcomes = await asyncio.gather(*(one.retry(first.id) for one in several), return_exceptions=True)
    assert sorted(type(one).__name__ for one in outcomes) == ["InvalidState"] * 4 + ["Job"]
    assert any(isinstance(one, InvalidState) for one in outcomes)


async def test_a_job_whose_key_another_one_has_is_not_retried(commands: JobCommands, job_log: JobLog) -> None:
    first = await commands.create(keyed(1))
    await bring_to(job_log, commands, first.job, JobStatus.DEAD_LETTER)
    second = await commands.create(keyed(2))
    with pytest.raises(KeyTaken) as refused:
        await commands.retry(first.id)
    assert refused.value.extensions["jobId"] == second.id
    await commands.cancel(second.id)
    assert (await commands.retry(first.id)).status is JobStatus.QUEUED
    with pytest.raises(KeyTaken):
        await commands.retry(second.id)


# Those who die, are slow, or hear nothing.


@pytest.mark.usefixtures("patient")
async def test_a_claimant_that_has_died_before_its_creation_is_replaced(
    commands: JobCommands, job_log: JobLog, connection: Connection
) -> None:
    dead = new_job_id()
    claimed = await JobKeys(job_log).claim(KEY, dead)
    assert isinstance(claimed, Fence)
    made = await commands.create(keyed(1))
    assert not made.deduplicated
    assert [job.id for job in await all_jobs(connection, commands)] == [made.id]
    # It was not dead, but slow.
    late = creation(dead, made.job.spec)._replace(fence=claimed)
    with pytest.raises(Superseded):
        await job_log.append(late)
    assert [job.id for job in await all_jobs(connection, commands)] == [made.id]


@pytest.mark.usefixtures("patient")
async def test_a_slow_claimant_whose_creation_comes_just_before_it_is_replaced_keeps_the_key(
    job_log: JobLog, settings: Settings, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands, others = processes(job_log, settings, 2)
    slow = new_job_id()
    claimed = await JobKeys(job_log).claim(KEY, slow)
    assert isinstance(claimed, Fence)
    spec = keyed(1).spec(datetime.now(UTC), settings)
    late = creation(slow, spec)._replace(fence=claimed)
    write = SteeringLog.write

    async def behind_the_other(self: SteeringLog, *asked: Any, **more: Any) -> int:
        monkeypatch.undo()
        await job_log.append(late)
        return await write(self, *asked, **more)

    monkeypatch.setattr(SteeringLog, "write", behind_the_other)
    made = await commands.create(keyed(2))
    assert (made.id, made.deduplicated) == (slow, True)
    assert [job.id for job in await all_jobs(connection, commands)] == [slow]
    # Whoever comes next finds it as well, although the key was claimed for another one since.
    assert (await others.create(keyed(3))).id == slow
    await commands.cancel(slow)
    assert not (await others.create(keyed(4))).deduplicated


class Forgetful:
    """What publishes, and loses the acknowledgements of some messages."""

    def __init__(self, publisher: Any, lost: Callable[[str], bool]) -> None:
        self._publisher = publisher
        self._lost = lost

    def __getattr__(self, name: str) -> Any:
        return getattr(self._publisher, name)

    async def send(self, subject: str, *more: Any) -> Awaitable[int]:
        """Send a message, whose acknowledgement may be lost."""
        acknowledged = await self._publisher.send(subject, *more)
        if not self._lost(subject):
            return acknowledged  # type: ignore[no-any-return]
        heard: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def forget(done: asyncio.Future[int]) -> None:
            if not heard.done():
                error = done.exception()
                heard.set_exception(error if error is not None else Unacknowledged("no acknowledgement"))

        acknowledged.add_done_callback(forget)
        return heard


@pytest.mark.parametrize("lost", ["jobs.gate.key.", ".queued.", ".event.edited", "jobs."])
async def test_a_lost_acknowledgement_makes_no_second_job(
    job_log: JobLog, settings: Settings, connection: Connection, lost: str
) -> None:
    left = [3]

    def is_lost(subject: str) -> bool:
        left[0] -= lost in subject
        return lost in subject and left[0] >= 0

    hearing = JobCommands(job_log, settings)
    deaf = JobCommands(JobLog(connection, Forgetful(job_log._publisher, is_lost)), settings)  # type: ignore[arg-type]  # noqa: SLF001
    first = await deaf.create(keyed(1, idempotency_key="once"))
    assert (await hearing.create(keyed(2))).id == first.id
    assert (await deaf.create(replacing(3))).id == first.id
    assert [job.id for job in await all_jobs(connection, hearing)] == [first.id]
    assert steps_of(await hearing.find(first.id)) == 3
    await hearing.cancel(first.id)
    left[0] = 3
    assert (await deaf.retry(first.id)).status is JobStatus.QUEUED


# Their end.


async def _ended_job(commands: JobCommands, job_log: JobLog) -> Job:
    made = await commands.create(keyed(1))
    return await bring_to(job_log, commands, made.job, JobStatus.COMPLETED)


def _as_ended(job: Job) -> Ended:
    assert job.finished_at is not None
    return Ended(job.id, job.finished_at, job.last_seq, has_artifacts=False, messages=(), key=KeptKey.of(job))


@pytest.mark.parametrize("one_by_one", [False, True])
async def test_an_expired_job_leaves_nothing_of_its_key(
    commands: JobCommands, job_log: JobLog, settings: Settings, one_by_one: bool
) -> None:
    job = await _ended_job(commands, job_log)
    artifacts = ArtifactStore(job_log, settings)
    assert await pointer(job_log) == KeyHolder(job.id)
    if one_by_one:
        assert await expire(job_log, artifacts, job.id, FAR_AHEAD) > 0
    else:
        (seq,) = await expire_ended(job_log, artifacts, [_as_ended(job)], FAR_AHEAD)
        assert isinstance(seq, int)
    assert await pointer(job_log) is None
    last = await job_log.last(SUBJECT)
    assert last is not None
    assert last.header("Nats-TTL") == f"{keys.KEY_REMOVAL_TTL}s"
    assert not (await commands.create(keyed(2))).deduplicated


async def test_a_deleted_job_leaves_nothing_of_its_key(
    commands: JobCommands, job_log: JobLog, settings: Settings
) -> None:
    made = await commands.create(keyed(1, run_at=LATER))
    await JobDeletions(job_log, commands, ArtifactStore(job_log, settings)).delete(made.id)
    assert await pointer(job_log) is None
    assert not (await commands.create(keyed(2))).deduplicated


async def test_the_expiry_of_an_earlier_job_leaves_the_key_to_the_one_that_has_it(
    commands: JobCommands, job_log: JobLog, settings: Settings
) -> None:
    earlier = await _ended_job(commands, job_log)
    made = await commands.create(keyed(2))
    await expire_ended(job_log, ArtifactStore(job_log, settings), [_as_ended(earlier)], FAR_AHEAD)
    assert (await commands.create(keyed(3))).id == made.id


async def test_a_job_that_is_just_retried_does_not_expire(
    commands: JobCommands, job_log: JobLog, settings: Settings
) -> None:
    made = await commands.create(keyed(1))
    job = await bring_to(job_log, commands, made.job, JobStatus.DEAD_LETTER)
    assert isinstance(await JobKeys(job_log).claim(KEY, job.id), Fence)
    artifacts = ArtifactStore(job_log, settings)
    assert await expire_ended(job_log, artifacts, [_as_ended(job)], FAR_AHEAD) == []
    assert await expire(job_log, artifacts, job.id, FAR_AHEAD) == 0
    assert await commands.find(job.id) is not None


async def test_a_retry_whose_job_has_expired_meanwhile_stores_nothing(commands: JobCommands, job_log: JobLog) -> None:
    made = await commands.create(keyed(1))
    job = await bring_to(job_log, commands, made.job, JobStatus.DEAD_LETTER)
    claimed = await JobKeys(job_log).claim(KEY, job.id)
    assert isinstance(claimed, Fence)
    assert await release_keys(job_log, [(KEY, job.id, claimed.seq)]) == set()
    late = creation(job.id, job.spec)._replace(fence=claimed)
    with pytest.raises(Superseded):
        await job_log.append(late)


async def test_a_claim_is_fenced_by_the_same_string_as_the_creation_behind_it(job_log: JobLog) -> None:
    claimed = await JobKeys(job_log).claim(KEY, new_job_id())
    assert isinstance(claimed, Fence)
    assert claimed == steering_fence(codec.KEYS, KEY.name, claimed.seq)
    assert claimed.over == SUBJECT
