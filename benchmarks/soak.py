"""A simulated year of `graft schedule`, a table of what became of each week, and what must hold at its end.

    python benchmarks/soak.py [--weeks 52] [--seed 1] [--images DIR] [--once] [--keep DIR] [--json FILE]

Real processes run the bundled backbone on weekly spans of images (the demo's digits, or any folder of class folders)
under a clock that jumps from Monday to Monday. What happens in a week follows from the seed: new spans, nothing new,
broken, mislabelled and drifted spans, a new class, SIGKILL and SIGTERM at random moments, a full disk (a small tmpfs,
where it may be mounted: as root on Linux), clocks that are moved, missed weeks, a rollback, a webhook that is gone.
With `--once` each tick is a process, instead of a daemon that ticks by cron. Images of one pool come again and again,
so that accuracies here say nothing but whether a model was trained. Prints a table in Markdown, then the failed checks,
if any, and ends with 1 then. A year takes about 25 minutes on two cores.
"""

import argparse
import collections
import datetime
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from soak_machine import ENDED, Clock, Disk, Gone, Reader, Schedule, Webhook, until
from soak_weeks import TRAINED, WINDOW, Event, Photos, script

MIB = 2**20
# Where a run is killed, and seconds that it may go on after it came there.
MOMENTS = {
    "Ingest images": 1.5,
    "Resize and normalise": 4.0,
    "Train": 4.0,
    "Evaluate": 2.5,
    "Check the served model": 5.5,
    "Publish": 0.02,
    "Write the report": 0.3,
}
FLOOR_SHARE = 0.75  # of the first model's accuracy, which a person sets as the floor of later ones
MOST_DISK_GROWTH = 0.15  # of the second quarter's median, up to the last quarter's
MOST_MEMORY_GROWTH = 0.10  # of the daemon's first third
MOST_MEMORY_MIB = 150
EXIT_CODES = {"published": (0,), "unchanged": (0,), "refused": (4,), "failed": (1, 3)}
HEAD = "week | what happens | wanted | was | version | accuracy | floor | output MiB | runs | versions | daemon MiB"
HEAD += " | metadata KiB | seconds"


@dataclass
class Row:
    """A week.

    Attributes:
      week: from 1.
      event: what happened.
      wanted: regular expression over `got`.
      got: statuses of the week's ticks.
      version: in service at its end.
      accuracy: of that on the test images, when it was published.
      floor: that a person set; None at first.
      output_mib: size of the output folder.
      runs: folders of runs.
      versions: versions in `serving/`.
      daemon_mib: resident size of the daemon; None where there is none.
      daemon: its number.
      metadata_kib: size of metadata.db.
      seconds: real ones.
      ticks: lines of ticks.jsonl.
      moment: where something was killed.
    """

    week: int
    event: str
    wanted: str
    got: str = ""
    version: int | None = None
    accuracy: float | None = None
    floor: float | None = None
    output_mib: float = 0.0
    runs: int = 0
    versions: int = 0
    daemon_mib: float | None = None
    daemon: int | None = None
    metadata_kib: int = 0
    seconds: float = 0.0
    ticks: list[dict[str, Any]] = field(default_factory=list)
    moment: str = ""

    def line(self) -> str:
        def number(value: float | None, digits: int) -> str:
            return "" if value is None else f"{value:.{digits}f}"

        wanted = self.wanted.replace("|", " or ")
        cells = [self.week, f"{self.event}{self.moment}", wanted, self.got, self.version or ""]
        cells += [number(self.accuracy, 3), number(self.floor, 2), number(self.output_mib, 1), self.runs, self.versions]
        cells += [number(self.daemon_mib, 1), self.metadata_kib, number(self.seconds, 0)]
        return "| " + " | ".join(map(str, cells)) + " |"


class Soak:
    """The year, in a folder of its own."""

    def __init__(self, folder: Path, options: argparse.Namespace):
        self.chance = random.Random(f"moments {options.seed}")
        self.rows: list[Row] = []
        self.failures: list[str] = []
        self.clock = Clock(folder / "clock")
        self.disk = Disk(folder / "disk")
        if not self.disk.small:
            print(f"No small disk can be mounted here ({self.disk.why}): weeks with a full disk are ordinary weeks.\n")
        self.photos = Photos(options.images or _digits(folder / "digits"), folder / "photos", options.seed)
        self.photos.folder.mkdir()
        self.webhook = Webhook()
        self.floor: float | None = None
        self.config = folder / "soak.yaml"
        self.configure(self.webhook.url)
        output = self.disk.folder / "out"
        self.schedule = Schedule(
            output, self.photos.pattern, self.config, self.clock, folder / "log.txt", not options.once
        )
        self.serving = output / "serving"
        self.span = 0
        self.reader: Reader | None = None
        self._reader_answers = folder / "reader.jsonl"
        self._keep = options.keep

    def configure(self, webhook: str) -> None:
        """Every tick reads it anew."""
        notices = {"webhook": webhook, "timeout_seconds": 2, "retries": 1}
        schedule = {"retries": 2, "retry_seconds": 1, "min_free_gib": 0.05, "notices": notices}
        settings = {
            "data": {"spans": WINDOW},
            "model": {"backbone": "graft_tiny", "weights": "bundled"},
            "training": {"frozen": {"epochs": 12}, "fine_tune": {"epochs": 2}},
            "evaluation": {"min_accuracy": self.floor},
            "push": {"keep": 3},
            "schedule": schedule | {"retention": {"runs": 6}},
        }
        unfinished = self.config.with_suffix(".part")
        unfinished.write_text(json.dumps(settings, indent=1))
        os.replace(unfinished, self.config)

    def check(self, holds: bool, said: str) -> None:
        """Notes what does not hold."""
        if not holds:
            self.failures.append(said)
            print(f"<!-- FAILED: {said} -->", flush=True)

    # ---- a week ----

    def week(self, number: int, event: Event) -> None:
        began, before = time.monotonic(), self.schedule.ticks()
        in_service = max(self.schedule.versions(), default=None)
        row = Row(number, event.name, self._wanted(event))
        self.rows.append(row)
        if event.name == "class added":
            self.photos.add_class()
        if event.images:
            # As many at first as a run reads: of fewer test images the gate would refuse to judge.
            for _ in range(WINDOW if number == 1 else 1):
                self.span += event.images != "mended"
                self.photos.arrive(self.span, event.images)
        try:
            ACTS.get(event.name, Soak.tick)(self, len(before), row)
        except Gone as gone:
            self.check(False, f"week {number} ({event.name}): {gone}")
        row.ticks = self.schedule.ticks()[len(before) :]
        row.got = " ".join(tick["status"] for tick in row.ticks)
        self._measure(row)
        row.seconds = time.monotonic() - began
        print(row.line(), flush=True)
        self._judge(row, event, in_service)
        if number == 1:
            self._after_the_first()

    def _wanted(self, event: Event) -> str:
        """A week without images does again what was not done, or finds nothing new."""
        if event.images == "mislabelled" and self.floor is None:
            return TRAINED
        if event.wanted is not None and (self.disk.small or not event.name.startswith("full")):
            return event.wanted
        last = next((status for row in reversed(self.rows) for status in reversed(row.got.split())), "")
        if event.images or last not in ("published", "refused", "unchanged"):
            # A tick that the full disk had no room for is recorded now.
            return rf"((failed|killed) )?({TRAINED})"
        if last == "refused":
            return f"{TRAINED}|unchanged" if event.name == "rollback" else "refused"
        return "unchanged"

    def _measure(self, row: Row) -> None:
        output = self.schedule.output
        row.floor = self.floor
        versions = self.schedule.versions()
        row.version, row.versions = max(versions, default=None), len(versions)
        if row.version:
            card = json.loads((self.serving / str(row.version) / "model_card.json").read_text())
            row.accuracy = (card["metrics"] or {}).get("accuracy")
        row.output_mib = sum(map(_size, output.rglob("*"))) / MIB
        row.runs = sum(path.is_dir() and not path.is_symlink() for path in (output / "runs").glob("2*"))
        row.daemon_mib = self.schedule.memory_mib
        row.daemon = self.schedule.process.pid if row.daemon_mib else None
        metadata = output / "metadata.db"
        row.metadata_kib = metadata.stat().st_size // 1024 if metadata.exists() else 0

    def _after_the_first(self) -> None:
        """A reader watches from now on, and a person says what the least is that a model must reach."""
        image = next(path for path in self.photos.folder.rglob("*.jpg"))
        self.reader = Reader(self.serving, image, self._reader_answers)
        if self.rows[0].accuracy:
            self.floor = round(FLOOR_SHARE * self.rows[0].accuracy, 2)
            self.configure(self.webhook.url)

    # ---- what happens in it ----

    def tick(self, before: int, row: Row, weeks: int = 1) -> None:
        """The next Monday that many weeks ahead, at three."""
        self._begin(weeks)
        self._end(before)

    def _begin(self, weeks: int = 1) -> None:
        self.schedule.mark()
        if self.schedule.by_daemon and self.schedule.process is None:
            self.schedule.start()
            time.sleep(5)
        self.clock.to_monday(weeks)
        if not self.schedule.running:
            self.schedule.start()

    def _end(self, before: int) -> None:
        self.schedule.wait_for_tick(before)
        if not self.schedule.by_daemon:
            self.schedule.process.wait(60)

    def _in_mid_run(self, before: int, row: Row) -> None:
        """At a moment that the seed chooses, though not to the millisecond."""
        step = self.chance.choice(sorted(MOMENTS))
        wait = self.chance.uniform(0, MOMENTS[step])
        self._begin()
        reached = self.schedule.wait_for_step(step, before)
        time.sleep(wait)
        row.moment = f" ({step}, {wait:.2f} s later{'' if reached else ', too late'})"

    def kill_supervisor(self, before: int, row: Row) -> None:
        self._in_mid_run(before, row)
        self.schedule.kill()
        until("the end of a run that lost its supervisor", lambda: not self.schedule.others(), seconds=60)
        self._restart(before)

    def kill_both(self, before: int, row: Row) -> None:
        self._in_mid_run(before, row)
        self.schedule.kill()
        self.schedule.kill_attempt()
        self._restart(before)

    def kill_attempt(self, before: int, row: Row) -> None:
        self._in_mid_run(before, row)
        self.schedule.kill_attempt()
        self._end(before)

    def stop(self, before: int, row: Row) -> None:
        self._in_mid_run(before, row)
        self.schedule.stop()
        self.check(not self.schedule.others(), f"week {row.week}: SIGTERM left {self.schedule.others()}")
        self._restart(before)

    def _restart(self, before: int) -> None:
        over = len(self.schedule.ticks()) > before and self.schedule.ticks()[-1]["status"] in ENDED
        if self.schedule.by_daemon or not over:
            self.schedule.start()
            self._end(before)

    def full_before(self, before: int, row: Row) -> None:
        if self.disk.small:
            self.disk.fill(leave=20 * MIB)
        try:
            self.tick(before, row)
        finally:
            self.disk.empty()

    def full_during(self, before: int, row: Row) -> None:
        """Not a byte is left, not even for the line that tells of it, which may come a tick later."""
        self._begin()
        if self.schedule.wait_for_step("Resize and normalise", before) and self.disk.small:
            self.disk.fill(leave=0)
        try:
            until("the end of the tick", lambda: len(self.schedule.ticks()) > before, seconds=150)
            self._end(before)
        except Gone:
            row.moment = " (no line yet)"
        finally:
            self.disk.empty()

    def clock_back(self, before: int, row: Row) -> None:
        self.clock.move(-2 * 86400)
        time.sleep(5 if self.schedule.by_daemon else 0)
        self.tick(before, row, weeks=2)

    def clock_forward(self, before: int, row: Row) -> None:
        self.tick(before, row, weeks=5)
        self._require_missed(before, row, 4)

    def missed(self, before: int, row: Row) -> None:
        self.schedule.stop()
        self.tick(before, row, weeks=4)
        self._require_missed(before, row, 3)

    def _require_missed(self, before: int, row: Row, count: int) -> None:
        if self.schedule.by_daemon:
            noted = sum(tick.get("missed", 0) for tick in self.schedule.ticks()[before:])
            self.check(abs(noted - count) <= 1, f"week {row.week}: {noted} ticks are noted as missed, and {count} were")

    def once(self, before: int, row: Row) -> None:
        self.schedule.stop()
        self.clock.to_monday()
        self.schedule.once()
        if self.schedule.by_daemon:
            self.schedule.start()
            # It may make up for the tick that it did not see.
            time.sleep(5)
        self._end(before)

    def rollback(self, before: int, row: Row) -> None:
        done = self.schedule.command("rollback", str(self.serving))
        enough = len(self.schedule.versions()) > 1
        self.check(done.returncode == 0 or not enough, f"week {row.week}: the rollback failed: {done.stderr}")
        back = max(self.schedule.versions())
        self.tick(before, row)
        statuses = [tick["status"] for tick in self.schedule.ticks()[before:]]
        if statuses == ["unchanged"]:
            self.check(max(self.schedule.versions()) == back, f"week {row.week}: a tick undid the rollback")

    def webhook_gone(self, before: int, row: Row) -> None:
        self.configure("http://127.0.0.1:9/notices")
        self.tick(before, row)
        waiting = len(list((self.schedule.output / "schedule" / "outbox").glob("*.json")))
        self.check(waiting > 0, f"week {row.week}: no notice waits, though the webhook was gone")
        self.configure(self.webhook.url)

    # ---- what must hold after it ----

    def _judge(self, row: Row, event: Event, in_service: int | None) -> None:
        where = f"week {row.week} ({row.event})"
        wanted = re.fullmatch(row.wanted, row.got) is not None
        self.check(
            wanted, f"{where}: ticks are '{row.got}' and not {row.wanted}: {[t.get('error') for t in row.ticks]}"
        )
        for tick in row.ticks:
            codes = EXIT_CODES.get(tick["status"])
            if codes and tick.get("exit_code") not in codes:
                self.check(False, f"{where}: exit code {tick.get('exit_code')} for {tick['status']}")
            if tick["status"] == "published":
                self._judge_publication(where, tick)
        if event.images == "broken":
            codes = [tick.get("exit_code") for tick in row.ticks]
            self.check(codes == [3], f"{where}: the data was to be refused with 3, and the codes are {codes}")
        moved = row.version != in_service
        may = "published" in row.got or event.name.startswith(("kill", "stop", "rollback"))
        self.check(may or not moved, f"{where}: {row.version} came into service instead of {in_service}")
        self.check(in_service is None or (row.version or 0) >= in_service, f"{where}: the version went down")
        self.check(not self.schedule.others(), f"{where}: left over: {self.schedule.others()}")
        if self.schedule.by_daemon:
            self.check(self.schedule.running, f"{where}: the daemon is gone")
            self._judge_status(where, row)
        self._judge_metrics(where)

    def _judge_publication(self, where: str, tick: dict[str, Any]) -> None:
        file = self.schedule.output / "runs" / str(tick.get("run_id")) / "summary.json"
        summary = json.loads(file.read_text()) if file.exists() else {}
        checks = summary.get("gate", {}).get("checks", [])
        bounds = [check for check in checks if check["metric"] == "accuracy_lower_bound"]
        self.check(
            bool(bounds) and all(check["value"] > check["bound"] for check in bounds),
            f"{where}: run {tick.get('run_id')} was published, and its summary does not say that it beat the floor",
        )
        accuracy = ((summary.get("metrics") or {}).get("test") or {}).get("accuracy", 0)
        self.check(self.floor is None or accuracy >= self.floor, f"{where}: published with {accuracy}")

    def _judge_status(self, where: str, row: Row) -> None:
        """The schedule is read back."""
        done = self.schedule.command("schedule", "status", str(self.schedule.output), "--json")
        try:
            told = json.loads(done.stdout)
        except ValueError:
            told = None
        self.check(told is not None, f"{where}: graft schedule status said {done.stdout[-200:]} {done.stderr[-300:]}")
        self.check(row.version is None or str(row.version) in done.stdout, f"{where}: the status names another version")
        if told and told.get("next_tick"):
            due, wanted = datetime.datetime.fromisoformat(told["next_tick"]), self.clock.monday()
            self.check(due == wanted, f"{where}: the next tick is {due}, and should be {wanted}")

    def _judge_metrics(self, where: str) -> None:
        counted = dict(collections.Counter(tick["status"] for row in self.rows for tick in row.ticks))
        # The line comes first.
        late = time.monotonic() + 10
        while (told := self._told_by_metrics()) != counted and time.monotonic() < late:
            time.sleep(0.1)
        self.check(told == counted, f"{where}: the metrics count {told}, and ticks.jsonl {counted}")

    def _told_by_metrics(self) -> dict[str, float]:
        """Ticks by status; none where there is no file."""
        file = self.schedule.output / "schedule" / "metrics.prom"
        families = text_string_to_metric_families(file.read_text()) if file.exists() else ()
        samples = [sample for family in families for sample in family.samples]
        counts = [each for each in samples if each.name == "graft_ticks_total"]
        return {sample.labels["status"]: sample.value for sample in counts if sample.value}

    # ---- at the end ----

    def finish(self) -> dict[str, Any]:
        """Stops everything; returns the totals."""
        self.schedule.stop()
        self.check(not self.schedule.others(), f"at the end: left over: {self.schedule.others()}")
        lines = self.schedule.ticks()
        seen = [tick for row in self.rows for tick in row.ticks]
        self.check(lines == seen, f"ticks.jsonl has {len(lines)} lines at the end, and {len(seen)} were seen")
        dues = [tick["due"] for tick in lines if tick.get("due") and tick["status"] in ENDED]
        twice = [due for due, count in collections.Counter(dues).items() if count > 1]
        self.check(not twice, f"more than one tick came to an end for {twice}")
        totals = {
            "statuses": dict(collections.Counter(tick["status"] for tick in lines)),
            "published": sum(tick["status"] == "published" for tick in lines),
            "executions": self._executions(),
            "versions": self._read(),
            "disk": self._flat([row.output_mib for row in self.rows], MOST_DISK_GROWTH, "the output folder"),
            "memory": self._memory(),
            "notices": dict(collections.Counter(str(notice.get("event")) for notice in self.webhook.notices)),
        }
        trained = [row for row in self.rows if row.wanted == TRAINED]
        published = sum("published" in row.got for row in trained)
        self.check(2 * published >= len(trained), f"only {published} of {len(trained)} good weeks were published")
        return totals

    def _executions(self) -> dict[str, int]:
        """ML Metadata reads every execution, and SQLite finds nothing wrong."""
        done = subprocess.run(
            [sys.executable, "-c", LIST_EXECUTIONS, str(self.schedule.output / "metadata.db")],
            capture_output=True,
            text=True,
        )
        self.check(done.returncode == 0, f"the metadata store does not open: {done.stderr[-500:]}")
        return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {}

    def _read(self) -> dict[str, int]:
        """Every version that was in service was loaded and asked; those that are kept are once more."""
        wanted = {row.version for row in self.rows if row.version}
        wanted |= {int(tick["version"]) for row in self.rows for tick in row.ticks if tick.get("version")}
        answers = self.reader.read() if self.reader else []
        if self.reader:
            self.reader.close()
        again = self._reader_answers.with_name("again.jsonl")
        fresh = Reader(self.serving, next(self.photos.folder.rglob("*.jpg")), again)
        kept = set(self.schedule.versions())
        until("the kept versions", lambda: {row["version"] for row in fresh.read()} >= kept)
        fresh.close()
        bad = [row for row in answers + fresh.read() if "error" in row]
        self.check(not bad, f"versions that a reader could not use: {bad}")
        loaded = {row["version"] for row in answers}
        self.check(loaded >= wanted, f"versions that no reader saw: {sorted(wanted - loaded)}")
        return {"in service": len(wanted), "loaded": len(loaded), "kept": len(kept)}

    def _memory(self) -> dict[str, Any] | None:
        # One that was just started again is not whole yet.
        sizes = [row.daemon_mib for row in self.rows if row.daemon_mib and not row.event.startswith(("kill", "stop"))]
        if len(sizes) < 6:
            return None
        third = len(sizes) // 3
        first, last = statistics.mean(sizes[:third]), statistics.mean(sizes[-third:])
        self.check(last <= first * (1 + MOST_MEMORY_GROWTH), f"the daemon grew from {first:.1f} to {last:.1f} MiB")
        self.check(max(sizes) <= MOST_MEMORY_MIB, f"the daemon took {max(sizes):.0f} MiB")
        return {"first third": round(first, 1), "last third": round(last, 1), "most": round(max(sizes), 1)}

    def _flat(self, sizes: list[float], most: float, what: str) -> dict[str, float] | None:
        """The last quarter against the second, by when retention removes as much as comes.

        Medians, as how much lies there goes up and down with what the last weeks were.
        """
        quarter = len(sizes) // 4
        if quarter < 5:
            return None
        second, last = statistics.median(sizes[quarter : 2 * quarter]), statistics.median(sizes[-quarter:])
        growth = last / second - 1
        self.check(growth <= most, f"{what} grew by {growth:.0%} from the second quarter to the last")
        return {"second quarter": round(second, 1), "last quarter": round(last, 1), "most": round(max(sizes), 1)}

    def close(self) -> None:
        self.schedule.kill()
        self.schedule.kill_attempt()
        if self.reader and self.reader.process.poll() is None:
            self.reader.process.kill()
        if self._keep and self.disk.small:
            shutil.copytree(self.schedule.output, self._keep / "out", symlinks=True)
        self.disk.close()


ACTS = {
    "kill supervisor": Soak.kill_supervisor,
    "kill attempt": Soak.kill_attempt,
    "kill both": Soak.kill_both,
    "stop": Soak.stop,
    "full before": Soak.full_before,
    "full during": Soak.full_during,
    "clock back": Soak.clock_back,
    "clock forward": Soak.clock_forward,
    "missed": Soak.missed,
    "once": Soak.once,
    "rollback": Soak.rollback,
    "webhook gone": Soak.webhook_gone,
}
LIST_EXECUTIONS = """
import collections, json, sqlite3, sys
from ml_metadata.metadata_store import metadata_store
from ml_metadata.proto import metadata_store_pb2 as mlmd

assert sqlite3.connect(sys.argv[1]).execute("PRAGMA integrity_check").fetchall() == [("ok",)]
config = mlmd.ConnectionConfig()
config.sqlite.filename_uri = sys.argv[1]
config.sqlite.connection_mode = mlmd.SqliteMetadataSourceConfig.READONLY
store = metadata_store.MetadataStore(config)
store.get_artifacts()
states = collections.Counter(mlmd.Execution.State.Name(one.last_known_state) for one in store.get_executions())
print(json.dumps(states))
"""


def _digits(folder: Path) -> Path:
    from pipeline.demo import write_digits

    write_digits(folder)
    return folder


def _size(path: Path) -> int:
    """Bytes of a file; none of a link, a folder, or what is gone by now, as a notice that was delivered."""
    try:
        return path.lstat().st_size if path.is_file() and not path.is_symlink() else 0
    except FileNotFoundError:
        return 0


def run(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The whole year; returns everything that was measured."""
    began = time.monotonic()
    soak = Soak(folder, options)
    try:
        print(f"| {HEAD} |\n|{' --- |' * (HEAD.count('|') + 1)}", flush=True)
        for number, event in enumerate(script(options.weeks, options.seed), 1):
            soak.week(number, event)
        totals = soak.finish()
    finally:
        soak.close()
    return {
        "seed": options.seed,
        "images": options.images and str(options.images),
        "small_disk": soak.disk.small,
        "minutes": round((time.monotonic() - began) / 60, 1),
        "totals": totals,
        "failures": soak.failures,
        "weeks": [asdict(row) for row in soak.rows],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weeks", type=int, default=52, help="length of the year")
    parser.add_argument("--seed", type=int, default=1, help="of what happens, when, and which images arrive")
    parser.add_argument("--images", type=Path, help="class folders to draw from instead of the demo's digits")
    parser.add_argument("--once", action="store_true", help="a process a tick, instead of a daemon")
    parser.add_argument("--keep", type=Path, help="new folder that everything stays in")
    parser.add_argument("--json", type=Path, help="file for every number")
    options = parser.parse_args()
    # Processes and the small disk go also when somebody ends the soak.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if options.keep:
        options.keep.mkdir(parents=True)
        found = run(options.keep.absolute(), options)
    else:
        with tempfile.TemporaryDirectory() as folder:
            found = run(Path(folder), options)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    print(f"\n{len(found['weeks'])} weeks in {found['minutes']} minutes, seed {found['seed']}:")
    for name, value in found["totals"].items():
        print(f"* {name}: {value}")
    print("".join(f"\nFAILED: {said}" for said in found["failures"]) or "\nEverything held.")
    sys.exit(bool(found["failures"]))


if __name__ == "__main__":
    main()
