"""Schedules are defined, shown, run and deleted by clients of an API, and refused by those beside the broker."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from gql_jobs.client import AsyncClient, Client, ClientError, InvalidArgument, JobPriority, NotFound, OverlapPolicy
from gql_jobs.settings import Settings
from tests.client.nats_clients import PROBE_TYPE, client_of
from tests.serving import HOST, ServedApi, serving

PAYLOAD = PROBE_TYPE.payload()


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[ServedApi]:
    """The API on the test's nats-server."""
    async with serving(settings) as served:
        yield served


@pytest.fixture
async def client(api: ServedApi) -> AsyncIterator[AsyncClient]:
    """A client of it."""
    async with AsyncClient(f"http://{HOST}:{api.port}", patience=10) as by_http:
        yield by_http


async def test_a_schedule_is_defined_once_shown_paused_and_deleted(client: AsyncClient) -> None:
    made = await client.upsert_schedule(
        "nightly",
        PAYLOAD,
        type="probe",
        cron="30 2 * * *",
        time_zone="Europe/Berlin",
        overlap="cancel_other",
        catch_up=timedelta(minutes=5),
        spread=30,
        priority="high",
        tags=["night"],
    )
    assert (made.cron, made.every, made.time_zone) == ("30 2 * * *", None, "Europe/Berlin")
    assert (made.overlap, made.catch_up, made.spread) == (OverlapPolicy.CANCEL_OTHER, 300, 30)
    assert (made.priority, made.tags, made.type) == (JobPriority.HIGH, ("night",), PROBE_TYPE.name)
    assert (made.paused, len(made.next_runs), made.last_job, made.skipped) == (False, 5, None, 0)
    assert isinstance(json.loads(made.payload), dict)
    again = await client.upsert_schedule(
        "nightly",
        PAYLOAD,
        type="probe",
        cron="30 2 * * *",
        time_zone="Europe/Berlin",
        overlap=OverlapPolicy.CANCEL_OTHER,
        catch_up=300,
        spread=30,
        priority=JobPriority.HIGH,
        tags=["night"],
    )
    assert again.changed_at == made.changed_at
    await client.upsert_schedule("hourly", PAYLOAD, type="probe", every=timedelta(hours=1), paused=True)
    assert [(one.name, one.every, one.paused) for one in await client.schedules()] == [
        ("hourly", 3600, True),
        ("nightly", None, False),
    ]
    paused = await client.pause_schedule("nightly")
    assert (paused.paused, paused.next_runs) == (True, ())
    assert not (await client.resume_schedule("nightly")).paused
    assert await client.delete_schedule("nightly")
    assert not await client.delete_schedule("nightly")
    assert await client.schedule("nightly") is None
    assert [one.name for one in await client.schedules()] == ["hourly"]


async def test_a_schedule_is_run_at_once(client: AsyncClient) -> None:
    await client.upsert_schedule("yearly", PAYLOAD, type="probe", cron="0 0 1 1 *")
    job = await client.run_schedule("yearly")
    assert (await job.state()).schedule == "yearly"


async def test_a_preview_tells_when_a_schedule_would_be_due(client: AsyncClient) -> None:
    after = datetime(2027, 3, 26, 12, tzinfo=UTC)
    moments = await client.schedule_preview(every=timedelta(hours=1), first=2, after=after)
    assert moments == [after + timedelta(hours=1), after + timedelta(hours=2)]


async def test_what_can_be_no_schedule_is_refused_by_the_names_of_the_options(client: AsyncClient) -> None:
    for options, field in (
        ({"every": 0}, "every"),
        ({"every": 1.5}, "every"),
        ({"cron": "never"}, "cron"),
        ({"every": 60, "catch_up": -1}, "catch_up"),
        ({"every": 60, "overlap": "both"}, "overlap"),
        ({"cron": "0 3 * * *", "time_zone": "Europe/Atlantis"}, "time_zone"),
    ):
        with pytest.raises(InvalidArgument) as refused:
            await client.upsert_schedule("nightly", PAYLOAD, type="probe", **options)
        assert refused.value.field == field
    with pytest.raises(TypeError, match="no option 'evry'"):
        await client.upsert_schedule("nightly", PAYLOAD, type="probe", evry=60)  # type: ignore[call-arg]
    for unknown in (client.run_schedule("nobody"), client.pause_schedule("nobody")):
        with pytest.raises(NotFound, match="There is no schedule"):
            await unknown


async def test_a_client_beside_the_broker_is_told_that_only_an_api_has_schedules(settings: Settings) -> None:
    async with client_of(settings) as transport, AsyncClient(transport=transport) as by_nats:
        with pytest.raises(ClientError, match="Schedules are for clients of an API"):
            await by_nats.upsert_schedule("nightly", PAYLOAD, type="probe", every=60)


async def test_the_client_that_waits_has_schedules_too(api: ServedApi) -> None:
    def steps() -> tuple[list[str], str | None, bool]:
        with Client(f"http://{HOST}:{api.port}") as waiting:
            waiting.upsert_schedule("yearly", PAYLOAD, type="probe", cron="0 0 1 1 *")
            job = waiting.run_schedule("yearly")
            names = [one.name for one in waiting.schedules()]
            return names, job.state().schedule, waiting.delete_schedule("yearly")

    assert await asyncio.to_thread(steps) == (["yearly"], "yearly", True)
