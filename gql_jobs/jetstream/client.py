"""nats-py's client with faster paths for received messages and for publications with headers.

nats-py passes each message through a queue to the task of its subscription and parses headers that are not used here.
A ``Receiver`` is a plain function that is called as soon as the connection has read the message. Headers of
publications are encoded in one step (docs/decisions.md has the measurements). Everything else is nats-py's; if a later
version no longer calls a method that is overridden here, it takes its own, slower path and nothing else changes.

A message that arrives is found by ``MessageParser`` and passed by ``NatsClient`` to its receiver. All messages are sent
by ``NatsClient.send``; ``Publisher`` has a future for each of its own, which the acknowledgement resolves.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec
import nats.aio.subscription
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import ProtocolError
from nats.protocol.parser import PERMISSIONS_ERR, Parser

from gql_jobs.jetstream.errors import (
    JetStreamError,
    MessageTooLarge,
    Unacknowledged,
    Unavailable,
    publication_refused,
)

log = logging.getLogger(__name__)
_T = TypeVar("_T")

SubjectSubscription = nats.aio.subscription.Subscription
"""What ``Connection.receive`` and ``Connection.subscribe`` return, to be ended with ``unsubscribe`` or ``drain``."""

EXPECTED_SEQ_HEADER = "Nats-Expected-Last-Subject-Sequence"
"""A fence: the server stores the message only if the last message of the fenced subjects has this sequence."""
EXPECTED_SUBJECT_HEADER = "Nats-Expected-Last-Subject-Sequence-Subject"
"""The subjects that ``EXPECTED_SEQ_HEADER`` is about, as a pattern."""
ROLLUP_HEADER = "Nats-Rollup"
"""With the value ``sub`` the message replaces the older ones of its subject."""
SCHEDULE_HEADER = "Nats-Schedule"
"""``@at <time>``: when the server publishes the message to the subject in ``SCHEDULE_TARGET_HEADER``."""
SCHEDULE_TARGET_HEADER = "Nats-Schedule-Target"
SCHEDULE_NEXT_HEADER = "Nats-Schedule-Next"
"""``purge``: the message ends the schedule on the subject in ``SCHEDULER_HEADER``, which is stored no more with it."""
SCHEDULER_HEADER = "Nats-Scheduler"
"""The subject to which the server publishes a scheduled message when it is due."""
TTL_HEADER = "Nats-TTL"
"""How long the server keeps the message, such as ``60s``."""

_LINE_END = b"\r\n"
_MESSAGES = frozenset({b"MSG", b"HMSG"})
"""First words of the lines that begin a message."""
_STATUS = b"NATS/1.0 "
"""The beginning of the headers of a status message of the server, such as a heartbeat or the end of a pull."""
_REFUSALS_KEPT = 64
"""How many subjects are remembered that the server has not permitted."""
_MAX_HEADER_BYTES = 4096
"""More bytes than any header block written here has: a message is measured only if it leaves less room than that."""

_NOTHING_SENT = "NATS is not reachable; nothing was sent."
SENT_AT_ONCE = 64
"""Messages of a batch that are sent at once: the server stores some while others are encoded."""

TakeMessage = Callable[[int, bytes, bytes, bytes, bytes | None], bool]
"""Given subscription id, subject, reply, body and headers: returns whether the message was handled."""


class MessageParser(Parser):
    """nats-py's parser with a faster path for messages of which all bytes have been read.

    nats-py tries a regular expression per kind of line and cuts the buffer twice a message. Here a message is found by
    the end of its first line and its length, and the buffer is cut once a read. All other lines, and a message of which
    a part is still missing, are left to nats-py.
    """

    def __init__(self, nc: Any, take: TakeMessage) -> None:
        """Pass messages to ``take``; those that it does not handle, and all other lines, go to the client ``nc``."""
        super().__init__(nc)
        self._take_message = take

    async def parse(self, data: bytes = b"") -> None:
        """Parse the next bytes from the server.

        :raises ProtocolError: if they violate the NATS protocol.
        """
        buffer = self.buf
        buffer.extend(data)
        while await self._take_messages(buffer):
            end = buffer.find(_LINE_END) + len(_LINE_END)
            # Without this nats-py would also parse the messages behind the line.
            behind = buffer[end:]
            del buffer[end:]
            await super().parse()
            if self.buf is not buffer:
                return
            if buffer:
                raise ProtocolError("nats: unknown protocol")
            buffer.extend(behind)

    async def _take_messages(self, buffer: bytearray) -> bool:
        """Pass on the whole messages at the start of the buffer; return whether another kind of whole line follows."""
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
            if self._take_message(sid, subject, reply, data, block):
                continue
            await self.nc._process_msg(sid, subject, reply, data, block)  # noqa: SLF001
            if self.buf is not buffer:
                # The connection was lost meanwhile, and the next one has a new buffer.
                return False
        del buffer[:start]
        return other


def _split_first_line(words: list[bytes]) -> tuple[bytes, int, bytes, int, int]:
    """Return subject, subscription id, reply, size of the headers, and size of headers and body, in bytes.

    :raises ProtocolError: if the line has other parts.
    """
    try:
        if words[0] == b"HMSG":
            _, subject, sid, *reply, headers, size = words
            return subject, int(sid), b"".join(reply), int(headers), int(size)
        _, subject, sid, *reply, size = words
        return subject, int(sid), b"".join(reply), 0, int(size)
    except ValueError as error:
        raise ProtocolError("nats: malformed MSG") from error


class Received(msgspec.Struct, frozen=True, gc=False):
    """A message as a receiver gets it. ``headers`` is None but for status messages of the server."""

    subject: str
    reply: str
    data: bytes
    headers: dict[str, str] | None


class Outgoing(NamedTuple):
    """A message to be sent; ``reply`` is the subject on which an answer is expected, if any."""

    subject: str
    data: bytes
    headers: dict[str, str]
    reply: str = ""


Receiver = Callable[[Received], None]
"""Called with each message while the connection is read, so it must not take long."""


class NatsClient(Client):
    """One connection. An error that a receiver raises is logged and otherwise ignored."""

    def __init__(self) -> None:
        super().__init__()
        self._ps = MessageParser(self, self._take_message)
        self._receivers: dict[str, Receiver] = {}
        self._refused: deque[str] = deque(maxlen=_REFUSALS_KEPT)

    def was_refused(self, subject: str) -> bool:
        """Return whether the server has lately not permitted this user to send to a subject."""
        return any(f'"{subject.lower()}"' in refusal for refusal in self._refused)

    async def send(self, subject: str, data: bytes, reply: str = "", headers: dict[str, str] | None = None) -> None:
        """Send a message, without waiting for an answer.

        :raises Unavailable: if it was not sent because the server is away.
        :raises MessageTooLarge: if the server would refuse its size; none of it was sent.
        """
        self.check_size(subject, data, headers)
        try:
            await self.publish(subject, data, reply=reply, headers=headers)
        except NatsError as error:
            raise Unavailable(_NOTHING_SENT) from error

    def check_size(self, subject: str, data: bytes, headers: dict[str, str] | None) -> None:
        """Check that the server takes a message of that size: it closes a connection that sends a larger one.

        :raises MessageTooLarge: if it does not.
        """
        # nats-py checks the body alone.
        if self.max_payload - len(data) < _MAX_HEADER_BYTES:
            size = len(data) + _size_of(headers)
            if size > self.max_payload > 0:
                raise MessageTooLarge(subject, size, self.max_payload)

    async def send_all(self, messages: "list[Outgoing]") -> None:
        """Send messages at once whose sizes have been checked, without waiting for answers.

        :raises Unavailable: if none was sent because the server is away.
        """
        if not self.is_connected or self.is_draining_pubs:
            raise Unavailable(_NOTHING_SENT)
        commands: list[bytes] = []
        for subject, data, headers, reply in messages:
            command = _publication(subject, reply, data, headers)
            if command is None:
                if commands:
                    await self._send_command(b"".join(commands))
                    commands.clear()
                await self.send(subject, data, reply, headers)
            else:
                commands.append(command)
        await self._send_command(b"".join(commands))
        if self._flush_queue is not None and self._flush_queue.empty():
            await self._flush_pending()

    async def receive(self, subject: str, receiver: Receiver) -> SubjectSubscription:
        """Call ``receiver`` with each message of a subject that nothing else of this client subscribes to.

        :raises nats.errors.Error: if the server is away.
        """

        async def received(message: Msg) -> None:
            receiver(Received(message.subject, message.reply, message.data, message.headers))

        self._receivers[subject] = receiver
        try:
            return await self.subscribe(subject, cb=received)
        except BaseException:
            del self._receivers[subject]
            raise

    def remove_receiver(self, subscription: SubjectSubscription) -> None:
        """Drop the receiver of a subscription that has ended."""
        self._receivers.pop(subscription.subject, None)

    def _receiver(self, sid: int) -> Receiver | None:
        subscription = self._subs.get(sid)
        return self._receivers.get(subscription._subject) if subscription is not None else None  # noqa: SLF001

    def _take_message(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> bool:
        """Call the receiver; return False for a subscription without one, and for status messages."""
        receiver = self._receiver(sid)
        if receiver is None or (headers is not None and headers.startswith(_STATUS)):
            return False
        _call_receiver(receiver, Received(subject.decode(), reply.decode(), data, None))
        return True

    # Overrides of nats-py from here on.

    async def request(self, *args: Any, **kwargs: Any) -> Msg:
        """Send and return the answer, as nats-py does; a cancellation is never lost."""
        return await _cancellable(super().request(*args, **kwargs))

    async def flush(self, *args: Any, **kwargs: Any) -> None:
        """Wait until the server has read all that was sent, as nats-py does; a cancellation is never lost."""
        await _cancellable(super().flush(*args, **kwargs))

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        # nats-py encrypts only where the server insists on it, and would send the password in clear to any other.
        server = self._current_server
        if initial_connection and server is not None and server.uri.scheme == "tls" and not info.get("tls_required"):
            if not info.get("tls_available"):
                raise NatsError("the server has no TLS, which the URL asks for; nothing was sent to it")
            info["tls_required"] = True
        await super()._process_info(info, initial_connection)

    async def _process_connect_init(self) -> None:
        try:
            await super()._process_connect_init()
        finally:
            # nats-py's protocol is not told that it was encrypted meanwhile: asyncio warns of each that ends so.
            writer = getattr(self._transport, "_io_writer", None)
            if writer is not None and writer.get_extra_info("sslcontext") is not None:
                protocol = writer.transport.get_protocol()
                if protocol is not None:
                    protocol._over_ssl = True  # noqa: SLF001

    async def _process_err(self, err_msg: str) -> None:
        if PERMISSIONS_ERR in err_msg:
            # After which the server goes on, and whoever waits for an answer to what was sent waits in vain.
            log.warning("NATS does not permit this user: %s; deploy/nats/nats-server.conf has what is needed", err_msg)
            self._refused.append(err_msg.lower())
            return
        # nats-py gives up for good, also where credentials have only expired or were changed.
        error = NatsError(f"nats: {err_msg}")
        await self._process_op_err(error)
        await self._error_cb(error)

    async def _process_pong(self) -> None:
        # What nobody waits for any more, as when the server has hung for longer than a flush waits, may not be
        # resolved: nats-py would stop reading, and hear nothing until its pings tell it so.
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        receiver = self._receiver(sid)
        if receiver is None:
            await super()._process_msg(sid, subject, reply, data, headers)  # type: ignore[arg-type]
            return
        _call_receiver(receiver, Received(subject.decode(), reply.decode(), data, await self._process_headers(headers)))

    async def _process_headers(self, headers: bytes | None) -> dict[str, str] | None:
        return await super()._process_headers(headers) if headers and headers.startswith(_STATUS) else None

    async def _send_publish(
        self, subject: str, reply: str, payload: bytes, payload_size: int, headers: dict[str, Any] | None
    ) -> None:
        command = _publication(subject, reply, payload, headers)
        if command is None:
            await super()._send_publish(subject, reply, payload, payload_size, headers)
            return
        await self._send_command(command)
        if self._flush_queue is not None and self._flush_queue.empty():
            await self._flush_pending()


def _publication(subject: str, reply: str, data: bytes, headers: dict[str, Any] | None) -> bytes | None:
    """Return the command that publishes a message; None for one without headers, which nats-py writes fast enough.

    None as well for one with a value that has line breaks, which nats-py removes.
    """
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()]) if headers else ""
    if not headers or lines.count("\n") != len(headers):
        return None
    block = f"NATS/1.0\r\n{lines}\r\n".encode()
    size = len(block) + len(data)
    return b"".join((f"HPUB {subject} {reply} {len(block)} {size}\r\n".encode(), block, data, b"\r\n"))


def _call_receiver(receiver: Receiver, message: Received) -> None:
    try:
        receiver(message)
    except Exception:
        log.exception("a message on %s was not received", message.subject)


def _size_of(headers: dict[str, str] | None) -> int:
    """Return the bytes of a header block: its first and its last line, and a line per header."""
    if not headers:
        return 0
    return len(b"NATS/1.0\r\n\r\n") + sum(len(name) + len(value) + len(b": \r\n") for name, value in headers.items())


async def _cancellable(waiting: Coroutine[Any, Any, _T]) -> _T:
    """Return what a coroutine of nats-py returns, unless the task was cancelled meanwhile.

    nats-py waits by ``asyncio.wait_for``, which in Python 3.11 drops a cancellation that comes together with the
    answer: a task without an end that asks something then goes on for ever, and with it whoever waits for its end.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    answer = await waiting
    if task is not None and task.cancelling() > before:
        raise asyncio.CancelledError
    return answer


_CLOSED = "the connection was closed before it was acknowledged"


class _Error(msgspec.Struct):
    err_code: int = 0
    description: str = ""


class _Ack(msgspec.Struct):
    seq: int = 0
    error: _Error | None = None


_decode_ack = msgspec.json.Decoder(_Ack).decode


class Publisher:
    """Publishes into streams, pipelined: many messages may be sent before the first is acknowledged.

    It has a reply inbox and a future per message of its own, because the futures of nats-py's ``publish_async`` are
    never resolved when the server refuses a message. It never repeats a message.
    """

    def __init__(self, client: NatsClient, inbox: str) -> None:
        """:param inbox: a subject of its own; the caller passes all messages of ``<inbox>.*`` to ``on_ack``."""
        self._client = client
        self._inbox = inbox
        self._waiting: dict[str, tuple[asyncio.Future[int], asyncio.TimerHandle]] = {}
        self._batched: dict[str, tuple[_Batch, int]] = {}
        """Of messages that were sent in a batch, that and their place in it."""
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
        timeout: float,  # noqa: ASYNC109 - it is counted from the sending, not from the await
    ) -> asyncio.Future[int]:
        """Send a message and return the future of its sequence; messages are stored in the order of the calls.

        The future fails with a ``PublicationError`` if the server refuses the message, with ``Unacknowledged`` (one of
        them) after ``timeout`` seconds, and with ``Unavailable`` if no stream has the subject.

        :raises Unavailable: if nothing was sent because the server is away.
        :raises MessageTooLarge: if the server would refuse its size; nothing was sent.
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
        """Send a message, wait for its acknowledgement and return the sequence under which it was stored.

        :raises FenceRefused: | StoreFull | PublicationRefused | Unavailable | MessageTooLarge: nothing was stored.
        :raises Unacknowledged: after ``timeout`` seconds without an answer; it may have been stored.
        """
        return await (await self.send(subject, data, headers, timeout))

    async def publish_all(
        self,
        messages: Sequence[Outgoing],
        timeout: float,  # noqa: ASYNC109
    ) -> list[int | JetStreamError]:
        """Send messages, pipelined, and wait for their acknowledgements; they are stored in this order.

        :param messages: without ``reply``.
        :param timeout: seconds to wait after the last was sent.
        :returns: for each its sequence, or the error that ``publish`` raises.
        """
        loop = asyncio.get_running_loop()
        batch = _Batch(len(messages), loop.create_future())
        timer: asyncio.TimerHandle | None = None
        try:
            for start in range(0, len(messages), SENT_AT_ONCE):
                if start:
                    # What was sent leaves meanwhile.
                    await asyncio.sleep(0)
                await self._send_part(batch, messages[start : start + SENT_AT_ONCE], start)
            if messages:
                timer = loop.call_later(timeout, self._end_batch, batch, f"no acknowledgement within {timeout:g} s")
                await batch.ended
        finally:
            if timer is not None:
                timer.cancel()
            self._end_batch(batch, "it was not waited for")
        return batch.outcomes

    async def _send_part(self, batch: "_Batch", messages: Sequence[Outgoing], place: int) -> None:
        outgoing: list[Outgoing] = []
        tokens: list[str] = []
        small = self.max_payload - _MAX_HEADER_BYTES
        for at, (subject, data, headers, _) in enumerate(messages, place):
            if len(data) > small:
                try:
                    self._client.check_size(subject, data, headers)
                except MessageTooLarge as error:
                    batch.end_one(at, error)
                    continue
            self._number += 1
            token = str(self._number)
            tokens.append(token)
            self._batched[token] = batch, at
            outgoing.append(Outgoing(subject, data, headers, f"{self._inbox}.{token}"))
        batch.tokens += tokens
        try:
            await self._client.send_all(outgoing)
        except Unavailable as error:
            for token in tokens:
                self._end_one(token, error)

    def _end_one(self, token: str, outcome: "int | JetStreamError") -> None:
        found = self._batched.pop(token, None)
        if found is not None:
            batch, place = found
            batch.end_one(place, outcome)

    def _end_batch(self, batch: "_Batch", why: str) -> None:
        for token in batch.tokens if batch.left else ():
            self._end_one(token, Unacknowledged(why))

    def _take_waiting(self, token: str) -> asyncio.Future[int] | None:
        """Remove a message from those that wait for an acknowledgement; return its future, None if that is done."""
        future, timer = self._waiting.pop(token, (None, None))
        if timer is not None:
            timer.cancel()
        return future if future is not None and not future.done() else None

    def _give_up(self, token: str, timeout: float) -> None:
        if (future := self._take_waiting(token)) is not None:
            _fail(future, Unacknowledged(f"no acknowledgement within {timeout:g} s"))

    def on_ack(self, message: Received) -> None:
        """Resolve the future of the message that this acknowledgement, or refusal, answers."""
        token = message.subject.rsplit(".", 1)[-1]
        if token in self._batched:
            self._end_one(token, _outcome(message.data))
            return
        future = self._take_waiting(token)
        if future is None:
            return
        outcome = _outcome(message.data)
        if isinstance(outcome, int):
            future.set_result(outcome)
        else:
            _fail(future, outcome)

    def close(self) -> None:
        """Fail the futures of all messages that are not acknowledged: nobody hears of them any more."""
        for token in list(self._waiting):
            if (future := self._take_waiting(token)) is not None:
                _fail(future, Unacknowledged(_CLOSED))
        for token in list(self._batched):
            self._end_one(token, Unacknowledged(_CLOSED))


class _Batch:
    """The outcomes of messages that were sent together; ``ended`` is resolved when there are all of them."""

    __slots__ = ("ended", "left", "outcomes", "tokens")

    def __init__(self, size: int, ended: asyncio.Future[None]) -> None:
        self.outcomes: list[int | JetStreamError] = [0] * size
        self.left = size
        self.tokens: list[str] = []
        self.ended = ended

    def end_one(self, place: int, outcome: int | JetStreamError) -> None:
        self.outcomes[place] = outcome
        self.left -= 1
        if not self.left and not self.ended.done():
            self.ended.set_result(None)


def _outcome(answer: bytes) -> int | JetStreamError:
    """Return the sequence that an acknowledgement names, or the error that it stands for."""
    if not answer:
        return Unavailable("No JetStream stream takes this message; nothing was stored.")
    ack = _decode_ack(answer)
    return ack.seq if ack.error is None else publication_refused(ack.error.err_code, ack.error.description)


def _fail(future: asyncio.Future[int], error: Exception) -> None:
    future.set_exception(error)
    # Retrieved here, so that asyncio does not log it where nothing awaits the future any more.
    future.exception()
