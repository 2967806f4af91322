"""JSON to message bodies and back. Unknown fields are ignored; whoever reads decides what an unreadable one means."""

from datetime import datetime
from typing import Any

import msgspec

from gql_jobs.jobs import messages
from gql_jobs.jobs.messages import Body, Kind, Message
from gql_jobs.jobs.model import parse_job_id
from gql_jobs.log import subjects

_BODIES: dict[Kind, type[Body]] = {
    Kind.SCHEDULED: messages.Submission,
    Kind.QUEUED: messages.Submission,
    Kind.STARTED: messages.Started,
    Kind.PROGRESS: messages.Progress,
    Kind.COMPLETED: messages.Completed,
    Kind.FAILED: messages.Failed,
    Kind.DEAD_LETTER: messages.DeadLetter,
    Kind.CANCELLED: messages.Cancelled,
    Kind.RELEASED: messages.Released,
    Kind.EXPIRED: messages.Expired,
    Kind.ARTIFACT: messages.Saved,
    Kind.NOTE: messages.Noted,
}
_DECODERS: dict[Kind, Any] = {kind: msgspec.json.Decoder(body) for kind, body in _BODIES.items()}
_encoder = msgspec.json.Encoder()


class Unreadable(ValueError):
    """The stored bytes are no message of a version this process knows."""


class Newer(Unreadable):
    """Written by a newer version of this software, which can read it."""


def encode(body: Body) -> bytes:
    """The JSON of a body."""
    return _encoder.encode(body)


def decode(kind: Kind, data: bytes) -> Body:
    """The body of a message.

    :raises Unreadable: if the JSON does not fit; ``Newer`` if its version is not this one.
    """
    try:
        body: Body = _DECODERS[kind].decode(data)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Unreadable(str(error)) from error
    if body.v != messages.VERSION:
        raise Newer(f"version {body.v} is not {messages.VERSION}")
    return body


def read(subject: str, data: bytes, seq: int, at: datetime, nonce: str | None = None) -> Message | None:
    """A stored message as a value, or None for subjects outside the fold (checkpoints).

    :raises Unreadable: if it is none of ours.
    """
    named = subjects.kind_of(subject)
    if named is None:
        if subject.rsplit(".", 1)[-1] in subjects.UNFOLDED:
            return None
        raise Unreadable(f"nothing is known of the subject {subject!r}")
    job_id, kind = named
    if parse_job_id(job_id) != job_id:
        raise Unreadable(f"{job_id!r} is no job id")
    return Message(job_id, kind, seq, at, decode(kind, data), nonce)
