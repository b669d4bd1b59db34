"""The backbones: each with its own preprocessing, sizes and weight file, so that changing one cannot leave the wrong
scaling behind.

Nothing here imports Keras until a backbone is built: the command reads this table before it starts anything heavy.
"""

import hashlib
import math
import os
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase
from typing import Any

from components.errors import UsageError


@dataclass(frozen=True)
class Normalisation:
    """What a backbone expects of RGB pixels in 0 to 255: `pixels[channel_order] * scale + offset`.

    Attributes:
      channel_order: which input channel goes where; (2, 1, 0) is BGR.
      scale: per channel, applied first.
      offset: per channel, applied second.
    """

    channel_order: tuple[int, int, int]
    scale: tuple[float, float, float]
    offset: tuple[float, float, float]


RGB, BGR = (0, 1, 2), (2, 1, 0)
# -1 to 1.
SYMMETRIC = Normalisation(RGB, (1 / 127.5,) * 3, (-1.0,) * 3)
# Caffe's: BGR, minus the ImageNet mean of each channel, no scaling.
CAFFE = Normalisation(BGR, (1.0,) * 3, (-103.939, -116.779, -123.68))
# PyTorch's: 0 to 1, minus the ImageNet mean of each channel, divided by its standard deviation.
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TORCH = Normalisation(
    RGB,
    tuple(1 / (255 * deviation) for deviation in IMAGENET_DEVIATION),
    tuple(-mean / deviation for mean, deviation in zip(IMAGENET_MEAN, IMAGENET_DEVIATION, strict=True)),
)
# The backbone has rescaling layers of its own.
IDENTITY = Normalisation(RGB, (1.0,) * 3, (0.0,) * 3)


@dataclass(frozen=True)
class Backbone:
    """One row of the table.

    Attributes:
      constructor: name in `keras.applications`; None for the bundled network.
      normalisation: see `Normalisation`.
      blocks: what its paper or Keras calls a block (residual unit, Inception module, NASNet cell …), from the input up:
        the name of a block's last named layer, or the beginning of that name. A block begins where the one below ends;
        the lowest also has the stem, the topmost whatever follows.
      weights_file: name of the ImageNet weights without top under `KERAS_HOME/models`; from alpha and size where they
        matter.
      size: default side of the input in pixels.
      min_size: smallest side that it takes.
      alphas: width multipliers that ImageNet weights exist for; empty where it has none.
    """

    constructor: str | None
    normalisation: Normalisation
    blocks: tuple[str, ...]
    weights_file: str | Callable[[float, int], str] | None = None
    size: int = 224
    min_size: int = 32
    alphas: tuple[float, ...] = ()

    def weights_name(self, alpha: float, size: int) -> str:
        """Name of the file that Keras asks for."""
        return self.weights_file if isinstance(self.weights_file, str) else self.weights_file(alpha, size)


def _stages(pattern: str, counts: Sequence[int], first: int = 1) -> tuple[str, ...]:
    """The blocks of a network in stages: `pattern` holds the number of the stage and that of the block, from 1."""
    return tuple(pattern.format(stage, block) for stage, count in enumerate(counts, first) for block in _to(count))


def _to(last: int) -> range:
    return range(1, last + 1)


def _efficientnet(counts: Sequence[int], depth: float) -> tuple[str, ...]:
    """As `_stages`, with letters for the blocks, and the stages deeper by a factor."""
    scaled = [math.ceil(depth * count) for count in counts]
    return tuple(
        f"block{stage}{letter}_" for stage, count in enumerate(scaled, 1) for letter in ascii_lowercase[:count]
    )


def _nasnet(cells: int) -> tuple[str, ...]:
    """Two reductions, then three times that many normal cells, with a reduction between."""
    first, second, third = (
        [f"normal_concat_{start + cell}" for cell in range(cells)] for start in (0, cells + 1, 2 * cells + 1)
    )
    stem = ["reduction_concat_stem_1", "reduction_concat_stem_2"]
    return (*stem, *first, f"reduction_concat_reduce_{cells}", *second, f"reduction_concat_reduce_{2 * cells}", *third)


def _published(size: int, sizes: tuple[int, ...]) -> int:
    """Which of the published resolutions keras.applications takes the weights of."""
    return size if size in sizes else 224


def _mobilenet_file(alpha: float, size: int) -> str:
    text = {1.0: "1_0", 0.75: "7_5", 0.5: "5_0", 0.25: "2_5"}[alpha]
    return f"mobilenet_{text}_{_published(size, (128, 160, 192, 224))}_tf_no_top.h5"


def _mobilenet_v2_file(alpha: float, size: int) -> str:
    side = _published(size, (96, 128, 160, 192, 224))
    return f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{alpha}_{side}_no_top.h5"


BUNDLED = "graft_tiny"
NO_TOP = "_weights_tf_dim_ordering_tf_kernels_notop.h5"

BACKBONES = {
    BUNDLED: Backbone(None, SYMMETRIC, _stages("block{}_", [1] * 5), size=64),
    "vgg16": Backbone("VGG16", CAFFE, _stages("block{}_", [1] * 5), f"vgg16{NO_TOP}"),
    "vgg19": Backbone("VGG19", CAFFE, _stages("block{}_", [1] * 5), f"vgg19{NO_TOP}"),
    "xception": Backbone(
        "Xception", SYMMETRIC, _stages("block{}_", [1] * 14), f"xception{NO_TOP}", size=299, min_size=71
    ),
    "inception_v3": Backbone(
        "InceptionV3",
        SYMMETRIC,
        tuple(f"mixed{number}" for number in range(11)),
        f"inception_v3{NO_TOP}",
        size=299,
        min_size=75,
    ),
    "inception_resnet_v2": Backbone(
        "InceptionResNetV2",
        SYMMETRIC,
        (
            "mixed_5b",
            *(f"block35_{number}_" for number in _to(10)),
            "mixed_6a",
            *(f"block17_{number}_" for number in _to(20)),
            "mixed_7a",
            *(f"block8_{number}_" for number in _to(10)),
        ),
        f"inception_resnet_v2{NO_TOP}",
        size=299,
        min_size=75,
    ),
    "mobilenet": Backbone(
        "MobileNet",
        SYMMETRIC,
        tuple(f"conv_pw_{number}_" for number in _to(13)),
        _mobilenet_file,
        alphas=(0.25, 0.5, 0.75, 1.0),
    ),
    "mobilenet_v2": Backbone(
        "MobileNetV2",
        SYMMETRIC,
        ("expanded_conv_", *(f"block_{number}_" for number in _to(16))),
        _mobilenet_v2_file,
        alphas=(0.35, 0.5, 0.75, 1.0, 1.3, 1.4),
    ),
}

RESNET_UNITS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
BACKBONES |= {
    f"resnet{depth}": Backbone(
        f"ResNet{depth}", CAFFE, _stages("conv{}_block{}_", units, first=2), f"resnet{depth}{NO_TOP}"
    )
    for depth, units in RESNET_UNITS.items()
}
BACKBONES |= {
    f"resnet{depth}_v2": Backbone(
        f"ResNet{depth}V2", SYMMETRIC, _stages("conv{}_block{}_", units, first=2), f"resnet{depth}v2{NO_TOP}"
    )
    for depth, units in RESNET_UNITS.items()
}

BACKBONES |= {
    # Dense blocks, each with the transition that follows it.
    f"densenet{depth}": Backbone(
        f"DenseNet{depth}", TORCH, ("pool2_pool", "pool3_pool", "pool4_pool", "relu"), f"densenet{depth}{NO_TOP}"
    )
    for depth in (121, 169, 201)
}

BACKBONES |= {
    f"mobilenet_v3_{kind}": Backbone(
        f"MobileNetV3{kind.title()}",
        IDENTITY,
        ("expanded_conv_project_", *(f"expanded_conv_{number}_" for number in _to(last))),
        lambda alpha, size, kind=kind: f"weights_mobilenet_v3_{kind}_224_{alpha}_float_no_top_v2.h5",
        alphas=(0.75, 1.0),
    )
    for kind, last in (("small", 10), ("large", 14))
}

BACKBONES |= {
    f"nasnet_{kind}": Backbone(
        f"NASNet{kind.title()}", SYMMETRIC, _nasnet(cells), f"nasnet_{kind}_no_top.h5", size=size
    )
    for kind, cells, size in (("mobile", 4, 224), ("large", 6, 331))
}

BACKBONES |= {
    f"efficientnet_b{number}": Backbone(
        f"EfficientNetB{number}",
        IDENTITY,
        _efficientnet((1, 2, 2, 3, 3, 4, 1), depth),
        f"efficientnetb{number}_notop.h5",
        size=size,
    )
    for number, (depth, size) in enumerate(
        ((1.0, 224), (1.1, 240), (1.2, 260), (1.4, 300), (1.8, 380), (2.2, 456), (2.6, 528), (3.1, 600))
    )
}

BACKBONES |= {
    f"efficientnet_v2_{kind}": Backbone(
        f"EfficientNetV2{kind.upper()}",
        IDENTITY,
        _efficientnet(units, depth),
        f"efficientnetv2-{kind}_notop.h5",
        size=size,
    )
    for kind, units, depth, size in (
        ("b0", (1, 2, 2, 3, 5, 8), 1.0, 224),
        ("b1", (1, 2, 2, 3, 5, 8), 1.1, 240),
        ("b2", (1, 2, 2, 3, 5, 8), 1.2, 260),
        ("b3", (1, 2, 2, 3, 5, 8), 1.4, 300),
        ("s", (2, 4, 4, 6, 9, 15), 1.0, 384),
        ("m", (3, 5, 5, 7, 14, 18, 5), 1.0, 480),
        ("l", (4, 7, 7, 10, 19, 25, 7), 1.0, 480),
    )
}

BACKBONES |= {
    f"convnext_{kind.lower()}": Backbone(
        f"ConvNeXt{kind}",
        IDENTITY,
        # Keras counts these stages and blocks from 0.
        tuple(
            f"convnext_{kind.lower()}_stage_{stage}_block_{block}_"
            for stage, count in enumerate(units)
            for block in range(count)
        ),
        f"convnext_{kind.lower()}_notop.h5",
    )
    for kind, units in (
        ("Tiny", (3, 3, 9, 3)),
        ("Small", (3, 3, 27, 3)),
        ("Base", (3, 3, 27, 3)),
        ("Large", (3, 3, 27, 3)),
        ("XLarge", (3, 3, 27, 3)),
    )
}


def block_count(unfreeze: str | int | float) -> int | None:
    """The number in `2 blocks`; None where `training.fine_tune.unfreeze` is something else."""
    match = re.fullmatch(r"(\d+) ?blocks?", unfreeze) if isinstance(unfreeze, str) else None
    return int(match[1]) if match else None


def build(name: str, alpha: float, weights: str, size: int) -> Any:
    """Builds a backbone without top.

    Args:
      name: key of `BACKBONES`.
      alpha: width multiplier; ignored by backbones that have none.
      weights: `imagenet`, `bundled`, `none`, or the path of a file that `load_file` takes.
      size: side of the input in pixels.

    Returns:
      keras.Model from normalised float32 [batch, size, size, 3] to a feature map [batch, rows, columns, channels].

    Raises:
      UsageError: the weights cannot be had or do not fit.
    """
    import keras

    row = BACKBONES[name]
    shape = (size, size, 3)
    if row.constructor is None:
        from trainer import bundled

        backbone = bundled.build(shape, bundled.WEIGHTS if weights == "bundled" else None)
    else:
        options: dict[str, Any] = {"alpha": alpha} if row.alphas else {}
        constructor = getattr(keras.applications, row.constructor)
        try:
            backbone = constructor(
                include_top=False, weights="imagenet" if weights == "imagenet" else None, input_shape=shape, **options
            )
        except Exception as error:
            if weights != "imagenet" or "URL fetch failure" not in str(error):
                raise
            raise UsageError(_missing(name, alpha, size)) from None
    if weights not in ("imagenet", "bundled", "none"):
        load_file(backbone, Path(weights))
    return backbone


def copy(backbone: Any, name: str, alpha: float, size: int) -> Any:
    """The same network with the same weights, its layers in the current precision.

    Args:
      backbone: made by `build`.
      name: as for `build`.
      alpha: as for `build`.
      size: as for `build`.
    """
    twin = build(name, alpha, "none", size)
    twin.set_weights(backbone.get_weights())
    _settle_normalisation(twin)
    return twin


def load_file(backbone: Any, path: Path) -> None:
    """Loads weights from a file; nothing in the file is executed.

    Args:
      backbone: keras.Model without top; its weights are changed.
      path: a `.weights.h5` file; an older `.h5` file of weights, such as the `*_notop.h5` of keras.applications; or a
        `.keras` file of this backbone or of a classifier that begins with it.

    Raises:
      UsageError: the file cannot be read, or holds something else.
    """
    try:
        if path.suffix == ".keras":
            backbone.set_weights(_first_weights(path, backbone))
        else:
            with warnings.catch_warnings():
                # Keras warns and leaves random values where the file lacks a layer; here that is an error.
                warnings.simplefilter("error", UserWarning)
                backbone.load_weights(path)
    except (ValueError, OSError, TypeError, KeyError, UserWarning) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"model.weights: {path} does not fit {backbone.name}: {reason}") from None
    _settle_normalisation(backbone)


def _first_weights(path: Path, backbone: Any) -> list[Any]:
    """Those weights at the beginning of a saved model that have the backbone's shapes."""
    import keras

    # Some layers of keras.applications are their own and not known to Keras by name.
    layers = {type(layer).__name__: type(layer) for layer in backbone.layers}
    layers = {name: layer for name, layer in layers.items() if not hasattr(keras.layers, name)}
    # Safe mode (the default, named here because it matters) refuses code inside the file.
    model = keras.saving.load_model(path, custom_objects=layers, compile=False, safe_mode=True)
    wanted = [weight.shape for weight in backbone.weights]
    weights = model.weights[: len(wanted)]
    if [weight.shape for weight in weights] != wanted:
        raise ValueError(
            f"the model in it ({model.name}) does not begin with the {len(wanted)} weights of this backbone "
            "(another network or alpha, or layers with weights in front of it)."
        )
    return [weight.numpy() for weight in weights]


def _settle_normalisation(backbone: Any) -> None:
    """Makes EfficientNet's Normalization layer, the only one with weights, use those that were loaded.

    It works with tensors made from its weights, which `set_weights` does not renew. And where its variances are in
    truth ImageNet's standard deviations, as in the published files, Keras makes up for it by a second Rescaling layer,
    but only for weights that it downloads itself (https://github.com/tensorflow/tensorflow/issues/49930).
    """
    import keras
    import numpy as np

    for layer in backbone.layers:
        if isinstance(layer, keras.layers.Normalization) and layer.weights:
            mean, variance, count = layer.get_weights()
            if np.allclose(variance, IMAGENET_DEVIATION, rtol=1e-3):
                layer.set_weights([mean, variance**2, count])
            layer.finalize_state()


# ---- checks before anything expensive -------------------------------------------------------------------------------


def keras_home() -> Path:
    """Where Keras keeps downloaded weights: `KERAS_HOME`, or `~/.keras`."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras").expanduser()


def require_weights(name: str, alpha: float, weights: str, size: int) -> None:
    """Makes sure that the weights are at hand, downloading ImageNet ones (and only those) where they are not.

    A file's are loaded once, because it may not fit.

    Raises:
      UsageError: they cannot be had or do not fit; the message names the file and its place, and what avoids it.
    """
    row = BACKBONES[name]
    if weights == "imagenet":
        if not (keras_home() / "models" / row.weights_name(alpha, size)).is_file():
            build(name, alpha, weights, size)
    elif weights not in ("bundled", "none"):
        if not os.path.isfile(weights):
            raise UsageError(
                f"model.weights: there is no file {weights}; give imagenet, bundled, none or a file's path."
            )
        if not weights.endswith((".keras", ".h5", ".hdf5")):
            raise UsageError(
                f"model.weights: a file of weights ends in .keras, .weights.h5 or .h5. Received: {weights}."
            )
        build(name, alpha, weights, size)


def require_start(name: str, alpha: float, unfreeze: str | int | float) -> None:
    """Makes sure that `training.fine_tune.unfreeze` leaves something to train.

    Only an index, a name or a small share can miss; for those the backbone is built, with random weights and small.

    Raises:
      UsageError: no layer of this backbone is meant, or those that are have no weights.
    """
    # Above its last weights, no backbone has more than 8 % of its layers.
    if unfreeze == "all" or block_count(unfreeze) is not None or (isinstance(unfreeze, float) and unfreeze >= 0.1):
        return
    import keras

    from trainer import model

    row = BACKBONES[name]
    # Keras numbers layers without a name of their own by how many the process has made: none before this network, as
    # in the Trainer, and none before the next.
    keras.backend.clear_session()
    backbone = build(name, alpha, "none", row.min_size)
    model.unfreeze(backbone, model.first_unfrozen(backbone, unfreeze, row.blocks))
    keras.backend.clear_session()


def _missing(name: str, alpha: float, size: int) -> str:
    row = BACKBONES[name]
    return (
        f"The ImageNet weights of {name} could not be downloaded: put {row.weights_name(alpha, size)} into "
        f"{keras_home() / 'models'}, or set model.weights to a file's path or none, or use model.backbone={BUNDLED} "
        "with model.weights=bundled."
    )


def weights_digest(weights: str) -> str:
    """Digest of a weight file's content, so that a new file under an old name is noticed; the name for the others."""
    path = Path(__file__).parent / "bundled" / "backbone.weights.h5" if weights == "bundled" else Path(weights)
    if weights in ("imagenet", "none") or not os.path.isfile(path):
        return weights
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
