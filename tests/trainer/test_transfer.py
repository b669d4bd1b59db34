import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from components import features, progress
from components.errors import GraftError, UsageError
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
from trainer import export, training
from trainer.checkpoints import Checkpoints
from trainer.dataset import Split, read_split
from trainer.transfer import FEATURES_PREFIX, UNFINISHED_PREFIX, Training

ROOT = Path(__file__).resolve().parents[2]
MILD = {"flip": "horizontal", "rotation": 10, "zoom": 0.1, "brightness": 0.1}


@pytest.fixture
def passes(monkeypatch) -> list[tuple[str, int]]:
    """(name of the model, images) of each forward pass in which something is computed once."""
    seen = []
    original = training.inference

    def counted(model, like, augmentation=None):
        call = original(model, like, augmentation)

        def outputs(split, *seed):
            seen.append((model.name, len(split)))
            return call(split, *seed)

        return outputs

    monkeypatch.setattr(training, "inference", counted)
    return seen


@pytest.fixture(autouse=True)
def _fresh_names():
    yield
    keras.utils.clear_session()


# ---- what a person is told ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("views", [0, "every_epoch"])
def test_images_are_counted_while_features_are_computed_and_in_both_phases(views, tmp_path, monkeypatch):
    counts, said = [], []
    start, say = progress.start, progress.say
    monkeypatch.setattr(progress, "start", lambda *args, **more: (counts.append(progress.now()), start(*args, **more)))
    monkeypatch.setattr(progress, "say", lambda *words: (said.append(words), say(*words)))
    monkeypatch.setattr(training, "LONG_EPOCH", -1)
    changes = {"training": {"frozen": {"views": views}, "augmentation": MILD}} if views else {}
    progress.start(None)
    train(changes, None, tmp_path)
    last = progress.now()
    done = [(state.text, state.done, state.total, state.at_most) for state in [*counts[1:], last] if state.done]
    phases = [("frozen, epoch 4 of 4", 4 * 48, 4 * 48, False), ("fine-tune, epoch 2 of 2", 2 * 48, 2 * 48, False)]
    features = [] if views else [("computing features", 72, 72, False)] * 2
    assert done == features + phases
    assert last.within == "step 6 of 6"
    assert [detail != "" for _, detail in said] == [False, True, True, True, False, True]


def test_precision_that_no_cpu_is_faster_with_is_told(tmp_path):
    told = []
    with progress.heeded(told.append):
        train({"training": {"precision": "mixed_bfloat16", "fine_tune": {"epochs": 0}}}, None, tmp_path)
    assert told == [] if tf.config.list_physical_devices("GPU") else len(told) == 1 and "no GPU" in told[0]


# ---- what is computed once ------------------------------------------------------------------------------------------


def test_backbone_runs_once_over_each_image_whatever_the_number_of_epochs(passes, tmp_path):
    train({"training": {"frozen": {"epochs": 9, "patience": 9}}}, None, tmp_path)
    assert passes == [("trunk", 48), ("trunk", 24), ("features", 48), ("features", 24)]


def test_features_are_kept_for_the_next_training_on_the_same_images(passes, tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    plain = {"training": {"fine_tune": {"epochs": 0}}}
    first, result = train(plain, cache, tmp_path)
    assert passes == [("features", 48), ("features", 24)]
    again, same = train(plain | {"model": {"head": {"hidden": [8]}}}, cache, tmp_path)
    assert len(passes) == 2
    assert same["frozen"]["eval_loss"] != result["frozen"]["eval_loss"]
    train({"training": {"fine_tune": {"epochs": 0}}, "model": {"head": {"pooling": "max"}}}, cache, tmp_path)
    assert len(passes) == 4
    assert len(list(cache.glob(f"{FEATURES_PREFIX}*"))) == 2
    assert first.store.folder == again.store.folder


@pytest.mark.parametrize(
    "changes",
    [
        {"training": {"seed": 2}},
        {"transform": {"resize": "crop"}},
        {"model": {"head": {"pooling": "max"}}},
        {"training": {"precision": "mixed_bfloat16"}},
    ],
)
def test_features_are_not_those_of_another_network_or_of_other_pixels(changes, passes, tmp_path):
    """The weights are random, so they are the seed's."""
    changing = {"model": {"weights": "none"}, "training": {"fine_tune": {"epochs": 0}}}
    train(changing, tmp_path, tmp_path)
    train(merged(changing, changes), tmp_path, tmp_path)
    assert len(passes) == 4


def test_what_is_kept_is_known_by_the_pixels_and_not_by_the_file_that_they_came_from(passes, tmp_path):
    settings = settings_of({"training": {"fine_tune": {"epochs": 0}}}, tmp_path)
    for shade in (0, 1):
        splits = [read_back(write_examples(tmp_path, f"{shade}-{seed}", shade, seed), tmp_path) for seed in (0, 1)]
        Training(settings, CLASS_NAMES[:2], splits, tmp_path).run()
    assert len(passes) == 4


def write_examples(folder: Path, name: str, shade: int, seed: int) -> str:
    """Eight transformed examples; the keys are the same whatever the shade."""
    random = np.random.default_rng(seed)
    path = str(folder / f"{name}.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        for number in range(8):
            pixels = np.full((SIZE, SIZE, 3), 100 * (number % 2) + shade, np.uint8)
            example = tf.train.Example()
            for key, values in (
                (features.IMAGE, [tf.io.encode_png(pixels).numpy()]),
                (features.KEY, [random.bytes(32)]),
                (features.LABEL, [number % 2]),
                (features.CHANNEL_ORDER, [0, 1, 2]),
                (features.SCALE, [1 / 127.5] * 3),
                (features.OFFSET, [-1.0] * 3),
            ):
                kinds = {bytes: "bytes_list", int: "int64_list", float: "float_list"}
                getattr(example.features.feature[key], kinds[type(values[0])]).value.extend(values)
            writer.write(example.SerializeToString())
    return path


def read_back(path: str, folder: Path) -> Split:
    scratch = folder / f"scratch-{Path(path).stem}"
    scratch.mkdir()
    return read_split([path], SIZE, "png", scratch)


def test_trunk_that_a_killed_training_left_is_used_however_full_the_disk_has_become(passes, tmp_path, monkeypatch):
    train({}, tmp_path, tmp_path)
    monkeypatch.setattr("trainer.transfer.shutil.disk_usage", lambda path: SimpleNamespace(free=0))
    train({"training": {"frozen": {"epochs": 4}}}, tmp_path, tmp_path)
    assert len(passes) == 4


def test_half_a_file_that_a_killed_process_left_is_removed(tmp_path):
    done, _ = train({}, tmp_path, tmp_path)
    leftover = done.store.folder / ".features-0-4242"
    leftover.write_bytes(b"half")
    train({"training": {"batch_size": 9}}, tmp_path, tmp_path)
    assert not leftover.exists()


def test_a_feature_file_cut_short_is_computed_again(passes, tmp_path):
    plain = {"training": {"fine_tune": {"epochs": 0}}}
    done, result = train(plain, tmp_path, tmp_path)
    for file in done.store.folder.iterdir():
        os.truncate(file, 100)
    _, again = train(plain | {"training": {"seed": 1, "fine_tune": {"epochs": 0}, "batch_size": 9}}, tmp_path, tmp_path)
    assert len(passes) == 4
    assert again["frozen"]["eval_accuracy"] == pytest.approx(result["frozen"]["eval_accuracy"], abs=0.2)


def test_memory_does_not_grow_with_the_features(monkeypatch, tmp_path):
    """However many there are, only a part of them is read at a time; the result is the same."""
    plain = {"training": {"fine_tune": {"epochs": 0}}}
    _, whole = train(plain, None, tmp_path)
    rows = []
    original = Split.take
    monkeypatch.setattr(Split, "take", lambda self, index: rows.append(len(index)) or original(self, index))
    monkeypatch.setattr(training, "CHUNK_BYTES", 1)
    _, parts = train(plain, None, tmp_path)
    assert parts["frozen"]["history"]["val_loss"] == whole["frozen"]["history"]["val_loss"]
    # 4 epochs in chunks of a batch.
    assert rows.count(8) == 4 * 6


# ---- augmentation ---------------------------------------------------------------------------------------------------


def test_augmented_views_are_computed_once_each_and_drawn_from_in_every_epoch(passes, tmp_path):
    augmented = {"training": {"augmentation": MILD, "frozen": {"views": 3}, "fine_tune": {"epochs": 0}}}
    done, result = train(augmented, tmp_path, tmp_path)
    assert passes == [("features", 48), ("features", 24)] + [("features", 48)] * 3
    views = [np.fromfile(file, np.float32) for file in sorted(done.store.folder.glob("view-*"))]
    assert len(views) == 3
    assert not any(np.array_equal(views[0], other) for other in views[1:])
    _, plain = train({"training": {"fine_tune": {"epochs": 0}}}, None, tmp_path)
    assert result["frozen"]["history"]["loss"] != plain["frozen"]["history"]["loss"]
    # Evaluated on the images as they are: only those of the training split have views.
    assert result["frozen"]["epochs"] == plain["frozen"]["epochs"]


def test_p5_augmentation_draws_the_same_for_the_same_seed_in_both_phases(tmp_path):
    augmented = {"training": {"augmentation": MILD, "frozen": {"views": "every_epoch", "epochs": 2}}}
    first, _ = train(augmented, None, tmp_path)
    second, _ = train(augmented, None, tmp_path)
    other, _ = train({"training": augmented["training"] | {"seed": 2}}, None, tmp_path)
    assert weights_digest(first) == weights_digest(second) != weights_digest(other)
    # Also those names that Keras makes by counting, which `unfreeze` may use.
    assert [layer.name for layer in first.head.layers] == [layer.name for layer in second.head.layers]


def test_g13_frozen_phase_with_new_views_in_every_epoch_leaves_the_backbone_as_it_was(tmp_path):
    augmented = {"augmentation": MILD, "frozen": {"views": "every_epoch"}, "fine_tune": {"epochs": 0}}
    before, _ = train({"training": {"fine_tune": {"epochs": 0}}}, None, tmp_path)
    after, result = train({"training": augmented}, None, tmp_path)
    for one, other in zip(before.backbone.get_weights(), after.backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert result["frozen"]["epochs"] == 4


# ---- going on after a kill ------------------------------------------------------------------------------------------

SLOW = {"training": {"frozen": {"epochs": 400, "patience": 400}, "fine_tune": {"epochs": 25, "patience": 25}}}
FIGURES = ("epochs", "accuracy", "eval_accuracy", "eval_loss", "kept_epoch")


def start(cache: Path) -> subprocess.Popen:
    cache.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "tests.trainer.small_training", str(cache), json.dumps(SLOW)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def finish(cache: Path) -> dict:
    process = start(cache)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    return json.loads(out.splitlines()[-1])


def note_of(checkpoint: Path) -> dict:
    with np.load(checkpoint) as content:
        return json.loads(content["note"].tobytes())


def test_p2_training_killed_in_either_phase_goes_on_and_ends_as_if_it_had_not_been(tmp_path):
    cache = tmp_path / "killed"
    reached = []
    for name in ("frozen", "fine_tune"):
        process = start(cache)
        while not (found := list(cache.glob(f"{UNFINISHED_PREFIX}*/{name}.npz"))):
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.01)
        time.sleep(0.3)
        process.send_signal(signal.SIGKILL)
        process.wait()
        reached.append(note_of(found[0]))
    # Nobody else's seconds are the same: the frozen phase was gone on with, too, where the first process left it.
    seconds = [note["history"]["seconds"] for note in (reached[0], note_of(found[0].with_name("frozen.npz")))]
    assert 0 < len(seconds[0]) < 400
    assert seconds[1][: len(seconds[0])] == seconds[0]
    resumed, whole = finish(cache), finish(tmp_path / "whole")
    epoch = reached[1]["epoch"]
    assert 0 < epoch < 25
    assert (resumed["frozen"]["resumed_after"], resumed["fine_tune"]["resumed_after"]) == (400, epoch)
    for phase in ("frozen", "fine_tune"):
        for figure in FIGURES:
            assert resumed[phase][figure] == whole[phase][figure], (phase, figure)
        for curve in ("loss", "val_loss", "accuracy", "learning_rate"):
            assert resumed[phase]["history"][curve] == whole[phase]["history"][curve], (phase, curve)
    assert resumed["weights"] == whole["weights"]


def test_p10_fine_tuning_whose_loss_is_not_finite_stops_with_epoch_rate_and_setting(tmp_path):
    hopeless = {"training": {"fine_tune": {"learning_rate": 1e38, "schedule": "constant", "clip_norm": None}}}
    with pytest.raises(GraftError) as caught:
        train(hopeless, tmp_path, tmp_path)
    said = r"The loss became (inf|nan) .* epoch 1 of the fine-tune phase at learning rate 1e\+38: .*"
    assert re.match(rf"{said}Lower training\.fine_tune\.learning_rate\.$", str(caught.value))
    # What is gone on with is from before that.
    arrays = Checkpoints(next(tmp_path.glob(f"{UNFINISHED_PREFIX}*"))).read("frozen")[1]
    assert all(np.isfinite(array).all() for array in arrays)


def test_a_checkpoint_that_cannot_be_read_counts_as_none(tmp_path):
    done, result = train({}, tmp_path, tmp_path)
    for file in done.unfinished.glob("*.npz"):
        file.write_bytes(file.read_bytes()[:50])
    _, again = train({}, tmp_path, tmp_path)
    assert again["fine_tune"]["eval_loss"] == result["fine_tune"]["eval_loss"]


# ---- from the model in service --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> tuple[Path, keras.Model]:
    """A version as the Pusher leaves it, and the network in it."""
    folder = tmp_path_factory.mktemp("serving") / "7"
    done, _ = train({}, None, folder.parent)
    preprocessing = {"size": SIZE, "mode": "stretch", "storage": "png"}
    export.export(done.classifier(), CLASS_NAMES, preprocessing, CONSTANTS, folder)
    return folder, done.classifier()


def probabilities(classifier: keras.Model) -> np.ndarray:
    split = split_of(24, 1)
    return classifier(split.normalised(tf.constant(split.images)), training=False).numpy()


def test_training_from_the_model_in_service_with_the_same_classes_only_fine_tunes(published, tmp_path):
    folder, earlier = published
    hopeless = {"training": {"fine_tune": {"learning_rate": 50.0}}}
    done, result = train(hopeless, None, tmp_path, start_from=folder)
    assert result["start_from"] == "7"
    assert result["frozen"] is None
    # Nothing that it did was better, so what is left is what it began with.
    assert not result["fine_tune"]["kept"]
    np.testing.assert_allclose(probabilities(done.classifier()), probabilities(earlier), atol=1e-6)


def test_classes_that_stay_keep_their_rows_of_the_head_by_name(published, tmp_path, monkeypatch):
    folder, earlier = published
    monkeypatch.setattr("tests.trainer.small_training.CLASS_NAMES", ["blue", "dark", "light"])
    began = {}
    original = training.train_head

    def noted(head, *arguments):
        began["rows"] = head.get_layer("probabilities").get_weights()
        return original(head, *arguments)

    monkeypatch.setattr(training, "train_head", noted)
    _, result = train({}, None, tmp_path, start_from=folder)
    kernel, bias = earlier.get_layer("head").get_layer("probabilities").get_weights()
    np.testing.assert_array_equal(began["rows"][0][:, 1:], kernel[:, :2])
    np.testing.assert_array_equal(began["rows"][1][1:], bias[:2])
    assert not np.allclose(began["rows"][0][:, 0], kernel[:, 2])
    assert result["frozen"] is not None


@pytest.mark.parametrize("other", [{"head": {"hidden": [8]}}, {"head": {"pooling": "flatten"}}])
def test_another_network_than_the_one_in_service_is_refused(published, tmp_path, other):
    with pytest.raises(UsageError, match=r"version 7 in service is another network.*start_from to backbone"):
        train({"model": other}, None, tmp_path, start_from=published[0])


# ---- precision and devices ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_trains_on_a_cpu_and_exports_float32(precision, tmp_path):
    done, result = train({"training": {"precision": precision}}, None, tmp_path)
    _, exact = train({}, None, tmp_path)
    assert result["frozen"]["eval_loss"] == pytest.approx(exact["frozen"]["eval_loss"], abs=0.1)
    assert done.backbone.layers[-1].compute_dtype == precision.removeprefix("mixed_")
    classifier = done.classifier()
    assert {layer.compute_dtype for layer in classifier._flatten_layers()} == {"float32"}
    assert keras.config.dtype_policy().name == "float32"
    assert np.isfinite(probabilities(classifier)).all()


def test_replicas_on_two_devices_learn_what_one_does(tmp_path):
    """Two devices made of one CPU, in a process of their own: they must be made before TensorFlow starts."""
    script = """
import json, sys, pathlib
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
from tests.trainer.small_training import train
from components.errors import GraftError, UsageError
def result(devices, count=48, **more):
    # Without dropout, which each replica draws for itself.
    changes = {"training": {"devices": devices, **more}, "model": {"head": {"dropout": 0.0}}}
    return train(changes, None, pathlib.Path(sys.argv[1]), count=count)[1]["fine_tune"]
# 41 images in batches of 8 leave one: a replica would have none.
augmented = {"count": 41, "augmentation": {"flip": "horizontal"}}
print(json.dumps([result("one"), result("all"), result("all", **augmented), result("all", **augmented)]))
try:
    result("all", batch_size=7)
except UsageError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    *_, figures, refusal = done.stdout.splitlines()
    assert "2 devices share each batch, so it must be a multiple of 2. Received: 7." in refusal
    one, both, *augmented = json.loads(figures)
    np.testing.assert_allclose(both["history"]["val_loss"], one["history"]["val_loss"], rtol=0.02)
    np.testing.assert_allclose(both["history"]["loss"], one["history"]["loss"], rtol=0.02)
    assert augmented[0]["history"]["loss"] == augmented[1]["history"]["loss"]
