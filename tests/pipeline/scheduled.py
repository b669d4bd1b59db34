"""Schedules without a training: the real supervisor and the real process of an attempt, whose run is made up.

They live in a copy of the source. What an attempt's run does there is the next line of a script.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from pipeline.output import Output, write_json
from pipeline.schedule.places import Places
from pipeline.schedule.ticks import Tick, read_ticks
from tests.conftest import ROOT

# Put into the module of the attempt, in place of the run.
MADE_UP = """
def _run(request):
    import hashlib, os, subprocess
    from pipeline.output import Output
    output = Output(Path(request["output"]))
    script = output.root / "script.jsonl"
    step, *rest = script.read_text().splitlines()
    script.write_text("\\n".join(rest or [step]) + "\\n")
    step = json.loads(step)
    with output.held():
        # Not `new_run`, which makes one a second.
        run = output.runs / str(time.time_ns())
        run.mkdir()
        if "start" in step:
            # A grandchild that knows nothing of signals of its parent.
            child = subprocess.Popen(["sleep", "600"])
            (output.root / "processes").write_text(f"{os.getpid()} {child.pid}")
        if step.get("does") == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if step.get("does") == "waits":
            time.sleep(600)
        if step.get("does") == "computes":
            # In C, as a step in TensorFlow may: no signal is heard of.
            hashlib.pbkdf2_hmac("sha256", b"", b"", (1 << 31) - 1)
        if step.get("does") == "fails when it is stopped":
            try:
                time.sleep(600)
            except KeyboardInterrupt:
                # As Beam does: what was interrupted is an error of its own, and the run's summary tells of it.
                step |= {"error": "stopped (SIGTERM).", "may_pass": True}
        if step.get("does") == "breaks":
            raise OSError(5, "Input/output error", "/mnt/images/cat.jpg")
        summary = {"status": "failed", "exit_code": 1, "model": {"path": None}, "run_id": run.name, **step}
        if version := step.get("version"):
            summary["model"]["path"] = f"{output.serving}/{version}"
        (run / "summary.json").write_text(json.dumps(summary))
        return summary


"""
TICK = """
import signal, sys, threading
from pathlib import Path
from pipeline.output import Output
from pipeline.schedule.plan import Plan
from pipeline.schedule.tick import run_tick
stop = threading.Event()
# Not in the handler: the main thread may be inside of the event.
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=stop.set).start())
output = Output(Path(sys.argv[1]))
plan = Plan(["/images"], config=str(output.root / "mine.yaml"))
for _ in range(int(sys.argv[2])):
    run_tick(plan, output, due="2026-01-05T03:00:00+00:00", stop=stop)
"""
# The parts that tidy up and count are others'; what a tick asks of them is noted.
HOUSEKEEPING = """
def room_for_a_run(config, output):
    place = output.root / "full"
    return place.read_text() if place.is_file() else None


def tidy(config, output):
    with open(output.root / "tidied", "a") as file:
        file.write("tidied\\n")
    if (output.root / "frees").is_file():
        (output.root / "full").unlink(missing_ok=True)
    return "1 run was removed."
"""
METRICS = """
def write(output, plan, next_tick):
    (output.root / "schedule" / "metrics.prom").write_text("# written\\n")
"""
PUBLISHED = {"status": "published", "exit_code": 0, "version": "1800000001"}
MAY_PASS = {"error": "The memory did not suffice.", "may_pass": True}
FOR_GOOD = {"error": "data.refused.", "exit_code": 3, "may_pass": False}


class Scheduled:
    """A copy of the source and an output folder."""

    def __init__(self, folder: Path, grace: float = 1.0):
        self.source, self.output = folder / "source", Output(folder / "out")
        for package in ("components", "pipeline", "trainer"):
            shutil.copytree(ROOT / package, self.source / package, ignore=shutil.ignore_patterns("__pycache__", "*.h5"))
        schedule = self.source / "pipeline" / "schedule"
        attempt = (schedule / "attempt.py").read_text()
        attempt = attempt.replace('if __name__ == "__main__":', f'{MADE_UP}if __name__ == "__main__":')
        (schedule / "attempt.py").write_text(attempt.replace("GRACE = 10.0", f"GRACE = {grace}"))
        (schedule / "housekeeping.py").write_text(HOUSEKEEPING)
        (schedule / "metrics.py").write_text(METRICS)
        self.output.prepare()
        self.places = Places(self.output)
        self.places.prepare()
        self.configure()

    def configure(self, **settings: Any) -> None:
        """Writes the section `schedule` of the configuration that each tick reads."""
        section = {"retry_seconds": 0.01, **settings}
        (self.output.root / "mine.yaml").write_text(yaml.safe_dump({"name": "signs", "schedule": section}))

    def script(self, *steps: dict[str, Any]) -> None:
        """What the next attempts do; the last of it again and again."""
        (self.output.root / "script.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))

    def start(self, ticks: int = 1, **environment: str) -> subprocess.Popen:
        command = [sys.executable, "-c", TICK, str(self.output.root), str(ticks)]
        return subprocess.Popen(
            command, cwd=self.source, env=os.environ | {"PYTHONPATH": str(self.source)} | environment
        )

    def tick(self, *steps: dict[str, Any], ticks: int = 1, **environment: str) -> Tick:
        """Ticks whose attempts do that; the last line that they left."""
        if steps:
            self.script(*steps)
        before = len(self.ticks)
        process = self.start(ticks, **environment)
        assert process.wait(60) == 0
        assert len(self.ticks) == before + ticks
        assert not self.places.ticking.exists()
        return self.ticks[-1]

    @property
    def ticks(self) -> list[Tick]:
        return read_ticks(self.output)

    @property
    def runs(self) -> int:
        return len(self.output.all_runs())

    @property
    def log(self) -> str:
        return self.places.log.read_text()

    @property
    def cut_short(self) -> dict[str, Any] | None:
        """What a start finds of a tick that did not come to its end."""
        code = "import json, sys; from pathlib import Path; from pipeline.output import Output; from pipeline.schedule "
        code += "import places, tick; print(json.dumps(tick.cut_short(places.Places(Output(Path(sys.argv[1]))))))"
        return json.loads(self.say(code, str(self.output.root)))

    def say(self, code: str, *arguments: str) -> str:
        """What a piece of Python prints there."""
        command = [sys.executable, "-c", code, *arguments]
        environment = os.environ | {"PYTHONPATH": str(self.source)}
        return subprocess.check_output(command, cwd=self.source, env=environment, text=True)

    @property
    def left_over(self) -> list[int]:
        """Processes of an attempt that still run."""
        text = (self.output.root / "processes").read_text()
        return [number for number in map(int, text.split()) if runs(number)]

    def serve(self, version: str) -> None:
        """Puts a version into service."""
        folder = self.output.serving / version
        folder.mkdir(parents=True)
        write_json(folder / "saved_model.pb", {})


def runs(number: int) -> bool:
    """Whether the process is there, and no zombie that nobody has asked for yet."""
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
