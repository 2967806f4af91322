"""Middleware of the kind ``http`` in front of WebSockets, whose handshake is an HTTP request as well.

Starlette's ``BaseHTTPMiddleware``, which ``@app.middleware("http")`` makes, lets every socket pass unseen. Whoever
writes an authentication so would guard each request and no subscription, without a word.
"""

import asyncio
import logging
from collections.abc import Awaitable, Iterable, Iterator
from inspect import isclass
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Mount, Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)

_SWITCHING_PROTOCOLS = 101
_UNSEEN = (
    "a socket was refused: %s has middleware of the kind 'http' behind a layer that does not show which application it "
    "is around (an attribute `app`), so it cannot be asked whether it lets the socket in"
)

_NOT_KNOWN = (
    "sockets come through an application of Starlette around the one that mounts this API: middleware of the kind "
    "'http' of the former is not asked about them. Make it an application of FastAPI, or the middleware an ASGI class"
)


def sees_requests_only(kind: object) -> bool:
    """Return whether a class of middleware passes sockets on unseen."""
    return isclass(kind) and issubclass(kind, BaseHTTPMiddleware) and kind.__call__ is BaseHTTPMiddleware.__call__


def with_handshakes(middleware: Iterable[Middleware]) -> list[Middleware]:
    """Return the same middleware, in which those of the kind ``http`` see the handshakes of sockets as well."""
    kinds: list[tuple[Any, Middleware]] = [(each.cls, each) for each in middleware]
    return [
        Middleware(HandshakesToo, kind, *each.args, **each.kwargs) if sees_requests_only(kind) else each
        for kind, each in kinds
    ]


class HandshakesToo:
    """A middleware of the kind ``http``, which is also asked about the handshake of every socket.

    :param kind: its class; the rest is what that is made with.
    """

    def __init__(self, app: ASGIApp, kind: type[BaseHTTPMiddleware], *args: Any, **options: Any) -> None:
        self._of_requests = kind(app, *args, **options)
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request or a socket on, unless the middleware answers it itself."""
        if scope["type"] != "websocket":
            await self._of_requests(scope, receive, send)
        elif (refusal := await _refusal([self._of_requests], scope)) is None:
            await self.app(scope, receive, send)
        else:
            await _refuse(refusal, scope, receive, send)


class BehindHost:
    """An ASGI application whose sockets pass all middleware of the application around it, the kind ``http`` too.

    :param own: the application that a host mounts, or whose routes it includes.
    :param app: what serves, behind the host's middleware.
    """

    def __init__(self, own: ASGIApp, app: ASGIApp) -> None:
        self._own = own
        self._app = app
        self._has_warned = False

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Pass a request or a socket on, unless the host answers it itself."""
        host = scope.get("app")
        if scope["type"] != "websocket" or host is self._own or not isinstance(host, Starlette):
            return self._app(scope, receive, send)
        return self._pass_host(host, scope, receive, send)

    async def _pass_host(self, host: Starlette, scope: Scope, receive: Receive, send: Send) -> None:
        outermost = _outermost(scope.get("router"), host)
        if outermost is None and not self._has_warned:
            self._has_warned = True
            log.warning(_NOT_KNOWN)
        # All but those of the kind `http` have seen the socket by now.
        refusal = await _refusal(_unasked(outermost or host, self._own), scope)
        await (self._app(scope, receive, send) if refusal is None else _refuse(refusal, scope, receive, send))


def _outermost(first: object, host: Starlette) -> Starlette | None:
    """Return the application that a socket has come to first; None if that cannot be known.

    Of applications that are mounted into each other, each puts itself in the place of the one around it; only the
    outermost router stays in the scope.

    :param first: that router.
    :param host: the innermost of them.
    """
    if first is None or first is host.router:
        return host
    # A router of FastAPI knows its application, one of Starlette does not.
    found = getattr(first, "dependency_overrides_provider", None)
    return found if isinstance(found, Starlette) else None


async def _refusal(middleware: Iterable[BaseHTTPMiddleware] | None, scope: Scope) -> Response | None:
    """Return the answer of the first middleware that does not let a handshake pass; None if all do.

    What they put into the scope of the request is put into the socket's.

    :param middleware: outermost first; None for those that cannot be found, so that nothing passes.
    """
    if middleware is None:
        return Response(status_code=403)
    for each in middleware:
        seen = {**scope, "type": "http", "method": "GET", "scheme": "https" if scope["scheme"] == "wss" else "http"}
        passed = False

        async def call_next(_request: Request) -> Response:
            nonlocal passed
            passed = True
            # As what is behind answers a request, so that a body can be looked for, and is empty.
            return StreamingResponse(iter(()), _SWITCHING_PROTOCOLS)

        response = await each.dispatch_func(Request(seen, _NoBody()), call_next)
        if not passed or response.status_code != _SWITCHING_PROTOCOLS:
            return response
        scope.update({name: value for name, value in seen.items() if name not in {"type", "method", "scheme"}})
    return None


class _NoBody:
    """What the client sends with a handshake: nothing, and then it waits."""

    def __init__(self) -> None:
        self._has_come = False

    async def __call__(self) -> Message:
        if self._has_come:
            await asyncio.get_running_loop().create_future()
        self._has_come = True
        return {"type": "http.request", "body": b"", "more_body": False}


async def _refuse(refusal: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a handshake with a response, or with status 403 if the server can send no other."""
    if "websocket.http.response" in scope.get("extensions", {}):
        await refusal(scope, receive, send)
    else:
        await send({"type": "websocket.close"})


def _unasked(host: Starlette, own: ASGIApp) -> list[BaseHTTPMiddleware] | None:
    """Return the middleware of the kind ``http`` around an application within its host, outermost first.

    None if there is some and it cannot be found.
    """
    way = _way(host.middleware_stack, own, set()) or _way(host.middleware_stack, host.router, set())
    if way is None and any(sees_requests_only(each.cls) for each in host.user_middleware):
        log.error(_UNSEEN, type(host).__name__)
        return None
    return [each for each in way or () if isinstance(each, BaseHTTPMiddleware) and sees_requests_only(type(each))]


def _way(layer: object, target: object, seen: set[int]) -> list[object] | None:
    """Return the layers from one to a target, both included; None if it is not behind it."""
    if layer is target:
        return [layer]
    if id(layer) in seen:
        return None
    seen.add(id(layer))
    for inner in _inner(layer):
        if (way := _way(inner, target, seen)) is not None:
            return [layer, *way]
    return None


def _inner(layer: object) -> Iterator[object]:
    """Yield what a layer may hand requests on to."""
    if isinstance(layer, Starlette):
        # Not its router, past its middleware.
        yield layer.middleware_stack
    elif isinstance(layer, Router):
        if getattr(layer.middleware_stack, "__self__", None) is not layer:
            yield layer.middleware_stack
        yield from (route for route in layer.routes if not isinstance(route, (Route, WebSocketRoute)))
    elif isinstance(layer, Mount) or hasattr(layer, "app"):
        yield layer.app
    elif (bound_to := getattr(layer, "__self__", None)) is not None:
        yield bound_to
    else:
        cells = (cell.cell_contents for cell in getattr(layer, "__closure__", None) or ())
        kept = [*getattr(layer, "__dict__", {}).values(), *cells]
        yield from (value for value in kept if callable(value) and not isclass(value))
