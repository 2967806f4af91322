"""Who asks too often is told when to try again, by address and by subject, and nothing of it is kept for long."""

import asyncio
import threading
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from gql.transport.exceptions import TransportQueryError
from pydantic import ValidationError
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from gql_jobs.jobs.errors import RateLimited
from gql_jobs.jobs.viewer import Scope, Viewer
from gql_jobs.settings import Settings
from gql_jobs.web.rate_limits import MOST_COUNTED, RateLimit, RateLimits, RateWindows
from tests.serving import HOST, PROTOCOL, hear, request_of, serving, without_nats

CREATE = "mutation ($inputs: [CreateJobInput!]!) { createJobs(inputs: $inputs) { jobs { id } } }"


class _Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_after_the_time_that_a_refusal_names_it_may_be_tried_again() -> None:
    clock = _Clock()
    limit = RateLimit("3/10 seconds", "operations", clock)
    limit.spend(["a"], 2)
    clock.now += 4.5
    limit.spend(["a", "b"])
    with pytest.raises(RateLimited, match="3 per 10 second of operations; try again in 6 s") as refused:
        limit.spend(["b", "a"])
    assert refused.value.extensions == {"code": "RATE_LIMITED", "retryAfter": 6}
    limit.spend(["b"], 2)
    clock.now += refused.value.retry_after
    limit.spend(["a"], 3)


def test_what_is_too_much_at_once_is_told_so_and_counts_nothing() -> None:
    limit = RateLimit("3/10 seconds", "creations")
    with pytest.raises(RateLimited, match="These are 4 creations at once"):
        limit.spend(["a"], 4)
    limit.spend(["a"], 3)


def test_counts_take_so_much_memory_and_neither_a_thread_nor_a_task() -> None:
    clock, threads = _Clock(), threading.active_count()
    windows = RateWindows(clock=clock)
    for number in range(MOST_COUNTED + 100):
        assert windows.incr(str(number), 60) == 1
    assert len(windows) == MOST_COUNTED
    assert (windows.get("0"), windows.get(str(MOST_COUNTED))) == (0, 1)
    clock.now += 60
    assert windows.incr("0", 60) == 1
    assert len(windows) == 1
    assert threading.active_count() == threads
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


def test_each_address_each_subject_of_a_tenant_and_each_view_token_counts_by_itself() -> None:
    limits = RateLimits(Settings(rate_limit_operations="2/hour"))
    scopes = frozenset(Scope)
    first, second = Viewer("ada", scopes), Viewer("bob", scopes)
    limits.spend("operations", lambda: "10.0.0.1", first)
    limits.spend("operations", lambda: "10.0.0.2", first)
    with pytest.raises(RateLimited):
        limits.spend("operations", lambda: "10.0.0.3", first)
    limits.spend("operations", lambda: "10.0.0.1", second)
    with pytest.raises(RateLimited):
        limits.spend("operations", lambda: "10.0.0.1", Viewer("cyd", scopes))
    of_tenants = [Viewer("ada", scopes, tenant) for tenant in ("red", "blue")]
    for number, one in enumerate(of_tenants):
        for nth in range(2):
            limits.spend("operations", partial(str, f"10.3.{number}.{nth}"), one)
    with pytest.raises(RateLimited):
        limits.spend("operations", lambda: "10.4.0.1", of_tenants[0])
    tokens = [Viewer("key:shop", scopes, credentials=(token, "key")) for token in ("one", "two", "three")]
    for number, token in enumerate(tokens):
        for nth in range(2):
            limits.spend("operations", partial(str, f"10.1.{number}.{nth}"), token)
    with pytest.raises(RateLimited):
        limits.spend("operations", lambda: "10.2.0.1", tokens[0])
    limits.spend("creations", lambda: "10.0.0.1", first, 1000)


def test_a_token_that_was_valid_lately_is_looked_at_whatever_others_at_its_address_try() -> None:
    limits = RateLimits(Settings(rate_limit_failures="5/hour"))
    limits.token_verified("10.0.0.1", b"good", valid=True)
    for number in range(10_000):
        try:
            limits.check_token("10.0.0.1", b"wrong %d" % number)
        except RateLimited:
            assert number >= 5
        else:
            assert number < 5
            limits.token_verified("10.0.0.1", b"wrong %d" % number, valid=False)
    limits.check_token("10.0.0.1", b"good")
    limits.check_token("10.0.0.2", b"another")
    limits.token_verified("10.0.0.1", b"good", valid=False)
    with pytest.raises(RateLimited):
        limits.check_token("10.0.0.1", b"good")


@pytest.mark.parametrize(
    "rate", ["100", "100/fortnight", "0/second", "-1/second", "1/second;2/hour", "", "1/0 seconds"]
)
def test_what_is_no_rate_is_refused(rate: str) -> None:
    with pytest.raises(ValidationError, match="100/second or 5000/10 minutes"):
        Settings(rate_limit_operations=rate)


async def test_operations_above_the_limit_are_answered_429_before_they_are_read(tmp_path: Path) -> None:
    async with serving(without_nats(tmp_path, rate_limit_operations="3/hour"), opened=False) as api:
        for body in {"query": "{ __typename }"}, {"query": "{"}, {"query": "{ nothing }"}:
            assert (await api.http.post("/graphql", json=body)).status_code == 200
        refused = await api.http.post("/graphql", content=b"{")
        assert refused.status_code == 429
        (error,) = refused.json()["errors"]
        assert error["extensions"]["code"] == "RATE_LIMITED"
        assert 0 < error["extensions"]["retryAfter"] == int(refused.headers["retry-after"]) <= 3600
        async with api.raw_socket() as socket:
            error = await api.refused_on(socket, "1", "{ __typename }")
            assert error["extensions"]["code"] == "RATE_LIMITED"
            assert 0 < error["extensions"]["retryAfter"] <= 3600
        assert (await api.http.get("/healthz")).status_code == 200


async def test_each_job_of_a_batch_counts_as_a_creation_over_every_transport(settings: Settings) -> None:
    limited = settings.model_copy(update={"rate_limit_creations": "5/hour"})
    inputs: list[dict[str, Any]] = [{"payload": {"probe": {}}}] * 3
    async with serving(limited) as api:
        assert len((await api.ask(CREATE, inputs=inputs))["createJobs"]["jobs"]) == 3
        answer = await api.http.post("/graphql", json={"query": CREATE, "variables": {"inputs": inputs}})
        (error,) = answer.json()["errors"]
        assert (error["path"], error["extensions"]["code"]) == (["createJobs"], "RATE_LIMITED")
        assert int(answer.headers["retry-after"]) == error["extensions"]["retryAfter"]
        async with api.socket() as session:
            one = "createJob(input: {payload: {probe: {}}}) { job { id } }"
            made = await session.execute(request_of(f"mutation {{ first: {one} second: {one} }}", {}))
            assert len(made) == 2
            with pytest.raises(TransportQueryError, match="RATE_LIMITED"):
                await session.execute(request_of(f"mutation {{ {one} }}", {}))
        assert (await api.ask("{ jobs { totalCount } }"))["jobs"]["totalCount"] == 5


async def test_sockets_and_streams_of_one_address_may_be_opened_so_often(tmp_path: Path) -> None:
    async with serving(without_nats(tmp_path, rate_limit_connections="2/hour"), opened=False) as api:
        async with api.raw_socket():
            stream = {"Accept": "text/event-stream"}
            assert (await _streamed(api.http, stream)).status_code == 200
            refused = await _streamed(api.http, stream)
            assert (refused.status_code, refused.json()["errors"][0]["extensions"]["code"]) == (429, "RATE_LIMITED")
            assert 0 < int(refused.headers["retry-after"]) <= 3600
            url = f"ws://{HOST}:{api.port}/graphql"
            async with connect(url, subprotocols=[PROTOCOL], proxy=None) as late:  # type: ignore[list-item]
                with pytest.raises(ConnectionClosed) as closed:
                    await hear(late)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1013
        assert (await api.http.post("/graphql", json={"query": "{ __typename }"})).status_code == 200


async def _streamed(http: httpx.AsyncClient, headers: dict[str, str]) -> httpx.Response:
    return await http.post("/graphql", json={"query": "{ __typename }"}, headers=headers)
