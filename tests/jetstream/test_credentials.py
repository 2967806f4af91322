"""A NATS server that lets nobody in without a credentials file: operator, account and user as `nsc` makes them."""

import asyncio
import base64
import json
import secrets
import time
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import nkeys
import pytest
from pydantic import SecretStr

from gql_jobs.jetstream.connection import connect
from gql_jobs.jetstream.server import EmbeddedServer, embedded_server
from gql_jobs.log.streams import ensure_streams, stream_info
from gql_jobs.settings import Settings
from tests.by_hand import plain_nats
from tests.deadline import until

_UNLIMITED = {"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "conn": -1, "leaf": -1}


def _key(prefix: int) -> Any:
    return nkeys.from_seed(nkeys.encode_seed(secrets.token_bytes(32), prefix))


def _public(key: Any) -> str:
    return str(key.public_key.decode())


def _token(issuer: Any, subject: Any, kind: str, **claims: Any) -> str:
    body = {
        "jti": secrets.token_hex(16),
        "iat": int(time.time()),
        "iss": _public(issuer),
        "sub": _public(subject),
        "name": kind,
        "nats": {"type": kind, "version": 2, **claims},
    }
    head = {"typ": "JWT", "alg": "ed25519-nkey"}
    signed = ".".join(_encoded(json.dumps(part).encode()) for part in (head, body))
    return f"{signed}.{_encoded(issuer.sign(signed.encode()))}"


def _encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


@pytest.fixture
def guarded(tmp_path: Path) -> dict[str, Path]:
    """The configuration of the server and the credentials of its one user."""
    operator, system, account, user = (
        _key(prefix)
        for prefix in (
            nkeys.PREFIX_BYTE_OPERATOR,
            nkeys.PREFIX_BYTE_ACCOUNT,
            nkeys.PREFIX_BYTE_ACCOUNT,
            nkeys.PREFIX_BYTE_USER,
        )
    )
    stores = {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}
    accounts = {
        _public(system): _token(operator, system, "account", limits=_UNLIMITED),
        _public(account): _token(operator, account, "account", limits={**_UNLIMITED, **stores}),
    }
    config = {
        "operator": _token(operator, operator, "operator"),
        "system_account": _public(system),
        "resolver": "MEMORY",
        "resolver_preload": accounts,
        "jetstream": {"store_dir": str(tmp_path / "store")},
    }
    token, seed = _token(account, user, "user", subs=-1, data=-1, payload=-1), user.seed.decode()
    files = {"config": tmp_path / "nats.conf", "creds": tmp_path / "user.creds"}
    files["config"].write_text(json.dumps(config))
    files["creds"].write_text(
        f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
    return files


async def test_a_credentials_file_opens_the_server_and_nothing_else_does(
    guarded: dict[str, Path], tmp_path: Path
) -> None:
    async with plain_nats(tmp_path, "--config", str(guarded["config"])) as url:
        settings = Settings(nats_url=url, nats_creds=guarded["creds"])
        async with connect(settings, "test") as connection:
            await ensure_streams(connection, settings)
            assert (await stream_info(connection)).state.last_seq == 0
        troubles: list[str] = []

        async def enter() -> None:
            async with connect(Settings(nats_url=url), "stranger", troubles.append):
                raise AssertionError("the stranger was let in")

        waiting = asyncio.create_task(enter())
        await until(lambda: "Authorization Violation" in str(troubles), "the server has refused the stranger")
        waiting.cancel()
        await asyncio.wait({waiting})
        assert waiting.cancelled()


@pytest.mark.parametrize("password", ["a#b", "a/b", "a@b", "a?b", "a%b", "a b", "a%23b", "ä,:'\"\\"])
async def test_a_password_opens_the_server_whatever_is_in_it(tmp_path: Path, password: str) -> None:
    async with embedded_server(tmp_path / "store", user="us@er", password=password) as server:
        elsewhere = tmp_path / "data"
        credentials = f"us%40er:{quote(password, safe='')}"
        in_url = Settings(nats_url=server.address.replace("//", f"//{credentials}@"), data_dir=elsewhere)
        in_settings = Settings(
            nats_url=server.address, nats_user="us@er", nats_password=SecretStr(password), data_dir=elsewhere
        )
        for settings in in_url, in_settings:
            async with asyncio.timeout(20), connect(settings, "test") as connection:
                assert connection.connected


async def test_the_embedded_server_lets_in_who_has_its_folder_and_nobody_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with embedded_server(tmp_path) as server:
        for url in None, server.address, server.address.replace("127.0.0.1", "localhost"):
            async with asyncio.timeout(20), connect(Settings(nats_url=url, data_dir=tmp_path), "owner") as connection:
                assert connection.connected
        troubles: list[str] = []

        async def enter() -> None:
            stranger = Settings(nats_url=server.address, data_dir=tmp_path / "other")
            async with connect(stranger, "stranger", troubles.append):
                raise AssertionError("the stranger was let in")

        waiting = asyncio.create_task(enter())
        await until(lambda: "GQL_JOBS_NATS_PASSWORD" in str(troubles), "the stranger is told what is missing")
        waiting.cancel()
        await asyncio.wait({waiting})
        password = server.url.rpartition("@")[0].rpartition(":")[2]
        assert password not in f"{troubles}{caplog.text}{server!r}"
        assert (tmp_path / "nats/url").stat().st_mode & 0o777 == 0o600
    async with embedded_server(tmp_path) as again:
        assert again.url.rpartition("@")[0] == server.url.rpartition("@")[0], (
            "the connected come back with what they know"
        )


@pytest.mark.parametrize(
    "said", ["User Authentication Expired", "Authorization Violation", "Maximum Connections Exceeded"]
)
async def test_who_is_put_out_by_the_server_comes_back(nats: EmbeddedServer, said: str) -> None:
    writers: list[asyncio.StreamWriter] = []

    async def passed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
        writer.close()

    async def between(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", nats.port)
        writers.append(writer)
        await asyncio.gather(passed(reader, inner_writer), passed(inner_reader, writer))

    async with await asyncio.start_server(between, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        url = f"{nats.url.rpartition(':')[0]}:{port}"
        async with connect(Settings(nats_url=url), "test") as connection:
            await connection.api("INFO")
            (writer,) = writers
            writer.write(f"-ERR '{said}'\r\n".encode())
            await until(lambda: len(writers) == 2 and connection.connected, "it has come back")
            await connection.api("INFO")


async def test_the_server_of_the_folder_is_found_where_it_comes_later_and_with_whatever_port_and_password(
    tmp_path: Path,
) -> None:
    settings = Settings(data_dir=tmp_path)
    async with AsyncExitStack() as stack:
        tried: list[str] = []
        entering = asyncio.create_task(stack.enter_async_context(connect(settings, "early", tried.append)))
        await until(lambda: tried, "it has looked for a server in vain")
        async with embedded_server(tmp_path, password="one"):  # noqa: S106
            connection = await asyncio.wait_for(entering, 20)
            await connection.api("INFO")
        await until(lambda: not connection.connected, "the server is away")
        async with embedded_server(tmp_path, password="two"):  # noqa: S106
            await until(lambda: connection.connected, "it has come back", within=20)
            await connection.api("INFO")
