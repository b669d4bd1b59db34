"""Moves the wall clock of every Python process that is started with this folder in PYTHONPATH.

The environment variable `GRAFT_TEST_CLOCK` names a file that holds how many seconds to add; it is read again and again,
so that a clock can be moved while a process runs, as an operator or a time server does. Monotonic clocks, the times of
files and what is written in C++ (ML Metadata) go on as they were.
"""

import contextlib
import os
import threading
import time

_file = os.environ.get("GRAFT_TEST_CLOCK")


def _offset() -> float:
    with contextlib.suppress(OSError, ValueError), open(_file) as file:
        return float(file.read())
    return 0.0


def _follow(traveller, real_time, moved: float) -> None:
    while True:
        time.sleep(0.05)
        wanted = _offset()
        if wanted != moved:
            moved = wanted
            traveller.move_to(real_time() + moved)


if _file:
    import time_machine

    _moved = _offset()
    _travel = time_machine.travel(time.time() + _moved, tick=True)
    _traveller = _travel.start()
    # `time_machine` keeps the real clock for itself while the other travels.
    from time_machine import escape_hatch

    threading.Thread(target=_follow, args=(_traveller, escape_hatch.time.time, _moved), daemon=True).start()
