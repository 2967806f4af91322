"""nats-py's client with short ways for what there is most of: messages to receivers of ours, and fenced publications.

nats-py hands a message to its subscription through a queue and a task of its own, as one object, and splits up headers
that nobody here reads. A receiver is a plain function and is called from the reading of the connection. Headers of
publications are put together at once instead of line by line. The rest of nats-py is used as it is; should a later one
lack what is overridden here, it takes its own way again, and nothing else changes.
"""

import logging
from collections.abc import Callable
from typing import Any

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from gql_jobs.log.parser import MessageParser

log = logging.getLogger(__name__)

_STATUS = b"NATS/1.0 "
"""How the headers begin of what the server says itself: an empty pull, a heartbeat."""


class Received(msgspec.Struct, frozen=True, gc=False):
    """A message as a receiver gets it. ``headers``: only of what the server says itself."""

    subject: str
    reply: str
    data: bytes
    headers: dict[str, str] | None


Receiver = Callable[[Received], None]


class ShortcutClient(Client):
    """One connection. A receiver that raises is logged, and the connection goes on."""

    def __init__(self) -> None:
        super().__init__()
        self._ps = MessageParser(self, self._take)
        self._receivers: dict[str, Receiver] = {}

    async def receive(self, subject: str, receiver: Receiver) -> Subscription:
        """Subscribe to a subject that nothing else of this client subscribes to."""

        async def received(message: Msg) -> None:
            receiver(Received(message.subject, message.reply, message.data, message.headers))

        self._receivers[subject] = receiver
        try:
            return await self.subscribe(subject, cb=received)
        except BaseException:
            del self._receivers[subject]
            raise

    def forget(self, subscription: Subscription) -> None:
        """Of a subscription that has ended."""
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
