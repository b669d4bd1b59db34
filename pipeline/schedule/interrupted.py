"""A tick that did not come to its end: found at the next start, recorded once, and run again."""

from pipeline.schedule.places import Places
from pipeline.schedule.tick import cut_short
from pipeline.schedule.ticks import KILLED, SKIPPED, STOPPED, Tick, failures_in_a_row, read_ticks


def interrupted(places: Places) -> Tick | None:
    """Records a tick whose process was killed in mid-run; whoever calls it keeps the schedule.

    Returns:
      The newest tick if it was killed or stopped; None if it came to its end.
    """
    ticks = read_ticks(places.output)
    if (found := cut_short(places)) is not None:
        # The process may have been killed between the line and the removal of the file, or this one was.
        if not any(tick.time == found["time"] and tick.status != SKIPPED for tick in reversed(ticks)):
            killed = Tick(
                **found,
                status=KILLED,
                exit_code=1,
                error="The process that kept the schedule was killed in mid-run.",
                failures=failures_in_a_row(ticks),
            )
            killed.record(places.output)
            ticks.append(killed)
        places.ticking.unlink(missing_ok=True)
    last = next((tick for tick in reversed(ticks) if tick.status != SKIPPED), None)
    return last if last is not None and last.status in (KILLED, STOPPED) else None
