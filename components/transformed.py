"""A sample of the transformed examples as pixels, the same whatever files and order the runner wrote."""

import functools
import heapq
import math
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from components import broken_image, features, pixels
from components.conversion import Images

PARSED_AT_ONCE = 64


def read_images(pattern: str, size: int, storage: str, limit: int, classes: int | None = None) -> Images:
    """Some images of a split, chosen by their content hash.

    Args:
      pattern: of TFRecord files of transformed examples.
      size: side of the images in pixels.
      storage: `png`, `jpeg` or `float`.
      limit: how many at most.
      classes: how many there are, to draw an equal share of the limit from each; None draws from all together.
    """
    share = limit if classes is None else math.ceil(limit / classes)
    kept: dict[int, list[tuple[bytes, int, bytes]]] = defaultdict(list)
    for row in _records(pattern):
        heap = kept[0 if classes is None else row[1]]
        # The largest hashes are as good a draw as any, and memory holds no more than what is wanted.
        (heapq.heappush if len(heap) < share else heapq.heappushpop)(heap, row)
    chosen = heapq.nlargest(limit, (row for heap in kept.values() for row in heap))
    probe = functools.partial(_image, size=size, storage=storage)
    with broken_image.looked_for([pattern], lambda: probe, broken_image.AS_STORED):
        images, constants = zip(*(_image(record, size, storage) for _, _, record in chosen), strict=True)
    return Images(np.stack(images), np.array([label for _, label, _ in chosen]), constants[0])


def _records(pattern: str) -> Iterator[tuple[bytes, int, bytes]]:
    """Key, label and the serialised example of each image."""
    spec = {features.KEY: tf.io.FixedLenFeature([], tf.string), features.LABEL: tf.io.FixedLenFeature([], tf.int64)}
    records = tf.data.TFRecordDataset(sorted(tf.io.gfile.glob(pattern))).batch(PARSED_AT_ONCE)
    for batch, parsed in records.map(lambda batch: (batch, tf.io.parse_example(batch, spec))).as_numpy_iterator():
        yield from zip(parsed[features.KEY], parsed[features.LABEL].tolist(), batch, strict=True)


def _image(record: bytes, size: int, storage: str) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    as_float = storage == "float"
    spec = {
        features.IMAGE: tf.io.FixedLenFeature([size, size, 3], tf.float32)
        if as_float
        else tf.io.FixedLenFeature([], tf.string),
        features.CHANNEL_ORDER: tf.io.FixedLenFeature([3], tf.int64),
        features.SCALE: tf.io.FixedLenFeature([3], tf.float32),
        features.OFFSET: tf.io.FixedLenFeature([3], tf.float32),
    }
    example = tf.io.parse_single_example(record, spec)
    constants = tuple(example[name].numpy() for name in (features.CHANNEL_ORDER, features.SCALE, features.OFFSET))
    if as_float:
        return pixels.denormalise(example[features.IMAGE].numpy(), *constants), constants
    return pixels.restore(example[features.IMAGE], size).numpy(), constants
