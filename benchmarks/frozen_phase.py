"""What the frozen phase costs, in forward passes over the images, for several numbers of epochs.

    python benchmarks/frozen_phase.py [--images 1024] [--repeat 3]

MobileNetV2 0.35 at 224 px with random weights on generated pixels (the cost depends on neither). Decoding is out
because the pixels are in memory. Compilation is left out by taking the difference between all the images and an eighth
of them, on both sides: it costs the same for both. Prints a table in Markdown.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from trainer import backbones, training
from trainer import model as network
from trainer.checkpoints import Checkpoints
from trainer.dataset import Split
from trainer.stored import Store

CONSTANTS = (np.array([0, 1, 2]), np.full(3, 1 / 127.5, np.float32), np.full(3, -1, np.float32))


def split_of(count: int) -> Split:
    random = np.random.default_rng(count)
    images = random.integers(0, 256, (count, 224, 224, 3), np.uint8)
    return Split(images, random.integers(0, 10, count), np.arange(count), CONSTANTS, str(count))


def forward_seconds(features: keras.Model, splits: tuple[Split, Split]) -> float:
    """A plain pass of the backbone over every image."""
    # Of any batch size, so that a last, smaller batch is not compiled for inside the measurement.
    signature = [tf.TensorSpec([None, 224, 224, 3])]
    call = tf.function(lambda batch: features(batch, training=False), input_signature=signature)
    call(tf.zeros((32, 224, 224, 3)))
    began = time.monotonic()
    for split in splits:
        for batch in split.batches(32):
            call(split.normalised(tf.constant(batch)))
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    few, many = ((split_of(count), split_of(count // 8)) for count in (arguments.images // 8, arguments.images))
    backbone = backbones.build("mobilenet_v2", 0.35, "none", 224)
    features = network.pooled(backbone, "average")
    print("| epochs | frozen phase / one forward pass (median, range) |\n| --- | --- |")
    for epochs in (1, 10, 40):
        options = {"learning_rate": 1e-3, "patience": epochs, "batch_size": 32, "seed": 1, "epochs": epochs}
        options |= {"label_smoothing": 0.0, "balance": "none"}

        def phase_seconds(splits: tuple[Split, Split], options: dict = options) -> float:
            head = network.head(features.output_shape[-1], 10, [], 0.2)
            with tempfile.TemporaryDirectory() as folder:
                began = time.monotonic()
                compute, store = training.inference(features, splits[0]), Store(Path(folder))
                shape = features.output_shape[1:]
                train, evaluation = (
                    store.computed(name, split, shape, compute) for name, split in zip("te", splits, strict=True)
                )
                spent = time.monotonic() - began
                return training.train_head(head, [train], evaluation, options, Checkpoints(Path(folder)), spent).seconds

        ratios = []
        for _ in range(arguments.repeat):
            forward = forward_seconds(features, many) - forward_seconds(features, few)
            ratios.append((phase_seconds(many) - phase_seconds(few)) / forward)
        print(f"| {epochs} | {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |", flush=True)


if __name__ == "__main__":
    main()
