"""A job that has not started can be changed: once, by one of those who try, and it is never lost between two writes."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from gql_jobs.jetstream.client import SCHEDULE_HEADER
from gql_jobs.jetstream.connection import Connection
from gql_jobs.jobs.changes import JobChanges
from gql_jobs.jobs.claim import Drop, Start, decide
from gql_jobs.jobs.errors import Forbidden, InvalidState, NotFound, PayloadTooLarge
from gql_jobs.jobs.messages import Edited, Failed, Kind, Released, Started, Submission
from gql_jobs.jobs.model import Gate, Job, JobPriority, JobStatus, OverlapPolicy, new_job_id
from gql_jobs.jobs.payload_codec import StoredPayloads
from gql_jobs.jobs.requests import InvalidRequest, JobRequest, TickPlace
from gql_jobs.jobs.unique_keys import KeyPolicy, UniqueKey
from gql_jobs.jobs.viewer import ANYBODY, Scope, Viewer, ViewLimits
from gql_jobs.log import codec
from gql_jobs.log.codec import JobMessage
from gql_jobs.log.commands import HEADROOM, JobCommands
from gql_jobs.log.edits import complete_edit, edited_event
from gql_jobs.log.job_log import JobLog, Superseded, Write, job_events, read_history, whole_job
from tests.by_hand import bring_to, say, stored
from tests.deadline import until
from tests.job_types.probe_jobs import ProbePayload
from tests.stories import PROBE, accepted, attempt_body, request, spec

S = JobStatus


def later(seconds: float = 3600.0) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def payload(**fields: Any) -> JobChanges:
    return JobChanges.of(payload=accepted(ProbePayload(**fields)), job_type=PROBE)


async def kinds(job_log: JobLog, job_id: str) -> list[Kind | None]:
    return [message.kind for message in await job_log.history(job_id)]


async def found(commands: JobCommands, job_id: str) -> Job:
    job = await commands.find(job_id)
    assert job is not None
    return job


async def make(commands: JobCommands, **options: Any) -> Job:
    return (await commands.create(request(**options))).job


async def test_a_queued_job_gets_another_payload_priority_and_tags_and_says_what_is_another(
    commands: JobCommands, job_log: JobLog
) -> None:
    job = await make(commands, tags=("old",))
    viewer = Viewer("alice", frozenset(Scope))
    changes = JobChanges.of(
        payload=accepted(ProbePayload(steps=7)), job_type=PROBE, priority=JobPriority.HIGH, tags=("new", "new")
    )
    edited = await commands.update(job.id, changes, viewer)
    assert edited.status is JobStatus.QUEUED
    assert (edited.spec.priority, edited.spec.tags) == (JobPriority.HIGH, ("new",))
    assert b'"steps":7' in bytes(edited.spec.payload)
    history = await job_log.history(job.id)
    assert [message.kind for message in history] == [Kind.QUEUED, Kind.EDITED, Kind.QUEUED]
    assert history[2].subject == codec.queued_subject(job.id, "default", JobPriority.HIGH)
    events = read_history(history).events
    assert (events[1].job.changed, events[1].job.actor) == (("priority", "payload", "tags"), "alice")
    assert events[1].job.status is JobStatus.WAITING
    assert (events[2].job.actor, events[2].job.changed) == (None, ())
    now = await found(commands, job.id)
    assert (now.spec, now.submission_seq, now.last_seq) == (edited.spec, edited.submission_seq, edited.last_seq)


async def test_of_the_submissions_of_an_edited_job_the_last_one_starts_alone(
    commands: JobCommands, job_log: JobLog
) -> None:
    job = await make(commands)
    await commands.update(job.id, payload(steps=2))
    first, event, second = [message.read() for message in await job_log.history(job.id)]
    assert first is not None
    assert event is not None
    assert second is not None
    now = datetime.now(UTC)
    assert decide(first.body, first.seq, event, redelivered=False, now=now) == Drop()
    assert decide(second.body, second.seq, event, redelivered=False, now=now) == Start(1, event.seq)
    subject = codec.event_subject(job.id, Kind.STARTED)
    with pytest.raises(Superseded):
        await job_log.append(Write(job.id, subject, attempt_body(Started, 1, first.seq), job_events(job.id, 0)))


@pytest.mark.parametrize(
    "options",
    [{"run_at": "later"}, {"run_at": "later", "priority": JobPriority.LOW, "tags": ("a",)}, {"tags": ("a", "b")}],
)
async def test_where_nothing_would_be_another_nothing_is_stored(
    commands: JobCommands, job_log: JobLog, options: dict[str, Any]
) -> None:
    run_at = later()
    options = {name: run_at if value == "later" else value for name, value in options.items()}
    job = await make(commands, payload=ProbePayload(steps=3), **options)
    same = JobChanges.of(payload=accepted(ProbePayload(steps=3)), job_type=PROBE, **options)
    assert (await commands.update(job.id, same)).last_seq == job.last_seq
    assert (await commands.update(job.id, JobChanges())).last_seq == job.last_seq
    assert len(await job_log.history(job.id)) == 1


async def test_a_due_job_that_is_to_run_at_once_is_left_as_it_is(commands: JobCommands, job_log: JobLog) -> None:
    job = await make(commands)
    for run_at in (None, later(-60)):
        await commands.update(job.id, JobChanges.of(run_at=run_at))
    assert await kinds(job_log, job.id) == [Kind.QUEUED]


async def test_a_queued_job_can_be_put_off_and_runs_then(commands: JobCommands, job_log: JobLog) -> None:
    job = await make(commands)
    run_at = later(0.5)
    edited = await commands.update(job.id, JobChanges.of(run_at=run_at))
    assert (edited.status, edited.run_at) == (JobStatus.SCHEDULED, run_at)
    submissions = codec.submission_subjects(job.id)

    async def fired() -> JobMessage | None:
        last = await job_log.last(submissions)
        return last if last is not None and last.seq > edited.last_seq else None

    message = await until(fired, "the job is queued again")
    assert message.at >= run_at
    now = await found(commands, job.id)
    assert (now.status, now.run_at, now.submission_seq) == (JobStatus.QUEUED, run_at, message.seq)
    told = [event.kind for event in read_history(await job_log.history(job.id)).events]
    assert told == [Kind.QUEUED, Kind.EDITED, Kind.SCHEDULED, Kind.QUEUED]


@pytest.mark.parametrize("sooner", [None, -60.0])
async def test_a_scheduled_job_runs_at_once_if_its_time_is_taken_away_or_has_passed(
    commands: JobCommands, job_log: JobLog, sooner: float | None
) -> None:
    job = await make(commands, run_at=later())
    edited = await commands.update(job.id, JobChanges.of(run_at=None if sooner is None else later(sooner)))
    assert (edited.status, edited.run_at, edited.spec.run_at) == (JobStatus.QUEUED, None, None)
    # The schedule has ended with the event itself.
    assert await kinds(job_log, job.id) == [Kind.EDITED, Kind.QUEUED]
    assert [event.kind for event in read_history(await job_log.history(job.id)).events] == [
        Kind.SCHEDULED,
        Kind.EDITED,
        Kind.QUEUED,
    ]


async def test_a_scheduled_job_that_is_changed_is_scheduled_again_for_the_same_time(
    commands: JobCommands, job_log: JobLog
) -> None:
    run_at = later()
    job = await make(commands, run_at=run_at)
    for number in range(3):
        edited = await commands.update(job.id, payload(steps=number + 2))
        assert (edited.status, edited.run_at) == (JobStatus.SCHEDULED, run_at)
    history = await job_log.history(job.id)
    assert [message.kind for message in history] == [*[Kind.EDITED] * 3, Kind.SCHEDULED]
    assert history[-1].header(SCHEDULE_HEADER) is not None
    assert b'"steps":4' in bytes((await found(commands, job.id)).spec.payload)


async def test_a_tick_that_is_moved_or_was_queued_in_time_is_never_too_late(commands: JobCommands) -> None:
    def tick() -> TickPlace:
        return TickPlace("nightly", new_job_id(), OverlapPolicy.ALLOW, None, later(7200))

    kept = (await commands.create(request(run_at=later(), tick=tick()))).job
    assert (await commands.update(kept.id, JobChanges.of(tags=("a",)))).spec.fire_before == kept.spec.fire_before
    assert (await commands.update(kept.id, JobChanges.of(run_at=later(60)))).spec.fire_before is None
    fired = (await commands.create(request(run_at=later(0.3), tick=tick()))).job
    assert fired.spec.fire_before is not None

    async def is_queued() -> bool:
        found = await commands.find(fired.id)
        return found is not None and found.status is JobStatus.QUEUED

    await until(is_queued, "its time has come")
    assert (await commands.update(fired.id, JobChanges.of(tags=("a",)))).spec.fire_before is None


async def test_a_job_that_passes_the_gate_is_changed_with_one_message_and_keeps_its_time_there(
    commands: JobCommands, job_log: JobLog
) -> None:
    job = await gated(commands, job_log)
    run_at = later()
    edited = await commands.update(job.id, JobChanges.of(run_at=run_at, priority=JobPriority.CRITICAL))
    assert edited.status is JobStatus.WAITING
    assert (edited.spec.run_at, edited.spec.gate, edited.run_at) == (None, Gate(run_at=run_at), run_at)
    assert [message.subject for message in await job_log.history(job.id)] == [
        codec.scheduled_subject(job.id),
        codec.event_subject(job.id, Kind.EDITED),
    ]
    assert not await complete_edit(job_log, job.id)
    again = await commands.update(job.id, JobChanges.of(run_at=None))
    assert (again.status, again.run_at) == (JobStatus.WAITING, None)


async def gated(commands: JobCommands, job_log: JobLog, **facts: Any) -> Job:
    """A job that waits for the gate."""
    job_id = new_job_id()
    body = Submission(spec=spec(gate=Gate(), created_at=datetime.now(UTC), **facts))
    await job_log.append(Write(job_id, codec.scheduled_subject(job_id), body, whole_job(job_id, 0)))
    return await found(commands, job_id)


@pytest.mark.parametrize(
    "status",
    [JobStatus.PROCESSING, JobStatus.RETRYING, JobStatus.COMPLETED, JobStatus.DEAD_LETTER, JobStatus.CANCELLED],
)
async def test_a_job_that_has_started_or_ended_cannot_be_changed(
    commands: JobCommands, job_log: JobLog, status: JobStatus
) -> None:
    job = await bring_to(job_log, commands, await make(commands), status)
    with pytest.raises(InvalidState) as refused:
        await commands.update(job.id, payload(steps=2))
    assert refused.value.extensions["status"] == status.name
    assert (await found(commands, job.id)).last_seq == job.last_seq


async def test_a_job_that_was_handed_back_has_started_and_cannot_be_changed(
    commands: JobCommands, job_log: JobLog
) -> None:
    """Its checkpoint would be about another payload."""
    job = await make(commands)
    await say(job_log, job, Started)
    await say(job_log, job, Released)
    with pytest.raises(InvalidState, match="is QUEUED and cannot be edited: it has started before"):
        await commands.update(job.id, payload(steps=2))


async def test_a_retried_job_that_has_not_started_again_can_be_changed(commands: JobCommands, job_log: JobLog) -> None:
    job = await bring_to(job_log, commands, await make(commands), JobStatus.DEAD_LETTER)
    await commands.retry(job.id)
    edited = await commands.update(job.id, payload(steps=2))
    assert (edited.status, edited.attempt) == (JobStatus.QUEUED, 0)


KEYED = replace(PROBE, concurrency_key=lambda payload: f"steps {payload.steps}" if payload.steps < 9 else 9)


def keyed(steps: int) -> JobChanges:
    return JobChanges.of(payload=accepted(ProbePayload(steps=steps)), job_type=KEYED)


async def make_keyed(commands: JobCommands, **options: Any) -> Job:
    return (await commands.create(JobRequest.of(KEYED, accepted(ProbePayload(steps=1)), **options))).job


async def test_a_job_shares_limits_by_what_its_type_makes_of_the_payload_that_it_has(commands: JobCommands) -> None:
    job = await make_keyed(commands)
    assert job.spec.concurrency_key == "steps 1"
    assert (await commands.update(job.id, keyed(2))).spec.concurrency_key == "steps 2"
    await commands.cancel(job.id)
    assert (await commands.retry(job.id, payload=keyed(3))).spec.concurrency_key == "steps 3"
    with pytest.raises(InvalidRequest, match="concurrency_key must be a text"):
        await commands.update(job.id, keyed(9))
    assert (await found(commands, job.id)).spec.concurrency_key == "steps 3"


async def test_another_payload_leaves_a_concurrency_key_that_the_creation_gave(commands: JobCommands) -> None:
    job = await make_keyed(commands, concurrency_key="mine")
    assert (await commands.update(job.id, keyed(2))).spec.concurrency_key == "mine"


async def test_what_replaces_a_waiting_job_shares_limits_by_its_own_payload(commands: JobCommands) -> None:
    key = UniqueKey("index", KeyPolicy.REPLACE)
    first = await make_keyed(commands, key=key, run_at=later())
    request_of_another = JobRequest.of(KEYED, accepted(ProbePayload(steps=2)), key=key, run_at=later())
    replaced = (await commands.create(request_of_another)).job
    assert (replaced.id, replaced.spec.concurrency_key) == (first.id, "steps 2")


async def test_what_is_changed_has_to_be_of_the_jobs_own_type_and_within_limits(commands: JobCommands) -> None:
    job = await make(commands)
    with pytest.raises(InvalidRequest, match="payload is of type other, and the job of type probe"):
        await commands.update(
            job.id, JobChanges.of(payload=accepted(ProbePayload()), job_type=replace(PROBE, name="other"))
        )
    with pytest.raises(InvalidRequest, match="A job has at most 32 tags"):
        JobChanges.of(tags=tuple(map(str, range(33))))
    with pytest.raises(InvalidRequest, match="run_at may be at most a year ahead"):
        JobChanges.of(run_at=later(400 * 86_400))
    with pytest.raises(NotFound):
        await commands.update("018f3c6e-7d3a-7c52-9d0a-3f5a8c1d7e42", JobChanges())


async def test_a_job_cannot_be_changed_into_one_that_is_too_large(
    commands: JobCommands, connection: Connection, job_log: JobLog
) -> None:
    job = await make(commands)
    with pytest.raises(PayloadTooLarge, match="The payload has"):
        await commands.update(job.id, payload(gate="x" * (connection.max_payload - HEADROOM)))
    assert await kinds(job_log, job.id) == [Kind.QUEUED]


async def test_a_viewer_sees_and_changes_only_what_is_within_its_limits_before_and_after(commands: JobCommands) -> None:
    job = await make(commands, tags=("mine", "other"))
    viewer = Viewer("bob", frozenset(Scope), limits=ViewLimits(tags=frozenset({"mine"})))
    edited = await commands.update(job.id, JobChanges.of(tags=("mine",)), viewer)
    assert edited.spec.tags == ("mine",)
    with pytest.raises(Forbidden):
        await commands.update(job.id, JobChanges.of(tags=("other",)), viewer)
    stranger = Viewer("eve", frozenset(Scope), limits=ViewLimits(tags=frozenset({"hers"})))
    with pytest.raises(NotFound):
        await commands.update(job.id, JobChanges.of(tags=("hers",)), stranger)


async def test_a_creation_that_is_repeated_finds_the_job_that_was_changed_since(commands: JobCommands) -> None:
    creation = request(ProbePayload(steps=2), idempotency_key="key")
    job = (await commands.create(creation)).job
    await commands.update(job.id, payload(steps=9))
    again = await commands.create(creation)
    assert (again.id, again.deduplicated) == (job.id, True)
    assert b'"steps":9' in bytes(again.job.spec.payload)


async def interrupted(commands: JobCommands, job_log: JobLog, job: Job, changes: JobChanges) -> Job:
    """The job after an edit of a process that was killed before it has stored the submission."""
    history = await job_log.history(job.id)
    await job_log.append(edited_event(job, *changes.applied(job, StoredPayloads(), datetime.now(UTC)), None, history))
    waiting = await found(commands, job.id)
    assert waiting.status is JobStatus.WAITING
    return waiting


@pytest.mark.parametrize("run_at", [None, 3600.0])
@pytest.mark.parametrize("to", [None, 7200.0])
async def test_an_edit_that_was_killed_before_its_submission_is_completed_once(
    commands: JobCommands, job_log: JobLog, run_at: float | None, to: float | None
) -> None:
    job = await make(commands, run_at=None if run_at is None else later(run_at))
    moment = None if to is None else later(to)
    await interrupted(commands, job_log, job, JobChanges.of(run_at=moment, tags=("edited",)))
    done = await asyncio.gather(*(complete_edit(job_log, job.id) for _ in range(5)))
    assert sorted(done) == [False] * 4 + [True]
    assert not await complete_edit(job_log, job.id)
    now = await found(commands, job.id)
    assert now.status is (JobStatus.QUEUED if to is None else JobStatus.SCHEDULED)
    assert (now.run_at, now.spec.tags) == (moment, ("edited",))


async def test_whoever_repeats_an_edit_that_was_killed_completes_it(commands: JobCommands, job_log: JobLog) -> None:
    job = await make(commands, run_at=later())
    changes = JobChanges.of(run_at=None, tags=("edited",))
    await interrupted(commands, job_log, job, changes)
    assert (await commands.update(job.id, changes)).status is JobStatus.QUEUED
    assert await kinds(job_log, job.id) == [Kind.EDITED, Kind.QUEUED]


async def test_a_job_whose_edit_was_killed_can_be_cancelled_and_retried(commands: JobCommands, job_log: JobLog) -> None:
    run_at = later()
    job = await make(commands, run_at=run_at)
    await interrupted(commands, job_log, job, payload(steps=2))
    assert (await commands.cancel(job.id)).status is JobStatus.CANCELLED
    assert not await complete_edit(job_log, job.id)
    retried = await commands.retry(job.id)
    assert (retried.status, retried.run_at) == (JobStatus.SCHEDULED, run_at)


async def test_a_firing_that_crosses_an_edit_runs_the_old_payload_nowhere(
    commands: JobCommands, job_log: JobLog, connection: Connection
) -> None:
    job = await make(commands, run_at=later(0.3))
    # An edit as of before the firing, that is stored after it.
    history = await job_log.history(job.id)
    await until(lambda: job_log.last(codec.submission_subjects(job.id)), "the schedule fires")
    edit = payload(steps=5).applied(job, StoredPayloads(), datetime.now(UTC))
    await job_log.append(edited_event(job, *edit, None, history))
    assert await complete_edit(job_log, job.id)
    now = await found(commands, job.id)
    assert now.status is JobStatus.QUEUED
    assert b'"steps":5' in bytes(now.spec.payload)
    assert await kinds(job_log, job.id) == [Kind.QUEUED, Kind.EDITED, Kind.QUEUED]
    assert [message for message in await stored(connection) if message.kind is Kind.SCHEDULED] == []


async def test_edits_that_cross_are_stored_one_after_the_other(commands: JobCommands, job_log: JobLog) -> None:
    job = await make(commands, run_at=later())
    await asyncio.gather(*(commands.update(job.id, payload(steps=number + 2)) for number in range(4)))
    now = await found(commands, job.id)
    assert now.status is JobStatus.SCHEDULED
    events = [message.read() for message in await job_log.history(job.id) if message.kind is Kind.EDITED]
    assert len(events) == 4
    last = events[-1]
    assert last is not None
    body: Edited = last.body
    assert now.spec == body.spec


async def test_a_cancelled_job_that_was_for_later_is_retried_for_later_and_what_is_read_anew_is_the_same(
    commands: JobCommands, job_log: JobLog
) -> None:
    run_at = later()
    job = await make(commands, run_at=run_at)
    for number in range(3):
        cancelled = await commands.cancel(job.id)
        read = await found(commands, job.id)
        assert (read.status, read.event_seq, read.submission_seq) == (
            JobStatus.CANCELLED,
            cancelled.event_seq,
            cancelled.submission_seq,
        )
        retried = await commands.retry(job.id)
        assert (retried.status, retried.run_at, retried.retried) == (JobStatus.SCHEDULED, run_at, False)
        assert await kinds(job_log, job.id) == [*[Kind.CANCELLED] * (number + 1), Kind.SCHEDULED]
    edited = await commands.update(job.id, payload(steps=2))
    assert edited.status is JobStatus.SCHEDULED
    assert (await found(commands, job.id)).spec == edited.spec
    now = await commands.update(job.id, JobChanges.of(run_at=None))
    assert (now.status, now.run_at) == (JobStatus.QUEUED, None)
    assert (await found(commands, job.id)).submission_seq == now.submission_seq


async def test_a_retry_after_the_time_of_a_job_keeps_that_time_and_is_for_at_once(
    commands: JobCommands, job_log: JobLog
) -> None:
    run_at = later(0.2)
    job = await make(commands, run_at=run_at)
    await until(lambda: job_log.last(codec.submission_subjects(job.id)), "the schedule fires")
    await commands.cancel(job.id)
    retried = await commands.retry(job.id)
    assert (retried.status, retried.run_at) == (JobStatus.QUEUED, run_at)
    assert (await found(commands, job.id)).run_at == run_at


async def test_a_retry_with_another_payload_tells_which_checkpoints_are_about_an_earlier_one(
    commands: JobCommands, job_log: JobLog
) -> None:
    job = await bring_to(job_log, commands, await make(commands), JobStatus.DEAD_LETTER)
    retried = await commands.retry(job.id, payload=payload(steps=8))
    assert b'"steps":8' in bytes(retried.spec.payload)
    last = (await job_log.history(job.id))[-1].read()
    assert last is not None
    assert (last.body.spec.checkpoints_after, last.body.spec.request_hash) == (job.event_seq, job.spec.request_hash)
    other = await bring_to(job_log, commands, await make(commands), JobStatus.DEAD_LETTER)
    await commands.retry(other.id, payload=payload())
    same = (await job_log.history(other.id))[-1].read()
    assert same is not None
    assert same.body.spec.checkpoints_after == 0


async def test_a_failed_job_that_waits_for_its_next_attempt_keeps_its_payload(
    commands: JobCommands, job_log: JobLog
) -> None:
    job = await make(commands)
    await say(job_log, job, Started)
    await say(job_log, job, Failed)
    with pytest.raises(InvalidState, match="is RETRYING and cannot be edited"):
        await commands.update(job.id, payload(steps=2))


@pytest.mark.parametrize("facts", [{}, {"run_at": later()}, {"after": (new_job_id(),)}])
async def test_of_a_job_that_is_changed_again_and_again_the_newest_change_is_all_that_is_read(
    commands: JobCommands, facts: dict[str, Any]
) -> None:
    job = await make(commands, **facts)
    for number in range(8):
        await commands.update(job.id, payload(steps=number))
    recent, known = await commands.existing(job.id, ANYBODY, whole=False)
    whole, expected = await commands.existing(job.id, ANYBODY, whole=True)
    assert len(recent) <= 2
    assert len(whole) > len(recent)
    assert known == expected
    cancelled = await commands.cancel(job.id)
    assert cancelled.status is S.CANCELLED
    assert len((await commands.existing(job.id, ANYBODY, whole=False))[0]) > len(recent), "an end is told by all of it"
    assert (await commands.retry(job.id)).status is not S.CANCELLED
