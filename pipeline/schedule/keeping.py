"""Who keeps a schedule: one process at a time, the daemon or a single tick."""

import contextlib
import fcntl
import os
from collections.abc import Iterator

from components.errors import OutputBusy
from pipeline.output import is_alive
from pipeline.schedule.places import Places


@contextlib.contextmanager
def kept(places: Places) -> Iterator[None]:
    """Holds the schedule for this process; the system lets go of it however the process ends.

    Raises:
      OutputBusy: another process keeps it; its id is named.
    """
    with os.fdopen(os.open(places.lock, os.O_RDWR | os.O_CREAT, 0o666), "r+", errors="replace") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            raise OutputBusy(
                f"Another process ({holder}) keeps the schedule of {places.output.root}; stop it, or give another "
                "--output."
            ) from None
        # A note for others. The disk may be full: what is there is written over, and cut only then.
        with contextlib.suppress(OSError):
            os.truncate(lock.fileno(), os.pwrite(lock.fileno(), str(os.getpid()).encode(), 0))
        yield


def keeper(places: Places) -> int | None:
    """The process that keeps the schedule; None for nobody."""
    try:
        with open(places.lock, errors="replace") as lock:
            holder = lock.read().strip()
            # Asked first: whoever tries the lock has it for a moment, and a daemon that starts in it is sent away.
            if not is_alive(holder):
                return None
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(holder)
    except OSError:
        pass
    return None
