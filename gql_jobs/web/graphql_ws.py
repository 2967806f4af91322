"""The server's side of the protocol graphql-transport-ws: many operations on one WebSocket."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import Any

from graphql import OperationType
from msgspec import Struct
from msgspec.json import encode
from starlette.types import Message, Receive, Scope, Send

from gql_jobs.graphql.context import Context, Session
from gql_jobs.graphql.engine.operations import Operation, Operations, Result
from gql_jobs.jobs.errors import GqlJobsError, PayloadTooLarge, QueueUnavailable, RateLimited, Unauthenticated
from gql_jobs.jobs.viewer import Viewer
from gql_jobs.web.connections import ByteBudget, Connections, CountedSocket, HeldBytes, SocketCounts, client_of
from gql_jobs.web.graphql_request import (
    BUSY,
    MalformedRequest,
    TooManyValues,
    decode_json,
    keep_subscription,
    memory_of,
    operation_request,
    optional_object,
    too_busy,
)
from gql_jobs.web.request_authentication import HOST_VIEWER, RequestAuthentication
from gql_jobs.web.socket_session import SocketSession
from gql_jobs.web.turns import ResultTurns

PROTOCOL = "graphql-transport-ws"

# The close codes of the protocol, and those of WebSockets in general that are used here.
GOING_AWAY = 1001
MESSAGE_TOO_BIG = 1009
SERVICE_RESTART = 1012
TRY_AGAIN_LATER = 1013
BAD_REQUEST = 4400
UNAUTHORIZED = 4401
FORBIDDEN = 4403
NOT_ACCEPTABLE = 4406
INIT_TIMEOUT = 4408
SUBSCRIBER_EXISTS = 4409
TOO_MANY_INITS = 4429

INIT_BYTES = 1 << 14
"""Bytes that the payload of ``connection_init`` may have as JSON; it is kept for as long as the socket is open."""
FIRST_BYTES = 1 << 16
"""Bytes that a message may have before the acknowledgement: nothing longer is read of whoever has not said who asks."""
ID_BYTES = 256
"""Bytes that the id of an operation may have; it is sent back with each of its results."""
_LONGEST_REASON = 123
"""Bytes: a close frame has 125, two of which are the code."""


class SocketLimits(Struct, frozen=True):
    """The limits of one socket."""

    init_timeout: float = 10.0
    """Seconds from the handshake to ``connection_init``."""
    operations: int = 100
    """Operations that may run on it at a time, queries among them."""
    idle_timeout: float = 3600.0
    """Seconds that it may be open without an operation."""


class Violation(Exception):
    """The client broke the protocol, so that the socket has to be closed.

    :param code: the close code.
    :param reason: of the close frame; it is cut if it is too long for one.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class TransportWs:
    """Serves the WebSockets of one process, as an ASGI application.

    :param new_context: makes the context of an operation, for an address and a session.
    :param limits: of each socket.
    :param connections: where sockets are registered, to be closed when they are old or the process stops.
    :param counts: the counters of sockets, for metrics.
    :param budget: holds what the sockets keep of their clients' messages.
    :param result_turns: have the subscriptions of one client wait for each other.
    :param authentication: says who asks, and how often.
    :param opened_soon: waits a moment for what operations need, where the process has only just started: a client such
        as graphql-ws connects again by itself, but does not repeat a subscription that is refused.
    """

    def __init__(
        self,
        operations: Operations,
        new_context: Callable[[Callable[[], str], Session], Context],
        limits: SocketLimits,
        connections: Connections,
        counts: SocketCounts,
        *,
        budget: ByteBudget,
        result_turns: ResultTurns,
        authentication: RequestAuthentication,
        opened_soon: Callable[[], Awaitable[None]],
    ) -> None:
        self._operations = operations
        self._new_context = new_context
        self._limits = limits
        self._connections = connections
        self._counts = counts
        self._budget = budget
        self._result_turns = result_turns
        self._authentication = authentication
        self._opened_soon = opened_soon

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one socket until it is closed."""
        if PROTOCOL not in scope["subprotocols"]:
            reason = f"Subprotocol not acceptable: this server speaks {PROTOCOL}"
            await self.reject(scope, receive, send, NOT_ACCEPTABLE, reason)
            return
        counted = CountedSocket(self._counts)
        writer = SocketWriter(send, counted)
        connection = _Connection(
            self._operations,
            self._new_context,
            self._limits,
            writer,
            budget=self._budget,
            result_turns=self._result_turns,
            authentication=self._authentication,
            client=client_of(scope),
            host_viewer=scope.get(HOST_VIEWER),
        )
        try:
            await _accept(scope, receive, writer)
            await self._opened_soon()
            with self._connections.registered(connection.close_for_restart):
                try:
                    await self._read(connection, receive, counted)
                except Violation as violation:
                    await writer.close(violation.code, violation.reason)
                finally:
                    await connection.end()
        finally:
            counted.ended()

    async def reject(self, scope: Scope, receive: Receive, send: Send, code: int, reason: str) -> None:
        """Accept a socket and close it with that code and reason.

        It is accepted first because a browser does not tell its page why a handshake was rejected.
        """
        counted = CountedSocket(self._counts)
        writer = SocketWriter(send, counted)
        try:
            await _accept(scope, receive, writer)
            await writer.close(code, reason)
        finally:
            counted.ended()

    async def _read(self, connection: "_Connection", receive: Receive, counted: CountedSocket) -> None:
        try:
            async with asyncio.timeout(self._limits.init_timeout) as connection.read_timeout:
                while True:
                    message = await receive()
                    if message["type"] != "websocket.receive":
                        break
                    await connection.handle(_text(message))
                    connection.renew_timeout()
                    # Not kept while the next one is awaited.
                    del message
            counted.closed_by_client(message.get("code"))
        except TimeoutError:
            if connection.initialised:
                raise Violation(GOING_AWAY, "Idle: no operation has been running") from None
            raise Violation(INIT_TIMEOUT, "Connection initialisation timeout") from None
        finally:
            # No more messages are awaited while the operations end.
            connection.read_timeout = None


async def _accept(scope: Scope, receive: Receive, writer: "SocketWriter") -> None:
    await receive()
    await writer.accept(PROTOCOL if PROTOCOL in scope["subprotocols"] else None)


class SocketWriter:
    """Sends the messages of graphql-transport-ws until the socket is closed from either side; later ones are dropped.

    A send waits while the client does not read, which holds up the operation that it belongs to, and no other.

    :param counted: notified of the acceptance and of a close, never of a message.
    """

    __slots__ = ("_counted", "_is_closed", "_send")

    def __init__(self, send: Send, counted: CountedSocket) -> None:
        self._send = send
        self._counted = counted
        self._is_closed = False

    async def accept(self, subprotocol: str | None) -> None:
        """Accept the handshake."""
        self._counted.opened()
        await self._send({"type": "websocket.accept", "subprotocol": subprotocol})

    async def acknowledge(self) -> None:
        """Send ``connection_ack``."""
        await self._send_text(b'{"type":"connection_ack"}')

    async def pong(self, payload: dict[str, Any] | None) -> None:
        """Send ``pong``, with what the ping carried."""
        await self._send_text(encode({"type": "pong", "payload": payload} if payload is not None else {"type": "pong"}))

    def next(self, operation_id: str, payload: bytes) -> Awaitable[None]:
        """Send ``next``, once it is awaited. The payload is JSON already, so that many sockets may be sent the same."""
        return self._send_text(b'{"id":%b,"type":"next","payload":%b}' % (encode(operation_id), payload))

    async def error(self, operation_id: str, errors: list[dict[str, Any]]) -> None:
        """Send ``error``, which ends the operation."""
        await self._send_text(encode({"id": operation_id, "type": "error", "payload": errors}))

    async def complete(self, operation_id: str) -> None:
        """Send ``complete``."""
        await self._send_text(encode({"id": operation_id, "type": "complete"}))

    async def close(self, code: int, reason: str) -> None:
        """Close the socket, with as much of the reason as a close frame holds."""
        if not self._is_closed:
            self._counted.closed_by_server(code)
            fitting = reason.encode()[:_LONGEST_REASON].decode(errors="ignore")
            await self._send_message({"type": "websocket.close", "code": code, "reason": fitting})
            self._is_closed = True

    def _send_text(self, message: bytes) -> Awaitable[None]:
        # No coroutine, which would keep the bytes beside the text for as long as the client does not read.
        return self._send_message({"type": "websocket.send", "text": message.decode()})

    async def _send_message(self, message: Message) -> None:
        if self._is_closed:
            return
        try:
            await self._send(message)
        except (OSError, RuntimeError):
            # The socket is closed (OSError) or is being closed by uvicorn (RuntimeError), which the reading side
            # notices; for the sender it is no failure.
            self._is_closed = True


class _Connection:
    """The state of one socket, and the operations that run on it."""

    def __init__(
        self,
        operations: Operations,
        new_context: Callable[[Callable[[], str], Session], Context],
        limits: SocketLimits,
        writer: SocketWriter,
        *,
        budget: ByteBudget,
        result_turns: ResultTurns,
        authentication: RequestAuthentication,
        client: str,
        host_viewer: Viewer | None,
    ) -> None:
        self._operations = operations
        self._new_context = new_context
        self._limits = limits
        self._writer = writer
        self._budget = budget
        self._authentication = authentication
        self._client = client
        self._host_viewer = host_viewer
        self._session: SocketSession | None = None
        """Who asks; None until the socket is initialised."""
        self._held: HeldBytes | None = None
        """What the payload of ``connection_init`` holds; None until there is one."""
        self._running: dict[str, _Running] = {}
        self._turns = _Turns(result_turns, client)
        self._completed_mutations = 0
        """How many mutations still run although the client has completed them."""
        self._tasks: set[asyncio.Task[None]] = set()
        self.read_timeout: asyncio.Timeout | None = None
        """The timeout of the next message; None while none is awaited."""

    @property
    def initialised(self) -> bool:
        """Whether ``connection_init`` was acknowledged."""
        return self._session is not None

    def renew_timeout(self) -> None:
        """Set the timeout of the next message: none while an operation runs, else as long as a socket may be idle."""
        if self.read_timeout is None or not self.initialised:
            return
        idle_until = asyncio.get_running_loop().time() + self._limits.idle_timeout
        self.read_timeout.reschedule(None if self._running else idle_until)

    async def handle(self, text: str) -> None:
        """Handle one message of the client.

        :raises Violation: if the client may not send it now, or it is no message of the protocol.
        """
        if not self.initialised and len(text) > FIRST_BYTES:
            raise Violation(MESSAGE_TOO_BIG, f"Before connection_ack a message may have {FIRST_BYTES} bytes")
        message = _parsed(text)
        kind = message.get("type")
        if kind == "subscribe":
            await self._subscribe(_id(message), message.get("payload"), _size(text))
        elif kind == "complete":
            self._stop(_id(message))
        elif kind == "ping":
            await self._writer.pong(_payload(message))
        elif kind == "pong":
            _payload(message)
        elif kind == "connection_init":
            await self._initialise(_payload(message))
        else:
            raise Violation(BAD_REQUEST, f"Invalid message: there is no type {kind!r}")

    def close_for_restart(self, reason: str) -> None:
        """Begin to close the socket with the code after which clients reconnect, to another process."""
        self._start(self._writer.close(SERVICE_RESTART, reason))

    async def end(self) -> None:
        """Stop the operations of a closed socket, and wait until they have ended; mutations run to their end."""
        for operation_id in list(self._running):
            self._stop(operation_id)
        if self._session is not None:
            # First: mutations that run to their end may be held.
            self._session.close()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._held is not None:
            self._held.release()

    async def _initialise(self, parameters: dict[str, Any] | None) -> None:
        if self.initialised:
            raise Violation(TOO_MANY_INITS, "Too many initialisation requests")
        if parameters:
            text = encode(parameters)
            if len(text) > INIT_BYTES:
                fault = f"the payload has {len(text)} bytes; it may have {INIT_BYTES}"
                raise Violation(BAD_REQUEST, f"Invalid message: {fault}")
            self._held = HeldBytes(self._budget, self._client)
            if not self._held.resize(memory_of(text)):
                raise Violation(TRY_AGAIN_LATER, BUSY)
        session = SocketSession(
            await self._viewer(parameters),
            self._authentication,
            self._client,
            on_revoked=self._end_all,
            on_renewed=self._authorise_all,
            on_end=self._close_forbidden,
        )
        try:
            session.follow()
        except QueueUnavailable as error:
            raise Violation(TRY_AGAIN_LATER, error.message.rstrip(".")) from None
        self._session = session
        await self._writer.acknowledge()

    async def _viewer(self, parameters: dict[str, Any] | None) -> Viewer:
        if self._host_viewer is not None:
            return self._host_viewer
        try:
            return await self._authentication.viewer_of_init(parameters, self._client)
        except Unauthenticated:
            raise Violation(FORBIDDEN, "Forbidden") from None
        except (RateLimited, QueueUnavailable) as error:
            raise Violation(TRY_AGAIN_LATER, error.message.rstrip(".")) from None

    def _address(self) -> str:
        return self._client

    def _close_forbidden(self) -> None:
        self._start(self._writer.close(FORBIDDEN, "Forbidden"))

    def _end_all(self) -> None:
        """End what runs, because the credential has been revoked; the socket stays."""
        error = Unauthenticated()
        for running in list(self._running.values()):
            self._end_with(running, [{"message": error.message, "extensions": error.extensions}])

    async def _authorise_all(self) -> None:
        """End the subscriptions that may not go on under the session's new viewer."""
        for running in list(self._running.values()):
            if running.operation.type is not OperationType.SUBSCRIPTION:
                continue
            errors = await self._operations.authorise(running.operation)
            if errors and self._is_current(running):
                self._end_with(running, [dict(error.formatted) for error in errors])

    def _end_with(self, running: "_Running", errors: list[dict[str, Any]]) -> None:
        self._stop(running.id)
        self._start(self._writer.error(running.id, errors))

    async def _subscribe(self, operation_id: str, payload: Any, size: int) -> None:
        session = self._session
        if session is None:
            raise Violation(UNAUTHORIZED, "Unauthorized")
        if operation_id in self._running:
            raise Violation(SUBSCRIBER_EXISTS, f"Subscriber for {operation_id} already exists")
        try:
            request = operation_request(payload)
        except MalformedRequest as malformed:
            raise Violation(BAD_REQUEST, f"Invalid message: {malformed}") from None
        if len(self._running) + self._completed_mutations >= self._limits.operations:
            most = self._limits.operations
            message = f"{most} operations run on this socket, which is the limit; complete one of them."
            await self._refuse(operation_id, RateLimited(message, 1))
            return
        try:
            session.follow()
            self._authentication.rates.spend("operations", self._address, session.viewer)
        except (RateLimited, QueueUnavailable) as refusal:
            await self._refuse(operation_id, refusal)
            return
        context = self._new_context(self._address, session)
        operation = self._operations.operation(request, context)
        running = _Running(operation_id, operation, HeldBytes(self._budget, self._client), self._turns, session)
        try:
            fits = _hold(running, size)
        except PayloadTooLarge as error:
            await self._refuse(operation_id, error)
            return
        if not fits:
            running.held.release()
            await self._refuse(operation_id, too_busy())
            return
        context.is_abandoned, context.turn = running.is_abandoned, running
        self._running[operation_id] = running
        running.task = self._start(self._run(running))

    async def _refuse(self, operation_id: str, error: GqlJobsError) -> None:
        await self._writer.error(operation_id, [{"message": error.message, "extensions": error.extensions}])

    async def _run(self, running: "_Running") -> None:
        try:
            is_subscription = running.operation.type is OperationType.SUBSCRIPTION
            made = self._operations.results(running.operation) if is_subscription else self._once(running)
            async with aclosing(made) as results:
                async for result in results:
                    if not self._is_current(running):
                        return
                    if result.refused:
                        self._free_id(running)
                        await self._writer.error(running.id, result.formatted_errors)
                        return
                    if running.operation.type is OperationType.QUERY and not running.held.resize(len(result.payload)):
                        self._free_id(running)
                        del result
                        await self._refuse(running.id, too_busy())
                        return
                    size = len(result.payload)
                    sent = self._writer.next(running.id, result.payload)
                    # What is sent is a copy of its own for each socket.
                    del result
                    if is_subscription:
                        with self._turns.of_clients.unsent(self._client, size):
                            await sent
                    else:
                        await sent
                    running.end()
            if self._is_current(running):
                self._free_id(running)
                await self._writer.complete(running.id)
        finally:
            running.end()
            running.held.release()
            self._free_id(running)
            self.renew_timeout()

    async def _once(self, running: "_Running") -> AsyncGenerator[Result, None]:
        """Yield the result of a query or a mutation; that of a query for whoever asks at that moment."""
        operation, session = running.operation, running.session
        while True:
            rights = session.rights
            result = await self._operations.result(operation)
            await running.until_free()
            # A query is run anew for a viewer who may see something else; a mutation has been made.
            if operation.type is not OperationType.QUERY or session.rights == rights:
                break
        yield result

    def _is_current(self, running: "_Running") -> bool:
        """Return whether the client still waits for results; it may use the id for another operation by now."""
        return self._running.get(running.id) is running

    def _free_id(self, running: "_Running") -> None:
        # Called before the last message is sent: the client may use the id again once it has that.
        if self._is_current(running):
            del self._running[running.id]

    def _stop(self, operation_id: str) -> None:
        running = self._running.pop(operation_id, None)
        if running is None or running.task is None:
            return
        running.was_stopped = True
        if running.operation.type is OperationType.MUTATION:
            # It runs to its end: a mutation cut short would be neither done nor refused.
            self._completed_mutations += 1
            running.task.add_done_callback(self._mutation_ended)
        else:
            running.task.cancel()

    def _mutation_ended(self, _task: "asyncio.Task[None]") -> None:
        self._completed_mutations -= 1

    def _start(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class _Turns:
    """Which subscription of a socket makes and sends a result now, and which ones wait for that."""

    __slots__ = ("client", "holder", "of_clients", "waiting")

    def __init__(self, of_clients: ResultTurns, client: str) -> None:
        """:param of_clients: the turns of all sockets and streams."""
        self.of_clients = of_clients
        self.client = client
        self.holder: _Running | None = None
        self.waiting: deque[tuple[_Running, asyncio.Future[None]]] = deque()


class _Running:
    """One operation of the socket, from its ``subscribe`` on."""

    __slots__ = ("_hold", "_turns", "held", "id", "operation", "session", "task", "was_stopped")

    def __init__(
        self, operation_id: str, operation: Operation, held: HeldBytes, turns: "_Turns", session: SocketSession
    ) -> None:
        self.id = operation_id
        self.operation = operation
        self.held = held
        self.task: asyncio.Task[None] | None = None
        self.was_stopped = False
        self._turns = turns
        self.session = session
        self._hold = session.hold
        """What held others when it began. If that is the end of the token, it is a renewal or is refused."""

    async def until_free(self) -> None:
        """Wait while nothing may be sent of it, because the token has ended that it began under."""
        if self.session.is_held:
            await self.session.until_free(self._hold)

    async def begin(self) -> None:
        """Wait until this subscription may make a result: none does while that of another one is not sent."""
        turns = self._turns
        if turns.holder is None:
            turns.holder = self
        elif turns.holder is not self:
            passed = asyncio.get_running_loop().create_future()
            turns.waiting.append((self, passed))
            try:
                await passed
            except asyncio.CancelledError:
                self.end()
                raise
        try:
            await turns.of_clients.begin(turns.client)
            if self.session.is_held:
                # Which events there are for the next token is asked when it is there.
                await self.session.until_free()
        except asyncio.CancelledError:
            self.end()
            raise

    def end(self) -> None:
        """Let the subscription make a result that has waited longest, if it is this one's turn."""
        turns = self._turns
        if turns.holder is not self:
            return
        turns.holder = None
        while turns.waiting and turns.holder is None:
            following, passed = turns.waiting.popleft()
            if not passed.done():
                turns.holder = following
                passed.set_result(None)

    async def is_abandoned(self) -> bool:
        """Return whether the client has completed the operation, or its socket has ended."""
        return self.was_stopped


def _hold(running: _Running, size: int) -> bool:
    """Hold what an operation keeps of its message, which has ``size`` bytes; return whether it fits.

    :raises PayloadTooLarge: if it is a subscription that would keep too much.
    """
    if running.operation.type is OperationType.SUBSCRIPTION:
        return keep_subscription(running.operation, running.held, len(running.id))
    return running.held.resize(size)


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _text(message: Message) -> str:
    text = message.get("text")
    if not isinstance(text, str):
        raise Violation(BAD_REQUEST, "Invalid message: it must be text")
    return text


def _parsed(text: str) -> dict[str, Any]:
    try:
        message = decode_json(text)
    except TooManyValues as error:
        raise Violation(MESSAGE_TOO_BIG, f"The message {error}") from None
    except json.JSONDecodeError:
        raise Violation(BAD_REQUEST, "Invalid message: it is no JSON") from None
    if not isinstance(message, dict):
        raise Violation(BAD_REQUEST, "Invalid message: it must be a JSON object")
    return message


def _id(message: dict[str, Any]) -> str:
    operation_id = message.get("id")
    if not isinstance(operation_id, str) or not operation_id:
        raise Violation(BAD_REQUEST, "Invalid message: `id` must be a string that is not empty")
    if _size(operation_id) > ID_BYTES:
        raise Violation(BAD_REQUEST, f"Invalid message: `id` may have {ID_BYTES} bytes")
    return operation_id


def _payload(message: dict[str, Any]) -> dict[str, Any] | None:
    try:
        return optional_object(message, "payload")
    except MalformedRequest as malformed:
        raise Violation(BAD_REQUEST, f"Invalid message: {malformed}") from None
