"""Training from the backbone and from the model in service, and the choice between them."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.small_training import (
    CLASS_NAMES,
    CONSTANTS,
    SIZE,
    merged,
    settings_of,
    split_of,
    train,
    weights_digest,
)
from trainer import export, starts, training
from trainer.run import _tidy
from trainer.transfer import UNFINISHED_PREFIX

ROOT = Path(__file__).resolve().parents[2]
BOTH = {"training": {"start_from": "both"}}
GOOD = {"training": {"frozen": {"epochs": 12, "patience": 12}}}


@pytest.fixture(scope="module")
def version(tmp_path_factory) -> Path:
    """Of a network that has learnt these images."""
    folder = tmp_path_factory.mktemp("serving") / "7"
    done, _ = train(GOOD, None, folder.parent)
    preprocessing = {"size": SIZE, "mode": "stretch", "storage": "png"}
    export.export(done.classifier(), CLASS_NAMES, preprocessing, CONSTANTS, folder)
    return folder


@pytest.fixture(autouse=True)
def _fresh_names():
    yield
    keras.utils.clear_session()


def begun(changes: dict, cache: Path | None, scratch: Path, version: Path | None):
    settings = settings_of(merged(BOTH, changes), cache, version)
    return starts.train(settings, CLASS_NAMES, [split_of(48, 0), split_of(24, 1)], scratch)


def test_better_start_by_the_eval_split_is_chosen_and_both_are_told(version, tmp_path):
    little = {"training": {"frozen": {"epochs": 1}, "fine_tune": {"learning_rate": 1e-6}}}
    chosen, result, _ = begun(little, None, tmp_path, version)
    backbone, in_service = result["starts"]
    assert (backbone["start_from"], in_service["start_from"]) == (None, "7")
    assert in_service["eval_calibrated_loss"] < backbone["eval_calibrated_loss"]
    assert (backbone["chosen"], in_service["chosen"]) == (False, True)
    assert (result["start_from"], result["frozen"]) == ("7", None)
    assert in_service["eval_accuracy"] == chosen.score[1]


def test_no_worse_training_from_the_backbone_is_preferred(version, tmp_path, monkeypatch):
    monkeypatch.setattr(starts, "no_worse", lambda one, other: len(one[0]) == len(other[0]) == 24)
    chosen, result, _ = begun({}, None, tmp_path, version)
    assert result["start_from"] is None and result["starts"][0]["chosen"]
    # The one that came first is exported after the other was trained.
    split = split_of(24, 1)
    answers = chosen.classifier()(split.normalised(tf.constant(split.images)), training=False).numpy()
    assert (answers.argmax(1) == split.labels).mean() == pytest.approx(chosen.score[1])
    _, of_it = train({}, None, tmp_path)
    assert result["fine_tune"]["eval_loss"] == of_it["fine_tune"]["eval_loss"], "as if it had been trained alone"


def test_a_start_is_worse_by_a_standard_error_or_by_an_image():
    losses = np.linspace(0.1, 0.2, 24)
    noisy = losses + np.where(np.arange(24) % 2, 0.3, -0.28)
    assert training.no_worse((losses, 0.5), (losses + 0.01, 0.9))
    assert training.no_worse((noisy, 0.9), (losses, 0.9))
    assert not training.no_worse((noisy, 0.8), (losses, 0.9))
    assert not training.no_worse((losses + 0.01, 0.9), (losses, 0.9))


def test_nothing_in_service_means_the_backbone_only(tmp_path):
    _, result, _ = begun({}, None, tmp_path, None)
    (told,) = result["starts"]
    assert (told["start_from"], told["chosen"]) == (None, True)


def test_another_network_in_service_is_told_and_the_backbone_is_trained(version, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("components.progress.warn", said.append)
    _, result, _ = begun({"model": {"head": {"hidden": [8]}}}, None, tmp_path, version)
    assert len(result["starts"]) == 1
    assert "version 7 in service is another network" in said[-1] and "backbone only" in said[-1]


def test_trunk_is_computed_once_for_both_and_nothing_but_features_stays(version, tmp_path, monkeypatch):
    passes, original = [], training.inference

    def counted(model, like, augmentation=None):
        call = original(model, like, augmentation)
        return lambda split, *seed: passes.append(model.name) or call(split, *seed)

    monkeypatch.setattr(training, "inference", counted)
    _, _, stores = begun({}, tmp_path, tmp_path, version)
    # Two splits go through the trunk, and what comes of it through the rest for the head of the first training.
    assert len(passes) == 4
    _tidy(tmp_path, stores)
    (left,) = tmp_path.iterdir()
    assert left == stores[0].folder and len(list(left.iterdir())) == 2


# ---- going on after a kill ------------------------------------------------------------------------------------------

SLOW = merged(BOTH, {"training": {"fine_tune": {"epochs": 25, "patience": 25}}})
PROGRAM = """
import sys
from pathlib import Path
from tests.trainer import test_starts as program
program.whole(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def whole(cache: Path, version: Path) -> dict:
    cache.mkdir(exist_ok=True)
    chosen, result, _ = begun(SLOW, cache, cache, version)
    return result | {"weights": weights_digest(chosen)}


def start(cache: Path, version: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", PROGRAM, cache, version]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_p2_second_of_two_trainings_that_was_killed_goes_on_and_ends_as_if_it_had_not_been(version, tmp_path):
    process = start(tmp_path / "killed", version)
    while len(list((tmp_path / "killed").glob(f"{UNFINISHED_PREFIX}*/fine_tune.npz"))) < 2:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    resumed, undisturbed = (whole(tmp_path / name, version) for name in ("killed", "whole"))
    for one, other in zip(resumed["starts"], undisturbed["starts"], strict=True):
        assert one | {"seconds": 0} == other | {"seconds": 0}
    assert resumed["weights"] == undisturbed["weights"]
    assert resumed["fine_tune"]["resumed_after"] > 0
