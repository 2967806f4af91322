"""GraphQL at one path: over HTTP as one response or as a stream of them, and over WebSockets."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial

from graphql import GraphQLError, OperationType
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from strawberry.http.websocket_origin import is_same_origin, normalize_allowed_origins, normalize_origin

from gql_jobs.graphql.context import Context, Services, Session
from gql_jobs.graphql.engine.documents import OperationRequest
from gql_jobs.graphql.engine.errors import UNEXPECTED
from gql_jobs.graphql.engine.operations import Operation, Result, refused_result
from gql_jobs.graphql.schema import JobsSchema
from gql_jobs.jobs.errors import BadRequest, ErrorCode, GqlJobsError, PayloadTooLarge, RateLimited
from gql_jobs.jobs.viewer import Viewer
from gql_jobs.live.store_reach import StoreReach
from gql_jobs.settings import Settings
from gql_jobs.web import pages
from gql_jobs.web.connections import (
    Admission,
    AdmittedResponse,
    Connections,
    SocketCounts,
    budget_for,
    client_of,
)
from gql_jobs.web.graphql_request import (
    EVENT_STREAM,
    FOR_CACHES,
    GRAPHQL_RESPONSE,
    JSON,
    MULTIPART,
    UNCOUNTED_BYTES,
    BodyRejected,
    LimitedBody,
    RequestRejected,
    error_response,
    keep_subscription,
    negotiate,
    read_operation,
    too_busy,
)
from gql_jobs.web.graphql_streams import EVENT_STREAM_FORMAT, MULTIPART_FORMAT, InterruptedResponse, StreamedResponse
from gql_jobs.web.graphql_ws import PROTOCOL, TRY_AGAIN_LATER, SocketLimits, TransportWs
from gql_jobs.web.request_authentication import TICKET, RequestAuthentication, Tickets, refusal_of, refuse_token_in_url
from gql_jobs.web.runtime import RuntimeOpener
from gql_jobs.web.turns import QueryTurns, ResultTurns, StreamTurn

log = logging.getLogger(__name__)

_LOGGED_ORIGINS = 100
"""Refused origins that are logged; whoever sends more of them must not fill the log."""
_NEEDS_STREAM = (
    f"A subscription needs a WebSocket ({PROTOCOL}), or an Accept header that names "
    f"{EVENT_STREAM} or {MULTIPART};subscriptionSpec=1.0."
)
_CROSS_SITE = (
    "Pages of other sites may not have a browser send operations by GET; GQL_JOBS_CORS_ORIGINS can allow their origin."
)
_ENDING = (
    "The server is ending before the request was answered. What the request was to do may have been done; try again."
)
_NOT_ACCEPTABLE = f"This is answered as {JSON} or {GRAPHQL_RESPONSE}; the Accept header allows neither."


Answering = Callable[[Request, LimitedBody], Awaitable[ASGIApp]]
"""Answers one request, or raises a refusal."""


class AllowedOrigins:
    """The origins whose pages may call the API; each other one that tries is logged once.

    :param listed: as ``GQL_JOBS_CORS_ORIGINS`` lists them: ``:*`` stands for any port.
    """

    def __init__(self, listed: tuple[str, ...]) -> None:
        self._known = normalize_allowed_origins(origin for origin in listed if not origin.endswith(":*"))
        self._of_any_port = normalize_allowed_origins(origin[:-2] for origin in listed if origin.endswith(":*"))
        self._refused: set[str] = set()
        self.any = "*" in listed

    def allow(self, origin: str, host: str = "") -> bool:
        """Return whether pages of an origin may call the API under this host name."""
        if self.any or is_same_origin(origin, host):
            return True
        normal = normalize_origin(origin)
        if normal is not None and (normal in self._known or _without_port(normal) in self._of_any_port):
            return True
        if origin not in self._refused and len(self._refused) < _LOGGED_ORIGINS:
            self._refused.add(origin)
            log.warning("refused pages of the origin %.200r; GQL_JOBS_CORS_ORIGINS can allow it", origin)
        return False


def _without_port(origin: str) -> str:
    name, _, port = origin.rpartition(":")
    # "http://name" has a colon as well.
    return name if port.isdecimal() else origin


class GraphQLEndpoint:
    """The ASGI application that serves a schema; it raises no ``HTTPException``.

    While the runtime is not open, an operation that needs it is answered with QUEUE_UNAVAILABLE, all others as usual.

    :param opener: has the runtime that resolvers use.
    :param authentication: says who asks.
    """

    def __init__(
        self, schema: JobsSchema, settings: Settings, opener: RuntimeOpener, authentication: RequestAuthentication
    ) -> None:
        self._opener = opener
        self._authentication = authentication
        self._rates = authentication.rates
        self.connections = Connections(settings.max_socket_age)
        self.socket_counts = SocketCounts()
        self._admission = Admission(settings.max_sockets, settings.max_sockets_per_client)
        self.budget = budget_for(settings.max_body_bytes)
        self._turns = QueryTurns()
        self._result_turns = ResultTurns(4 * settings.max_body_bytes)
        self._operations = schema.operations
        self._max_body_bytes = settings.max_body_bytes
        self._request_timeout = settings.request_timeout
        self._has_page = settings.graphiql
        self.origins = AllowedOrigins(settings.cors_origins)
        self._tickets = Tickets(authentication)
        self.tickets = TicketEndpoint(self.serve, self._ticket)
        """The ASGI application that issues tickets."""
        limits = SocketLimits(
            settings.socket_init_timeout, settings.max_socket_operations, settings.socket_idle_timeout
        )
        self._sockets = TransportWs(
            self._operations,
            self._new_context,
            limits,
            self.connections,
            self.socket_counts,
            budget=self.budget,
            result_turns=self._result_turns,
            authentication=authentication,
            opened_soon=opener.opened_soon,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request or serve a WebSocket."""
        if scope["type"] == "websocket":
            await self._serve_socket(scope, receive, send)
        else:
            await self.serve(self._answer, scope, receive, send)

    async def serve(self, answer: "Answering", scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request over HTTP, whose body is limited; what is refused is refused as GraphQL is."""
        limit, timeout = self._max_body_bytes, self._request_timeout
        body = LimitedBody(receive, scope, self.budget, limit=limit, timeout=timeout)
        try:
            response = await self._response(answer, Request(scope, body.receive), body)
            if response is not None:
                await response(scope, body.receive, send)
        finally:
            body.release()

    async def _response(self, answer: "Answering", request: Request, body: LimitedBody) -> ASGIApp | None:
        """Return the response to a request; None if the client disconnected while it sent its body."""
        try:
            return await answer(request, body)
        except GqlJobsError as refusal:
            return refusal_of(refusal)
        except (RequestRejected, BodyRejected) as rejected:
            return rejected.response
        except ClientDisconnect:
            # There is nobody to answer, and nothing to log.
            return None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            # What it waited for may have been cancelled instead, by a part that has ended.
            if not self.connections.is_stopping and task is not None and task.cancelling():
                raise
            return error_response(503, _ENDING, ErrorCode.QUEUE_UNAVAILABLE.value, headers=FOR_CACHES)
        except Exception:
            log.exception("a request of GraphQL could not be answered")
            return error_response(500, UNEXPECTED, ErrorCode.INTERNAL.value, headers=FOR_CACHES)

    async def _answer(self, request: Request, body: LimitedBody) -> ASGIApp:
        accept = request.headers.get("accept", "")
        if request.method == "GET" and "query" not in request.query_params and "text/html" in accept:
            refuse_token_in_url(request.scope)
            return self._ide()
        if request.method == "GET" and self._is_cross_site(request.scope):
            raise RequestRejected(403, _CROSS_SITE, code=ErrorCode.FORBIDDEN.value)
        asked, viewer = await self._asked(request)
        context = self._new_context(partial(client_of, request.scope), Session(viewer))
        context.is_abandoned = partial(_has_disconnected, request.scope, request.receive)
        operation = self._operations.operation(asked, context)
        kind = operation.type
        if kind is OperationType.MUTATION and request.method == "GET":
            raise RequestRejected(405, "A mutation needs POST.", allow="POST")
        media_type = negotiate(accept, kind)
        if media_type in {EVENT_STREAM, MULTIPART}:
            return self._stream(operation, media_type, request, body)
        if media_type is None:
            is_subscription = kind is OperationType.SUBSCRIPTION
            raise RequestRejected(406, _NEEDS_STREAM if is_subscription else _NOT_ACCEPTABLE)
        return await self._single(operation, media_type, request.scope, body)

    async def _ticket(self, request: Request, _body: LimitedBody) -> ASGIApp:
        viewer = await self._authentication.viewer(request.scope)
        self._rates.spend("operations", partial(client_of, request.scope), viewer)
        return await self._tickets.issue(request, viewer)

    async def _asked(self, request: Request) -> tuple[OperationRequest, Viewer]:
        """Return the operation that a request asks for, and who asks: before anything of the body is read."""
        address = partial(client_of, request.scope)
        if request.method != "GET" or TICKET not in request.query_params:
            viewer = await self._authentication.viewer(request.scope)
            self._rates.spend("operations", address, viewer)
            asked = await read_operation(request)
            # The body may have been long in coming.
            self._authentication.check(viewer)
            return asked, viewer
        refuse_token_in_url(request.scope)
        self._rates.spend("operations", address)
        return await self._tickets.redeem(request)

    def _new_context(self, address: Callable[[], str], session: Session) -> Context:
        context = Context(self._services, session)
        context.client = address
        context.store_reach = self._store_reach
        context.count_creations = partial(self._count_creations, address, session)
        return context

    def _count_creations(self, address: Callable[[], str], session: Session, number: int) -> None:
        self._rates.spend("creations", address, session.viewer, number)

    def _services(self) -> Services:
        services = self._opener.current
        if services is None:
            raise self._opener.unavailable()
        return services

    def _store_reach(self) -> StoreReach:
        return self._opener.store_reach

    def _ide(self) -> Response:
        if not self._has_page:
            raise RequestRejected(404, "There is no page here: GraphiQL is switched off (GQL_JOBS_GRAPHIQL).")
        return pages.graphiql()

    def _stream(self, operation: Operation, media_type: str, request: Request, body: LimitedBody) -> ASGIApp:
        self._admission.check(request.scope)
        self._rates.spend("connections", partial(client_of, request.scope))
        if operation.type is OperationType.SUBSCRIPTION:
            try:
                # Of the request only its head is kept beside the operation.
                if not keep_subscription(operation, body.held, _head_size(request.scope)):
                    raise too_busy()
            except PayloadTooLarge as error:
                return error_response(413, error.message, headers=FOR_CACHES, **error.extensions)
        if media_type == EVENT_STREAM:
            operation.context.resume_after = request.headers.get("last-event-id") or None
        if operation.context.resume_after is not None and self._opener.current is None:
            # An EventSource that comes back while the server starts would take an error for the end of its stream.
            return AdmittedResponse(InterruptedResponse(EVENT_STREAM_FORMAT), self._admission)
        operation.context.turn = StreamTurn(self._result_turns, client_of(request.scope))
        is_query = operation.type is OperationType.QUERY
        results = self._one(operation, request.scope, body) if is_query else self._operations.results(operation)
        response = StreamedResponse(
            results,
            EVENT_STREAM_FORMAT if media_type == EVENT_STREAM else MULTIPART_FORMAT,
            self.connections,
            resumed=operation.context.resume_after is not None,
            # A mutation cut short would be neither done nor refused.
            finished=operation.type is OperationType.MUTATION,
            until_ended=partial(self._authentication.until_ended, operation.context.session.viewer),
            unsent=partial(self._result_turns.unsent, client_of(request.scope)),
        )
        return AdmittedResponse(response, self._admission)

    async def _single(self, operation: Operation, media_type: str, scope: Scope, body: LimitedBody) -> Response:
        result = await self._result(operation, scope, body)
        if result is None:
            return refusal_of(too_busy())
        if operation.type is OperationType.QUERY:
            self._authentication.check(operation.context.session.viewer)
        status = _status(result) if media_type == GRAPHQL_RESPONSE else 200
        wait = _retry_after(result.errors) if result.errors else None
        headers = {**FOR_CACHES, "Retry-After": str(wait)} if wait is not None else FOR_CACHES
        payload = result.payload
        kind = Response if len(payload) <= UNCOUNTED_BYTES else _ReadResponse
        return kind(payload, status, headers, f"{media_type}; charset=utf-8")

    async def _result(self, operation: Operation, scope: Scope, body: LimitedBody) -> Result | None:
        """Return the result; None if it is of a query, and its client has too many bytes on the way."""
        if operation.type is not OperationType.QUERY:
            return await self._operations.result(operation)
        async with self._turns.taken(client_of(scope)):
            result = await self._operations.result(operation)
            size = len(result.payload)
        fits = size <= UNCOUNTED_BYTES or body.held.resize(body.held.size + size)
        return result if fits else None

    async def _one(self, operation: Operation, scope: Scope, body: LimitedBody) -> AsyncGenerator[Result, None]:
        """Yield the result of a query; a refusal if its client has too many bytes on the way."""
        result = await self._result(operation, scope, body)
        busy = too_busy()
        yield result or refused_result([GraphQLError(busy.message, extensions=busy.extensions)])

    async def _serve_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            refuse_token_in_url(scope)
        except BadRequest as refusal:
            self.socket_counts.closed("server", 1000)
            await refusal_of(refusal)(scope, receive, send)
            return
        # Browsers apply no CORS to WebSockets, so the server has to.
        if self._is_foreign(scope):
            self.socket_counts.closed("server", 1000)
            # Closed before it is accepted, which is sent as status 403.
            await send({"type": "websocket.close"})
            return
        try:
            self._admission.check(scope)
            self._rates.spend("connections", partial(client_of, scope))
        except RateLimited as refusal:
            await self._sockets.reject(scope, receive, send, TRY_AGAIN_LATER, refusal.message.rstrip("."))
            return
        with self._admission.admitted(scope):
            await self._sockets(scope, receive, send)

    def _is_foreign(self, scope: Scope) -> bool:
        """Return whether the page that sends a request is of an origin that may not connect."""
        headers = dict(scope["headers"])
        origin: str = headers.get(b"origin", b"").decode("latin-1")
        return bool(origin) and not self.origins.allow(origin, headers.get(b"host", b"").decode("latin-1"))

    def _is_cross_site(self, scope: Scope) -> bool:
        """Return whether a page of another site has its browser send a GET, which browsers do without asking first.

        An ``<img>`` is enough for that. A POST needs a media type that browsers ask for.
        """
        headers = dict(scope["headers"])
        return self._is_foreign(scope) if b"origin" in headers else headers.get(b"sec-fetch-site") == b"cross-site"


class _ReadResponse(Response):
    """A response that is over when its client has read nearly all of it, so that it counts for as long."""

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Send the response."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        # The server takes nothing more before the client has read.
        await send({"type": "http.response.body", "body": b""})


class TicketEndpoint:
    """The ASGI application that issues tickets; it raises no ``HTTPException``."""

    def __init__(self, serve: Callable[[Answering, Scope, Receive, Send], Awaitable[None]], answer: Answering) -> None:
        self._serve = serve
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request for a ticket."""
        await self._serve(self._answer, scope, receive, send)


async def _has_disconnected(scope: Scope, receive: Receive) -> bool:
    # Another Request than the one that was answered, which would keep its body.
    return await Request(scope, receive).is_disconnected()


def _head_size(scope: Scope) -> int:
    return len(scope["query_string"]) + sum(len(name) + len(value) for name, value in scope["headers"])


def _retry_after(errors: list[GraphQLError]) -> int | None:
    """Return the seconds after which all of an operation may be tried again; None if nothing of it came too often."""
    waits = [(error.extensions or {}).get("retryAfter") for error in errors]
    return max((wait for wait in waits if isinstance(wait, int)), default=None)


def _status(result: Result) -> int:
    """Return the status for ``application/graphql-response+json``: 200 if the operation was run, else 400 or 500."""
    if not result.refused:
        return 200
    codes = {(error.extensions or {}).get("code") for error in result.errors or ()}
    return 500 if ErrorCode.INTERNAL.value in codes else 400
