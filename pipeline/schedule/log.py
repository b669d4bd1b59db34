"""`schedule/log.txt`: what a schedule did, a line each; the file before it is `log.txt.1`, and there are no more."""

import contextlib
import os
import time

from components.errors import printable
from components.run_summary import timestamp
from pipeline.schedule.places import Places

MOST = 1 << 20  # bytes, after which a new file begins


def say(places: Places, sentence: str) -> None:
    """Adds a line, with the time, and prints it; a full disk, or nobody who reads, stops nothing.

    Args:
      places: of the schedule.
      sentence: without secrets; it may hold names of files and classes.
    """
    line = f"{timestamp(time.time())}  {printable(sentence)}\n"
    with contextlib.suppress(OSError):
        if places.log.is_file() and places.log.stat().st_size + len(line) > MOST:
            os.replace(places.log, places.log.with_name(f"{places.log.name}.1"))
        with open(places.log, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(line)
    with contextlib.suppress(OSError, ValueError):
        print(printable(sentence), flush=True)
