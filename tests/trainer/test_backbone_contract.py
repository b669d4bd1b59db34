"""What every backbone must hold to: a member of each family through both phases and the export; each name by itself."""

import inspect
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.utils import file_utils

from components import pixels
from trainer import backbones, export, training
from trainer import model as network
from trainer.backbones import BACKBONES
from trainer.checkpoints import Checkpoints
from trainer.dataset import Split

# The smallest member of each family.
FAMILIES = [
    "graft_tiny",
    "vgg16",
    "resnet50",
    "resnet50_v2",
    "inception_v3",
    "inception_resnet_v2",
    "xception",
    "mobilenet",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "densenet121",
    "nasnet_mobile",
    "efficientnet_b0",
    "efficientnet_v2_b0",
    "convnext_tiny",
]
# Those whose files differ in kind: plain layers, layers that Keras does not know by name, rescaling or normalisation
# inside. The other families are made of the same layers.
UNLIKE_EACH_OTHER = [
    "vgg16",
    "mobilenet",
    "inception_resnet_v2",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "convnext_tiny",
]
PUBLISHED = [name for name, row in BACKBONES.items() if row.constructor]


def constructor(name):
    return getattr(keras.applications, BACKBONES[name].constructor)


def random_images(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3)).astype(np.uint8)


def built(name: str, weights: str = "none") -> keras.Model:
    """The narrowest at the smallest size; the seed makes its random weights."""
    row = BACKBONES[name]
    keras.utils.set_random_seed(1)
    return backbones.build(name, min(row.alphas, default=1.0), weights, row.min_size)


def same(left, right) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(left, right, strict=True))


def constants(name):
    row = BACKBONES[name].normalisation
    return np.array(row.channel_order), np.float32(row.scale), np.float32(row.offset)


def is_batch_norm(layer: keras.Layer) -> bool:
    return isinstance(layer, keras.layers.BatchNormalization)


def computed(model: keras.Model, split: Split) -> Split:
    return split.replaced(np.concatenate(list(training.inference(model, split)(split))))


@pytest.fixture(autouse=True)
def _fresh_names():
    yield
    keras.utils.clear_session()


# ---- one member of each family --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_family_freezes_fine_tunes_exports_and_reloads(name, tmp_path):
    size = BACKBONES[name].min_size
    backbone = built(name)
    assert min(backbone.output_shape[1:]) > 0
    images = random_images(4, size)
    if name == "mobilenet":  # without shortcuts the signal of a random network fades, and no gradient is left
        backbone.set_weights([value * 2 if value.ndim == 4 else value for value in backbone.get_weights()])
    backbone.trainable = False
    split = Split(images, np.arange(4) % 2, np.arange(4), constants(name))
    settings = {"epochs": 2, "learning_rate": 1e-5, "patience": 5, "batch_size": 4, "seed": 1}
    settings |= {"label_smoothing": 0.0, "balance": "none", "clip_norm": None, "schedule": "cosine"}
    before = backbone.get_weights()

    # As trainer.run does: what no phase changes is computed once.
    start = network.first_unfrozen(backbone, "1 block", BACKBONES[name].blocks)
    trunk, top = network.divide(backbone, start)
    kept_split = computed(trunk, split) if trunk else split
    features = network.pooled(top, "average")
    head = network.head(features.output_shape[-1], 2, [], 0.0)
    learnt = computed(features, kept_split)
    training.train_head(head, [learnt], learnt, settings, Checkpoints(None))
    assert same(before, backbone.get_weights())

    network.unfreeze(backbone, start)
    frozen = [weight.numpy() for weight in backbone.non_trainable_weights]
    moving = [weight.numpy() for weight in backbone.trainable_weights]
    tuned = network.joined(features, head)
    optimizer = training.fine_tuning(settings, {})
    phase = training.train_network("fine_tune", tuned, optimizer, kept_split, kept_split, settings, Checkpoints(None))
    assert phase.kept_epoch
    # All below the block, and every BatchNorm with its statistics.
    assert same(frozen, [weight.numpy() for weight in backbone.non_trainable_weights])
    assert not same(moving, [weight.numpy() for weight in backbone.trainable_weights])

    features = network.pooled(backbone, "average")
    classifier = network.joined(features, head)
    normalised = split.normalised(tf.constant(images))
    spread_out(head, features(normalised, training=False).numpy())
    expected = classifier(normalised, training=False).numpy()
    assert np.abs(expected - 0.5).max() > 1e-3
    preprocessing = {"size": size, "mode": "stretch", "storage": "png"}
    export.export(classifier, ["one", "two"], preprocessing, split.constants, tmp_path / "model")
    served = tf.saved_model.load(str(tmp_path / "model")).signatures["serving_default"]
    encoded = tf.stack([tf.io.encode_png(image) for image in images])
    np.testing.assert_allclose(served(image_bytes=encoded)["probabilities"], expected, atol=1e-5)


def spread_out(head: keras.Model, features: np.ndarray):
    """Scales the head to the features: those of a random network may be so small that every image scores one half."""
    kernel, bias = head.layers[-1].weights
    scale = 1 / np.linalg.norm(features, axis=1).max()
    kernel.assign(np.random.default_rng(1).normal(0, scale, kernel.shape))
    bias.assign(np.zeros(bias.shape))


@pytest.mark.parametrize("name", FAMILIES)
def test_trunk_ends_where_the_top_block_begins(name):
    backbone = built(name)
    start = network.first_unfrozen(backbone, "1 block", BACKBONES[name].blocks)
    trunk, top = network.divide(backbone, start)
    if name == "nasnet_mobile":  # its cells also read what the cell before the last one gave
        assert trunk is None or trunk.count_params() < backbone.count_params()
    else:
        below = sum(layer.count_params() for layer in backbone.layers[:start] if not is_batch_norm(layer))
        assert sum(layer.count_params() for layer in trunk.layers if not is_batch_norm(layer)) == below
    if trunk is not None:
        images = pixels.normalise(random_images(2, BACKBONES[name].min_size), *constants(name))
        whole = backbone(images, training=False).numpy()
        parts = top(trunk(images, training=False), training=False).numpy()
        np.testing.assert_allclose(parts, whole, rtol=1e-4, atol=1e-5 * np.abs(whole).max())


@pytest.mark.parametrize("name", UNLIKE_EACH_OTHER)
def test_g15_weights_load_from_a_file(name, tmp_path):
    backbone, random = built(name), np.random.default_rng(2)
    # As after training: not even BatchNorm's statistics are those of a new network.
    trained = [np.asarray(value + random.uniform(0, 1, value.shape), value.dtype) for value in backbone.get_weights()]
    backbone.set_weights(trained)
    backbone.save(tmp_path / "backbone.keras")
    backbone.save_weights(tmp_path / "backbone.weights.h5")
    for file in tmp_path.iterdir():
        backbone.set_weights([np.zeros_like(value) for value in trained])
        backbones.load_file(backbone, file)
        assert same(backbone.get_weights(), trained)


# ---- every name -----------------------------------------------------------------------------------------------------


def test_table_has_every_network_of_keras_applications():
    networks = {name for name, value in vars(keras.applications).items() if inspect.isfunction(value)}
    assert {row.constructor for row in BACKBONES.values() if row.constructor} == networks


@pytest.mark.parametrize("name", PUBLISHED)
def test_normalisation_equals_the_familys_own_preprocess_input(name):
    images = random_images(2, 8)
    expected = inspect.getmodule(constructor(name)).preprocess_input(images.astype(np.float32))
    np.testing.assert_allclose(pixels.normalise(images, *constants(name)), expected, atol=1e-4)


@pytest.mark.parametrize("name", PUBLISHED)
def test_row_is_what_keras_builds_and_asks_for(name, monkeypatch):
    row, asked = BACKBONES[name], []
    alpha = min(row.alphas, default=1.0)
    monkeypatch.setattr(file_utils, "get_file", lambda fname, *args, **kwargs: asked.append(fname))
    monkeypatch.setattr(keras.Model, "load_weights", lambda self, path: None)
    # Without values for the variables, the largest take seconds, not minutes.
    with keras.StatelessScope(initialize_variables=False):
        backbone = backbones.build(name, alpha, "imagenet", row.min_size)
    assert asked == [row.weights_name(alpha, row.min_size)]
    assert min(backbone.output_shape[1:]) > 0

    names = [layer.name for layer in backbone.layers]
    assert len(set(names)) == len(names)
    starts = [
        network.first_unfrozen(backbone, f"{count} blocks", row.blocks) for count in range(1, len(row.blocks) + 1)
    ]
    assert starts == sorted(set(starts), reverse=True)
    assert starts[-1] == 0
    # No block is missing: a layer that is called as if it were in one is in one.
    alike = "|".join(sorted({re.sub(r"\d+", r"\\d+", block) for block in row.blocks}))
    assert all(layer.startswith(row.blocks) for layer in names if re.match(alike, layer))


@pytest.mark.parametrize("name", ["inception_v3", "xception", "vgg16", "nasnet_large"])
def test_smallest_size_is_the_smallest_that_keras_takes(name):
    with pytest.raises(ValueError, match="at least"), keras.StatelessScope(initialize_variables=False):
        backbones.build(name, 1.0, "none", BACKBONES[name].min_size - 1)
