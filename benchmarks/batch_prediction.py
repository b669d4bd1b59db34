"""Batch prediction against a plain loop: images/s and memory, over real images.

    python benchmarks/batch_prediction.py [--images 6000]

The plain loop loads the model and reads, classifies and writes 32 files at a time, in one process. Every measurement is
a process of its own, over a third of the images and over all of them: the difference gives the rate without start-up,
and memory must not differ. The images are those of ../shared, as often as it takes; the model is MobileNetV2 0.35 at
224 pixels with a new head. Prints a table in Markdown.
"""

import argparse
import csv
import itertools
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from layouts import ROOT, SHARED, environment

SIZE, CLASSES, BATCH = 224, 16, 32


def write_model(folder: Path) -> None:
    """A served classifier as the pipeline exports it; in a process that has the ImageNet weights."""
    import keras
    import numpy as np

    from trainer.export import export

    backbone = keras.applications.MobileNetV2((SIZE, SIZE, 3), alpha=0.35, include_top=False, pooling="avg")
    outputs = keras.layers.Dense(CLASSES, activation="softmax")(backbone.output)
    constants = (np.arange(3), np.full(3, 1 / 127.5, np.float32), np.full(3, -1, np.float32))
    preprocessing = {"size": SIZE, "mode": "stretch", "storage": "png"}
    export(
        keras.Model(backbone.input, outputs), [f"class {n}" for n in range(CLASSES)], preprocessing, constants, folder
    )


def plain(model: str, folder: str, output: str) -> None:
    """What one writes without Graft."""
    import tensorflow as tf

    loaded = tf.saved_model.load(model)
    files = sorted(Path(folder).iterdir())
    with open(output, "w", newline="") as file:
        writer = csv.writer(file)
        for start in range(0, len(files), BATCH):
            batch = files[start : start + BATCH]
            answers = loaded.signatures["serving_default"](tf.constant([path.read_bytes() for path in batch]))
            columns = [answers[name].numpy().tolist() for name in ("label", "score", "probabilities")]
            for path, label, score, probabilities in zip(batch, *columns, strict=True):
                writer.writerow([path, label.decode(), score, *probabilities])


def write_images(folder: Path, count: int) -> None:
    """Links to the real images, or copies, in an order that mixes the two sets."""
    originals = sorted((SHARED / "assets/images").glob("*/*/*"), key=lambda path: path.name)
    folder.mkdir()
    for number, original in zip(range(count), itertools.cycle(originals), strict=False):
        (folder / f"{number:06d}{original.suffix}").symlink_to(original)


@dataclass(frozen=True)
class Measured:
    """Of one process.

    Attributes:
      seconds: from start to end.
      processor: seconds of processor time, that of other processes which it started left out.
      peak: memory in MB, of the largest of it and those.
    """

    seconds: float
    processor: float
    peak: float


def measure(command: list[str]) -> Measured:
    began = time.monotonic()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, env=environment(), cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            said.seek(0)
            raise SystemExit(said.read().decode()[-3000:])
    return Measured(time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def table(images: int = 6000) -> None:
    """Prints the comparison.

    Args:
      images: in the larger folder; three times as many as in the smaller one.
    """
    if not (SHARED / "assets/images").is_dir():
        print("The real images (../shared) are not here: nothing to measure.")
        return
    sizes = (images // 3, images)
    graft = [sys.executable, "-m", "pipeline", "predict"]
    ways = {
        "plain loop": [sys.executable, __file__, "plain"],
        "graft predict, local": graft,
        "graft predict, processes": [*graft, "--set", "runner.beam=processes"],
    }
    print(
        f"| | {sizes[0]} images, s | {sizes[1]} images, s | images/s beyond start-up | against the loop "
        f"| processor ms an image | peak memory, MB, at {sizes[0]} | at {sizes[1]} |"
    )
    print("| --- " * 8 + "|")
    with tempfile.TemporaryDirectory() as place:
        model, folders = Path(place, "model"), [Path(place, f"images-{size}") for size in sizes]
        measure([sys.executable, __file__, "model", str(model)])
        for folder, size in zip(folders, sizes, strict=True):
            write_images(folder, size)
        reference = None
        for name, command in ways.items():
            option = ["--output"] if command[: len(graft)] == graft else []
            few, many = (
                measure([*command, str(model), str(folder), *option, f"{place}/{name}-{folder.name}.csv"])
                for folder in folders
            )
            rate = (sizes[1] - sizes[0]) / (many.seconds - few.seconds)
            reference = reference or rate
            # Beam's worker processes are not waited for, so that nobody knows what they took.
            each = (many.processor - few.processor) / (sizes[1] - sizes[0]) * 1000
            print(
                f"| {name} | {few.seconds:.1f} | {many.seconds:.1f} | {rate:.0f} | {rate / reference:.2f} "
                f"| {'not known' if 'processes' in name else f'{each:.1f}'} | {few.peak:.0f} | {many.peak:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["model"]:
        write_model(Path(sys.argv[2]))
    elif sys.argv[1:2] == ["plain"]:
        plain(*sys.argv[2:])
    else:
        parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--images", type=int, default=6000)
        table(parser.parse_args().images)
