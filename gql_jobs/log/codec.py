"""JSON to message bodies and back. Unknown fields are ignored; whoever reads decides what an unreadable one means."""

from typing import Any

import msgspec

from gql_jobs.jobs import messages
from gql_jobs.jobs.messages import Body, Kind

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
}
_DECODERS: dict[Kind, Any] = {kind: msgspec.json.Decoder(body) for kind, body in _BODIES.items()}
_encoder = msgspec.json.Encoder()


class Unreadable(ValueError):
    """The stored bytes are no message of a version this process knows."""


def encode(body: Body) -> bytes:
    """The JSON of a body."""
    return _encoder.encode(body)


def decode(kind: Kind, data: bytes) -> Body:
    """The body of a message.

    :raises Unreadable: if the JSON does not fit, or was written by a newer, incompatible version.
    """
    try:
        body: Body = _DECODERS[kind].decode(data)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Unreadable(str(error)) from error
    if body.v != messages.VERSION:
        raise Unreadable(f"version {body.v} is not {messages.VERSION}")
    return body
