"""The connection to NATS: one per process, reconnecting for ever, and the JetStream API calls made over it.

It never buffers messages while the server is away: a write that was answered as failed must not be stored later.
"""

import asyncio
import ipaddress
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import msgspec
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from nats.js.errors import NotFoundError
from nats.js.object_store import ObjectStore

from gql_jobs.jetstream.client import NatsClient, Publisher, Receiver, SubjectSubscription
from gql_jobs.jetstream.errors import ApiError, Unavailable
from gql_jobs.jetstream.server import running_server
from gql_jobs.settings import NatsServer, Settings, nats_servers

log = logging.getLogger(__name__)

DEFAULT_URL = "nats://127.0.0.1:4222"
API_TIMEOUT = 2.0
"""Seconds that one call of the JetStream API may take."""
_LOG_INTERVAL = 5.0
"""Seconds between two log lines about a server that cannot be reached."""
_NOT_LET_IN = (
    "; set GQL_JOBS_NATS_USER and GQL_JOBS_NATS_PASSWORD, or GQL_JOBS_NATS_CREDS. Those of the embedded server are in "
    "the file nats/url of its data folder."
)
_NOT_PERMITTED = (
    "The NATS server does not permit this to the user of this process; its log names the subject. Streams are made by "
    "API processes, so one of these has to be started first."
)
Callback = Callable[[Msg], Awaitable[None]]


class _Answer(msgspec.Struct):
    error: dict[str, Any] | None = None


class Connection:
    """One connection to NATS: messages, requests, subscriptions and calls of the JetStream API.

    ``on_disconnect``, ``on_reconnect``: functions to call after each loss of the connection and each reconnection.
    ``client``: the client beneath, for code that sends thousands of messages and saves a call for each.
    """

    def __init__(self, client: NatsClient, inbox: str) -> None:
        """:param inbox: what the subjects begin with on which answers come."""
        self.client = client
        self._inbox = inbox
        self.on_disconnect: list[Callable[[], None]] = []
        self.on_reconnect: list[Callable[[], None]] = []

    @property
    def connected(self) -> bool:
        """Whether the server can be reached as far as is known."""
        return self.client.is_connected

    @property
    def closed(self) -> bool:
        """Whether it has ended for good."""
        return self.client.is_closed

    @property
    def max_payload(self) -> int:
        """Bytes of the largest message the server takes."""
        return self.client.max_payload

    @property
    def server_version(self) -> str:
        """Such as ``2.15.1``."""
        version = self.client.connected_server_version
        return f"{version.major}.{version.minor}.{version.patch}"

    @property
    def has_jetstream(self) -> bool:
        """Whether the connected server has JetStream; if not, another one of its cluster may."""
        return bool(self.client._server_info.get("jetstream"))  # noqa: SLF001

    def new_inbox(self) -> str:
        """Return a random subject that nothing else subscribes to."""
        return f"{self._inbox}.{secrets.token_hex(11)}"

    async def publish(self, subject: str, data: bytes, reply: str = "") -> None:
        """Send a message, without waiting for an answer.

        :raises Unavailable: if it was not sent because the server is away.
        :raises MessageTooLarge: if the server would refuse its size; none of it was sent.
        """
        await self.client.send(subject, data, reply)

    async def request(self, subject: str, data: bytes, timeout: float = API_TIMEOUT) -> Msg:  # noqa: ASYNC109
        """Send a message and return the first answer.

        :raises Unavailable: if no answer comes within ``timeout`` seconds.
        """
        try:
            return await self.client.request(subject, data, timeout=timeout)
        except NatsError as error:
            if self.client.was_refused(subject):
                raise Unavailable(_NOT_PERMITTED) from error
            raise Unavailable(_reason(error)) from error

    async def subscribe(self, subject: str, callback: Callback) -> SubjectSubscription:
        """Call ``callback`` with each message of a subject, one after the other, in a task of its own.

        :raises Unavailable: if the server is away.
        """
        try:
            return await self.client.subscribe(
                subject, cb=callback, pending_msgs_limit=2_000_000, pending_bytes_limit=1 << 30
            )
        except NatsError as error:
            raise Unavailable("NATS is not reachable.") from error

    async def receive(self, subject: str, receiver: Receiver) -> SubjectSubscription:
        """Call ``receiver`` with each message of a subject that nothing else here subscribes to, such as an inbox.

        :raises Unavailable: if the server is away.
        """
        try:
            return await self.client.receive(subject, receiver)
        except NatsError as error:
            raise Unavailable("NATS is not reachable.") from error

    async def unsubscribe(self, subscription: SubjectSubscription) -> None:
        """End a subscription; never fails, also if its connection is lost."""
        try:
            await subscription.unsubscribe()
        except NatsError:
            log.debug("a subscription ended with its connection")
        finally:
            self.client.remove_receiver(subscription)

    async def drain(self, subscription: SubjectSubscription) -> None:
        """End a subscription after its callback has been called with all messages that the server had sent before."""
        try:
            # A connection that breaks now would hold it for the client's own ten seconds.
            async with asyncio.timeout(API_TIMEOUT):
                await subscription.drain()  # type: ignore[no-untyped-call]
        except (NatsError, TimeoutError):
            log.debug("a subscription ended with its connection")
        finally:
            self.client.remove_receiver(subscription)

    async def api(self, call: str, body: Any = None, timeout: float = API_TIMEOUT) -> bytes:  # noqa: ASYNC109
        """Return the JSON answer of ``$JS.API.<call>``.

        :raises ApiError: if the server refuses.
        :raises Unavailable: if it does not answer within ``timeout`` seconds.
        """
        data = msgspec.json.encode(body) if body is not None else b""
        answer = (await self.request(f"$JS.API.{call}", data, timeout)).data
        error = msgspec.json.decode(answer, type=_Answer).error
        if error is not None:
            raise ApiError(call, error.get("code", 0), error.get("err_code", 0), error.get("description", ""))
        return answer

    async def object_store(self, bucket: str, replicas: int | None) -> ObjectStore:
        """Return nats-py's object store of that name; if there is none, create it with ``replicas`` copies.

        :param replicas: None to create none.
        :raises nats.errors.Error: if the server refuses or does not answer, or there is none and none is created.
        """
        jetstream = self.client.jetstream()
        try:
            # Not created first: that is refused if the existing one differs, in its number of copies for example.
            return await jetstream.object_store(bucket)
        except NotFoundError:
            if replicas is None:
                raise
            return await jetstream.create_object_store(bucket, replicas=replicas)

    async def end(self) -> None:
        """End it for good: nothing is sent any more, and nothing is heard."""
        # If the connection is lost just now, the flush fails (in uvloop with RuntimeError), and that does not matter.
        with suppress(OSError, RuntimeError):
            await self.client.close()

    async def purge(self, stream: str, subject: str) -> None:
        """Remove every message of a subject. Slow on the server's side, so not to be called for every job.

        :raises ApiError: if the server refuses.
        :raises Unavailable: if it does not answer.
        """
        await self.api(f"STREAM.PURGE.{stream}", {"filter": subject})


def _reason(error: Exception) -> str:
    """Return why a request failed, as a sentence for clients of the API."""
    if isinstance(error, TimeoutError):
        return "NATS did not answer in time."
    if isinstance(error, NoRespondersError):
        return "NATS is reachable, but its JetStream does not answer."
    return "NATS is not reachable."


class _Credentials:
    """What this process says to let itself in, at each connection anew, since its server may change.

    A setting counts more than a URL. A server that the cluster has told of gets the credentials of the first URL that
    has some. The embedded server of our own data folder, and no other, gets the password from there.
    """

    def __init__(self, settings: Settings, servers: tuple[NatsServer, ...], client: NatsClient) -> None:
        self._settings = settings
        self._client = client
        self._of_all = next((server for server in servers if server.user is not None), None)
        self._listed = {urlsplit(server.url).netloc.lower(): server for server in servers}

    def options(self) -> dict[str, Any]:
        """Return the options of nats-py."""
        if self._settings.nats_creds:
            return {"user_credentials": str(self._settings.nats_creds)}
        if self._settings.nats_password:
            return {
                "user": self._settings.nats_user or "gql-jobs",
                "password": self._settings.nats_password.get_secret_value(),
            }
        if self._of_all is not None and self._of_all.password is None:
            return {"token": self._of_all.user}
        return {"user": lambda: self._now().user, "password": lambda: self._now().password}

    def _now(self) -> NatsServer:
        current: Any = self._client._current_server  # noqa: SLF001
        netloc = current.uri.netloc.lower()
        known = self._listed.get(netloc) or self._listed.get(netloc.removesuffix(":4222")) or self._of_all
        if known is not None and known.user is not None:
            return known
        ours = running_server(self._settings.data_dir)
        if ours is not None and _is_same(urlsplit(ours.url), current.uri):
            return ours
        return NatsServer("")


def _is_same(ours: Any, other: Any) -> bool:
    """Return whether the server at ``other``, as it is called in a setting, is the embedded one at ``ours``."""
    if ours.port != other.port:
        return False
    return ours.hostname == other.hostname or (_is_loopback(ours.hostname) and _is_loopback(other.hostname))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _servers(settings: Settings) -> tuple[NatsServer, ...]:
    if settings.nats_url:
        return nats_servers(settings.nats_url)
    ours = running_server(settings.data_dir)
    return nats_servers(ours.url if ours is not None else DEFAULT_URL)


def _look_for_our_server(settings: Settings, client: NatsClient) -> None:
    """Have a client that no setting tells where to connect try where the server of our data folder is by now."""
    if settings.nats_url or client.is_connected or client.is_closed:
        return
    ours = running_server(settings.data_dir)
    if ours is not None and ours.url not in {server.geturl() for server in client.servers}:
        client.set_server_pool([ours.url])


def _call(callbacks: Iterable[Callable[[], None]]) -> None:
    for callback in callbacks:
        callback()


@asynccontextmanager
async def connect(
    settings: Settings, name: str, on_trouble: Callable[[str], None] = log.debug
) -> AsyncIterator[Connection]:
    """Yield a connection to ``settings.nats_url``, waiting until a server can be reached; close it after the block.

    Without that setting it is the embedded server that runs in ``settings.data_dir``, then too when it comes later or
    comes back at another port, or else the usual port.

    :param name: the name of the connection that the server shows.
    :param on_trouble: called with a sentence after each failed try to connect.
    """
    client = NatsClient()
    servers = _servers(settings)
    logged_at = -_LOG_INTERVAL
    connection = Connection(client, settings.nats_inbox)

    def drop_unsent() -> None:
        # What the client has not written yet would be sent after a reconnection, although it was answered as failed.
        client._pending.clear()  # noqa: SLF001
        client._pending_data_size = 0  # noqa: SLF001

    async def disconnected() -> None:
        drop_unsent()
        if not client.is_closed:
            log.warning("NATS is away")
            _call(connection.on_disconnect)

    async def reconnected() -> None:
        log.info("NATS is back")
        _call(connection.on_reconnect)

    async def failed(error: Exception) -> None:
        nonlocal logged_at
        shown = ", ".join(server.url for server in servers)
        _look_for_our_server(settings, client)
        trouble = f"NATS cannot be reached at {shown}: {str(error) or type(error).__name__}"
        if "authorization violation" in str(error).lower():
            trouble += _NOT_LET_IN
        on_trouble(trouble)
        if client.is_connected or time.monotonic() - logged_at < _LOG_INTERVAL:
            log.debug("NATS connection: %r", error)
            return
        logged_at = time.monotonic()
        log.warning(trouble)

    options: dict[str, Any] = {
        # Without credentials, so that no message of the client's shows them.
        "servers": [server.url for server in servers],
        "name": name,
        "pending_size": 0,
        "max_reconnect_attempts": -1,
        "reconnect_time_wait": 0.25,
        "connect_timeout": 2,
        "ping_interval": 5,
        "max_outstanding_pings": 2,
        "skip_subject_validation": True,
        "inbox_prefix": settings.nats_inbox,
        "tls": settings.nats_tls(),
        "disconnected_cb": disconnected,
        "reconnected_cb": reconnected,
        "error_cb": failed,
        **_Credentials(settings, servers, client).options(),
    }
    try:
        await client.connect(**options)
        yield connection
    finally:
        if not client.is_connected:
            drop_unsent()
        await connection.end()


@asynccontextmanager
async def open_publisher(connection: Connection) -> AsyncIterator[Publisher]:
    """Yield a publisher, subscribed to its inbox until the block ends; unresolved futures fail then.

    :raises Unavailable: if the server is away.
    """
    inbox = connection.new_inbox()
    publisher = Publisher(connection.client, inbox)
    subscription = await connection.receive(f"{inbox}.*", publisher.on_ack)
    try:
        yield publisher
    finally:
        publisher.close()
        await connection.unsubscribe(subscription)
