"""`graft check`: what a run would make of the images, before any compute."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import track

from components import data_report, parallel
from components.conversion import require_packages
from components.errors import DataRefused, printable
from components.image_files import ImageFile
from components.inspection import inspect_file
from components.remembered import SPLITS_FILE, read_remembered
from components.sources import list_images, resolve, spans_text
from components.splits import build_catalog
from pipeline import dataflow, metadata_store
from pipeline.config import Config
from pipeline.noise import noise_to
from pipeline.output import Output
from pipeline.probe import proved
from pipeline.runners import engine_of, require_runner
from trainer.backbones import require_start, require_weights

# Lines of one kind that are printed; --json gives all.
MOST_LINES = 20


def check(config: Config, images: list[str], as_json: bool = False, output: Path | None = None) -> None:
    """Checks every image as a run would and prints the data report; trains nothing, writes nothing.

    Args:
      config: everything that a person chooses.
      images: as `--images` takes them.
      as_json: print one JSON object, `{data, files}`: the counts as in `summary.json`, and a line a file that was not
        simply kept.
      output: the folder of the run that is meant: images keep the splits that runs there remember.

    Raises:
      UsageError: the images, the weights, the cluster or the server of runner.metadata cannot be had, what was
        remembered is damaged, fine-tuning would begin where the backbone has nothing to train, a format needs a package
        that is not installed, or Dataflow would refuse its options.
      DataRefused: as the run would refuse the data.
    """
    require_packages(config.push.formats)
    if config.runner.beam == dataflow.DATAFLOW:
        dataflow.require(config)
    engine = engine_of(config)
    cluster = require_runner(config) if engine else None
    metadata_store.check(config.runner.metadata, Output(output.absolute()) if output else None)
    rules = config.split_rules
    remembered = read_remembered(str(output / "schema" / SPLITS_FILE), rules) if output else {}
    sources = resolve(images, config.data.spans)
    listing = list_images(sources.places, config.data.follow_symlinks, rules.group)
    try:
        catalog = build_catalog(_inspected(listing.files, config), listing.classes, rules, remembered)
    except DataRefused as error:
        if not as_json:
            _print_lines(data_report.quarantined_lines(error.quarantined))
        raise
    counts, lines = data_report.summarise(catalog, listing.skipped), data_report.lines(catalog, listing.skipped)
    if as_json:
        click.echo(json.dumps({"data": counts, "files": lines}, indent=1))
    else:
        for pattern, numbers in sources.spans:
            click.echo(f"{pattern}: {spans_text(numbers)}")
        _print_counts(counts)
        _print_lines(lines)
    model, fine_tune = config.model, config.training.fine_tune
    with noise_to(Path(os.devnull)):
        if fine_tune.epochs:
            require_start(model.backbone, model.alpha, fine_tune.unfreeze)
        require_weights(model.backbone, model.alpha, model.weights, config.image_size)
        if engine:
            workers = proved(config, cluster, [*sources.places, listing.files[0].location], output)
    if not as_json:
        if cluster is not None:
            click.echo(f"{cluster.engine} at {engine.options(config).master}: {cluster.has}")
        if engine:
            click.echo(f"On {engine.title} {workers}.")
        ready = f"{counts['images']} images, {model.backbone} at {config.image_size} px with {model.weights} weights"
        click.echo(f"Ready: {ready}.")


def _inspected(files: list[ImageFile], config: Config) -> Iterable[dict[str, Any]]:
    """A record a file, with a progress bar on a terminal."""

    def one(file: ImageFile) -> dict[str, Any]:
        return inspect_file(file, config.data.max_pixels, config.data.max_bytes)

    # Decoders write to the error stream, past Python. Reading and decoding let other threads run.
    with noise_to(Path(os.devnull)) as person, parallel.pool(parallel.cores()) as pool:
        console = Console(file=person)
        records = pool.map(one, files)
        bar = track(records, "Checking images", len(files), console=console, transient=True)
        return list(bar if console.is_terminal else records)


def _print_counts(counts: dict[str, Any]) -> None:
    width = max(len(name) for name in counts["classes"])
    click.echo(f"{'class':<{width}}  train   eval   test")
    for name, row in counts["classes"].items():
        click.echo(f"{name:<{width}} {row['train']:6} {row['eval']:6} {row['test']:6}")
    formats = ", ".join(f"{name} {count}" for name, count in counts["formats"].items())
    click.echo(f"{counts['images']} images ({formats})")
    for name, unit in (("width", " px"), ("height", " px"), ("bytes", "")):
        row = counts["sizes"][name]
        click.echo(f"{name}: {row['smallest']} to {row['largest']}{unit}, median {row['median']}")


def _print_lines(lines: list[dict[str, str]]) -> None:
    """The files by what becomes of them."""
    outcomes = list(dict.fromkeys(line["outcome"] for line in lines))
    for outcome in outcomes:
        rows = [line for line in lines if line["outcome"] == outcome]
        click.echo(f"{outcome}: {len(rows)}")
        for row in rows[:MOST_LINES]:
            click.echo(f"  {printable(row['path'])}: {printable(row['reason'])}")
        if len(rows) > MOST_LINES:
            click.echo(f"  and {len(rows) - MOST_LINES} more")
