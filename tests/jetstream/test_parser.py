"""The short way through nats-py's protocol finds what nats-py finds."""

import asyncio
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.errors import ProtocolError
from nats.protocol.parser import Parser

from gql_jobs.jetstream.client import MessageParser

_WORD = st.text("abc.$_>*09", min_size=1, max_size=12).map(str.encode)
_BODY = st.binary(max_size=40) | st.sampled_from([b"", b"\r\n", b"MSG a 1 0\r\n\r\n", b"PING\r\n", b"x" * 5000])


@st.composite
def _message(draw: st.DrawFn) -> bytes:
    words = [draw(_WORD), str(draw(st.integers(1, 999))).encode()]
    if draw(st.booleans()):
        words.append(draw(_WORD))
    body = draw(_BODY)
    if draw(st.booleans()):
        block = b"NATS/1.0\r\n" + draw(_BODY) + b"\r\n\r\n"
        sizes = [str(len(block)).encode(), str(len(block + body)).encode()]
        return b" ".join([b"HMSG", *words, *sizes]) + b"\r\n" + block + body + b"\r\n"
    return b" ".join([b"MSG", *words, str(len(body)).encode()]) + b"\r\n" + body + b"\r\n"


_OTHER = st.sampled_from([b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b"-ERR 'slow'\r\n", b'INFO {"port":1}\r\n'])


class _Heard:
    """Writes down what a parser finds."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        async def heard(*arguments: Any) -> None:
            self.calls.append((name, *arguments))

        return heard


def _taken_by_nobody(*_: Any) -> bool:
    return False


def _ours(client: Any) -> MessageParser:
    return MessageParser(client, _taken_by_nobody)


def _found(kind: Callable[[Any], Parser], pieces: list[bytes]) -> list[Any]:
    async def run() -> list[Any]:
        client = _Heard()
        parser = kind(client)
        for piece in pieces:
            await parser.parse(piece)
        return [*client.calls, bytes(parser.buf)]

    return asyncio.run(run())


@given(st.lists(_message() | _OTHER, max_size=8), st.lists(st.integers(0, 20_000), max_size=6))
def test_it_finds_what_nats_py_finds_however_the_bytes_are_cut(lines: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(lines)
    ends = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    pieces = [stream[start:end] for start, end in pairwise(ends)]
    assert _found(_ours, pieces) == _found(Parser, [stream])


@pytest.mark.parametrize("line", [b"HELLO\r\n", b"MSG a\r\n", b"MSG a b 1\r\n", b"HMSG a 1 x 3\r\n", b"\r\n"])
def test_what_is_no_line_of_the_protocol_is_an_error(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        _found(_ours, [b"MSG a 1 2\r\nhi\r\n" + line])


async def test_what_a_lost_connection_had_sent_does_not_reach_the_next() -> None:
    class Losing(_Heard):
        async def _process_msg(self, *arguments: Any) -> None:
            self.calls.append(arguments)
            parser.reset()

    client = Losing()
    parser = _ours(client)
    await parser.parse(b"MSG a 1 2\r\nhi\r\nMSG a 1 2\r\nho\r\nMSG a 1 2\r\nh")
    await parser.parse(b"MSG b 1 2\r\nhe\r\n")
    assert [arguments[3] for arguments in client.calls] == [b"hi", b"he"]
