"""``/metrics`` of an API process: what it counts, that labels stay few, and that it answers without NATS."""

import logging
from pathlib import Path

import pytest
from websockets import Origin
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from gql_jobs.settings import Settings
from tests.api.operations import CREATE, ahead, asked, create, ended
from tests.deadline import until
from tests.running import running_worker
from tests.scraped import reader, scrape
from tests.serving import HOST, serving, without_nats

HIDDEN = "query Hidden { workers { id } }"
SHOWN = "query Shown { workers { id } }"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Settings with the name of an operation that is timed by itself."""
    return settings.model_copy(update={"metrics_operations": ("Shown",)})


async def test_what_happens_to_jobs_is_counted_by_every_api_and_history_by_none(settings: Settings) -> None:
    async with serving(settings) as one, running_worker(settings):
        async with serving(settings) as other:
            done = await create(one, {"failAttempts": 1})
            await ended(one, done["id"])
            lost = await create(one, {"permanent": True})
            await ended(one, lost["id"], "DEAD_LETTER")
            cancelled = await create(one, runAt=ahead(days=30))
            await one.ask("mutation ($id: ID!) { cancelJob(id: $id) { job { id } } }", id=cancelled["id"])
            last = one.runtime.feed.position
            await until(lambda: other.runtime.feed.position >= last, "the other API has read as far")
            for api in one, other:
                read = reader(await scrape(api.http))
                assert read("gql_jobs_created_total", type="probe") == 3
                assert read("gql_jobs_started_total", type="probe") == 3
                assert read("gql_jobs_retries_total", type="probe") == 1
                for status in "COMPLETED", "DEAD_LETTER", "CANCELLED":
                    assert read("gql_jobs_finished_total", type="probe", status=status) == 1
                    assert read("gql_jobs_jobs", queue="default", status=status) == 1
                assert read("gql_jobs_time_to_start_seconds_count", type="probe") == 2
                assert read("gql_jobs_run_seconds_count", type="probe", status="RETRYING") == 1
                assert read("gql_jobs_feed_lag_messages") == 0
        async with serving(settings) as rebuilt:
            read = reader(await scrape(rebuilt.http))
            assert read("gql_jobs_created_total", type="probe") == 0
            assert read("gql_jobs_finished_total", type="probe", status="COMPLETED") == 0
            assert read("gql_jobs_jobs", queue="default", status="COMPLETED") == 1


async def test_the_state_of_queues_and_workers_is_shown(settings: Settings) -> None:
    async with serving(settings) as api:
        read = reader(await scrape(api.http))
        assert (read("gql_jobs_queue_workers", queue="default"), read("gql_jobs_capacity")) == (0, 0)
        await create(api)
        read = reader(await scrape(api.http))
        assert read("gql_jobs_oldest_queued_seconds", queue="default") > 0
        assert read("gql_jobs_jobs", queue="default", status="QUEUED") == 1
        sizes = [read(f"gql_jobs_store_{size}_bytes") for size in ("used", "full", "limit")]
        assert 0 < sizes[0] < sizes[1] < sizes[2]
        assert read("gql_jobs_nats_connected") == 1
        assert read("gql_jobs_queue_paused", queue="default") == 0
        assert read("gql_jobs_gate_held") == read("gql_jobs_gate_decisions_total", decision="released") == 0
        await api.ask(
            """mutation { setQueueLimits(name: "default", limits: { concurrency: 5, perSecond: 0.5 }) { ungated } }"""
        )
        await api.runtime.pauses.pause("default", None, None, None)
        read = reader(await scrape(api.http))
        assert (read("gql_jobs_queue_paused", queue="default"), read("gql_jobs_queue_paused", queue="cpu")) == (1, 0)
        limits = {"concurrency": 5, "per_second": 0.5}
        assert {name: read("gql_jobs_queue_limit", queue="default", limit=name) for name in limits} == limits
        for queue, name in (("default", "concurrency_per_key"), ("cpu", "concurrency")):
            with pytest.raises(KeyError):
                read("gql_jobs_queue_limit", queue=queue, limit=name)
        async with running_worker(settings, ("threads",)):
            await until(api.runtime.presence.workers, "the worker is known")
            read = reader(await scrape(api.http))
            assert (read("gql_jobs_workers"), read("gql_jobs_capacity")) == (1, settings.num_workers)
            assert read("gql_jobs_queue_workers", queue="threads") == 1
            assert read("gql_jobs_queue_workers", queue="default") == 0


async def test_operations_errors_and_sockets_are_counted_under_few_labels(settings: Settings) -> None:
    async with serving(settings) as api:
        for query in HIDDEN, SHOWN, "{ __typename }":
            await api.ask(query)
        await api.refusal("{ jobs(first: 501) { totalCount } }")
        async with api.raw_socket() as opened:
            read = reader(await scrape(api.http))
            assert read("gql_jobs_sockets") == 1
            await opened.close(4321)

        async def closed() -> bool:
            return reader(await scrape(api.http))("gql_jobs_sockets") == 0

        await until(closed, "the socket is closed")
        read = reader(await scrape(api.http))
        assert read("gql_jobs_socket_closes_total", by="client", code="other") == 1
        for name, field in ("Shown", "workers"), ("other", "workers"), ("other", "other"), ("other", "jobs"):
            assert read("gql_jobs_graphql_operation_seconds_count", operation=name, field=field) == 1
        assert read("gql_jobs_graphql_errors_total", code="INVALID_ARGUMENT") == 1


async def test_a_handshake_that_is_refused_is_counted_as_closed_by_the_server(tmp_path: Path) -> None:
    async with serving(without_nats(tmp_path), opened=False) as api:
        for path, origin in ("/nowhere", None), ("/graphql", Origin("https://elsewhere.example")):
            with pytest.raises(InvalidStatus) as refused:
                await connect(f"ws://{HOST}:{api.port}{path}", origin=origin, proxy=None)
            assert refused.value.response.status_code == 403
        read = reader(await scrape(api.http))
        assert read("gql_jobs_socket_closes_total", by="server", code="1000") == 2
        assert read("gql_jobs_sockets") == 0


async def test_the_page_is_there_before_nats_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    settings = without_nats(tmp_path)
    async with serving(settings, opened=False) as api:
        await api.refusal(CREATE, input=asked())
        read = reader(await scrape(api.http))
        assert read("gql_jobs_nats_connected") == 0
        assert read("gql_jobs_graphql_errors_total", code="QUEUE_UNAVAILABLE") == 1


async def test_the_page_can_be_turned_off(tmp_path: Path) -> None:
    settings = without_nats(tmp_path, metrics=False)
    async with serving(settings, opened=False) as api:
        assert (await api.http.get("/metrics")).status_code == 404
