"""The bundled backbone: a small convolutional network that travels with the project.

It exists so that ``make demo`` needs neither a network connection nor somebody else's weights. The weights beside this
file were trained by ``data/make_backbone.py`` on images drawn by that same script; ``docs/bundled_backbone.md`` says
how well they transfer and where they do not.

The network takes images that are already normalised to [-1, 1] and returns a spatial feature map. It is fully
convolutional (total stride 16), so any input of at least 32 pixels a side will do. Layers are named ``block1_*`` to
``block5_*`` in order of depth: fine-tuning unfreezes whole blocks from the top down.
"""

from __future__ import annotations

import os
from pathlib import Path

import keras
from keras import layers

DEFAULT_SIZE = 64
"""Side in pixels that the weights were trained at and that callers should use unless they know better."""

MINIMUM_SIZE = 32
"""Smallest side that still leaves more than one cell in the final feature map."""

WEIGHTS = Path(__file__).with_name("backbone.weights.h5")
"""The trained weights, in Keras' own ``.weights.h5`` format."""

STEM_CHANNELS = 16
STAGE_CHANNELS = (32, 80, 136)
OUTPUT_CHANNELS = 192


def build(
    input_shape: tuple[int | None, int | None, int], weights_path: str | os.PathLike | None = None
) -> keras.Model:
    """Return the backbone without a top, as a functional model.

    Args:
        input_shape: Height, width and 3 channels. Height and width may be ``None``.
        weights_path: A weights file to load, usually :data:`WEIGHTS`; ``None`` leaves the random initialisation.

    Returns:
        A model from float32 images in [-1, 1] to a feature map of ``OUTPUT_CHANNELS`` channels at 1/16 of the size.

    Raises:
        ValueError: The input is not RGB, or a side is below ``MINIMUM_SIZE``.
    """
    _check_shape(input_shape)
    images = keras.Input(tuple(input_shape), name="images")
    x = _conv(images, STEM_CHANNELS, "block1", stride=2)
    for number, channels in enumerate(STAGE_CHANNELS, start=2):
        x = _stage(x, channels, f"block{number}")
    features = _conv(x, OUTPUT_CHANNELS, f"block{len(STAGE_CHANNELS) + 2}", kernel=1)
    model = keras.Model(images, features, name="graft_tiny")
    if weights_path is not None:
        model.load_weights(os.fspath(weights_path))
    return model


def _check_shape(input_shape: tuple[int | None, int | None, int]) -> None:
    """Reject shapes that Keras would accept now and fail on later, with a message that says what to change."""
    height, width, channels = input_shape
    if channels != 3:
        raise ValueError(f"the bundled backbone takes RGB images (3 channels), not {channels}")
    if any(side is not None and side < MINIMUM_SIZE for side in (height, width)):
        raise ValueError(f"the bundled backbone needs at least {MINIMUM_SIZE} pixels a side, got {height}x{width}")


def _stage(x: keras.KerasTensor, channels: int, name: str) -> keras.KerasTensor:
    """Halve the resolution, then refine with one residual convolution."""
    x = _conv(x, channels, f"{name}_down", stride=2)
    residual = layers.Conv2D(channels, 3, padding="same", use_bias=False, name=f"{name}_refine_conv")(x)
    residual = layers.BatchNormalization(name=f"{name}_refine_bn")(residual)
    x = layers.Add(name=f"{name}_add")([x, residual])
    return layers.ReLU(name=f"{name}_relu")(x)


def _conv(x: keras.KerasTensor, channels: int, name: str, kernel: int = 3, stride: int = 1) -> keras.KerasTensor:
    """Convolution, batch normalisation, ReLU."""
    x = layers.Conv2D(channels, kernel, stride, padding="same", use_bias=False, name=f"{name}_conv")(x)
    x = layers.BatchNormalization(name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x)
