"""The namespaces of tests: accounts of one server, which cost a test nothing."""

import asyncio
from pathlib import Path

import pytest

from gql_jobs.jetstream.connection import Connection, connect
from gql_jobs.log.streams import ensure_streams, stream_info
from gql_jobs.settings import Settings
from gql_jobs.testing import NatsNamespaces
from gql_jobs.testing.nats_namespaces import NAMESPACES, Namespace, settings_of


def test_a_namespace_is_there_without_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an account that the server has already: nothing is started, made or asked for."""
    calls: list[str] = []
    ask = Connection.request

    async def counted(self: Connection, subject: str, *rest: object, **more: object) -> object:
        calls.append(subject)
        return await ask(self, subject, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Connection, "request", counted)
    with NatsNamespaces() as nats:
        namespace = nats.take()
        assert calls == []
        nats.give_back(namespace)
        assert namespace in [nats.take() for _ in range(NAMESPACES)]
    # The answer to the one question was that nothing is left in it.
    assert [call.rpartition(".API.")[2] for call in calls] == ["STREAM.NAMES"]


async def _with_streams(namespace: Namespace) -> int:
    """Make the streams, unless they are there, and return the sequence of the last message."""
    settings = Settings(**settings_of(namespace))
    async with connect(settings, "test") as connection:
        await ensure_streams(connection, settings)
        await connection.request("jobs.test", b"x")
        return (await stream_info(connection)).state.last_seq


def test_what_is_stored_survives_a_restart_and_is_wiped_once_it_is_given_back() -> None:
    with NatsNamespaces() as nats:
        first, second = nats.take(), nats.take()
        assert first.url.rpartition("@")[2] == second.url.rpartition("@")[2]
        assert [asyncio.run(_with_streams(one)) for one in (first, first, second)] == [1, 2, 1]
        nats.stop()
        nats.stop()
        nats.start()
        assert asyncio.run(_with_streams(first)) == 3
        nats.give_back(first)
        again = next(one for one in iter(nats.take, None) if one == first)
        assert asyncio.run(_with_streams(again)) == 1


def test_one_that_is_given_back_while_the_server_is_away_is_wiped_when_it_is_back() -> None:
    with NatsNamespaces() as nats:
        namespace = nats.take()
        asyncio.run(_with_streams(namespace))
        nats.stop()
        nats.give_back(namespace)
        # Which starts the server.
        taken = [nats.take() for _ in range(NAMESPACES)]
        assert asyncio.run(_with_streams(taken[taken.index(namespace)])) == 1


def test_too_many_at_once_are_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gql_jobs.testing.nats_namespaces._FREE_WITHIN", 0.1)
    with NatsNamespaces() as nats:
        for _ in range(NAMESPACES):
            nats.take()
        with pytest.raises(RuntimeError, match=f"{NAMESPACES} environments are open at once"):
            nats.take()


def test_server_and_folder_are_gone_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with NatsNamespaces() as nats:
        assert [path.name.startswith("gql-jobs-tests-") for path in tmp_path.iterdir()] == [True]
        nats.give_back(nats.take())
    assert list(tmp_path.iterdir()) == []
