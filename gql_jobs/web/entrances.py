"""The two ports of a process that shares one with others: theirs for clients, its own for those who ask it alone."""

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

METRICS = "/metrics"
_OWN = frozenset({METRICS, "/healthz", "/readyz"})
_ELSEWHERE = (
    "Several processes answer at this port, each with numbers of its own: "
    "GQL_JOBS_METRICS_PORT gives every one a port for its /metrics.\n"
)


class Entrances:
    """Plain ASGI. The shared port has no metrics: each scrape would find those of another process.

    :param own_port: where this process alone is asked, if anywhere; nothing but its health and metrics is there.
    """

    def __init__(self, app: ASGIApp, own_port: int | None) -> None:
        self._app = app
        self._own_port = own_port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what belongs to the port that it came to."""
        if scope["type"] == "lifespan" or self._is_here(scope["server"][1], scope["path"]):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        else:
            text = _ELSEWHERE if scope["path"] == METRICS else "Only health and metrics are here.\n"
            await PlainTextResponse(text, 404)(scope, receive, send)

    def _is_here(self, port: int, path: str) -> bool:
        return path in _OWN if port == self._own_port else path != METRICS
