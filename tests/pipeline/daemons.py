"""Daemons for tests: real processes, from a copy of the source where an attempt is a few lines and looks are many."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.conftest import ROOT

# Ends when the supervisor does, as the real one; what it does is said by files in the folder of the test.
ATTEMPT = """
if __name__ == "__main__":
    import time

    def _end():
        os.read(0, 1)
        os._exit(1)

    threading.Thread(target=_end, daemon=True).start()
    folder = Path(json.loads(sys.argv[1])["output"]).parent
    with open(folder / "attempts", "a") as file:
        file.write(f"{os.getpid()}\\n")
    while (folder / "hold").exists():
        time.sleep(0.01)
    said = json.loads((folder / "answer").read_text()) if (folder / "answer").exists() else {}
    status, code = said.get("status", "unchanged"), said.get("exit_code", 0)
    write_whole(Path(sys.argv[2]), json.dumps(asdict(Answer(status, code, error=said.get("error")))))
    sys.exit(code)
"""
HEAVY = ("tfx", "tensorflow", "ml_metadata", "numpy", "apache_beam")


def copied_source(folder: Path) -> Path:
    """A copy of the packages, made for tests as said above."""
    for package in ("components", "pipeline", "trainer"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__", "weights"))
    attempt, daemon = (folder / "pipeline" / "schedule" / name for name in ("attempt.py", "daemon.py"))
    attempt.write_text(attempt.read_text().partition('\nif __name__ == "__main__":')[0] + ATTEMPT)
    text = daemon.read_text()
    assert "LOOK_AGAIN = 15.0" in text
    daemon.write_text(text.replace("LOOK_AGAIN = 15.0", "LOOK_AGAIN = 0.02"))
    # What there is to tidy up is tested elsewhere.
    with open(folder / "pipeline" / "schedule" / "housekeeping.py", "a") as housekeeping:
        housekeeping.write('\n\ndef tidy(config, output):\n    return "Removed nothing."\n')
    return folder


class Scheduled:
    """An output folder, images, a clock of its own, and the processes that were started.

    Args:
      source: of `copied_source`.
      folder: of the test.
    """

    def __init__(self, source: Path, folder: Path):
        self.source, self.folder, self.output = source, folder, folder / "out"
        (folder / "images").mkdir()
        self._clock, self._started = folder / "clock", []

    # ---- processes ----

    def graft(self, *arguments: str) -> subprocess.Popen:
        """Starts `graft schedule ...`; what it prints goes into the file `printed`."""
        paths = os.pathsep.join(map(str, (self.source, ROOT / "tests" / "clock")))
        environment = os.environ | {"PYTHONPATH": paths, "GRAFT_TEST_CLOCK": str(self._clock)}
        with open(self.folder / "printed", "a") as printed:
            process = subprocess.Popen(
                [sys.executable, "-m", "pipeline", "schedule", *map(str, arguments)],
                cwd=self.source,
                stdout=printed,
                stderr=subprocess.STDOUT,
                env=environment,
                # A shell that starts the tests in the background has them ignore it, and whatever they start.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        self._started.append(process)
        return process

    def done(self, *arguments: str) -> tuple[int, str]:
        """Exit code and what was printed by a command that comes to its end."""
        before = len(self.printed)
        code = self.graft(*arguments).wait(30)
        return code, self.printed[before:]

    def keep(self, *options: str, cron: str | None = "0 3 * * 1") -> subprocess.Popen:
        """Starts a daemon, and waits until it waits."""
        before = self.printed.count("Next tick ")
        given = ("--cron", cron, "--images", self.folder / "images") if cron else ()
        process = self.graft("run", "--output", self.output, *given, *options)
        until(lambda: self.printed.count("Next tick ") > before or process.poll() is not None)
        return process

    def stop(self, process: subprocess.Popen, number: int = signal.SIGTERM) -> int:
        process.send_signal(number)
        return process.wait(20)

    def end(self) -> None:
        for process in self._started:
            process.kill()
            process.wait()

    # ---- the world ----

    def set_clock(self, moment: str) -> None:
        """ISO 8601, in UTC."""
        ahead = datetime.fromisoformat(f"{moment}+00:00").timestamp() - time.time()
        temporary = self._clock.with_suffix(".new")
        temporary.write_text(str(ahead))
        os.replace(temporary, self._clock)

    def hold(self) -> None:
        """Attempts go on from now on until `let_go`."""
        (self.folder / "hold").touch()

    def let_go(self) -> None:
        (self.folder / "hold").unlink()

    def answer(self, status: str, exit_code: int, error: str | None = None) -> None:
        (self.folder / "answer").write_text(json.dumps({"status": status, "exit_code": exit_code, "error": error}))

    # ---- what came of it ----

    @property
    def printed(self) -> str:
        return (self.folder / "printed").read_text() if (self.folder / "printed").exists() else ""

    @property
    def attempts(self) -> int:
        return len((self.folder / "attempts").read_text().split()) if (self.folder / "attempts").exists() else 0

    @property
    def ticks(self) -> list[dict[str, Any]]:
        file = self.output / "runs" / "ticks.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def status(self) -> dict[str, Any]:
        code, said = self.done("status", self.output, "--json")
        assert code == 0, said
        return json.loads(said.splitlines()[-1])


def until(happened: Callable[[], bool]) -> None:
    """Waits for what another process does."""
    late = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < late, "it did not happen"
        time.sleep(0.01)
