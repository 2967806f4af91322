"""What is stored and how it is read back; and what cannot be read."""

import json
from typing import Any

import pytest
from msgspec.structs import replace

from gql_jobs.jobs.messages import (
    NEWEST_VERSION,
    Body,
    Cancelled,
    Completed,
    DeadLetter,
    Edited,
    Expired,
    Failed,
    Kind,
    Progress,
    Receipt,
    Released,
    Saved,
    Started,
    Submission,
)
from gql_jobs.jobs.model import Gate, JobPriority
from gql_jobs.log import codec
from gql_jobs.log.codec import Newer, Unreadable, decode_body, encode_body, read_message
from tests.stories import BEGAN, JOB, artifact, attempt_body, error, noted, spec

BODIES: dict[Kind, Body] = {
    Kind.SCHEDULED: Submission(spec=spec(run_at=BEGAN)),
    Kind.WAITING: Submission(spec=spec(gate=Gate(run_at=BEGAN))),
    Kind.EDITED: Edited(submission=1, spec=spec(), changed=("tags",)),
    Kind.QUEUED: Submission(spec=spec(tags=("a",), idempotency_key="k"), event_seq=4, after_expiry=True),
    Kind.STARTED: attempt_body(Started, supersedes=1, errors=(error(1),), progress=3, message="m"),
    Kind.PROGRESS: attempt_body(Progress, progress=50),
    Kind.COMPLETED: attempt_body(Completed),
    Kind.FAILED: attempt_body(Failed, errors=(error(1),)),
    Kind.DEAD_LETTER: attempt_body(DeadLetter),
    Kind.CANCELLED: Cancelled(submission=1, spec=spec()),
    Kind.RELEASED: attempt_body(Released),
    Kind.EXPIRED: Expired(submission=1),
    Kind.ARTIFACT: Saved(artifact=artifact()),
    Kind.NOTE: noted(9, Receipt.KILLED, cancelled_seq=8).body,
}


def _subject(kind: Kind) -> str:
    if kind is Kind.QUEUED:
        return codec.queued_subject(JOB, "default", JobPriority.NORMAL)
    folded = {
        Kind.SCHEDULED: codec.scheduled_subject(JOB),
        Kind.WAITING: codec.scheduled_subject(JOB),
        Kind.PROGRESS: codec.progress_subject(JOB),
        Kind.ARTIFACT: codec.artifact_subject(JOB, "a.txt"),
        Kind.NOTE: codec.note_subject(JOB),
    }
    return folded.get(kind) or codec.event_subject(JOB, kind)


@pytest.mark.parametrize("kind", list(Kind))
def test_what_was_written_is_read(kind: Kind) -> None:
    message = read_message(_subject(kind), encode_body(BODIES[kind]), 7, BEGAN, "nonce")
    assert message is not None
    assert (message.job_id, message.kind, message.seq, message.at, message.nonce) == (JOB, kind, 7, BEGAN, "nonce")
    assert json.loads(encode_body(message.body)) == json.loads(encode_body(BODIES[kind]))


@pytest.mark.parametrize("kind", list(Kind))
def test_unknown_fields_are_ignored(kind: Kind) -> None:
    stored = json.loads(encode_body(BODIES[kind])) | {"laterField": {"deep": [1]}}
    of_subject = Kind.SCHEDULED if kind is Kind.WAITING else kind
    assert json.loads(encode_body(decode_body(of_subject, json.dumps(stored).encode()))) == json.loads(
        encode_body(BODIES[kind])
    )


@pytest.mark.parametrize("kind", list(Kind))
def test_another_version_is_left_to_those_who_know_it(kind: Kind) -> None:
    for version in (NEWEST_VERSION + 1, 0):
        stored = json.loads(encode_body(BODIES[kind])) | {"v": version}
        with pytest.raises(Newer, match=f"version {version} is "):
            decode_body(Kind.SCHEDULED if kind is Kind.WAITING else kind, json.dumps(stored).encode())


@pytest.mark.parametrize("kind", [Kind.SCHEDULED, Kind.QUEUED, Kind.DEAD_LETTER, Kind.CANCELLED])
@pytest.mark.parametrize(
    "facts",
    [
        *({"tenant": "red"}, {"secrets": ("/password",)}, {"tenant": ""}, {"origin": "x"}, {"parent": "x"}),
        *({"key": "x"}, {"concurrency_key": "x"}, {"after": ("x",)}, {"gate": Gate()}),
    ],
)
def test_what_an_older_release_would_drop_is_written_as_version_2_and_read_as_1_or_2(
    kind: Kind, facts: dict[str, Any]
) -> None:
    marked = replace(BODIES[kind], spec=spec(**facts))
    stored = json.loads(encode_body(marked))
    assert stored["v"] == 2
    assert decode_body(kind, json.dumps(stored).encode()) == replace(marked, v=2)
    assert decode_body(kind, json.dumps(stored | {"v": 1}).encode()) == marked


@pytest.mark.parametrize(
    "body", [Edited(submission=1, spec=spec()), Submission(spec=spec(gate=Gate()), release=True, event_seq=4)]
)
def test_what_an_older_release_would_run_past_the_gate_is_written_as_version_3(body: Body) -> None:
    assert json.loads(encode_body(body))["v"] == 3


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.EDITED])
def test_everything_else_is_written_as_version_1(kind: Kind) -> None:
    body = BODIES[kind]
    if getattr(body, "spec", None) is not None:
        body = replace(body, spec=spec(created_by="ada", tags=("a",)))
    assert "v" not in json.loads(encode_body(body))


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"null", b"[]", b"7", b"\xff\xfe", b"{}", b"[" * 100_000, b'{"spec":' * 100_000, b'"\\ud800"'],
)
def test_garbage_is_unreadable(data: bytes) -> None:
    with pytest.raises(Unreadable):
        decode_body(Kind.QUEUED, data)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("type", 7),
        ("priority", "urgent"),
        ("createdAt", "yesterday"),
        ("createdAt", "2026-01-31T12:00:00"),
        ("runAt", "2026-01-31T12:00:00"),
        ("maxRetries", "many"),
        ("tags", "a"),
        ("payload", None),
    ],
)
def test_a_spec_that_does_not_fit_is_unreadable(field: str, value: Any) -> None:
    stored = json.loads(encode_body(BODIES[Kind.QUEUED]))
    stored["spec"][field] = value
    if field == "payload":
        del stored["spec"][field]
    with pytest.raises(Unreadable):
        decode_body(Kind.QUEUED, json.dumps(stored).encode())


def test_a_time_without_an_offset_is_unreadable_because_it_cannot_be_compared() -> None:
    stored = json.loads(encode_body(BODIES[Kind.FAILED])) | {"nextAttemptAt": "2026-01-31T12:00:00"}
    with pytest.raises(Unreadable):
        decode_body(Kind.FAILED, json.dumps(stored).encode())


@pytest.mark.parametrize(
    "subject",
    [
        f"jobs.{JOB}.event.paused",
        f"jobs.{JOB}.event.queued",
        f"jobs.{JOB}.queued.default",
        f"jobs.{JOB}.queued.default.normal.more",
        f"jobs.{JOB}",
        f"jobs.{JOB}.what",
        f"other.{JOB}.scheduled",
        "jobs.me.scheduled",
        f"jobs.{JOB.upper()}.scheduled",
        f"jobs.{JOB.replace('-', '')}.scheduled",
    ],
)
def test_a_subject_that_is_none_of_ours_is_unreadable(subject: str) -> None:
    with pytest.raises(Unreadable):
        read_message(subject, encode_body(BODIES[Kind.SCHEDULED]), 1, BEGAN)


def test_checkpoints_are_outside_the_fold() -> None:
    assert read_message(codec.checkpoint_subject(JOB), b"anything", 1, BEGAN) is None
