"""The demo's images: the 1,797 scans of handwritten digits that scikit-learn carries, written as class folders."""

import os
from pathlib import Path

import numpy as np

SIZE = 64  # pixels; the scans are 8x8


def write_digits(folder: Path) -> None:
    """Writes `folder/<digit>/<number>.png`, 64x64 greyscale, ink dark on light; files that are there stay."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (scan, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / str(label) / f"{number:04d}.png"
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        grey = Image.fromarray((255 - scan * (255 / 16)).astype(np.uint8))
        # Renamed when whole: a demo that was interrupted must not leave half an image for the next one.
        unfinished = path.with_suffix(".part")
        grey.resize((SIZE, SIZE), Image.Resampling.BICUBIC).save(unfinished, format="PNG")
        os.replace(unfinished, path)
