"""The network: a backbone, a pooled feature, a head; and which of its layers learn."""

import bisect
import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras

from components.errors import UsageError
from trainer.backbones import block_count


@contextlib.contextmanager
def precision(policy: str) -> Iterator[None]:
    """Layers made meanwhile compute in that precision; their variables are float32 in any case.

    Args:
      policy: `float32`, `mixed_float16` or `mixed_bfloat16`.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


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
    # In float32 whatever the backbone computes in: it costs nothing, and a softmax in half precision loses digits.
    with precision("float32"):
        inputs = keras.Input((features,))
        x = inputs
        for units in hidden:
            x = keras.layers.Dense(units, activation="relu")(x)
        x = keras.layers.Dropout(dropout)(x)
        outputs = keras.layers.Dense(classes, activation="softmax", name="probabilities")(x)
        return keras.Model(inputs, outputs, name="head")


def joined(features: keras.Model, head_model: keras.Model) -> keras.Model:
    """Backbone and head as one model: normalised pixels to probabilities. It shares both models' variables."""
    return keras.Model(features.input, head_model(features.output), name="classifier")


def divide(backbone: keras.Model, start: int) -> tuple[keras.Model | None, keras.Model]:
    """Cuts a backbone in two where fine-tuning begins, so that what never changes need not be computed in every epoch.

    Args:
      backbone: a functional model.
      start: index of the first layer that fine-tuning trains.

    Returns:
      The trunk, which holds no layer that `unfreeze` makes trainable, and the rest, which takes its output. Both
      share the backbone's layers. The trunk is None, and the rest the whole backbone, where no single tensor below
      `start` feeds all that follows.
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
    for index in range(1, position[id(backbone.layers[start])]):
        farthest = max(farthest, reach[index - 1])
        if farthest <= index:
            cut = index
    if cut == 0:
        return None, backbone
    seam = steps[cut].output
    return keras.Model(backbone.input, seam, name="trunk"), keras.Model(seam, backbone.output, name="top")


def unfreeze(backbone: keras.Model, start: int) -> None:
    """Makes the top of a backbone trainable; BatchNorm layers stay frozen.

    Args:
      backbone: its layers are changed.
      start: index of the first layer to train.

    Raises:
      UsageError: nothing would be trainable.
    """
    backbone.trainable = True
    for index, layer in enumerate(backbone.layers):
        layer.trainable = index >= start and not _is_batch_norm(layer)
    if not backbone.trainable_weights:
        raise UsageError(
            f"training.fine_tune.unfreeze leaves nothing of {backbone.name} to train: layer {start} of "
            f"{len(backbone.layers)}, and what follows it, has no weights; begin lower."
        )


def first_unfrozen(backbone: keras.Model, setting: str | int | float, blocks: Sequence[str]) -> int:
    """Index of the first layer that fine-tuning trains.

    Args:
      backbone: without top.
      setting: `all`; a number of blocks from the top, such as `2 blocks`; a layer's name, or the beginning of one, such
        as `block5`; an int, the index of the first layer; a float above 0 and up to 1, the share of the layers from the
        top.
      blocks: of its row in `backbones.BACKBONES`.

    Raises:
      UsageError: the name or index is not in the backbone.
    """
    layers: list[Any] = backbone.layers
    has = f"training.fine_tune.unfreeze: {backbone.name} has {len(layers)} layers"
    if setting == "all":
        return 0
    if (count := block_count(setting)) is not None:
        return _start_of_blocks(layers, blocks, count)
    if isinstance(setting, str):
        for index, layer in enumerate(layers):
            if layer.name.startswith(setting):
                return index
        raise UsageError(f"{has} and none whose name begins with {setting!r}; the last is {layers[-1].name!r}.")
    if isinstance(setting, float):
        return int(len(layers) * (1 - setting))
    if not 0 <= setting < len(layers):
        raise UsageError(f"{has}, so an index must be 0 to {len(layers) - 1}. Received: {setting}.")
    return setting


def _start_of_blocks(layers: list[Any], blocks: Sequence[str], count: int) -> int:
    """Where the topmost blocks begin: the first layer in them that fine-tuning trains."""
    if count == len(blocks):
        return 0
    last = _last_layers(layers, blocks)[-count - 1]
    # Xception's BatchNorm layers of shortcuts have no names of their own and may come after the last that has.
    return next(
        index for index in range(last + 1, len(layers)) if layers[index].weights and not _is_batch_norm(layers[index])
    )


def rate_factors(backbone: keras.Model, blocks: Sequence[str], decay: float) -> dict[str, float]:
    """What the learning rate of each variable is multiplied by: 1 in the topmost block, `decay` times as much in each
    block below.

    Args:
      backbone: without top.
      blocks: of its row in `backbones.BACKBONES`.
      decay: above 0, up to 1.

    Returns:
      By the variable's `path`.
    """
    ends = _last_layers(backbone.layers, blocks)[:-1]
    return {
        weight.path: decay ** (len(ends) - bisect.bisect_left(ends, index))
        for index, layer in enumerate(backbone.layers)
        for weight in layer.weights
    }


def _last_layers(layers: list[Any], blocks: Sequence[str]) -> list[int]:
    """Index of the last layer that is named after each block."""
    found = []
    for block in blocks:
        # InceptionV3 has layers mixed1 and mixed10: a whole name comes before the beginning of one.
        exact = [index for index, layer in enumerate(layers) if layer.name == block]
        found.append((exact or [index for index, layer in enumerate(layers) if layer.name.startswith(block)])[-1])
    return found


def _is_batch_norm(layer: keras.Layer) -> bool:
    return isinstance(layer, keras.layers.BatchNormalization)
