import keras
import numpy as np
import pytest

from components import pixels
from components.errors import UsageError
from trainer import backbones
from trainer.backbones import BACKBONES, Normalisation


@pytest.mark.parametrize("name", [name for name, row in BACKBONES.items() if row.constructor])
def test_normalisation_equals_the_familys_own_preprocess_input(name):
    module = {
        "mobilenet_v2": keras.applications.mobilenet_v2,
        "mobilenet": keras.applications.mobilenet,
        "resnet50": keras.applications.resnet,
        "vgg16": keras.applications.vgg16,
        "efficientnet_b0": keras.applications.efficientnet,
    }[name]
    image = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    row: Normalisation = BACKBONES[name].normalisation
    ours = pixels.normalise(image, row.channel_order, row.scale, row.offset)
    np.testing.assert_allclose(ours, module.preprocess_input(image.astype(np.float32)), atol=1e-4)


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_builds_at_its_smallest_size(name):
    row = BACKBONES[name]
    alpha = min(row.alphas, default=1.0)
    backbone = backbones.build(name, alpha, "none", row.min_size)
    assert len(backbone.output_shape) == 4


def test_weights_file_name_is_the_one_that_keras_asks_for(shared, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(shared / "keras_home"))
    backbones.require_weights("mobilenet_v2", 0.35, "imagenet", 224)
    backbones.require_weights("mobilenet", 0.25, "imagenet", 224)


def test_g15_weights_of_another_network_are_refused(tmp_path):
    path = tmp_path / "other.weights.h5"
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save_weights(path)
    with pytest.raises(UsageError, match="does not fit"):
        backbones.build("mobilenet", 0.25, str(path), 32)


def test_g15_a_keras_file_with_code_inside_is_refused(tmp_path):
    inputs = keras.Input((32, 32, 3))
    model = keras.Model(inputs, keras.layers.Lambda(lambda x: x * 2)(inputs))
    model.save(tmp_path / "code.keras")
    with pytest.raises(UsageError, match="does not fit"):
        backbones.build("mobilenet", 0.25, str(tmp_path / "code.keras"), 32)


def test_missing_weight_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"there is no file .*gone\.h5"):
        backbones.require_weights("vgg16", 1.0, str(tmp_path / "gone.h5"), 224)


def test_digest_of_bundled_weights_is_of_their_content():
    assert len(backbones.weights_digest("bundled")) == 64
    assert backbones.weights_digest("imagenet") == "imagenet"
