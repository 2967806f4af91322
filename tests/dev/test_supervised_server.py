"""Where the monitoring of the server that ``dev`` keeps up is found."""

import socket
from pathlib import Path

import pytest

from gql_jobs.dev import nats
from gql_jobs.dev.nats import supervised_server
from gql_jobs.settings import Settings
from tests.serving import HOST, free_port


async def test_monitoring_is_at_the_usual_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert nats.USUAL_MONITOR_PORT == 8222
    usual = free_port()
    monkeypatch.setattr(nats, "USUAL_MONITOR_PORT", usual)
    async with supervised_server(Settings(data_dir=tmp_path), 0) as server:
        assert server.monitor_port == usual


@pytest.mark.parametrize("seen", [True, False], ids=["taken before", "taken while it starts"])
async def test_monitoring_is_at_a_free_port_where_the_usual_one_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, seen: bool
) -> None:
    with socket.create_server((HOST, 0)) as other:
        taken = other.getsockname()[1]
        monkeypatch.setattr(nats, "USUAL_MONITOR_PORT", taken)
        if not seen:
            monkeypatch.setattr(nats, "_usual_port", lambda: taken)
        async with supervised_server(Settings(data_dir=tmp_path), 0) as server:
            assert server.monitor_port not in {0, taken}
