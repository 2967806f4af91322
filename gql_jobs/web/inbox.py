"""The messages that a socket has for the application, in less memory than a queue takes."""

import asyncio
from typing import Any


class Inbox:
    """The messages of one socket for its one reader; an ``asyncio.Queue``, made for any number of both, takes 3 KiB."""

    __slots__ = ("_messages", "_put")

    def __init__(self) -> None:
        self._messages: list[Any] = []
        self._put: asyncio.Future[None] | None = None

    def put_nowait(self, message: Any) -> None:
        """Called by the protocol."""
        self._messages.append(message)
        if self._put is not None and not self._put.done():
            self._put.set_result(None)

    def empty(self) -> bool:
        """Whether none waits."""
        return not self._messages

    async def get(self) -> Any:
        """The next message."""
        while not self._messages:
            self._put = asyncio.get_running_loop().create_future()
            await self._put
        # Reading pauses while one waits, so that there are never many.
        return self._messages.pop(0)
