"""Moves the wall clock of every Python process that is started with this folder in PYTHONPATH.

The environment variable `GRAFT_TEST_CLOCK` names a file that holds how many seconds to add; it is read again and again,
so that a clock can be moved while a process runs, as an operator or a time server does. Monotonic clocks, the times of
files and what is written in C++ (ML Metadata) go on as they were. So does gRPC, which takes deadlines by the wall clock
in Python and waits for them in C++: TFX's small server for each step would wait for as long as the clock was moved.
"""

import contextlib
import os
import sys
import threading
import time

_GRPC = ("grpc._cython.cygrpc", "grpc._channel")
_file = os.environ.get("GRAFT_TEST_CLOCK")


def _offset() -> float:
    with contextlib.suppress(OSError, ValueError), open(_file) as file:
        return float(file.read())
    return 0.0


class _RealTime:
    """Stands for the module `time` where deadlines are for C++."""

    def __init__(self, real_time):
        self.time = real_time

    def __getattr__(self, name: str):
        return getattr(time, name)


def _follow(traveller, real_time, moved: float) -> None:
    real = _RealTime(real_time)
    while True:
        time.sleep(0.05)
        for name in _GRPC:
            # Seconds pass between the import and the first use.
            if getattr(sys.modules.get(name), "time", real) is not real:
                sys.modules[name].time = real
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
