import keras
import numpy as np
import pytest
from keras.src.utils import file_utils

from components.errors import UsageError
from trainer import backbones
from trainer import model as network
from trainer.backbones import BACKBONES


def test_weights_at_hand_are_found_by_the_name_that_keras_asks_for(shared, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(shared / "keras_home"))
    backbones.require_weights("mobilenet_v2", 0.35, "imagenet", 224)
    backbones.require_weights("mobilenet", 0.25, "imagenet", 224)


def test_g15_weights_of_another_network_are_refused(tmp_path):
    path = tmp_path / "other.weights.h5"
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save_weights(path)
    with pytest.raises(UsageError, match="does not fit"):
        backbones.require_weights("mobilenet", 0.25, str(path), 32)


def test_g15_a_keras_file_with_code_inside_is_refused(tmp_path):
    inputs = keras.Input((32, 32, 3))
    model = keras.Model(inputs, keras.layers.Lambda(lambda x: x * 2)(inputs))
    model.save(tmp_path / "code.keras")
    with pytest.raises(UsageError, match="does not fit"):
        backbones.build("mobilenet", 0.25, str(tmp_path / "code.keras"), 32)


def classifier(backbone: keras.Model, nested: bool) -> keras.Model:
    x = backbone(backbone.input) if nested else backbone.output
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(backbone.input, keras.layers.Dense(3)(x))


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("name", ["mobilenet", "efficientnet_b0", "inception_v3"])
def test_g15_a_keras_classifier_that_begins_with_the_backbone_gives_its_weights(name, nested, tmp_path):
    size = BACKBONES[name].min_size
    inner = backbones.build(name, 1.0, "none", size)
    classifier(inner, nested).save(tmp_path / "classifier.keras")
    loaded = backbones.build(name, 1.0, str(tmp_path / "classifier.keras"), size)
    for one, other in zip(loaded.get_weights(), inner.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_g15_a_keras_classifier_with_weights_in_front_of_the_backbone_is_refused(tmp_path):
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(3, 1)(inputs)
    keras.Model(inputs, backbones.build("mobilenet", 0.25, "none", 32)(x)).save(tmp_path / "other.keras")
    with pytest.raises(UsageError, match=r"does not begin with the .* weights of this backbone"):
        backbones.build("mobilenet", 0.25, str(tmp_path / "other.keras"), 32)


def test_legacy_h5_file_of_keras_applications_gives_what_keras_loads(shared, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(shared / "keras_home"))
    path = shared / "keras_home" / "models" / BACKBONES["mobilenet"].weights_name(0.25, 224)
    expected = keras.applications.MobileNet(include_top=False, alpha=0.25, input_shape=(64, 64, 3), weights=str(path))
    loaded = backbones.build("mobilenet", 0.25, str(path), 64)
    for one, other in zip(loaded.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_legacy_h5_file_of_a_classifier_is_refused(shared):
    path = shared / "keras_home" / "models" / "mobilenet_2_5_224_tf.h5"
    with pytest.raises(UsageError, match=r"does not fit .*Layer count mismatch"):
        backbones.build("mobilenet", 0.25, str(path), 64)


@pytest.mark.parametrize("ending", [".h5", ".weights.h5", ".keras"])
def test_file_of_efficientnet_gives_what_keras_makes_of_its_published_one(ending, tmp_path, monkeypatch):
    """Keras rescales a second time only where it downloaded the weights, because theirs are off by a square."""
    keras.utils.set_random_seed(1)
    published = keras.applications.EfficientNetB0(include_top=False, weights=None, input_shape=(32, 32, 3))
    normalisation = next(layer for layer in published.layers if isinstance(layer, keras.layers.Normalization))
    normalisation.set_weights(
        [np.float32(backbones.IMAGENET_MEAN), np.float32(backbones.IMAGENET_DEVIATION), np.zeros(())]
    )
    published.save(tmp_path / "published.h5")
    monkeypatch.setattr(file_utils, "get_file", lambda *args, **kwargs: str(tmp_path / "published.h5"))
    expected = backbones.build("efficientnet_b0", 1.0, "imagenet", 32)
    path = tmp_path / f"mine{ending}"
    (expected.save_weights if ending == ".weights.h5" else expected.save)(path)

    loaded = backbones.build("efficientnet_b0", 1.0, str(path), 32)
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    features = expected(images, training=False).numpy()
    np.testing.assert_allclose(loaded(images, training=False), features, atol=1e-5 * np.abs(features).max())


def test_file_of_another_kind_is_refused_before_anything_is_built(tmp_path):
    path = tmp_path / "model.tflite"
    path.touch()
    with pytest.raises(UsageError, match=r"ends in \.keras.*model\.tflite"):
        backbones.require_weights("vgg16", 1.0, str(path), 224)


def test_missing_weight_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"there is no file .*gone\.h5"):
        backbones.require_weights("vgg16", 1.0, str(tmp_path / "gone.h5"), 224)


def test_digest_of_bundled_weights_is_of_their_content():
    assert len(backbones.weights_digest("bundled")) == 64
    assert backbones.weights_digest("imagenet") == "imagenet"


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (100, "vgg16 has 19 layers, so an index must be 0 to 18. Received: 100"),
        ("block6", "vgg16 has 19 layers and none whose name begins with 'block6'"),
        (18, "leaves nothing of vgg16 to train"),
        (0.01, "leaves nothing of vgg16 to train"),
    ],
)
def test_fine_tuning_that_would_begin_past_the_last_weights_is_refused_in_one_sentence(setting, words):
    with pytest.raises(UsageError, match=words):
        backbones.require_start("vgg16", 1.0, setting)


def test_a_layer_is_found_by_its_number_whatever_was_built_before():
    # InceptionV3 leaves the names of its layers to Keras, which goes on counting.
    backbones.build("inception_v3", 1.0, "none", 75)
    backbones.require_start("inception_v3", 1.0, "conv2d_93")
    assert "conv2d_93" in [layer.name for layer in backbones.build("inception_v3", 1.0, "none", 75).layers]


@pytest.mark.parametrize("name", ["graft_tiny", "vgg16", "mobilenet_v2"])
def test_shares_that_are_not_checked_leave_something_to_train(name):
    backbone = backbones.build(name, 1.0, "none", 32)
    network.unfreeze(backbone, network.first_unfrozen(backbone, 0.1, ()))


@pytest.mark.parametrize("setting", ["all", "2 blocks", 0.35])
def test_a_setting_that_fits_every_backbone_costs_nothing_to_check(setting, monkeypatch):
    monkeypatch.setattr(backbones, "build", None)
    backbones.require_start("vgg16", 1.0, setting)
