"""Totals over all ticks that ever were: `schedule/counters.json`.

They are not what `runs/ticks.jsonl` holds, from which old lines are removed. Counted is that file, from the line after
the one that was counted last, so that a process that was killed between the two writes leaves nothing out and counts
nothing twice.
"""

import contextlib
import datetime
import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from components.files import write_whole
from pipeline.schedule.places import Places
from pipeline.schedule.ticks import FAILED, PUBLISHED, REFUSED, UNCHANGED, Tick, parsed


@dataclass(frozen=True)
class Counters:
    """What is known without the lines that are gone.

    Attributes:
      counted: bytes of `runs/ticks.jsonl` that are in the totals.
      line: the last line of them, by which it is found again after old lines were removed.
      ticks: number of ticks by status.
      attempts: number of times that a tick tried to run the pipeline.
      missed: number of ticks that nobody was there for.
      failures: failed ticks in a row, up to now.
      last_tick: when the newest tick began, in Unix seconds; None before the first.
      next_tick: when the next one is due, in Unix seconds; None where nobody said.
    """

    counted: int = 0
    line: str = ""
    ticks: dict[str, int] = field(default_factory=dict)
    attempts: int = 0
    missed: int = 0
    failures: int = 0
    last_tick: float | None = None
    next_tick: float | None = None

    def keep(self, places: Places) -> None:
        """Writes them, whole or not at all."""
        write_whole(places.counters, json.dumps(asdict(self), indent=1) + "\n")


def count(places: Places) -> Counters:
    """The totals up to this moment; nothing is written.

    Where the file is damaged or gone, they begin anew with the lines that there are.
    """
    totals = _kept(places)
    try:
        new, start = _new_lines(places, totals)
    except OSError:
        return totals
    # The rest, if any, is a line that is being written, or that a full disk cut short.
    whole = new[: new.rfind(b"\n") + 1]
    if not whole:
        return totals
    lines = whole.decode(errors="replace").splitlines(keepends=True)
    for tick in filter(None, map(parsed, lines)):
        if _is_of_a_schedule(tick):
            totals = _with(totals, tick)
    return replace(totals, counted=start + len(whole), line=lines[-1])


def _kept(places: Places) -> Counters:
    with contextlib.suppress(OSError, ValueError, TypeError):
        kept: dict[str, Any] = json.loads(places.counters.read_text())
        totals = Counters(**{name: kept[name] for name in Counters.__dataclass_fields__ if name in kept})
        if _is_sound(totals):
            return totals
    return Counters()


def _is_sound(totals: Counters) -> bool:
    """Whether each field is what it should be."""
    counts = (totals.counted, totals.attempts, totals.missed, totals.failures)
    times = (totals.last_tick, totals.next_tick)
    return (
        isinstance(totals.line, str)
        and isinstance(totals.ticks, dict)
        and all(isinstance(count, int) and count >= 0 for count in (*counts, *totals.ticks.values()))
        and all(moment is None or isinstance(moment, int | float) for moment in times)
        and totals.counted >= len(totals.line.encode())
    )


def _new_lines(places: Places, totals: Counters) -> tuple[bytes, int]:
    """What comes after the line that was counted last, and where in the file that begins."""
    line = totals.line.encode()
    with open(places.output.ticks, "rb") as file:
        file.seek(totals.counted - len(line))
        tail = file.read()
        if tail.startswith(line):
            return tail[len(line) :], totals.counted
        file.seek(0)
        content = file.read()
    # Old lines were removed, this one perhaps among them.
    at = content.rfind(line)
    start = at + len(line) if at >= 0 else 0
    return content[start:], start


def _is_of_a_schedule(tick: Tick) -> bool:
    """Whether it says more than the line that `graft run` leaves when it has nothing to do."""
    return tick != Tick(tick.time, tick.status, tick.run_id)


def _with(totals: Counters, tick: Tick) -> Counters:
    began = totals.last_tick
    with contextlib.suppress(ValueError, TypeError):
        began = datetime.datetime.fromisoformat(tick.time).timestamp()
    if tick.failures is not None:
        failures = tick.failures
    else:
        ended = tick.status in (PUBLISHED, REFUSED, UNCHANGED)
        failures = 0 if ended else totals.failures + (tick.status == FAILED)
    return replace(
        totals,
        ticks=totals.ticks | {tick.status: totals.ticks.get(tick.status, 0) + 1},
        attempts=totals.attempts + (tick.attempts or 0),
        missed=totals.missed + (tick.missed or 0),
        failures=failures,
        last_tick=began,
    )
