"""An event loop in a thread of its own, and a client on it, for threads that wait for what it does.

It begins at the first call, and again in a process that was forked: of threads, a child has only the one that has
forked, and the connections of its parent are not the child's to use.
"""

import asyncio
import os
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import Any, Generic, Protocol, TypeVar, cast

_T = TypeVar("_T")
_CLOSED = "The client is closed."
_OF_ANOTHER_PROCESS = "This iteration belongs to a client that was closed, or to the process that was forked."


class Closable(Protocol):
    """What is made on the loop."""

    async def close(self) -> None:
        """Close its connections."""


_C = TypeVar("_C", bound=Closable)


class BackgroundLoop(Generic[_C]):
    """A client on an event loop of its own, which any number of threads use.

    :param make: makes the client, at once, and in each process that is forked after its first use.
    :param is_remade: whether it can be made there; a transport that was given belongs to one process.
    """

    def __init__(self, make: Callable[[], _C], *, is_remade: bool = True) -> None:
        self._make: Callable[[], _C] | None = make
        self._is_remade = is_remade
        self._lock = threading.Lock()
        self._client: _C | None = make()
        self._thread: _LoopThread | None = None
        self._is_closed = False
        _every.add(self)

    @property
    def client(self) -> _C:
        """The client; what it does is for the loop.

        :raises RuntimeError: if its transport belongs to the process that this one was forked from.
        """
        if self._client is None:
            if self._make is None:
                raise RuntimeError(
                    "The transport that this client was given belongs to the process that this one was forked from."
                )
            self._client = self._make()
        return self._client

    def run(self, call: Callable[[_C], Coroutine[Any, Any, _T]]) -> _T:
        """Return what a call of the client returns, once it has; it is cancelled if this thread is interrupted.

        :raises RuntimeError: if it is closed, or an event loop runs in this thread, which it would hold up.
        """
        _refuse_event_loop()
        with self._lock:
            client, thread = self.client, self._begun()

            async def called() -> _T:
                return await call(client)

            future = thread.submit(called())
        return _waited_for(future)

    def iterate(self, begin: Callable[[_C], AsyncIterator[_T]]) -> Iterator[_T]:
        """Yield what the client yields, each when it is asked for; ended early, the client's own iteration ends too.

        :raises RuntimeError: as ``run`` does, and once the client is closed.
        """
        _refuse_event_loop()
        with self._lock:
            source, thread = cast("AsyncGenerator[_T, None]", begin(self.client)), self._begun()
        try:
            while True:
                value = _waited_for(self._submitted(thread, lambda: anext(source, _END)))
                if value is _END:
                    return
                yield value
        finally:
            if thread.is_of_parent:
                _of_parents.append(source)
            else:
                # A client that was closed has ended it already.
                with suppress(RuntimeError):
                    _waited_for(self._submitted(thread, source.aclose))

    def close(self) -> None:
        """Close the client, and end the loop and its thread; may be called again."""
        with self._lock:
            thread, self._thread, self._is_closed = self._thread, None, True
        if thread is not None:
            thread.end()

    def forget(self) -> None:
        """Leave everything to the process that this one was forked from, and begin anew when something is asked for."""
        self._lock = threading.Lock()
        if self._thread is not None:
            self._thread.leave()
            _of_parents.append((self._thread, self._client))
            self._thread = self._client = None
            self._make = self._make if self._is_remade else None

    def _begun(self) -> "_LoopThread":
        if self._is_closed:
            raise RuntimeError(_CLOSED)
        if self._thread is None:
            self._thread = _LoopThread(self, self.client)
        return self._thread

    def _submitted(self, thread: "_LoopThread", call: Callable[[], Any]) -> "Future[Any]":
        async def called() -> Any:
            return await call()

        with self._lock:
            if thread is not self._thread:
                raise RuntimeError(_OF_ANOTHER_PROCESS)
            return thread.submit(called())


class _LoopThread:
    """A thread with a loop, until it is ended: by ``end``, when its owner is collected, or with the interpreter."""

    def __init__(self, owner: object, client: Closable) -> None:
        self._loop = asyncio.new_event_loop()
        thread = threading.Thread(target=_serve, args=(self._loop, client), name="gql-jobs client", daemon=True)
        thread.start()
        self.end = weakref.finalize(owner, _end, self._loop, thread)
        self.is_of_parent = False
        """Whether it is that of the process that this one was forked from, and not here."""

    def submit(self, coroutine: Coroutine[Any, Any, _T]) -> "Future[_T]":
        """Run a coroutine on the loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def leave(self) -> None:
        """Have nobody in this process end it, which was forked from the one that has it."""
        self.end.detach()
        self.is_of_parent = True


_END: Any = object()
_every: "weakref.WeakSet[BackgroundLoop[Any]]" = weakref.WeakSet()
_of_parents: list[Any] = []
"""What is not even collected here, because the connections in it would say goodbye."""


def _refuse_event_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(
        "Client waits, and would hold up the event loop that runs in this thread: use AsyncClient here, or call it by "
        "asyncio.to_thread."
    )


def _waited_for(future: "Future[_T]") -> _T:
    try:
        return future.result()
    except CancelledError:
        raise RuntimeError(_CLOSED) from None
    except BaseException:
        # Of a thread that is interrupted; of a call that has failed this changes nothing.
        future.cancel()
        raise


def _serve(loop: asyncio.AbstractEventLoop, client: Closable) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(_closed(client))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


async def _closed(client: Closable) -> None:
    """Close a client; then whatever still runs is cancelled."""
    try:
        await client.close()
        # Whoever waits is told.
        await asyncio.sleep(0)
    finally:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


def _end(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    if thread is not threading.current_thread() and thread.is_alive():
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def _after_fork() -> None:
    for one in list(_every):
        one.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
