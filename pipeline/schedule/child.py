"""One attempt as the supervisor sees it: a process that is waited for, and ended with everything that it started."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from typing import Any

from pipeline.schedule.attempt import GRACE, Answer
from pipeline.schedule.places import Places
from pipeline.schedule.plan import Plan
from pipeline.schedule.ticks import FAILED, STOPPED

LOOK = 0.1  # seconds between two looks at a process


def attempt(plan: Plan, places: Places, hours: float | None, stop: threading.Event) -> Answer:
    """Runs the pipeline once, in a process of its own; when this returns nothing of it is left.

    Args:
      plan: what is run.
      places: prepared.
      hours: after which it is ended; by a clock that nobody moves. None for any time.
      stop: ends it when it is set; the answer's status is `stopped` then.
    """
    request = {"output": str(places.output.root)} | {
        key: value for key, value in asdict(plan).items() if key in ("images", "config", "overrides")
    }
    places.answer.unlink(missing_ok=True)
    # `-P`: what happens to lie in the current folder must not stand in for a package.
    command = [sys.executable, "-P", "-m", "pipeline.schedule.attempt", json.dumps(request), str(places.answer)]
    # It reads from a pipe that is closed when this process ends, however that happens.
    child = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    try:
        late = time.monotonic() + hours * 3600 if hours is not None else float("inf")
        while child.poll() is None and not stop.is_set() and time.monotonic() < late:
            stop.wait(LOOK)
        if child.poll() is not None:
            return _read_answer(places, child.returncode)
        _end(child)
        # One that came to its end in the same moment is what it says.
        if places.answer.is_file() and (said := _read_answer(places, child.returncode)).status != STOPPED:
            return said
        if stop.is_set():
            return Answer(STOPPED, 1, error="The run was stopped; the next tick goes on with it.")
        error = f"The run took longer than schedule.max_hours ({hours:g}) and was ended; the next tick goes on with it."
        return Answer(FAILED, 1, error=error)
    finally:
        _end(child)
        child.stdin.close()


def _end(child: subprocess.Popen) -> None:
    """Lets the process write its summary, if there is time for it; then ends whatever is left of its session."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        if child.poll() is None:
            # It alone: worker processes that ended at the same time would look like the cause.
            child.terminate()
            child.wait(GRACE)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _read_answer(places: Places, code: int) -> Answer:
    try:
        said: dict[str, Any] = json.loads(places.answer.read_text())
        return Answer(**said | {"drift": tuple(said["drift"])})
    except (OSError, ValueError, TypeError, KeyError):
        how = f"was ended by signal {-code}{_killer(-code)}" if code < 0 else f"ended with {code} without a word"
        return Answer(FAILED, 1, error=f"The run {how}.", may_pass=True)


def _killer(number: int) -> str:
    return ", as the system does when memory runs out" if number == signal.SIGKILL else ""
