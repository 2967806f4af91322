"""Downloads, over real connections to a server on loopback."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from io import BytesIO

import pytest

from gql_jobs.jobs.errors import PermanentError, TransientError
from gql_jobs_worker.images.download import DownloadLimits, download, retry_after
from gql_jobs_worker.images.transport import AllowedNetworks, Resolve, resolve
from tests.file_server import Answer, FileServer, file_server

Fetch = Callable[..., Awaitable[bytes]]
ON_LOOPBACK = AllowedNetworks(loopback=True)


@pytest.fixture
async def server() -> AsyncIterator[FileServer]:
    async with file_server() as running:
        yield running


async def _fetch(
    url: str,
    *,
    networks: AllowedNetworks = ON_LOOPBACK,
    size: int = 1000,
    seconds: float = 10.0,
    names: Resolve = resolve,
    reports: list[tuple[int, int | None]] | None = None,
) -> bytes:
    file = BytesIO()
    limits = DownloadLimits(bytes=size, seconds=seconds, redirects=5, networks=networks)
    told = reports if reports is not None else []
    length = await download(url, file, limits, lambda *report: told.append(report), resolve=names)
    assert length == len(file.getvalue())
    return file.getvalue()


def _names(*answers: list[str]) -> Resolve:
    """A resolver that gives one answer after the other."""
    left = list(answers)

    async def answer(host: str, port: int) -> list[str]:
        assert host
        assert port
        return left.pop(0)

    return answer


async def test_the_bytes_arrive_and_their_number_is_told(server: FileServer) -> None:
    reports: list[tuple[int, int | None]] = []
    assert await _fetch(server.put("/a", b"x" * 900), reports=reports) == b"x" * 900
    assert reports[-1] == (900, 900)


async def test_a_length_that_is_not_known_is_not_told(server: FileServer) -> None:
    reports: list[tuple[int, int | None]] = []
    assert await _fetch(server.put("/a", Answer(b"x" * 900, chunked=True)), reports=reports) == b"x" * 900
    assert reports[-1] == (900, None)


async def test_proxies_of_the_environment_are_not_asked(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert await _fetch(server.put("/a", b"direct")) == b"direct"


async def test_a_file_of_the_largest_size_is_accepted(server: FileServer) -> None:
    assert len(await _fetch(server.put("/a", b"x" * 1000))) == 1000


async def test_a_larger_file_is_permanent_even_before_it_is_sent(server: FileServer) -> None:
    with pytest.raises(PermanentError, match="has 1001 bytes; the limit is 1000"):
        await _fetch(server.put("/a", Answer(b"", length=1001, hangs=True)))


async def test_a_larger_file_of_unknown_length_is_permanent(server: FileServer) -> None:
    with pytest.raises(PermanentError, match="more than 1000 bytes"):
        await _fetch(server.put("/a", Answer(b"x" * 1001, chunked=True)))


async def test_a_packed_body_is_refused_instead_of_unpacked(server: FileServer) -> None:
    with pytest.raises(PermanentError, match="packed as 'gzip'"):
        await _fetch(server.put("/a", Answer(b"", headers={"Content-Encoding": "gzip"})))
    assert server.requests[0][1]["accept-encoding"] == "identity"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 418, 451, 300, 304])
async def test_what_no_repetition_mends_is_permanent(server: FileServer, status: int) -> None:
    with pytest.raises(PermanentError, match=f"'127.0.0.1' answered {status}"):
        await _fetch(server.put("/a", Answer(status=status)))


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
async def test_what_may_go_away_is_transient(server: FileServer, status: int) -> None:
    with pytest.raises(TransientError, match=f"answered {status}") as failed:
        await _fetch(server.put("/a", Answer(status=status)))
    assert failed.value.retry_after is None


async def test_the_server_says_when_to_come_back(server: FileServer) -> None:
    for status in (429, 503):
        with pytest.raises(TransientError) as failed:
            await _fetch(server.put("/a", Answer(status=status, headers={"Retry-After": "7"})))
        assert failed.value.retry_after == 7


def test_retry_after_is_a_number_of_seconds_or_a_date_and_at_most_an_hour() -> None:
    def at(seconds: float) -> str:
        return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)

    assert retry_after("0") == 0
    assert retry_after(" 120 ") == 120
    assert retry_after("86400") == retry_after("9" * 5000) == retry_after(at(7200)) == 3600
    assert retry_after(at(-60)) == 0
    soon = retry_after(at(60))
    assert soon is not None
    assert 50 < soon <= 60
    assert [retry_after(odd) for odd in (None, "", "soon", "-1", "1.5", "٣", "Mon, 99 Foo")] == [None] * 7


async def test_a_server_that_stops_in_the_middle_is_transient(server: FileServer) -> None:
    with pytest.raises(TransientError, match=r"not complete after 0\.3 s"):
        await _fetch(server.put("/a", Answer(b"half", length=8, hangs=True)), seconds=0.3)


async def test_a_connection_lost_in_the_middle_is_transient(server: FileServer) -> None:
    with pytest.raises(TransientError, match="failed"):
        await _fetch(server.put("/a", Answer(b"half", length=8)))


async def test_a_refused_connection_is_transient() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(TransientError, match="failed"):
            await _fetch(f"http://127.0.0.1:{unused.getsockname()[1]}/")


async def test_an_answer_that_is_no_http_is_transient() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"220 mail.example ESMTP\r\n")
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as odd:
        with pytest.raises(TransientError):
            await _fetch(f"http://127.0.0.1:{odd.sockets[0].getsockname()[1]}/")


async def test_a_name_that_is_not_known_is_transient() -> None:
    async def unknown(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, f"{host}:{port} not known")

    with pytest.raises(TransientError, match=r"'pictures\.example' cannot be resolved: .* not known"):
        await _fetch("http://pictures.example/", names=unknown)
    with pytest.raises(TransientError, match="no address"):
        await _fetch("http://pictures.example/", names=_names([]))


@pytest.mark.parametrize(
    "url", ["http://" + "a" * 64 + ".example/", "http://:80/", "http://a:99999/", "http://[::1/", "ftp://a/"]
)
async def test_a_name_that_cannot_be_one_is_permanent(url: str) -> None:
    with pytest.raises(PermanentError):
        await _fetch(url)


async def test_the_next_address_is_tried_when_one_does_not_answer(server: FileServer) -> None:
    server.put("/a", b"second")
    url = server.url("/a", "pictures.example")
    assert await _fetch(url, names=_names(["127.0.0.2", "127.0.0.1"])) == b"second"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_followed(server: FileServer, status: int) -> None:
    server.put("/x/b", b"there")
    url = server.put("/x/a", Answer(status=status, headers={"Location": "b"}))
    assert await _fetch(url) == b"there"
    assert [path for path, _ in server.requests] == ["/x/a", "/x/b"]


async def test_five_redirects_are_followed_and_six_are_permanent(server: FileServer) -> None:
    for step in range(6):
        server.put(f"/{step}", Answer(status=302, headers={"Location": f"/{step + 1}"}))
    server.put("/6", b"there")
    assert await _fetch(server.url("/1")) == b"there"
    with pytest.raises(PermanentError, match="redirects more than 5 times"):
        await _fetch(server.url("/0"))


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/a",
        "data:image/png,x",
        "gopher://127.0.0.1/",
        "http://user:secret@127.0.0.1/",
    ],
)
async def test_a_redirect_to_what_could_not_be_asked_for_is_permanent(server: FileServer, location: str) -> None:
    with pytest.raises(PermanentError, match=r"not fetched|cannot be fetched"):
        await _fetch(server.put("/a", Answer(status=302, headers={"Location": location})))


async def test_a_redirect_to_nowhere_is_permanent(server: FileServer) -> None:
    with pytest.raises(PermanentError, match="redirects to nowhere"):
        await _fetch(server.put("/a", Answer(status=302)))


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "017700000001",
        "127.0.0.1.",
        "localhost",
        "LOCALHOST.",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::]",
        "0.0.0.0",  # noqa: S104
        "0",
        "\uff11\uff12\uff17.0.0.1",
    ],
)
async def test_every_spelling_of_this_host_is_refused(server: FileServer, host: str) -> None:
    server.put("/", b"secret")
    with pytest.raises((PermanentError, TransientError)) as refused:
        await _fetch(server.url("/", host), networks=AllowedNetworks())
    assert server.requests == []
    # The resolver of some systems does not know the odder spellings; then there is nothing to refuse.
    assert isinstance(refused.value, PermanentError) or "cannot be resolved" in str(refused.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433"])
async def test_this_host_can_be_allowed(server: FileServer, host: str) -> None:
    server.put("/", b"allowed")
    assert await _fetch(server.url("/", host)) == b"allowed"


async def test_ipv6_works_where_there_is_any() -> None:
    try:
        async with file_server("::1") as server:
            server.put("/", b"allowed")
            assert await _fetch(server.url("/", "[::1]")) == b"allowed"
    except OSError:
        pytest.skip("this machine has no IPv6")


@pytest.mark.parametrize("host", ["10.0.0.1", "169.254.169.254", "192.168.0.1", "[fe80::1]", "[fd00::1]", "224.0.0.1"])
async def test_loopback_alone_does_not_allow_other_networks(host: str) -> None:
    with pytest.raises(PermanentError, match="where this server does not download from"):
        await _fetch(f"http://{host}/")


async def test_a_redirect_to_a_forbidden_address_is_refused(server: FileServer) -> None:
    url = server.put("/a", Answer(status=302, headers={"Location": "http://169.254.169.254/latest/meta-data/"}))
    with pytest.raises(PermanentError, match=r"'169\.254\.169\.254' is at a private address"):
        await _fetch(url)


async def test_the_connection_goes_to_the_address_that_was_checked(server: FileServer) -> None:
    """The name is resolved once: what the DNS says later changes nothing."""
    server.put("/", b"checked")
    names = _names(["127.0.0.1"], ["10.0.0.1"])
    url = server.url("/", "rebinding.example")
    assert await _fetch(url, names=names) == b"checked"
    assert server.requests[0][1]["host"] == f"rebinding.example:{server.port}"
    with pytest.raises(PermanentError, match=r"'rebinding\.example' is at a private address"):
        await _fetch(url, names=names)


async def test_a_name_that_changes_its_address_between_two_hops_is_refused(server: FileServer) -> None:
    server.put("/", Answer(status=302, headers={"Location": "/again"}))
    server.put("/again", b"secret")
    url = server.url("/", "rebinding.example")
    with pytest.raises(PermanentError, match="private address"):
        await _fetch(url, names=_names(["127.0.0.1"], ["169.254.169.254"]))
    assert len(server.requests) == 1


async def test_one_forbidden_address_among_good_ones_spoils_the_name(server: FileServer) -> None:
    server.put("/", b"secret")
    with pytest.raises(PermanentError, match="private address"):
        await _fetch(server.url("/", "mixed.example"), names=_names(["127.0.0.1", "10.0.0.1"]))
    assert server.requests == []


async def test_tls_is_spoken_with_the_host_s_name_and_not_with_its_number() -> None:
    hello: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello.append(await reader.read(4096))
        writer.close()

    assert ssl.HAS_SNI
    async with await asyncio.start_server(talk, "127.0.0.1", 0) as odd:
        url = f"https://pictures.example:{odd.sockets[0].getsockname()[1]}/"
        with pytest.raises(TransientError):
            await _fetch(url, names=_names(["127.0.0.1"]))
    assert b"pictures.example" in hello[0]
