"""One tick, supervised: attempts, what they ended with, and the line that is left of it."""

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from components.errors import OutputBusy
from components.files import write_whole
from components.run_summary import timestamp
from pipeline.output import Output
from pipeline.schedule.attempt import Answer
from pipeline.schedule.places import Places
from pipeline.schedule.plan import Plan
from pipeline.schedule.ticks import FAILED, SKIPPED, Tick, failures_in_a_row, read_ticks

BUSY = OutputBusy.exit_code


def run_tick(plan: Plan, output: Output, due: str | None = None) -> Tick:
    """Runs the pipeline once, in a process of its own, and records what became of it.

    Args:
      plan: what is run.
      output: prepared, as `Places` are.
      due: when the tick was due; None for one that was asked for by hand.
    """
    places, began = Places(output), time.time()
    write_whole(places.ticking, json.dumps({"time": timestamp(began), "due": due}))
    answer = _attempt(plan, places)
    status = SKIPPED if answer.exit_code == BUSY else answer.status
    before = failures_in_a_row(read_ticks(output))
    tick = Tick(
        time=timestamp(began),
        status=status,
        run_id=answer.run_id,
        due=due,
        why=answer.why,
        exit_code=answer.exit_code,
        error=answer.error,
        attempts=1,
        seconds=round(time.time() - began, 1),
        version=answer.version,
        failures=before + 1 if status == FAILED else before if status == SKIPPED else 0,
    )
    tick.record(output)
    places.ticking.unlink(missing_ok=True)
    return tick


def _attempt(plan: Plan, places: Places) -> Answer:
    """One process; it ends when this one does, as it reads from a pipe that closes then."""
    request = {"output": str(places.output.root)} | {
        key: value for key, value in asdict(plan).items() if key in ("images", "config", "overrides")
    }
    answer = places.folder / "answer.json"
    answer.unlink(missing_ok=True)
    # `-P`: what happens to lie in the current folder must not stand in for a package.
    command = [sys.executable, "-P", "-m", "pipeline.schedule.attempt", json.dumps(request), str(answer)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    code = child.wait()
    return _read_answer(answer, code)


def _read_answer(path: Path, code: int) -> Answer:
    try:
        said: dict[str, Any] = json.loads(path.read_text())
        return Answer(**said | {"drift": tuple(said["drift"])})
    except (OSError, ValueError, TypeError, KeyError):
        how = f"was ended by signal {-code}" if code < 0 else f"ended with {code} without a word"
        return Answer(FAILED, 1, error=f"The run {how}.", may_pass=True)


@contextlib.contextmanager
def kept(places: Places) -> Iterator[None]:
    """Holds the schedule for this process; the system lets go of it however the process ends.

    Raises:
      OutputBusy: another process keeps it; its id is named.
    """
    with open(places.lock, "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            raise OutputBusy(
                f"Another process ({holder}) keeps the schedule of {places.output.root}; stop it, or give another "
                "--output."
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
