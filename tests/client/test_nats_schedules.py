"""Schedules over nats://, without an API process: what is written into the log for them, and told from it."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from gql_jobs.client import AsyncClient, InvalidArgument, QueueUnavailable, Unreachable
from gql_jobs.client.nats_transport import NatsTransport
from gql_jobs.jetstream.connection import Connection
from gql_jobs.jobs import errors as job_errors
from gql_jobs.jobs.registry import registry
from gql_jobs.jobs.schedules import SCHEDULE, Schedule, state_of
from gql_jobs.log import codec
from gql_jobs.log.schedules import ScheduleCommands
from gql_jobs.settings import Settings
from tests.by_hand import stored
from tests.client.nats_clients import PROBE_TYPE, client_of

PAYLOAD = PROBE_TYPE.payload()
OPTIONS: Any = {"type": "probe", "every": 3600, "overlap": "allow"}


@pytest.fixture
async def transport(settings: Settings, connection: Connection) -> AsyncIterator[NatsTransport]:
    """The way to a server with streams and no API process."""
    assert connection.connected
    async with client_of(settings) as opened:
        yield opened


@pytest.fixture
async def client(transport: NatsTransport) -> AsyncIterator[AsyncClient]:
    """A client that goes it."""
    async with AsyncClient(transport=transport) as opened:
        yield opened


@pytest.fixture
async def commands(transport: NatsTransport) -> ScheduleCommands:
    """The commands that the client has."""
    return (await transport._nats.session()).schedules  # noqa: SLF001


async def test_a_definition_is_one_message_and_none_if_nothing_is_another(
    client: AsyncClient, connection: Connection
) -> None:
    for _ in range(2):
        await client.upsert_schedule("hourly", PAYLOAD, **OPTIONS)
        (message,) = await stored(connection)
        assert message.subject == codec.steering_subject(SCHEDULE, "hourly")
    first = message.seq
    await client.upsert_schedule("hourly", PAYLOAD, **{**OPTIONS, "every": 60})
    (message,) = await stored(connection)
    assert message.seq == first + 1


async def test_what_has_become_of_ticks_is_told_by_their_jobs(
    client: AsyncClient, transport: NatsTransport, commands: ScheduleCommands
) -> None:
    await client.upsert_schedule("hourly", PAYLOAD, **OPTIONS)
    schedule = await _kept(commands, "hourly")
    now = datetime.now(UTC)
    ran, skipped, later = [schedule.recurrence.first_after(now + timedelta(hours=hours)) for hours in (-3, -2, 0)]
    assert ran is not None
    assert skipped is not None
    assert later is not None
    state = replace(state_of(schedule, None), until=later, ahead=(ran, skipped, later))
    await commands.write_state("hourly", state, 0)
    for tick in state.ahead:
        await commands.make(schedule, state, tick)
    jobs = (await transport._nats.session()).commands  # noqa: SLF001
    await jobs.cancel(state.job_id(skipped), reason="a job of an earlier tick has not ended")
    for shown in (await client.schedule("hourly"), *await client.schedules()):
        assert shown is not None
        assert (shown.last_job, shown.skipped) == (state.job_id(ran), 1)
    # As it is counted once and for all when the schedule is another one.
    paused = await client.pause_schedule("hourly")
    assert (paused.last_job, paused.skipped) == (state.job_id(ran), 1)


async def test_the_last_job_of_a_schedule_is_named_as_long_as_there_is_one(
    client: AsyncClient, commands: ScheduleCommands
) -> None:
    await client.upsert_schedule("hourly", PAYLOAD, **OPTIONS)
    job = await client.run_schedule("hourly")
    state = replace(state_of(await _kept(commands, "hourly"), None), last_job=job.id)
    await commands.write_state("hourly", state, 0)
    assert await _last_job(client) == job.id
    assert await job.delete()
    assert await _last_job(client) is None


async def _last_job(client: AsyncClient) -> str | None:
    shown = await client.schedule("hourly")
    assert shown is not None
    return shown.last_job


async def test_a_change_cancels_what_is_ahead(client: AsyncClient, commands: ScheduleCommands) -> None:
    for change in (client.pause_schedule, client.delete_schedule):
        await client.upsert_schedule("hourly", PAYLOAD, **OPTIONS)
        schedule = await _kept(commands, "hourly")
        tick = schedule.recurrence.first_after(datetime.now(UTC))
        assert tick is not None
        stored_state = await commands.state("hourly")
        state = replace(state_of(schedule, stored_state.state), until=tick, ahead=(tick,))
        await commands.write_state("hourly", state, stored_state.seq)
        await commands.make(schedule, state, tick)
        ahead = client.job(state.job_id(tick))
        assert (await ahead.state()).status == "scheduled"
        await change("hourly")
        assert (await ahead.state()).status == "cancelled"
    assert (await commands.state("hourly")).state is None


async def test_who_deletes_a_schedule_is_told_that_it_was_there_although_the_first_try_came_to_no_end(
    client: AsyncClient, commands: ScheduleCommands, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.upsert_schedule("hourly", PAYLOAD, **OPTIONS)
    retire, tries = commands.retire, []

    async def retire_later(*arguments: Any) -> Any:
        tries.append(arguments)
        if len(tries) == 1:
            raise job_errors.QueueUnavailable("NATS did not answer in time.")
        return await retire(*arguments)

    monkeypatch.setattr(commands, "retire", retire_later)
    assert await client.delete_schedule("hourly")
    assert len(tries) == 2
    assert not await client.delete_schedule("hourly")


async def test_a_run_whose_write_was_not_acknowledged_is_not_repeated(
    client: AsyncClient, transport: NatsTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.upsert_schedule("hourly", PAYLOAD, **OPTIONS)
    tries = []

    async def create(request: Any) -> None:
        tries.append(request)
        raise job_errors.QueueUnavailable("Whether it was stored is unknown.", "some-id")

    monkeypatch.setattr((await transport._nats.session()).commands, "create", create)  # noqa: SLF001
    with pytest.raises(QueueUnavailable) as refused:
        await client.run_schedule("hourly")
    assert refused.value.extensions["jobId"] == "some-id"
    assert len(tries) == 1


async def test_a_schedule_of_a_type_that_is_not_known_here_is_shown_and_not_run(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.upsert_schedule("hourly", PAYLOAD, **OPTIONS)
    monkeypatch.delitem(registry._types, "probe")  # noqa: SLF001
    assert [one.type for one in await client.schedules()] == ["probe"]
    with pytest.raises(InvalidArgument, match="the type probe, which is not known here") as refused:
        await client.run_schedule("hourly")
    assert refused.value.field == "name"
    assert (await client.pause_schedule("hourly")).paused


async def test_a_preview_needs_no_server() -> None:
    async with AsyncClient("nats://127.0.0.1:1", patience=0.1) as nowhere:
        assert len(await nowhere.schedule_preview(cron="0 3 * * *", first=3)) == 3
        with pytest.raises(Unreachable):
            await nowhere.schedules()


async def test_what_has_no_streams_yet_refuses_a_schedule_once_patience_is_over(settings: Settings) -> None:
    async with client_of(settings, patience=0.3) as transport, AsyncClient(transport=transport) as client:
        with pytest.raises(Unreachable, match="API process"):
            await client.upsert_schedule("hourly", PAYLOAD, **OPTIONS)


async def _kept(commands: ScheduleCommands, name: str) -> Schedule:
    found = await commands.find(name)
    assert found is not None
    return found
