"""Random changes to training images that leave their class what it is, by Keras' preprocessing layers."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf


class Augmentation:
    """Changes a batch of images, each in its own way.

    The numbers that name a batch decide everything: they draw the same changes in whatever process, and whatever was
    drawn before.
    """

    def __init__(self, settings: dict[str, Any]):
        """Builds the layers; those whose setting is 0 or `none` are left out.

        Args:
          settings: `flip`; `rotation` in degrees either way; `translation` and `zoom` as shares of the side;
            `brightness` as a share of the range and `contrast` as a share of the deviation from the mean.
        """
        layers: list[keras.Layer] = []
        exact = {"dtype": "float32"}  # whatever the network computes in
        flip = {"both": "horizontal_and_vertical"}.get(settings["flip"], settings["flip"])
        if flip != "none":
            layers.append(keras.layers.RandomFlip(flip, **exact))
        # What turns up at the borders is a reflection: black edges would be a feature to learn from.
        if degrees := settings["rotation"]:
            layers.append(keras.layers.RandomRotation(degrees / 360, fill_mode="reflect", **exact))
        if share := settings["translation"]:
            layers.append(keras.layers.RandomTranslation(share, share, fill_mode="reflect", **exact))
        if share := settings["zoom"]:
            layers.append(keras.layers.RandomZoom(share, fill_mode="reflect", **exact))
        if share := settings["brightness"]:
            layers.append(keras.layers.RandomBrightness(share, value_range=(0, 255), **exact))
        if share := settings["contrast"]:
            layers.append(keras.layers.RandomContrast(share, value_range=(0, 255), **exact))
        self._layers = layers

    def __bool__(self) -> bool:
        """Whether it changes anything."""
        return bool(self._layers)

    def states(self, seed: Sequence[int]) -> np.ndarray:
        """Where the layers' random generators stand for the batch that these numbers name, uint32 [layers, 2]."""
        return np.random.SeedSequence(list(seed)).generate_state(2 * len(self._layers)).reshape(-1, 2)

    def __call__(self, images: tf.Tensor, states: tf.Tensor) -> tf.Tensor:
        """Changes a batch; inside a graph.

        Args:
          images: uint8 or float32 [batch, height, width, 3].
          states: of `states`.

        Returns:
          float32 of the same shape and range.
        """
        images = tf.cast(images, tf.float32)
        for number, layer in enumerate(self._layers):
            layer.generator.state.assign(states[number])
            images = layer(images, training=True)
        return images
