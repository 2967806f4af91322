"""When schedules are due, around changes of clocks in many zones, and whatever clients write as a cron expression."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise, takewhile
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gql_jobs.jobs.recurrence import MAX_CRON, MAX_INTERVAL, Recurrence, checked_recurrence
from gql_jobs.jobs.requests import InvalidRequest

NOW = datetime(2026, 11, 30, 6, 40, 12, 345678, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}+00:00")


def moments(cron: str, zone: str, start: str, end: str) -> list[str]:
    found = takewhile(lambda moment: moment <= utc(end), Recurrence(cron=cron, time_zone=zone).after(utc(start)))
    return [f"{moment:%d %H:%M}" for moment in found]


# Each row: a zone, a local time that its clock leaves out, when that is due, one that it has twice, and when that is.
CHANGES = [
    ("Europe/Berlin", "30 2", "2027-03-28 01:00", "30 2", "2027-10-31 00:30"),
    ("America/New_York", "30 2", "2027-03-14 07:00", "30 1", "2027-11-07 05:30"),
    ("Australia/Lord_Howe", "15 2", "2027-10-02 15:30", "45 1", "2027-04-03 14:45"),
    ("America/Santiago", "0 0", "2027-09-05 04:00", "30 23", "2027-04-04 02:30"),
    ("Asia/Beirut", "0 0", "2027-03-27 22:00", "15 23", "2027-10-30 20:15"),
    ("Africa/Casablanca", "30 2", "2027-03-14 02:00", "30 2", "2027-02-07 01:30"),
    ("Africa/Cairo", "59 0", "2027-04-29 22:00", "0 23", "2027-10-28 20:00"),
    ("Pacific/Auckland", "0 2", "2027-09-25 14:00", "59 2", "2027-04-03 13:59"),
    ("Pacific/Chatham", "0 3", "2027-09-25 14:00", "0 3", "2027-04-03 13:15"),
    ("Antarctica/Troll", "30 1", "2027-03-28 01:00", "30 1", "2027-10-30 23:30"),
    ("America/Havana", "0 0", "2027-03-14 05:00", "0 0", "2027-11-07 04:00"),
    ("America/St_Johns", "30 2", "2027-03-14 05:30", "30 1", "2027-11-07 04:00"),
    ("Atlantic/Azores", "30 0", "2027-03-28 01:00", "30 0", "2027-10-31 00:30"),
]


@pytest.mark.parametrize(("zone", "time_of_day", "due"), [(zone, skipped, due) for zone, skipped, due, _, _ in CHANGES])
@pytest.mark.parametrize("seconds", ["", "0 "])
def test_a_time_that_the_clock_leaves_out_is_due_when_it_has_been_put_forward(
    zone: str, time_of_day: str, due: str, seconds: str
) -> None:
    around = utc(due)
    daily = Recurrence(cron=f"{seconds}{time_of_day} * * *", time_zone=zone)
    found = list(islice(daily.after(around - timedelta(days=2)), 5))
    assert around in found
    days = [moment.astimezone(ZoneInfo(zone)).date() for moment in found]
    assert [later - earlier for earlier, later in pairwise(days)] == [timedelta(days=1)] * 4


@pytest.mark.parametrize(("zone", "time_of_day", "due"), [(zone, twice, due) for zone, _, _, twice, due in CHANGES])
@pytest.mark.parametrize("seconds", ["", "0 "])
def test_a_time_that_there_is_twice_is_due_once(zone: str, time_of_day: str, due: str, seconds: str) -> None:
    around = utc(due)
    daily = Recurrence(cron=f"{seconds}{time_of_day} * * *", time_zone=zone)
    found = list(islice(daily.after(around - timedelta(days=2)), 5))
    assert around in found
    days = [moment.astimezone(ZoneInfo(zone)).date() for moment in found]
    assert [later - earlier for earlier, later in pairwise(days)] == [timedelta(days=1)] * 4


@pytest.mark.parametrize(("zone", "time_of_day", "due"), [(zone, twice, due) for zone, _, _, twice, due in CHANGES])
def test_a_time_that_there_is_twice_is_due_once_from_wherever_it_is_looked_for(
    zone: str, time_of_day: str, due: str
) -> None:
    around = utc(due)
    daily = Recurrence(cron=f"{time_of_day} * * *", time_zone=zone)
    for minutes in range(0, 300, 7):
        following = daily.first_after(around + timedelta(minutes=minutes))
        assert following is not None
        assert following > around + timedelta(hours=22)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "Asia/Kolkata", "America/Sao_Paulo"])
def test_where_clocks_are_not_changed_a_nightly_run_is_a_day_after_the_last(zone: str) -> None:
    nightly = list(islice(Recurrence(cron="30 2 * * *", time_zone=zone).after(NOW), 400))
    assert {later - earlier for earlier, later in pairwise(nightly)} == {timedelta(days=1)}


@pytest.mark.parametrize(("zone", "cron"), [(zone, "*/15 * * * *") for zone, *_ in CHANGES])
def test_every_quarter_of_an_hour_is_every_real_one_at_any_change(zone: str, cron: str) -> None:
    found = list(takewhile(lambda moment: moment.year < 2028, Recurrence(cron=cron, time_zone=zone).after(NOW)))
    assert {later - earlier for earlier, later in pairwise(found)} == {timedelta(minutes=15)}


@pytest.mark.parametrize("zone", [zone for zone, *_ in CHANGES if zone != "Australia/Lord_Howe"])
def test_every_hour_is_every_real_one_where_clocks_are_changed_by_hours(zone: str) -> None:
    found = list(islice(Recurrence(cron="30 * * * *", time_zone=zone).after(NOW), 9000))
    assert {later - earlier for earlier, later in pairwise(found)} == {timedelta(hours=1)}


def test_an_hour_that_is_cut_in_half_has_its_run() -> None:
    left_out = moments("15 * * * *", "Australia/Lord_Howe", "2027-10-02 14:00", "2027-10-02 17:00")
    assert left_out == ["02 14:45", "02 15:30", "02 16:15"]


def test_minutes_that_begin_with_a_star_are_an_interval_within_their_hours_too() -> None:
    twice = moments("*/30 2 * * *", "Europe/Berlin", "2027-10-30 12:00", "2027-10-31 12:00")
    assert twice == ["31 00:00", "31 00:30", "31 01:00", "31 01:30"]
    left_out = moments("*/30 2 * * *", "Europe/Berlin", "2027-03-27 12:00", "2027-03-28 12:00")
    assert left_out == ["28 01:00"]


def test_several_times_that_the_clock_leaves_out_are_due_as_one() -> None:
    assert moments("0,20,40 2,3 * * *", "Europe/Berlin", "2027-03-28 00:00", "2027-03-28 12:00") == [
        "28 01:00",
        "28 01:20",
        "28 01:40",
    ]


def test_a_day_that_an_island_leaves_out_is_made_up_for_once() -> None:
    assert moments("0 9,15 * * *", "Pacific/Apia", "2011-12-29 00:00", "2011-12-31 12:00") == [
        "29 01:00",
        "29 19:00",
        "30 01:00",
        "30 10:00",
        "30 19:00",
        "31 01:00",
    ]


def test_seconds_come_first_in_six_fields() -> None:
    found = [f"{moment:%H:%M:%S}" for moment in Recurrence(cron="*/20 59 23 * * *").preview(NOW, 4)]
    assert found == ["23:59:00", "23:59:20", "23:59:40", "23:59:00"]


@pytest.mark.parametrize("seconds", [1, 7, 60, 86_400, MAX_INTERVAL])
def test_an_interval_is_counted_from_1970_so_that_it_goes_on_wherever_it_is_looked_at(seconds: int) -> None:
    found = Recurrence(every_seconds=seconds, time_zone="Europe/Berlin").preview(NOW, 5)
    assert all(moment.timestamp() % seconds == 0 for moment in found)
    assert {later - earlier for earlier, later in pairwise(found)} == {timedelta(seconds=seconds)}
    assert NOW < found[0] <= NOW + timedelta(seconds=seconds)
    assert Recurrence(every_seconds=seconds).first_after(found[0]) == found[1]


MINUTES = st.sampled_from(["0", "30", "5,55", "*/15", "*", "10-50/20"])
HOURS = st.sampled_from(["*", "2", "0,1,2,3", "*/2", "0-23", "23,0"])


def expected(cron: str, zone: ZoneInfo, start: datetime, end: datetime) -> Iterator[datetime]:
    """What the rules say, minute by minute."""
    minutes, hours, *_ = cron.split()
    is_whole = hours in {"*", "0-23"}
    times = takewhile(lambda one: one < end + 2 * DAY, Recurrence(cron=cron).after(start - 2 * DAY))
    wanted = {one.replace(tzinfo=None) for one in times}
    seen: set[datetime] = set()
    moment = start
    while moment <= end:
        local = moment.astimezone(zone).replace(tzinfo=None)
        before = (moment - MINUTE).astimezone(zone).replace(tzinfo=None)
        missing = [before + MINUTE * n for n in range(1, max(1, round((local - before) / MINUTE)))]
        due = local in wanted and (local not in seen or is_whole or minutes.startswith("*"))
        seen.add(local)
        is_part = len(missing) % 60 != 0
        left_out = any(one in wanted and (not is_whole or (is_part and one.hour == local.hour)) for one in missing)
        if (due or left_out) and moment > start:
            yield moment
        moment += MINUTE


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(CHANGES), MINUTES, HOURS, st.integers(-1500, 200), st.booleans())
def test_all_moments_follow_the_rules_minute_by_minute(
    change: tuple[str, str, str, str, str], minutes: str, hours: str, offset: int, is_forward: bool
) -> None:
    zone, _, forward, _, backward = change
    cron = f"{minutes} {hours} * * *"
    middle = utc(forward if is_forward else backward)
    start, end = middle + offset * MINUTE, middle + DAY
    # What was due the first time of an hour that there is twice is known from before the start.
    whole = [moment for moment in expected(cron, ZoneInfo(zone), middle - 2 * DAY, end) if moment > start]
    found = list(takewhile(lambda moment: moment <= end, Recurrence(cron=cron, time_zone=zone).after(start)))
    assert found == whole


@pytest.mark.parametrize(
    ("cron", "problem"),
    [
        ("0 0 30 2 *", "day-of-month"),
        ("0 0 31 4,6,9,11 *", "day-of-month"),
        ("0 0 */20 2 1#5", "matches no moment"),
        ("* * */20 * 1L", "matches no moment"),
        ("61 * * * *", "minute"),
        ("0 0 * * MON-XYZ", "day-of-week"),
        ("0 0 * * 5-1", "day-of-week"),
        ("*/0 * * * *", "minute"),
        ("* * * *", "it has 4 fields"),
        ("", "it has 0 fields"),
        ("@daily", "it has 1 fields"),
        ("* * * * * * *", "it has 7 fields"),
        ("٣ 0 * * *", "ASCII"),
        ("0 0 * * ²L", "ASCII"),
        ("\x00 * * * *", "minute"),
        ("," * 100 + " * * * *", "minute"),
        (f"{'9' * 200} * * * *", "minute"),
        ("*" * (MAX_CRON + 1), f"at most {MAX_CRON} characters"),
        ("1/" * 60 + " * * * *", "minute"),
        ("0 0 LW/2/2 * *", "day-of-month"),
        ("0 0 1#2 * *", "day-of-month"),
    ],
)
def test_an_expression_that_cannot_be_meant_is_refused_in_a_sentence(cron: str, problem: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        checked_recurrence(cron, None, "UTC", NOW)
    assert refusal.value.field == "cron"
    assert problem in str(refusal.value)


@pytest.mark.parametrize(
    "zone", ["Europe/Atlantis", "", "../../etc/passwd", "/etc/localtime", "localtime", "America", "x" * 9999]
)
def test_a_zone_that_the_database_has_not_is_refused(zone: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        checked_recurrence("0 3 * * *", None, zone, NOW)
    assert refusal.value.field == "time_zone"
    assert len(str(refusal.value)) < 250


@pytest.mark.parametrize(
    ("cron", "every", "field"),
    [
        (None, None, "cron"),
        ("0 3 * * *", 60, "cron"),
        (None, 0, "every_seconds"),
        (None, -1, "every_seconds"),
        (None, MAX_INTERVAL + 1, "every_seconds"),
    ],
)
def test_just_one_of_expression_and_interval_is_needed(cron: str | None, every: int | None, field: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        checked_recurrence(cron, every, "UTC", NOW)
    assert refusal.value.field == field


def test_an_expression_is_kept_with_one_space_between_its_fields() -> None:
    assert checked_recurrence("  0   3 *\t* mon-fri ", None, "Europe/Berlin", NOW) == Recurrence(
        cron="0 3 * * mon-fri", time_zone="Europe/Berlin"
    )


@pytest.mark.parametrize("first", [0, -1, 101, 10**6])
def test_a_preview_is_of_at_most_a_hundred_moments(first: int) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        Recurrence(cron="* * * * *").preview(NOW, first)
    assert refusal.value.field == "first"


@pytest.mark.parametrize(
    ("cron", "zone"),
    [
        ("0 0 29 2 *", "Europe/Berlin"),
        ("0 0 * 2 MON#5", "Africa/Casablanca"),
        ("* * */20 * 1L", "Europe/Berlin"),
        ("* * * * * *", "Australia/Lord_Howe"),
        (",".join(map(str, range(60))) + " */7 * * *", "America/Santiago"),
        ("59 59 23 31 12 *", "Asia/Beirut"),
        ("* * 29 2 *", "Asia/Beirut"),
    ],
)
def test_no_expression_takes_long(cron: str, zone: str) -> None:
    begun = time.process_time()
    found = Recurrence(cron=cron, time_zone=zone).preview(NOW, 10)
    assert time.process_time() - begun < 1
    assert found == sorted(set(found))


@settings(max_examples=300, deadline=2000)
@given(st.text(alphabet="0123456789*/,-#LWlwMONJAN? \t", max_size=40))
def test_whatever_is_written_is_read_or_refused(cron: str) -> None:
    try:
        recurrence = checked_recurrence(cron, None, "Europe/Berlin", NOW)
    except InvalidRequest as refusal:
        assert refusal.field == "cron"  # noqa: PT017
    else:
        assert recurrence.first_after(NOW) is not None


def test_the_end_of_the_calendar_is_the_end_of_all_schedules() -> None:
    late = datetime(9999, 12, 31, 23, 59, tzinfo=UTC)
    for recurrence in (
        Recurrence(cron="* * * * *", time_zone="Europe/Berlin"),
        Recurrence(cron="0 0 29 2 *"),
        Recurrence(every_seconds=MAX_INTERVAL),
    ):
        assert len(list(islice(recurrence.after(late), 3))) <= 1


def test_what_a_machine_does_not_know_any_more_is_never_due() -> None:
    assert Recurrence(cron="0 3 * * *", time_zone="Europe/Atlantis").first_after(NOW) is None
    assert Recurrence(cron="0 3 * * 99").first_after(NOW) is None
    assert Recurrence().first_after(NOW) is None
