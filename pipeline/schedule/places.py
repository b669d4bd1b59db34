"""Where a schedule keeps what it has to remember: `schedule/` in the output folder."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.output import Output


@dataclass(frozen=True)
class Places:
    """Paths under `OUTPUT/schedule`."""

    output: Output

    @property
    def folder(self) -> Path:
        return self.output.root / "schedule"

    @property
    def lock(self) -> Path:
        """Held by the process that keeps the schedule, or by `--once`."""
        return self.folder / ".lock"

    @property
    def plan(self) -> Path:
        """What was asked for: expression, zone, images, configuration (JSON)."""
        return self.folder / "schedule.json"

    @property
    def store(self) -> Path:
        """APScheduler's jobs (SQLite)."""
        return self.folder / "jobs.sqlite"

    @property
    def ticking(self) -> Path:
        """The tick that is going on; found at a start, it is one that was cut short (JSON)."""
        return self.folder / "tick.json"

    @property
    def looked(self) -> Path:
        """Images that were looked at for drift and not trained on, as none was found (JSON)."""
        return self.folder / "drift.json"

    @property
    def outbox(self) -> Path:
        """Notices that were not delivered yet, a JSON file each."""
        return self.folder / "outbox"

    @property
    def told(self) -> Path:
        """Where notices went when the configuration could be read last (JSON), for when it cannot."""
        return self.folder / "notices.json"

    @property
    def answer(self) -> Path:
        """How an attempt ended (JSON)."""
        return self.folder / "answer.json"

    @property
    def metrics(self) -> Path:
        """Prometheus' text format."""
        return self.folder / "metrics.prom"

    @property
    def counters(self) -> Path:
        """Totals over all ticks, whatever is left of their lines (JSON)."""
        return self.folder / "counters.json"

    @property
    def log(self) -> Path:
        """What the schedule did, a line each."""
        return self.folder / "log.txt"

    def prepare(self) -> None:
        """Makes the folders; the output folder is prepared."""
        self.outbox.mkdir(parents=True, exist_ok=True)
