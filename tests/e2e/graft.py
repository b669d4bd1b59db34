"""Runs the real command in a process of its own, from a copy of the source that a test may edit."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from tests.pipeline.terminal import Terminal, record

ROOT = Path(__file__).resolve().parents[2]
TINY = ("--set", "model.backbone=graft_tiny", "--set", "model.weights=bundled")
COLOURS = {"circle": (200, 80, 60), "square": (60, 150, 80), "triangle": (70, 90, 200)}


@dataclass
class Result:
    code: int
    out: str
    error: str
    summary: dict

    def ran(self, step: str) -> bool:
        """Whether a step was executed, as its finished line says."""
        (line,) = [line for line in self.out.splitlines() if f"  {step} " in line and line.rstrip()[-3:] != "..."]
        return "from the cache" not in line


class Graft:
    """A copy of the source and one output folder."""

    def __init__(self, folder: Path):
        self.source, self.output = folder / "source", folder / "output"
        for package in ("components", "pipeline", "trainer"):
            shutil.copytree(ROOT / package, self.source / package, ignore=shutil.ignore_patterns("__pycache__"))

    def start(
        self, *arguments: str, prefix: tuple[str, ...] = (), path: tuple[Path, ...] = (), **environment: str
    ) -> subprocess.Popen:
        """The command; `prefix` is what runs it; modules are looked for in `path` before anywhere else."""
        return subprocess.Popen(
            [*prefix, sys.executable, "-m", "pipeline", *map(str, arguments)],
            cwd=self.source,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (*path, self.source)))} | environment,
        )

    def command(self, *arguments: str, path: tuple[Path, ...] = ()) -> Result:
        process = self.start(*arguments, path=path)
        out, error = process.communicate(timeout=600)
        return Result(process.returncode, out, error, {})

    def told(self, *arguments: str) -> dict:
        """What a command says with `--json`."""
        result = self.command(*arguments, "--json")
        assert result.code == 0, result.out + result.error
        return json.loads(result.out)

    def run_in_terminal(self, images: Path, columns: int, *options: str) -> tuple[Result, Terminal]:
        """As `run`, in a terminal of that width; its rows are the output."""
        command = [sys.executable, "-m", "pipeline", "run", "--images", images, "--output", self.output, *options]
        code, terminal = record(list(map(str, command)), columns, folder=self.source, PYTHONPATH=str(self.source))
        result = Result(code, "\n".join(terminal.rows), "", {})
        result.summary = json.loads((self.output / "runs" / "latest" / "summary.json").read_text())
        return result, terminal

    def tick(self, images: Path, *options: str, path: tuple[Path, ...] = ()) -> Result:
        """A tick of a schedule; the summary is its line in `runs/ticks.jsonl`, the only one that came."""
        ticks = self.output / "runs" / "ticks.jsonl"
        before = ticks.read_text().splitlines() if ticks.is_file() else []
        arguments = ("schedule", "run", "--once", "--images", images, "--output", self.output, *options)
        result = self.command(*arguments, path=path)
        (line,) = ticks.read_text().splitlines()[len(before) :]
        result.summary = json.loads(line)
        return result

    def run(self, images: Path, *options: str) -> Result:
        result = self.command("run", "--images", images, "--output", self.output, *options)
        latest = self.output / "runs" / "latest" / "summary.json"
        if latest.is_file():
            result.summary = json.loads(latest.read_text())
        return result


def draw(kind: str, number: int) -> Image.Image:
    """A noisy 64x64 picture of a shape; the same arguments give the same pixels."""
    random = np.random.default_rng([sorted(COLOURS).index(kind), number])
    background = random.integers(0, 256, 3)
    image = Image.new("RGB", (64, 64), tuple(int(value) for value in background))
    pen = ImageDraw.Draw(image)
    x, y, r = random.integers(24, 40), random.integers(24, 40), random.integers(12, 22)
    colour = tuple(int(np.clip(value + random.integers(-40, 40), 0, 255)) for value in COLOURS[kind])
    if kind == "circle":
        pen.ellipse((x - r, y - r, x + r, y + r), fill=colour)
    elif kind == "square":
        pen.rectangle((x - r, y - r, x + r, y + r), fill=colour)
    else:
        pen.polygon(((x, y - r), (x - r, y + r), (x + r, y + r)), fill=colour)
    noise = random.normal(0, 12, (64, 64, 3))
    blurred = image.filter(ImageFilter.GaussianBlur(1))
    return Image.fromarray(np.clip(np.asarray(blurred) + noise, 0, 255).astype(np.uint8))


def write_shapes(folder: Path, count: int, first: int = 0) -> None:
    """`count` JPEGs of each class."""
    for kind in COLOURS:
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for number in range(first, first + count):
            draw(kind, number).save(folder / kind / f"{kind}-{number:03d}.jpg", quality=90)
