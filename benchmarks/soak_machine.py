"""The machine of the soak: processes of Graft, their clock, a small disk, a webhook, a reader of what is served."""

import contextlib
import datetime
import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

ROOT = Path(__file__).resolve().parents[1]
ZONE, CRON = "Europe/Paris", "0 3 * * 1"
DISK_MIB = 1024
PATIENCE = 300.0  # seconds that anything may take
# The last status of a tick that came to an end.
ENDED = ("published", "refused", "unchanged", "failed", "skipped")


class Gone(Exception):
    """What was waited for did not come."""


def until(said: str, found: Callable[[], Any], seconds: float = PATIENCE, every: float = 0.1) -> Any:
    """What `found` gives as soon as that is true."""
    end = time.monotonic() + seconds
    while not (there := found()):
        if time.monotonic() > end:
            raise Gone(f"{said} did not come within {seconds:.0f} s")
        time.sleep(every)
    return there


class Clock:
    """Wall clock of the processes of Graft, moved by tests/clock."""

    def __init__(self, file: Path):
        self.file, self._moved = file, 0.0
        self.move(0.0)

    def now(self) -> float:
        return time.time() + self._moved

    def move(self, seconds: float) -> None:
        """Whole at once: a reader that finds an empty file would take it for the real time."""
        self._moved += seconds
        unfinished = self.file.with_suffix(".part")
        unfinished.write_text(repr(self._moved))
        os.replace(unfinished, self.file)

    def monday(self, weeks: int = 1) -> datetime.datetime:
        """When the tick of that many weeks from now is due, as people in Paris read the clock."""
        here = datetime.datetime.fromtimestamp(self.now(), ZoneInfo(ZONE))
        day = here.date() - datetime.timedelta(days=here.weekday())
        due = datetime.datetime.combine(day, datetime.time(3), ZoneInfo(ZONE))
        # Days are added to what the clock shows, so that it shows three in summer, too.
        return due + datetime.timedelta(days=7 * (weeks - (due > here)))

    def to_monday(self, weeks: int = 1) -> None:
        """Two seconds after that."""
        self.move(self.monday(weeks).timestamp() + 2 - self.now())


class Disk:
    """A file system of its own for the output folder, where the machine allows it."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(folder)]
        said = subprocess.run(mount, capture_output=True, text=True)
        self.small = said.returncode == 0
        self.why = said.stderr.strip()
        self._ballast = folder / "ballast"

    def fill(self, leave: int) -> None:
        """Leaves so many bytes free."""
        with open(self._ballast, "wb") as file:
            size = 0
            # A run writes meanwhile, and what does not fit altogether is not taken at all.
            for _ in range(100):
                if (more := self._free() - leave) <= 0:
                    return
                with contextlib.suppress(OSError):
                    os.posix_fallocate(file.fileno(), size, more)
                    size += more

    def _free(self) -> int:
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize

    def empty(self) -> None:
        self._ballast.unlink(missing_ok=True)

    def close(self) -> None:
        if self.small:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=False)


class Webhook:
    """Takes notices while it is open."""

    def __init__(self):
        self.notices: list[dict[str, Any]] = []
        notices = self.notices

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                with contextlib.suppress(ValueError):
                    notices.append(json.loads(body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/notices"


class Reader:
    """A process with TensorFlow alone that loads each version as soon as it appears, and asks it."""

    def __init__(self, serving: Path, image: Path, answers: Path):
        self.answers = answers
        command = [sys.executable, __file__, str(serving), str(image), str(answers)]
        # What TensorFlow says of processors is no part of the table.
        self.process = subprocess.Popen(command, cwd="/", stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def read(self) -> list[dict[str, Any]]:
        if not self.answers.exists():
            return []
        return [json.loads(line) for line in self.answers.read_text().splitlines(keepends=True) if line[-1] == "\n"]

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(60)


class Schedule:
    """`graft schedule` on one output folder."""

    def __init__(self, output: Path, images: str, config: Path, clock: Clock, log: Path, by_daemon: bool):
        self.output, self.by_daemon = output, by_daemon
        self._log = log
        options = ["--images", images, "--output", str(output), "--config", str(config)]
        self._command = [sys.executable, "-m", "pipeline", "schedule", "run", *options]
        path = [str(ROOT / "tests" / "clock"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(path),
            "GRAFT_TEST_CLOCK": str(clock.file),
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        self.process: subprocess.Popen | None = None
        self._before: set[Path] = set()

    # ---- processes ----

    def start(self) -> None:
        """The daemon, or a tick by `--once` where there is none."""
        more = ["--cron", CRON, "--time-zone", ZONE] if self.by_daemon else ["--once"]
        self.process = self._start([*self._command, *more])

    def once(self) -> None:
        """A tick without the daemon, which is stopped before."""
        self._start([*self._command, "--once"]).wait(PATIENCE)

    def command(self, *arguments: str) -> subprocess.CompletedProcess:
        """Another command, at the simulated time."""
        command = [sys.executable, "-m", "pipeline", *arguments]
        return subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=PATIENCE)

    def _start(self, command: list[str]) -> subprocess.Popen:
        with open(self._log, "a") as log:
            return subprocess.Popen(command, env=self._environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def stop(self) -> None:
        """As systemd does."""
        if self.running:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(PATIENCE)

    def kill(self) -> None:
        if self.running:
            self.process.kill()
            self.process.wait()

    def kill_attempt(self) -> None:
        for number, words in processes(str(self.output)):
            if "pipeline.schedule.attempt" in words:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)

    @property
    def memory_mib(self) -> float | None:
        """Resident size of the daemon."""
        if not (self.running and self.by_daemon):
            return None
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())
        return int(found[1]) / 1024 if found else None

    def others(self) -> list[str]:
        """What runs on this output folder and is not the daemon."""
        own = self.process.pid if self.running else None
        return [words for number, words in processes(str(self.output)) if number != own]

    # ---- what it left ----

    def ticks(self) -> list[dict[str, Any]]:
        """Of the schedule, oldest first."""
        file = self.output / "runs" / "ticks.jsonl"
        lines = file.read_text().splitlines(keepends=True) if file.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def mark(self) -> None:
        """From now on `wait_for_step` looks at runs that are not there yet."""
        self._before = self._runs()

    def _runs(self) -> set[Path]:
        return {path for path in (self.output / "runs").glob("2*") if path.is_dir() and not path.is_symlink()}

    def _step(self) -> str | None:
        """That the newest run is in."""
        newest = max(self._runs() - self._before, default=None)
        if newest is None or (newest / "summary.json").exists():
            return None
        with contextlib.suppress(OSError, ValueError):
            return json.loads((newest / "steps.json").read_text())["step"]
        return None

    def wait_for_step(self, step: str, ticks: int) -> bool:
        """Whether a run came to that step; not where the tick was over before."""
        until(step, lambda: self._step() == step or len(self.ticks()) > ticks, every=0.003)
        return len(self.ticks()) == ticks

    def wait_for_tick(self, ticks: int) -> None:
        """Until there are more lines than that, the last of a tick that came to an end, and nothing goes on."""

        def over() -> bool:
            lines = self.ticks()
            if len(lines) <= ticks or lines[-1]["status"] not in ENDED:
                return False
            return not (self.output / "schedule" / "tick.json").exists() and not self.others()

        until("the end of a tick", over)

    def versions(self) -> list[int]:
        """In `serving/`, oldest first."""
        return sorted(int(path.name) for path in (self.output / "serving").glob("[1-9]*") if path.name.isdecimal())


def processes(word: str) -> list[tuple[int, str]]:
    """Number and command line of those of Graft that have the word in it; those of the soak itself are left out."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if word in words and " pipeline" in words and "benchmarks/soak" not in words:
                found.append((int(entry.name), words))
    return found


# ---- the reader's process -------------------------------------------------------------------------------------------


def read_versions(serving: Path, image: Path, answers: Path) -> None:
    """Loads whatever appears, until the standard input ends."""
    import tensorflow as tf

    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    seen: set[str] = set()
    content = image.read_bytes()
    while not ended.wait(0.2):
        found = {path.name for path in serving.glob("[0-9]*")} if serving.is_dir() else set()
        for name in sorted(found - seen):
            seen.add(name)
            row: dict[str, Any] = {"version": int(name)}
            try:
                model = tf.saved_model.load(str(serving / name))
                said = model.signatures["serving_default"](tf.constant([content]))
                row |= {"label": said["label"].numpy()[0].decode(), "score": float(said["score"].numpy()[0])}
            except Exception as error:
                row["error"] = f"{type(error).__name__}: {error}"
            with open(answers, "a") as file:
                file.write(json.dumps(row) + "\n")
        if seen and not found:
            with open(answers, "a") as file:
                file.write(json.dumps({"version": None, "error": "nothing was in service for a moment"}) + "\n")


if __name__ == "__main__":
    read_versions(*map(Path, sys.argv[1:]))
