"""What the comparisons with the plain-Keras script share: its place, its images, its environment."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


def environment() -> dict[str, str]:
    """For a process that needs the ImageNet weights of ../shared."""
    return os.environ | {"KERAS_HOME": str(SHARED / "assets/keras_home"), "TF_CPP_MIN_LOG_LEVEL": "3"}


def layouts(sets: list[str], seeds: int) -> Iterator[tuple[str, int, Path, Path]]:
    """Set, seed, folder with `train/` and `test/` (40 %), and a path for the output; both are gone after each."""
    if not SHARED.is_dir():
        raise SystemExit("The real images and weights (../shared) are not here: nothing to measure.")
    for name in sets:
        for seed in range(1, seeds + 1):
            with tempfile.TemporaryDirectory() as folder:
                images = Path(folder, "images")
                split = [sys.executable, str(SHARED / "bench/split.py"), str(SHARED / "assets/images" / name)]
                subprocess.run([*split, str(images), "--seed", str(seed)], check=True)
                yield name, seed, images, Path(folder, "output")
