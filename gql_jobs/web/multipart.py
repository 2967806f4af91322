"""Multipart subscriptions as Apollo's clients read them (``multipart/mixed;subscriptionSpec=1.0``).

A part is complete for a client when the next boundary has come, so each boundary is sent with the part before it.
"""

from msgspec.json import encode

HEADERS = [(b"content-type", b'multipart/mixed;boundary="graphql";subscriptionSpec=1.0')]
OPENING = b"\r\n--graphql"
HEARTBEAT_INTERVAL = 5.0
"""Seconds, as Apollo's own servers have it."""
END = b"--\r\n"

_PART = b"\r\nContent-Type: application/json\r\n\r\n%b\r\n--graphql"
HEARTBEAT = _PART % b"{}"


def part(payload: bytes) -> bytes:
    """One result."""
    return _PART % (b'{"payload":%b}' % payload)


def failure(message: str, code: str) -> bytes:
    """The end of a subscription that is not its completion: clients get an error and may subscribe again."""
    errors = [{"message": message, "extensions": {"code": code}}]
    return _PART % encode({"payload": None, "errors": errors}) + END
