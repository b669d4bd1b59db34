import dataclasses

import keras
import numpy as np
import pytest

from components.errors import GraftError, UsageError
from trainer import backbones, training
from trainer import model as network
from trainer.backbones import BACKBONES
from trainer.checkpoints import Checkpoints
from trainer.dataset import Batches, Split
from trainer.training import Phase

CONSTANTS = (np.array([0, 1, 2]), np.full(3, 1 / 127.5, np.float32), np.full(3, -1, np.float32))


def split_of(count: int, seed: int) -> Split:
    """Two classes, dark and light."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    images = (random.integers(0, 120, (count, 32, 32, 3)) + labels[:, None, None, None] * 100).astype(np.uint8)
    return Split(images, labels, np.arange(count), CONSTANTS)


@pytest.fixture
def parts():
    keras.utils.set_random_seed(1)
    backbone = backbones.build("graft_tiny", 1.0, "none", 32)
    backbone.trainable = False
    features = network.pooled(backbone, "average")
    head = network.head(features.output_shape[-1], 2, [], 0.2)
    return backbone, features, head


def settings(**changes) -> dict:
    usual = {"epochs": 2, "learning_rate": 1e-3, "patience": 5, "batch_size": 8, "seed": 1}
    return usual | {"label_smoothing": 0.0, "balance": "none", "clip_norm": None, "schedule": "cosine"} | changes


NOWHERE = Checkpoints(None)


def computed(features: keras.Model, *splits: Split) -> list[Split]:
    """The splits' features, in memory."""
    compute = training.inference(features, splits[0])
    return [split.replaced(np.concatenate(list(compute(split)))) for split in splits]


def train_frozen(features, head, train: Split, evaluation: Split, options: dict, checkpoints=NOWHERE) -> Phase:
    """As `trainer.run` does it."""
    train, evaluation = computed(features, train, evaluation)
    return training.train_head(head, [train], evaluation, options, checkpoints)


def fine_tune(classifier, train, evaluation, options, checkpoints=NOWHERE, factors=None, **more) -> Phase:
    """As `trainer.run` does it."""
    optimizer = training.fine_tuning(options, factors or {})
    return training.train_network("fine_tune", classifier, optimizer, train, evaluation, options, checkpoints, **more)


def statistics(backbone):
    return [
        value.numpy()
        for layer in backbone.layers
        if isinstance(layer, keras.layers.BatchNormalization)
        for value in layer.non_trainable_weights
    ]


def test_g13_frozen_phase_leaves_the_backbone_bit_identical_and_fine_tuning_its_statistics(parts):
    backbone, features, head = parts
    before, moving = backbone.get_weights(), statistics(backbone)
    phase = train_frozen(features, head, split_of(32, 0), split_of(16, 1), settings())
    for old, new in zip(before, backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    network.unfreeze(backbone, 0)
    tuned = fine_tune(network.joined(features, head), split_of(32, 0), split_of(16, 1), settings())
    assert tuned.kept_epoch
    for old, new in zip(moving, statistics(backbone), strict=True):
        np.testing.assert_array_equal(old, new)
    assert any((old != new).any() for old, new in zip(before, backbone.get_weights(), strict=True))
    assert phase.epochs == 2


def test_g14_fine_tuning_that_does_not_help_is_undone(parts):
    backbone, features, head = parts
    frozen = train_frozen(features, head, split_of(32, 0), split_of(16, 1), settings())
    classifier = network.joined(features, head)
    before = classifier.get_weights()
    network.unfreeze(backbone, 0)
    train = split_of(32, 0)
    wrong = dataclasses.replace(train, labels=1 - train.labels)
    phase = fine_tune(classifier, wrong, split_of(16, 1), settings(learning_rate=1e-2), improve=True)
    assert phase.kept_epoch == 0
    for old, new in zip(before, classifier.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert phase.eval_accuracy < frozen.eval_accuracy


def test_p10_loss_that_is_not_finite_stops_with_epoch_and_learning_rate(parts):
    _, features, head = parts
    data = split_of(16, 0)
    broken = Split(np.full((16, 32, 32, 3), np.nan, np.float32), data.labels, data.order, CONSTANTS)
    data = Split(data.images.astype(np.float32), data.labels, data.order, CONSTANTS)
    with pytest.raises(GraftError, match=r"epoch 1 of the frozen phase at learning rate 0\.001"):
        train_frozen(features, head, broken, data, settings())


def test_p5_same_seed_gives_the_same_weights_whatever_the_order_on_disk():
    def trained(order: np.ndarray) -> list[np.ndarray]:
        keras.utils.set_random_seed(1)
        backbone = backbones.build("graft_tiny", 1.0, "none", 32)
        backbone.trainable = False
        features = network.pooled(backbone, "average")
        head = network.head(features.output_shape[-1], 2, [], 0.2)
        data = split_of(32, 0)
        # The file holds the images in another order; `order` leads back to the sorted one.
        shuffled = Split(data.images[order], data.labels, np.argsort(order), CONSTANTS)
        train_frozen(features, head, shuffled, split_of(16, 1), settings())
        classifier = network.joined(features, head)
        network.unfreeze(backbone, 0)
        fine_tune(classifier, shuffled, split_of(16, 1), settings())
        return classifier.get_weights()

    first = trained(np.arange(32))
    second = trained(np.random.default_rng(5).permutation(32))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["graft_tiny", "mobilenet_v2", "resnet50", "vgg16", "efficientnet_b0"])
@pytest.mark.parametrize("start", [0.35, 0.8, 20])
def test_trunk_and_top_together_are_the_backbone_and_the_trunk_has_nothing_to_train(name, start):
    keras.utils.set_random_seed(2)
    backbone = backbones.build(name, 0.35 if name == "mobilenet_v2" else 1.0, "none", 64)
    start = network.first_unfrozen(backbone, 15 if name == "vgg16" and start == 20 else start, ())
    trunk, top = network.divide(backbone, start)
    network.unfreeze(backbone, start)
    assert trunk is not None
    assert not trunk.trainable_weights
    assert len(top.trainable_weights) == len(backbone.trainable_weights)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32)
    # Random MobileNet activations fade, so the comparison is relative to their own size.
    whole = backbone(images, training=False).numpy()
    parts = top(trunk(images, training=False), training=False).numpy()
    np.testing.assert_allclose(parts, whole, rtol=1e-4, atol=1e-5 * np.abs(whole).max())


def test_with_everything_unfrozen_there_is_no_trunk(parts):
    backbone, _, _ = parts
    trunk, top = network.divide(backbone, 0)
    assert trunk is None
    assert top is backbone


def test_training_on_the_output_of_the_trunk_gives_the_weights_of_training_on_images():
    def trained(through_trunk: bool) -> list[np.ndarray]:
        keras.utils.set_random_seed(1)
        backbone = backbones.build("graft_tiny", 1.0, "none", 32)
        backbone.trainable = False
        splits, top = [split_of(32, 0), split_of(16, 1)], backbone
        start = network.first_unfrozen(backbone, 0.35, ())
        if through_trunk:
            trunk, top = network.divide(backbone, start)
            splits = computed(trunk, *splits)
        features = network.pooled(top, "average")
        keras.utils.set_random_seed(3)
        head = network.head(features.output_shape[-1], 2, [], 0.2)
        train_frozen(features, head, *splits, settings())
        network.unfreeze(backbone, start)
        fine_tune(network.joined(features, head), *splits, settings())
        return backbone.get_weights() + head.get_weights()

    for one, other in zip(trained(True), trained(False), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("start", "first"), [("all", 0), (3, 3), ("block3", None), (0.5, None)])
def test_unfreezing_starts_where_the_setting_says(parts, start, first):
    backbone, _, _ = parts
    network.unfreeze(backbone, network.first_unfrozen(backbone, start, ()))
    trainable = [i for i, layer in enumerate(backbone.layers) if layer.trainable]
    if first is None:
        first = (
            next(i for i, layer in enumerate(backbone.layers) if layer.name.startswith(start))
            if start != 0.5
            else (int(len(backbone.layers) * 0.5))
        )
    assert trainable[0] >= first
    assert all(
        layer.trainable != isinstance(layer, keras.layers.BatchNormalization) for layer in backbone.layers[first:]
    )
    assert not any(layer.trainable for layer in backbone.layers[:first])


@pytest.mark.parametrize(
    ("name", "count", "first"),
    [
        ("graft_tiny", 1, "block5_conv"),
        ("graft_tiny", 2, "block4_down_conv"),
        ("vgg16", 1, "block5_conv1"),
        ("resnet50", 3, "conv5_block1_1_conv"),
        ("mobilenet_v2", 2, "block_15_expand"),
        ("convnext_tiny", 3, "convnext_tiny_downsampling_block_2"),
        ("xception", 2, "block13_sepconv1"),
    ],
)
def test_a_number_of_blocks_starts_at_their_first_layer_that_can_learn(name, count, first):
    row = backbones.BACKBONES[name]
    backbone = backbones.build(name, 1.0, "none", row.min_size)
    start = network.first_unfrozen(backbone, f"{count} blocks", row.blocks)
    assert backbone.layers[start].name == first
    network.unfreeze(backbone, start)
    assert next(layer.name for layer in backbone.layers if layer.trainable_weights) == first


def test_inception_blocks_start_where_keras_own_guide_freezes():
    # "we chose to train the top 2 inception blocks, i.e. we will freeze the first 249 layers"
    # (https://keras.io/api/applications/)
    row = backbones.BACKBONES["inception_v3"]
    backbone = backbones.build("inception_v3", 1.0, "none", row.min_size)
    assert network.first_unfrozen(backbone, "2 blocks", row.blocks) == 249
    assert network.first_unfrozen(backbone, "11 blocks", row.blocks) == 0


@pytest.mark.parametrize("start", [1000, -1, "no_such_layer"])
def test_unfreezing_past_the_last_layer_is_a_configuration_error(parts, start):
    with pytest.raises(UsageError, match="graft_tiny"):
        network.first_unfrozen(parts[0], start, ())


def test_a_later_epoch_counts_as_worse_only_beyond_one_standard_error():
    random = np.random.default_rng(0)
    lowest = random.uniform(0, 1, 40)
    noise = random.normal(0, 0.2, 40)
    noise -= noise.mean()
    error = noise.std(ddof=1) / np.sqrt(40)
    assert not training.significantly_higher(lowest, lowest)
    assert not training.significantly_higher(lowest + noise + 0.9 * error, lowest)
    assert training.significantly_higher(lowest + noise + 1.1 * error, lowest)
    assert training.significantly_higher(np.array([0.2]), np.array([0.1]))


def test_eval_figures_are_those_that_keras_computes(parts):
    _backbone, features, head = parts
    evaluation = split_of(17, 1)
    phase = train_frozen(features, head, split_of(32, 0), evaluation, settings(epochs=1))
    classifier = network.joined(features, head)
    classifier.compile(loss=training.loss_of(0.0), metrics=["accuracy"], jit_compile=False)
    loss, accuracy = classifier.evaluate(Batches(evaluation, 5).data, verbose=0)
    assert phase.eval_loss == pytest.approx(loss, abs=1e-5)
    assert phase.eval_accuracy == pytest.approx(accuracy, abs=1e-6)


def test_label_smoothing_is_that_of_keras():
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(4), 10).astype(np.float32)
    labels = random.integers(0, 4, 10)
    expected = keras.losses.CategoricalCrossentropy(label_smoothing=0.2)(
        np.eye(4, dtype=np.float32)[labels], probabilities
    )
    assert float(training.loss_of(0.2)(labels, probabilities)) == pytest.approx(float(expected), rel=1e-5)
    plain = -np.log(probabilities[np.arange(10), labels]).mean()
    assert float(training.loss_of(0.0)(labels, probabilities)) == pytest.approx(plain, rel=1e-5)


def test_balanced_classes_weigh_the_same_in_all():
    labels = np.array([0] * 90 + [1] * 9 + [2])
    weights = training.class_weights(labels, 3, "weights")
    totals = [weights[label] * (labels == label).sum() for label in range(3)]
    np.testing.assert_allclose(totals, 100 / 3, rtol=1e-5)
    np.testing.assert_array_equal(training.class_weights(labels, 3, "none"), np.ones(3))


def test_both_ways_to_balance_raise_the_probability_of_a_rare_class_in_both_phases():
    """Images that say nothing: all that can be learnt is how often each class comes."""

    def share_of_the_rare_class(kind: str) -> float:
        keras.utils.set_random_seed(1)
        backbone = backbones.build("graft_tiny", 1.0, "none", 32)
        backbone.trainable = False
        features = network.pooled(backbone, "average")
        head = network.head(features.output_shape[-1], 2, [], 0.0)
        labels = np.array([0] * 36 + [1] * 4)
        grey = Split(np.full((40, 32, 32, 3), 128, np.uint8), labels, np.arange(40), CONSTANTS)
        how = settings(balance=kind, epochs=60, learning_rate=0.05, batch_size=40)
        train_frozen(features, head, grey, grey, how | {"patience": 20})
        network.unfreeze(backbone, 0)
        classifier = network.joined(features, head)
        fine_tune(classifier, grey, grey, how | {"learning_rate": 1e-4, "epochs": 1})
        return float(classifier(grey.normalised(grey.images[:1]))[0, 1])

    assert share_of_the_rare_class("none") == pytest.approx(0.1, abs=0.05)
    assert share_of_the_rare_class("weights") == pytest.approx(0.5, abs=0.1)
    assert share_of_the_rare_class("sampling") == pytest.approx(0.5, abs=0.15)


def test_clip_norm_reaches_the_optimizer(parts):
    backbone, features, head = parts
    network.unfreeze(backbone, 0)
    classifier = network.joined(features, head)
    fine_tune(classifier, split_of(32, 0), split_of(16, 1), settings(clip_norm=0.5))
    assert classifier.optimizer.global_clipnorm == 0.5


def test_block_decay_lets_lower_blocks_change_less(parts):
    """Adam's first step is as long as the rate, whatever the gradient: so it shows each variable's factor."""
    backbone, features, head = parts
    blocks = BACKBONES["graft_tiny"].blocks
    factors = network.rate_factors(backbone, blocks, 0.5)
    network.unfreeze(backbone, 0)
    before = {weight.path: weight.numpy() for weight in backbone.trainable_weights}
    options = settings(epochs=1, batch_size=32, schedule="constant", learning_rate=1e-3)
    fine_tune(network.joined(features, head), split_of(32, 0), split_of(16, 1), options, factors=factors)
    steps = {weight.path: np.abs(weight.numpy() - before[weight.path]).max() for weight in backbone.trainable_weights}
    for number, block in enumerate(blocks):
        longest = max(step for path, step in steps.items() if path.startswith(block))
        assert longest == pytest.approx(1e-3 * 0.5 ** (len(blocks) - 1 - number), rel=0.05)
