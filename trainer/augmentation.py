"""Random changes to training images that leave their class what it is, by Keras' preprocessing layers."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf


class Augmentation:
    """Changes a batch of images, each in its own way.

    The seed decides everything: the same one draws the same changes, in whatever process, as long as the batches come
    in the same order.
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

    def reseed(self, seed: Sequence[int]) -> None:
        """Begins the sequence of random numbers that these numbers name."""
        states = np.random.SeedSequence(list(seed)).generate_state(2 * len(self._layers)).reshape(-1, 2)
        for layer, state in zip(self._layers, states, strict=True):
            layer.generator.state.assign(state)

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """Float32 of the same shape and range; images are uint8 or float32 [batch, height, width, 3]."""
        images = tf.cast(images, tf.float32)
        for layer in self._layers:
            images = layer(images, training=True)
        return images
