"""The default recipe against the plain-Keras script: accuracy, training time, and time to the script's accuracy.

    python benchmarks/training.py [--seeds 5] [--sets sign_digits trashnet] [--backbone mobilenet_v2] [--alpha 0.35]
        [--set KEY=VALUE ...] [--json FILE]
    python benchmarks/training.py --memory

Both get the same train/ and test/ folders (40 % test), backbone and weights, one after the other on the same machine,
and score test/ once. Needs ../shared (real images, ImageNet weights and the script). Prints two tables in Markdown:
accuracies in percent with the paired differences and their bootstrap interval, and seconds. A linear probe
(scikit-learn's logistic regression on the backbone's features of the same training images) stands beside them.

Seconds of training are those of both phases, the pass that computes features included; in the script, too, without
imports and listing. The script decodes JPEGs in every epoch, Graft in its Transform step. The time to the script's
accuracy comes from a training in which the test split takes the place of the eval split, so that every epoch is scored
on it: the first epoch whose median over three epochs reaches the script's mean accuracy over all seeds of that set.

--memory trains a head on generated features of 100,000 images of a 1,280-wide backbone, and says what that adds to the
memory of the process.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from layouts import ROOT, SHARED, environment, layouts

REFERENCE_NAMES = {"mobilenet_v2": "MobileNetV2", "mobilenet": "MobileNet"}
RESAMPLES = 10_000


def called(command: list[str]) -> str:
    """What a process printed."""
    variables = environment() | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=variables, cwd=ROOT)
    if done.returncode not in (0, 4):
        raise SystemExit(done.stdout + done.stderr)
    return done.stdout


def reference(images: Path, seed: int, arguments: argparse.Namespace) -> dict:
    """The peer."""
    options = ["--backbone", REFERENCE_NAMES[arguments.backbone], "--alpha", str(arguments.alpha), "--seed", str(seed)]
    out = called([sys.executable, str(SHARED / "bench/keras_reference.py"), str(images), *options])
    result = json.loads(out.splitlines()[-1])
    return {"accuracy": result["test_accuracy"], "seconds": result["frozen_seconds"] + result["fine_tune_seconds"]}


def overrides(seed: int, arguments: argparse.Namespace) -> list[str]:
    settings = [f"model.backbone={arguments.backbone}", f"model.alpha={arguments.alpha}", f"training.seed={seed}"]
    return [*settings, *arguments.set]


def graft(images: Path, seed: int, output: Path, arguments: argparse.Namespace) -> dict:
    """Ours: `graft run`, then the curve over the test split."""
    options = [part for setting in overrides(seed, arguments) for part in ("--set", setting)]
    called([sys.executable, "-m", "pipeline", "run", "--images", str(images), "--output", str(output), *options])
    summary = json.loads((output / "runs/latest/summary.json").read_text())
    if summary["status"] == "failed":
        raise SystemExit(summary["error"])
    phases = [summary["training"][name] for name in ("frozen", "fine_tune") if summary["training"][name]]
    curve = called([sys.executable, __file__, "--curve", str(output), *(f"--set={text}" for text in options[1::2])])
    return {
        "accuracy": summary["metrics"]["test"]["accuracy"],
        "seconds": sum(phase["seconds"] for phase in phases),
        "step_seconds": summary["timings"]["Trainer"],
        "kept": summary["training"]["fine_tune"]["kept"] if summary["training"]["fine_tune"] else None,
    } | json.loads(curve.splitlines()[-1])


def print_curve(output: Path, settings: list[str]) -> None:
    """In a process of its own: test accuracy after each epoch, its seconds, and the linear probe's accuracy."""
    from sklearn.linear_model import LogisticRegression

    from pipeline import config, graph
    from trainer import backbones, dataset, training, transfer
    from trainer import model as network

    loaded = config.load(None, settings)
    values = loaded.model_dump(mode="json") | {"transform": graph.transform_settings(loaded)}
    values |= {"cache": None, "start_from": None, "weights_digest": "", "code": ""}
    (examples,) = (output / "artifacts/Transform/transformed_examples").iterdir()
    with tempfile.TemporaryDirectory() as folder:
        train, test = (
            dataset.read_split([str(examples / f"Split-{name}" / "*")], loaded.image_size, "png", Path(folder))
            for name in ("train", "test")
        )
        classes = [str(number) for number in range(int(train.labels.max()) + 1)]
        done = transfer.Training(values, classes, [train, test], Path(folder))
        result = done.run()
        accuracies, seconds, before = [], [], 0.0
        for phase in (result["frozen"], result["fine_tune"]):
            if phase:
                accuracies += phase["history"]["val_accuracy"]
                seconds += [before + value for value in phase["history"]["seconds"]]
                before += phase["seconds"]
        # The backbone as it was published, not as it is now.
        keys = ("backbone", "alpha", "weights")
        backbone = backbones.build(*(values["model"][key] for key in keys), loaded.image_size)
        compute = training.inference(network.pooled(backbone, "average"), train)
        features = [np.concatenate(list(compute(split))) for split in (train, test)]
        probe = LogisticRegression(max_iter=5000).fit(features[0], train.labels)
    print(json.dumps({"accuracies": accuracies, "at": seconds, "probe": probe.score(features[1], test.labels)}))


def reached(curve: dict, accuracy: float) -> float | None:
    """Seconds to the first epoch whose median over three epochs is at least that accuracy."""
    rows = list(zip(curve["accuracies"], curve["at"], strict=True))
    for index in range(2, len(rows)):
        if statistics.median(row[0] for row in rows[index - 2 : index + 1]) >= accuracy:
            return rows[index][1]
    return None


def interval(groups: list[list[float]]) -> tuple[float, float, float]:
    """Mean over the groups' means, and its 95 % bootstrap percentile interval (resampled within each group)."""
    random = np.random.default_rng(0)
    means = np.mean(
        [random.choice(values, (RESAMPLES, len(values))).mean(axis=1) for values in map(np.array, groups)], axis=0
    )
    low, high = np.percentile(means, [2.5, 97.5])
    return float(np.mean([np.mean(values) for values in groups])), float(low), float(high)


def table(rows: list[list[str]]) -> None:
    for number, row in enumerate(rows):
        print("| " + " | ".join(row) + " |")
        if number == 0:
            print("|" + " --- |" * len(row))


def report(rows: list[dict]) -> None:
    """Both tables and the summary."""
    sets = list(dict.fromkeys(row["set"] for row in rows))
    by_set = {name: [row for row in rows if row["set"] == name] for name in sets}
    accuracy = [["images", "seed", "reference %", "linear probe %", "graft %", "difference", "fine-tuning kept"]]
    seconds = [
        ["images", "seed", "reference s", "graft s", "ratio", "whole Trainer step s", "to its accuracy s", "ratio"]
    ]
    differences: dict[str, list[float]] = {name: [] for name in sets}
    over_probe: dict[str, list[float]] = {name: [] for name in sets}
    ratios, reaching = [], []
    for name in sets:
        wanted = statistics.mean(row["reference"]["accuracy"] for row in by_set[name])
        for row in by_set[name]:
            theirs, ours = row["reference"], row["graft"]
            differences[name].append(100 * (ours["accuracy"] - theirs["accuracy"]))
            over_probe[name].append(100 * (ours["accuracy"] - ours["probe"]))
            ratios.append(ours["seconds"] / theirs["seconds"])
            at = reached(ours, wanted)
            reaching.append(at / theirs["seconds"] if at is not None else float("inf"))
            head = [name, str(row["seed"])]
            shares = [f"{100 * value:.1f}" for value in (theirs["accuracy"], ours["probe"], ours["accuracy"])]
            accuracy.append([*head, *shares, f"{differences[name][-1]:+.1f}", "yes" if ours["kept"] else "no"])
            spent = [f"{theirs['seconds']:.1f}", f"{ours['seconds']:.1f}", f"{ratios[-1]:.2f}"]
            to = ["never" if at is None else f"{at:.1f}", f"{reaching[-1]:.2f}"]
            seconds.append([*head, *spent, f"{ours['step_seconds']:.1f}", *to])
    table(accuracy)
    print()
    table(seconds)
    mean, low, high = interval(list(differences.values()))
    print(f"\nGraft minus reference: {mean:+.1f} points, 95 % bootstrap interval {low:+.1f} to {high:+.1f}.")
    for name in sets:
        mean, low, high = interval([over_probe[name]])
        print(f"Graft minus linear probe on {name}: {mean:+.1f} points ({low:+.1f} to {high:+.1f}).")
    print(f"Training time over the reference's: median {statistics.median(ratios):.2f}, highest {max(ratios):.2f}.")
    print(f"Time to the reference's accuracy over its training time: median {statistics.median(reaching):.2f}.")


def print_memory() -> None:
    """What training a head on 100,000 images' features adds to the peak of resident memory."""
    from trainer import model as network
    from trainer import training
    from trainer.checkpoints import Checkpoints
    from trainer.dataset import Split
    from trainer.stored import Store

    count, width = 100_000, 1280
    settings = {"epochs": 3, "learning_rate": 1e-3, "patience": 3, "batch_size": 32, "seed": 1}
    settings |= {"label_smoothing": 0.1, "balance": "none"}

    def peak() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    def features(split: Split):
        random = np.random.default_rng(len(split))
        for _ in range(0, len(split), 1000):
            yield random.random((1000, width), np.float32)

    head = network.head(width, 10, [256], 0.5)
    head.predict(np.zeros((32, width)), verbose=0)  # what TensorFlow takes anyway
    before = peak()
    with tempfile.TemporaryDirectory() as folder:
        began, store = time.monotonic(), Store(Path(folder))
        labels = np.arange(count) % 10
        empty = np.zeros((0, 1), np.uint8)
        splits = [Split(empty, labels[:size], np.arange(size), (), str(size)) for size in (count, count // 10)]
        train, evaluation = (store.computed("features", split, [width], features) for split in splits)
        phase = training.train_head(head, [train], evaluation, settings, Checkpoints(Path(folder)))
        seconds = time.monotonic() - began
    print(
        f"{count} features of {width} numbers ({count * width * 4 / 2**20:.0f} MiB): {phase.epochs} epochs in "
        f"{seconds:.0f} s, {phase.images_per_second:.0f} images/s; peak memory {before:.0f} MiB before, "
        f"{peak():.0f} MiB after"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sets", nargs="+", default=["sign_digits", "trashnet"])
    parser.add_argument("--backbone", choices=sorted(REFERENCE_NAMES), default="mobilenet_v2")
    parser.add_argument("--alpha", type=float, default=0.35)
    parser.add_argument("--set", action="append", default=[], help="as in `graft run`")
    parser.add_argument("--json", type=Path, help="also write every figure here")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--curve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        return print_memory()
    if arguments.curve:
        return print_curve(arguments.curve, arguments.set)
    rows = []
    for name, seed, images, output in layouts(arguments.sets, arguments.seeds):
        row = {"set": name, "seed": seed, "reference": reference(images, seed, arguments)}
        row["graft"] = graft(images, seed, output, arguments)
        rows.append(row)
        print(f"{name} {seed} done", file=sys.stderr, flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(rows, indent=1))
    report(rows)


if __name__ == "__main__":
    main()
