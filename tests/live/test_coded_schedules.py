"""Schedules that code defines: stored at the start of an API process, and deleted once code defines them no more."""

import sys
from types import ModuleType
from typing import Any

import pytest

from gql_jobs import schedule
from gql_jobs.jobs import coded_schedules as module
from gql_jobs.jobs.coded_schedules import CodedSchedules
from gql_jobs.jobs.model import OverlapPolicy
from gql_jobs.jobs.recurrence import Recurrence
from gql_jobs.jobs.schedules import SCHEDULE, Schedule
from gql_jobs.log.job_log import JobLog
from gql_jobs.log.schedules import ScheduleCommands, ScheduleDefinition, read_schedule
from gql_jobs.log.steering import SteeringLog
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime, open_runtime
from tests.job_types.probe_jobs import ProbePayload
from tests.running import JOB_TYPES
from tests.stories import accepted

SHOP = "a_shop_of_this_test"


@pytest.fixture
def coded(monkeypatch: pytest.MonkeyPatch) -> CodedSchedules:
    """Schedules of this test alone, as a program has them that starts anew."""
    made = CodedSchedules()
    monkeypatch.setattr(module, "coded_schedules", made)
    monkeypatch.setitem(sys.modules, SHOP, ModuleType(SHOP))
    return made


def in_code(**options: Any) -> None:
    """Define a schedule in the module of a shop."""
    given = {"cron": "0 3 * * *", "payload": ProbePayload(), "type": "probe", **options}
    names = {"__name__": SHOP, "schedule": schedule, "given": given}
    exec("schedule('nightly', **given)", names)  # noqa: S102 - as a module of that name does


async def stored(job_log: JobLog, name: str = "nightly") -> Schedule | None:
    return read_schedule(await SteeringLog(job_log).read(SCHEDULE, name))


async def test_what_code_defines_is_stored_once(runtime: Runtime, job_log: JobLog, coded: CodedSchedules) -> None:
    in_code(time_zone="Europe/Berlin", overlap="allow")
    await runtime.schedules.synchronise(coded)
    first = await stored(job_log)
    assert first is not None
    assert (first.source, first.type, first.overlap) == (SHOP, "probe", OverlapPolicy.ALLOW)
    await runtime.schedules.synchronise(coded)
    assert await stored(job_log) == first


async def test_what_clients_have_changed_stays_until_the_code_says_something_else(
    runtime: Runtime, job_log: JobLog, coded: CodedSchedules
) -> None:
    in_code()
    await runtime.schedules.synchronise(coded)
    by_hand = ScheduleDefinition(
        name="nightly",
        job_type=runtime.registry.of_payload(ProbePayload, "probe"),
        payload=accepted(ProbePayload()),
        recurrence=Recurrence(cron="0 3 * * *"),
        paused=True,
    )
    await runtime.schedules.upsert(by_hand)
    await runtime.schedules.synchronise(coded)
    known = await stored(job_log)
    assert known is not None
    assert (known.paused, known.source) == (True, SHOP)
    in_code(cron="0 4 * * *")
    await runtime.schedules.synchronise(coded)
    known = await stored(job_log)
    assert known is not None
    assert (known.paused, known.cron) == (False, "0 4 * * *")


async def test_what_code_defines_no_more_is_deleted_by_who_has_the_module(
    runtime: Runtime, job_log: JobLog, coded: CodedSchedules, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_code()
    await runtime.schedules.synchronise(coded)
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, SHOP)
        await runtime.schedules.synchronise(CodedSchedules())
    assert await stored(job_log) is not None
    await runtime.schedules.synchronise(CodedSchedules())
    assert await stored(job_log) is None


async def test_a_schedule_whose_type_is_not_registered_does_not_keep_the_others_from_being_stored(
    runtime: Runtime, job_log: JobLog, coded: CodedSchedules, caplog: pytest.LogCaptureFixture
) -> None:
    in_code(type="none")
    schedule("other", payload=ProbePayload(), every_seconds=60, type="probe")
    await runtime.schedules.synchronise(coded)
    assert await stored(job_log) is None
    assert await stored(job_log, "other") is not None
    assert "nightly" in caplog.text


async def test_an_api_process_stores_them_when_it_starts(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    synchronised: list[object] = []
    original = ScheduleCommands.synchronise

    async def noted(self: ScheduleCommands, coded: CodedSchedules) -> None:
        synchronised.append(coded)
        await original(self, coded)

    monkeypatch.setattr(ScheduleCommands, "synchronise", noted)
    async with open_runtime(settings, JOB_TYPES):
        assert len(synchronised) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"cron": "0 3 * *"},
        {"every_seconds": 60},
        {"cron": None},
        {"time_zone": "Europe/Atlantis"},
        {"payload": {"steps": 1}},
        {"catch_up_seconds": -1},
        {"overlap": "sometimes"},
    ],
)
@pytest.mark.usefixtures("coded")
def test_what_cannot_be_meant_is_refused_where_it_is_defined(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"nightly|sometimes"):
        in_code(**options)


@pytest.mark.usefixtures("coded")
def test_two_modules_cannot_define_one_name() -> None:
    in_code()
    in_code()
    with pytest.raises(ValueError, match="defined twice"):
        schedule("nightly", payload=ProbePayload(), every_seconds=60)
