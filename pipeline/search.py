"""What `graft tune` searches, and how: KerasTuner's Bayesian optimisation, a training a trial, judged by the eval loss.

Imports KerasTuner and with it Keras: for those who are about to train.
"""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import keras_tuner

from components.errors import GraftError
from components.files import read_json_lines, write_json_lines, write_whole
from pipeline.config import AugmentationConfig, Config
from pipeline.console import Steps
from trainer.backbones import BACKBONES, block_count
from trainer.cache_names import UNFINISHED_PREFIX
from trainer.transfer import Training

HIDDEN, DROPOUT = "model.head.hidden", "model.head.dropout"
HEAD_RATE, RATE = "training.frozen.learning_rate", "training.fine_tune.learning_rate"
UNFREEZE, DECAY = "training.fine_tune.unfreeze", "training.fine_tune.block_decay"
AUGMENTATION = "training.augmentation"
EPOCHS = "training.fine_tune.epochs"
# Short names, for a line a trial.
LABELS = {
    HIDDEN: "hidden",
    DROPOUT: "dropout",
    HEAD_RATE: "head rate",
    UNFREEZE: "unfreeze",
    RATE: "rate",
    DECAY: "block decay",
    AUGMENTATION: "augmentation",
    EPOCHS: "fine-tuning epochs",
}
# Nothing that could make one class of another, as mirroring does with letters and signs.
MILD = {"rotation": 10.0, "translation": 0.1, "zoom": 0.1, "brightness": 0.1, "contrast": 0.1}
# The given configuration and four random ones come before the first that is inferred from what was seen. KerasTuner's
# own number is three for each thing searched: more than the usual search has trials.
INITIAL = 5
OBJECTIVE = "eval_loss"


# ---- the space ------------------------------------------------------------------------------------------------------


def space(config: Config) -> keras_tuner.HyperParameters:
    """What is searched around a configuration; its own values are the defaults, and inside every range.

    A thing is named after the configuration's key. What is chosen among lists, sections or values of several types are
    JSON texts, as KerasTuner takes one simple type for all.
    """
    head, training = config.model.head, config.training
    found = keras_tuner.HyperParameters()
    _choice(found, HIDDEN, [[], [64], [128], [256], [512]], head.hidden, key=sum)
    _range(found, DROPOUT, 0.0, 0.6, head.dropout)
    _range(found, HEAD_RATE, 3e-4, 3e-2, training.frozen.learning_rate, "log")
    _choice(found, AUGMENTATION, _augmentations(config), training.augmentation.model_dump(mode="json"))
    # Without epochs the person has left the phase out, and it stays out.
    if training.fine_tune.epochs:
        _choice(found, UNFREEZE, [None, *_depths(config)], training.fine_tune.unfreeze, key=_depth(config))
        some = [text for text in found.space[-1].values if json.loads(text) is not None]
        with found.conditional_scope(UNFREEZE, some):
            _range(found, RATE, 1e-5, 1e-3, training.fine_tune.learning_rate, "log")
            _range(found, DECAY, 0.5, 1.0, training.fine_tune.block_decay)
    return found


def _choice(
    found: keras_tuner.HyperParameters,
    name: str,
    values: list[Any],
    given: Any,
    key: Callable[[Any], float] | None = None,
) -> None:
    """One of the values or the given one; sorted by `key`, as neighbours are taken to do similarly well."""
    values = values if given in values else [*values, given]
    found.Choice(name, _texts(sorted(values, key=key) if key else values), default=json.dumps(given))


def _texts(values: list[Any]) -> list[str]:
    return [json.dumps(value) for value in values]


def _range(
    found: keras_tuner.HyperParameters, name: str, low: float, high: float, given: float, sampling: str = "linear"
) -> None:
    """A number between two, or up or down to the given one."""
    found.Float(name, min(low, given), max(high, given), sampling=sampling, default=given)


def _augmentations(config: Config) -> list[dict[str, Any]]:
    """None, and a little. Whether a mirrored image keeps its class the person alone knows, and says it by `flip`."""
    mild = MILD | {"flip": config.training.augmentation.flip}
    if config.transform.storage == "float":
        # There are no pixels whose colours could be changed.
        mild |= {"brightness": 0.0, "contrast": 0.0}
    return [AugmentationConfig(**changes).model_dump(mode="json") for changes in ({}, mild)]


def _depths(config: Config) -> list[str]:
    """Where fine-tuning may begin: a number of blocks that doubles, and everything."""
    number = len(BACKBONES[config.model.backbone].blocks)
    given = block_count(config.training.fine_tune.unfreeze)
    counts = [2**power for power in range(6) if 2**power < number and 2**power != given]
    blocks = ["1 block" if count == 1 else f"{count} blocks" for count in counts]
    return blocks if given == number else [*blocks, "all"]


def _depth(config: Config) -> Callable[[Any], float]:
    """How many blocks a value of `unfreeze` trains, roughly."""
    number = len(BACKBONES[config.model.backbone].blocks)

    def depth(unfreeze: Any) -> float:
        if unfreeze is None:
            return 0
        if unfreeze == "all":
            return number
        if isinstance(unfreeze, float):
            return unfreeze * number
        # Which block a layer's name or index is in, the built network alone could tell: somewhere in the middle.
        return block_count(unfreeze) or number / 2

    return depth


def decoded(values: dict[str, Any]) -> dict[str, Any]:
    """What a trial sets, by the configuration's keys."""
    plain = {name: json.loads(value) if isinstance(value, str) else value for name, value in values.items()}
    if UNFREEZE in plain and plain[UNFREEZE] is None:
        plain[EPOCHS] = 0
        del plain[UNFREEZE]
    return plain


def configured(config: Config, settings: dict[str, Any]) -> Config:
    """The configuration with what a trial sets in it."""
    changed = config.model_dump(mode="json")
    for key, value in settings.items():
        *sections, last = key.split(".")
        section = changed
        for each in sections:
            section = section[each]
        section[last] = value
    return Config.model_validate(changed)


def words(settings: dict[str, Any], config: Config) -> str:
    """What a trial sets, for people."""
    return ", ".join(f"{LABELS[key]} {_word(key, value, config)}" for key, value in settings.items())


def _word(key: str, value: Any, config: Config) -> str:
    if key == AUGMENTATION:
        off, mild = _augmentations(config)
        return "off" if value == off else "mild" if value == mild else "as given"
    return f"{value:g}" if isinstance(value, float) else str(value)


# ---- the trials -----------------------------------------------------------------------------------------------------


class Remembered:
    """Results of trainings, by everything that they depend on, in a file that outlives a killed search.

    KerasTuner's own files are written in place, so that one cut short could not be read again, and what is in them says
    nothing about the images. With results remembered, a search that is started again makes the same proposals, as they
    depend on the seed and the results alone, and is answered at once up to where it was killed.
    """

    def __init__(self, file: Path):
        self._file = file
        try:
            self._rows = {row["training"]: row for row in read_json_lines(file)}
        except (OSError, ValueError, KeyError, TypeError):
            # Missing, or damaged by somebody: what it held is trained again.
            self._rows = {}

    def get(self, training: str) -> dict[str, Any] | None:
        return self._rows.get(training)

    def keep(self, row: dict[str, Any]) -> None:
        self._rows[row["training"]] = row
        write_whole(self._file, "".join(json.dumps(each) + "\n" for each in self._rows.values()))


class Oracle(keras_tuner.oracles.BayesianOptimizationOracle):
    """KerasTuner's, which begins with the defaults, proposes nothing twice, and numbers that a person can read."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        if not self.trials:
            return {"status": "RUNNING", "values": dict(self.hyperparameters.values)}
        response = super().populate_space(trial_id)
        for _ in range(self._max_collisions):
            if response["values"] is None:
                break
            response["values"] = {name: self._rounded(name, value) for name, value in response["values"].items()}
            if not self._duplicate(response["values"]):
                return response
            response = self._random_populate_space()
        return {"status": "STOPPED", "values": None}

    def _rounded(self, name: str, value: Any) -> Any:
        """Two digits, unless that would leave the range."""
        if not isinstance(value, float):
            return value
        (limits,) = [each for each in self.hyperparameters.space if each.name == name]
        return min(max(float(f"{value:.2g}"), limits.min_value), limits.max_value)


class Search(keras_tuner.Tuner):
    """Trains what the oracle proposes, in this process.

    Attributes:
      rows: a trial each, in their order: `trial`, `training` (what it is remembered by), `eval_loss`, `eval_accuracy`,
        `error`, `seconds`, `remembered`, `settings` (by the configuration's keys).
    """

    def __init__(
        self,
        config: Config,
        trials: int,
        train: Callable[[Config], Training],
        remembered: Remembered,
        scratch: Path,
        steps: Steps,
        file: Path,
    ):
        """Prepares.

        Args:
          config: what is searched around.
          trials: how many, the configuration itself included.
          train: makes a training of a configuration.
          remembered: results of earlier ones.
          scratch: an existing folder, for KerasTuner's own files.
          steps: where the person is told.
          file: takes `rows` as JSON Lines.
        """
        oracle = Oracle(
            objective=keras_tuner.Objective(OBJECTIVE, "min"),
            max_trials=trials,
            num_initial_points=INITIAL,
            hyperparameters=space(config),
            # From 1 on: 0 would mean a random seed.
            seed=config.training.seed % 2**31 + 1,
            # A rate too high is an answer, too.
            max_consecutive_failed_trials=trials + 1,
        )
        super().__init__(oracle, directory=str(scratch), project_name="search", overwrite=True)
        oracle.verbose = 0
        self.config, self.trials, self.steps = config, trials, steps
        self.rows: list[dict[str, Any]] = []
        self._train, self._remembered, self._file = train, remembered, file

    @property
    def title(self) -> str:
        """Of the trial that runs."""
        return f"Trial {len(self.rows) + 1} of {self.trials}"

    def run_trial(self, trial: Any) -> dict[str, float]:
        """A training; the metric that the oracle asks for."""
        settings = decoded(trial.hyperparameters.values)
        with self.steps.step(self.title) as result:
            row = {"trial": len(self.rows) + 1, **self._result(configured(self.config, settings)), "settings": settings}
            self.rows.append(row)
            write_json_lines(self._file, self.rows)
            outcome = row["error"] or f"eval loss {row['eval_loss']:.4f}, accuracy {row['eval_accuracy']:.3f}"
            again = " (remembered)" if row["remembered"] else ""
            given = "as given: " if row["trial"] == 1 else ""
            result["note"] = f"{outcome}{again}; {given}{words(settings, self.config)}"
        if row["error"]:
            raise keras_tuner.errors.FailedTrialError(row["error"])
        return {OBJECTIVE: row["eval_loss"]}

    def run(self) -> None:
        """Every trial.

        Raises:
          Exception: what went wrong in one, other than that its settings cannot be trained.
        """
        try:
            self.search()
        except keras_tuner.errors.FatalError as error:
            raise error.__cause__ or error from None

    def best(self) -> dict[str, Any] | None:
        """The row with the lowest eval loss, of several the first; None where every trial failed."""
        return min((row for row in self.rows if not row["error"]), key=lambda row: row["eval_loss"], default=None)

    def configuration(self, row: dict[str, Any]) -> Config:
        """What the trial of that row trained."""
        return configured(self.config, row["settings"])

    def _result(self, config: Config) -> dict[str, Any]:
        training = self._train(config)
        name = training.unfinished.name.removeprefix(UNFINISHED_PREFIX)
        if row := self._remembered.get(name):
            if not any(training.unfinished.iterdir()):
                training.unfinished.rmdir()
            return row | {"remembered": True}
        began = time.monotonic()
        row = {"training": name, "eval_loss": None, "eval_accuracy": None, "error": None}
        try:
            row |= eval_of(training.run())
        except Exception as error:
            # What training itself says is about the settings. Anything else is not, but KerasTuner would go on.
            if type(error) is not GraftError:
                raise keras_tuner.errors.FatalError() from error
            row["error"] = str(error)
        row["seconds"] = round(time.monotonic() - began, 1)
        self._remembered.keep(row)
        # Only a training that was killed is gone on with; its trunk's outputs are large.
        shutil.rmtree(training.unfinished)
        del training
        # Keras holds on to what was built; this lets go of it and collects what no one else holds.
        keras.utils.clear_session()
        return row | {"remembered": False}


def eval_of(result: dict[str, Any]) -> dict[str, float]:
    """Eval loss (after temperature scaling, as training itself judges) and accuracy of the weights that a training was
    left with, given what `Training.run` returns."""
    tuned = result["fine_tune"]
    phase = tuned if tuned and tuned["kept"] else result["frozen"]
    return {"eval_loss": phase["eval_calibrated_loss"], "eval_accuracy": phase["eval_accuracy"]}
