"""One tick, supervised: attempts, what they ended with, and the line that is left of it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
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
from pipeline.schedule.ticks import FAILED, SKIPPED, STOPPED, Tick, failures_in_a_row, read_ticks

BUSY = OutputBusy.exit_code


def run_tick(
    plan: Plan, output: Output, due: str | None = None, missed: int = 0, stop: threading.Event | None = None
) -> Tick:
    """Runs the pipeline once, in a process of its own, and records what became of it.

    Args:
      plan: what is run.
      output: prepared, as `Places` are.
      due: when the tick was due; None for one that was asked for by hand.
      missed: ticks that were due while nobody ran, and are made up for by it.
      stop: ends it when it is set; it is recorded as `stopped`.
    """
    places, began = Places(output), time.time()
    write_whole(places.ticking, json.dumps({"time": timestamp(began), "due": due}))
    answer = _attempt(plan, places, stop or threading.Event())
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
        missed=missed or None,
        failures=before + 1 if status == FAILED else before if status in (SKIPPED, STOPPED) else 0,
    )
    tick.record(output)
    places.ticking.unlink(missing_ok=True)
    return tick


def _attempt(plan: Plan, places: Places, stop: threading.Event) -> Answer:
    """One process; it ends when this one does, as it reads from a pipe that closes then."""
    request = {"output": str(places.output.root)} | {
        key: value for key, value in asdict(plan).items() if key in ("images", "config", "overrides")
    }
    answer = places.folder / "answer.json"
    answer.unlink(missing_ok=True)
    # `-P`: what happens to lie in the current folder must not stand in for a package.
    command = [sys.executable, "-P", "-m", "pipeline.schedule.attempt", json.dumps(request), str(answer)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    while child.poll() is None and not stop.is_set():
        stop.wait(0.1)
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        return Answer(STOPPED, 1, error="The run was stopped; the next tick goes on with it.")
    return _read_answer(answer, child.returncode)


def _read_answer(path: Path, code: int) -> Answer:
    try:
        said: dict[str, Any] = json.loads(path.read_text())
        return Answer(**said | {"drift": tuple(said["drift"])})
    except (OSError, ValueError, TypeError, KeyError):
        how = f"was ended by signal {-code}" if code < 0 else f"ended with {code} without a word"
        return Answer(FAILED, 1, error=f"The run {how}.", may_pass=True)
