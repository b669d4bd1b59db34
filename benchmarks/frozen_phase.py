"""What the frozen phase costs, in forward passes over the images, for several numbers of epochs.

    python benchmarks/frozen_phase.py [--images 512] [--repeat 3]

MobileNetV2 0.35 at 224 px with random weights on generated pixels (the cost depends on neither). A first, untimed round
leaves compilation out; decoding is out because the pixels are in memory. Prints a table in Markdown.
"""

import argparse
import statistics
import time

import keras
import numpy as np
import tensorflow as tf

from trainer import backbones, training
from trainer import model as network
from trainer.dataset import Split

CONSTANTS = (np.array([0, 1, 2]), np.full(3, 1 / 127.5, np.float32), np.full(3, -1, np.float32))


def split_of(count: int) -> Split:
    random = np.random.default_rng(count)
    images = random.integers(0, 256, (count, 224, 224, 3), np.uint8)
    return Split(images, random.integers(0, 10, count), np.arange(count), CONSTANTS)


def forward_seconds(features: keras.Model, splits: list[Split]) -> float:
    """A plain pass of the backbone over every image."""
    call = tf.function(lambda batch: features(batch, training=False))
    call(tf.zeros((32, 224, 224, 3)))
    began = time.monotonic()
    for split in splits:
        for batch in split.batches(32):
            call(split.normalised(tf.constant(batch)))
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    train, evaluation = split_of(arguments.images), split_of(arguments.images // 8)
    backbone = backbones.build("mobilenet_v2", 0.35, "none", 224)
    features = network.pooled(backbone, "average")
    print("| epochs | frozen phase / one forward pass (median, range) |\n| --- | --- |")
    for epochs in (1, 10, 40):
        ratios = []
        for _ in range(arguments.repeat):
            head = network.head(features.output_shape[-1], 10, [], 0.2)
            options = {"learning_rate": 1e-3, "patience": epochs, "batch_size": 32, "seed": 1}
            training.train_frozen(features, head, train, evaluation, options | {"epochs": 1})
            forward = forward_seconds(features, [train, evaluation])
            phase = training.train_frozen(features, head, train, evaluation, options | {"epochs": epochs})
            ratios.append(phase.seconds / forward)
        print(f"| {epochs} | {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |", flush=True)


if __name__ == "__main__":
    main()
