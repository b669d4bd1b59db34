"""The pixels that the network sees are the same on every path: eager, Transform, training, exported model."""

import io
import json

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


# What undoes the turn that each EXIF orientation asks for.
UNDO = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def turned(data: bytes, orientation: int, kind: str) -> bytes:
    """The same picture, stored so that it is upright only with this EXIF orientation."""
    image, file, tags = Image.open(io.BytesIO(data)), io.BytesIO(), Image.Exif()
    tags[0x112] = orientation
    stored = image.transpose(UNDO[orientation]) if orientation in UNDO else image
    stored.save(file, kind, exif=tags, quality=95, subsampling=0)
    return file.getvalue()


@pytest.fixture(scope="module")
def files() -> list[bytes]:
    return [
        encoded("JPEG"),
        encoded("PNG", seed=1),
        encoded("BMP", seed=2),
        encoded("GIF", seed=3),
        encoded("WEBP", seed=4),
        turned(encoded("JPEG", seed=5), 6, "JPEG"),
    ]


def through_transform(files: list[bytes], folder, **how) -> list[str]:
    """What the Transform step makes of a train split, as the files that the Trainer reads."""
    from tfx.dsl.components.base import base_beam_executor
    from tfx.types import artifact_utils, standard_artifacts

    from components import examples_schema, transform
    from components.ingestion import _example

    examples, schema, transformed, graph = (
        kind()
        for kind in (
            standard_artifacts.Examples,
            standard_artifacts.Schema,
            standard_artifacts.Examples,
            standard_artifacts.TransformGraph,
        )
    )
    for name, artifact in (("in", examples), ("schema", schema), ("out", transformed), ("graph", graph)):
        artifact.uri = str(folder / name)
        (folder / name).mkdir(parents=True)
    examples.split_names = artifact_utils.encode_split_names(list(features.SPLITS))
    examples_schema.write_schema(folder / "schema", ["a", "b"])
    for split in features.SPLITS:
        (folder / "in" / f"Split-{split}").mkdir()
        with tf.io.TFRecordWriter(str(folder / "in" / f"Split-{split}" / "data_tfrecord-00000-of-00001")) as writer:
            for i, data in enumerate(files):
                row = {features.ENCODED: data, features.CLASS_NAME: "b" if i else "a", features.SHA256: str(i)}
                row |= {features.FILENAME: f"{i}.jpg", features.FORMAT: ""}
                writer.write(_example({name: 0 for name in (features.HEIGHT, features.WIDTH, features.CHANNELS)} | row))
    context = base_beam_executor.BaseBeamExecutor.Context(
        beam_pipeline_args=["--runner=FnApiRunner"], tmp_dir=str(folder / "tmp"), unique_id="1"
    )
    settings = {"image_size": SIZE, "resize": "stretch", "normalisation": IDENTITY} | how
    transform.Executor(context).Do(
        {"examples": [examples], "schema": [schema]},
        {"transformed_examples": [transformed], "transform_graph": [graph]},
        {"settings": json.dumps(settings)},
    )
    return [str(path) for path in (folder / "out" / "Split-train").iterdir()]


def through_training(paths: list[str], storage: str, folder):
    """What the Trainer reads from the transformed examples."""
    from trainer.dataset import read_split

    (folder / "scratch").mkdir()
    return read_split(paths, SIZE, storage, folder / "scratch")


def normalised(split) -> np.ndarray:
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
    paths = through_transform(files, tmp_path / "beam", storage=storage)
    np.testing.assert_array_equal(normalised(through_training(paths, storage, tmp_path)), eager)
    np.testing.assert_array_equal(through_exported_model(files, storage, tmp_path), eager)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_d6_all_eight_orientations_are_one_picture_in_transform_and_in_the_exported_model(kind, tmp_path):
    upright = encoded("PNG", seed=6)
    eight = [turned(upright, orientation, kind) for orientation in range(1, 9)]
    assert len(set(eight)) == 8
    paths = through_transform(eight, tmp_path / "beam", storage="png")
    trained = normalised(through_training(paths, "png", tmp_path))
    served = through_exported_model(eight, "png", tmp_path)
    np.testing.assert_array_equal(served, trained)
    # JPEG's blocks fall elsewhere when a picture lies on its side.
    for image in trained[1:]:
        np.testing.assert_allclose(image, trained[0], atol=0 if kind == "PNG" else 6)


def test_label_ids_follow_the_sorted_names_not_their_frequency(files, tmp_path):
    paths = through_transform(files, tmp_path / "beam", storage="png")
    assert through_training(paths, "png", tmp_path).labels.tolist() == [0, 1, 1, 1, 1, 1]


def test_dataset_normalisation_gives_zero_mean_and_unit_variance(files, tmp_path):
    paths = through_transform(files, tmp_path / "beam", storage="png", normalisation=None)
    values = normalised(through_training(paths, "png", tmp_path))
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


@pytest.mark.parametrize("mode", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (10, 5000), (5000, 10)])
def test_pictures_thinner_than_a_pixel_of_the_result_are_resized(mode, shape):
    white = tf.constant(np.full((*shape, 3), 255, np.uint8))
    assert pixels.resize(white, 224, mode).numpy().max() == 255


def test_downscaling_is_antialiased():
    """One-pixel stripes average to grey; without antialiasing they alias to black or white."""
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = pixels.resize(tf.constant(stripes), SIZE).numpy()
    assert abs(small.astype(int) - 127).max() < 16


def test_normalise_reorders_before_it_scales():
    value = pixels.normalise(np.array([[10, 20, 30]], np.uint8), [2, 1, 0], [1.0, 2.0, 3.0], [0.5, 0.0, 0.0])
    np.testing.assert_allclose(value, [[30.5, 40.0, 30.0]])


def photograph(width: int, height: int) -> Image.Image:
    """Noise whose amplitudes fall with the frequency as those of photographs do, the same in all colours and a tint."""
    random = np.random.default_rng(3)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1
    grey = np.fft.irfft2(np.fft.rfft2(random.normal(size=(height, width))) / frequency**1.2, (height, width))
    tint = np.linspace(-40, 40, width)[None, :, None] * [1, 0, -1]
    values = 128 + 40 * ((grey - grey.mean()) / grey.std())[:, :, None] + tint
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


@pytest.mark.parametrize("mode", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("shape", [(1000, 750), (2000, 1500), (4000, 900), (450, 4000)])
def test_large_jpegs_decoded_at_a_fraction_give_nearly_the_same_pixels(mode, shape):
    data = io.BytesIO()
    photograph(*shape).save(data, "JPEG", quality=92)
    encoded_image = tf.constant(data.getvalue())
    whole = pixels.resize(pixels.decode(encoded_image), 96, mode).numpy().astype(int)
    fraction = pixels.decode(encoded_image, 96)
    assert min(fraction.shape[:2]) >= 96 * pixels.OVERSAMPLING
    assert min(fraction.shape[:2]) < max(96 * pixels.OVERSAMPLING * 2, min(shape) / 8 + 1)
    difference = np.abs(pixels.resize(fraction, 96, mode).numpy().astype(int) - whole)
    assert difference.mean() < 2.5  # in `crop`, the middle square may be off by half a pixel of the smaller image
    assert difference.max() <= 16
