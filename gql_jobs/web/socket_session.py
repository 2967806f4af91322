"""Who asks over one WebSocket: for how long, and under which token next.

A token that is revoked ends what runs, and the socket stays; one that ends by itself is waited for a while. Either way
``renewAccess`` brings another one, of the same subject and tenant, and everything goes on under that.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager

from gql_jobs.access.authentication import Authentication
from gql_jobs.graphql.context import Session
from gql_jobs.jobs.errors import Forbidden
from gql_jobs.jobs.viewer import Viewer
from gql_jobs.web.request_authentication import RequestAuthentication, at, without_scheme

EXPIRY_GRACE = 5.0
"""Seconds after the end of its token for which a socket stays open, to be given another one."""


class SocketSession(Session):
    """The session of one socket. While it ``is_held`` nothing may be sent of what had begun before.

    :param address: from which the socket comes.
    :param on_revoked: called when the token has been revoked: what runs has to end.
    :param on_renewed: called with the new viewer in place, before anything goes on: what may not, has to end.
    :param on_end: called when nobody has renewed the token in time: the socket has to be closed.
    """

    __slots__ = (
        "_address",
        "_authentication",
        "_cancel_end",
        "_is_closed",
        "_on_end",
        "_on_renewed",
        "_on_revoked",
        "_passed",
        "_renewing",
        "_watch",
        "_watched_by",
    )

    def __init__(
        self,
        viewer: Viewer,
        authentication: RequestAuthentication,
        address: str,
        *,
        on_revoked: Callable[[], None],
        on_renewed: Callable[[], Awaitable[None]],
        on_end: Callable[[], None],
    ) -> None:
        super().__init__(viewer)
        self._authentication = authentication
        self._address = address
        self._on_revoked = on_revoked
        self._on_renewed = on_renewed
        self._on_end = on_end
        self._passed: asyncio.Future[None] | None = None
        """Done once what is held may go on; None while nothing is held: the token has not ended, and nothing is being
        checked for another one."""
        self._is_closed = False
        self._renewing: asyncio.Lock | None = None
        self._cancel_end: Callable[[], None] | None = None
        self._watch: AbstractContextManager[None] | None = None
        self._watched_by: Authentication | None = None

    @property
    def hold(self) -> "asyncio.Future[None] | None":
        """What is waited for at the moment, so that whoever begins meanwhile can tell it from a later one."""
        return self._passed

    async def until_free(self, since: "asyncio.Future[None] | None" = None) -> None:
        """Wait until what is held may be sent.

        :param since: the ``hold`` of the moment at which the operation began, which does not hold it.
        """
        while self._passed is not None and self._passed is not since:
            await asyncio.shield(self._passed)

    def follow(self) -> None:
        """Notice the end of the token from now on; called again before each operation, from what knows of it by then.

        :raises QueueUnavailable: if that cannot be known now.
        """
        self._follow()
        if self.viewer.credentials:
            self._authentication.access.check_followed()

    def _follow(self) -> None:
        if self._is_closed:
            # It was closed while it was being renewed.
            return
        if self._cancel_end is None and self.viewer.expires_at is not None:
            self._cancel_end = at(self.viewer.expires_at, self._expired)
        if not self.viewer.credentials:
            return
        access = self._authentication.access
        if access is not self._watched_by:
            self._unwatch()
            self._watched_by, self._watch = access, access.watch(lambda: self.viewer, self._revoked)
            self._watch.__enter__()

    async def renew(self, token: str) -> Viewer:
        """Go on under another token of the same subject and tenant, and return its viewer.

        :raises Unauthenticated: if the token is not valid.
        :raises RateLimited: if too many tokens of the address were wrong.
        :raises Forbidden: if it is of another subject or tenant.
        :raises QueueUnavailable: if it cannot be known now.
        """
        self._renewing = self._renewing or asyncio.Lock()
        async with self._renewing:
            # Nothing is awaited from here until its end is noticed: it may be revoked at any time.
            viewer = await self._authentication.viewer_of(without_scheme(token), self._address)
            if not viewer.is_known:
                return self.viewer
            if (viewer.subject, viewer.tenant) != (self.viewer.subject, self.viewer.tenant):
                raise Forbidden("A socket goes on under a token of the same subject and tenant only; open another one.")
            self._hold()
            self._forget_end()
            self.viewer, self.has_ended = viewer, False
            self._follow()
            await self._on_renewed()
            if not self.has_ended:
                self._free()
        return viewer

    def close(self) -> None:
        """Notice no end and hold nothing any more: the socket has ended."""
        self._is_closed = True
        self._forget_end()
        self._unwatch()
        self._free()

    def _expired(self) -> None:
        self.has_ended = True
        self._hold()
        self._cancel_end = asyncio.get_running_loop().call_later(EXPIRY_GRACE, self._on_end).cancel

    def _revoked(self) -> None:
        self.has_ended = True
        self._on_revoked()

    def _forget_end(self) -> None:
        if self._cancel_end is not None:
            self._cancel_end()
            self._cancel_end = None

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._watch.__exit__(None, None, None)
            self._watch = None

    def _hold(self) -> None:
        if self._passed is None and not self._is_closed:
            self._passed, self.is_held = asyncio.get_running_loop().create_future(), True

    def _free(self) -> None:
        if self._passed is not None:
            self._passed.set_result(None)
            self._passed, self.is_held = None, False
