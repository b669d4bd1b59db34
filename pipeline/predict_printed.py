"""`graft predict` without `--output`: an answer a line, as soon as it is known, without Beam."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import click

from components.errors import printable
from pipeline.image_paths import find_images
from pipeline.noise import noise_to
from pipeline.predict import Limits, classifier, classify, find_model, share_cores


def predict_printed(
    model: Path, paths: list[str], as_json: bool, config_file: Path | None = None, overrides: Sequence[str] = ()
) -> int:
    """Prints an answer a file; what could not be classified goes to the error stream, or with JSON among the answers.

    Args:
      model: a published version, or a serving folder.
      paths: as for `find_images`.
      as_json: an object a line, with every class's probability.
      config_file: of which `data.max_pixels` and `data.max_bytes` count; None for the defaults.
      overrides: as for `pipeline.config.load`.

    Returns:
      How many files could not be classified.
    """
    limits = _limits(config_file, overrides)
    version, files = find_model(model), find_images(paths)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # While it is loaded, TensorFlow writes to the error stream before anything can tell it not to.
    with noise_to(Path(os.devnull)):
        at_once = share_cores()
        loaded = classifier(version)
    failed = 0
    for answer in classify(loaded, files, limits, at_once):
        failed += "error" in answer
        if as_json:
            click.echo(json.dumps(answer))
        elif "error" in answer:
            click.echo(f"{printable(answer['path'])}: {answer['error']}", err=True)
        else:
            click.echo(f"{printable(answer['path'])}: {printable(answer['label'])} ({answer['score']:.3f})")
    return failed


def _limits(config_file: Path | None, overrides: Sequence[str]) -> Limits:
    if config_file is None and not overrides:
        # One picture is answered sooner without reading the whole schema.
        return Limits()
    from pipeline import config

    return Limits.of(config.load(config_file, list(overrides)))
