"""Every format of an exported model: size, latency of one image, what it loses against the SavedModel; and how far
pixels that Pillow prepares lie from the model's own.

    python benchmarks/formats.py [--sets sign_digits trashnet] [--json FILE] [--set KEY=VALUE]...

Runs the pipeline on train/ and test/ folders (40 % test) with MobileNetV2 0.35, unless --set says otherwise, and reads
what its step ModelFormats found. Needs ../shared (real images and ImageNet weights) and the extra `onnx`. Latency: the
median of 100 calls with one image, after ten, one format after the other, in one process that may use every core.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from layouts import environment, layouts
from PIL import Image, ImageOps

FORMATS = ("keras", "tflite", "tflite_int8", "onnx")


def run(images: Path, output: Path, settings: list[str]) -> tuple[Path, Path, float]:
    """The SavedModel, the folder with the formats, and the seconds that these took."""
    values = ["model.alpha=0.35", f"push.formats=[{','.join(FORMATS)}]", *settings]
    options = [part for value in values for part in ("--set", value)]
    command = [sys.executable, "-m", "pipeline", "run", "--images", str(images), "--output", str(output), *options]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    print(done.stdout[-1500:], file=sys.stderr)
    (model,) = output.glob("artifacts/Trainer/model/*/Format-Serving")
    (formats,) = output.glob("artifacts/ModelFormats/formats/*")
    return model, formats, json.loads((output / "runs/latest/summary.json").read_text())["timings"]["ModelFormats"]


def latency(predict, image: np.ndarray) -> float:
    """Median milliseconds of a call with one image."""
    times = []
    for _ in range(110):
        began = time.perf_counter()
        predict(image[np.newaxis])
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times[10:])


def prepared_by_pillow(path: Path, size: int) -> np.ndarray:
    """What docs/formats.md tells people without TensorFlow to do (`transform.resize: stretch`)."""
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def pillow_row(name: str, files: list[Path], labels: np.ndarray, model: Path) -> dict:
    """How far Pillow's pixels lie from the model's own, in grey levels and in accuracy."""
    import tensorflow as tf

    from components import pixels
    from components.conversion import answers_of, saved_model_predictor

    size = int(tf.saved_model.load(str(model)).image_size)
    exact = np.concatenate(
        [pixels.prepare(tf.constant([path.read_bytes()]), size=size, mode="stretch", storage="png") for path in files]
    )
    theirs = np.stack([prepared_by_pillow(path, size) for path in files])
    apart = np.abs(exact.astype(int) - theirs)
    predict = saved_model_predictor(model)
    one, other = (answers_of(predict, each) for each in (exact, theirs))
    return {
        "set": name,
        "examples": len(files),
        "mean_levels": float(apart.mean()),
        "p99_levels": float(np.percentile(apart, 99)),
        "max_levels": int(apart.max()),
        "accuracy": float((one.argmax(1) == labels).mean()),
        "pillow_accuracy": float((other.argmax(1) == labels).mean()),
        "same_answer": float((one.argmax(1) == other.argmax(1)).mean()),
        "max_probability_difference": float(np.abs(one - other).max()),
    }


def format_rows(name: str, model: Path, formats: Path, image: np.ndarray) -> list[dict]:
    """A row a format, the SavedModel first."""
    from components.conversion import predictor, read_result, saved_model_predictor

    found = read_result(formats)["formats"]
    size = sum(path.stat().st_size for path in model.rglob("*") if path.is_file())
    accuracy = next(iter(found.values()))["saved_model_accuracy"]
    rows = [{"set": name, "format": "SavedModel", "bytes": size, "accuracy": accuracy, "passed": True}]
    rows[0]["milliseconds"] = latency(saved_model_predictor(model), image)
    identity = (np.arange(3), np.ones(3, np.float32), np.zeros(3, np.float32))
    for each, row in found.items():
        milliseconds = latency(predictor(each, formats / row["file"], identity, 2.0), image)
        rows.append({"set": name, "format": each, "milliseconds": milliseconds} | row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=["sign_digits", "trashnet"])
    parser.add_argument("--json", type=Path, help="also write every figure here")
    parser.add_argument("--set", action="append", default=[], help="as for graft run")
    arguments = parser.parse_args()
    rows, pillow = [], []
    print("| images | format | MB | ms | accuracy | difference | agreement | probabilities apart | passed |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, _, images, output in layouts(arguments.sets, 1):
        model, formats, seconds = run(images, output, arguments.set)
        classes = (model / "assets/labels.txt").read_text().splitlines()
        files = sorted(path for path in (images / "test").rglob("*") if path.is_file())
        labels = np.array([classes.index(path.parent.name) for path in files])
        pillow.append(pillow_row(name, files, labels, model) | {"seconds": seconds})
        import tensorflow as tf

        size = int(tf.saved_model.load(str(model)).image_size)
        for row in format_rows(name, model, formats, prepared_by_pillow(files[0], size)):
            rows.append(row)
            cells = [name, row["format"], f"{row['bytes'] / 1e6:.2f}", f"{row['milliseconds']:.2f}"]
            cells += [f"{row['accuracy']:.3f}"]
            if "examples" in row:
                cells += [f"{row['accuracy_difference']:+.3f}", f"{row['agreement']:.3f}"]
                cells += [f"{row['max_probability_difference']:.1e}"]
            else:
                cells += ["", "", ""]
            print("| " + " | ".join([*cells, "yes" if row["passed"] else "no"]) + " |", flush=True)
    print("\n| images | grey levels: mean | 99 % | most | accuracy | with Pillow | same answer | ModelFormats s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for row in pillow:
        cells = [row["set"], f"{row['mean_levels']:.2f}", f"{row['p99_levels']:.0f}", str(row["max_levels"])]
        cells += [f"{row[key]:.3f}" for key in ("accuracy", "pillow_accuracy", "same_answer")]
        print("| " + " | ".join([*cells, f"{row['seconds']:.1f}"]) + " |")
    if arguments.json:
        arguments.json.write_text(json.dumps({"formats": rows, "pillow": pillow}, indent=1))


if __name__ == "__main__":
    main()
