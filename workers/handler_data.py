"""What handlers hand over, made fit to be stored or refused; the same on the event loop and in a process."""

from typing import Any

import msgspec

MAX_CHECKPOINT = 256 * 1024
"""Bytes of a checkpoint's JSON."""
MAX_MESSAGE = 1000
"""Characters of a progress message."""


def reported(percent: float, message: str | None) -> tuple[int, str | None]:
    """Progress as it is stored: whole percents from 0 to 100, a message cut to size.

    :raises ValueError: if ``percent`` is no number.
    """
    whole = round(min(max(percent, 0.0), 100.0))
    # Lone surrogates are no UTF-8 and would make this and the job's last event unstorable.
    return whole, None if message is None else message[:MAX_MESSAGE].encode("utf-8", "replace").decode()


def checkpoint_json(data: Any) -> bytes:
    """A checkpoint as it is stored.

    :raises ValueError: if the data is no JSON, or too large.
    """
    try:
        body = msgspec.json.encode(data)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"The checkpoint is no JSON: {error}") from error
    if len(body) > MAX_CHECKPOINT:
        raise ValueError(f"The checkpoint has {len(body)} bytes; the limit is {MAX_CHECKPOINT}.")
    return body
