"""What the bucket of credentials holds: API keys by their hashes, keys to sign and to hash with, and revocations.

A record with a field that this version does not know is refused: it may be one that narrows what the key is for.
"""

import base64
import hashlib
import hmac
import re
import secrets
from datetime import datetime, timedelta
from functools import cached_property

import msgspec
from msgspec import Struct

from gql_jobs import clock
from gql_jobs.jobs.errors import InvalidArgument
from gql_jobs.jobs.payload_codec import HashKey
from gql_jobs.jobs.viewer import NO_LIMITS, Scope, Viewer, ViewLimits

ACCESS_BUCKET = "gql-jobs-access"
"""The name of the bucket."""
MAX_RECORD_BYTES = 1 << 17
"""Bytes of the largest value in it: a ticket with its document and variables."""
KEY_PREFIX = "gj_"
"""What an API key begins with; secret scanners know it by that."""
KEY_SUBJECT = "key:"
"""What the subject of an API key begins with; the name of the key follows."""
LONGEST_LIFE = timedelta(days=30)
"""How long a view token may last, and so how long a key to sign with is needed after another has replaced it."""
MAX_NAME = 200
"""Characters of the name of a key, of a tenant and of each entry of a limit, at most."""
MAX_ENTRIES = 1000
"""Entries of a limit, at most."""

KEY_ID_LENGTH = 12
"""Characters of the id of an API key; that of a view token has more."""
SIGNING_ID_LENGTH = 8
"""Characters of the id of a key to sign with, which the ids of what it has signed begin with."""

_KEY_ID = re.compile(r"[0-9A-Za-z]{12}")
_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


class KeyRecord(Struct, frozen=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True, dict=True):
    """An API key as it is stored. ``hash``: the SHA-256 of the whole key in hexadecimal, never the key."""

    id: str
    name: str
    hash: str
    scopes: frozenset[Scope]
    created_at: datetime
    tenant: str | None = None
    limits: ViewLimits = NO_LIMITS
    expires_at: datetime | None = None
    revoked_at: datetime | None = None

    @cached_property
    def viewer(self) -> Viewer:
        """Whoever comes with the key."""
        return Viewer(KEY_SUBJECT + self.name, self.scopes, self.tenant, self.limits, self.expires_at, (self.id,))

    @cached_property
    def digest(self) -> bytes:
        """The hash as bytes."""
        return bytes.fromhex(self.hash)

    @cached_property
    def ends_at(self) -> float:
        """When the key ends by itself, in seconds since 1970, or infinite; one that was revoked has always ended.

        The clock of whoever has revoked it plays no part.
        """
        if self.revoked_at is not None:
            return float("-inf")
        return self.expires_at.timestamp() if self.expires_at is not None else float("inf")


class SigningKey(Struct, frozen=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True, dict=True):
    """A key to sign view tokens with. One that was replaced (``retired_at``) still verifies what it has signed."""

    id: str
    secret: bytes
    created_at: datetime
    retired_at: datetime | None = None

    def derived(self, purpose: str) -> bytes:
        """Return the key for one purpose, so that what was signed for one is nothing for another."""
        kept: bytes | None = self.__dict__.get(purpose)
        if kept is None:
            kept = self.__dict__[purpose] = hmac.digest(self.secret, purpose.encode(), "sha256")
        return kept

    def __repr__(self) -> str:
        return f"<SigningKey {self.id}>"


class RevocationRecord(Struct, frozen=True, rename="camel"):
    """A view token that was ended before its time, which is ``until``."""

    until: datetime


def new_key(
    name: str,
    scopes: frozenset[Scope],
    tenant: str | None = None,
    limits: ViewLimits = NO_LIMITS,
    expires_at: datetime | None = None,
) -> tuple[str, KeyRecord]:
    """Make an API key; return its text, which nobody can read out of the record, and the record.

    :raises InvalidArgument: if a name, a tenant or a limit is empty or too long, or there are too many of them.
    """
    check_name(name, "name")
    if tenant is not None:
        check_name(tenant, "tenant")
    check_limits(limits)
    key_id = _random_text(KEY_ID_LENGTH)
    text = f"{KEY_PREFIX}{key_id}_{_random_text(43)}"
    return text, KeyRecord(key_id, name, digest_of(text).hex(), scopes, clock.now(), tenant, limits, expires_at)


def new_signing_key() -> SigningKey:
    """Make a key to sign with."""
    return SigningKey(url_text(secrets.token_bytes(SIGNING_ID_LENGTH * 3 // 4)), secrets.token_bytes(32), clock.now())


def new_hash_key() -> HashKey:
    """Make a key to hash confidential payloads with."""
    return HashKey(_random_text(SIGNING_ID_LENGTH), secrets.token_bytes(32))


def id_in_key(text: str) -> str:
    """Return the id within the text of an API key; of another text whatever stands in that place."""
    return text[len(KEY_PREFIX) : len(KEY_PREFIX) + KEY_ID_LENGTH]


def digest_of(token: str) -> bytes:
    """Return what is kept of a key or token in its place: its SHA-256."""
    return hashlib.sha256(token.encode()).digest()


def is_key_id(credential_id: str) -> bool:
    """Return whether this is the id of an API key, and not of a view token."""
    return _KEY_ID.fullmatch(credential_id) is not None


def check_name(name: str, what: str) -> None:
    """Check the name of a key, a tenant, or an entry of a limit.

    :raises InvalidArgument: if it is empty, longer than ``MAX_NAME``, or has control characters.
    """
    if not name or len(name) > MAX_NAME or name != name.strip() or _UNPRINTABLE.search(name):
        raise InvalidArgument(
            what,
            f"A value of {what} must have 1 to {MAX_NAME} characters, no control characters, and no space at its ends.",
        )


def check_limits(limits: ViewLimits) -> None:
    """Check the entries of limits.

    :raises InvalidArgument: if there are more than ``MAX_ENTRIES`` of a kind, or one is no name.
    """
    for kind in limits.__struct_fields__:
        entries = getattr(limits, kind) or ()
        if len(entries) > MAX_ENTRIES:
            raise InvalidArgument(kind, f"There may be at most {MAX_ENTRIES} {kind}.")
        for entry in entries:
            check_name(entry, kind)


def encode_record(record: Struct) -> bytes:
    """Return the JSON of a record, alike for alike records."""
    return msgspec.json.encode(record, order="deterministic")


def url_text(data: bytes) -> str:
    """Return bytes as text for URLs and headers: base64 with ``-`` and ``_``, without padding."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def from_url_text(text: str) -> bytes:
    """Return the bytes of such a text.

    :raises ValueError: if it is none, or not the way in which ``url_text`` writes them.
    """
    data = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
    if url_text(data) != text:
        raise ValueError("these bytes are written otherwise")
    return data


def _random_text(length: int) -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(length))
