"""Who sends a request or opens a socket: the key or token in ``Authorization``, or in ``connection_init``.

Never in a URL: what stands in one is kept by histories, proxies and logs. ``EventSource``, which can send no header,
has a ticket there: ``POST /tickets`` with a bearer, then one ``GET /graphql?ticket=…`` for one operation.

Without authentication everybody is ``ANYBODY``, whatever they bring. A host that this application is part of may say
itself who asks (docs/embedding.md).
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote

from msgspec.json import encode
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from gql_jobs import clock
from gql_jobs.access.authentication import Authentication
from gql_jobs.access.records import digest_of
from gql_jobs.graphql.engine.documents import OperationRequest
from gql_jobs.jobs.errors import BadRequest, ErrorCode, GqlJobsError, RateLimited, Unauthenticated
from gql_jobs.jobs.viewer import ANYBODY, Viewer
from gql_jobs.settings import Settings
from gql_jobs.web.connections import client_of
from gql_jobs.web.graphql_request import (
    FOR_CACHES,
    RequestRejected,
    error_response,
    read_operation,
    read_operation_of_url,
    too_often,
)
from gql_jobs.web.rate_limits import RateLimits
from gql_jobs.web.runtime import RuntimeOpener

_T = TypeVar("_T")

HOST_VIEWER = "gql_jobs.viewer"
"""The key of an ASGI scope under which a host's middleware says who asks: a ``Viewer``, which is taken as it is."""
TICKET = "ticket"
"""The parameter of the query string that has one."""
_BEARER = "bearer "
_BEARER_IN_HEADER = _BEARER.encode()
_NOT_IN_URLS = frozenset({"token", "access_token", "authorization", "api_key"})
_TOKEN = re.compile(r"gj_[0-9A-Za-z]{12}_[0-9A-Za-z]{43}|(?<![\w-])(gjv_)?eyJ[\w-]+\.eyJ")
"""A key, a view token or any other JSON Web Token. These begin where a word does, so that long words are read once."""
_LONGEST_TIMER = 86_400.0
"""Seconds after which a timer for the end of a token is set anew."""
_STATUS = {
    ErrorCode.UNAUTHENTICATED: 401,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.PAYLOAD_TOO_LARGE: 413,
    ErrorCode.QUEUE_UNAVAILABLE: 503,
}


class RequestAuthentication:
    """Tells who sends a request, and when that one's credential ends.

    :param rates: limits the wrong tokens of an address.
    """

    def __init__(self, settings: Settings, opener: RuntimeOpener, rates: RateLimits) -> None:
        self.required = settings.auth == "required"
        """Whether whoever asks needs a key or a token."""
        self._opener = opener
        self.rates = rates

    @property
    def access(self) -> Authentication:
        """Return what knows keys and tokens.

        :raises QueueUnavailable: while it is not there yet.
        """
        return self._opener.runtime.access

    async def viewer(self, scope: Scope) -> Viewer:
        """Return who sends a request over HTTP, by its header ``Authorization`` alone.

        :raises BadRequest: if there is a token in the query string.
        :raises Unauthenticated: if the header is missing, or what it holds is not valid (any more).
        :raises RateLimited: if too many tokens of the address were wrong.
        :raises QueueUnavailable: if it cannot be known now.
        """
        refuse_token_in_url(scope)
        host_viewer: Viewer | None = scope.get(HOST_VIEWER)
        if host_viewer is not None or not self.required:
            return host_viewer or ANYBODY
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1 or given[0][: len(_BEARER)].lower() != _BEARER_IN_HEADER:
            raise Unauthenticated
        return await self.viewer_of(given[0][len(_BEARER) :].strip().decode("latin-1"), client_of(scope))

    async def viewer_of_init(self, parameters: dict[str, Any] | None, address: str) -> Viewer:
        """Return who opens a socket, by ``authorization`` in the payload of its ``connection_init``.

        :raises Unauthenticated: if it is missing, or what it holds is not valid (any more).
        :raises RateLimited: if too many tokens of the address were wrong.
        :raises QueueUnavailable: if it cannot be known now.
        """
        if not self.required:
            return ANYBODY
        named = {name.lower(): value for name, value in (parameters or {}).items()}
        given = named.get("authorization")
        if not isinstance(given, str):
            raise Unauthenticated
        return await self.viewer_of(without_scheme(given), address)

    async def viewer_of(self, token: str, address: str) -> Viewer:
        """Return who comes with a token.

        :raises Unauthenticated: if it is not valid (any more).
        :raises RateLimited: if too many tokens of the address were wrong.
        :raises QueueUnavailable: if it cannot be known now.
        """
        if not self.required:
            return ANYBODY
        return await self.verified(token, address, self.access.viewer_of)

    def check(self, viewer: Viewer) -> None:
        """Check that the credential of whoever has asked has not ended meanwhile.

        :raises Unauthenticated: if it has.
        :raises QueueUnavailable: if that cannot be known now.
        """
        if viewer.credentials:
            self.access.check(viewer)
        elif viewer.expires_at is not None and viewer.expires_at <= clock.now():
            # Known by an identity provider, or by the host.
            raise Unauthenticated

    async def verified(self, secret: str, address: str, verify: Callable[[str, bytes], Awaitable[_T]]) -> _T:
        """Return what ``verify`` does of a token, a ticket or a signature, and count for its address if it is wrong.

        :param verify: is given it with its digest, so that a request has one made only once.
        :raises Unauthenticated: as ``verify`` raises it.
        :raises RateLimited: if too many of the address were wrong; then it is not looked at.
        """
        digest = digest_of(secret)
        self.rates.check_token(address, digest)
        try:
            found = await verify(secret, digest)
        except Unauthenticated:
            self.rates.token_verified(address, digest, valid=False)
            raise
        self.rates.token_verified(address, digest, valid=True)
        return found

    @contextmanager
    def until_ended(self, viewer: Viewer, on_end: Callable[[], None]) -> Iterator[None]:
        """Call ``on_end`` when a credential of the viewer is revoked, within a second, and when it ends by itself.

        It may be called twice, and at once.

        :raises QueueUnavailable: if that cannot be known now.
        """
        with ExitStack() as stack:
            if viewer.is_known and viewer.credentials:
                stack.enter_context(self.access.watch(lambda: viewer, on_end))
            if viewer.expires_at is not None:
                stack.callback(at(viewer.expires_at, on_end))
            yield


class Tickets:
    """Issues tickets, and gives the operation that one stands for."""

    def __init__(self, authentication: RequestAuthentication) -> None:
        self._authentication = authentication

    async def issue(self, request: Request, viewer: Viewer) -> Response:
        """Return the response with a ticket for the operation in a request's body.

        :raises RequestRejected, BodyRejected: if the body is none of GraphQL, or the method is not POST.
        :raises RateLimited: if too many tickets were asked for.
        :raises PayloadTooLarge: if the operation is too large to be kept.
        :raises QueueUnavailable: if it cannot be kept now.
        """
        if request.method != "POST":
            raise RequestRejected(405, "A ticket is asked for by POST.", allow="POST")
        asked = await read_operation(request)
        if not asked.query:
            raise BadRequest("A ticket needs the whole document: `query`, not its digest.")
        access = self._authentication.access
        ticket, seconds = await access.ticket(viewer, asked.query, asked.variables, asked.operation_name)
        body = encode({"ticket": ticket, "expiresIn": seconds})
        return Response(body, headers={"Cache-Control": "no-store"}, media_type="application/json")

    async def redeem(self, request: Request) -> tuple[OperationRequest, Viewer]:
        """Return the operation that the ticket in a URL stands for, and for whom it runs.

        What else of a request the URL has, has to be the same.

        :raises Unauthenticated: if the ticket is none, was used, or has ended.
        :raises BadRequest: if the URL has two tickets, or asks for something else.
        :raises QueueUnavailable: if it cannot be known now.
        """
        given = request.query_params.getlist(TICKET)
        if len(given) != 1:
            raise BadRequest("A URL has one ticket.")
        beside = read_operation_of_url(request)
        address = client_of(request.scope)
        access = self._authentication.access
        ticket = await self._authentication.verified(given[0], address, lambda text, _: access.use_ticket(text))
        bound: dict[str, Any] = {
            "query": ticket.query,
            "variables": ticket.variables,
            "operationName": ticket.operation_name,
        }
        if any(name in beside and beside[name] != value for name, value in bound.items()):
            raise Unauthenticated("The ticket is for another operation, and is used up.")
        return OperationRequest(ticket.query, ticket.variables, ticket.operation_name), ticket.viewer


def at(moment: datetime, call: Callable[[], None]) -> Callable[[], None]:
    """Have something called at a moment, in the running event loop; return what cancels that."""
    loop = asyncio.get_running_loop()
    timer: asyncio.Handle

    def wake() -> None:
        nonlocal timer
        left = (moment - clock.now()).total_seconds()
        if left <= 0:
            call()
            return
        # The clock may be set meanwhile.
        timer = loop.call_later(min(left, _LONGEST_TIMER), wake)

    def cancel() -> None:
        timer.cancel()

    timer = loop.call_soon(wake)
    return cancel


def without_scheme(text: str) -> str:
    """Return the token of ``Bearer …``, or the text itself where it has no scheme."""
    return text[len(_BEARER) :].strip() if text[: len(_BEARER)].lower() == _BEARER else text.strip()


def refuse_token_in_url(scope: Scope) -> None:
    """Refuse a query string that has a token.

    :raises BadRequest: if there is a parameter that is named as one, or anything that looks like one.
    """
    if not scope["query_string"]:
        return
    query: str = scope["query_string"].decode("latin-1")
    names = {name.lower() for name, _ in parse_qsl(query, keep_blank_values=True)}
    if not names.isdisjoint(_NOT_IN_URLS) or _TOKEN.search(unquote(query)):
        raise BadRequest(
            "A key or token does not belong into a URL, where others find it: send it as Authorization: Bearer …, on a "
            "WebSocket in connection_init; EventSource gets a ticket from /tickets."
        )


def refusal_of(error: GqlJobsError) -> Response:
    """Return the response to a request that is refused before it is read."""
    if isinstance(error, RateLimited):
        return too_often(error)
    challenge = {"WWW-Authenticate": "Bearer"} if error.code is ErrorCode.UNAUTHENTICATED else {}
    headers = {**FOR_CACHES, **challenge}
    return error_response(_STATUS.get(error.code, 400), error.message, headers=headers, **error.extensions)
