"""Single messages of a stream: read from its leader, and removed.

Not by direct get, which any replica answers: it may not have a message yet that has been acknowledged.
"""

from base64 import b64decode
from collections.abc import AsyncIterator
from datetime import datetime

import msgspec

from gql_jobs import clock
from gql_jobs.jetstream.connection import API_TIMEOUT, Connection
from gql_jobs.jetstream.errors import ApiError

SOURCE_HEADER = "Nats-Stream-Source"
"""Set by the server on a message that it has copied from another stream: ``<stream> <sequence there> …``."""
NO_MESSAGE = 10037
"""The server's error number for: no message matches."""
NO_STREAM = 10059
"""The server's error number for: there is no such stream."""
_SEQUENCE_NOT_FOUND = 10043


class StoredMessage(msgspec.Struct, frozen=True):
    """A message of a stream with its sequence and time; ``headers`` is the raw header block, empty without headers."""

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
        """The sequence that this copy has in the stream that it was copied from; 0 if it is no copy."""
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
    """A page of a stream's subjects; ``total`` is the number of subjects on all pages."""

    state: _State
    total: int = 0

    @property
    def subjects(self) -> dict[str, int]:
        """The number of messages by subject."""
        return self.state.subjects or {}


_decode_stored = msgspec.json.Decoder(_Found).decode


async def last_message(connection: Connection, stream: str, subject_filter: str) -> StoredMessage | None:
    """Return the newest message whose subject matches, or None.

    :raises ApiError: if there is no such stream.
    :raises Unavailable: if the leader does not answer.
    """
    return await _get(connection, stream, {"last_by_subj": subject_filter})


async def message_at(connection: Connection, stream: str, seq: int) -> StoredMessage | None:
    """Return the message of that sequence, or None if it does not exist (any more).

    :raises ApiError: if there is no such stream.
    :raises Unavailable: if the leader does not answer.
    """
    return await _get(connection, stream, {"seq": seq})


async def messages_of(
    connection: Connection, stream: str, subject_filter: str, first_seq: int = 1, last_seq: int | None = None
) -> AsyncIterator[StoredMessage]:
    """Yield all messages whose subjects match when it begins, oldest first; one request each, and one more.

    :param last_seq: the sequence of the last one, behind which none is looked for; None if that is not known.
    :raises ApiError: if there is no such stream.
    :raises Unavailable: if the leader does not answer.
    """
    # To find that there is no further one, the server would look through all that was stored since the last one.
    last = await last_message(connection, stream, subject_filter)
    seq = first_seq
    while last is not None and seq <= last.seq:
        found = await _get(connection, stream, {"seq": seq, "next_by_subj": subject_filter})
        if found is None:
            return
        yield found
        seq = found.seq + 1
        if last_seq is not None and seq > last_seq:
            return


async def _get(connection: Connection, stream: str, body: dict[str, object]) -> StoredMessage | None:
    try:
        answer = await connection.api(f"STREAM.MSG.GET.{stream}", body)
    except ApiError as error:
        if error.err_code == NO_MESSAGE:
            return None
        raise
    wire = _decode_stored(answer).message
    at = wire.time if clock.advances is None else clock.told_by_server(wire.time)
    return StoredMessage(wire.subject, wire.seq, at, b64decode(wire.data), b64decode(wire.hdrs))


def deletion_call(stream: str) -> str:
    """Return the subject of a request to remove a message of that stream; its body is ``deletion_body``."""
    return f"$JS.API.{_deletion(stream)}"


def deletion_body(seq: int, *, erase: bool = False) -> dict[str, object]:
    """Return the body of a request to remove the message ``seq``.

    :param erase: whether its bytes are overwritten too, which costs the server a write.
    """
    return {"seq": seq, "no_erase": not erase}


def is_already_deleted(err_code: int, description: str) -> bool:
    """Return whether a refused deletion means that the message does not exist (any more)."""
    # For a sequence below the stream's first the server reports a failed deletion, with only this description.
    return err_code == _SEQUENCE_NOT_FOUND or description == "no message found"


async def delete_message(connection: Connection, stream: str, seq: int, *, erase: bool = False) -> None:
    """Remove one message; one that does not exist any more is no error.

    :param erase: whether its bytes are overwritten where the server has stored them.
    :raises ApiError: if the server refuses, for example because there is no such stream.
    :raises Unavailable: if the leader does not answer.
    """
    try:
        await connection.api(_deletion(stream), deletion_body(seq, erase=erase))
    except ApiError as error:
        if not is_already_deleted(error.err_code, error.description):
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
    """Return a page of the stream's subjects that match, from ``offset`` on; the server limits its length.

    The server has them at hand; it need not search the stream.

    :raises ApiError: if there is no such stream.
    :raises Unavailable: if the server does not answer within ``timeout`` seconds.
    """
    body = {"subjects_filter": subject_filter, "offset": offset}
    return msgspec.json.decode(await connection.api(f"STREAM.INFO.{stream}", body, timeout), type=SubjectsPage)
