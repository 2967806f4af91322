"""The WebSockets of this process: how many are open, and with which code each of them ended."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

OTHER = "other"
"""The label of close codes that nobody here sends: clients may make up any."""
_LABELLED = frozenset(
    {1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1010, 1011, 1012, 1013}
    | {4400, 4401, 4403, 4406, 4408, 4409, 4429, 4499, 4500}
)
_ABNORMAL = 1006


class Sockets:
    """Counters of the sockets of one process."""

    def __init__(self) -> None:
        self.open = 0
        self.closes: dict[tuple[str, ...], int] = {}
        """By who closed it (``server`` or ``client``) and the code."""

    def closed(self, by: str, code: int) -> None:
        """Count the end of a socket."""
        label = (by, str(code) if code in _LABELLED else OTHER)
        self.closes[label] = self.closes.get(label, 0) + 1


class CountedSockets:
    """Counts what passes; plain ASGI."""

    def __init__(self, app: ASGIApp, sockets: Sockets) -> None:
        self._app = app
        self._sockets = sockets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a socket on, and whatever else comes."""
        if scope["type"] != "websocket":
            await self._app(scope, receive, send)
            return
        socket = _Socket(receive, send, self._sockets)
        try:
            await self._app(scope, socket.receive, socket.send)
        finally:
            socket.ended()


class _Socket:
    __slots__ = ("_is_counted", "_is_open", "_receive", "_send", "_sockets")

    def __init__(self, receive: Receive, send: Send, sockets: Sockets) -> None:
        self._receive = receive
        self._send = send
        self._sockets = sockets
        self._is_open = False
        self._is_counted = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self._close("client", message.get("code") or _ABNORMAL)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "websocket.accept":
            self._is_open = True
            self._sockets.open += 1
        elif message["type"] == "websocket.close":
            self._close("server", message.get("code") or 1000)
        await self._send(message)

    def ended(self) -> None:
        if self._is_open:
            self._sockets.open -= 1
            self._close("server", _ABNORMAL)

    def _close(self, by: str, code: int) -> None:
        # The first close decides: the other side's is only its echo.
        if not self._is_counted:
            self._is_counted = True
            self._sockets.closed(by, code)
