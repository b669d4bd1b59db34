"""`graft tune`: the pipeline up to Transform, then a search for a better configuration, and a file that holds it."""

import os
import shlex
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from components.errors import GraftError, UsageError, printable
from pipeline import local
from pipeline.config import Config
from pipeline.console import Detail, Steps

if TYPE_CHECKING:
    from pipeline.search import Search

TRIALS_FILE = "trials.jsonl"


def tune(
    config: Config,
    images: list[str],
    output_folder: Path,
    trials: int,
    recipe: Path,
    detail: Detail = Detail.NORMAL,
) -> None:
    """Searches, says what it finds, and writes the best configuration.

    Args:
      config: where the search begins; what is not searched stays as it is here.
      images: as for `local.run`.
      output_folder: as for `local.run`; what is ready there is used, and the other way round.
      trials: how many configurations are tried, the given one included.
      recipe: the file to write; it must not be there yet.
      detail: how much is printed.

    Raises:
      GraftError: as `local.up_to`.
      SystemExit: as `local.up_to`.
    """
    require_new(recipe)
    if config.training.start_from == "in_service":
        raise UsageError(
            "training.start_from: in_service takes the head of the model in service, so there is none to search for; "
            "tune with training.start_from: backbone."
        )
    with local.up_to("Transform", config, images, output_folder, detail) as (run, steps):
        found, eval_images = _search(run, steps, trials)
        best, first = found.best(), found.rows[0]
        if best is None:
            raise GraftError(f"No trial could be trained; the first ended with: {first['error']}")
        run.begin("Write the recipe")
        command = ["graft", "run", *(part for each in images for part in ("--images", each))]
        command += ["--output", str(output_folder), "--config", str(recipe)]
        command = printable(shlex.join(command))
        text = recipe_text(found.configuration(best), best, found.rows, eval_images, command)
        # Not over a file that has come meanwhile.
        with open(recipe, "x") as file:
            file.write(text)
        steps.say()
        steps.say(_outcome(best, first, len(found.rows)))
        steps.say(
            f"The {eval_images} eval images chose it, so expect less; the gate judges by test images that no trial saw."
        )
        steps.say(f"Recipe: {recipe}")
        steps.say(f"Next: {command}", whole=True)


def require_new(recipe: Path) -> None:
    """Makes sure before hours of work that the recipe can be written.

    Raises:
      UsageError: it is there already, or its folder is not or cannot be written.
    """
    if os.path.lexists(recipe):
        raise UsageError(f"The recipe {recipe} is there already; give --recipe another name, or remove it.")
    folder = recipe.absolute().parent
    if not folder.is_dir():
        raise UsageError(
            f"There is no folder {folder} for the recipe {recipe.name}; make it, or give --recipe another."
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"The folder {folder} cannot be written; give --recipe another.")


def _search(run: local._Run, steps: Steps, trials: int) -> tuple["Search", int]:
    """The trials, on the images that the pipeline prepared; how many eval images judged them."""
    run.begin("Load KerasTuner")
    with steps.step(run.notes.step):
        from components.examples_schema import SCHEMA_FILE, read_class_names
        from pipeline import graph
        from pipeline.search import Remembered, Search
        from trainer.run import read_splits, scratch_folder
        from trainer.transfer import Training
    cache = str(run.output.cache)
    class_names = read_class_names(str(Path(run.artifacts["ImageExampleGen"]["schema"].uri, SCHEMA_FILE)))
    transformed = run.artifacts["Transform"]["transformed_examples"].uri
    files = [[f"{transformed}/Split-{name}/*"] for name in ("train", "eval")]
    with scratch_folder(cache) as scratch:
        run.begin("Read the images")
        with steps.step(run.notes.step):
            splits = read_splits(files, graph.transform_settings(run.config), scratch)

        def training(config: Config) -> Training:
            return Training(graph.training_settings(config, None, cache), class_names, splits, scratch)

        remembered = Remembered(run.output.cache / TRIALS_FILE)
        found = Search(run.config, trials, training, remembered, scratch, steps, run.folder / TRIALS_FILE)
        try:
            found.run()
        finally:
            run.begin(found.title)
    return found, len(splits[1])


# ---- the recipe -----------------------------------------------------------------------------------------------------


def recipe_text(found: Config, best: dict[str, Any], rows: list[dict[str, Any]], eval_images: int, command: str) -> str:
    """The file: what is different from the defaults, and whatever was searched, under a comment.

    Args:
      found: the best configuration.
      best: the row of its trial.
      rows: of all trials.
      eval_images: how many there are.
      command: that takes the file.
    """
    values = found.model_dump(mode="json")
    kept = _different(values, Config().model_dump(mode="json"))
    for key in best["settings"]:
        _put(kept, key.split("."), values)
    comment = [
        f"What graft tune found in {len(rows)} trials. Take it with:",
        "",
        f"    {command}",
        "",
        f"Eval loss {best['eval_loss']:.4f} and accuracy {best['eval_accuracy']:.3f} (trial {best['trial']}), against "
        f"{_figures(rows[0])} of the configuration that the search began with.",
        "",
        f"The {eval_images} eval images chose it, so the figures are better than what to expect. The test images, "
        "which no trial has seen, judge it in the run's gate.",
    ]
    lines = [line for text in comment for line in _wrapped(text)]
    return "".join(f"# {line}".rstrip() + "\n" for line in lines) + "\n" + yaml.safe_dump(kept, sort_keys=False)


def _wrapped(text: str) -> list[str]:
    return [text] if text.startswith(" ") else textwrap.wrap(text, 110) or [""]


def _figures(row: dict[str, Any]) -> str:
    return "none" if row["error"] else f"{row['eval_loss']:.4f} and {row['eval_accuracy']:.3f}"


def _outcome(best: dict[str, Any], first: dict[str, Any], count: int) -> str:
    figures = f"eval loss {best['eval_loss']:.4f}, accuracy {best['eval_accuracy']:.3f}"
    if best is first:
        return f"Of {count} trials none was better than the configuration as given: {figures}"
    return f"Best of {count} trials: trial {best['trial']}, {figures} (as given: {_figures(first)})"


def _different(values: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """The values that are not the defaults, in the order of the schema."""
    kept: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            if inner := _different(value, defaults[key]):
                kept[key] = inner
        elif value != defaults[key]:
            kept[key] = value
    return kept


def _put(kept: dict[str, Any], key: list[str], values: dict[str, Any]) -> None:
    """Copies one value, or a whole section, to its place."""
    *sections, last = key
    for section in sections:
        kept, values = kept.setdefault(section, {}), values[section]
    kept[last] = values[last]
