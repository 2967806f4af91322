"""The way of the hot path past FastAPI: what it wraps around an application and each of its routes is a quarter of a
creation, in time.

A socket keeps a frame of every layer that it has come through for as long as it is open, so nothing is awaited here.
The route stays where it is, for whatever is not exactly its path and is redirected to it.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send


class Guarded(FastAPI):
    """A FastAPI application whose layers are put around all of it, and not within.

    uvicorn has to be told that it is an ``asgi3`` one: it is no coroutine function, so that no frame of it stays.

    :param guards: what is called with the application, and gives it back with its layers.
    """

    def __init__(self, guards: Callable[[ASGIApp], ASGIApp], **options: Any) -> None:
        super().__init__(**options)
        self._guarded = guards(super().__call__)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:  # type: ignore[override]
        """Pass the request on, to the outermost layer."""
        scope["app"] = self
        return self._guarded(scope, receive, send)


class Shortcut:
    """Hands the requests and sockets of ``path`` to the application ``to``, which raises no ``HTTPException``."""

    def __init__(self, app: ASGIApp, path: str, to: ASGIApp) -> None:
        self._app = app
        self._path = path
        self._to = to

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Pass the request on, to the one or the other."""
        return (self._to if self._is_short(scope) else self._app)(scope, receive, send)

    def _is_short(self, scope: Scope) -> bool:
        if scope["type"] == "lifespan":
            return False
        path: str = scope["path"]
        return path.removeprefix(scope.get("root_path", "")) == self._path
