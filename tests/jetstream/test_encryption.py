"""URLs with ``tls://``: what is sent is encrypted, or nothing is sent."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from gql_jobs.jetstream.connection import connect
from gql_jobs.jetstream.errors import Unavailable
from gql_jobs.processes.event_loop import in_background
from gql_jobs.settings import Settings
from tests.by_hand import plain_nats
from tests.deadline import until

PASSWORD = "open sesame"  # noqa: S105


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A certificate for 127.0.0.1, signed by itself, as nats-server wants it in its configuration."""
    folder = tmp_path_factory.mktemp("certificate")
    files = {"cert_file": str(folder / "cert.pem"), "key_file": str(folder / "key.pem")}
    kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=nats")
    names = ("-addext", "subjectAltName=IP:127.0.0.1")
    command = ("openssl", "req", "-x509", *kind, *names, "-out", files["cert_file"], "-keyout", files["key_file"])
    subprocess.run(command, check=True, capture_output=True)
    return files


@asynccontextmanager
async def _nats(folder: Path, **configuration: object) -> AsyncIterator[int]:
    """The port of a server with a password."""
    file = folder / "nats.conf"
    file.write_text(json.dumps({"authorization": {"user": "us", "password": PASSWORD}, **configuration}))
    async with plain_nats(folder, "-c", str(file)) as url:
        yield urlsplit(url).port or 0


@asynccontextmanager
async def _recorded(port: int, sent: bytearray) -> AsyncIterator[int]:
    """The port of something that hands all on to the server at ``port``, and keeps what clients have sent."""

    async def hand_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kept: bytearray | None) -> None:
        while data := await reader.read(65536):
            if kept is not None:
                kept += data
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(hand_on(reader, to_writer, sent), hand_on(to_reader, writer, None), return_exceptions=True)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


def _settings(folder: Path, scheme: str, port: int) -> Settings:
    return Settings(nats_url=f"{scheme}://us:{PASSWORD}@127.0.0.1:{port}", data_dir=folder / "data")


async def test_a_server_without_tls_is_sent_nothing_where_the_url_asks_for_tls(tmp_path: Path) -> None:
    sent, troubles = bytearray(), list[str]()
    async with _nats(tmp_path) as port, _recorded(port, sent) as recorded:

        async def try_to_connect() -> None:
            async with connect(_settings(tmp_path, "tls", recorded), "test", troubles.append):
                raise AssertionError("it is connected")

        async with in_background(try_to_connect()):
            await until(lambda: len(troubles) >= 2, "it has been tried twice")
    assert f"tls://127.0.0.1:{recorded}: the server has no TLS, which the URL asks for" in troubles[0]
    assert sent == b""


@pytest.mark.parametrize("optional", [False, True])
async def test_what_is_sent_to_a_server_with_tls_is_encrypted_also_where_it_does_not_insist(
    tmp_path: Path, certificate: dict[str, str], monkeypatch: pytest.MonkeyPatch, optional: bool
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", certificate["cert_file"])
    sent = bytearray()
    async with (
        _nats(tmp_path, tls=certificate, allow_non_tls=optional) as port,
        _recorded(port, sent) as recorded,
        connect(_settings(tmp_path, "tls", recorded), "test") as connection,
    ):
        assert connection.connected
    assert sent
    assert b"CONNECT" not in sent
    assert PASSWORD.encode() not in sent


async def test_a_server_is_trusted_by_the_authority_that_is_named_and_by_no_other(
    tmp_path: Path, certificate: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    troubles = list[str]()
    async with _nats(tmp_path, tls=certificate) as port:
        stranger = _settings(tmp_path, "tls", port)
        trusting = stranger.model_copy(update={"nats_ca": Path(certificate["cert_file"])})

        async def try_to_connect() -> None:
            async with connect(stranger, "test", troubles.append):
                raise AssertionError("it is connected")

        async with in_background(try_to_connect()):
            await until(lambda: "CERTIFICATE_VERIFY_FAILED" in str(troubles), "the certificate was refused")
        async with connect(trusting, "test") as connection:
            assert connection.connected
    assert "eof_received" not in caplog.text, "asyncio has nothing to warn of"


async def test_a_server_that_asks_for_a_certificate_is_shown_one(tmp_path: Path, certificate: dict[str, str]) -> None:
    tls = {**certificate, "ca_file": certificate["cert_file"], "verify": True}
    async with _nats(tmp_path, tls=tls) as port:
        settings = Settings(
            nats_url=f"tls://us:{PASSWORD}@127.0.0.1:{port}",
            nats_ca=Path(certificate["cert_file"]),
            nats_cert=Path(certificate["cert_file"]),
            nats_key=Path(certificate["key_file"]),
        )
        async with connect(settings, "test") as connection:
            assert connection.connected


async def test_what_the_server_does_not_permit_is_logged_and_the_connection_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    user = {"user": "us", "password": PASSWORD, "permissions": {"publish": "a", "subscribe": "mine.>"}}
    async with _nats(tmp_path, authorization={"users": [user]}) as port:
        settings = _settings(tmp_path, "nats", port).model_copy(update={"nats_inbox": "mine"})
        async with connect(settings, "test") as connection:
            assert connection.new_inbox().startswith("mine.")
            await connection.publish("b", b"")
            await until(lambda: 'publish to "b"' in caplog.text, "the refusal is logged")
            assert "deploy/nats/nats-server.conf has what is needed" in caplog.text
            with pytest.raises(Unavailable, match="does not permit this to the user of this process"):
                await connection.request("b", b"", timeout=0.1)
            assert connection.connected
