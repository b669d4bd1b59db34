"""`runs/ticks.jsonl`: a line for each tick of a schedule, and for each `graft run` that had nothing to do."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.output import Output

PUBLISHED, REFUSED, UNCHANGED, FAILED = "published", "refused", "unchanged", "failed"
# Nothing was run, as another run was going on; the process that supervised was stopped, or killed, in mid-run.
SKIPPED, STOPPED, KILLED = "skipped", "stopped", "killed"


@dataclass(frozen=True)
class Tick:
    """What became of one tick. Fields without a value are left out of the file.

    Attributes:
      time: when it began, as in `summary.json`.
      status: one of the words above.
      run_id: of its last attempt, or of the run that stands for it; None where there was none.
      due: when it was due; None where it was asked for by hand (`--once`), or `graft run` left the line.
      why: why it trained, or did not, in a few words.
      exit_code: what `--once` ends with.
      error: the sentence of what failed.
      attempts: how often it was tried.
      seconds: how long it took.
      version: number of the version that it published.
      failures: failed ticks in a row, this one included; 0 after one that did not fail.
      missed: ticks that were due while nobody ran, and are made up for by it; a late one counts itself.
      events: what happened that people may want to know (docs/notices.md).
    """

    time: str
    status: str
    run_id: str | None = None
    due: str | None = None
    why: str | None = None
    exit_code: int | None = None
    error: str | None = None
    attempts: int | None = None
    seconds: float | None = None
    version: str | None = None
    failures: int | None = None
    missed: int | None = None
    events: list[str] = field(default_factory=list)

    def record(self, output: Output) -> None:
        """Appends it to the file."""
        output.record_tick({name: value for name, value in asdict(self).items() if value not in (None, [])})


def read_ticks(output: Output) -> list[Tick]:
    """Every line that can be read, oldest first; a line that a crash cut short is passed over."""
    try:
        lines = output.ticks.read_text(errors="replace").splitlines()
    except OSError:
        return []
    return [tick for line in lines if (tick := parsed(line)) is not None]


def parsed(line: str) -> Tick | None:
    """One line; None where it cannot be read."""
    try:
        row: dict[str, Any] = json.loads(line)
        # An older or newer release may have written other fields.
        tick = Tick(**{name: value for name, value in row.items() if name in Tick.__dataclass_fields__})
    except (ValueError, TypeError, AttributeError):
        return None
    return tick if is_sound(tick) else None


def is_sound(tick: Tick) -> bool:
    """Whether each field is what it should be: anybody may have written to the file."""
    texts = (tick.run_id, tick.due, tick.why, tick.error, tick.version)
    numbers = (tick.exit_code, tick.attempts, tick.seconds, tick.failures, tick.missed)
    return (
        all(isinstance(text, str) for text in (tick.time, tick.status))
        and all(text is None or isinstance(text, str) for text in texts)
        and all(number is None or isinstance(number, int | float) for number in numbers)
        and isinstance(tick.events, list)
    )


def failures_in_a_row(ticks: list[Tick]) -> int:
    """How many ticks failed since one did not; what was skipped, or cut short from outside, counts neither way."""
    count = 0
    for tick in reversed(ticks):
        if tick.status == FAILED:
            count += 1
        elif tick.status in (PUBLISHED, REFUSED, UNCHANGED):
            break
    return count
