"""Job ids: UUIDs only, because an id becomes part of a subject, where a wildcard would name other jobs."""

import os
import re
import time
import uuid

_UUID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")
_KEYS = uuid.UUID("6f1c5e1e-64c5-5d8b-9b0a-3f5a8c1d7e42")


def new_job_id() -> str:
    """A UUID of version 7 (RFC 9562): ordered by time, so that an index grows at its end."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(0x3 << 62) | 2 << 62
    return str(uuid.UUID(int=value))


def job_id_for_key(idempotency_key: str) -> str:
    """The one id that a key can have, whoever asks and whenever."""
    return str(uuid.uuid5(_KEYS, idempotency_key))


def parse_job_id(text: str) -> str | None:
    """The id in its canonical spelling, or None if it is no UUID (and so no job's id)."""
    return text.lower() if _UUID.fullmatch(text) else None
