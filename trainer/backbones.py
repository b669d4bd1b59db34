"""The backbones: each with its own preprocessing, sizes and weight file, so that changing one cannot leave the wrong
scaling behind.

Nothing here imports Keras until a backbone is built: the command reads this table before it starts anything heavy.
"""

import hashlib
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
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


RGB = (0, 1, 2)
# -1 to 1.
SYMMETRIC = Normalisation(RGB, (1 / 127.5,) * 3, (-1.0,) * 3)
# Caffe's: BGR, minus the ImageNet mean of each channel, no scaling.
CAFFE = Normalisation((2, 1, 0), (1.0,) * 3, (-103.939, -116.779, -123.68))
# The backbone has rescaling layers of its own.
IDENTITY = Normalisation(RGB, (1.0,) * 3, (0.0,) * 3)


@dataclass(frozen=True)
class Backbone:
    """One row of the table.

    Attributes:
      constructor: name in `keras.applications`; None for the bundled network.
      normalisation: see `Normalisation`.
      size: default side of the input in pixels.
      min_size: smallest side that it takes.
      alphas: allowed width multipliers; empty where it has none.
      weights_file: name of the ImageNet weights without top under `KERAS_HOME/models`, from alpha and size.
    """

    constructor: str | None
    normalisation: Normalisation
    size: int = 224
    min_size: int = 32
    alphas: tuple[float, ...] = ()
    weights_file: Callable[[float, int], str] | None = None


def _rows(size: int, sizes: tuple[int, ...]) -> int:
    """Which of the published resolutions keras.applications takes the weights of."""
    return size if size in sizes else 224


def _mobilenet_file(alpha: float, size: int) -> str:
    text = {1.0: "1_0", 0.75: "7_5", 0.5: "5_0", 0.25: "2_5"}[alpha]
    return f"mobilenet_{text}_{_rows(size, (128, 160, 192, 224))}_tf_no_top.h5"


def _mobilenet_v2_file(alpha: float, size: int) -> str:
    rows = _rows(size, (96, 128, 160, 192, 224))
    return f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{alpha}_{rows}_no_top.h5"


BUNDLED = "graft_tiny"

BACKBONES = {
    BUNDLED: Backbone(None, SYMMETRIC, size=64),
    "mobilenet_v2": Backbone(
        "MobileNetV2", SYMMETRIC, alphas=(0.35, 0.5, 0.75, 1.0, 1.3, 1.4), weights_file=_mobilenet_v2_file
    ),
    "mobilenet": Backbone("MobileNet", SYMMETRIC, alphas=(0.25, 0.5, 0.75, 1.0), weights_file=_mobilenet_file),
    "resnet50": Backbone(
        "ResNet50", CAFFE, weights_file=lambda alpha, size: "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
    ),
    "vgg16": Backbone(
        "VGG16", CAFFE, weights_file=lambda alpha, size: "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
    ),
    "efficientnet_b0": Backbone("EfficientNetB0", IDENTITY, weights_file=lambda alpha, size: "efficientnetb0_notop.h5"),
}


def build(name: str, alpha: float, weights: str, size: int) -> Any:
    """Builds a backbone without top.

    Args:
      name: key of `BACKBONES`.
      alpha: width multiplier; ignored by backbones that have none.
      weights: `imagenet`, `bundled`, `none`, or the path of a `.weights.h5` or `.keras` file.
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
        _load_file(backbone, Path(weights))
    return backbone


def _load_file(backbone: Any, path: Path) -> None:
    import keras

    try:
        if path.suffix == ".keras":
            # Safe mode (the default, named here because it matters) refuses code inside the file.
            backbone.set_weights(keras.saving.load_model(path, compile=False, safe_mode=True).get_weights())
        else:
            with warnings.catch_warnings():
                # Keras warns and leaves random values where the file lacks a layer; here that is an error.
                warnings.simplefilter("error", UserWarning)
                backbone.load_weights(path)
    except (ValueError, OSError, TypeError, UserWarning) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"model.weights: {path} does not fit {backbone.name}: {reason}") from None


# ---- checks before anything expensive -------------------------------------------------------------------------------


def keras_home() -> Path:
    """Where Keras keeps downloaded weights: `KERAS_HOME`, or `~/.keras`."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras").expanduser()


def require_weights(name: str, alpha: float, weights: str, size: int) -> None:
    """Makes sure that the weights are at hand, downloading ImageNet ones (and only those) where they are not.

    Raises:
      UsageError: they cannot be had; the message names the file, its place and the settings that avoid it.
    """
    row = BACKBONES[name]
    if weights == "imagenet":
        if not (keras_home() / "models" / row.weights_file(alpha, size)).is_file():
            build(name, alpha, weights, size)
    elif weights not in ("bundled", "none") and not os.path.isfile(weights):
        raise UsageError(f"model.weights: there is no file {weights}; give imagenet, bundled, none or a file's path.")


def _missing(name: str, alpha: float, size: int) -> str:
    row = BACKBONES[name]
    return (
        f"The ImageNet weights of {name} could not be downloaded: put {row.weights_file(alpha, size)} into "
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
