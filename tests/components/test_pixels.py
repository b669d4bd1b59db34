"""The pixels that the network sees are the same on every path: eager, Transform, training, exported model."""

import io

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from components import features, pixels

SIZE = 8
IDENTITY = {"channel_order": [0, 1, 2], "scale": [1.0, 1.0, 1.0], "offset": [0.0, 0.0, 0.0]}


def encoded(kind: str, shape=(37, 23), seed: int = 0) -> bytes:
    random = np.random.default_rng(seed)
    # Smooth enough that JPEG is close, structured enough that another resize would show.
    small = random.integers(0, 256, (6, 5, 3)).astype(np.uint8)
    image = Image.fromarray(small).resize(shape, Image.Resampling.BICUBIC)
    data = io.BytesIO()
    image.save(data, kind)
    return data.getvalue()


@pytest.fixture(scope="module")
def files() -> list[bytes]:
    return [
        encoded("JPEG"),
        encoded("PNG", seed=1),
        encoded("BMP", seed=2),
        encoded("GIF", seed=3),
        encoded("WEBP", seed=4),
    ]


def through_transform(files: list[bytes], folder, **how) -> list[dict]:
    """What Transform's executor computes, on Beam."""
    import tensorflow_transform as tft
    import tensorflow_transform.beam as tft_beam
    from tensorflow_transform.tf_metadata import dataset_metadata, schema_utils

    from components.preprocessing import preprocessing_fn

    names = (features.ENCODED, features.CLASS_NAME, features.SHA256)
    schema = schema_utils.schema_from_feature_spec({name: tf.io.FixedLenFeature([], tf.string) for name in names})
    rows = [
        {features.ENCODED: data, features.CLASS_NAME: b"b" if i else b"a", features.SHA256: str(i).encode()}
        for i, data in enumerate(files)
    ]
    config = {"image_size": SIZE, "resize": "stretch", "normalisation": IDENTITY} | how
    with tft_beam.Context(temp_dir=str(folder)):
        (data, _), _ = (rows, dataset_metadata.DatasetMetadata(schema)) | tft_beam.AnalyzeAndTransformDataset(
            lambda inputs: preprocessing_fn(inputs, config)
        )
    assert tft.__version__
    return sorted(data, key=lambda row: row[features.KEY])


def through_training(rows: list[dict], storage: str, folder) -> np.ndarray:
    """What the Trainer reads from the transformed examples."""
    from trainer.dataset import read_split

    with tf.io.TFRecordWriter(str(folder / "data.gz"), "GZIP") as writer:
        for row in rows:
            example = tf.train.Example()
            for name, value in row.items():
                feature = example.features.feature[name]
                value = np.ravel(value)
                if value.dtype.kind == "f":
                    feature.float_list.value.extend(value)
                elif value.dtype.kind == "i":
                    feature.int64_list.value.extend(value)
                else:
                    feature.bytes_list.value.extend(value)
            writer.write(example.SerializeToString())
    (folder / "scratch").mkdir()
    split = read_split([str(folder / "data.gz")], SIZE, storage, folder / "scratch")
    (images,) = list(split.batches(100))
    return split.normalised(tf.constant(images)).numpy()


def through_exported_model(files: list[bytes], storage: str, folder) -> np.ndarray:
    """What the network inside a reloaded SavedModel is given: the network here hands its input on."""
    from trainer.export import export

    inputs = keras.Input((SIZE, SIZE, 3))
    model = keras.Model(inputs, keras.layers.Flatten()(inputs))
    names = [str(i) for i in range(SIZE * SIZE * 3)]
    constants = tuple(np.array(value) for value in IDENTITY.values())
    export(model, names, {"size": SIZE, "mode": "stretch", "storage": storage}, constants, folder / "model")
    answer = tf.saved_model.load(str(folder / "model")).signatures["serving_default"](tf.constant(files))
    return answer["probabilities"].numpy().reshape(-1, SIZE, SIZE, 3)


@pytest.mark.parametrize("storage", ["png", "jpeg", "float"])
def test_transform_training_and_export_see_the_same_pixels(files, storage, tmp_path):
    eager = pixels.prepare(tf.constant(files), size=SIZE, mode="stretch", storage=storage).numpy()
    rows = through_transform(files, tmp_path / "beam", storage=storage)
    np.testing.assert_array_equal(through_training(rows, storage, tmp_path), eager)
    np.testing.assert_array_equal(through_exported_model(files, storage, tmp_path), eager)


def test_label_ids_follow_the_sorted_names_not_their_frequency(files, tmp_path):
    rows = through_transform(files, tmp_path, storage="png")
    assert [int(row[features.LABEL]) for row in rows] == [0, 1, 1, 1, 1]


def test_dataset_normalisation_gives_zero_mean_and_unit_variance(files, tmp_path):
    rows = through_transform(files, tmp_path / "beam", storage="png", normalisation=None)
    values = through_training(rows, "png", tmp_path)
    np.testing.assert_allclose(values.mean((0, 1, 2)), 0, atol=1e-3)
    np.testing.assert_allclose(values.var((0, 1, 2)), 1, atol=1e-3)


@pytest.mark.parametrize("mode", ["stretch", "crop", "pad"])
def test_resize_gives_the_same_eagerly_and_in_a_graph(mode):
    image = tf.constant(np.random.default_rng(0).integers(0, 256, (50, 30, 3)).astype(np.uint8))
    graph = tf.function(lambda value: pixels.resize(value, SIZE, mode))
    np.testing.assert_array_equal(pixels.resize(image, SIZE, mode), graph(image))


def test_crop_keeps_the_middle_and_pad_fills_with_black():
    image = np.zeros((20, 60, 3), np.uint8)
    image[:, 20:40] = 200
    assert (pixels.resize(tf.constant(image), SIZE, "crop").numpy() == 200).all()
    padded = pixels.resize(tf.constant(np.full((20, 60, 3), 200, np.uint8)), SIZE, "pad").numpy()
    assert (padded[0] == 0).all()
    assert (padded[SIZE // 2 - 1] == 200).all()
    assert (padded[-1] == 0).all()


def test_downscaling_is_antialiased():
    """One-pixel stripes average to grey; without antialiasing they alias to black or white."""
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = pixels.resize(tf.constant(stripes), SIZE).numpy()
    assert abs(small.astype(int) - 127).max() < 16


def test_normalise_reorders_before_it_scales():
    value = pixels.normalise(np.array([[10, 20, 30]], np.uint8), [2, 1, 0], [1.0, 2.0, 3.0], [0.5, 0.0, 0.0])
    np.testing.assert_allclose(value, [[30.5, 40.0, 30.0]])
