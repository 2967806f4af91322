"""The checker of the fault harness finds what was planted, and nothing in a history that is as it should be."""

from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from benchmarks.chaos import stream
from benchmarks.chaos.checker import Evidence, check
from benchmarks.chaos.ledger import Ledger, Observation, Seen
from benchmarks.chaos.stream import Stored
from gql_jobs.jetstream.connection import Connection
from gql_jobs.jetstream.server import EmbeddedServer
from gql_jobs.jetstream.stored_messages import delete_message
from gql_jobs.jobs.messages import Completed, Kind
from gql_jobs.jobs.model import Cursor, JobStatus
from gql_jobs.jobs.requests import JobFilter
from gql_jobs.jobs.viewer import ANYBODY
from gql_jobs.log import codec
from gql_jobs.log.codec import encode_body
from gql_jobs.web.runtime import Runtime
from tests.by_hand import bring_to
from tests.deadline import until
from tests.stories import attempt_body, request

DONE, DEAD, LATE = "done", "dead", "late"
_NAMES = {"queued": "JobQueued", "event.released": "JobQueued"}


def _told(seq: int, job_id: str, kind: str, **body: Any) -> Stored:
    return Stored(seq, job_id, kind, body)


def _submission(seq: int, job_id: str, event_seq: int = 0, **facts: Any) -> Stored:
    spec = {"payload": {"token": f"t-{job_id}"}, "idempotencyKey": f"k-{job_id}", "tags": ["tagged"], **facts}
    return _told(seq, job_id, "queued", spec=spec, eventSeq=event_seq)


def _messages() -> list[Stored]:
    """A job that failed once, was handed back and completed; one that died twice; one cancelled before its time."""
    return [
        _submission(1, DONE),
        _told(2, DONE, "event.started", submission=1, attempt=1),
        _submission(3, DEAD),
        _told(4, DONE, "event.failed", submission=1, attempt=1),
        _told(5, DEAD, "event.started", submission=3, attempt=1),
        _told(6, DONE, "event.started", submission=1, attempt=2),
        _told(7, DONE, "progress"),
        _told(8, DONE, "event.released", submission=1, attempt=2),
        _told(9, DEAD, "event.dead_letter", submission=3, attempt=1),
        _told(10, DONE, "event.started", submission=1, attempt=2),
        _submission(11, DEAD, event_seq=9),
        _told(12, DEAD, "event.started", submission=11, attempt=1),
        _told(13, DONE, "event.started", submission=1, attempt=3, supersedes=2),
        _told(14, DONE, "event.completed", submission=1, attempt=3),
        _told(15, DEAD, "event.dead_letter", submission=11, attempt=1),
        _told(16, LATE, "event.cancelled", spec={"payload": {"token": "t-late"}, "tags": ["tagged"]}),
        _told(17, DONE, "note"),
    ]


def _name(kind: str) -> str:
    return _NAMES.get(kind) or f"Job{''.join(part.title() for part in kind.rsplit('.', maxsplit=1)[-1].split('_'))}"


def _evidence() -> Evidence:
    """What clients were told of these jobs, with nothing wrong."""
    messages = _messages()
    seen = [Seen(m.seq, 0, _name(m.kind), m.job_id) for m in messages if m.kind != "note"]
    seen[-1:] = [Seen(16, 0, "JobScheduled", LATE), Seen(16, 1, "JobCancelled", LATE)]
    of_done = [event for event in seen if event.job_id == DONE][2:]
    ledger = Ledger(
        acknowledged={f"t-{job}": job for job in (DONE, DEAD, LATE)},
        denied={"t-nothing"},
        cancelled={LATE},
        retried={DEAD},
        poisonous={DEAD},
        observations=[
            Observation(seen=seen),
            Observation(tag="tagged", seen=list(seen[3:])),
            Observation(job_id=DONE, seen=of_done, completed=True),
        ],
    )
    runs = Counter({(DONE, 1): 1, (DONE, 2): 2, (DONE, 3): 1, (DEAD, 1): 2})
    copies = [m for m in messages if m.seq == 15]
    counts = {"api-1": {"COMPLETED": 1, "DEAD_LETTER": 1, "CANCELLED": 1, "QUEUED": 0}}
    return Evidence(messages, copies, ledger, runs, counts)


def _broken(evidence: Evidence) -> set[str]:
    return set(check(evidence).shown())


def test_a_history_as_it_should_be_breaks_nothing() -> None:
    findings = check(_evidence())
    assert findings.shown() == {}
    assert findings.kept
    assert findings.figures["submissions"] == 4
    assert findings.figures["superseded"] == findings.figures["released"] == 1
    assert findings.figures["runs_per_job"] == {"2": 1, "4": 1}


def _without(seq: int) -> Callable[[Evidence], None]:
    return lambda evidence: evidence.messages.remove(next(m for m in evidence.messages if m.seq == seq))


def _also(message: Stored) -> Callable[[Evidence], None]:
    return lambda evidence: evidence.messages.append(message)


def _unseen(number: int, index: int) -> Callable[[Evidence], None]:
    return lambda evidence: evidence.ledger.observations[number].seen.__delitem__(index)


def _seen(number: int, index: int, event: Seen) -> Callable[[Evidence], None]:
    return lambda evidence: evidence.ledger.observations[number].seen.insert(index, event)


PLANTED: list[tuple[str, Callable[[Evidence], Any], str]] = [
    ("a job that is gone", _without(16), "lost"),
    ("an acknowledged job that never was", lambda e: e.ledger.acknowledged.update({"x": "x"}), "lost"),
    ("a key with two answers", lambda e: e.ledger.acknowledge("t-done", "other", 0.0), "keys_with_more_jobs"),
    ("a key with two jobs", _also(_submission(20, "x", idempotencyKey="k-done")), "keys_with_more_jobs"),
    ("a creation that was denied", lambda e: e.ledger.denied.add("t-done"), "denied_but_stored"),
    ("a submission without an end", _without(15), "terminal_missing"),
    ("a second end", _also(_told(20, DONE, "event.completed", submission=1, attempt=3)), "terminal_repeated"),
    ("another end", _also(_told(20, DEAD, "event.cancelled", submission=11)), "terminal_repeated"),
    ("a start after the end", _also(_told(20, DONE, "event.started", submission=1, attempt=4)), "terminal_repeated"),
    ("an end without a start", _without(12), "illegal_events"),
    ("an attempt that was not counted", lambda e: e.messages[12].body.update(attempt=2), "attempts_miscounted"),
    ("a hand-back that cost an attempt", _without(8), "attempts_miscounted"),
    ("a cancellation that is gone", lambda e: e.ledger.cancelled.add(DONE), "cancels_lost"),
    ("a retry that is gone", lambda e: e.ledger.retried.add(DONE), "retries_lost"),
    ("a poison that was survived", lambda e: e.ledger.poisonous.add(DONE), "poison_survived"),
    ("a result that nobody made", lambda e: e.runs.pop((DONE, 3)), "results_without_run"),
    ("a dead letter that is missing", lambda e: e.dead_letters.clear(), "dead_letters_missing"),
    ("a dead letter too many", lambda e: e.dead_letters.extend(e.dead_letters * 2), "dead_letters_repeated"),
    ("an index that counts otherwise", lambda e: e.counts["api-1"].update(QUEUED=1), "index_differs"),
    ("a gap", _unseen(0, 3), "gaps"),
    ("a gap behind a filter", _unseen(1, 5), "gaps"),
    ("a gap in a job's own subscription", _unseen(2, 1), "gaps"),
    ("an event brought again at once", _seen(0, 4, Seen(4, 0, "JobFailed", DONE)), "duplicates"),
    ("an event brought again later", _seen(2, 5, Seen(6, 0, "JobStarted", DONE)), "duplicates"),
    ("a schedule brought again", _seen(0, 16, Seen(16, 1, "JobScheduled", LATE)), "duplicates"),
    ("events in the wrong order", lambda e: e.ledger.observations[0].seen.sort(reverse=True), "disorder"),
    ("an event that never was", _seen(0, 16, Seen(16, 0, "JobCompleted", LATE)), "invented"),
    (
        "a subscription without an end",
        lambda e: setattr(e.ledger.observations[2], "completed", False),
        "subscriptions_unfinished",
    ),
    ("a subscription without anything", lambda e: e.ledger.observations[1].seen.clear(), "subscriptions_unfinished"),
]


@pytest.mark.parametrize(("plant", "promise"), [case[1:] for case in PLANTED], ids=[case[0] for case in PLANTED])
def test_what_was_planted_is_found(plant: Callable[[Evidence], Any], promise: str) -> None:
    evidence = deepcopy(_evidence())
    plant(evidence)
    assert promise in _broken(evidence)
    assert not check(evidence).kept


async def test_it_reads_the_stream_of_a_server_and_finds_what_is_planted_there(
    runtime: Runtime, nats: EmbeddedServer, connection: Connection
) -> None:
    commands, ledger, whole = runtime.commands, Ledger(), Observation()
    job_log = commands._log  # noqa: SLF001
    watching = await runtime.watch.all(JobFilter(), ANYBODY, Cursor(0))
    ledger.observations.append(whole)
    jobs = [(await commands.create(request())).job for _ in range(3)]
    for job, status in zip(jobs, (JobStatus.COMPLETED, JobStatus.DEAD_LETTER, JobStatus.CANCELLED), strict=True):
        ledger.acknowledge(f"t-{job.id}", job.id, 0.0)
        await bring_to(job_log, commands, job, status)
    while len(whole.seen) < 8:
        event = await anext(watching)
        whole.seen.append(Seen(*event.cursor, f"Job{event.kind.title().replace('_', '')}", event.job.id))
    await watching.aclose()

    async def broken() -> set[str]:
        client = await stream.connected(nats.url)
        try:
            dead = await stream.read(client, stream.DEAD_LETTERS)
            runs = Counter({(jobs[0].id, 1): 1})
            return _broken(Evidence(await stream.read(client), dead, ledger, runs, {}))
        finally:
            await client.close()

    async def copied() -> bool:
        return not await broken()

    await until(copied, "the server has copied the dead letter")
    again = attempt_body(Completed, 1, jobs[0].submission_seq)
    await connection.publish(codec.event_subject(jobs[0].id, Kind.COMPLETED), encode_body(again))
    await delete_message(connection, codec.JOBS_STREAM, jobs[1].submission_seq)

    async def found() -> bool:
        return {"terminal_repeated", "results_repeated", "lost", "invented"} <= await broken()

    await until(found, "both are found")
