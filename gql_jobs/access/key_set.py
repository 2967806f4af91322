"""The public keys of an identity provider: a JSON Web Key Set at a URL or in a file, read anew as it changes.

What was read last stays in use while the set cannot be read. A URL is fetched in a thread, over TLS or from this
machine, without redirects, and bounded in bytes and time.
"""

import asyncio
import http.client
import json
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from msgspec import Struct, field

log = logging.getLogger(__name__)

REFRESH_EVERY = 300.0
"""Seconds between two fetches of the set, and how long a key that its provider has withdrawn may still count."""
RETRY_EVERY = 10.0
"""Seconds after which a fetch that has failed is tried again."""
FETCH_AT_MOST_EVERY = 5.0
"""Seconds between two fetches for tokens whose key is unknown: whoever makes such tokens up causes no more."""
FILE_CHECK_EVERY = 1.0
"""Seconds between two looks at whether a file has changed."""
FETCH_TIMEOUT = 5.0
"""Seconds that a fetch may take."""
MAX_SET_BYTES = 1 << 20
"""Bytes of the largest set that is read."""
MAX_KEYS = 100
"""Keys of a set that are read, at most."""
_FEWEST_RSA_BITS = 2048
_ALGORITHMS = {
    ("RSA", None): ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
    ("OKP", "Ed448"): ("EdDSA",),
}
"""What a key of a kind and curve may have signed. None of these takes a secret for a key."""
ASYMMETRIC = frozenset(name for names in _ALGORITHMS.values() for name in names)
"""The algorithms that a token may name."""
_PUBLIC_PARTS = ("kty", "kid", "crv", "n", "e", "x", "y")
"""What is taken of a key: never its private part, should a file hold that."""


class PublicKey(Struct, frozen=True):
    """A key of the set, ready to verify with, for each algorithm that it may have signed with."""

    id: str | None
    by_algorithm: dict[str, jwt.PyJWK]


class _KeySet(Struct):
    text: bytes = b""
    keys: list[PublicKey] = field(default_factory=list)


class UnreadableKeySet(Exception):
    """The set cannot be read now; the message is a sentence without its full stop."""


class KeySet:
    """The keys as they were read last. ``on_change`` is called when they are other ones than before."""

    def __init__(self, place: str, clock: Callable[[], float] = time.monotonic) -> None:
        """:param place: an ``https`` URL, an ``http`` URL of this machine, or the path of a file."""
        self._place = place
        self._is_url = "://" in place
        self._clock = clock
        self._current: _KeySet | None = None
        self._tried_at = float("-inf")
        self._trying: asyncio.Task[bool] | None = None
        self._fetch_ended = threading.Event()
        self._fetch_ended.set()
        self._seen: tuple[int, int, int] | None = None
        self._is_failing = False
        self.on_change: Callable[[], None] = lambda: None

    @property
    def is_known(self) -> bool:
        """Whether the set was ever read."""
        return self._current is not None

    def find(self, key_id: str | None, algorithm: str) -> jwt.PyJWK | None:
        """Return the key with an id; without one the only key for the algorithm. None if there is none."""
        keys = self._current.keys if self._current is not None else []
        fitting = [
            key.by_algorithm[algorithm]
            for key in keys
            if algorithm in key.by_algorithm and (key_id is None or key.id == key_id)
        ]
        return fitting[0] if len(fitting) == 1 else None

    async def look_again(self) -> None:
        """Read the set again, for a key that is not in it: no more often than every ``FETCH_AT_MOST_EVERY`` seconds."""
        if self._trying is None and self._clock() - self._tried_at < FETCH_AT_MOST_EVERY:
            return
        await self._read_once()

    async def run(self) -> None:
        """Read the set, and again as time passes or its file changes; never ends by itself."""
        try:
            while True:
                is_read = self._is_same_file() or await self._read_once()
                pause = REFRESH_EVERY if is_read else RETRY_EVERY
                await asyncio.sleep(pause if self._is_url else FILE_CHECK_EVERY)
        finally:
            if self._trying is not None:
                self._trying.cancel()

    async def _read_once(self) -> bool:
        """Read the set, together with whoever does so already; return whether it could be read."""
        if self._trying is None:
            self._trying = asyncio.ensure_future(self._read())
            self._trying.add_done_callback(self._has_tried)
        return await asyncio.shield(self._trying)

    def _has_tried(self, _: asyncio.Task[bool]) -> None:
        self._trying = None

    async def _read(self) -> bool:
        self._tried_at = self._clock()
        try:
            text = await self._fetched() if self._is_url else self._from_file()
            if self._current is None or text != self._current.text:
                self._current = _KeySet(text, read_keys(text))
                self.on_change()
        except UnreadableKeySet as error:
            if not self._is_failing:
                log.warning("the keys of the identity provider cannot be read; those known stay in use: %s", error)
            self._is_failing = True
            return False
        if self._is_failing:
            log.info("the keys of the identity provider can be read again")
        self._is_failing = False
        return True

    # A file.

    def _is_same_file(self) -> bool:
        """Return whether the file is the one that was read; a URL is none."""
        return not self._is_url and self._seen is not None and self._stamp() == self._seen

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            found = Path(self._place).stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _from_file(self) -> bytes:
        self._seen = self._stamp()
        try:
            with Path(self._place).open("rb") as file:
                text = file.read(MAX_SET_BYTES + 1)
        except OSError as error:
            raise UnreadableKeySet(f"the file {self._place}: {error.strerror}") from error
        return _bounded(text)

    # A URL.

    async def _fetched(self) -> bytes:
        if not self._fetch_ended.is_set():
            raise UnreadableKeySet("the last fetch has not ended yet")
        parts = urlsplit(self._place)
        connection = _connection(parts.scheme, parts.hostname or "", parts.port)
        loop = asyncio.get_running_loop()
        result: asyncio.Future[bytes] = loop.create_future()

        def set_result(value: bytes | Exception) -> None:
            if result.done():
                return
            if isinstance(value, bytes):
                result.set_result(value)
            else:
                result.set_exception(value)

        def fetch() -> None:
            value = _fetch(connection, parts.path + (f"?{parts.query}" if parts.query else ""))
            self._fetch_ended.set()
            with suppress(RuntimeError):  # the process ends
                loop.call_soon_threadsafe(set_result, value)

        # A thread of its own: the process must not wait for it at its end.
        self._fetch_ended.clear()
        threading.Thread(target=fetch, name="key-set", daemon=True).start()
        try:
            async with asyncio.timeout(FETCH_TIMEOUT):
                return await result
        except TimeoutError:
            raise UnreadableKeySet(f"no answer within {FETCH_TIMEOUT:g} s") from None
        finally:
            if connection.sock is not None:
                with suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)


def _connection(scheme: str, host: str, port: int | None) -> http.client.HTTPConnection:
    if scheme == "https":
        return http.client.HTTPSConnection(host, port, timeout=FETCH_TIMEOUT, context=ssl.create_default_context())
    return http.client.HTTPConnection(host, port, timeout=FETCH_TIMEOUT)


def _fetch(connection: http.client.HTTPConnection, path: str) -> bytes | UnreadableKeySet:
    """Return the body of a URL, or why there is none."""
    try:
        connection.request("GET", path or "/", headers={"Accept": "application/json", "Connection": "close"})
        with connection.getresponse() as answer:
            if answer.status != http.client.OK:
                return UnreadableKeySet(f"the answer has the status {answer.status}")
            return _bounded(answer.read(MAX_SET_BYTES + 1))
    except UnreadableKeySet as error:
        return error
    except (OSError, http.client.HTTPException, ValueError) as error:
        return UnreadableKeySet(f"{type(error).__name__}")
    finally:
        connection.close()


def _bounded(text: bytes) -> bytes:
    if len(text) > MAX_SET_BYTES:
        raise UnreadableKeySet(f"it has more than {MAX_SET_BYTES} bytes")
    return text


def read_keys(text: bytes) -> list[PublicKey]:
    """Return the keys of a set that can verify signatures; others of it are left out.

    :raises UnreadableKeySet: if it is no key set, or has no such key.
    """
    try:
        listed = json.loads(text)["keys"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UnreadableKeySet("it is no JSON Web Key Set") from None
    if not isinstance(listed, list):
        raise UnreadableKeySet("it is no JSON Web Key Set")
    keys = [key for one in listed[:MAX_KEYS] if isinstance(one, dict) and (key := _public_key(one)) is not None]
    if not keys:
        raise UnreadableKeySet("it has no key that verifies signatures")
    return keys


def _public_key(given: dict[str, Any]) -> PublicKey | None:
    kind, curve, key_id = given.get("kty"), given.get("crv"), given.get("kid")
    operations = given.get("key_ops", ["verify"])
    if given.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return None
    if not isinstance(kind, str) or not isinstance(curve, str | None) or not isinstance(key_id, str | None):
        return None
    algorithms = _ALGORITHMS.get((kind, curve), ())
    named = given.get("alg")
    if named is not None:
        named = "EdDSA" if named == curve else named
        algorithms = tuple(one for one in algorithms if one == named)
    parts = {name: given[name] for name in _PUBLIC_PARTS if name in given}
    try:
        made = {algorithm: jwt.PyJWK(parts, algorithm) for algorithm in algorithms}
    except Exception:  # noqa: BLE001 - whatever is wrong with one key of others, the rest count
        log.warning("a key of the identity provider cannot be read and is left out")
        return None
    if any(isinstance(one.key, RSAPublicKey) and one.key.key_size < _FEWEST_RSA_BITS for one in made.values()):
        log.warning("an RSA key of the identity provider has fewer than %d bits and is left out", _FEWEST_RSA_BITS)
        return None
    return PublicKey(key_id, made) if made else None
