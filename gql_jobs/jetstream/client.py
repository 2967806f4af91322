"""nats-py's client with short ways for what there is most of: messages to receivers of ours, and fenced publications.

nats-py hands a message to its subscription through a queue and a task of its own, as one object, and splits up headers
that nobody here reads. A receiver is a plain function and is called from the reading of the connection. Headers of
publications are put together at once instead of line by line. The rest of nats-py is used as it is; should a later one
lack what is overridden here, it takes its own way again, and nothing else changes.

In the order in which a message arrives: the parser finds it in the bytes that were read, the client hands it to its
receiver. What is sent leaves by ``NatsClient.send``; a ``Publisher`` waits for the acknowledgement of each message.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import msgspec
import nats.aio.subscription
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import ProtocolError
from nats.protocol.parser import Parser

from gql_jobs.jetstream.errors import MessageTooLarge, Unacknowledged, Unavailable, publication_refused

log = logging.getLogger(__name__)

SubjectSubscription = nats.aio.subscription.Subscription
"""What ``Connection.receive`` and ``Connection.subscribe`` return, to be ended with ``unsubscribe`` or ``drain``."""

EXPECTED_SEQ_HEADER = "Nats-Expected-Last-Subject-Sequence"
"""The fence: the message is stored only while this is the last sequence of the subjects …"""
EXPECTED_SUBJECT_HEADER = "Nats-Expected-Last-Subject-Sequence-Subject"
"""… that this matches."""
ROLLUP_HEADER = "Nats-Rollup"
"""``sub``: the message replaces the older ones of its subject."""
SCHEDULE_HEADER = "Nats-Schedule"
"""``@at <time>``: when the server publishes the message again …"""
SCHEDULE_TARGET_HEADER = "Nats-Schedule-Target"
"""… to this subject."""
TTL_HEADER = "Nats-TTL"
"""How long the server keeps the message, such as ``60s``."""

_LINE_END = b"\r\n"
_MESSAGES = frozenset({b"MSG", b"HMSG"})
"""First words of the lines that begin a message."""
_STATUS = b"NATS/1.0 "
"""How the headers begin of what the server says itself: an empty pull, a heartbeat."""
_MEASURED_BELOW = 4096
"""Bytes that no header block of ours has: a message with more room than that below the limit is not measured."""


Take = Callable[[int, bytes, bytes, bytes, bytes | None], bool]
"""Given subscription, subject, reply, body and headers of a message: whether that is all there is to do."""


class MessageParser(Parser):
    """nats-py's parser with a short way for messages that are there as a whole, which all but the last of a read are.

    nats-py looks for each kind of line in turn, by regular expressions, cuts the buffer twice a message and keeps
    meanwhile what it has found. Here a message is found by its first line end and its length, and the buffer is cut
    once a read. Any other line is nats-py's.
    """

    def __init__(self, nc: Any, take: Take) -> None:
        """Hand messages to ``take``, and what that leaves, with everything else, to ``nc``, its client."""
        super().__init__(nc)
        self._take = take

    async def parse(self, data: bytes = b"") -> None:
        """Take bytes as they come from the server.

        :raises ProtocolError: if they are none of the protocol.
        """
        buffer = self.buf
        buffer.extend(data)
        while await self._take_messages(buffer):
            end = buffer.find(_LINE_END) + len(_LINE_END)
            # Once it has a line, nats-py would go on with all that is behind it.
            behind = buffer[end:]
            del buffer[end:]
            await super().parse()
            if self.buf is not buffer:
                return
            if buffer:
                raise ProtocolError("nats: unknown protocol")
            buffer.extend(behind)

    async def _take_messages(self, buffer: bytearray) -> bool:
        """Hand on the whole messages that the buffer begins with; whether a whole line of another kind comes next."""
        start = 0
        other = False
        while (end := buffer.find(_LINE_END, start)) >= 0:
            words = bytes(buffer[start:end]).split()
            if not words or words[0] not in _MESSAGES:
                other = True
                break
            subject, sid, reply, headers, size = _split_first_line(words)
            body = end + len(_LINE_END)
            stop = body + size
            if len(buffer) < stop + len(_LINE_END):
                break
            start = stop + len(_LINE_END)
            block = bytes(buffer[body : body + headers]) if headers else None
            data = bytes(buffer[body + headers : stop])
            if self._take(sid, subject, reply, data, block):
                continue
            await self.nc._process_msg(sid, subject, reply, data, block)  # noqa: SLF001
            if self.buf is not buffer:
                # The connection was lost meanwhile: what the next one brings begins anew.
                return False
        del buffer[:start]
        return other


def _split_first_line(words: list[bytes]) -> tuple[bytes, int, bytes, int, int]:
    """Return subject, subscription, reply, bytes of headers, and bytes in all."""
    try:
        if words[0] == b"HMSG":
            _, subject, sid, *reply, headers, size = words
            return subject, int(sid), b"".join(reply), int(headers), int(size)
        _, subject, sid, *reply, size = words
        return subject, int(sid), b"".join(reply), 0, int(size)
    except ValueError as error:
        raise ProtocolError("nats: malformed MSG") from error


class Received(msgspec.Struct, frozen=True, gc=False):
    """A message as a receiver gets it. ``headers``: only of what the server says itself."""

    subject: str
    reply: str
    data: bytes
    headers: dict[str, str] | None


Receiver = Callable[[Received], None]


class NatsClient(Client):
    """One connection. A receiver that raises is logged, and the connection goes on."""

    def __init__(self) -> None:
        super().__init__()
        self._ps = MessageParser(self, self._take)
        self._receivers: dict[str, Receiver] = {}

    async def send(self, subject: str, data: bytes, reply: str = "", headers: dict[str, str] | None = None) -> None:
        """Hand a message to the connection.

        :raises Unavailable: if it was not sent because the server is away.
        :raises MessageTooLarge: if no server would take it; none of it was sent.
        """
        # nats-py counts the body alone, and the server closes the connection on which more comes than it takes.
        if self.max_payload - len(data) < _MEASURED_BELOW:
            size = len(data) + _size_of(headers)
            if size > self.max_payload > 0:
                raise MessageTooLarge(subject, size, self.max_payload)
        try:
            await self.publish(subject, data, reply=reply, headers=headers)
        except NatsError as error:
            raise Unavailable("NATS is not reachable; nothing was sent.") from error

    async def receive(self, subject: str, receiver: Receiver) -> SubjectSubscription:
        """Subscribe to a subject that nothing else of this client subscribes to."""

        async def received(message: Msg) -> None:
            receiver(Received(message.subject, message.reply, message.data, message.headers))

        self._receivers[subject] = receiver
        try:
            return await self.subscribe(subject, cb=received)
        except BaseException:
            del self._receivers[subject]
            raise

    def forget(self, subscription: SubjectSubscription) -> None:
        """Drop the receiver of a subscription that has ended."""
        self._receivers.pop(subscription.subject, None)

    def _receiver(self, sid: int) -> Receiver | None:
        subscription = self._subs.get(sid)
        return self._receivers.get(subscription._subject) if subscription is not None else None  # noqa: SLF001

    def _take(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> bool:
        """Call the receiver, unless there is none or the server says something in the headers."""
        receiver = self._receiver(sid)
        if receiver is None or (headers is not None and headers.startswith(_STATUS)):
            return False
        _call(receiver, Received(subject.decode(), reply.decode(), data, None))
        return True

    # Overrides of nats-py from here on.

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        receiver = self._receiver(sid)
        if receiver is None:
            await super()._process_msg(sid, subject, reply, data, headers)  # type: ignore[arg-type]
            return
        _call(receiver, Received(subject.decode(), reply.decode(), data, await self._process_headers(headers)))

    async def _process_headers(self, headers: bytes | None) -> dict[str, str] | None:
        return await super()._process_headers(headers) if headers and headers.startswith(_STATUS) else None

    async def _send_publish(
        self, subject: str, reply: str, payload: bytes, payload_size: int, headers: dict[str, Any] | None
    ) -> None:
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()]) if headers else ""
        if not headers or lines.count("\n") != len(headers):
            # Without headers, or with a value of several lines, which nats-py makes one of.
            await super()._send_publish(subject, reply, payload, payload_size, headers)
            return
        block = f"NATS/1.0\r\n{lines}\r\n".encode()
        size = len(block) + payload_size
        command = f"HPUB {subject} {reply} {len(block)} {size}\r\n".encode()
        await self._send_command(b"".join((command, block, payload, b"\r\n")))
        if self._flush_queue is not None and self._flush_queue.empty():
            await self._flush_pending()


def _call(receiver: Receiver, message: Received) -> None:
    try:
        receiver(message)
    except Exception:
        log.exception("a message on %s was not received", message.subject)


def _size_of(headers: dict[str, str] | None) -> int:
    """Return the bytes of a header block: its first and its last line, and a line per header."""
    if not headers:
        return 0
    return len(b"NATS/1.0\r\n\r\n") + sum(len(name) + len(value) + len(b": \r\n") for name, value in headers.items())


class _Error(msgspec.Struct):
    err_code: int = 0
    description: str = ""


class _Ack(msgspec.Struct):
    seq: int = 0
    error: _Error | None = None


_decode_ack = msgspec.json.Decoder(_Ack).decode


class Publisher:
    """Publishes into streams: pipelined, in the order of the calls, each answered by the server's acknowledgement.

    An own reply inbox with a future per message, because nats-py's ``publish_async`` never resolves its future when the
    server refuses. It decides nothing: what a refusal means is the caller's business.
    """

    def __init__(self, client: NatsClient, inbox: str) -> None:
        """:param inbox: a subject nobody else uses; whatever comes below it belongs to ``on_ack``."""
        self._client = client
        self._inbox = inbox
        self._waiting: dict[str, tuple[asyncio.Future[int], asyncio.TimerHandle]] = {}
        self._number = 0

    @property
    def max_payload(self) -> int:
        """Bytes of the largest message the server takes."""
        return self._client.max_payload

    async def send(
        self,
        subject: str,
        data: bytes,
        headers: dict[str, str] | None,
        timeout: float,  # noqa: ASYNC109 - it is counted from the sending, whoever waits when
    ) -> asyncio.Future[int]:
        """Send and return the future of the message's sequence; messages are stored in the order of the calls.

        The future fails with a ``PublicationError``, ``Unacknowledged`` after ``timeout`` seconds among them, or, where
        no stream listens, with ``Unavailable``.

        :raises Unavailable: if nothing was sent because the server is away.
        :raises MessageTooLarge: if no server would take it.
        """
        self._number += 1
        token = str(self._number)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()
        # A timer of the loop is cheaper than a timeout context around each wait (docs/decisions.md).
        timer = loop.call_later(timeout, self._give_up, token, timeout)
        self._waiting[token] = future, timer
        try:
            await self._client.send(subject, data, f"{self._inbox}.{token}", headers)
        except BaseException:
            self._take_waiting(token)
            raise
        return future

    async def publish(self, subject: str, data: bytes, headers: dict[str, str], timeout: float) -> int:  # noqa: ASYNC109
        """Publish and return the sequence under which the message was stored.

        :raises FenceRefused: | StoreFull | PublicationRefused | Unavailable | MessageTooLarge: nothing was stored.
        :raises Unacknowledged: no answer within ``timeout`` seconds.
        """
        return await (await self.send(subject, data, headers, timeout))

    def _take_waiting(self, token: str) -> asyncio.Future[int] | None:
        """Return the future of a message, taken from those that wait; None if it is done with."""
        future, timer = self._waiting.pop(token, (None, None))
        if timer is not None:
            timer.cancel()
        return future if future is not None and not future.done() else None

    def _give_up(self, token: str, timeout: float) -> None:
        if (future := self._take_waiting(token)) is not None:
            _fail(future, Unacknowledged(f"no acknowledgement within {timeout:g} s"))

    def on_ack(self, message: Received) -> None:
        """Resolve the future of the message that an acknowledgement, or a refusal, is about."""
        future = self._take_waiting(message.subject.rsplit(".", 1)[-1])
        if future is None:
            return
        if not message.data:
            _fail(future, Unavailable("No JetStream stream takes this message; nothing was stored."))
            return
        ack = _decode_ack(message.data)
        if ack.error is None:
            future.set_result(ack.seq)
        else:
            _fail(future, publication_refused(ack.error.err_code, ack.error.description))

    def close(self) -> None:
        """Cancel the futures of all messages that nobody has acknowledged."""
        for token in list(self._waiting):
            if (future := self._take_waiting(token)) is not None:
                future.cancel()


def _fail(future: asyncio.Future[int], error: Exception) -> None:
    future.set_exception(error)
    # Looked at here, so that asyncio does not complain where nobody waits for it any more.
    future.exception()
