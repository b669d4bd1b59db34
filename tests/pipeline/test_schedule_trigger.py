"""When a schedule ticks: Debian cron's reading of the fields, clocks that change, and long stops."""

import pickle
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from pipeline.schedule.trigger import MOST_COUNTED, CronTrigger

PARIS, YORK, HOWE = "Europe/Paris", "America/New_York", "Australia/Lord_Howe"


def ticks(expression: str, zone: str, start: str, count: int) -> list[str]:
    """The next ones after a moment, as clocks show them, with the offset from UTC."""
    trigger, found = CronTrigger(expression, zone), datetime.fromisoformat(start)
    shown = []
    for _ in range(count):
        found = trigger.get_next_fire_time(None, found)
        shown.append(f"{found.astimezone(ZoneInfo(zone)):%m-%d %H:%M%z}")
    return shown


@pytest.mark.parametrize(
    ("expression", "zone", "start", "wanted"),
    [
        # Clocks go forward: 2:00 to 3:00 in Paris and New York, 2:00 to 2:30 on Lord Howe.
        ("30 2 * * *", PARIS, "2026-03-28T00:00Z", ["03-28 02:30+0100", "03-29 03:00+0200", "03-30 02:30+0200"]),
        ("30 2 * * *", YORK, "2026-03-07T00:00Z", ["03-07 02:30-0500", "03-08 03:00-0400", "03-09 02:30-0400"]),
        ("15 2 * * *", HOWE, "2026-10-02T12:00Z", ["10-03 02:15+1030", "10-04 02:30+1100", "10-05 02:15+1100"]),
        # Two times in one gap, and one right after it, are one tick.
        ("0,30 2,3 * * 0", PARIS, "2026-03-28T20:00Z", ["03-29 03:00+0200", "03-29 03:30+0200", "04-05 02:00+0200"]),
        ("30 * * * *", PARIS, "2026-03-29T00:00Z", ["03-29 01:30+0100", "03-29 03:30+0200", "03-29 04:30+0200"]),
        ("15 * * * *", HOWE, "2026-10-03T14:30Z", ["10-04 01:15+1030", "10-04 03:15+1100", "10-04 04:15+1100"]),
        # Clocks go back: 3:00 to 2:00 in Paris, 2:00 to 1:00 in New York, 2:00 to 1:30 on Lord Howe.
        ("30 2 * * *", PARIS, "2026-10-24T20:00Z", ["10-25 02:30+0200", "10-26 02:30+0100", "10-27 02:30+0100"]),
        ("30 1 * * *", YORK, "2026-11-01T00:00Z", ["11-01 01:30-0400", "11-02 01:30-0500", "11-03 01:30-0500"]),
        ("45 1 * * *", HOWE, "2026-04-04T10:00Z", ["04-05 01:45+1100", "04-06 01:45+1030", "04-07 01:45+1030"]),
        ("0 * * * *", PARIS, "2026-10-24T23:30Z", ["10-25 02:00+0200", "10-25 02:00+0100", "10-25 03:00+0100"]),
        ("0 * * * *", YORK, "2026-11-01T04:30Z", ["11-01 01:00-0400", "11-01 01:00-0500", "11-01 02:00-0500"]),
        ("30 * * * *", HOWE, "2026-04-04T14:00Z", ["04-05 01:30+1100", "04-05 01:30+1030", "04-05 02:30+1030"]),
        ("*/20 2 * * *", PARIS, "2026-10-25T00:30Z", ["10-25 02:40+0200", "10-25 02:00+0100", "10-25 02:20+0100"]),
        # Asked in the hour that comes twice, after the tick: not again, and never in the past.
        ("30 2 * * *", PARIS, "2026-10-25T01:10Z", ["10-26 02:30+0100"]),
        # Years without a tick in between, and changes of clocks in each.
        ("*/30 2 29 2 *", PARIS, "2026-10-25T00:55Z", ["02-29 02:00+0100", "02-29 02:30+0100", "02-29 02:00+0100"]),
    ],
)
def test_daylight_saving(expression, zone, start, wanted):
    assert ticks(expression, zone, start, len(wanted)) == wanted


@pytest.mark.parametrize("zone", [PARIS, YORK, HOWE, "America/Havana", "Africa/Cairo"])
@pytest.mark.parametrize("expression", ["* * * * *", "*/20 * * * *", "45 * * * *", "*/15 0-2 * * *", "5 */3 * * *"])
def test_job_with_a_star_runs_whenever_clocks_show_its_time(expression, zone):
    """Against every minute of the days around both changes."""
    trigger, there = CronTrigger(expression, zone), ZoneInfo(zone)
    hours = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=number) for number in range(365 * 24)]
    changes = [at for before, at in pairwise(hours) if _offset(before, there) != _offset(at, there)]
    assert len(changes) == 2
    minute, hour = (_numbers(field, most) for field, most in zip(expression.split()[:2], (60, 24), strict=True))
    for change in changes:
        minutes = [change + timedelta(minutes=number) for number in range(-300, 300)]
        shown = [at for at in minutes if (local := at.astimezone(there)).minute in minute and local.hour in hour]
        found, at = [], minutes[0] - timedelta(seconds=1)
        while (at := trigger.after(at)) <= minutes[-1]:
            found.append(at)
        assert found == shown


def _offset(at: datetime, zone: ZoneInfo) -> timedelta:
    return at.astimezone(zone).utcoffset()


def _numbers(field: str, most: int) -> set[int]:
    if "-" in field:
        first, last = map(int, field.split("-"))
        return set(range(first, last + 1))
    base, _, step = field.partition("/")
    return set(range(0, most, int(step or 1))) if base == "*" else {int(base)}


def test_day_of_the_month_or_day_of_the_week():
    """The 1st or a Monday; where one of them is a star, the other alone; 0 is Sunday."""
    assert ticks("0 3 1 * 1", "UTC", "2026-11-24T00:00Z", 3) == [
        "11-30 03:00+0000",
        "12-01 03:00+0000",
        "12-07 03:00+0000",
    ]
    assert ticks("0 3 * * 0", "UTC", "2026-11-24T00:00Z", 2) == ["11-29 03:00+0000", "12-06 03:00+0000"]
    assert ticks("0 3 31 * *", "UTC", "2026-11-24T00:00Z", 2) == ["12-31 03:00+0000", "01-31 03:00+0000"]


@pytest.mark.parametrize(
    ("expression", "latest"), [("* * * * *", "2026-11-24T10:00Z"), ("* * 1 1 *", "2026-01-01T23:59Z")]
)
def test_a_year_of_missed_minutes_is_not_walked_through(expression, latest):
    trigger = CronTrigger(expression, "UTC")
    now = datetime.fromisoformat("2026-11-24T10:00:30Z")
    first = trigger.after(now - timedelta(days=700))
    began = time.monotonic()
    due = trigger.due(first, now)
    assert (due.latest, due.count) == (datetime.fromisoformat(latest), MOST_COUNTED)
    assert trigger.get_next_fire_time(first, now) > now
    assert time.monotonic() - began < 1


def test_missed_ticks_are_counted():
    trigger, now = CronTrigger("0 3 * * 1", PARIS), datetime.fromisoformat("2026-11-24T10:00Z")
    due = trigger.due(datetime.fromisoformat("2026-11-09T02:00Z"), now)
    assert (due.latest, due.count) == (datetime.fromisoformat("2026-11-23T02:00Z"), 3)


def test_trigger_comes_back_from_the_store_as_it_was():
    trigger = CronTrigger("0 3 * * 1", PARIS)
    assert pickle.loads(pickle.dumps(trigger)) == trigger != CronTrigger("0 3 * * 1", YORK)
