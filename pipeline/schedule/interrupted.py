"""A tick that did not come to its end: found at the next start, recorded once, and run again."""

import json
import time
from typing import Any

from components.run_summary import timestamp
from pipeline.output import Output
from pipeline.schedule.places import Places
from pipeline.schedule.ticks import KILLED, SKIPPED, STOPPED, Tick, failures_in_a_row, read_ticks

INTERRUPTED = (KILLED, STOPPED)


def interrupted(places: Places) -> Tick | None:
    """Records a tick whose process was killed in mid-run; whoever calls it keeps the schedule.

    Returns:
      The newest tick if it was killed or stopped; None if it came to its end.
    """
    ticks = read_ticks(places.output)
    if (found := _ticking(places)) is not None:
        began = str(found.get("time"))
        # The process may have been killed between the line and the removal of the file, or of this one.
        if not any(tick.time == began and tick.status != SKIPPED for tick in reversed(ticks)):
            killed = Tick(
                time=began,
                status=KILLED,
                run_id=_run_since(places.output, began),
                due=found.get("due"),
                exit_code=1,
                error="The process that kept the schedule was killed in mid-run.",
                failures=failures_in_a_row(ticks),
            )
            killed.record(places.output)
            ticks.append(killed)
        places.ticking.unlink(missing_ok=True)
    last = next((tick for tick in reversed(ticks) if tick.status != SKIPPED), None)
    return last if last is not None and last.status in INTERRUPTED else None


def _ticking(places: Places) -> dict[str, Any] | None:
    """What a tick noted when it began; None where it came to its end."""
    try:
        found = json.loads(places.ticking.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        found = None
    # A power cut may leave a file without its content.
    return found if isinstance(found, dict) and found.get("time") else {"time": timestamp(time.time())}


def _run_since(output: Output, began: str) -> str | None:
    """The run that a tick began."""
    newest = next(iter(output.all_runs()), None)
    since = began[:19].replace("-", "").replace(":", "").replace("T", "-")
    return newest.name if newest is not None and newest.name >= since and len(since) == len(newest.name) else None
