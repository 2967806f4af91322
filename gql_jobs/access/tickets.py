"""What may stand in a URL, where a token never does: tickets, which work once, and signatures of files.

A ticket stands for one operation of one viewer, so that ``EventSource``, which can send no header, may run it. The
bucket knows it by its hash. A signature is for one file and needs no store.
"""

import hashlib
import hmac
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct

from gql_jobs import clock
from gql_jobs.access.records import MAX_RECORD_BYTES, SigningKey, from_url_text, url_text
from gql_jobs.access.store import CredentialStore
from gql_jobs.jobs.errors import PayloadTooLarge, Unauthenticated
from gql_jobs.jobs.viewer import Scope, Viewer, ViewLimits

TICKET_SECONDS = 60
"""Seconds in which a ticket may be used."""
TICKET_PREFIX = "gjt_"
"""What a ticket begins with."""
SIGNATURE_SECONDS = 300
"""Seconds for which a signature of a file is good."""
MAX_TICKET_BYTES = MAX_RECORD_BYTES - 4096
"""Bytes that the JSON of a ticket may have: its viewer, document and variables. The rest is for headers."""
_TICKET_LENGTH = len(TICKET_PREFIX) + 43
_LONGEST_SIGNATURE = 2000


class Ticket(Struct, frozen=True, rename="camel"):
    """What a ticket stands for: an operation that ``viewer`` may run."""

    viewer: Viewer
    query: str
    variables: dict[str, Any] | None = None
    operation_name: str | None = None


class _Signature(Struct, frozen=True, array_like=True):
    key: str
    end: int
    file: str
    chain: tuple[str, ...]


def encode_ticket(ticket: Ticket) -> bytes:
    """Return what is kept of a ticket.

    :raises PayloadTooLarge: if its document and variables are too large.
    """
    stored = msgspec.json.encode(ticket)
    if len(stored) > MAX_TICKET_BYTES:
        raise PayloadTooLarge("A ticket's document with its variables", len(stored), MAX_TICKET_BYTES)
    return stored


async def make_ticket(store: CredentialStore, stored: bytes) -> str:
    """Keep what a ticket stands for, and return its text.

    :raises QueueUnavailable: if it cannot be stored.
    """
    text = TICKET_PREFIX + secrets.token_urlsafe(32)
    await store.keep(f"ticket.{_hash_of(text)}", stored, TICKET_SECONDS)
    return text


async def take_ticket(store: CredentialStore, text: str) -> Ticket:
    """Return what a ticket stands for, once: a second time it is refused, by this process and by all others.

    :raises Unauthenticated: if it is none, was used, or its time is over.
    :raises QueueUnavailable: if that cannot be known now.
    """
    if len(text) != _TICKET_LENGTH or not text.startswith(TICKET_PREFIX) or not text.isascii():
        raise Unauthenticated
    hashed = _hash_of(text)
    stored = await store.kept(f"ticket.{hashed}")
    if stored is None or not await store.keep(f"used.{hashed}", b"{}", 2 * TICKET_SECONDS):
        raise Unauthenticated
    try:
        return msgspec.json.decode(stored, type=Ticket)
    except msgspec.MsgspecError:
        raise Unauthenticated from None


def sign_file(viewer: Viewer, key: SigningKey, job_id: str, name: str, sha256: str) -> str:
    """Return the signature of a job's file for whoever is given it by a viewer.

    It differs for each content of the file, and is the same for a minute, so that browsers may keep what they have.
    """
    now = clock.now().timestamp()
    end = int(now // 60 + 1) * 60 + SIGNATURE_SECONDS - 60
    if viewer.expires_at is not None:
        end = min(end, int(viewer.expires_at.timestamp()))
    body = msgspec.json.encode(_Signature(key.id, end, sha256[:8], viewer.credentials))
    return f"{url_text(body)}.{url_text(_mac(key, body, job_id, name))}"


def read_signature(signature: str, job_id: str, name: str, signing_key: Callable[[str], SigningKey | None]) -> Viewer:
    """Return a viewer for whom there is just that job, if the signature is of its file; not whether it was revoked.

    :param signing_key: returns the key with that id.
    :raises Unauthenticated: if it is of another file, or its time is over.
    """
    try:
        if len(signature) > _LONGEST_SIGNATURE:
            raise Unauthenticated
        body, mac = (from_url_text(part) for part in signature.split("."))
        signed = msgspec.json.decode(body, type=_Signature)
    except (ValueError, msgspec.MsgspecError):
        raise Unauthenticated from None
    key = signing_key(signed.key)
    if key is None or not hmac.compare_digest(mac, _mac(key, body, job_id, name)):
        raise Unauthenticated
    ends_at = datetime.fromtimestamp(signed.end, UTC)
    if ends_at <= clock.now():
        raise Unauthenticated
    only = ViewLimits(ids=frozenset({job_id}))
    return Viewer("artifact", frozenset({Scope.READ}), None, only, ends_at, signed.chain)


def _mac(key: SigningKey, body: bytes, job_id: str, name: str) -> bytes:
    signed = b"\0".join((body, job_id.encode(), name.encode("utf-8", "surrogatepass")))
    return hmac.digest(key.derived("file"), signed, "sha256")


def _hash_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
