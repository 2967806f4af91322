"""View tokens: JSON Web Tokens for browsers, which we sign ourselves, and ids that say whose they are.

A token is ``gjv_`` and a JWT that is signed with HS256 and nothing else. Its id can be checked without a store: it
holds its end and is marked for the subject and the tenant of whoever it was made for.
"""

import hmac
import secrets
from collections.abc import Callable
from datetime import UTC, datetime

import jwt
import msgspec
from msgspec import Struct

from gql_jobs import clock
from gql_jobs.access.records import SIGNING_ID_LENGTH, SigningKey, from_url_text, url_text
from gql_jobs.jobs.errors import Forbidden, InvalidArgument, Unauthenticated
from gql_jobs.jobs.viewer import NO_LIMITS, Scope, Viewer, ViewLimits

VIEW_TOKEN_PREFIX = "gjv_"  # noqa: S105 - it says what follows
"""What a view token begins with."""
MAX_CHAIN = 8
"""How many credentials a view token may go back to, itself among them."""
MAX_VIEW_TOKEN = 4800
"""Characters of the longest view token: what servers and proxies take in a header."""
_KNOWN = "view token"
_UNKNOWN = "view token of nobody"
_MARK = 10
"""Bytes of each mark of an id: whose it is, of which tenant, and that it is one of ours."""
_RANDOM = 12
_END = 5


class IssuedToken(Struct, frozen=True):
    """A view token that was just made. ``token`` is shown once, to whoever has asked for it."""

    token: str
    id: str
    expires_at: datetime

    def __repr__(self) -> str:
        return f"<IssuedToken {self.id}>"


class ViewTokenClaims(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a view token says, by the names of JWT where they have one.

    ``jti``: its id; ``sub``: for whom; ``iat`` and ``exp``: when it was made and when it ends, in seconds since 1970;
    ``scp``: the scopes; ``tnt``: the tenant; ``lim``: the limits; ``chain``: the ids of the credentials it was made
    with; ``own``: whether READ is for what the subject has created alone.
    """

    jti: str
    sub: str
    iat: int
    exp: int
    scp: frozenset[Scope]
    tnt: str | None = None
    lim: ViewLimits = NO_LIMITS
    chain: tuple[str, ...] = ()
    own: bool = False


def make_view_token(viewer: Viewer, key: SigningKey, expires_at: datetime, *, known: bool) -> IssuedToken:
    """Return a token for a viewer, whose ``credentials`` are those that it is made with.

    :param known: whether its maker was authenticated; if not, the token is none where that is asked for.
    :raises Forbidden: if they are too many.
    :raises InvalidArgument: if the token would be too long for a header.
    """
    if len(viewer.credentials) >= MAX_CHAIN:
        raise Forbidden(f"A view token that was made with another one may go back to {MAX_CHAIN} of them at most.")
    end = int(expires_at.timestamp())
    token_id = _make_id(viewer, key, end)
    claims = ViewTokenClaims(
        token_id,
        viewer.subject,
        int(clock.timestamp()),
        end,
        viewer.scopes,
        viewer.tenant,
        viewer.limits,
        viewer.credentials,
        viewer.sees_own,
    )
    payload = msgspec.to_builtins(claims, order="deterministic")
    text = VIEW_TOKEN_PREFIX + jwt.encode(payload, key.derived(_KNOWN if known else _UNKNOWN), "HS256", {"kid": key.id})
    if len(text) > MAX_VIEW_TOKEN:
        raise InvalidArgument("limitedTo", "A view token with so many limits would be too long for a header.")
    return IssuedToken(text, token_id, datetime.fromtimestamp(end, UTC))


def read_view_token(token: str, signing_key: Callable[[str], SigningKey | None]) -> Viewer:
    """Return the viewer of a token, whose end and signature are checked, but not whether it was revoked.

    :param signing_key: returns the key with that id.
    :raises Unauthenticated: if it is no valid token.
    """
    text = token[len(VIEW_TOKEN_PREFIX) :]
    try:
        # A decoder of bytes takes several spellings of a signature for one.
        from_url_text(text.rpartition(".")[2])
        key_id = jwt.get_unverified_header(text).get("kid")
        key = signing_key(key_id) if isinstance(key_id, str) else None
        if key is None:
            raise Unauthenticated
        payload = jwt.decode(
            text,
            key.derived(_KNOWN),
            algorithms=["HS256"],
            # The clocks of two hosts differ a little; when it was made plays no part.
            options={"require": ["exp", "iat", "sub", "jti"], "verify_iat": False},
        )
        claims = msgspec.convert(payload, ViewTokenClaims)
        ends = datetime.fromtimestamp(claims.exp, UTC)
    except (jwt.PyJWTError, msgspec.ValidationError, ValueError, OverflowError, OSError, RecursionError):
        # Not chained: what failed quotes the token.
        raise Unauthenticated from None
    return Viewer(claims.sub, claims.scp, claims.tnt, claims.lim, ends, (claims.jti, *claims.chain), claims.own)


class TokenId(Struct, frozen=True):
    """An id of a view token that is one of ours: when the token ends, and whether it is of a viewer's subject."""

    ends_at: datetime
    is_own: bool
    """Whether the token was made for the same subject and tenant."""
    is_of_tenant: bool
    """Whether the token was made for the same tenant."""


def read_token_id(token_id: str, viewer: Viewer, signing_key: Callable[[str], SigningKey | None]) -> TokenId | None:
    """Return what an id says about a token, as seen by a viewer; None if it is none of ours, or its key has gone."""
    key = signing_key(token_id[:SIGNING_ID_LENGTH])
    try:
        body = from_url_text(token_id[SIGNING_ID_LENGTH:])
    except ValueError:
        return None
    if key is None or len(body) != _RANDOM + _END + 3 * _MARK:
        return None
    drawn, marks = body[: _RANDOM + _END], body[_RANDOM + _END :]
    if not hmac.compare_digest(body[-_MARK:], _seal(key, body[:-_MARK])):
        return None
    by_subject, by_tenant = _marks(viewer, key, drawn)
    ends_at = datetime.fromtimestamp(int.from_bytes(drawn[_RANDOM:], "big"), UTC)
    is_own = hmac.compare_digest(marks[:_MARK], by_subject)
    return TokenId(ends_at, is_own, hmac.compare_digest(marks[_MARK : 2 * _MARK], by_tenant))


def _make_id(viewer: Viewer, key: SigningKey, end: int) -> str:
    drawn = secrets.token_bytes(_RANDOM) + end.to_bytes(_END, "big")
    marked = drawn + b"".join(_marks(viewer, key, drawn))
    return key.id + url_text(marked + _seal(key, marked))


def _seal(key: SigningKey, marked: bytes) -> bytes:
    """Return what marks an id as one of ours, whoever asks."""
    return hmac.digest(key.derived("token id"), b"seal\0" + marked, "sha256")[:_MARK]


def _marks(viewer: Viewer, key: SigningKey, drawn: bytes) -> tuple[bytes, bytes]:
    """Return what marks an id as of a subject and of a tenant."""
    secret = key.derived("token id")
    tenant = b"t" + viewer.tenant.encode() if viewer.tenant is not None else b"-"
    parts = (b"subject\0" + tenant + b"\0" + viewer.subject.encode(), b"tenant\0" + tenant)
    by_subject, by_tenant = (hmac.digest(secret, drawn + part, "sha256")[:_MARK] for part in parts)
    return by_subject, by_tenant
