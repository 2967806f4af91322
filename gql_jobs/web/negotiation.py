"""Which media type answers a request: by what the client accepts, and by whether it runs a subscription."""

import re
from functools import lru_cache
from typing import NamedTuple
from urllib.request import parse_http_list

from graphql import OperationType

JSON = "application/json"
GRAPHQL_RESPONSE = "application/graphql-response+json"
EVENT_STREAM = "text/event-stream"
MULTIPART = "multipart/mixed"

_SINGLE = (JSON, GRAPHQL_RESPONSE)
_STREAMS = (EVENT_STREAM, MULTIPART)
_PARAMETER = re.compile(r';\s*([\w.+-]+)\s*=\s*("[^"]*"|[^;\s]*)')


class _Range(NamedTuple):
    """One entry of ``Accept``."""

    media_type: str
    parameters: dict[str, str]
    quality: float


@lru_cache(128)
def negotiate(accept: str, operation: OperationType | None) -> str | None:
    """The media type to answer with, or None where the client accepts none that can.

    The higher ``q`` wins, then the earlier entry. A stream must be named: ``*/*`` is what clients send that do not know
    of streams. Queries and mutations are answered as a stream only where nothing else is accepted.

    :param operation: None where the request does not say, which is then an error to be answered.
    """
    ranges = [_range(entry) for entry in parse_http_list(accept)] or [_Range("*/*", {}, 1.0)]
    if operation is OperationType.SUBSCRIPTION:
        return _best(ranges, _STREAMS)
    return _best(ranges, _SINGLE) or _best(ranges, _STREAMS)


def _range(entry: str) -> _Range:
    parameters = {name.lower(): value.strip('"') for name, value in _PARAMETER.findall(entry)}
    try:
        quality = float(parameters.pop("q", "1"))
    except ValueError:
        quality = 0.0
    return _Range(entry.partition(";")[0].strip().lower(), parameters, quality)


def _best(ranges: list[_Range], offered: tuple[str, ...]) -> str | None:
    ranked = []
    for preference, media_type in enumerate(offered):
        match = _match(ranges, media_type)
        if match is not None and match[1].quality > 0:
            position, accepted = match
            ranked.append((-accepted.quality, position, preference, media_type))
    return min(ranked)[-1] if ranked else None


def _match(ranges: list[_Range], media_type: str) -> tuple[int, _Range] | None:
    """The most specific entry that covers the type, with its position."""
    wildcards = () if media_type in _STREAMS else (media_type.partition("/")[0] + "/*", "*/*")
    for wanted in (media_type, *wildcards):
        for position, entry in enumerate(ranges):
            if entry.media_type == wanted and (media_type != MULTIPART or _is_subscription(entry.parameters)):
                return position, entry
    return None


def _is_subscription(parameters: dict[str, str]) -> bool:
    """Apollo's clients say which protocol they mean; ``deferspec`` means incremental delivery, which is another."""
    return parameters.get("subscriptionspec", "1.0") == "1.0" and "deferspec" not in parameters
