"""Who comes with which key or token: one ``Authentication`` for each API process, which answers from memory."""

import asyncio
import hmac
import logging
import time
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from gql_jobs import clock
from gql_jobs.access.identity_provider import IdentityProvider
from gql_jobs.access.key_set import KeySet
from gql_jobs.access.records import (
    KEY_PREFIX,
    LONGEST_LIFE,
    check_limits,
    digest_of,
    from_url_text,
    id_in_key,
    is_key_id,
    url_text,
)
from gql_jobs.access.store import CredentialStore, open_credential_store
from gql_jobs.access.tickets import (
    TICKET_SECONDS,
    Ticket,
    encode_ticket,
    make_ticket,
    read_signature,
    sign_file,
    take_ticket,
)
from gql_jobs.access.view_tokens import VIEW_TOKEN_PREFIX, IssuedToken, make_view_token, read_token_id, read_view_token
from gql_jobs.jetstream.connection import Connection
from gql_jobs.jobs.errors import Forbidden, InvalidArgument, RateLimited, Unauthenticated
from gql_jobs.jobs.model import artifact_path
from gql_jobs.jobs.payload_codec import HashKey
from gql_jobs.jobs.viewer import ANYBODY, NO_LIMITS, Scope, Viewer, ViewLimits
from gql_jobs.processes.event_loop import in_background
from gql_jobs.settings import Settings

log = logging.getLogger(__name__)

MAX_TOKEN = 16_384
"""Characters of a key or token; a longer one is refused unread."""
MAX_KNOWN = 10_000
"""Tokens that were checked and are remembered, at most."""
MAX_KNOWN_CHARACTERS = 16 << 20
"""Characters that these have together, at most."""
MAX_TICKETS_BYTES = 64 << 20
"""Bytes of the tickets that one process gives out within a minute, at most; a sixteenth for one key or token."""
_SMALLEST_TICKET = 1024
"""Bytes that a ticket counts for at least."""
_EXPIRY_CHECK = 0.5
"""Seconds between two looks at whether a key's time is over."""
_NO_KEY = bytes(32)


class _KnownToken(Struct):
    viewer: Viewer
    ends_at: float
    size: int
    version: int


class _Watched(Struct, eq=False):
    viewer: Callable[[], Viewer]
    on_revoked: Callable[[], None]
    told: Viewer | None = None


class Authentication:
    """Tells who comes with a key or token, and makes what browsers are given.

    Without authentication (``required`` is false) everybody is ``ANYBODY``, whatever they bring, and what is made works
    alike, so that a front end needs no other code.
    """

    def __init__(self, store: CredentialStore, provider: IdentityProvider | None, *, required: bool) -> None:
        self._store = store
        self._provider = provider
        self.required = required
        """Whether whoever asks needs a key or a token."""
        self._known: OrderedDict[bytes, _KnownToken] = OrderedDict()
        self._known_size = 0
        self._watched: dict[int, _Watched] = {}
        self._tickets: deque[tuple[float, str, int]] = deque()
        self._tickets_of: Counter[str] = Counter()
        self._tickets_size = 0
        store.on_change.append(self._tell_ended)
        if provider is not None:
            provider.keys.on_change = self._forget_tokens_of_provider

    async def viewer_of(self, token: str, digest: bytes | None = None) -> Viewer:
        """Return who comes with a key, a view token or a token of the identity provider.

        :param digest: the token's, as ``digest_of`` has it, if the caller has it already.
        :raises Unauthenticated: if it is not valid (any more).
        :raises QueueUnavailable: if that cannot be known now.
        """
        if not self.required:
            return ANYBODY
        if len(token) > MAX_TOKEN or not token.isascii():
            raise Unauthenticated
        if digest is None:
            digest = digest_of(token)
        if token.startswith(KEY_PREFIX):
            return self._of_key(token, digest)
        if (known := self._known.get(digest)) is not None:
            return self._still(known, digest)
        if token.startswith(VIEW_TOKEN_PREFIX):
            self._store.check_fresh()
            viewer = read_view_token(token, self._store.signing_key)
            self._check(viewer)
        elif self._provider is not None:
            viewer = await self._provider.viewer_of(token)
        else:
            raise Unauthenticated
        self._remember(digest, viewer, len(token))
        return viewer

    def _of_key(self, text: str, digest: bytes) -> Viewer:
        self._store.check_fresh()
        record = self._store.keys.get(id_in_key(text))
        # An id that there is not takes the same way as a wrong secret.
        is_it = hmac.compare_digest(record.digest if record is not None else _NO_KEY, digest)
        if record is None or not is_it or record.ends_at <= clock.timestamp():
            raise Unauthenticated
        return record.viewer

    def _still(self, known: _KnownToken, digest: bytes) -> Viewer:
        if known.viewer.credentials:
            self._store.check_fresh()
        if known.ends_at <= clock.timestamp():
            self._forget(digest)
            raise Unauthenticated
        if known.version != self._store.version:
            self._check(known.viewer)
            known.version = self._store.version
        self._known.move_to_end(digest)
        return known.viewer

    def _remember(self, digest: bytes, viewer: Viewer, size: int) -> None:
        assert viewer.expires_at is not None
        self._forget(digest)
        self._known[digest] = _KnownToken(viewer, viewer.expires_at.timestamp(), size, self._store.version)
        self._known_size += size
        while len(self._known) > MAX_KNOWN or self._known_size > MAX_KNOWN_CHARACTERS:
            self._forget(next(iter(self._known)))

    def _forget(self, digest: bytes) -> None:
        if (known := self._known.pop(digest, None)) is not None:
            self._known_size -= known.size

    def _forget_tokens_of_provider(self) -> None:
        """Have all tokens of the provider verified anew: one of its keys may have been withdrawn."""
        for digest in [digest for digest, known in self._known.items() if not known.viewer.credentials]:
            self._forget(digest)

    def _has_ended(self, viewer: Viewer) -> bool:
        """Return whether a credential of the viewer was revoked, or a key's time is over."""
        now = clock.timestamp()
        return any(self._store.has_ended(one, now) for one in viewer.credentials)

    def check_followed(self) -> None:
        """Check that it can be known whether a key or a view token was revoked.

        :raises QueueUnavailable: if not.
        """
        self._store.check_fresh()

    @property
    def has_provider_keys(self) -> bool:
        """Whether tokens of the identity provider can be verified, or there is none."""
        return self._provider is None or self._provider.keys.is_known

    def check(self, viewer: Viewer) -> None:
        """Check that a viewer is still one.

        :raises Unauthenticated: if its time is over, or one of its credentials was revoked.
        :raises QueueUnavailable: if that cannot be known now.
        """
        if viewer.credentials:
            self._store.check_fresh()
        self._check(viewer)

    def _check(self, viewer: Viewer) -> None:
        if not viewer.is_known:
            return
        if self._has_ended(viewer) or (viewer.expires_at is not None and viewer.expires_at <= clock.now()):
            raise Unauthenticated

    # View tokens.

    def issue(self, viewer: Viewer, limits: ViewLimits, scopes: Iterable[Scope], seconds: int) -> IssuedToken:
        """Return a view token that is no wider than its maker and ends no later.

        :param seconds: how long it lasts, 1 to 30 days of them.
        :raises Forbidden: if a limit or a scope is wider than the maker's.
        :raises InvalidArgument: if ``seconds`` or a limit is out of range.
        :raises Unauthenticated: if the maker's own credential has ended.
        :raises QueueUnavailable: if that cannot be known now.
        """
        if not 1 <= seconds <= LONGEST_LIFE.total_seconds():
            raise InvalidArgument(
                "ttlSeconds", f"ttlSeconds must be 1 to {int(LONGEST_LIFE.total_seconds())}, not {seconds}."
            )
        check_limits(limits)
        self.check(viewer)
        narrowed = viewer.limited(limits, scopes)
        if narrowed is None:
            raise Forbidden("A view token cannot be wider than the key or token that it is made with.")
        ends = clock.now() + timedelta(seconds=seconds)
        if viewer.expires_at is not None:
            ends = min(ends, viewer.expires_at)
        return make_view_token(narrowed, self._store.newest_signing_key, ends, known=viewer.is_known)

    async def hash_key(self) -> HashKey:
        """Return the key to hash confidential payloads with, the same in all API processes.

        :raises QueueUnavailable: if it cannot be read or made.
        """
        return await self._store.hash_key()

    async def revoke(self, viewer: Viewer, credential_id: str) -> bool:
        """End a view token or a key; return False if there is none that this viewer may end.

        That is one that was made for the same subject and tenant. With OPERATE and without limits it is any token of
        the viewer's tenant; without a tenant any token, and any key.

        :raises QueueUnavailable: if it may not have ended.
        """
        may_any = viewer.may(Scope.OPERATE) and viewer.limits == NO_LIMITS
        if is_key_id(credential_id):
            return may_any and viewer.tenant is None and await self._store.revoke_key(credential_id)
        found = read_token_id(credential_id, viewer, self._store.signing_key)
        if found is None or found.ends_at <= clock.now():
            return False
        if not (found.is_own or (may_any and (found.is_of_tenant or viewer.tenant is None))):
            return False
        await self._store.revoke_token(credential_id, found.ends_at)
        return True

    # What may stand in a URL.

    def artifact_url(self, viewer: Viewer, job_id: str, name: str, sha256: str) -> str:
        """Return the path of a job's file; with authentication signed, for five minutes, for whoever is given it.

        Whether the viewer may see the job is the caller's to check. ``sha256`` is the file's, so that the path of
        another content under the same name is another one.

        :raises QueueUnavailable: if nothing can be signed at the moment.
        """
        path = artifact_path(job_id, name)
        if not self.required:
            return path
        return f"{path}?signature={sign_file(viewer, self._store.newest_signing_key, job_id, name, sha256)}"

    def artifact_viewer(self, job_id: str, name: str, signature: str) -> Viewer:
        """Return a viewer for whom there is just the job of a signed file.

        :raises Unauthenticated: if the signature is of another file, its time is over, or a credential of whoever it
            was made for was revoked.
        :raises QueueUnavailable: if that cannot be known now.
        """
        if not self.required:
            return ANYBODY
        self._store.check_fresh()
        viewer = read_signature(signature, job_id, name, self._store.signing_key)
        self._check(viewer)
        return viewer

    async def ticket(
        self, viewer: Viewer, query: str, variables: dict[str, Any] | None, operation_name: str | None
    ) -> tuple[str, int]:
        """Return a ticket for one operation, to be used once, and for how many seconds it is good.

        :raises PayloadTooLarge: if the document and its variables are too large.
        :raises RateLimited: if too many were given out within the last minute.
        :raises QueueUnavailable: if it cannot be stored.
        """
        stored = encode_ticket(Ticket(viewer, query, variables, operation_name))
        self._count_ticket(viewer.counted_as, len(stored))
        return await make_ticket(self._store, stored), TICKET_SECONDS

    def _count_ticket(self, holder: str, size: int) -> None:
        now, size = time.monotonic(), max(size, _SMALLEST_TICKET)
        while self._tickets and self._tickets[0][0] <= now - TICKET_SECONDS:
            _, past, freed = self._tickets.popleft()
            self._tickets_size -= freed
            self._tickets_of[past] -= freed
            if not self._tickets_of[past]:
                del self._tickets_of[past]
        own = self._tickets_of[holder] + size
        if own > MAX_TICKETS_BYTES // 16 or self._tickets_size + size > MAX_TICKETS_BYTES:
            raise RateLimited("Too many tickets were asked for within a minute.", TICKET_SECONDS)
        self._tickets.append((now, holder, size))
        self._tickets_of[holder] = own
        self._tickets_size += size

    async def use_ticket(self, ticket: str) -> Ticket:
        """Return what a ticket stands for; it works once, whichever process is asked.

        :raises Unauthenticated: if it is none, was used, its time is over, or its viewer's is.
        :raises QueueUnavailable: if that cannot be known now.
        """
        found = await take_ticket(self._store, ticket)
        if not self.required:
            return replace(found, viewer=ANYBODY)
        if found.viewer == ANYBODY:
            # Made by a process that asks for no authentication.
            raise Unauthenticated
        self.check(found.viewer)
        return found

    # What is signed or kept for others who make plans of their own.

    def sign(self, purpose: str, body: bytes) -> str:
        """Return a text that holds a body, and that ``signed`` reads for the same purpose in every API process.

        :raises QueueUnavailable: if there is no key to sign with at the moment.
        """
        key = self._store.newest_signing_key
        mac = hmac.digest(key.derived(purpose), body, "sha256")
        return f"{key.id}.{url_text(body)}.{url_text(mac)}"

    def signed(self, purpose: str, text: str) -> bytes | None:
        """Return the body of a text that was signed for that purpose; None if it was not."""
        try:
            key_id, body, mac = text.split(".")
            key, read, given = self._store.signing_key(key_id), from_url_text(body), from_url_text(mac)
        except ValueError:
            return None
        if key is None or not hmac.compare_digest(given, hmac.digest(key.derived(purpose), read, "sha256")):
            return None
        return read

    async def keep(self, name: str, value: bytes, seconds: int) -> None:
        """Store a value in the bucket for a time, in the place of an earlier one.

        :raises QueueUnavailable: if it may not be stored.
        """
        await self._store.keep(name, value, seconds, replace=True)

    async def kept(self, name: str) -> bytes | None:
        """Return such a value, or None.

        :raises QueueUnavailable: if it cannot be read.
        """
        return await self._store.kept(name)

    # Ends.

    @contextmanager
    def watch(self, viewer: Callable[[], Viewer], on_revoked: Callable[[], None]) -> Iterator[None]:
        """Call ``on_revoked`` within a second of the moment when a credential of the viewer is revoked.

        A key is revoked also once its time is over. That of tokens is in ``Viewer.expires_at``, for the caller to wait
        for. It is called once for a viewer, at once if it has ended already.

        :param viewer: returns the viewer at the moment; it may become another one by a renewal.
        """
        watched = _Watched(viewer, on_revoked)
        self._watched[id(watched)] = watched
        try:
            self._tell(watched)
            yield
        finally:
            del self._watched[id(watched)]

    def _tell_ended(self) -> None:
        for watched in list(self._watched.values()):
            self._tell(watched)

    def _tell(self, watched: _Watched) -> None:
        viewer = watched.viewer()
        if viewer is watched.told or not self.required or not viewer.credentials or not self._has_ended(viewer):
            return
        watched.told = viewer
        try:
            watched.on_revoked()
        except Exception:
            log.exception("the end of a credential was not told to an operation")

    async def run(self) -> None:
        """Notice keys whose time is over; never ends by itself."""
        looked = clock.timestamp()
        while True:
            await asyncio.sleep(_EXPIRY_CHECK)
            now = clock.timestamp()
            if any(looked < key.ends_at <= now for key in self._store.keys.values()):
                self._tell_ended()
            looked = now


@asynccontextmanager
async def open_authentication(
    connection: Connection, settings: Settings, clock: Callable[[], float] = time.monotonic
) -> AsyncIterator[Authentication]:
    """Yield the authentication of this process, which knows all keys, until the block ends.

    :param clock: seconds that only grow; by them a process knows how long it has heard nothing of the bucket.
    :raises QueueUnavailable: if the bucket of credentials cannot be read.
    """
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_credential_store(connection, settings.replicas, clock))
        provider = None
        if settings.jwks is not None and settings.auth == "required":
            provider = IdentityProvider(settings, KeySet(settings.jwks, clock))
            await stack.enter_async_context(in_background(provider.keys.run()))
        authentication = Authentication(store, provider, required=settings.auth == "required")
        await stack.enter_async_context(in_background(authentication.run()))
        yield authentication
