"""Server-sent events: the protocol graphql-sse in its distinct connections mode, which an ``EventSource`` reads too."""

import random

HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8")]
HEARTBEAT = b":\n\n"
HEARTBEAT_INTERVAL = 12.0
"""Seconds; proxies commonly close what is silent for half a minute or more."""
END = b"event: complete\ndata:\n\n"
"""``data`` is there, though empty: without it an ``EventSource`` would not tell its listener."""

_RETRY = (1000, 5000)
"""Milliseconds. Each client gets a delay of its own, so that those of a lost server do not come back as one."""


def opening() -> bytes:
    """What comes first: when to reconnect, should the stream break."""
    return b"retry: %d\n\n" % random.randint(*_RETRY)  # noqa: S311


def event(payload: bytes, cursor: str | None) -> bytes:
    """One result. Lines end in LF alone: urql does not look for anything else."""
    place = b"" if cursor is None else b"id: %b\n" % cursor.encode()
    return b"event: next\n%bdata: %b\n\n" % (place, payload)
