"""Writing examples: each bundle a file, with no image crossing from one stage of the pipeline to the next.

Beam's own sink gives its writers the name of a temporary folder as a side input. A stage ends where one comes in, so
that a runner would first put every image away, or send it on: over the network on a cluster, into memory here.
"""

import os
import uuid

import apache_beam as beam
import tensorflow as tf
from apache_beam.transforms.window import GlobalWindows


class WriteExamples(beam.PTransform):
    """Serialised examples -> the TFRecord files `PREFIX-00000-of-0000N` and so on, at least one.

    A bundle's file has a name of its own at first. What a runner does twice, or begins and loses, leaves files that
    nobody names in the end; they go with the folder `.PREFIX`, which is beside the files until all have their names.
    """

    def __init__(self, prefix: str, suffix: str = ""):
        """Where to write.

        Args:
          prefix: path or URI that the files' names begin with; nothing is there yet.
          suffix: what they end with; `.gz` compresses.
        """
        super().__init__()
        self._prefix, self._suffix = prefix, suffix

    def expand(self, examples: beam.PCollection) -> beam.PCollection:
        folder, name = os.path.split(self._prefix)
        unnamed = os.path.join(folder, f".{name}")
        return (
            examples
            | "Write" >> beam.ParDo(_WriteBundle(unnamed, self._suffix))
            | "Files" >> beam.CombineGlobally(beam.combiners.ToListCombineFn())
            | "Name" >> beam.Map(_name, unnamed, self._prefix, self._suffix)
        )


def _options(suffix: str) -> tf.io.TFRecordOptions:
    return tf.io.TFRecordOptions(compression_type="GZIP" if suffix.endswith(".gz") else "")


class _WriteBundle(beam.DoFn):
    """Serialised examples -> the path of the file that a bundle of them is in."""

    def __init__(self, folder: str, suffix: str):
        self._folder, self._suffix = folder, suffix

    def start_bundle(self) -> None:
        self._writer = None

    def process(self, example: bytes) -> None:
        if self._writer is None:
            tf.io.gfile.makedirs(self._folder)
            self._path = os.path.join(self._folder, uuid.uuid4().hex)
            self._writer = tf.io.TFRecordWriter(self._path, _options(self._suffix))
        self._writer.write(example)

    def finish_bundle(self):
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            yield GlobalWindows.windowed_value(self._path)


def _name(paths: list[str], unnamed: str, prefix: str, suffix: str) -> None:
    """Gives the files their names; done again after some of it was, it does the rest."""
    for number, path in enumerate(sorted(paths)):
        final = f"{prefix}-{number:05d}-of-{len(paths):05d}{suffix}"
        if tf.io.gfile.exists(path):
            tf.io.gfile.rename(path, final, overwrite=True)
        elif not tf.io.gfile.exists(final):
            raise FileNotFoundError(f"{path} is gone, which a worker wrote: do all workers see this folder?")
    if not paths:
        # Who reads a split without images finds a file.
        tf.io.TFRecordWriter(f"{prefix}-00000-of-00001{suffix}", _options(suffix)).close()
    if tf.io.gfile.exists(unnamed):
        tf.io.gfile.rmtree(unnamed)
