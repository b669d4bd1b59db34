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


def measure(command: list[str]) -> tuple[float, float]:
    """Seconds of a process, and the peak memory in MB of the largest of it and its children."""
    began = time.monotonic()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, env=environment(), cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            said.seek(0)
            raise SystemExit(said.read().decode()[-3000:])
    return time.monotonic() - began, usage.ru_maxrss / 1024


def table(images: int = 6000) -> None:
    """Prints the comparison.

    Args:
      images: in the larger folder; three times as many as in the smaller one.
    """
    if not (SHARED / "assets/images").is_dir():
        print("The real images (../shared) are not here: nothing to measure.")
        return
    sizes = (images // 3, images)
    with tempfile.TemporaryDirectory() as place:
        model, folders = Path(place, "model"), [Path(place, f"images-{size}") for size in sizes]
        measure([sys.executable, __file__, "model", str(model)])
        for folder, size in zip(folders, sizes, strict=True):
            write_images(folder, size)
        graft = [sys.executable, "-m", "pipeline", "predict"]
        ways = {
            "plain loop": ([sys.executable, __file__, "plain"], ""),
            "graft predict, local": (graft, "--output"),
            "graft predict, processes": ([*graft, "--set", "runner.beam=processes"], "--output"),
        }
        print(
            f"| | {sizes[0]} images, s | {sizes[1]} images, s | images/s beyond start-up | against the loop "
            f"| peak memory, MB, at {sizes[0]} | at {sizes[1]} |\n| --- | --- | --- | --- | --- | --- | --- |"
        )
        reference = None
        for name, (command, option) in ways.items():
            results = []
            for folder in folders:
                output = Path(place, f"{name}-{folder.name}.csv")
                results.append(measure([*command, str(model), str(folder), *filter(None, [option]), str(output)]))
            seconds, peaks = zip(*results, strict=True)
            rate = (sizes[1] - sizes[0]) / (seconds[1] - seconds[0])
            reference = reference or rate
            print(
                f"| {name} | {seconds[0]:.1f} | {seconds[1]:.1f} | {rate:.0f} | {rate / reference:.2f} "
                f"| {peaks[0]:.0f} | {peaks[1]:.0f} |",
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
