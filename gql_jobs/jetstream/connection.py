"""The connection to NATS: one per process, reconnecting for ever, and the JetStream API calls made over it.

It never buffers what is published while it is away: whoever was told that a write failed must not see it stored later.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from nats.js.errors import NotFoundError
from nats.js.object_store import ObjectStore

from gql_jobs.jetstream.client import Receiver, ShortcutClient
from gql_jobs.jobs.errors import QueueUnavailable
from gql_jobs.settings import Settings

log = logging.getLogger(__name__)

DEFAULT_URL = "nats://127.0.0.1:4222"
SAY_EVERY = 5.0
"""Seconds between two lines of the log about a server that cannot be reached."""
API_TIMEOUT = 2.0
"""Seconds that one call of the JetStream API may take."""
_HEADERS = 4096
"""Bytes that no header block of ours has; smaller messages are not measured."""
Callback = Callable[[Msg], Awaitable[None]]


class ApiError(Exception):
    """The JetStream API refused a call; ``err_code`` is the server's own number of the reason."""

    def __init__(self, call: str, code: int, err_code: int, description: str) -> None:
        super().__init__(f"{call}: {description} ({err_code})")
        self.code = code
        self.err_code = err_code
        self.description = description


class MessageTooLarge(Exception):
    """The server takes no message of that size, now or later. Sizes are in bytes, headers included."""

    def __init__(self, subject: str, size: int, limit: int) -> None:
        super().__init__(f"a message on {subject} has {size} bytes; the server takes at most {limit}")


class _Answer(msgspec.Struct):
    error: dict[str, Any] | None = None


class Connection:
    """What the log does over the wire. ``on_reconnect`` are called after each reconnection."""

    def __init__(self, client: ShortcutClient) -> None:
        self._client = client
        self.on_reconnect: list[Callable[[], None]] = []

    @property
    def connected(self) -> bool:
        """Whether the server can be reached as far as is known."""
        return self._client.is_connected

    @property
    def max_payload(self) -> int:
        """Bytes of the largest message the server takes."""
        return self._client.max_payload

    @property
    def server_version(self) -> str:
        """Such as ``2.15.1``."""
        version = self._client.connected_server_version
        return f"{version.major}.{version.minor}.{version.patch}"

    @property
    def has_jetstream(self) -> bool:
        """Whether the server itself stores streams; another one of its cluster may."""
        return bool(self._client._server_info.get("jetstream"))  # noqa: SLF001

    def new_inbox(self) -> str:
        """A subject that nobody else listens to."""
        return f"_INBOX.{secrets.token_hex(11)}"

    async def publish(self, subject: str, data: bytes, reply: str = "", headers: dict[str, str] | None = None) -> None:
        """Hand a message to the connection.

        :raises QueueUnavailable: if it was not sent because the server is away.
        :raises MessageTooLarge: if no server would take it; none of it was sent.
        """
        # The client counts the body alone, and the server closes the connection on which more comes than it takes.
        if self._client.max_payload - len(data) < _HEADERS:
            size = len(data) + _size_of(headers)
            if size > self._client.max_payload > 0:
                raise MessageTooLarge(subject, size, self._client.max_payload)
        try:
            await self._client.publish(subject, data, reply=reply, headers=headers)
        except NatsError as error:
            raise QueueUnavailable("NATS is not reachable; nothing was sent.") from error

    async def request(self, subject: str, data: bytes, timeout: float = API_TIMEOUT) -> Msg:  # noqa: ASYNC109
        """:raises QueueUnavailable: if no answer comes within ``timeout`` seconds."""
        try:
            # Not the client's own timeout: the wait_for in it loses a cancellation that meets the answer (Python 3.11).
            async with asyncio.timeout(timeout):
                return await self._client.request(subject, data, timeout=None)  # type: ignore[arg-type]
        except (NatsError, TimeoutError) as error:
            raise QueueUnavailable(_why(error)) from error

    async def subscribe(self, subject: str, callback: Callback) -> Subscription:
        """:raises QueueUnavailable: if the server is away."""
        try:
            return await self._client.subscribe(
                subject, cb=callback, pending_msgs_limit=2_000_000, pending_bytes_limit=1 << 30
            )
        except NatsError as error:
            raise QueueUnavailable("NATS is not reachable.") from error

    async def receive(self, subject: str, receiver: Receiver) -> Subscription:
        """Have a function called with each message of a subject that nobody else here subscribes to, such as an inbox.

        :raises QueueUnavailable: if the server is away.
        """
        try:
            return await self._client.receive(subject, receiver)
        except NatsError as error:
            raise QueueUnavailable("NATS is not reachable.") from error

    async def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription, also one whose connection is gone."""
        try:
            await subscription.unsubscribe()
        except NatsError:
            log.debug("a subscription ended with its connection")
        finally:
            self._client.forget(subscription)

    async def drain(self, subscription: Subscription) -> None:
        """End a subscription after its callback has taken what the server had sent before."""
        try:
            # A connection that breaks now would hold it for the client's own ten seconds.
            async with asyncio.timeout(API_TIMEOUT):
                await subscription.drain()  # type: ignore[no-untyped-call]
        except (NatsError, TimeoutError):
            log.debug("a subscription ended with its connection")
        finally:
            self._client.forget(subscription)

    async def object_store(self, bucket: str, replicas: int) -> ObjectStore:
        """The object store of that name, made if it is not there.

        :raises NatsError: if the server refuses or does not answer.
        """
        jetstream = self._client.jetstream()
        try:
            # Creating it would be refused wherever it differs, in its number of copies for one.
            return await jetstream.object_store(bucket)
        except NotFoundError:
            return await jetstream.create_object_store(bucket, replicas=replicas)

    async def purge(self, stream: str, subject: str) -> None:
        """Remove every message of a subject: slow on the server's side, so never per job.

        :raises QueueUnavailable: if the server does not answer.
        """
        await self.api(f"STREAM.PURGE.{stream}", {"filter": subject})

    async def api(self, call: str, body: Any = None, timeout: float = API_TIMEOUT) -> bytes:  # noqa: ASYNC109
        """The JSON answer of ``$JS.API.<call>``.

        :raises ApiError: if the server refuses.
        :raises QueueUnavailable: if it does not answer.
        """
        data = msgspec.json.encode(body) if body is not None else b""
        answer = (await self.request(f"$JS.API.{call}", data, timeout)).data
        error = msgspec.json.decode(answer, type=_Answer).error
        if error is not None:
            raise ApiError(call, error.get("code", 0), error.get("err_code", 0), error.get("description", ""))
        return answer


def _size_of(headers: dict[str, str] | None) -> int:
    """Bytes of a header block: its first and its last line, and a line per header."""
    if not headers:
        return 0
    return len(b"NATS/1.0\r\n\r\n") + sum(len(name) + len(value) + len(b": \r\n") for name, value in headers.items())


def _why(error: Exception) -> str:
    """What became of a request, in words that mean something to a client of the API."""
    if isinstance(error, TimeoutError):
        return "NATS did not answer in time."
    if isinstance(error, NoRespondersError):
        return "NATS is reachable, but its JetStream does not answer."
    return "NATS is not reachable."


def _shown(url: str) -> str:
    """The address without the password that may be in it."""
    scheme, _, rest = url.rpartition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if scheme else rest.rpartition("@")[2]


@asynccontextmanager
async def connect(
    settings: Settings, name: str, on_trouble: Callable[[str], None] = log.debug
) -> AsyncIterator[Connection]:
    """A connection to ``settings.nats_url``; waits until the server is there.

    :param on_trouble: told why the server cannot be reached, at each try.
    """
    client = ShortcutClient()
    servers = [url.strip() for url in (settings.nats_url or DEFAULT_URL).split(",")]
    shown = ", ".join(map(_shown, servers))
    said_at = -SAY_EVERY
    connection = Connection(client)

    def drop_unsent() -> None:
        # What the client had not yet written would be sent after a reconnection, although its writer has given up.
        client._pending.clear()  # noqa: SLF001
        client._pending_data_size = 0  # noqa: SLF001

    async def disconnected() -> None:
        drop_unsent()
        if not client.is_closed:
            log.warning("NATS is away")

    async def reconnected() -> None:
        log.info("NATS is back")
        for callback in connection.on_reconnect:
            callback()

    async def failed(error: Exception) -> None:
        nonlocal said_at
        trouble = f"NATS cannot be reached at {shown}: {str(error) or type(error).__name__}"
        on_trouble(trouble)
        if client.is_connected or time.monotonic() - said_at < SAY_EVERY:
            log.debug("NATS connection: %r", error)
            return
        said_at = time.monotonic()
        log.warning(trouble)

    options: dict[str, Any] = {
        "servers": servers,
        "name": name,
        "pending_size": 0,
        "max_reconnect_attempts": -1,
        "reconnect_time_wait": 0.25,
        "connect_timeout": 2,
        "ping_interval": 5,
        "max_outstanding_pings": 2,
        "skip_subject_validation": True,
        "disconnected_cb": disconnected,
        "reconnected_cb": reconnected,
        "error_cb": failed,
        "user": settings.nats_user,
        "password": settings.nats_password.get_secret_value() if settings.nats_password else None,
        "user_credentials": str(settings.nats_creds) if settings.nats_creds else None,
    }
    try:
        await client.connect(**options)
        yield connection
    finally:
        if not client.is_connected:
            drop_unsent()
        # Lost in this very moment: the client fails to flush (uvloop's error is the RuntimeError), and we are done.
        with suppress(OSError, RuntimeError):
            await client.close()
