"""Transformed examples -> pixels on disk, in an order that no runner decides."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tensorflow as tf

from components import features, pixels


@dataclass(frozen=True)
class Split:
    """One split, sorted by content hash.

    Attributes:
      images: uint8 [examples, size, size, 3] (float32 and normalised where `storage` is `float`), mapped from a file:
        memory holds only what is in use.
      labels: int64 [examples].
      order: int64 [examples], row of `images` for each position of the sorted order.
      constants: channel order, scale and offset for `pixels.normalise`.
    """

    images: np.ndarray
    labels: np.ndarray
    order: np.ndarray
    constants: tuple[np.ndarray, np.ndarray, np.ndarray]

    def __len__(self) -> int:
        return len(self.labels)

    def normalised(self, batch: tf.Tensor) -> tf.Tensor:
        """What the backbone expects, float32 [batch, size, size, 3]."""
        return pixels.normalise(batch, *self.constants) if self.images.dtype == np.uint8 else batch

    def batches(self, batch_size: int) -> Iterator[np.ndarray]:
        """Images in the sorted order, once."""
        for start in range(0, len(self), batch_size):
            yield self.images[self.order[start : start + batch_size]]

    def mapped(self, batches: Iterable[np.ndarray], shape: Sequence[int], scratch: Path) -> "Split":
        """The same examples with something computed from each image in its place.

        Args:
          batches: float32 [batch, *shape], in the sorted order.
          shape: of one.
          scratch: an existing folder; takes four bytes a number.
        """
        path = _new_file(scratch)
        with open(path, "wb") as file:
            for batch in batches:
                batch.tofile(file)
        images = np.memmap(path, np.float32, "r", shape=(len(self), *shape))
        return replace(self, images=images, order=np.arange(len(self)))

    def training_data(self, batch_size: int, seed: int | None) -> tf.data.Dataset:
        """(normalised images, labels) batches; shuffled anew in every epoch where a seed is given."""
        size = self.images.shape[1:]
        dtype = tf.as_dtype(self.images.dtype)
        data = tf.data.Dataset.from_tensor_slices((self.order, self.labels))
        if seed is not None:
            data = data.shuffle(len(self), seed=seed, reshuffle_each_iteration=True)

        def load(rows: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            images = tf.numpy_function(lambda index: self.images[index], [rows], dtype)
            return self.normalised(tf.ensure_shape(images, [None, *size])), labels

        return data.batch(batch_size).map(load, num_parallel_calls=2, deterministic=True).prefetch(2)


def read_split(patterns: Sequence[str], size: int, storage: str, scratch: Path) -> Split:
    """Decodes every stored image once, into a file under `scratch`.

    Args:
      patterns: file patterns of TFRecords of transformed examples.
      size: side of the images in pixels.
      storage: `png`, `jpeg` or `float`.
      scratch: an existing folder; takes `size * size * 3` bytes an image (four times that for `float`).
    """
    as_float = storage == "float"
    spec = {
        features.IMAGE: tf.io.FixedLenFeature(
            [size * size * 3] if as_float else [], tf.float32 if as_float else tf.string
        ),
        features.LABEL: tf.io.FixedLenFeature([], tf.int64),
        features.KEY: tf.io.FixedLenFeature([], tf.string),
        features.CHANNEL_ORDER: tf.io.FixedLenFeature([3], tf.int64),
        features.SCALE: tf.io.FixedLenFeature([3], tf.float32),
        features.OFFSET: tf.io.FixedLenFeature([3], tf.float32),
    }

    def parse(serialised: tf.Tensor) -> dict[str, tf.Tensor]:
        example = tf.io.parse_single_example(serialised, spec)
        image = example[features.IMAGE]
        image = tf.reshape(image, [size, size, 3]) if as_float else pixels.restore(image, size)
        return example | {features.IMAGE: image}

    files = sorted(path for pattern in patterns for path in tf.io.gfile.glob(pattern))
    records = tf.data.TFRecordDataset(files, num_parallel_reads=2)
    data = records.map(parse, num_parallel_calls=tf.data.AUTOTUNE).batch(64).prefetch(2)
    path = _new_file(scratch)
    labels, keys, constants = [], [], None
    with open(path, "wb") as file:
        for batch in data.as_numpy_iterator():
            batch[features.IMAGE].tofile(file)
            labels.append(batch[features.LABEL])
            keys.append(batch[features.KEY])
            constants = tuple(batch[name][0] for name in (features.CHANNEL_ORDER, features.SCALE, features.OFFSET))
    all_labels, all_keys = np.concatenate(labels), np.concatenate(keys)
    images = np.memmap(path, np.float32 if as_float else np.uint8, "r", shape=(len(all_labels), size, size, 3))
    order = np.argsort(all_keys, kind="stable")
    return Split(images, all_labels[order], order, constants)


def _new_file(scratch: Path) -> Path:
    return scratch / f"pixels-{len(list(scratch.iterdir()))}"
