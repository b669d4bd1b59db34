"""The exported model: raw image bytes in, class, score and probabilities out, with TensorFlow alone."""

import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from components import features, pixels
from components.temperature import SMALLEST

LABELS_FILE = "labels.txt"
SIGNATURES = ("serving_default", "serving_examples", "serving_pixels", "transform_features")


class State(tf.Module):
    """What a loaded model has as attributes.

    Attributes:
      class_names: string [classes], by id.
      image_size: int32, side of the pixels that the network sees.
      labels: the file with the class names.
      weights: in the order of the network's variables.
    """

    def __init__(self, model: keras.Model, class_names: Sequence[str], image_size: int, labels_file: str):
        super().__init__()
        # Its variables rather than its layers, which nothing needs in a served model and which take seconds to save.
        self.weights = [variable.value for variable in model.variables]
        # Variables, because a loaded module has its variables and assets as attributes, but no constants.
        self.class_names = tf.Variable(list(class_names), trainable=False, dtype=tf.string)
        self.image_size = tf.Variable(image_size, trainable=False, dtype=tf.int32)
        self.labels = tf.saved_model.Asset(labels_file)


class Classifier:
    """Preprocessing and network as four signatures.

    It is no `tf.Module`: the functions of one are saved a second time, beside the signatures made of them.

    Attributes:
      state: what belongs to the signatures.
    """

    def __init__(
        self,
        model: keras.Model,
        class_names: Sequence[str],
        preprocessing: dict,
        constants: tuple[np.ndarray, np.ndarray, np.ndarray],
        labels_file: str,
        temperature: float,
    ):
        self.state = State(model, class_names, preprocessing["size"], labels_file)
        self._temperature = temperature
        self._network = functools.partial(model, training=False)
        self._preprocessing = preprocessing
        self._constants = [value.tolist() for value in constants]
        size = preprocessing["size"]
        # The network is traced and stored once, as this; the others call it. Made here, where its shape is known.
        self.serving_pixels = tf.function(
            self._serving_pixels, input_signature=[tf.TensorSpec([None, size, size, 3], tf.uint8, name="pixels")]
        )

    def _serving_pixels(self, resized):
        """Images that were decoded, turned upright and resized, RGB, uint8 [batch, size, size, 3]."""
        probabilities = self._network(pixels.normalise(resized, *self._constants))
        if self._temperature != 1:
            # As `temperature.scaled` does it.
            probabilities = tf.nn.softmax(tf.math.log(tf.maximum(probabilities, SMALLEST)) / self._temperature)
        return {"probabilities": probabilities}

    # One function for both signatures.
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="encoded")])
    def _classify(self, encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        prepared = pixels.prepare(encoded, **self._preprocessing)
        probabilities = self.serving_pixels(prepared)["probabilities"]
        return {
            "label": tf.gather(self.state.class_names, tf.argmax(probabilities, axis=1)),
            "score": tf.reduce_max(probabilities, axis=1),
            "probabilities": probabilities,
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def serving_default(self, image_bytes):
        """Files as they are on disk, string [batch]."""
        return self._classify(image_bytes)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def serving_examples(self, examples):
        """Serialised raw `tf.Example`s, string [batch]."""
        spec = {features.ENCODED: tf.io.FixedLenFeature([], tf.string)}
        return self._classify(tf.io.parse_example(examples, spec)[features.ENCODED])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def transform_features(self, examples):
        """Serialised raw `tf.Example`s to their true label ids, int64 [batch]; -1 for a class that is not known."""
        spec = {features.CLASS_NAME: tf.io.FixedLenFeature([], tf.string)}
        names = tf.io.parse_example(examples, spec)[features.CLASS_NAME]
        same = tf.equal(names[:, tf.newaxis], self.state.class_names[tf.newaxis, :])
        known = tf.reduce_any(same, axis=1)
        return {features.LABEL: tf.where(known, tf.argmax(same, axis=1), -tf.ones_like(known, tf.int64))}


def export(
    model: keras.Model,
    class_names: Sequence[str],
    preprocessing: dict,
    constants: tuple[np.ndarray, np.ndarray, np.ndarray],
    folder: Path,
    temperature: float = 1.0,
) -> None:
    """Writes a SavedModel.

    Args:
      model: normalised float32 [batch, size, size, 3] to probabilities [batch, classes].
      class_names: by id.
      preprocessing: `size`, `mode` and `storage` for `pixels.prepare`.
      constants: channel order, scale and offset for `pixels.normalise`.
      folder: where to write; made.
      temperature: that the network's probabilities are brought to (`calibration.temperature`).
    """
    with tempfile.TemporaryDirectory() as scratch:
        labels = Path(scratch, LABELS_FILE)
        # One class a line; a newline inside a name would break that, so it is written as \n.
        labels.write_text("".join(name.replace("\n", "\\n") + "\n" for name in class_names), encoding="utf-8")
        classifier = Classifier(model, class_names, preprocessing, constants, str(labels), temperature)
        signatures = {name: getattr(classifier, name).get_concrete_function() for name in SIGNATURES}
        tf.saved_model.save(classifier.state, str(folder), signatures=signatures)
