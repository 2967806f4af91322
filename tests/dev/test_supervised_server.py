"""NATS's monitoring in ``dev``: where it is found, and whom it answers."""

import socket
from pathlib import Path

import httpx
import pytest

from gql_jobs.dev import nats_monitoring
from gql_jobs.dev.nats import supervised_server
from gql_jobs.dev.nats_monitoring import monitoring_page
from gql_jobs.jetstream.server import embedded_server, monitoring_url
from gql_jobs.processes.listening import CannotListen
from gql_jobs.settings import Settings
from tests.serving import HOST, free_port


async def _get(url: str, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
        return await client.get(url, headers={name.replace("_", "-"): value for name, value in headers.items()})


async def test_monitoring_is_at_the_usual_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert nats_monitoring.USUAL_PORT == 8222
    usual = free_port()
    monkeypatch.setattr(nats_monitoring, "USUAL_PORT", usual)
    with monitoring_page(tmp_path, None) as page:
        async with supervised_server(Settings(data_dir=tmp_path), 0):
            assert page == f"http://{HOST}:{usual}"
            assert (await _get(f"{page}/healthz")).json() == {"status": "ok"}


async def test_monitoring_is_at_a_free_port_where_the_usual_one_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server((HOST, 0)) as other:
        taken = other.getsockname()[1]
        monkeypatch.setattr(nats_monitoring, "USUAL_PORT", taken)
        with monitoring_page(tmp_path, None) as page:
            assert not page.endswith(f":{taken}")
        with pytest.raises(CannotListen, match="--monitor-port"), monitoring_page(tmp_path, taken):
            pass


async def test_monitoring_answers_loopback_names_and_no_page_of_another_site(tmp_path: Path) -> None:
    with monitoring_page(tmp_path, 0) as page:
        assert (await _get(f"{page}/varz")).status_code == 502, "no server runs yet"
        async with embedded_server(tmp_path, monitored=True) as server:
            port = page.rpartition(":")[2]
            for host in HOST, f"localhost:{port}", f"[::1]:{port}", "LOCALHOST":
                assert (await _get(f"{page}/varz", Host=host)).json()["port"] == server.port
            for host in "evil.example", "127.0.0.1.evil.example", "", "[":
                assert (await _get(f"{page}/varz", Host=host)).status_code == 400
            assert (await _get(f"{page}/varz?callback=steal")).status_code == 403
            assert (await _get(f"{page}/varz?callback")).status_code == 403
            assert (
                await _get(f"{page}/varz", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors")
            ).status_code == 403
            assert (
                await _get(f"{page}/varz", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")
            ).status_code == 200
            hidden = monitoring_url(tmp_path)
            assert hidden is not None
            secret = hidden.rpartition("/")[2]
            pages = await _get(f"{page}/")
            assert "default-src 'none'" in pages.headers["content-security-policy"]
            assert (pages.headers["x-frame-options"], pages.headers["referrer-policy"]) == ("DENY", "no-referrer")
            assert (pages.status_code, "varz" in pages.text, secret in pages.text) == (200, True, False)
            assert (await _get(hidden.removesuffix(f"/{secret}") + "/varz")).status_code == 404


async def test_an_embedded_server_has_no_monitoring_unless_it_is_asked_for(tmp_path: Path) -> None:
    async with embedded_server(tmp_path):
        assert monitoring_url(tmp_path) is None
