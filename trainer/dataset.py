"""Transformed examples -> pixels on disk, in an order that no runner decides."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tensorflow as tf

from components import broken_image, features, pixels, progress
from trainer import rows
from trainer.augmentation import Augmentation
from trainer.rows import Rows


@dataclass(frozen=True)
class Split:
    """One split, sorted by content hash.

    Attributes:
      images: uint8 [examples, size, size, 3] (float32 and normalised where `storage` is `float`, or where something was
        computed from them); memory holds only what is in use.
      labels: int64 [examples].
      order: int64 [examples], row of `images` for each position of the sorted order.
      constants: channel order, scale and offset for `pixels.normalise`.
      digest: of the pixels in the sorted order; empty where nothing is kept under it.
      keys: content hashes of the files, in the sorted order; empty where nobody asks for them.
    """

    images: Rows | np.ndarray
    labels: np.ndarray
    order: np.ndarray
    constants: tuple[np.ndarray, np.ndarray, np.ndarray]
    digest: str = ""
    keys: Sequence[bytes] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def normalised(self, batch: tf.Tensor) -> tf.Tensor:
        """What the backbone expects, float32 [batch, size, size, 3], of images as they are stored, or augmented."""
        return pixels.normalise(batch, *self.constants) if self.images.dtype == np.uint8 else batch

    def take(self, positions: np.ndarray) -> np.ndarray:
        """Images at positions of the sorted order, [len(positions), ...]."""
        return self.images[self.order[positions]]

    def batches(self, batch_size: int) -> Iterator[np.ndarray]:
        """Images in the sorted order, once."""
        for start in range(0, len(self), batch_size):
            yield self.take(np.arange(start, min(start + batch_size, len(self))))

    def replaced(self, images: Rows) -> "Split":
        """The same examples with something computed from each image, in the sorted order, in its place."""
        return replace(self, images=images, order=np.arange(len(self)))


class Batches:
    """Batches for `Model.fit` in an order that is set before each epoch.

    Attributes:
      data: a data set of (normalised images, labels) batches.
    """

    def __init__(self, split: Split, batch_size: int, augmentation: Augmentation | None = None, multiple_of: int = 1):
        """Begins with the sorted order, each example once.

        Args:
          split: what to read.
          batch_size: examples.
          augmentation: changes the images before they are normalised.
          multiple_of: the last batch is filled up to a multiple of this, from the beginning of the epoch.
        """
        self._order, self._seed = np.arange(len(split)), (0,)
        size, count = split.images.shape[1:], len(split) + -len(split) % multiple_of

        def read(index: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            positions = self._order[index % len(split)]
            number = index[0] // batch_size
            states = augmentation.states((*self._seed, number)) if augmentation else np.empty((0, 2), np.uint32)
            return split.take(positions), split.labels[positions], states

        def load(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            kinds = (tf.as_dtype(split.images.dtype), tf.int64, tf.uint32)
            images, labels, states = tf.numpy_function(read, [index], kinds)
            return tf.ensure_shape(images, [None, *size]), tf.ensure_shape(labels, [None]), states

        def prepare(images: tf.Tensor, labels: tf.Tensor, states: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            if augmentation:
                images = augmentation(images, tf.ensure_shape(states, [None, 2]))
            return split.normalised(images), labels

        data = tf.data.Dataset.range(count).batch(batch_size).map(load, num_parallel_calls=2, deterministic=True)
        # One after the other where chance is drawn: the generators' states are set for each batch.
        self.data = data.map(prepare, num_parallel_calls=None if augmentation else 2).prefetch(2)

    def arrange(self, order: np.ndarray, seed: Sequence[int]) -> None:
        """Sets which example comes when in the next epoch.

        Args:
          order: int64 [examples], positions of the sorted order; an example may come several times, or not at all.
          seed: names the epoch, for the augmentation.
        """
        self._order, self._seed = order, tuple(seed)


def epoch_order(labels: np.ndarray, seed: Sequence[int], balanced: bool) -> np.ndarray:
    """In which order examples are shown, int64 [examples].

    Args:
      labels: int64 [examples].
      seed: the same numbers give the same order, in whatever process.
      balanced: drawn with replacement, every class as often as every other in the mean, instead of each example once.
    """
    random = np.random.default_rng(list(seed))
    if not balanced:
        return random.permutation(len(labels))
    share = 1 / np.bincount(labels)[labels]
    return random.choice(len(labels), len(labels), p=share / share.sum())


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
    labels, keys, digests, constants = [], [], [], []

    def images() -> Iterator[np.ndarray]:
        for batch in data.as_numpy_iterator():
            labels.append(batch[features.LABEL])
            keys.append(batch[features.KEY])
            # Not the keys: they are the files', and the same file may become other pixels.
            digests.extend(hashlib.sha256(image).digest() for image in batch[features.IMAGE])
            constants[:] = (batch[name][0] for name in (features.CHANNEL_ORDER, features.SCALE, features.OFFSET))
            yield batch[features.IMAGE]
            progress.advance(len(batch[features.IMAGE]))

    path = scratch / f"pixels-{len(list(scratch.iterdir()))}"
    with broken_image.looked_for(patterns, lambda: parse, broken_image.AS_STORED):
        rows.write(path, images())
    all_labels, all_keys = np.concatenate(labels), np.concatenate(keys)
    order = np.argsort(all_keys, kind="stable")
    stored = Rows(path, (len(all_labels), size, size, 3), np.float32 if as_float else np.uint8)
    digest = hashlib.sha256(b"".join(digests[row] for row in order)).hexdigest()
    return Split(stored, all_labels[order], order, tuple(constants), digest, all_keys[order])
