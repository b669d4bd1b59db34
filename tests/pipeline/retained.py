"""Output folders for the tests of the retention: what lies there, and what must be true of it at any moment."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

from pipeline.config import Config, load
from pipeline.output import Output
from tests.conftest import ROOT
from tests.pipeline.outputs import Runs, images_of

IMAGES = images_of({"cat": 20, "dog": 20})
HOUR_AGO = 3600
DELETED = 4


def run_id(number: int) -> str:
    """Of a run a day, from the first of January on."""
    return f"2026{1 + number // 28:02}{1 + number % 28:02}-000000"


def settings(**retention: Any) -> Config:
    return load(None, [f"schedule.retention.{key}={value}" for key, value in retention.items()])


class Retained(Runs):
    """Runs of which every file is older than ML Metadata's note of their end, as they are when the steps write them."""

    def __init__(self, root: Path):
        super().__init__(root)
        self._executed: set[int] = set()

    def run(self, run_id: str, images=IMAGES, **more) -> dict[str, Any]:
        told = super().run(run_id, images, **more)
        (self.output.runs / run_id / "report.html").write_text("x" * 10_000)
        (self.output.runs / run_id / "steps.json").write_text("{}")
        if "transformed_examples" in self.recorder.made and "Transform" not in more.get("cached", ()):
            self._leave("transformed_examples", "Split-train/0", "x" * 50_000)
        for execution in self.recorder.store.get_executions():
            kind = self.recorder.store.get_execution_types_by_id([execution.type_id])[0].name
            if execution.id not in self._executed:
                self._executed.add(execution.id)
                name = f"{kind}/.system/executor_execution/{execution.id}"
                (self.output.artifacts / name).mkdir(parents=True)
        self.output.point_latest(self.output.runs / run_id)
        self.age()
        return told

    def age(self) -> None:
        for parent, _, names in os.walk(self.output.artifacts):
            for path in [parent, *(os.path.join(parent, name) for name in names)]:
                os.utime(path, (os.stat(path).st_mtime - HOUR_AGO,) * 2)

    def folders_of(self, run_id: str) -> set[str]:
        """Artifacts of which the run's folder in `artifacts/` is still there."""
        from pipeline.retention import recorded

        with recorded.of(self.output) as known:
            return {str(each.folder) for n, each in known.artifacts.items() if n in known.uses[run_id] and each.folder}


def tree(output: Output, *parts: str) -> set[str]:
    """Everything that lies there, relative; not the database, whose journal comes and goes, nor the lock."""
    root = output.root.joinpath(*parts)
    return {str(path.relative_to(output.root)) for path in root.rglob("*")} - {"metadata.db", "metadata.db-journal"}


def states(output: Output) -> dict[str, int]:
    """State of each artifact by its folder, read without ML Metadata."""
    with sqlite3.connect(output.metadata) as database:
        return dict(database.execute("select uri, state from Artifact").fetchall())


def clean_in_a_process(output: Output, *arguments: str, before: str = "", **environment: str):
    """`graft clean` in a process of its own, which first runs some Python."""
    code = f"import sys\n{before}\nfrom pipeline.cli import main\nsys.argv = ['graft', 'clean', *sys.argv[1:]]\nmain()"
    return subprocess.run(
        [sys.executable, "-c", code, str(output.root), *arguments],
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'clock'}"} | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def versions(output: Output) -> list[int]:
    return sorted(int(path.name) for path in Path(output.serving).iterdir() if path.name.isdecimal())
