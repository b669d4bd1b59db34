"""The recipes in `configs/`: what they build and how it is trained is what the tutorials say."""

from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np
import pytest
import yaml
from pydantic import BaseModel

from pipeline.config import Config, load
from tests.conftest import ROOT
from trainer import training
from trainer.backbones import BACKBONES
from trainer.dataset import Split
from trainer.transfer import Training

CONFIGS = ROOT / "configs"
# What a run with random weights and small images needs; VGG16 and ResNet50 take no smaller ones.
SMALL = ("model.weights=none", "transform.image_size=32", "training.batch_size=8")
SOFTMAX = ("Dense", 2, "softmax")


@dataclass
class Tutorial:
    """What a tutorial says: epochs and rate of each phase, and what is trained in the second."""

    backbone: str
    size: int
    head: list[tuple]
    frozen: tuple[int, float]
    fine_tune: tuple[int, float] | None = None
    unfrozen: list[str] = field(default_factory=list)


BLOCK4, BLOCK5 = ([f"block{block}_conv{number}" for number in (1, 2, 3)] for block in (4, 5))
VGG16 = [f"block{block}_conv{number}" for block in (1, 2) for number in (1, 2)]
VGG16 += [f"block3_conv{number}" for number in (1, 2, 3)] + BLOCK4 + BLOCK5
AVERAGE = ("GlobalAveragePooling2D",)
TUTORIALS = {
    "vgg16_dense128": Tutorial(
        backbone="vgg16",
        size=224,
        head=[AVERAGE, ("Dense", 128, "relu"), ("Dropout", 0.2), SOFTMAX],
        frozen=(10, 1e-3),
        fine_tune=(10, 1e-6),
        unfrozen=BLOCK5,
    ),
    "vgg16_directories": Tutorial(
        backbone="vgg16",
        size=224,
        head=[AVERAGE, ("Dense", 256, "relu"), ("Dropout", 0.5), SOFTMAX],
        frozen=(10, 1e-3),
        fine_tune=(10, 1e-5),
        unfrozen=BLOCK4 + BLOCK5,
    ),
    "resnet50_flowers": Tutorial(
        backbone="resnet50",
        size=180,
        head=[AVERAGE, ("Dense", 512, "relu"), ("Dropout", 0.0), SOFTMAX],
        frozen=(10, 1e-3),
    ),
    "vgg16_flatten256": Tutorial(
        backbone="vgg16",
        size=224,
        head=[("Flatten",), ("Dense", 256, "relu"), ("Dropout", 0.5), SOFTMAX],
        frozen=(10, 1e-3),
        fine_tune=(5, 1e-3),
        unfrozen=VGG16,
    ),
}


def recipe(name: str, *overrides: str) -> Config:
    return load(CONFIGS / f"{name}.yaml", list(overrides))


def shades(backbone: str, count: int, seed: int) -> Split:
    """Two classes, dark and light, as the backbone wants them normalised."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    images = (random.integers(0, 120, (count, 32, 32, 3)) + labels[:, None, None, None] * 100).astype(np.uint8)
    own = BACKBONES[backbone].normalisation
    constants = np.array(own.channel_order), np.float32(own.scale), np.float32(own.offset)
    return Split(images, labels, np.arange(count), constants, digest=f"shades-{seed}")


def prepared(config: Config, scratch: Path) -> Training:
    """A training on images in memory, which keeps nothing."""
    settings = {
        "model": config.model.model_dump(mode="json"),
        "training": config.training.model_dump(mode="json"),
        "transform": {"image_size": config.image_size},
        **dict.fromkeys(("start_from", "cache", "weights_digest", "code")),
    }
    splits = [shades(config.model.backbone, 24, 0), shades(config.model.backbone, 12, 1)]
    return Training(settings, ["dark", "light"], splits, scratch)


def described(layer: keras.Layer) -> tuple:
    if isinstance(layer, keras.layers.Dense):
        return "Dense", layer.units, layer.activation.__name__
    return (type(layer).__name__, *([layer.rate] if isinstance(layer, keras.layers.Dropout) else []))


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_a_valid_configuration_whose_header_says_command_result_and_deviations(path):
    load(path, [])
    header = [line for line in path.read_text().partition("\n\n")[0].splitlines() if line.startswith("#")]
    assert f"--config configs/{path.name}" in "\n".join(header)
    for part in ("# Expect:", "# Where it differs"):
        assert any(line.startswith(part) for line in header)


def test_the_recommended_recipe_is_the_default():
    assert recipe("recommended") == Config()


@pytest.mark.parametrize("name", TUTORIALS)
def test_a_changed_default_changes_no_recipe_as_each_writes_down_all_that_decides_its_result(name):
    def missing(section: type[BaseModel], values: dict, where: str) -> list[str]:
        found = []
        for key, info in section.model_fields.items():
            if key not in values:
                found.append(where + key)
            elif isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
                found += missing(info.annotation, values[key], f"{where}{key}.")
        return found

    values = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    left_out = [
        path
        for key in ("transform", "model", "training")
        for path in missing(Config.model_fields[key].annotation, values[key], f"{key}.")
    ]
    # These networks have no width multiplier, and the number of devices is the machine's affair.
    assert left_out == ["model.alpha", "training.devices"]
    assert {"train", "eval", "test"} <= set(values["data"]["split"])


@pytest.mark.parametrize("name", TUTORIALS)
def test_a_recipe_builds_and_trains_what_its_tutorial_does(name, tmp_path, monkeypatch):
    tutorial, config = TUTORIALS[name], recipe(name)
    assert (config.model.backbone, config.model.weights) == (tutorial.backbone, "imagenet")
    assert (config.image_size, config.training.batch_size) == (tutorial.size, 32)
    phases = (config.training.frozen, tutorial.frozen), (config.training.fine_tune, tutorial.fine_tune)
    for phase, says in phases:
        assert (phase.epochs, phase.learning_rate) == says if says else phase.epochs == 0
        assert phase.patience >= phase.epochs  # no tutorial stops early

    optimizers, train_network = [], training.train_network

    def watched(name, classifier, *arguments, **options):
        phase = train_network(name, classifier, *arguments, **options)
        optimizers.append(classifier.optimizer)
        return phase

    monkeypatch.setattr(training, "train_network", watched)
    epochs = [
        f"training.{phase}.epochs=2" for phase, says in zip(("frozen", "fine_tune"), phases, strict=True) if says[1]
    ]
    trained = prepared(recipe(name, *SMALL, *epochs), tmp_path)
    result = trained.run()

    assert trained.backbone.name == tutorial.backbone
    assert len(trained.backbone.output_shape) == 4  # without top
    assert [described(layer) for layer in [trained.pooled.layers[-1], *trained.head.layers[1:]]] == tutorial.head
    assert isinstance(trained.head.optimizer, keras.optimizers.Adam)
    assert result["frozen"]["history"]["learning_rate"] == pytest.approx([tutorial.frozen[1]] * 2)
    assert [layer.name for layer in trained.backbone.layers if layer.trainable_weights] == tutorial.unfrozen
    if tutorial.fine_tune is None:
        assert result["fine_tune"] is None
        return
    (optimizer,) = optimizers
    assert isinstance(optimizer, keras.optimizers.Adam)
    assert set(optimizer._factor_of) == {1.0}
    # All of them, and the head's two layers: a kernel and a bias each.
    assert len(optimizer._factor_of) == 2 * (len(tutorial.unfrozen) + 2)
    assert result["fine_tune"]["history"]["learning_rate"] == pytest.approx([tutorial.fine_tune[1]] * 2)


def test_fine_tuning_at_a_rate_that_wrecks_the_backbone_ends_with_the_weights_of_the_frozen_phase(tmp_path):
    def trained(epochs: int) -> tuple[dict, list[np.ndarray]]:
        # Random weights on images this easy stand the recipe's own rate; ten times that wrecks them, too.
        changes = "training.fine_tune.learning_rate=0.01", f"training.fine_tune.epochs={epochs}"
        config = recipe("vgg16_flatten256", *SMALL, *changes)
        training = prepared(config, tmp_path)
        return training.run(), training.classifier().get_weights()

    result, weights = trained(2)
    assert result["fine_tune"]["kept"] is False
    assert result["fine_tune"]["epochs"] == 2
    assert min(result["fine_tune"]["history"]["val_loss"]) > result["frozen"]["eval_loss"]
    for one, other in zip(weights, trained(0)[1], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("backbone", "size"), [("resnet50", 224), ("inception_v3", 299), ("mobilenet", 224)])
def test_the_recipe_for_folders_takes_other_backbones(backbone, size):
    config = recipe("vgg16_directories", f"model.backbone={backbone}")
    assert config.image_size == size
    assert config.training.fine_tune.unfreeze == "2 blocks"


def test_the_recipe_for_flowers_holds_out_a_fifth_with_the_tutorials_seed():
    config = recipe("resnet50_flowers")
    assert (config.data.split.eval, config.data.split.salt, config.training.seed) == (0.2, "123", 123)
