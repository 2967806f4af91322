"""Creating jobs: one durable write each, idempotent by key, in order."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from gql_jobs.jetstream.connection import Connection
from gql_jobs.jobs.errors import IdempotencyConflict, PayloadTooLarge, QueueUnavailable
from gql_jobs.jobs.fold import fold
from gql_jobs.jobs.messages import Message
from gql_jobs.jobs.model import Job, JobStatus, job_id_for_key
from gql_jobs.log import codec
from gql_jobs.log import commands as commands_module
from gql_jobs.log.commands import HEADROOM, Created, JobCommands
from gql_jobs.log.job_log import JobLog, open_job_log
from gql_jobs.settings import Settings
from tests.by_hand import bring_to, stored, tailed
from tests.job_types.probe_jobs import ProbePayload
from tests.stories import request

KEY = "order-4711"


async def test_a_creation_is_one_message_and_the_job_is_found_at_once(
    commands: JobCommands, connection: Connection
) -> None:
    created = await commands.create(request(ProbePayload(steps=3), tags=("a",)))
    assert not created.deduplicated
    assert await commands.find(created.job.id) is not None
    messages = await stored(connection)
    assert [message.subject for message in messages] == [f"jobs.{created.job.id}.queued.default.normal"]
    found = await commands.find(created.job.id)
    assert found is not None
    assert (found.status, found.spec.tags, found.last_seq) == (JobStatus.QUEUED, ("a",), created.job.last_seq)


async def test_the_same_key_and_payload_mean_the_same_job(
    commands: JobCommands, job_log: JobLog, settings: Settings, connection: Connection
) -> None:
    first = await commands.create(request(idempotency_key=KEY))
    assert first.job.id == job_id_for_key(KEY)
    for asked in (commands, JobCommands(job_log, settings)):
        again = await asked.create(request(idempotency_key=KEY, tags=("ignored",)))
        assert (again.job.id, again.deduplicated) == (first.job.id, True)
    assert len(await stored(connection)) == 1


@pytest.mark.parametrize("status", [JobStatus.PROCESSING, JobStatus.COMPLETED, JobStatus.CANCELLED])
async def test_a_repeated_key_answers_with_the_job_as_it_stands(
    commands: JobCommands, job_log: JobLog, status: JobStatus
) -> None:
    job = (await commands.create(request(idempotency_key=KEY))).job
    await bring_to(job_log, commands, job, status)
    again = await commands.create(request(idempotency_key=KEY))
    assert (again.job.status, again.deduplicated) == (status, True)


async def test_fifty_at_once_with_one_key_make_one_job(
    commands: JobCommands, other_connection: Connection, settings: Settings
) -> None:
    async with open_job_log(other_connection) as log:
        others = JobCommands(log, settings)
        asked = [c.create(request(idempotency_key=KEY)) for _ in range(25) for c in (commands, others)]
        created = await asyncio.gather(*asked)
    assert {outcome.job.id for outcome in created} == {job_id_for_key(KEY)}
    assert sum(not outcome.deduplicated for outcome in created) == 1
    assert len(await stored(other_connection)) == 1


async def test_the_same_key_with_another_payload_is_a_conflict_that_names_the_job(
    commands: JobCommands, connection: Connection
) -> None:
    job = (await commands.create(request(idempotency_key=KEY))).job
    with pytest.raises(IdempotencyConflict, match=KEY) as refused:
        await commands.create(request(ProbePayload(steps=1), idempotency_key=KEY))
    assert refused.value.extensions["existingJobId"] == job.id
    assert len(await stored(connection)) == 1


async def test_a_repeated_key_whose_job_cannot_be_read_is_unavailable_and_names_the_job(
    commands: JobCommands, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = (await commands.create(request(idempotency_key="k"))).job

    async def away(*_: object) -> None:
        raise QueueUnavailable("NATS did not answer in time.")

    monkeypatch.setattr(commands._log, "history", away)  # noqa: SLF001
    with pytest.raises(QueueUnavailable) as refused:
        await commands.create(request(idempotency_key="k"))
    assert refused.value.extensions["jobId"] == job.id
    with pytest.raises(QueueUnavailable) as refused:
        await commands.create_many([request(idempotency_key="k")])
    assert refused.value.extensions["uncertainIds"] == [job.id]
    assert refused.value.extensions["uncertainInputs"] == [0]


async def test_a_key_that_repeats_within_a_batch_makes_one_job(commands: JobCommands, connection: Connection) -> None:
    keys = (KEY, None, KEY, "other", KEY)
    created = await commands.create_many([request(idempotency_key=key) for key in keys])
    assert [outcome.deduplicated for outcome in created] == [False, False, True, False, True]
    assert len({outcome.job.id for outcome in created}) == 3
    assert created[0].job.id == created[2].job.id == created[4].job.id
    assert len(await stored(connection)) == 3
    again = await commands.create_many([request(idempotency_key=key) for key in keys])
    assert [outcome.deduplicated for outcome in again] == [True, False, True, True, True]


async def test_a_key_with_two_payloads_within_a_batch_stores_nothing(
    commands: JobCommands, connection: Connection
) -> None:
    requests = [request(), request(idempotency_key=KEY), request(ProbePayload(steps=1), idempotency_key=KEY)]
    with pytest.raises(IdempotencyConflict, match=f"{KEY}.*twice in this batch") as refused:
        await commands.create_many(requests)
    assert "existingJobId" not in refused.value.extensions
    assert await stored(connection) == []
    taken = (await commands.create(request(idempotency_key=KEY))).job
    with pytest.raises(IdempotencyConflict, match=f"belongs to job {taken.id}") as refused:
        await commands.create_many(requests)
    assert refused.value.extensions["existingJobId"] == taken.id


async def test_a_batch_that_fails_midway_names_what_was_stored(commands: JobCommands, connection: Connection) -> None:
    taken = (await commands.create(request(idempotency_key=KEY))).job
    with pytest.raises(IdempotencyConflict) as refused:
        await commands.create_many([request(), request(ProbePayload(steps=1), idempotency_key=KEY), request()])
    accepted = refused.value.extensions["acceptedIds"]
    assert len(accepted) == 2
    in_stream = [subject.split(".")[1] for _, subject in await tailed(connection)]
    assert in_stream == [taken.id, *accepted]
    assert refused.value.extensions["acceptedInputs"] == [0, 2]
    assert not refused.value.extensions.keys() & {"uncertainIds", "uncertainInputs"}


async def test_each_request_of_a_batch_has_an_outcome_of_its_own(commands: JobCommands, connection: Connection) -> None:
    taken = await commands.create(request(idempotency_key=KEY))
    other = ProbePayload(steps=3)
    asked = [request(), request(other, idempotency_key=KEY), request(other, idempotency_key=KEY), request(other)]
    first, conflict, again, last = await commands.create_each(asked)
    assert isinstance(first, Created)
    assert isinstance(last, Created)
    assert isinstance(conflict, IdempotencyConflict)
    assert (conflict.extensions["existingJobId"], again) == (taken.id, conflict)
    assert {codec.job_of_subject(message.subject) for message in await stored(connection)} == {
        taken.id,
        first.id,
        last.id,
    }


async def test_times_of_creation_strictly_increase_and_a_batch_keeps_its_order(
    commands: JobCommands, connection: Connection
) -> None:
    batches = await asyncio.gather(*(commands.create_many([request() for _ in range(100)]) for _ in range(3)))
    await commands.create(request())
    times = [outcome.job.spec.created_at for batch in batches for outcome in batch]
    assert len(set(times)) == 300
    for batch in batches:
        moments = [outcome.job.spec.created_at for outcome in batch]
        assert moments == sorted(moments)
        sequences = [outcome.job.last_seq for outcome in batch]
        assert sequences == sorted(sequences)
    assert len(await tailed(connection, (codec.ALL_SUBMISSIONS,))) == 301


async def test_an_empty_batch_is_no_error(commands: JobCommands) -> None:
    assert await commands.create_many([]) == []


async def test_a_payload_above_the_limit_is_refused_with_both_sizes_and_one_at_it_is_taken(
    commands: JobCommands, connection: Connection
) -> None:
    limit = connection.max_payload - HEADROOM
    room = limit - len(request(ProbePayload(gate="")).payload)
    await commands.create(request(ProbePayload(gate="x" * room)))
    for asked in (commands.create(request(large := ProbePayload(gate="x" * (room + 1)))), None):
        with pytest.raises(PayloadTooLarge) as refused:
            await (asked or commands.create_many([request(), request(large)]))
        extensions = refused.value.extensions
        assert (extensions["sizeBytes"], extensions["limitBytes"]) == (limit + 1, limit)
    assert len(await stored(connection)) == 1


async def test_what_a_new_job_is_like_is_worked_out_only_for_whoever_asks(
    commands: JobCommands, monkeypatch: pytest.MonkeyPatch
) -> None:
    folds: list[object] = []

    def counted(job: Job | None, message: Message) -> Job | None:
        folds.append(message)
        return fold(job, message)

    monkeypatch.setattr(commands_module, "fold", counted)
    created = await commands.create(request(run_at=datetime.now(UTC) + timedelta(hours=1)))
    assert (created.last_seq, folds) == (1, [])
    found = await commands.find(created.id)
    assert found is not None
    assert found.status is created.job.status is JobStatus.SCHEDULED
    assert (found.spec, found.last_seq) == (created.job.spec, created.job.last_seq)
    assert len(folds) == 1
