"""Where training begins: from the backbone's weights, from the model in service, or from both, each on its own."""

import time
from pathlib import Path
from typing import Any

from components import progress
from trainer.dataset import Split
from trainer.stored import Store
from trainer.training import no_worse
from trainer.transfer import Training
from trainer.warm_start import OtherNetwork


def train(
    settings: dict[str, Any], class_names: list[str], splits: list[Split], scratch: Path
) -> tuple[Training, dict[str, Any], list[Store]]:
    """Trains as `training.start_from` says.

    With `both` the eval split chooses, by the rule by which the phases of one training are compared: what begins from
    the model in service has to be better for it, as that model's epochs were chosen by eval images, too. The test split
    has no part in it: it judges what was chosen, and a judge who chose would be partial.

    Args:
      settings: as `trainer.run.run_fn` takes them.
      class_names: by id.
      splits: train and eval, as images.
      scratch: an existing folder, for what need not outlive the training.

    Returns:
      The training that was chosen; its part of `training.json`, where with `both` the list `starts` tells of each; and
      where features are kept.
    """
    version = settings["start_from"]
    if settings["training"]["start_from"] != "both":
        training = Training(settings, class_names, splits, scratch)
        result = training.run()
        return training, result, _stores([training])
    done = [_timed(Training(settings | {"start_from": None}, class_names, splits, scratch))]
    if version is not None:
        try:
            done.append(_timed(Training(settings, class_names, splits, scratch)))
        except OtherNetwork as error:
            progress.warn(f"{error} Trained from the backbone only.")
    backbone, in_service = done[0][0], done[-1][0]
    chosen = 0 if no_worse(backbone.score, in_service.score) else len(done) - 1
    training, result, _ = done[chosen]
    told = [_told(*each, chosen=each is done[chosen]) for each in done]
    return training, result | {"starts": told}, _stores([training for training, *_ in done])


def _timed(training: Training) -> tuple[Training, dict[str, Any], float]:
    """The training, what it gave and seconds."""
    began = time.monotonic()
    result = training.run()
    return training, result, time.monotonic() - began


def _told(training: Training, result: dict[str, Any], seconds: float, chosen: bool) -> dict[str, Any]:
    """What `training.json` says of one of two trainings."""
    losses, accuracy = training.score
    return {
        "start_from": result["start_from"],
        "chosen": chosen,
        "eval_accuracy": accuracy,
        "eval_loss": result["calibration"]["loss"],
        "eval_calibrated_loss": float(losses.mean()),
        "seconds": seconds,
    }


def _stores(trainings: list[Training]) -> list[Store]:
    return [training.store for training in trainings if training.store is not None]
