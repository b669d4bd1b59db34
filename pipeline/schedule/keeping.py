"""Who keeps a schedule: one process at a time, the daemon or a single tick."""

import contextlib

from components.errors import OutputBusy
from pipeline.held import held, holder
from pipeline.schedule.places import Places


def kept(places: Places) -> contextlib.AbstractContextManager[None]:
    """Holds the schedule for this process; the system lets go of it however the process ends.

    Raises:
      OutputBusy: another process keeps it; its id is named.
    """

    def busy(process: str) -> OutputBusy:
        return OutputBusy(
            f"Another process ({process}) keeps the schedule of {places.output.root}; stop it, or give another "
            "--output."
        )

    return held(places.lock, busy)


def keeper(places: Places) -> int | None:
    """The process that keeps the schedule; None for nobody."""
    try:
        return holder(places.lock)
    except OSError:
        return None
