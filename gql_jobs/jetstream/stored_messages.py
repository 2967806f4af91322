"""Single messages of a stream, read from its leader and removed there.

Never a direct get: on a replicated stream it may miss what has just been acknowledged.
"""

from base64 import b64decode
from collections.abc import AsyncIterator
from datetime import datetime

import msgspec

from gql_jobs.jetstream.connection import API_TIMEOUT, Connection
from gql_jobs.jetstream.errors import ApiError

SOURCE_HEADER = "Nats-Stream-Source"
"""Of a message that the server has copied from another stream: ``<stream> <sequence there> …``."""
NO_MESSAGE = 10037
"""The server's number for: no message there."""
_SEQUENCE_NOT_FOUND = 10043


class StoredMessage(msgspec.Struct, frozen=True):
    """A message as it lies in the stream. ``headers`` are the raw header block."""

    subject: str
    seq: int
    at: datetime
    data: bytes
    headers: bytes

    def header(self, name: str) -> str | None:
        """Return the value of a header, or None."""
        start = self.headers.find(f"\r\n{name}: ".encode())
        if start < 0:
            return None
        start += len(name) + 4
        return self.headers[start : self.headers.index(b"\r\n", start)].decode()

    @property
    def source_seq(self) -> int:
        """The sequence of which this is a copy, in the stream it was copied from; 0 for what is no copy."""
        parts = (self.header(SOURCE_HEADER) or "").split()
        return int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else 0


class _Wire(msgspec.Struct):
    subject: str
    seq: int
    time: datetime
    data: str = ""
    hdrs: str = ""


class _Found(msgspec.Struct):
    message: _Wire


class _State(msgspec.Struct):
    subjects: dict[str, int] | None = None


class SubjectsPage(msgspec.Struct):
    """A part of a stream's subjects with how many messages each has; ``total``: of how many subjects."""

    state: _State
    total: int = 0

    @property
    def subjects(self) -> dict[str, int]:
        """By subject, how many messages."""
        return self.state.subjects or {}


_decode_found = msgspec.json.Decoder(_Found).decode


async def last_message(connection: Connection, stream: str, subject_filter: str) -> StoredMessage | None:
    """Return the newest message whose subject matches, or None.

    :raises ApiError: if there is no such stream.
    :raises Unavailable: if the leader does not answer.
    """
    return await _get(connection, stream, {"last_by_subj": subject_filter})


async def messages_of(
    connection: Connection, stream: str, subject_filter: str, first_seq: int = 1
) -> AsyncIterator[StoredMessage]:
    """Yield all messages whose subjects match, oldest first; one request each.

    :raises ApiError: if there is no such stream.
    :raises Unavailable: if the leader does not answer.
    """
    seq = first_seq
    while (found := await _get(connection, stream, {"seq": seq, "next_by_subj": subject_filter})) is not None:
        yield found
        seq = found.seq + 1


async def _get(connection: Connection, stream: str, body: dict[str, object]) -> StoredMessage | None:
    try:
        answer = await connection.api(f"STREAM.MSG.GET.{stream}", body)
    except ApiError as error:
        if error.err_code == NO_MESSAGE:
            return None
        raise
    wire = _decode_found(answer).message
    return StoredMessage(wire.subject, wire.seq, wire.time, b64decode(wire.data), b64decode(wire.hdrs))


def deletion_call(stream: str) -> str:
    """Return the subject on which the server is asked to remove a message, with ``deletion_body``."""
    return f"$JS.API.{_deletion(stream)}"


def deletion_body(seq: int) -> dict[str, object]:
    """Return what the server is asked to remove one message. Overwriting the bytes would cost a write each."""
    return {"seq": seq, "no_erase": True}


def says_gone(err_code: int, description: str) -> bool:
    """Whether a refused deletion means that there is no such message (any more)."""
    # Below the stream's first message the server answers as if the deletion had failed.
    return err_code == _SEQUENCE_NOT_FOUND or description == "no message found"


async def delete_message(connection: Connection, stream: str, seq: int) -> None:
    """Remove one message; one that is gone already is no error.

    :raises ApiError: if the server refuses, as where there is no such stream.
    :raises Unavailable: if the leader does not answer.
    """
    try:
        await connection.api(_deletion(stream), deletion_body(seq))
    except ApiError as error:
        if not says_gone(error.err_code, error.description):
            raise


def _deletion(stream: str) -> str:
    return f"STREAM.MSG.DELETE.{stream}"


async def subjects_page(
    connection: Connection,
    stream: str,
    subject_filter: str,
    offset: int = 0,
    timeout: float = API_TIMEOUT,  # noqa: ASYNC109
) -> SubjectsPage:
    """Return the stream's subjects that match, from ``offset`` on, as many as the server tells at once.

    The server answers it without a search.

    :raises ApiError: if there is no such stream.
    :raises Unavailable: if the server does not answer within ``timeout`` seconds.
    """
    body = {"subjects_filter": subject_filter, "offset": offset}
    return msgspec.json.decode(await connection.api(f"STREAM.INFO.{stream}", body, timeout), type=SubjectsPage)
