"""The exported model in other formats, and whether a file in one of them still answers as the model does.

Every conversion starts from the signature `serving_pixels` of the SavedModel itself, but for `.keras`, which the
Trainer wrote from the same network.
"""

import importlib.metadata
import importlib.util
import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components import parallel, progress
from components.errors import UsageError
from components.features import CLASSIFIER_FILE
from components.gate_terms import OVERALL, Check

if TYPE_CHECKING:
    import numpy as np

# What `push.formats` may hold, and the file of each.
FILES = {
    "keras": CLASSIFIER_FILE,
    "tflite": "model.tflite",
    "tflite_int8": "model_int8.tflite",
    "onnx": "model.onnx",
}
QUANTISED = ("tflite_int8",)
RESULT_FILE = "formats.json"
SIGNATURE = "serving_pixels"
# How far a probability may lie from the SavedModel's where nothing was quantised: other runtimes round otherwise. Seen
# were 1.5e-5 on small networks and 3.6e-4 on a ResNet50 of random weights; another network, or other classes, differ by
# tenths.
TOLERANCE = 1e-3
# Of ONNX's standard: the newest that every runtime of the last years takes.
OPSET = 17
ONNX_PACKAGES = ("tf2onnx", "onnx", "onnxruntime")
CPU = "/CPU:0"
BATCH = 32

Predictor = Callable[["np.ndarray"], "np.ndarray"]


@dataclass(frozen=True)
class Images:
    """Resized images with their labels.

    Attributes:
      pixels: uint8 [images, size, size, 3], RGB.
      labels: int64 [images].
      constants: channel order, scale and offset for `pixels.normalise`.
    """

    pixels: "np.ndarray"
    labels: "np.ndarray"
    constants: tuple["np.ndarray", "np.ndarray", "np.ndarray"]

    def __len__(self) -> int:
        return len(self.labels)


def require_packages(formats: Sequence[str]) -> None:
    """Makes sure that what the formats need is installed.

    Raises:
      UsageError: it is not.
    """
    missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None] if "onnx" in formats else []
    if missing:
        raise UsageError(
            f"push.formats: onnx needs {', '.join(missing)}, not installed here; install the extra with "
            "pip install 'graft-pipeline[onnx]', or leave onnx out."
        )


def package_versions(formats: Sequence[str]) -> list[str]:
    """Versions of what is installed for some formats only: others may convert otherwise."""
    return [f"{name}=={importlib.metadata.version(name)}" for name in ONNX_PACKAGES] if "onnx" in formats else []


# ---- conversion -----------------------------------------------------------------------------------------------------


def convert(name: str, model: Path, classifier: Path, representative: "np.ndarray | None", path: Path) -> None:
    """Writes the model in another format.

    Args:
      name: key of `FILES`.
      model: folder of the SavedModel.
      classifier: the Trainer's `.keras` file.
      representative: uint8 [images, size, size, 3], for quantisation; its activations set the ranges.
      path: the file to write.
    """
    if name == "keras":
        shutil.copyfile(classifier, path)
    elif name == "onnx":
        _write_onnx(model, path)
    else:
        path.write_bytes(_tflite(model, representative if name in QUANTISED else None))


def _tflite(model: Path, representative: "np.ndarray | None") -> bytes:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(model), signature_keys=[SIGNATURE])
    if representative is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        # All of the network in 8-bit integers, or an error. The input's cast and the output stay as the signature says.
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.representative_dataset = lambda: ((SIGNATURE, {"pixels": image[None]}) for image in representative)
    return converter.convert()


def _write_onnx(model: Path, path: Path) -> None:
    import tensorflow as tf
    import tf2onnx

    # Kept by a name: the signature does not keep the module's variables alive.
    loaded = tf.saved_model.load(str(model))
    signature = loaded.signatures[SIGNATURE]
    spec = signature.structured_input_signature[1]["pixels"]
    function = tf.function(lambda pixels: signature(pixels=pixels), input_signature=[spec])
    tf2onnx.convert.from_function(function, input_signature=[spec], opset=OPSET, output_path=str(path))


# ---- what a file answers --------------------------------------------------------------------------------------------


def saved_model_predictor(model: Path) -> Predictor:
    """The SavedModel: uint8 [images, size, size, 3] to float32 [images, classes], as every predictor here.

    On a CPU, as they all are: a GPU multiplies with fewer digits.
    """
    import tensorflow as tf

    with tf.device(CPU):
        loaded = tf.saved_model.load(str(model))

    def predict(pixels: "np.ndarray") -> "np.ndarray":
        with tf.device(CPU):
            return loaded.signatures[SIGNATURE](pixels=tf.constant(pixels))["probabilities"].numpy()

    return predict


def predictor(name: str, path: Path, constants: Sequence["np.ndarray"], temperature: float) -> Predictor:
    """A file in one of the formats, loaded as somebody who got the file alone would.

    Args:
      name: key of `FILES`.
      path: the file.
      constants: channel order, scale and offset for `pixels.normalise`, which a `.keras` file leaves to others.
      temperature: that its probabilities are brought to, likewise.
    """
    if name == "keras":
        return _keras_predictor(path, constants, temperature)
    return _onnx_predictor(path) if name == "onnx" else _tflite_predictor(path)


def _tflite_predictor(path: Path) -> Predictor:
    import numpy as np
    import tensorflow as tf

    runner = tf.lite.Interpreter(str(path), num_threads=parallel.cores()).get_signature_runner(SIGNATURE)

    def predict(pixels: "np.ndarray") -> "np.ndarray":
        # One by one, as on a phone: another batch size makes it allocate anew.
        return np.concatenate([runner(pixels=image[None])["probabilities"] for image in pixels])

    return predict


def _onnx_predictor(path: Path) -> Predictor:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda pixels: session.run(["probabilities"], {"pixels": pixels})[0]


def _keras_predictor(path: Path, constants: Sequence["np.ndarray"], temperature: float) -> Predictor:
    import keras
    import tensorflow as tf

    from components.pixels import normalise
    from components.temperature import scaled

    with tf.device(CPU):
        # Safe mode (the default, named here because it matters) refuses code inside the file.
        model = keras.saving.load_model(path, compile=False, safe_mode=True)

    # A graph: layer by layer takes nearly twice as long, and a gigabyte more for 32 images of 224 pixels.
    @tf.function(input_signature=[tf.TensorSpec(model.input_shape, tf.uint8)], autograph=False)
    def network(pixels: tf.Tensor) -> tf.Tensor:
        return model(normalise(pixels, *constants), training=False)

    def predict(pixels: "np.ndarray") -> "np.ndarray":
        with tf.device(CPU):
            return scaled(network(pixels).numpy(), temperature)

    return predict


# ---- the check ------------------------------------------------------------------------------------------------------


def check(
    name: str, answers: "np.ndarray", expected: "np.ndarray", labels: "np.ndarray", max_drop: float
) -> dict[str, Any]:
    """Compares what a format and the SavedModel say of the same images.

    Args:
      name: key of `FILES`.
      answers: probabilities of the format, [images, classes].
      expected: the SavedModel's, likewise.
      labels: int64 [images].
      max_drop: 0 to 1; how much accuracy a quantised format may lose, rounded up to whole images.

    Returns:
      `examples`; `accuracy`, `saved_model_accuracy` and `accuracy_difference` (below 0: worse); `bound`, the largest
      loss of accuracy that passes (None where not quantised); `agreement`, the share of images that both call the same,
      right or wrong; `max_probability_difference` (None: something was no number) and `tolerance`, its bound (None
      where quantised); `passed`.
    """
    if answers.shape != expected.shape:
        raise ValueError(f"it gives {answers.shape[1:]} numbers an image and the SavedModel {expected.shape[1:]}")
    quantised, count = name in QUANTISED, len(labels)
    hits, before = (int((each.argmax(axis=1) == labels).sum()) for each in (answers, expected))
    difference = float(abs(answers - expected).max())
    # So that what is no number fails.
    passed = finite = math.isfinite(difference)
    bound = tolerance = None
    if quantised:
        # One image of a small test split is more than the bound: it alone proves nothing. (Floats: 0.02 of 150 is 3.)
        bound = math.ceil(max_drop * count - 1e-9) / count
        passed = finite and before - hits <= round(bound * count)
    else:
        # Within this, only an image whose two best classes are as good as tied is answered otherwise.
        tolerance = TOLERANCE
        passed = finite and difference <= tolerance
    return {
        "examples": count,
        "accuracy": hits / count,
        "saved_model_accuracy": before / count,
        "accuracy_difference": (hits - before) / count,
        "bound": bound,
        "agreement": float((answers.argmax(axis=1) == expected.argmax(axis=1)).mean()),
        "max_probability_difference": difference if finite else None,
        "tolerance": tolerance,
        "passed": passed,
    }


def answers_of(predict: Predictor, pixels: "np.ndarray") -> "np.ndarray":
    """What a predictor says of many images, [images, classes]."""
    import numpy as np

    answers = []
    for start in range(0, len(pixels), BATCH):
        answers.append(predict(pixels[start : start + BATCH]))
        progress.advance(len(answers[-1]))
    return np.concatenate(answers)


def convert_and_check(
    formats: Sequence[str],
    model: Path,
    classifier: Path,
    temperature: float,
    tested: Images,
    representative: "np.ndarray | None",
    max_drop: float,
    folder: Path,
) -> dict[str, dict[str, Any]]:
    """Writes every format and compares it with the SavedModel; one that fails does not keep the others from being made.

    Args:
      formats: keys of `FILES`.
      model: folder of the SavedModel.
      classifier: the Trainer's `.keras` file.
      temperature: of the SavedModel's probabilities.
      tested: what is compared on; at least one image.
      representative: as for `convert`.
      max_drop: as for `check`.
      folder: where the files go.

    Returns:
      By format: `file`, `bytes`, and what `check` gives; or `file`, `passed` (False) and `error`, one sentence.

    Raises:
      OSError: a file cannot be written or read.
    """
    import tensorflow as tf

    progress.start(len(tested), "asking the SavedModel")
    expected = answers_of(saved_model_predictor(model), tested.pixels)
    results = {}
    for name in formats:
        path = folder / FILES[name]
        try:
            progress.start(None, f"converting to {path.name}")
            convert(name, model, classifier, representative, path)
            progress.start(len(tested), f"asking {path.name}")
            answers = answers_of(predictor(name, path, tested.constants, temperature), tested.pixels)
            found = check(name, answers, expected, tested.labels, max_drop)
            results[name] = {"file": path.name, "bytes": path.stat().st_size} | found
        except (OSError, MemoryError, tf.errors.ResourceExhaustedError):
            # The machine's fault, which may pass: no reason to refuse a model, which would be remembered.
            raise
        # Converters and runtimes raise whatever an operation that they do not know leads them into.
        except Exception as error:
            results[name] = {"file": path.name, "passed": False, "error": _sentence(error)}
    return results


def _sentence(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:300]}".rstrip(": ")


# ---- the result -----------------------------------------------------------------------------------------------------


def gate_checks(results: dict[str, dict[str, Any]]) -> list[Check]:
    """Lines for the gate's table about formats that `convert_and_check` gave: all must pass."""
    checks = []
    for name, row in results.items():
        if "error" in row:
            checks.append(Check(f"{name}_written", OVERALL, 0, 1, False))
            continue
        if row["tolerance"] is None:
            drop, bound = -row["accuracy_difference"], row["bound"]
            checks.append(Check(f"{name}_accuracy_drop", OVERALL, drop, bound, row["passed"], relation="<="))
        else:
            # What is no number is as far off as can be.
            far = 1.0 if row["max_probability_difference"] is None else row["max_probability_difference"]
            metric = f"{name}_probability_difference"
            checks.append(Check(metric, OVERALL, far, row["tolerance"], row["passed"], relation="<="))
    return checks


def problem(results: dict[str, dict[str, Any]]) -> str | None:
    """One sentence about the first format that may not be published; None where all may."""
    for name, row in results.items():
        if "error" in row:
            return f"{row['file']} could not be made ({row['error']}); leave {name} out of push.formats"
        if not row["passed"]:
            return (
                f"{row['file']} does not answer as the SavedModel does (accuracy {row['accuracy_difference']:+.3f} on "
                f"{row['examples']} images, probabilities up to {row['max_probability_difference']} off); leave {name} "
                "out of push.formats"
            )
    return None


def read_result(folder: Path) -> dict[str, Any]:
    """`formats.json` of a `ModelFormats` artifact: `{blessed, formats}`; no formats where it was not blessed."""
    return json.loads((folder / RESULT_FILE).read_text())


def passed_files(folder: Path) -> dict[str, Path]:
    """The files of a `ModelFormats` artifact that passed, by their name: what may be published."""
    rows = read_result(folder)["formats"].values()
    return {row["file"]: folder / row["file"] for row in rows if row["passed"]}
