"""Reading single messages from the stream's leader.

Never a direct get: on a replicated stream it may miss what has just been acknowledged.
"""

from base64 import b64decode
from collections.abc import AsyncIterator
from datetime import datetime

import msgspec

from gql_jobs.jetstream.connection import API_TIMEOUT, ApiError, Connection
from gql_jobs.jobs.messages import Kind, Message
from gql_jobs.log import codec, subjects

NO_MESSAGE = 10037
_SEQUENCE_NOT_FOUND = 10043


class StoredMessage(msgspec.Struct, frozen=True):
    """A message as it lies in the stream. ``headers`` are the raw header block."""

    subject: str
    seq: int
    at: datetime
    data: bytes
    headers: bytes

    def header(self, name: str) -> str | None:
        """The value of a header, or None."""
        start = self.headers.find(f"\r\n{name}: ".encode())
        if start < 0:
            return None
        start += len(name) + 4
        return self.headers[start : self.headers.index(b"\r\n", start)].decode()

    @property
    def nonce(self) -> str | None:
        """The mark of the write that stored this message."""
        return self.header(subjects.NONCE)

    @property
    def kind(self) -> Kind | None:
        """What happened, or None for what is not folded and for what this version does not know."""
        named = subjects.kind_of(self.subject)
        return named[1] if named is not None else None

    @property
    def is_event(self) -> bool:
        """Whether it moves the fence over its job's events."""
        return subjects.is_event(self.subject)

    def read(self) -> Message | None:
        """The message as a value; None outside the fold.

        :raises Unreadable: if it is none of ours.
        """
        return codec.read(self.subject, self.data, self.seq, self.at, self.nonce)


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
    """A part of a stream's subjects with how many messages each has, and of how many subjects in all."""

    state: _State
    total: int = 0

    @property
    def subjects(self) -> dict[str, int]:
        """By subject, how many messages."""
        return self.state.subjects or {}


_decode = msgspec.json.Decoder(_Found).decode


async def last_message(
    connection: Connection, subject_filter: str, stream: str = subjects.STREAM
) -> StoredMessage | None:
    """The newest message whose subject matches.

    :raises QueueUnavailable: if the leader does not answer.
    """
    return await _get(connection, stream, {"last_by_subj": subject_filter})


async def messages_of(
    connection: Connection, subject_filter: str, first_seq: int = 1, stream: str = subjects.STREAM
) -> AsyncIterator[StoredMessage]:
    """All messages whose subjects match, oldest first; one request each.

    :raises QueueUnavailable: if the leader does not answer.
    """
    seq = first_seq
    while (found := await _get(connection, stream, {"seq": seq, "next_by_subj": subject_filter})) is not None:
        yield found
        seq = found.seq + 1


async def delete_message(connection: Connection, seq: int, stream: str = subjects.STREAM) -> None:
    """Remove one message; one that is gone already is no error.

    :raises QueueUnavailable: if the leader does not answer.
    """
    try:
        await connection.api(f"STREAM.MSG.DELETE.{stream}", deletion(seq))
    except ApiError as error:
        if not says_gone(error.err_code, error.description):
            raise


def deletion(seq: int) -> dict[str, object]:
    """What the server is asked to remove one message. Overwriting the bytes would cost a write each."""
    return {"seq": seq, "no_erase": True}


def says_gone(err_code: int, description: str) -> bool:
    """Whether a refused deletion means that there is no such message (any more)."""
    # Below the stream's first message the server answers as if the deletion had failed.
    return err_code == _SEQUENCE_NOT_FOUND or description == "no message found"


async def count_by_subject(connection: Connection, subject_filter: str) -> dict[str, int]:
    """How many messages each subject has that matches; the server answers it without a search.

    :raises ApiError: | QueueUnavailable:
    """
    return (await subjects_page(connection, subjects.STREAM, subject_filter)).subjects


async def subjects_page(
    connection: Connection,
    stream: str,
    subject_filter: str,
    offset: int = 0,
    timeout: float = API_TIMEOUT,  # noqa: ASYNC109
) -> SubjectsPage:
    """The stream's subjects that match, from ``offset`` on, as many as the server tells at once.

    :raises ApiError: | QueueUnavailable:
    """
    body = {"subjects_filter": subject_filter, "offset": offset}
    return msgspec.json.decode(await connection.api(f"STREAM.INFO.{stream}", body, timeout), type=SubjectsPage)


async def _get(connection: Connection, stream: str, body: dict[str, object]) -> StoredMessage | None:
    try:
        answer = await connection.api(f"STREAM.MSG.GET.{stream}", body)
    except ApiError as error:
        if error.err_code == NO_MESSAGE:
            return None
        raise
    wire = _decode(answer).message
    return StoredMessage(wire.subject, wire.seq, wire.time, b64decode(wire.data), b64decode(wire.hdrs))
