"""nats-py's parser with a short way for messages that are there as a whole, which all but the last of a read are.

nats-py looks for each kind of line in turn, by regular expressions, cuts the buffer twice a message and keeps meanwhile
what it has found. Here a message is found by its first line end and its length, and the buffer is cut once a read. Any
other line is nats-py's.
"""

from collections.abc import Callable
from typing import Any

from nats.errors import ProtocolError
from nats.protocol.parser import Parser

_END = b"\r\n"
_KINDS = frozenset({b"MSG", b"HMSG"})


Take = Callable[[int, bytes, bytes, bytes, bytes | None], bool]
"""Given subscription, subject, reply, body and headers of a message: whether that is all there is to do."""


class MessageParser(Parser):
    """Hands messages to ``take``, and what that leaves, with everything else, to ``nc``, its client."""

    def __init__(self, nc: Any, take: Take) -> None:
        super().__init__(nc)
        self._take = take

    async def parse(self, data: bytes = b"") -> None:
        """Take bytes as they come from the server.

        :raises ProtocolError: if they are none of the protocol.
        """
        buffer = self.buf
        buffer.extend(data)
        while await self._messages(buffer):
            end = buffer.find(_END) + len(_END)
            # Once it has a line, nats-py would go on with all that is behind it.
            behind = buffer[end:]
            del buffer[end:]
            await super().parse()
            if self.buf is not buffer:
                return
            if buffer:
                raise ProtocolError("nats: unknown protocol")
            buffer.extend(behind)

    async def _messages(self, buffer: bytearray) -> bool:
        """Hand on the whole messages that the buffer begins with; whether a whole line of another kind comes next."""
        start = 0
        other = False
        while (end := buffer.find(_END, start)) >= 0:
            words = bytes(buffer[start:end]).split()
            if not words or words[0] not in _KINDS:
                other = True
                break
            subject, sid, reply, headers, size = _read(words)
            body = end + len(_END)
            stop = body + size
            if len(buffer) < stop + len(_END):
                break
            start = stop + len(_END)
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


def _read(words: list[bytes]) -> tuple[bytes, int, bytes, int, int]:
    """Subject, subscription, reply, bytes of headers, and bytes in all."""
    try:
        if words[0] == b"HMSG":
            _, subject, sid, *reply, headers, size = words
            return subject, int(sid), b"".join(reply), int(headers), int(size)
        _, subject, sid, *reply, size = words
        return subject, int(sid), b"".join(reply), 0, int(size)
    except ValueError as error:
        raise ProtocolError("nats: malformed MSG") from error
