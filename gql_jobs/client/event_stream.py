"""Server-sent events as bytes bring them, and how long is waited for a connection that is lost.

Nothing here sends or sleeps: the terminal does it in threads, the client on an event loop.
"""

import json
import random
from collections.abc import Iterator
from typing import Any

from gql_jobs.client.errors import Unreachable

CONNECT_WITHIN = 10.0
"""Seconds until a connection has to stand."""
ANSWER_BEGINS_WITHIN = 90.0
"""Seconds until an answer has to begin: longer than the server takes to give up anything by itself."""
SILENT_FOR = 40.0
"""Seconds without a byte after which a stream counts as lost; the server says something every 12."""
_MAX_MESSAGE = 16 << 20
"""Bytes of one server-sent event, at most."""
LONGEST_NAMED_WAIT = 120.0
"""Seconds that a server may name until it is asked again, at most."""
PASSING = frozenset({"QUEUE_UNAVAILABLE", "RATE_LIMITED", "SERVER_STOPPING", "TIMEOUT"})
"""Codes of refusals after which the same may be asked for again."""
_MOST_DOUBLINGS = 10


class EventStream:
    """Reads server-sent events from bytes, by hand: what is text may hold all that Unicode calls a line break."""

    def __init__(self) -> None:
        self._rest = b""
        self._kind = ""
        self._data: list[bytes] = []
        self.retry = 0.0
        """Seconds after which the server wants to be asked again; 0 while it has not said."""

    def feed(self, chunk: bytes) -> Iterator[tuple[str, bytes]]:
        """Yield the kind and the data of each event that is complete with these bytes.

        :raises Unreachable: if an event is larger than any that the API sends.
        """
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) + sum(map(len, self._data)) > _MAX_MESSAGE:
            raise Unreachable(f"An event has more than {_MAX_MESSAGE} bytes.")
        for line in lines:
            name, colon, value = line.removesuffix(b"\r").partition(b":")
            value = value.removeprefix(b" ")
            if name == b"event":
                self._kind = value.decode("utf-8", "replace")
            elif name == b"data":
                self._data.append(value)
            elif name == b"retry" and value.isdigit():
                self.retry = min(int(value) / 1000, LONGEST_NAMED_WAIT)
            elif not name and not colon and self._kind:
                kind, data, self._kind, self._data = self._kind, b"\n".join(self._data), "", []
                yield kind, data


def errors_in(answer: Any) -> list[dict[str, Any]]:
    """Return the errors of a GraphQL answer, read from its JSON, each as an object; none where it has none."""
    errors = answer.get("errors") if isinstance(answer, dict) else None
    if not isinstance(errors, list):
        return []
    return [one if isinstance(one, dict) else {"message": str(one)} for one in errors]


def event_in(data: bytes) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """Return the event of one result of a subscription, or the errors that stand in its place.

    :raises Unreachable: if it is no result.
    """
    try:
        result = json.loads(data)
        if errors := errors_in(result):
            return None, errors
        (event,) = map(dict, result["data"].values())
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise Unreachable("What came is no event of this API.") from error
    return event, []


def named_wait(extensions: dict[str, Any]) -> float:
    """Return the seconds after which the API says that it may be asked again; 0 where it does not."""
    named = extensions.get("retryAfter")
    return min(float(named), LONGEST_NAMED_WAIT) if isinstance(named, int | float) else 0.0


class ConnectionBackoff:
    """How long is waited before each try for a connection: at random, and longer each time.

    :param first: seconds before the first one, at most, where the server has named no time.
    :param longest: seconds before any, at most, unless the server names a longer time.
    """

    def __init__(self, first: float = 1.0, longest: float = 15.0) -> None:
        self._first = first
        self._longest = longest
        self._tries = 0

    def is_over(self) -> None:
        """Begin anew: a connection stands."""
        self._tries = 0

    def wait(self, named: float = 0.0) -> float:
        """Return the seconds until the next try.

        :param named: those that the server has named; 0 where it has not.
        """
        longest = max(named, min((named or self._first) * 2**self._tries, self._longest))
        self._tries = min(self._tries + 1, _MOST_DOUBLINGS)
        return random.uniform(named or longest / 2, longest)  # noqa: S311 - a wait is no secret
