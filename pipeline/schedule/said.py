"""What a schedule says of its ticks: a line each."""

from datetime import datetime
from zoneinfo import ZoneInfo

from pipeline.pace import duration
from pipeline.schedule.ticks import FAILED, PUBLISHED, Tick
from pipeline.schedule.trigger import MOST_COUNTED


def moment(at: datetime, zone: str) -> str:
    """As clocks in a zone show it."""
    return f"{at.astimezone(ZoneInfo(zone)):%a %Y-%m-%d %H:%M %Z}"


def due_at(due: str | None, zone: str) -> str | None:
    """When a tick was due, as clocks in a zone show it; None where that is not known."""
    try:
        return moment(datetime.fromisoformat(due), zone) if due else None
    except (ValueError, TypeError):
        return None


def counted(ticks: int) -> str:
    """How many ticks: `1 tick`, `at least 1000 ticks`."""
    least = "at least " if ticks >= MOST_COUNTED else ""
    return f"{least}{ticks} tick{'' if ticks == 1 else 's'}"


def tick_line(tick: Tick, zone: str) -> str:
    """How a tick ended, in one line."""
    due = due_at(tick.due, zone)
    how = f"published version {tick.version}" if tick.status == PUBLISHED and tick.version else tick.status
    if tick.status == FAILED and (tick.failures or 0) > 1:
        how += f" ({tick.failures} in a row)"
    details = [
        f"run {tick.run_id}" if tick.run_id else None,
        tick.why,
        duration(tick.seconds) if tick.seconds is not None else None,
        f"made up for {counted(tick.missed)}" if tick.missed else None,
    ]
    said = "; ".join(detail for detail in details if detail)
    line = f"Tick of {due}: {how}" if due else f"Tick: {how}"
    line += f" ({said})" if said else ""
    return f"{line}: {tick.error}" if tick.error else f"{line}."
