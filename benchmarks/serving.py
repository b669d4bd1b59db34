"""What serving costs: the exported model against the bare network, `graft serve` under load, batches, publication.

    python benchmarks/serving.py [--sections overhead serve batch publication] [--images DIR] [--keras-home DIR]
        [--seconds 60]

MobileNetV2 0.35 at 224 px with ImageNet weights (`--keras-home`; random ones where they are not there: the cost depends
on neither) and an untrained head of 6 classes, on real photographs. Prints tables in Markdown. The clients of the load
run on the same machine and take their share of its cores.
"""

import argparse
import asyncio
import base64
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ASSETS = ROOT.parent / "shared" / "assets"
SIZE, CLASSES, BATCH = 224, 6, 32
CLIENTS = 32
PREPROCESSING = {"size": SIZE, "mode": "stretch", "storage": "png"}


def network(keras_home: Path) -> Any:
    """A Keras model of a backbone with a fresh head, and nothing before it."""
    import keras

    from trainer import backbones
    from trainer import model as parts

    weights = "imagenet" if keras_home.is_dir() else "none"
    features = parts.pooled(backbones.build("mobilenet_v2", 0.35, weights, SIZE), "average")
    return keras.Sequential([features, parts.head(features.output_shape[-1], CLASSES, [256], 0.5)])


def export(model: Any, folder: Path) -> None:
    import numpy as np

    from trainer.export import export as write

    constants = (np.array([0, 1, 2]), np.full(3, 1 / 127.5, np.float32), np.full(3, -1, np.float32))
    write(model, [f"class {number}" for number in range(CLASSES)], PREPROCESSING, constants, folder)


def photographs(folder: Path, count: int = 256) -> list[bytes]:
    """Evenly chosen among all that are there."""
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in (".jpg", ".jpeg", ".png"))
    return [file.read_bytes() for file in files[:: max(1, len(files) // count)][:count]]


def median_ms(call: Callable[[Any], Any], inputs: list[Any], seconds: float) -> float:
    """Median of the time of one call, over the inputs in turn."""
    times, end = [], time.monotonic() + seconds
    for value in itertools.cycle(inputs):
        began = time.perf_counter()
        call(value)
        times.append(time.perf_counter() - began)
        if time.monotonic() > end:
            return statistics.median(times) * 1000


# ---- the exported model against the bare network --------------------------------------------------------------------


def overhead(model: Any, exported: Path, files: list[bytes], seconds: float) -> None:
    """What decoding, orienting and resizing add to a forward pass."""
    import tensorflow as tf

    from components import pixels

    loaded = tf.saved_model.load(str(exported))
    served = loaded.signatures["serving_default"]
    prepare = tf.function(
        lambda encoded: pixels.prepare(encoded, **PREPROCESSING), input_signature=[tf.TensorSpec([None], tf.string)]
    )
    signature = [tf.TensorSpec([None, SIZE, SIZE, 3])]
    forward = tf.function(lambda images: model(images, training=False), input_signature=signature)
    print("| images in a call | exported model, ms an image | bare network | decoding, orienting and resizing alone |")
    print("| --- | --- | --- | --- |")
    for count in (1, BATCH):
        batches = [tf.constant(files[start : start + count]) for start in range(0, len(files) - count + 1, count)]
        decoded = [tf.cast(prepare(batch), tf.float32) / 127.5 - 1 for batch in batches[:64]]
        calls = ((served, batches), (forward, decoded), (prepare, batches))
        for call, inputs in calls:
            call(inputs[0])
        ms = [median_ms(call, inputs, seconds) / count for call, inputs in calls]
        print(f"| {count} | {ms[0]:.1f} ({1000 / ms[0]:.0f} images/s) | {ms[1]:.1f} | {ms[2]:.1f} |", flush=True)


# ---- graft serve under load -----------------------------------------------------------------------------------------


def serve(exported: Path, files: list[bytes], seconds: float) -> None:
    """Images a second, and how long a client waits: at rest, and while versions are published."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(exported)).signatures["serving_default"]
    batches = [tf.constant(files[start : start + BATCH]) for start in range(0, len(files) - BATCH + 1, BATCH)]
    loaded(batches[0])
    in_process = BATCH * 1000 / median_ms(loaded, batches, min(seconds, 10))
    print("| | requests | errors | images/s | p50 ms | p99 ms | longest ms | versions published | memory, MiB |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    print(f"| the model in-process, {BATCH} at a time | | | {in_process:.0f} | | | | | |", flush=True)
    bodies = [json.dumps({"instances": [{"b64": base64.b64encode(data).decode()}]}).encode() for data in files]
    loads = ((f"`graft serve`, {CLIENTS} clients", None), ("the same, a version every 10 s", 10.0), ("1 client", None))
    for name, every in loads:
        clients = 1 if name == "1 client" else CLIENTS
        with tempfile.TemporaryDirectory() as folder:
            base = Path(folder, "serving")
            result = asyncio.run(_under_load(exported, base, bodies, seconds, clients, every))
        times = sorted(result["times"])
        p50, p99 = (1000 * times[int(len(times) * share)] for share in (0.5, 0.99))
        print(
            f"| {name} | {len(times)} | {result['errors']} | {len(times) / seconds:.0f} | {p50:.0f} | {p99:.0f} "
            f"| {1000 * times[-1]:.0f} | {result['published']} | {result['memory']} |",
            flush=True,
        )


async def _under_load(
    exported: Path, base: Path, bodies: list[bytes], seconds: float, clients: int, every: float | None
) -> dict[str, Any]:
    import aiohttp

    from components.publishing import publish

    publish(exported, base, 3)
    process, url = _start(base)
    turns = itertools.cycle(bodies)
    result: dict[str, Any] = {"times": [], "errors": 0, "published": 0}
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=clients)) as session:
            end = time.monotonic() + seconds

            async def client() -> None:
                while time.monotonic() < end:
                    began = time.perf_counter()
                    try:
                        async with session.post(url, data=next(turns)) as response:
                            good = response.status == 200 and "predictions" in await response.json()
                    except aiohttp.ClientError:
                        good = False
                    result["times"].append(time.perf_counter() - began)
                    result["errors"] += not good

            async def publisher() -> None:
                while every and time.monotonic() + every < end:
                    await asyncio.sleep(every)
                    await asyncio.to_thread(publish, exported, base, 3)
                    result["published"] += 1

            await asyncio.gather(publisher(), *(client() for _ in range(clients)))
        status = Path(f"/proc/{process.pid}/status").read_text()
        result["memory"] = int(status.split("VmRSS:")[1].split()[0]) // 1024
    finally:
        process.terminate()
        process.communicate(timeout=60)
    return result


def _start(base: Path) -> tuple[subprocess.Popen, str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "serve", str(base), "--port", "0"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    for line in process.stdout:
        if "REST: " in line:
            return process, line.split("REST: ")[1].strip()
    raise SystemExit("The server did not start.")


# Of the last two, a script each has more options.
SCRIPTS = {"batch": "batch_prediction.py", "publication": "publication.py"}
SECTIONS = ("overhead", "serve", *SCRIPTS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--images", type=Path, default=ASSETS / "images")
    parser.add_argument("--keras-home", type=Path, default=ASSETS / "keras_home")
    parser.add_argument("--seconds", type=float, default=60, help="of each load")
    arguments = parser.parse_args()
    # Read once, when Keras is imported, which TensorFlow does, too.
    os.environ["KERAS_HOME"] = str(arguments.keras_home)
    files = photographs(arguments.images)
    if len(files) < BATCH:
        raise SystemExit(f"Skipped: needs at least {BATCH} photographs; there are {len(files)} in {arguments.images}.")
    with tempfile.TemporaryDirectory() as folder:
        exported = Path(folder, "model")
        model = network(arguments.keras_home)
        export(model, exported)
        if "overhead" in arguments.sections:
            overhead(model, exported, files, min(arguments.seconds, 10))
        if "serve" in arguments.sections:
            serve(exported, files, arguments.seconds)
    for section in [name for name in SCRIPTS if name in arguments.sections]:
        subprocess.run([sys.executable, Path(__file__).with_name(SCRIPTS[section])], check=True)


if __name__ == "__main__":
    main()
