"""An API that asks who calls it, the credentials of its callers, and what an attacker makes of them."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect

from gql_jobs import clock
from gql_jobs.access.authentication import Authentication
from gql_jobs.access.records import new_key
from gql_jobs.access.view_tokens import IssuedToken
from gql_jobs.jobs.errors import Unauthenticated
from gql_jobs.jobs.requests import JobRequest
from gql_jobs.jobs.viewer import NO_LIMITS, Scope, ViewLimits
from gql_jobs.settings import Settings
from gql_jobs.web import request_authentication
from gql_jobs.web.socket_session import SocketSession
from tests.deadline import until
from tests.job_types.probe_jobs import ProbePayload
from tests.serving import HOST, PROTOCOL, Data, ServedApi, hear, say, serving
from tests.stories import accepted

EVERY = frozenset(Scope)
READ = frozenset({Scope.READ})


class TokenTime:
    """The time by which tokens and keys end: it passes when a test says so, not while a slow machine gets there.

    What the process does once it is over, it does within 20 ms, whatever the clock is set to.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Look at a movable clock often."""
        self._noticed = asyncio.Event()
        expired = SocketSession._expired  # noqa: SLF001

        def noticing(session: SocketSession) -> None:
            expired(session)
            self._noticed.set()

        monkeypatch.setattr(request_authentication, "_LONGEST_TIMER", 0.02)
        monkeypatch.setattr(SocketSession, "_expired", noticing)

    def pass_until(self, moment: datetime) -> None:
        """Have it be that moment."""
        clock.advance(moment - clock.now())

    async def end(self, issued: IssuedToken) -> None:
        """End the one token that a socket is open under, and wait until that socket has noticed.

        Nothing may run there but subscriptions: what is asked for before the end is answered once there is a new token.
        """
        self._noticed.clear()
        self.pass_until(issued.expires_at)
        await asyncio.wait_for(self._noticed.wait(), 10)


class GuardedApi:
    """A served API under authentication, with a key that may do everything."""

    def __init__(self, api: ServedApi, key: str) -> None:
        self.api = api
        self.key = key

    @property
    def access(self) -> Authentication:
        """What knows the keys and tokens of the served process."""
        return self.api.runtime.access

    async def new_key(self, name: str, scopes: frozenset[Scope] = EVERY, **options: Any) -> str:
        """A key that the served process knows already."""
        return await new_known_key(self.access, name, scopes, **options)

    async def token(
        self, seconds: int = 600, scopes: Iterable[Scope] = READ, limits: ViewLimits = NO_LIMITS, key: str | None = None
    ) -> IssuedToken:
        """A view token made with a key."""
        return self.access.issue(await self.access.viewer_of(key or self.key), limits, scopes, seconds)

    async def revoke(self, issued: IssuedToken) -> None:
        """End a view token."""
        assert await self.access.revoke(await self.access.viewer_of(self.key), issued.id)

    async def post(self, query: str, token: str | None, path: str = "/graphql", **more: Any) -> httpx.Response:
        """A request over HTTP with that bearer."""
        headers = {**({"Authorization": f"Bearer {token}"} if token is not None else {}), **more.pop("headers", {})}
        return await self.api.http.post(path, json={"query": query, **more}, headers=headers)

    async def create(self, **payload: Any) -> str:
        """The id of a new job."""
        probe = self.api.runtime.registry.get("probe")
        assert probe is not None
        request = JobRequest.of(probe, accepted(ProbePayload(**payload)))
        created = await self.api.runtime.commands.create(request)
        return (await self.api.runtime.feed.read_back(created)).id

    @asynccontextmanager
    async def socket(self, **parameters: Any) -> AsyncIterator[ClientConnection]:
        """A socket that has sent ``connection_init`` with that payload."""
        url = f"ws://{HOST}:{self.api.port}/graphql"
        async with connect(url, subprotocols=[PROTOCOL], compression=None, proxy=None) as opened:  # type: ignore[list-item]
            await say(opened, type="connection_init", payload=parameters)
            yield opened

    @asynccontextmanager
    async def initialised(self, token: str) -> AsyncIterator[ClientConnection]:
        """A socket that was acknowledged for a token."""
        async with self.socket(authorization=f"Bearer {token}") as opened:
            assert await hear(opened) == {"type": "connection_ack"}
            yield opened


async def new_known_key(access: Authentication, name: str, scopes: frozenset[Scope], **options: Any) -> str:
    """A key that an API process knows already."""
    text, record = new_key(name, scopes, **options)
    await access._store.add_key(record)  # noqa: SLF001

    async def is_known() -> bool:
        try:
            await access.viewer_of(text)
        except Unauthenticated:
            return False
        return True

    await until(is_known, "the key is known")
    return text


@asynccontextmanager
async def guarded(settings: Settings, **changes: Any) -> AsyncIterator[GuardedApi]:
    """The API of ``serving``, which asks who calls it."""
    async with serving(settings.model_copy(update={"auth": "required", **changes})) as api:
        yield GuardedApi(api, await new_known_key(api.runtime.access, "operator", EVERY))


def forgeries(token: str) -> dict[str, str]:
    """What an attacker makes of a valid view token, by what was done to it."""
    prefix, _, text = token.partition("_")
    head, claims, signature = text.split(".")
    said = json.loads(_bytes(claims))

    def of(header: Data, body: Data, mark: str = signature) -> str:
        return f"{prefix}_{_text(header)}.{_text(body)}.{mark}"

    header = json.loads(_bytes(head))
    return {
        "alg none": of({**header, "alg": "none"}, said, ""),
        "alg None": of({**header, "alg": "None"}, said),
        "another algorithm": of({**header, "alg": "RS256"}, said),
        "no key": of({"alg": "HS256", "typ": "JWT"}, said),
        "another key": of({**header, "kid": "../signing"}, said),
        "a key of its own": of({**header, "jwk": {"kty": "oct", "k": "AAAA"}, "kid": None}, said),
        "another subject": of(header, {**said, "sub": "key:root"}),
        "more scopes": of(header, {**said, "scp": ["read", "create", "control", "operate"]}),
        "a later end": of(header, {**said, "exp": said["exp"] + 9999}),
        "no signature": of(header, said, ""),
        "half a signature": f"{prefix}_{head}.{claims}.{signature[: len(signature) // 2]}",
        "no prefix": text,
        "the prefix of a key": f"gj_{text}",
        "a dot more": f"{token}.",
        "nothing": "",
        "not ASCII": "gjv_é",
        "very long": "gjv_" + "a" * 50_000,
    }


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _text(value: Data) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()
