"""Does the bundled backbone know more than a random network? A linear probe on three sets of real images.

    python benchmarks/bundled_backbone.py

For each data set and seed: a stratified 60/40 split, features from global average pooling, standardised on the training
part, and a logistic regression on top. Four sources of features are compared, all the same architecture:

* ``trained``: the shipped weights;
* ``random``: a fresh initialisation for each seed, whose batch normalisation does nothing;
* ``random, calibrated``: the same, with batch-normalisation statistics measured on the training images, which is the
  fairer rival: the shipped weights carry statistics, too;
* ``pixels``: no network, the image reduced to 16 x 16 RGB.

The regularisation of the regression is chosen by cross-validation inside the training part, for every source alike.
The figures are means over the seeds, with the lowest and the highest in brackets.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from trainer import bundled

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT.parent / "shared" / "assets" / "images"
FOLDERS = ("sign_digits", "trashnet")
SEEDS = (0, 1, 2)
TEST_SHARE = 0.4
CANDIDATE_C = (0.001, 0.01, 0.1, 1.0)

Dataset = tuple[np.ndarray, np.ndarray]
Extractor = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
"""From all images, the indices of the training part and the seed to the features of all images."""


def resize(picture: Image.Image) -> np.ndarray:
    """One RGB image at the backbone's default size, in [-1, 1]."""
    side = bundled.DEFAULT_SIZE
    pixels = picture.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(pixels, np.float32) / 127.5 - 1


def digits() -> Dataset:
    """The 1,797 scans of 8 x 8 pixels that come with scikit-learn."""
    data = load_digits()
    scans = (data.images * (255 / 16)).round().astype(np.uint8)
    return np.stack([resize(Image.fromarray(scan)) for scan in scans]), data.target


def folder(path: Path) -> Dataset:
    """A directory with one sub-directory for each class."""
    images, labels = [], []
    for label, directory in enumerate(sorted(entry for entry in path.iterdir() if entry.is_dir())):
        for file in sorted(directory.iterdir()):
            with Image.open(file) as picture:
                images.append(resize(picture))
            labels.append(label)
    return np.stack(images), np.array(labels)


def datasets() -> Iterator[tuple[str, Dataset]]:
    """The data sets that are present; says which are not."""
    yield "digits", digits()
    for name in FOLDERS:
        if (IMAGES / name).is_dir():
            yield name, folder(IMAGES / name)
        else:
            print(f"skipped {name}: {IMAGES / name} does not exist\n")


def pooled(backbone: keras.Model, images: np.ndarray) -> np.ndarray:
    """Global average of the feature map."""
    return backbone.predict(images, batch_size=64, verbose=0).mean((1, 2))


def network(weights: Path | None) -> keras.Model:
    """The backbone for the default size."""
    return bundled.build((bundled.DEFAULT_SIZE, bundled.DEFAULT_SIZE, 3), weights)


def calibrate(backbone: keras.Model, images: np.ndarray) -> None:
    """Measure batch-normalisation statistics on the images, layer by layer from the input up."""
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            below = keras.Model(backbone.input, layer.input)
            values = below.predict(images, batch_size=64, verbose=0)
            layer.moving_mean.assign(values.mean((0, 1, 2)))
            layer.moving_variance.assign(values.var((0, 1, 2)))


def trained_features(images: np.ndarray, train: np.ndarray, seed: int) -> np.ndarray:
    """Features of the shipped weights."""
    return pooled(network(bundled.WEIGHTS), images)


def random_features(images: np.ndarray, train: np.ndarray, seed: int) -> np.ndarray:
    """Features of a fresh initialisation."""
    keras.utils.set_random_seed(seed)
    return pooled(network(None), images)


def calibrated_features(images: np.ndarray, train: np.ndarray, seed: int) -> np.ndarray:
    """Features of a fresh initialisation with statistics from (at most 512 of) the training images."""
    keras.utils.set_random_seed(seed)
    backbone = network(None)
    calibrate(backbone, images[train[:512]])
    return pooled(backbone, images)


def pixel_features(images: np.ndarray, train: np.ndarray, seed: int) -> np.ndarray:
    """The images themselves, reduced to 16 x 16."""
    step = images.shape[1] // 16
    return images.reshape(len(images), 16, step, 16, step, 3).mean((2, 4)).reshape(len(images), -1)


SOURCES: dict[str, Extractor] = {
    "trained": trained_features,
    "random": random_features,
    "random, calibrated": calibrated_features,
    "pixels": pixel_features,
}


def probe(features: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray, seed: int) -> float:
    """Test accuracy of a logistic regression."""
    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=300, random_state=seed)),
        {"logisticregression__C": CANDIDATE_C},
        cv=3,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        search.fit(features[train], labels[train])
    return float(search.score(features[test], labels[test]))


def accuracies(data: Dataset, extract: Extractor) -> list[float]:
    """Probe accuracy for every seed."""
    images, labels = data
    results = []
    for seed in SEEDS:
        train, test = train_test_split(np.arange(len(labels)), test_size=TEST_SHARE, stratify=labels, random_state=seed)
        results.append(probe(extract(images, train, seed), labels, train, test, seed))
    return results


def cell(values: list[float]) -> str:
    """Mean and range, in percent."""
    low, mean, high = min(values), float(np.mean(values)), max(values)
    return f"{100 * mean:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def speed(images: int = 2048) -> float:
    """Images per second of the forward pass."""
    backbone = network(bundled.WEIGHTS)
    batch = np.random.default_rng(0).uniform(-1, 1, (images, *backbone.input_shape[1:])).astype(np.float32)
    backbone.predict(batch[:128], batch_size=64, verbose=0)
    start = time.perf_counter()
    backbone.predict(batch, batch_size=64, verbose=0)
    return images / (time.perf_counter() - start)


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    rows = []
    for name, data in datasets():
        rows.append([f"{name} ({len(data[1])} images)", *(cell(accuracies(data, use)) for use in SOURCES.values())])
    header = ["linear probe, test accuracy in %", *SOURCES]
    for row in (header, ["---"] * len(header), *rows):
        print(f"| {' | '.join(row)} |")
    size = bundled.DEFAULT_SIZE
    print(f"\n{network(None).count_params():,} parameters, {bundled.WEIGHTS.stat().st_size:,} bytes;", end=" ")
    print(f"{speed():,.0f} images a second at {size} x {size}.")


if __name__ == "__main__":
    main()
