"""Raw examples as ingestion writes them, for tests that need no pipeline."""

import hashlib
import io
import os
from pathlib import Path

import tensorflow as tf
from PIL import Image

from components import features


def picture(colour: tuple[int, int, int], size: tuple[int, int] = (40, 30), kind: str = "JPEG", **options) -> bytes:
    """A file of one colour."""
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, kind, **options)
    return file.getvalue()


def write_split(examples: Path, split: str, rows: list[tuple[str, str, bytes]], shard: int = 0) -> list[str]:
    """A file of a split.

    Args:
      examples: folder of the artifact.
      split: its name.
      rows: class, file name and content of each image.
      shard: number of the file.

    Returns:
      The content hashes.
    """
    folder = examples / f"Split-{split}"
    folder.mkdir(parents=True, exist_ok=True)
    keys = [hashlib.sha256(content).hexdigest() for _, _, content in rows]
    with tf.io.TFRecordWriter(str(folder / f"data_tfrecord-{shard:05d}-of-00002")) as writer:
        for key, (name, filename, content) in zip(keys, rows, strict=True):
            example = tf.train.Example()
            texts = {
                features.FORMAT: b"jpeg",
                features.FILENAME: os.fsencode(filename),
                features.SHA256: key.encode(),
                features.CLASS_NAME: name.encode(),
                features.ENCODED: content,
            }
            for feature, value in texts.items():
                example.features.feature[feature].bytes_list.value.append(value)
            for feature in (features.HEIGHT, features.WIDTH, features.CHANNELS):
                example.features.feature[feature].int64_list.value.append(300)
            writer.write(example.SerializeToString(deterministic=True))
    return keys
