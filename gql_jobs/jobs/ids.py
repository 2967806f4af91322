"""Job ids: UUIDs only, because an id becomes part of a subject, where a wildcard would name other jobs."""

import re
import uuid

_UUID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")
_KEYS = uuid.UUID("6f1c5e1e-64c5-5d8b-9b0a-3f5a8c1d7e42")


def new_job_id() -> str:
    """A random UUID: its first digits, which the log shows, tell jobs apart; those of a time-ordered one do not."""
    return str(uuid.uuid4())


def job_id_for_key(idempotency_key: str) -> str:
    """The one id that a key can have, whoever asks and whenever."""
    return str(uuid.uuid5(_KEYS, idempotency_key))


def parse_job_id(text: str) -> str | None:
    """The id in its canonical spelling, or None if it is no UUID (and so no job's id)."""
    return text.lower() if _UUID.fullmatch(text) else None
