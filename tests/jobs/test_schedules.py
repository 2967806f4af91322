"""Which ticks of a schedule are made at a moment, which were missed, and what has become of the others."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from msgspec import Raw
from msgspec.structs import replace

from gql_jobs.jobs.claim import MISSED
from gql_jobs.jobs.model import Gate, Job, JobPriority, JobStatus, OverlapPolicy
from gql_jobs.jobs.requests import InvalidRequest, TickPlace
from gql_jobs.jobs.schedules import (
    AHEAD,
    FARTHEST_AHEAD,
    MOST_AT_ONCE,
    MOST_MISSED_COUNTED,
    MOST_PENDING,
    Schedule,
    ScheduleState,
    SkipReason,
    Skips,
    check_schedule_name,
    check_seconds,
    job_id_of_tick,
    plan,
    settled,
    state_of,
)
from gql_jobs.settings import Settings
from tests.stories import BEGAN, request, spec

START = datetime(2027, 3, 26, 12, 0, 30, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


def schedule(**changes: Any) -> Schedule:
    given: dict[str, Any] = {
        "name": "nightly",
        "incarnation": str(uuid.UUID(int=7)),
        "since": START,
        "type": "probe",
        "payload": Raw(b"{}"),
        "payload_hash": "hash",
        "created_at": START,
        "cron": "* * * * *",
        **changes,
    }
    return Schedule(**given)


def begun(one: Schedule) -> ScheduleState:
    return state_of(one, None)


def job(job_id: str, status: JobStatus, **facts: Any) -> Job:
    return Job(id=job_id, status=status, submission_seq=1, last_seq=1, updated_at=START, spec=spec(), **facts)


def test_the_next_tick_is_made_ahead_and_no_further_one() -> None:
    planned = plan(one := schedule(), begun(one), START)
    assert planned.make == (START + 30 * SECOND,)
    assert planned.state.until == planned.make[0]
    assert planned.state.ahead == planned.make
    assert planned.look_at == START + 30 * SECOND
    again = plan(one, planned.state, START + SECOND)
    assert (again.make, again.state) == ((), planned.state)


def test_the_following_tick_is_made_as_soon_as_the_one_before_is_due() -> None:
    first = plan(one := schedule(), begun(one), START)
    assert first.look_at is not None
    second = plan(one, first.state, first.look_at)
    assert second.make == (START + 90 * SECOND,)


def test_of_a_schedule_of_every_second_a_few_seconds_are_made_ahead() -> None:
    planned = plan(one := schedule(cron=None, every_seconds=1), begun(one), START)
    assert planned.make == tuple(START + n * SECOND for n in range(1, 11))
    assert AHEAD == 10 * SECOND
    assert planned.look_at == START + 6 * SECOND
    again = plan(one, planned.state, planned.look_at)
    assert len(again.make) == 6


def test_a_tick_that_is_farther_than_a_day_ahead_is_left_for_later() -> None:
    planned = plan(one := schedule(cron="0 0 1 6 *"), begun(one), START)
    due = datetime(2027, 6, 1, tzinfo=UTC)
    assert (planned.make, planned.look_at) == ((), due - FARTHEST_AHEAD)
    assert plan(one, planned.state, due - FARTHEST_AHEAD).make == (due,)


def test_ticks_within_the_catch_up_are_made_late_and_older_ones_are_counted() -> None:
    one = schedule(catch_up_seconds=180)
    planned = plan(one, begun(one), START + 10 * MINUTE)
    assert [tick - START - 30 * SECOND for tick in planned.make] == [7 * MINUTE, 8 * MINUTE, 9 * MINUTE, 10 * MINUTE]
    assert planned.state.skips == {SkipReason.OUTAGE: Skips(7, START + 30 * SECOND + 6 * MINUTE)}
    assert planned.state.skipped == 7


def test_without_a_catch_up_a_tick_is_made_that_is_only_just_late() -> None:
    one = schedule(catch_up_seconds=0)
    assert plan(one, begun(one), START + 31 * SECOND).make == (START + 30 * SECOND, START + 90 * SECOND)
    assert plan(one, begun(one), START + 40 * SECOND).make == (START + 90 * SECOND,)


def test_many_late_ticks_are_made_some_at_a_time() -> None:
    one = schedule(cron=None, every_seconds=1, catch_up_seconds=3600)
    state, now, made = begun(one), START + 100 * SECOND, list[datetime]()
    while len(made) < 110:
        planned = plan(one, state, now)
        assert len(planned.make) <= MOST_AT_ONCE
        assert planned.look_at is not None
        assert planned.look_at >= now + SECOND
        state, now = replace(planned.state, ahead=()), planned.look_at
        made += planned.make
    assert made == [START + n * SECOND for n in range(1, len(made) + 1)]


def test_an_outage_of_years_is_counted_up_to_a_limit_and_gone_on_behind() -> None:
    one = schedule(cron="* * * * * *", catch_up_seconds=5)
    now = START + timedelta(days=900)
    planned = plan(one, begun(one), now)
    assert planned.state.skips[SkipReason.OUTAGE].count == MOST_MISSED_COUNTED
    assert planned.make[0] == now - 5 * SECOND


def test_no_ticks_are_made_while_what_has_become_of_many_is_not_known() -> None:
    one = schedule()
    ahead = tuple(START - n * MINUTE for n in range(MOST_PENDING))
    planned = plan(one, replace(begun(one), ahead=ahead), START)
    assert planned.make == ()
    assert planned.look_at is not None
    assert planned.look_at > START


def test_a_paused_schedule_has_no_ticks() -> None:
    one = schedule(paused=True)
    assert plan(one, begun(one), START + MINUTE)[1:] == ((), None)
    assert one.next_runs(START, 5) == []


def test_a_schedule_that_is_never_due_again_is_not_looked_at() -> None:
    one = schedule(cron="0 3 * * 99")
    assert plan(one, begun(one), START).look_at is None


def test_ticks_are_spread_by_the_name_alone() -> None:
    spread = {schedule(name=f"n{number}", spread_seconds=600).offset for number in range(200)}
    assert len(spread) > 100
    assert all(timedelta(0) <= offset <= timedelta(seconds=600) for offset in spread)
    one = schedule(name="n1", spread_seconds=600)
    assert schedule(name="n1", spread_seconds=600, cron="0 3 * * *", incarnation=str(uuid.uuid4())).offset == one.offset
    assert schedule(name="n1").offset == timedelta(0)


def test_a_spread_tick_is_due_by_so_much_later() -> None:
    one = schedule(name="n1", spread_seconds=600, cron="0 13 * * *")
    planned = plan(one, begun(one), START)
    (tick,) = planned.make
    assert tick == datetime(2027, 3, 26, 13, tzinfo=UTC)
    assert planned.state.due(tick) == tick + one.offset == one.next_runs(START, 1)[0]
    assert planned.look_at == tick + one.offset


def test_what_is_due_after_a_change_is_found_by_when_it_is_due_and_not_by_its_tick() -> None:
    offset = schedule(name="n1", spread_seconds=600).offset
    assert offset > timedelta(0)
    changed = datetime(2027, 3, 26, 13, tzinfo=UTC) + offset / 2
    one = schedule(name="n1", spread_seconds=600, cron="0 13 * * *", since=changed)
    assert one.next_runs(changed, 1) == [datetime(2027, 3, 26, 13, tzinfo=UTC) + offset]
    assert plan(one, begun(one), changed).make == (datetime(2027, 3, 26, 13, tzinfo=UTC),)


def test_a_changed_schedule_begins_behind_what_could_not_be_cancelled() -> None:
    old, new = schedule(), schedule(incarnation=str(uuid.UUID(int=8)), since=START + MINUTE, cron="*/2 * * * *")
    known = plan(old, begun(old), START).state.skipping(SkipReason.OVERLAP, START, 3)
    state = state_of(new, known, START + 5 * MINUTE)
    assert (state.incarnation, state.ahead, state.skipped) == (new.incarnation, (), 3)
    assert plan(new, state, START + 2 * MINUTE).make[0] > START + 5 * MINUTE
    assert plan(new, state_of(new, known), START + 2 * MINUTE).make[0] > START + MINUTE
    # Also one that was changed once more at the same moment, of which nothing is ahead.
    newest = schedule(incarnation=str(uuid.UUID(int=9)), since=START + MINUTE)
    assert plan(newest, state_of(newest, state), START + 2 * MINUTE).make[0] > START + 5 * MINUTE


@pytest.mark.parametrize("was_full", [True, False])
def test_ticks_that_are_not_made_because_too_many_wait_are_no_outage(*, was_full: bool) -> None:
    one = schedule()
    planned = plan(one, begun(one), START + 60 * MINUTE, was_full=was_full)
    assert list(planned.state.skips) == [SkipReason.OVERLAP if was_full else SkipReason.OUTAGE]


def test_the_id_of_a_tick_follows_from_the_incarnation_and_the_moment() -> None:
    one, other = str(uuid.UUID(int=7)), str(uuid.UUID(int=8))
    berlin = datetime.fromisoformat("2027-03-26T13:00:30+01:00")
    assert job_id_of_tick(one, START) == job_id_of_tick(one, berlin) == job_id_of_tick(one, START)
    assert len({job_id_of_tick(one, START), job_id_of_tick(other, START), job_id_of_tick(one, START + SECOND)}) == 3


def test_what_has_become_of_ticks_is_told_by_their_jobs() -> None:
    one = schedule()
    outage, *later = (START + n * MINUTE for n in range(-1, 7))
    ahead = tuple(later)
    state = replace(begun(one), ahead=(outage, *ahead))
    jobs = {
        state.job_id(ahead[0]): job(state.job_id(ahead[0]), JobStatus.COMPLETED, attempt=1),
        state.job_id(ahead[1]): job(state.job_id(ahead[1]), JobStatus.CANCELLED, cancel_reason="It overlaps."),
        state.job_id(ahead[2]): job(state.job_id(ahead[2]), JobStatus.PROCESSING, attempt=1),
        state.job_id(ahead[3]): job(state.job_id(ahead[3]), JobStatus.CANCELLED),
        state.job_id(ahead[4]): job(state.job_id(ahead[4]), JobStatus.WAITING),
        state.job_id(ahead[6]): job(state.job_id(ahead[6]), JobStatus.SCHEDULED),
        state.job_id(outage): job(state.job_id(outage), JobStatus.CANCELLED, cancel_reason=MISSED),
    }
    seen, missing = settled(state, START + 5 * MINUTE + SECOND, jobs.get)
    assert seen.ahead == (ahead[4], ahead[5], ahead[6])
    assert missing == (ahead[5],)
    assert seen.last_job == state.job_id(ahead[2])
    assert seen.skips == {SkipReason.OUTAGE: Skips(1, outage), SkipReason.OVERLAP: Skips(1, ahead[1])}


def test_what_becomes_of_a_tick_that_was_queued_too_late_is_waited_for() -> None:
    state = replace(begun(schedule()), ahead=(START,))
    made = job(state.job_id(START), JobStatus.QUEUED)
    late = replace(made, spec=replace(made.spec, fire_before=made.updated_at - SECOND))
    assert settled(state, START + MINUTE, lambda _: late).state == state
    skipped = replace(late, status=JobStatus.CANCELLED, cancel_reason=MISSED)
    seen = settled(state, START + MINUTE, lambda _: skipped).state
    assert (seen.ahead, seen.skips) == ((), {SkipReason.OUTAGE: Skips(1, START)})


@pytest.mark.parametrize("is_limited", [False, True])
def test_a_tick_that_may_meet_others_says_when_it_is_too_late_for_the_server_or_for_the_gate(
    *, is_limited: bool
) -> None:
    due, latest = BEGAN + MINUTE, BEGAN + 2 * MINUTE
    tick = TickPlace("nightly", str(uuid.uuid4()), OverlapPolicy.ALLOW, None, latest)
    made = request(run_at=due, tick=tick).spec(BEGAN, Settings(), is_limited=is_limited)
    if is_limited:
        assert (made.run_at, made.gate, made.fire_before) == (None, Gate(run_at=due, release_before=latest), None)
    else:
        assert (made.run_at, made.gate, made.fire_before) == (due, None, latest)
    # One that is made late is queued at once.
    assert request(run_at=due, tick=tick).spec(BEGAN, Settings(), due).fire_before is None


def test_schedules_that_ask_for_the_same_are_told_from_those_that_do_not() -> None:
    one = schedule(incarnation=str(uuid.uuid4()), created_by="ann", payload=Raw(b'"x"'), encoded=True, secrets=("/a",))
    assert schedule().asks_for_the_same(one)
    for change in (
        {"cron": "0 3 * * *"},
        {"time_zone": "Europe/Berlin"},
        {"type": "other"},
        {"priority": JobPriority.HIGH},
        {"tags": ("a",)},
        {"overlap": OverlapPolicy.ALLOW},
        {"catch_up_seconds": 61},
        {"spread_seconds": 1},
        {"paused": True},
    ):
        assert not schedule().asks_for_the_same(schedule(**change))


def test_what_a_later_release_adds_is_ignored_and_what_is_left_out_has_its_default() -> None:
    one = schedule(overlap=OverlapPolicy.CANCEL_OTHER, tags=("a", "b"), spread_seconds=4)
    stored = msgspec.json.decode(msgspec.json.encode(one))
    assert msgspec.json.decode(msgspec.json.encode({**stored, "later": [1]}), type=Schedule) == one
    assert "spreadSeconds" in stored
    state = plan(schedule(), begun(schedule()), START).state.skipping(SkipReason.OUTAGE, START)
    assert msgspec.json.decode(msgspec.json.encode(state), type=ScheduleState) == state


@pytest.mark.parametrize("name", ["nightly", "A-b_9", "x" * 64])
def test_a_name_is_a_part_of_a_subject(name: str) -> None:
    assert check_schedule_name(name) == name


@pytest.mark.parametrize("name", ["", "x" * 65, "a.b", "a b", "a*", "a>", "ä", "a\n", "a/b"])
def test_any_other_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        check_schedule_name(name)
    assert refusal.value.field == "name"


def test_seconds_are_within_their_limits() -> None:
    assert check_seconds("catch_up_seconds", 0, 10) == 0
    for seconds in (-1, 11):
        with pytest.raises(InvalidRequest, match="between 0 and 10"):
            check_seconds("catch_up_seconds", seconds, 10)
