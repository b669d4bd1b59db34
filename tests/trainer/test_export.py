"""The exported model's signature for pixels, and the `.keras` file that the Trainer leaves beside it."""

import json
import zipfile
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from components.temperature import scaled
from tests.trainer.small_training import CLASS_NAMES, CONSTANTS, SIZE, train
from trainer import backbones, export, training
from trainer import model as network
from trainer.transfer import Training

PREPROCESSING = {"size": SIZE, "mode": "stretch", "storage": "png"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A trained classifier, its SavedModel at a temperature of 0.5, its `.keras` file, and noise."""
    folder = tmp_path_factory.mktemp("trained")
    done, _ = train({"training": {"frozen": {"epochs": 1}, "fine_tune": {"epochs": 1}}}, None, folder)
    classifier = done.classifier()
    export.export(classifier, CLASS_NAMES, PREPROCESSING, CONSTANTS, folder / "model", 0.5)
    classifier.save(folder / "classifier.keras")
    images = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3), np.uint8)
    return SimpleNamespace(classifier=classifier, folder=folder, images=images)


def test_pixels_give_the_probabilities_that_the_files_with_these_pixels_give(trained):
    loaded = tf.saved_model.load(str(trained.folder / "model"))
    files = tf.constant([tf.io.encode_png(image).numpy() for image in trained.images])
    of_files = loaded.signatures["serving_default"](files)["probabilities"].numpy()
    of_pixels = loaded.signatures["serving_pixels"](pixels=tf.constant(trained.images))["probabilities"].numpy()
    np.testing.assert_array_equal(of_pixels, of_files)
    assert of_pixels.dtype == np.float32
    expected = scaled(trained.classifier(trained.images / 127.5 - 1, training=False).numpy(), 0.5)
    np.testing.assert_allclose(of_pixels, expected, atol=1e-5)


def test_network_is_stored_once_whatever_the_number_of_signatures(trained):
    content = (trained.folder / "model" / "saved_model.pb").read_bytes()
    functions = saved_model_pb2.SavedModel.FromString(content).meta_graphs[0].graph_def.library.function
    stored = [node.op for function in functions for node in function.node_def].count("Conv2D")
    assert stored == sum(type(layer) is keras.layers.Conv2D for layer in trained.classifier._flatten_layers())


def test_keras_file_holds_no_class_of_ours_and_no_optimizer(trained):
    with zipfile.ZipFile(trained.folder / "classifier.keras") as file:
        config = json.loads(file.read("config.json"))
        size = file.getinfo("model.weights.h5").file_size
    assert modules(config) <= {"keras", "keras.layers", "keras.initializers", "keras.src.models.functional", None}
    assert "compile_config" not in json.dumps(config).replace('"compile_config": {}', "")
    numbers = sum(weight.numpy().nbytes for weight in trained.classifier.weights)
    assert size < 1.3 * numbers + 100_000


def modules(config) -> set:
    """Every module that a saved configuration names."""
    if isinstance(config, list):
        return set().union(*map(modules, config))
    if not isinstance(config, dict):
        return set()
    own = {config["module"]} if "class_name" in config and "module" in config else set()
    return own.union(*map(modules, config.values()))


def test_keras_file_loads_in_safe_mode_and_gives_the_same_once_it_is_calibrated(trained):
    loaded = keras.saving.load_model(trained.folder / "classifier.keras", safe_mode=True)
    uncalibrated = loaded(trained.images / 127.5 - 1, training=False).numpy()
    expected = tf.saved_model.load(str(trained.folder / "model")).signatures["serving_pixels"](
        pixels=tf.constant(trained.images)
    )
    np.testing.assert_allclose(scaled(uncalibrated, 0.5), expected["probabilities"].numpy(), atol=1e-6)


def test_keras_file_of_the_bundled_backbone_starts_another_training(trained):
    path = str(trained.folder / "classifier.keras")
    backbones.require_weights("graft_tiny", 1.0, path, SIZE)
    loaded = backbones.build("graft_tiny", 1.0, path, SIZE)
    count = len(loaded.weights)
    for one, other in zip(loaded.get_weights(), trained.classifier.get_weights()[:count], strict=True):
        np.testing.assert_array_equal(one, other)


def test_keras_file_of_a_backbone_of_keras_applications_starts_another_training(tmp_path):
    backbone = backbones.build("mobilenet_v2", 0.35, "none", 32)
    pooled = network.pooled(backbone, "average")
    head = network.head(pooled.output_shape[-1], 2, [4], 0.5)
    head.compile(keras.optimizers.Adam(), training.loss_of(0.1))
    done = SimpleNamespace(model={}, pooled=pooled, head=head, training={"precision": "float32"})
    path = tmp_path / "classifier.keras"
    Training.classifier(done).save(path)
    keras.saving.load_model(path, safe_mode=True)
    loaded = backbones.build("mobilenet_v2", 0.35, str(path), 32)
    for one, other in zip(loaded.get_weights(), backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
