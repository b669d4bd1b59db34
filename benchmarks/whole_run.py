"""The whole of `graft run`, process start to end, against the plain-Keras script that does the same job.

    python benchmarks/whole_run.py [--seeds 3] [--sets sign_digits trashnet] [--json FILE]

Both get the same train/ and test/ folders (40 % test), backbone, weights and numbers of epochs, one after the other on
the same machine, and score test/ once. Needs ../shared (real images, ImageNet weights and the script). Prints a table
in Markdown: accuracies in percent, seconds, and their paired differences and ratios.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from layouts import SHARED, environment, layouts

EPOCHS = {"frozen": 10, "fine_tune": 5}


def timed(command: list[str]) -> tuple[float, subprocess.CompletedProcess]:
    """Wall-clock seconds of a process, and what it gave."""
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    return time.monotonic() - began, done


def reference(images: Path, seed: int) -> dict[str, float]:
    """The peer."""
    options = ["--seed", str(seed)]
    options += ["--frozen-epochs", str(EPOCHS["frozen"]), "--fine-tune-epochs", str(EPOCHS["fine_tune"])]
    seconds, done = timed([sys.executable, str(SHARED / "bench/keras_reference.py"), str(images), *options])
    result = json.loads(done.stdout.splitlines()[-1])
    return {"accuracy": result["test_accuracy"], "seconds": seconds}


def graft(images: Path, seed: int, output: Path) -> dict[str, float]:
    """Ours."""
    settings = {
        "model.backbone": "mobilenet_v2",
        "model.alpha": 0.35,
        "training.seed": seed,
        "training.frozen.epochs": EPOCHS["frozen"],
        "training.fine_tune.epochs": EPOCHS["fine_tune"],
    }
    options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "pipeline", "run", "--images", str(images), "--output", str(output), *options]
    seconds, done = timed(command)
    summary = json.loads((output / "runs/latest/summary.json").read_text())
    if summary["status"] == "failed":
        raise SystemExit(done.stdout + done.stderr)
    return {
        "accuracy": summary["metrics"]["test"]["accuracy"],
        "seconds": seconds,
        "status": summary["status"],
        "timings": summary["timings"],
        "frozen": summary["training"]["frozen"]["seconds"],
        "fine_tune": summary["training"]["fine_tune"]["seconds"],
    }


def cells(row: dict) -> list[str]:
    """One line of the table."""
    theirs, ours = row["reference"], row["graft"]
    return [
        row["set"],
        str(row["seed"]),
        f"{100 * theirs['accuracy']:.1f}",
        f"{100 * ours['accuracy']:.1f}",
        f"{100 * (ours['accuracy'] - theirs['accuracy']):+.1f}",
        f"{theirs['seconds']:.0f}",
        f"{ours['seconds']:.0f}",
        f"{ours['seconds'] / theirs['seconds']:.2f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", nargs="+", default=["sign_digits", "trashnet"])
    parser.add_argument("--json", type=Path, help="also write every figure here")
    arguments = parser.parse_args()
    rows = []
    print("| images | seed | reference % | graft % | difference | reference s | graft s | ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, seed, images, output in layouts(arguments.sets, arguments.seeds):
        theirs, ours = reference(images, seed), graft(images, seed, output)
        rows.append({"set": name, "seed": seed, "reference": theirs, "graft": ours})
        print("| " + " | ".join(cells(rows[-1])) + " |", flush=True)
    differences = [100 * (row["graft"]["accuracy"] - row["reference"]["accuracy"]) for row in rows]
    ratios = [row["graft"]["seconds"] / row["reference"]["seconds"] for row in rows]
    mean, ratio = statistics.mean(differences), statistics.median(ratios)
    print(f"\nMean difference {mean:+.1f} points; median ratio of time {ratio:.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
