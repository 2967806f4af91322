"""Schedules are defined, shown, run and deleted by clients, over HTTP and beside the broker, with one outcome."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gql_jobs.client import (
    AsyncClient,
    Client,
    InvalidArgument,
    InvalidPayload,
    JobPriority,
    NotFound,
    OverlapPolicy,
    ScheduleSnapshot,
)
from gql_jobs.settings import Settings
from tests.client.nats_clients import PROBE_TYPE, client_of
from tests.deadline import until
from tests.job_types.typed_jobs import MessagePayload
from tests.serving import HOST, ServedApi

PAYLOAD = PROBE_TYPE.payload()


async def test_a_schedule_is_defined_once_shown_paused_and_deleted(by_either: AsyncClient) -> None:
    made = await by_either.upsert_schedule(
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
    again = await by_either.upsert_schedule(
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
    plain = await by_either.upsert_schedule("hourly", PAYLOAD, type="probe", every=timedelta(hours=1), paused=True)
    assert (plain.time_zone, plain.overlap, plain.catch_up, plain.spread) == ("UTC", OverlapPolicy.SKIP, 60, 0)
    assert (plain.priority, plain.tags, plain.created_by, plain.defined_by) == (JobPriority.NORMAL, (), None, None)
    assert [(one.name, one.every, one.paused) for one in await by_either.schedules()] == [
        ("hourly", 3600, True),
        ("nightly", None, False),
    ]
    paused = await by_either.pause_schedule("nightly")
    assert (paused.paused, paused.next_runs) == (True, ())
    assert await by_either.schedule("nightly") == paused
    assert not (await by_either.resume_schedule("nightly")).paused
    assert await by_either.delete_schedule("nightly")
    assert not await by_either.delete_schedule("nightly")
    assert await by_either.schedule("nightly") is None
    assert [one.name for one in await by_either.schedules()] == ["hourly"]


async def test_a_schedule_is_run_at_once(by_either: AsyncClient) -> None:
    await by_either.upsert_schedule("yearly", PAYLOAD, type="probe", cron="0 0 1 1 *")
    job = await by_either.run_schedule("yearly")
    assert (await job.state()).schedule == "yearly"
    assert (await by_either.run_schedule("yearly")).id != job.id


async def test_a_preview_tells_when_a_schedule_would_be_due(by_either: AsyncClient) -> None:
    after = datetime(2027, 3, 26, 12, tzinfo=UTC)
    expected = [after + timedelta(hours=1), after + timedelta(hours=2)]
    for given in (after, after.replace(tzinfo=None)):
        assert await by_either.schedule_preview(every=timedelta(hours=1), first=2, after=given) == expected
    assert len(await by_either.schedule_preview(cron="0 3 * * *", time_zone="Europe/Berlin")) == 5
    for asked, field in (
        ({"every": 60, "first": 101}, "first"),
        ({"every": 60, "first": 0}, "first"),
        ({"cron": "0 3 * *"}, "cron"),
        ({"cron": "0 3 * * *", "time_zone": "Europe/Atlantis"}, "time_zone"),
        ({"every": 0}, "every"),
        ({}, "cron"),
    ):
        with pytest.raises(InvalidArgument) as refused:
            await by_either.schedule_preview(**asked)
        assert refused.value.field == field


async def test_what_can_be_no_schedule_is_refused_by_the_names_of_the_options(by_either: AsyncClient) -> None:
    for options, field, said in (
        ({"every": 0}, "every", "every must be between 1 and 31622400"),
        ({"every": 1.5}, "every", "every is whole seconds"),
        ({"every": True}, "every", "every is whole seconds"),
        ({"cron": "never"}, "cron", "cron is no cron expression"),
        ({"cron": 5}, "cron", "cron is a text"),
        ({}, "cron", "Either cron or every is needed"),
        ({"every": 60, "catch_up": -1}, "catch_up", "catch_up must be between 0 and"),
        ({"every": 60, "spread": 86_401}, "spread", "spread must be between 0 and 86400"),
        ({"every": 60, "overlap": "both"}, "overlap", "overlap is one of"),
        ({"every": 60, "paused": "yes"}, "paused", "paused is True or False"),
        ({"every": 60, "priority": "urgent"}, "priority", "priority is one of"),
        ({"every": 60, "tags": ["good", "bad\n"]}, "tags.1", "A tag must have"),
        ({"cron": "0 3 * * *", "time_zone": "Europe/Atlantis"}, "time_zone", "There is no time zone"),
    ):
        given: dict[str, Any] = options
        with pytest.raises(InvalidArgument, match=said) as refused:
            await by_either.upsert_schedule("nightly", PAYLOAD, type="probe", **given)
        assert (refused.value.field, refused.value.code) == (field, "INVALID_ARGUMENT")
    with pytest.raises(TypeError, match="no option 'evry'"):
        await by_either.upsert_schedule("nightly", PAYLOAD, type="probe", evry=60)  # type: ignore[call-arg]
    assert await by_either.schedules() == []
    there = await by_either.upsert_schedule("there", PAYLOAD, type="probe", every=60, paused=True)
    for name in ("", "a.b", "a b", "*", "x" * 65):
        for asked in (
            by_either.upsert_schedule(name, PAYLOAD, type="probe", every=60),
            by_either.pause_schedule(name),
            by_either.run_schedule(name),
        ):
            with pytest.raises(InvalidArgument, match="name must have 1 to 64 letters") as refused:
                await asked
            assert refused.value.field == "name"
        assert not await by_either.delete_schedule(name)
        assert await by_either.schedule(name) is None
    assert await by_either.schedules() == [there]
    for unknown in (by_either.run_schedule("nobody"), by_either.pause_schedule("nobody")):
        with pytest.raises(NotFound, match="There is no schedule 'nobody'") as missing:
            await unknown
        assert missing.value.extensions == {"code": "NOT_FOUND", "schedule": "nobody"}


@pytest.mark.usefixtures("typed")
class TestOfTypesWithSecretsAndFactories:
    async def test_what_factories_draw_is_drawn_for_each_job_and_makes_no_other_schedule(
        self, by_either: AsyncClient
    ) -> None:
        made = await by_either.upsert_schedule("hello", MessagePayload(to="ada"), cron="0 0 1 1 *")
        assert json.loads(made.payload) == {"to": "ada"}
        again = await by_either.upsert_schedule("hello", MessagePayload(to="ada"), cron="0 0 1 1 *")
        assert again.changed_at == made.changed_at
        payloads = [(await (await by_either.run_schedule("hello")).state()).payload for _ in range(2)]
        first, second = [json.loads(payload or b"") for payload in payloads]
        assert first["number"] != second["number"]

    async def test_secrets_are_shown_to_nobody_and_reach_the_jobs(self, api: ServedApi, by_either: AsyncClient) -> None:
        payload = MessagePayload.model_validate({"to": "ada", "password": "s3cret"})
        made = await by_either.upsert_schedule("hello", payload, cron="0 0 1 1 *")
        assert json.loads(made.payload)["password"] == "[redacted]"  # noqa: S105
        job = await by_either.run_schedule("hello")
        assert json.loads((await job.state()).payload or b"")["password"] == "[redacted]"  # noqa: S105
        known = await until(lambda: api.runtime.index.job(job.id), "the index has the job")
        assert json.loads(bytes(known.spec.payload))["password"] == "s3cret"  # noqa: S105
        assert known.spec.payload_hash.startswith("hmac:")
        hidden = MessagePayload.model_validate({"to": "ada", "password": "[redacted]"})
        with pytest.raises(InvalidPayload, match=r"not valid\. payload\.password: ") as refused:
            await by_either.upsert_schedule("hello", hidden, cron="0 0 1 1 *")
        assert refused.value.field == "payload.password"

    async def test_a_schedule_is_the_same_whichever_way_it_is_defined_and_shown(
        self, api: ServedApi, settings: Settings
    ) -> None:
        async with (
            client_of(settings) as transport,
            AsyncClient(transport=transport) as by_nats,
            AsyncClient(f"http://{HOST}:{api.port}", patience=10) as by_http,
        ):
            payload = {"to": "ada", "words": ["a", "b"], "password": "s3cret"}
            made = []
            for client in (by_http, by_nats, by_http):
                message = MessagePayload.model_validate(payload)
                made.append(await client.upsert_schedule("hello", message, every=1, spread=3, tags=["a"]))
            assert len({one.changed_at for one in made}) == 1
            # Without a worker the first job does not end, and the ticks behind it are skipped.
            both = (by_http, by_nats)
            await until(lambda: _alike(both, lambda shown: shown.skipped > 1), "both show what was skipped", within=30)
            paused = await by_nats.pause_schedule("hello")
            assert paused.skipped > 1
            await until(lambda: _alike(both, lambda shown: shown == paused), "both show that it is paused")
            assert [await client.schedules() for client in both] == [[paused], [paused]]


async def _alike(clients: tuple[AsyncClient, ...], wanted: Callable[[ScheduleSnapshot], bool]) -> bool:
    """Whether all clients are shown the same schedule, and it is one that is wanted."""
    first, *others = [await client.schedule("hello") for client in clients]
    return first is not None and wanted(first) and all(other == first for other in others)


async def test_the_client_that_waits_has_schedules_too(api: ServedApi) -> None:
    def steps() -> tuple[list[str], str | None, bool]:
        with Client(f"http://{HOST}:{api.port}") as waiting:
            waiting.upsert_schedule("yearly", PAYLOAD, type="probe", cron="0 0 1 1 *")
            job = waiting.run_schedule("yearly")
            names = [one.name for one in waiting.schedules()]
            return names, job.state().schedule, waiting.delete_schedule("yearly")

    assert await asyncio.to_thread(steps) == (["yearly"], "yearly", True)
