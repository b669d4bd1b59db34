"""Ingestion and Transform: speed against bare tf.data, memory, worker processes, bytes stored.

    python benchmarks/ingest.py rate [--images 2000] [--repeat 3]      against tf.data decode and resize, 500x375 JPEGs
    python benchmarks/ingest.py large [--images 12] [--repeat 5]       12-megapixel JPEGs against decode_jpeg(ratio=8)
    python benchmarks/ingest.py orientation                            what reading the EXIF orientation costs
    python benchmarks/ingest.py memory                                 peak memory, 5,000 and 20,000 JPEGs of 100 KB
    python benchmarks/ingest.py processes [--images 2000]              one process against one a core
    python benchmarks/ingest.py storage [--images 500]                 bytes an image in each storage format

The images are generated (noise with the spectrum of photographs). Each measurement is a process of its own that runs
the pipeline's steps up to Transform; what does not depend on the number of images is taken off by running it on a fifth
of them, too. Prints tables in Markdown.
"""

import argparse
import io
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 224
CLASSES = 4


# ---- images ---------------------------------------------------------------------------------------------------------


def photograph(random: np.random.Generator, width: int, height: int) -> Image.Image:
    """Noise with amplitudes that fall with the frequency, as those of photographs do (Field 1987)."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1
    channels = []
    for _ in range(3):
        spectrum = np.fft.rfft2(random.normal(size=(height, width))) / frequency**1.4
        plane = np.fft.irfft2(spectrum, (height, width))
        channels.append(128 + 50 * (plane - plane.mean()) / plane.std())
    return Image.fromarray(np.clip(np.stack(channels, -1), 0, 255).astype(np.uint8))


def write_images(folder: Path, count: int, width: int, height: int, quality: int) -> None:
    """Distinct JPEGs in class folders: one of forty photographs each, with a square of its own."""
    random = np.random.default_rng(width)
    originals = [photograph(random, width, height) for _ in range(min(40, count))]
    for number in range(count):
        image = originals[number % len(originals)].copy()
        corner = tuple(random.integers(0, (width - 40, height - 40)).tolist())
        image.paste(tuple(random.integers(0, 256, 3).tolist()), (*corner, corner[0] + 40, corner[1] + 40))
        path = folder / f"class-{number % CLASSES}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, quality=quality)


# ---- the two sides --------------------------------------------------------------------------------------------------


def run_steps(images: Path, output: Path, *settings: str) -> dict:
    """Seconds of each step up to Transform, and the peak memory in MB, of a process of its own."""
    command = [sys.executable, __file__, "steps", str(images), str(output), *settings]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


def steps(images: Path, output: Path, overrides: list[str]) -> dict:
    """What `graft run` runs up to Transform, in this process."""
    from pipeline import config, local

    settings = ["model.backbone=mobilenet_v2", "model.weights=none", *overrides]
    with local.up_to("Transform", config.load(None, settings), [str(images)], output) as (done, _):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return {"timings": done.notes.timings, "peak": peak}


def bare(paths: list[str]) -> float:
    """Seconds that tf.data takes to read, decode and resize with antialiasing, on every core."""
    import tensorflow as tf

    def prepare(path):
        image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
        return tf.cast(
            tf.clip_by_value(tf.round(tf.image.resize(image, [SIZE, SIZE], antialias=True)), 0, 255), tf.uint8
        )

    data = (
        tf.data.Dataset.from_tensor_slices(paths).map(prepare, num_parallel_calls=multiprocessing.cpu_count()).batch(32)
    )
    for _ in data.take(1):
        pass
    began = time.monotonic()
    for _ in data:
        pass
    return time.monotonic() - began


def bare_elsewhere(folder: Path) -> float:
    """`bare` in a process of its own, which leaves no threads behind."""
    command = [sys.executable, __file__, "bare", str(folder)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def marginal(many: Path, few: Path, *settings: str) -> dict[str, float]:
    """Seconds of each step beyond what it takes whatever the number of images."""
    with tempfile.TemporaryDirectory() as folder:
        first = run_steps(few, Path(folder, "few"), *settings)["timings"]
        second = run_steps(many, Path(folder, "many"), *settings)["timings"]
    return {node: second[node] - first[node] for node in second}


# ---- what is measured -----------------------------------------------------------------------------------------------


def rate(arguments: argparse.Namespace) -> None:
    few_count = arguments.images // 5
    count = arguments.images - few_count
    with tempfile.TemporaryDirectory() as folder:
        few, many = Path(folder, "few"), Path(folder, "many")
        write_images(few, few_count, 500, 375, 90)
        write_images(many, arguments.images, 500, 375, 90)
        print(
            "| bare tf.data, images/s | ingestion | Transform | both | both / bare |\n| --- | --- | --- | --- | --- |"
        )
        ratios = []
        for _ in range(arguments.repeat):
            reference = count / (bare_elsewhere(many) - bare_elsewhere(few))
            seconds = marginal(many, few)
            ingestion, transform = seconds["ImageExampleGen"], seconds["Transform"]
            both = count / (ingestion + transform)
            ratios.append(both / reference)
            row = (reference, count / ingestion, count / transform, both)
            print("| " + " | ".join(f"{value:.0f}" for value in row) + f" | {ratios[-1]:.2f} |", flush=True)
    print(f"\nMedian {statistics.median(ratios):.2f}")


def large(arguments: argparse.Namespace) -> None:
    import tensorflow as tf

    from components import pixels

    signature = [tf.TensorSpec([], tf.string)]

    @tf.function(input_signature=signature)
    def ours(data):
        return pixels.resize(pixels.decode(data, SIZE), SIZE)

    @tf.function(input_signature=signature)
    def smallest(data):
        image = tf.ensure_shape(tf.io.decode_jpeg(data, channels=3, ratio=8), [None, None, 3])
        return pixels.resize(image, SIZE)

    @tf.function(input_signature=signature)
    def whole(data):
        return pixels.resize(pixels.decode(data), SIZE)

    random = np.random.default_rng(0)
    files = []
    for _ in range(arguments.images):
        file = io.BytesIO()
        photograph(random, 4000, 3000).save(file, "JPEG", quality=92)
        files.append(file.getvalue())
    size = statistics.mean(map(len, files)) / 1e6
    print(f"4000x3000 JPEGs of {size:.1f} MB to {SIZE} pixels, milliseconds an image\n")
    print(
        "| decode_jpeg(ratio=8) and resize | Graft | Graft, every pixel | Graft / ratio 8 |\n| --- | --- | --- | --- |"
    )
    for _ in range(arguments.repeat):
        row = []
        for function in (smallest, ours, whole):
            function(files[0])
            began = time.monotonic()
            for data in files:
                function(data)
            row.append((time.monotonic() - began) / len(files) * 1000)
        print("| " + " | ".join(f"{value:.0f}" for value in row) + f" | {row[1] / row[0]:.2f} |", flush=True)


def orientation(arguments: argparse.Namespace) -> None:
    import tensorflow as tf

    from components import exif

    read = tf.function(
        lambda batch: tf.map_fn(exif.orientation, batch, tf.int32), input_signature=[tf.TensorSpec([None], tf.string)]
    )
    nothing = tf.function(
        lambda batch: tf.map_fn(tf.strings.length, batch, tf.int32), input_signature=[tf.TensorSpec([None], tf.string)]
    )
    random = np.random.default_rng(0)
    print("| 500x375 JPEGs | milliseconds an image |\n| --- | --- |")
    for name, tags in (("without EXIF", None), ("with orientation 6", Image.Exif())):
        files = []
        for _ in range(arguments.images):
            file = io.BytesIO()
            if tags is not None:
                tags[0x112] = 6
            photograph(random, 500, 375).save(file, "JPEG", quality=90, **({"exif": tags} if tags else {}))
            files.append(file.getvalue())
        seconds = []
        for function in (nothing, read):
            function(files)
            began = time.monotonic()
            for _ in range(arguments.repeat):
                function(files)
            seconds.append((time.monotonic() - began) / arguments.repeat)
        print(f"| {name} | {(seconds[1] - seconds[0]) / arguments.images * 1000:.2f} |", flush=True)


def memory(arguments: argparse.Namespace) -> None:
    print("| images | bytes each | peak memory, MB | seconds |\n| --- | --- | --- | --- |")
    for count in (5_000, 20_000):
        with tempfile.TemporaryDirectory() as folder:
            images = Path(folder, "images")
            write_images(images, count, 720, 540, 90)
            size = sum(path.stat().st_size for path in images.rglob("*.jpg")) / count
            result = run_steps(images, Path(folder, "output"))
        seconds = sum(result["timings"].values())
        print(f"| {count} | {size:.0f} | {result['peak']:.0f} | {seconds:.0f} |", flush=True)


def processes(arguments: argparse.Namespace) -> None:
    cores = multiprocessing.cpu_count()
    print(f"{cores} cores; ingestion and Transform, start-up included\n")
    print("| images | one process, s | a process a core, s |\n| --- | --- | --- |")
    for count in (arguments.images // 8, arguments.images, arguments.images * 4):
        with tempfile.TemporaryDirectory() as folder:
            images = Path(folder, "images")
            write_images(images, count, 500, 375, 90)
            row = []
            for beam in ("local", "processes"):
                timings = run_steps(images, Path(folder, beam), f"runner.beam={beam}")["timings"]
                row.append(timings["ImageExampleGen"] + timings["Transform"])
        print(f"| {count} | {row[0]:.0f} | {row[1]:.0f} |", flush=True)


def storage(arguments: argparse.Namespace) -> None:
    print("| storage | bytes an image |\n| --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder, "images")
        write_images(images, arguments.images, 500, 375, 90)
        for kind in ("png", "jpeg", "float"):
            output = Path(folder, kind)
            run_steps(images, output, f"transform.storage={kind}")
            files = (output / "artifacts/Transform/transformed_examples").rglob("transformed_examples-*")
            print(f"| {kind} | {sum(path.stat().st_size for path in files) / arguments.images:.0f} |", flush=True)


def main() -> None:
    if sys.argv[1:2] == ["steps"]:
        print(json.dumps(steps(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])))
    elif sys.argv[1:2] == ["bare"]:
        print(bare([str(path) for path in sorted(Path(sys.argv[2]).rglob("*.jpg"))]))
    else:
        parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        commands = parser.add_subparsers(required=True)
        for function, images, repeat in (
            (rate, 2000, 3),
            (large, 12, 5),
            (orientation, 64, 10),
            (memory, 0, 1),
            (processes, 2000, 1),
            (storage, 500, 1),
        ):
            command = commands.add_parser(function.__name__)
            command.add_argument("--images", type=int, default=images)
            command.add_argument("--repeat", type=int, default=repeat)
            command.set_defaults(function=function)
        arguments = parser.parse_args()
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
        arguments.function(arguments)


if __name__ == "__main__":
    main()
