"""When a schedule ticks: a cron expression in a time zone, as Debian's cron reads it.

cronsim walks the calendar, without a zone; what a change of the clocks does to its times is here. By cronsim's own
zones a tick is passed over where clocks go back by half an hour (Australia/Lord_Howe), and whoever asks during the hour
that comes twice gets a time that lies in the past.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from apscheduler.triggers.base import BaseTrigger
from cronsim import CronSim

SECOND, MINUTE, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(days=1)
# More ticks than these are not counted one by one.
MOST_COUNTED = 1000


@dataclass(frozen=True)
class Due:
    """Ticks that came due, of which only one is run.

    Attributes:
      latest: the newest of them, in UTC.
      count: how many they are; `MOST_COUNTED` stands for at least so many.
    """

    latest: datetime
    count: int


class CronTrigger(BaseTrigger):
    """Fires by a cron expression.

    A job at fixed times (minute and hour begin with no star) runs once a day also when clocks change: at a time that is
    left out, right after the gap; at one that comes twice, the first time. Any other job goes by what clocks show.

    Args:
      expression: five fields, checked (`pipeline.cron.check`).
      zone: name of the time zone that the fields are read in, checked.
    """

    def __init__(self, expression: str, zone: str):
        self.expression, self.zone = expression, zone

    def __str__(self) -> str:
        return f"{self.expression} ({self.zone})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CronTrigger) and str(self) == str(other)

    __hash__ = None

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """The first tick after both.

        APScheduler asks for one tick after the other up to now, in order to run the last of them: those in between are
        passed over here, as there may be half a million.
        """
        return self.after(max(previous_fire_time, now) if previous_fire_time else now)

    def after(self, moment: datetime) -> datetime | None:
        """The first tick after a moment, in UTC; None where there is none in fifty years."""
        minute, hour, *_ = self.expression.split()
        fixed = not minute.startswith("*") and not hour.startswith("*")
        return self._fixed(moment.astimezone(UTC)) if fixed else self._shown(moment.astimezone(UTC))

    def due(self, first: datetime, now: datetime) -> Due:
        """The ticks from one on until now, both included.

        Args:
          first: a tick, not after `now`.
          now: when it is asked.
        """
        count = 0
        for count, tick in enumerate(self._from(first, now), 1):
            if count == MOST_COUNTED:
                return Due(self._last(first, now), count)
            latest = tick
        return Due(latest, count)

    def _from(self, first: datetime, now: datetime) -> Iterator[datetime]:
        tick: datetime | None = first.astimezone(UTC)
        while tick is not None and tick <= now:
            yield tick
            tick = self.after(tick)

    def _last(self, first: datetime, now: datetime) -> datetime:
        """The newest tick until now: looked for further and further back."""
        back = MINUTE
        while (tick := self.after(max(first, now - back) - SECOND)) is None or tick > now:
            back *= 2
        for newest in self._from(tick, now):
            tick = newest
        return tick

    def _fixed(self, moment: datetime) -> datetime | None:
        """Every time of the calendar, at the one instant that it stands for."""
        # A time before a change of the clocks may stand for an instant after the moment.
        for time in CronSim(self.expression, _shown_at(moment, self._offset(moment)) - DAY):
            if (tick := self._instant(time)) > moment:
                return tick
        return None

    def _instant(self, time: datetime) -> datetime:
        """When clocks show a time for the first time, or, where they never do, the end of the gap that it is in."""
        zoned = time.replace(tzinfo=ZoneInfo(self.zone))
        instant, other = zoned.astimezone(UTC), zoned.replace(fold=1).astimezone(UTC)
        return instant if other >= instant else self._change(other, instant)

    def _shown(self, moment: datetime) -> datetime | None:
        """Every instant at which clocks show a time of the calendar."""
        offset = self._offset(moment)
        shown = _shown_at(moment, offset)
        while True:
            time = next(CronSim(self.expression, shown), None)
            if time is None:
                return None
            here, tick = _instant_of(shown, offset), _instant_of(time, offset)
            soon = min(tick, here + DAY)
            if self._offset(soon) != offset:
                # From the change on, clocks may show times again that they have shown, or pass over some.
                change = self._change(here, soon)
                offset = self._offset(change)
                shown = _shown_at(change, offset) - SECOND
            elif soon == tick:
                return tick
            else:
                # Nothing until then, whatever clocks do in between.
                near = max(soon, tick - DAY)
                offset = self._offset(near)
                shown = _shown_at(near, offset)

    def _offset(self, moment: datetime) -> timedelta:
        return moment.astimezone(ZoneInfo(self.zone)).utcoffset()

    def _change(self, before: datetime, after: datetime) -> datetime:
        """The first second of another offset than before; there is one change in between."""
        offset = self._offset(before)
        while after - before > SECOND:
            middle = before + (after - before) / 2
            before, after = (middle, after) if self._offset(middle) == offset else (before, middle)
        return after.replace(microsecond=0)


def _shown_at(moment: datetime, offset: timedelta) -> datetime:
    """What a clock shows, without a zone."""
    return (moment + offset).replace(tzinfo=None)


def _instant_of(shown: datetime, offset: timedelta) -> datetime:
    return shown.replace(tzinfo=UTC) - offset
