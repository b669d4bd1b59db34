"""Publications of a real model under two readers: does either see a version that is not whole, and what do they cost.

    python benchmarks/publication.py [--publications 100] [--keep 5] [--pause 0.1]

The bundled backbone with a head, exported as a training exports it, is published again and again to a local folder. One
process lists the folder every millisecond and verifies the checksums of each version that it has not seen before;
another loads the newest version with TensorFlow and classifies an image, over and over. A version is broken if its
checksums do not hold, or it does not load, while it is there. Prints a table in Markdown.
"""

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from pathlib import Path

from components import checksums
from components.publishing import newest, publish, versions

CLASS_NAMES = [f"class {number}" for number in range(10)]


def export_model(folder: Path) -> None:
    import numpy as np

    from trainer import backbones, export, model

    backbone = backbones.build("graft_tiny", 1.0, "bundled", 64)
    features = model.pooled(backbone, "average")
    classifier = model.joined(features, model.head(features.output.shape[-1], len(CLASS_NAMES), [256], 0.5))
    constants = (np.array([0, 1, 2]), np.full(3, 1 / 127.5, np.float32), np.full(3, -1, np.float32))
    export.export(classifier, CLASS_NAMES, {"size": 64, "mode": "stretch", "storage": "png"}, constants, folder)


def list_and_verify(serving: Path, ready, stop, results) -> None:
    """A listing a millisecond; what is new is read whole."""
    listings, seen, broken = 0, set(), set()
    ready.release()
    while not stop.is_set():
        due = time.monotonic() + 0.001
        listings += 1
        for version in set(versions(serving)) - seen:
            seen.add(version)
            try:
                whole = (found := checksums.verify(serving / str(version))) is not None and found.clean
            except FileNotFoundError:
                whole = False
            if not whole and (serving / str(version)).is_dir():
                broken.add(version)
        time.sleep(max(0.0, due - time.monotonic()))
    results.put({"listings": listings, "seen": len(seen), "broken": len(broken)})


def load(serving: Path, ready, stop, results) -> None:
    """Loads the newest version, as a server does that starts just then."""
    import numpy as np
    import tensorflow as tf

    image = tf.io.encode_png(np.zeros((64, 64, 3), np.uint8))
    loaded, broken = 0, 0
    ready.release()
    while not stop.is_set():
        version = newest(serving)
        try:
            answers = tf.saved_model.load(str(version)).signatures["serving_default"](image[tf.newaxis])
            assert answers["label"].numpy()[0].decode() in CLASS_NAMES
            loaded += 1
        # Whatever TensorFlow makes of a model that is not whole.
        except Exception as error:
            if version.is_dir():
                print(f"{version}: {type(error).__name__}: {error}")
                broken += 1
    results.put({"loaded": loaded, "not_loaded": broken})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--publications", type=int, default=100)
    parser.add_argument("--keep", type=int, default=5)
    parser.add_argument("--pause", type=float, default=0.1, help="seconds between publications, for more loads in all")
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    processes = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as scratch:
        model, serving = Path(scratch, "model"), Path(scratch, "serving")
        export_model(model)
        size = sum(path.stat().st_size for path in model.rglob("*") if path.is_file())
        publish(model, serving, arguments.keep)
        ready, stop, results = processes.Semaphore(0), processes.Event(), processes.Queue()
        readers = [processes.Process(target=each, args=(serving, ready, stop, results)) for each in _READERS]
        for reader in readers:
            reader.start()
        for _ in readers:
            ready.acquire()
        milliseconds = []
        for _ in range(arguments.publications):
            began = time.monotonic()
            publish(model, serving, arguments.keep)
            milliseconds.append(1000 * (time.monotonic() - began))
            time.sleep(arguments.pause)
        stop.set()
        found = results.get() | results.get()
        for reader in readers:
            reader.join()
    print("| publications | MB | listings | versions seen | loads | broken | ms a publication (median, longest) |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    print(
        f"| {arguments.publications} | {size / 1e6:.1f} | {found['listings']} | {found['seen']} | {found['loaded']} "
        f"| {found['broken'] + found['not_loaded']} "
        f"| {statistics.median(milliseconds):.0f}, {max(milliseconds):.0f} |"
    )


_READERS = (list_and_verify, load)

if __name__ == "__main__":
    main()
