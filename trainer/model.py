"""The network: a backbone, a pooled feature, a head; and which of its layers learn."""

from collections.abc import Sequence
from typing import Any

import keras

from components.errors import UsageError


def pooled(backbone: keras.Model, pooling: str) -> keras.Model:
    """The backbone in inference mode with its feature map pooled.

    `training=False` is part of the graph, so that BatchNorm uses its moving statistics in both phases.

    Args:
      backbone: [batch, size, size, 3] to [batch, rows, columns, channels].
      pooling: `average`, `max` or `flatten`.

    Returns:
      keras.Model to float32 [batch, features].
    """
    inputs = keras.Input(backbone.input_shape[1:], name="pixels")
    layer = {
        "average": keras.layers.GlobalAveragePooling2D,
        "max": keras.layers.GlobalMaxPooling2D,
        "flatten": keras.layers.Flatten,
    }[pooling](name="pooled")
    return keras.Model(inputs, layer(backbone(inputs, training=False)), name="features")


def head(features: int, classes: int, hidden: list[int], dropout: float) -> keras.Model:
    """Hidden ReLU layers (none by default), dropout before the last layer, softmax.

    Args:
      features: width of the pooled features.
      classes: number of classes.
      hidden: units of each hidden layer.
      dropout: 0 to 1, share of the last layer's inputs that is dropped in training.

    Returns:
      keras.Model from [batch, features] to probabilities [batch, classes].
    """
    inputs = keras.Input((features,))
    x = inputs
    for units in hidden:
        x = keras.layers.Dense(units, activation="relu")(x)
    x = keras.layers.Dropout(dropout)(x)
    return keras.Model(inputs, keras.layers.Dense(classes, activation="softmax", name="probabilities")(x), name="head")


def joined(features: keras.Model, head_model: keras.Model) -> keras.Model:
    """Backbone and head as one model: normalised pixels to probabilities. It shares both models' variables."""
    return keras.Model(features.input, head_model(features.output), name="classifier")


def divide(backbone: keras.Model, start: str | int | float) -> tuple[keras.Model | None, keras.Model]:
    """Cuts a backbone in two where fine-tuning begins, so that what never changes need not be computed in every epoch.

    Args:
      backbone: a functional model.
      start: as for `unfreeze`.

    Returns:
      The trunk, which holds no layer that `unfreeze` makes trainable, and the rest, which takes its output. Both
      share the backbone's layers. The trunk is None, and the rest the whole backbone, where no single tensor below
      `start` feeds all that follows.

    Raises:
      UsageError: the name or index is not in the backbone.
    """
    # Not the layers: ConvNeXt adds its shortcuts with operations that are none.
    steps = backbone.operations
    position = {id(step): index for index, step in enumerate(steps)}
    # How far up each step's output is used: nothing may reach past the cut but the cut's own output.
    reach = list(range(len(steps)))
    for index, step in enumerate(steps):
        for node in step._inbound_nodes:
            for parent in node.parent_nodes:
                if (below := position.get(id(parent.operation))) is not None:
                    reach[below] = max(reach[below], index)
    farthest, cut = 0, 0
    for index in range(1, position[id(backbone.layers[_first_layer(backbone, start)])]):
        farthest = max(farthest, reach[index - 1])
        if farthest <= index:
            cut = index
    if cut == 0:
        return None, backbone
    seam = steps[cut].output
    return keras.Model(backbone.input, seam, name="trunk"), keras.Model(seam, backbone.output, name="top")


def unfreeze(backbone: keras.Model, start: str | int | float) -> int:
    """Makes the top of a backbone trainable; BatchNorm layers stay frozen.

    Args:
      backbone: its layers are changed.
      start: `all`; a layer's name, or the beginning of one, such as `block5`; an int, the index of the first layer to
        train; a float above 0 and up to 1, the share of the layers, counted from the top.

    Returns:
      How many layers with weights are trainable.

    Raises:
      UsageError: the name or index is not in the backbone, or nothing would be trainable.
    """
    first = _first_layer(backbone, start)
    backbone.trainable = True
    for index, layer in enumerate(backbone.layers):
        layer.trainable = index >= first and not _is_batch_norm(layer)
    count = sum(bool(layer.trainable_weights) for layer in backbone.layers)
    if not count:
        raise UsageError(f"training.fine_tune.unfreeze: {start!r} leaves nothing of {backbone.name} to train.")
    return count


def start_of_blocks(backbone: keras.Model, blocks: Sequence[str], count: int) -> int:
    """Where the topmost blocks begin.

    Args:
      backbone: without top.
      blocks: of its row in `backbones.BACKBONES`.
      count: 1 to `len(blocks)`, how many blocks.

    Returns:
      Index of the first layer in them that fine-tuning trains, for `divide` and `unfreeze`; 0 for all blocks.
    """
    if count == len(blocks):
        return 0
    layers, end = backbone.layers, blocks[-count - 1]
    # InceptionV3 has layers mixed1 and mixed10: a whole name comes before the beginning of one.
    exact = [index for index, layer in enumerate(layers) if layer.name == end]
    last = (exact or [index for index, layer in enumerate(layers) if layer.name.startswith(end)])[-1]
    # Xception's BatchNorm layers of shortcuts have no names of their own and may come after the last that has.
    return next(
        index for index in range(last + 1, len(layers)) if layers[index].weights and not _is_batch_norm(layers[index])
    )


def _is_batch_norm(layer: keras.Layer) -> bool:
    return isinstance(layer, keras.layers.BatchNormalization)


def _first_layer(backbone: keras.Model, start: str | int | float) -> int:
    layers: list[Any] = backbone.layers
    setting = f"training.fine_tune.unfreeze: {backbone.name} has {len(layers)} layers"
    if start == "all":
        return 0
    if isinstance(start, str):
        for index, layer in enumerate(layers):
            if layer.name.startswith(start):
                return index
        raise UsageError(f"{setting} and none whose name begins with {start!r}; the last is {layers[-1].name!r}.")
    if isinstance(start, float):
        return int(len(layers) * (1 - start))
    if not 0 <= start < len(layers):
        raise UsageError(f"{setting}, so an index must be 0 to {len(layers) - 1}. Received: {start}.")
    return start
