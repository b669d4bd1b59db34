"""Transform's `preprocessing_fn`: encoded files to small stored images, labels and normalisation constants."""

from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from components import features, pixels


def preprocessing_fn(inputs: dict[str, tf.Tensor], custom_config: dict[str, Any]) -> dict[str, tf.Tensor]:
    """Decodes, resizes and stores each image, and looks its label up.

    Args:
      inputs: raw features, each [batch] (see `components.features`).
      custom_config: `class_names` by id; `image_size` (pixels), `resize` and `storage` (see `components.pixels`);
        `normalisation`, either `{channel_order, scale, offset}` (the backbone's) or None for mean and variance of the
        train split.

    Returns:
      `image`: string [batch] (see `pixels.store`), or float32 [batch, size * size * 3] where `storage` is `float`;
      `label`: int64 [batch]; `key`: string [batch]; the normalisation constants, [batch, 3] each.
    """
    how = {
        "size": custom_config["image_size"],
        "mode": custom_config["resize"],
        "storage": custom_config["storage"],
    }
    encoded = inputs[features.ENCODED]
    # Pixels are needed here for statistics or for float storage; otherwise only the stored form is computed.
    wanted = custom_config["normalisation"]
    image = pixels.prepare(encoded, **how) if wanted is None or how["storage"] == "float" else None
    order, scale, offset = (
        _constants(image)
        if wanted is None
        else (
            tf.constant(wanted["channel_order"], tf.int64),
            tf.constant(wanted["scale"], tf.float32),
            tf.constant(wanted["offset"], tf.float32),
        )
    )
    if how["storage"] == "float":
        stored = tf.reshape(pixels.normalise(image, order, scale, offset), [-1, how["size"] ** 2 * 3])
    else:
        stored = pixels.prepare_stored(encoded, **how)
    # Ids by the class names' order in the schema (TFT's own vocabulary orders by frequency, which new images change).
    label = tf.argmax(tf.equal(inputs[features.CLASS_NAME][:, tf.newaxis], custom_config["class_names"]), axis=1)
    batch = tf.shape(encoded)[0]
    return {
        features.IMAGE: stored,
        features.LABEL: label,
        features.KEY: inputs[features.SHA256],
        features.CHANNEL_ORDER: tf.tile(order[tf.newaxis], [batch, 1]),
        features.SCALE: tf.tile(scale[tf.newaxis], [batch, 1]),
        features.OFFSET: tf.tile(offset[tf.newaxis], [batch, 1]),
    }


def _constants(image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Zero mean and unit variance per channel over the train split, computed by TFT's analyzers in Beam."""
    values = tf.cast(image, tf.float32)
    mean = tft.mean(tf.reduce_mean(values, [1, 2]), reduce_instance_dims=False)
    square = tft.mean(tf.reduce_mean(values**2, [1, 2]), reduce_instance_dims=False)
    scale = tf.math.rsqrt(tf.maximum(square - mean**2, 1.0))
    return tf.constant([0, 1, 2], tf.int64), scale, -mean * scale
