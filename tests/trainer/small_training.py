"""A whole training on images in memory, small enough for a test; as a program, for tests that kill it.

    python -m tests.trainer.small_training CACHE SETTINGS

SETTINGS is JSON, merged into the configuration. Prints one JSON object: what the phases gave, and a digest of the
weights.
"""

import copy
import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import Config
from trainer.dataset import Split
from trainer.transfer import Training

SIZE = 32
CONSTANTS = (np.array([0, 1, 2]), np.full(3, 1 / 127.5, np.float32), np.full(3, -1, np.float32))
CLASS_NAMES = ["dark", "light", "red"]
DEFAULTS = {
    "model": {"backbone": "graft_tiny", "weights": "bundled"},
    "transform": {"image_size": SIZE},
    "training": {
        "batch_size": 8,
        "frozen": {"epochs": 4, "patience": 4},
        "fine_tune": {"epochs": 2, "patience": 2, "learning_rate": 1e-3, "unfreeze": "2 blocks"},
    },
}


def merged(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    result = copy.deepcopy(left)
    for key, value in right.items():
        result[key] = merged(result[key], value) if isinstance(value, dict) and key in result else value
    return result


def split_of(count: int, seed: int, classes: int = 3) -> Split:
    """Noise that is dark, light or red."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    level = np.array([[0, 0, 0], [60, 60, 60], [60, 0, 0]])[labels][:, None, None, :]
    images = (random.integers(0, 180, (count, SIZE, SIZE, 3)) + level).astype(np.uint8)
    digest = hashlib.sha256(images.tobytes()).hexdigest()
    return Split(images, labels, np.arange(count), CONSTANTS, digest)


def settings_of(changes: dict[str, Any], cache: Path | None, start_from: Path | None = None) -> dict[str, Any]:
    """What the graph gives the Trainer."""
    values = Config.model_validate(merged(DEFAULTS, changes)).model_dump(mode="json")
    return {name: values[name] for name in ("model", "training", "transform")} | {
        "weights_digest": "",
        "code": "",
        "cache": cache and str(cache),
        "start_from": start_from and str(start_from),
    }


def train(
    changes: dict[str, Any],
    cache: Path | None,
    scratch: Path,
    start_from: Path | None = None,
    classes: int = 3,
    count: int = 48,
) -> tuple[Training, dict[str, Any]]:
    """Trains on 48 images, 24 for evaluation."""
    splits = [split_of(count, 0, classes), split_of(24, 1, classes)]
    training = Training(settings_of(changes, cache, start_from), CLASS_NAMES[:classes], splits, scratch)
    return training, training.run()


def weights_digest(training: Training) -> str:
    weights = [*training.backbone.get_weights(), *training.head.get_weights()]
    return hashlib.sha256(b"".join(weight.tobytes() for weight in weights)).hexdigest()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        done, outcome = train(json.loads(sys.argv[2]), Path(sys.argv[1]), Path(folder))
    print(json.dumps(outcome | {"weights": weights_digest(done)}))
