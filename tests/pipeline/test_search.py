"""`graft tune` without its trainings: what is searched, what is remembered, what is written."""

import json
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from components.errors import GraftError, UsageError
from pipeline import config as configuration
from pipeline.config import Config
from pipeline.console import Steps
from pipeline.search import EPOCHS, UNFREEZE, Oracle, Remembered, Search, configured, decoded, space
from pipeline.tune import recipe_text, require_new, tune

GIVEN = [
    [],
    ["model.backbone=graft_tiny", "model.weights=bundled", "training.fine_tune.unfreeze=5 blocks"],
    ["model.backbone=densenet121", "training.fine_tune.unfreeze=conv5", "transform.storage=float"],
    ["model.head.hidden=[300, 20]", "model.head.dropout=0.9999", "training.frozen.learning_rate=0.512345"],
    ["training.augmentation.flip=both", "training.fine_tune.block_decay=0.123", "training.seed=7"],
    ["training.fine_tune.unfreeze=12", "training.fine_tune.learning_rate=1e-7", "push.keep=2", "training.seed=0"],
    ["training.fine_tune.epochs=0", "model.alpha=0.35", "training.label_smoothing=0.1"],
]


def points(given: Config, count: int) -> list[dict]:
    """What the oracle proposes where nothing is known yet."""
    oracle = Oracle(objective="loss", max_trials=count, num_initial_points=count, hyperparameters=space(given), seed=1)
    with tempfile.TemporaryDirectory() as folder:
        oracle._set_project_dir(folder, "search")
        oracle.verbose = 0
        return [decoded(oracle.create_trial(str(number)).hyperparameters.values) for number in range(count)]


@pytest.mark.parametrize("overrides", GIVEN)
def test_every_point_is_a_valid_configuration_and_the_first_is_the_given_one(overrides):
    given = configuration.load(None, overrides)
    found = [configured(given, settings) for settings in points(given, 60)]
    assert found[0] == given
    assert len({each.model_dump_json() for each in found}) == 60
    kept = {"training": {"label_smoothing", "seed", "start_from", "batch_size"}, "data": True, "push": True}
    assert all(each.model_dump(include=kept) == given.model_dump(include=kept) for each in found)


def test_no_fine_tuning_is_searched_unless_it_is_given():
    assert any(EPOCHS in settings for settings in points(Config(), 60))
    without = configuration.load(None, ["training.fine_tune.epochs=0"])
    assert all(not {EPOCHS, UNFREEZE} & settings.keys() for settings in points(without, 60))


@pytest.mark.parametrize("overrides", GIVEN)
def test_recipe_loads_as_the_configuration_that_was_found(overrides, tmp_path):
    given = configuration.load(None, overrides)
    for number, settings in enumerate(points(given, 30)):
        row = {"trial": 2, "eval_loss": 0.5, "eval_accuracy": 0.9, "error": None, "settings": settings}
        found = configured(given, settings)
        text = recipe_text(found, row, [row], 40, "graft run --images 'a\\nb' --config recipe.yaml")
        file = tmp_path / f"{number}.yaml"
        file.write_text(text)
        assert configuration.load(file, []) == found
        assert "40 eval images" in " ".join(text.split())


def test_recipe_names_searched_keys_also_where_they_are_the_defaults():
    row = {"trial": 1, "eval_loss": 0.5, "eval_accuracy": 0.9, "error": None, "settings": {"model.head.dropout": 0.5}}
    assert recipe_text(Config(), row, [row], 40, "graft run").endswith("\n\nmodel:\n  head:\n    dropout: 0.5\n")


class Trainings:
    """Instead of `Training`: notes what is trained; the lower the dropout the better."""

    def __init__(self, folder: Path):
        self.folder, self.trained = folder, []
        self.before = lambda count: None

    def __call__(self, tried: Config) -> SimpleNamespace:
        folder = self.folder / f"training-{abs(hash(tried.model_dump_json()))}"
        folder.mkdir(exist_ok=True)

        def run():
            (folder / "frozen.npz").touch()
            self.before(len(self.trained))
            self.trained.append(tried)
            phase = {"eval_calibrated_loss": tried.model.head.dropout, "eval_accuracy": 0.5}
            return {"frozen": phase, "fine_tune": None}

        return SimpleNamespace(unfinished=folder, run=run)


@pytest.fixture
def trainings(tmp_path) -> Trainings:
    (tmp_path / "cache").mkdir()
    return Trainings(tmp_path / "cache")


def searched(trainings: Trainings, trials: int) -> Search:
    cache = trainings.folder
    remembered = Remembered(cache / "trials.jsonl")
    found = Search(Config(), trials, trainings, remembered, cache / "scratch", Steps(), cache / "rows.jsonl")
    found.run()
    return found


def interrupted(count: int) -> None:
    if count == 4:
        raise KeyboardInterrupt


def test_search_that_was_killed_goes_on_and_finds_what_it_would_have_found(trainings, tmp_path):
    (tmp_path / "other").mkdir()
    whole = searched(Trainings(tmp_path / "other"), 6)
    trainings.before = interrupted
    with pytest.raises(KeyboardInterrupt):
        searched(trainings, 6)
    assert len(list(trainings.folder.glob("training-*"))) == 1, "what the interrupted trial goes on from"
    trainings.before = lambda count: None
    again = searched(trainings, 6)
    assert len(trainings.trained) == 6
    assert [row["remembered"] for row in again.rows] == [True] * 4 + [False] * 2
    assert [row["settings"] for row in again.rows] == [row["settings"] for row in whole.rows]
    assert again.best()["settings"] == whole.best()["settings"]
    assert not list(trainings.folder.glob("training-*"))


def test_more_trials_go_on_from_those_of_a_shorter_search(trainings):
    searched(trainings, 3)
    searched(trainings, 5)
    assert len(trainings.trained) == 5


def test_damaged_results_are_trained_again(trainings):
    searched(trainings, 2)
    (trainings.folder / "trials.jsonl").write_text('{"training": ')
    searched(trainings, 2)
    assert len(trainings.trained) == 4


def test_trial_that_cannot_be_trained_is_told_and_the_search_goes_on(trainings, capsys):
    def diverges(count):
        if count == 2:
            trainings.trained.append(None)
            raise GraftError("The loss became nan.")

    trainings.before = diverges
    found = searched(trainings, 4)
    assert [row["error"] for row in found.rows] == [None, None, "The loss became nan.", None]
    assert found.best()["error"] is None
    assert "The loss became nan." in capsys.readouterr().out
    assert [json.loads(line) for line in (trainings.folder / "rows.jsonl").read_text().splitlines()] == found.rows


def test_what_is_wrong_with_more_than_the_settings_ends_the_search(trainings):
    def full(count):
        raise OSError(28, "No space left on device")

    trainings.before = full
    with pytest.raises(OSError, match="No space left"):
        searched(trainings, 4)


def test_recipe_that_is_there_or_cannot_be_written_is_refused_before_any_work(tmp_path):
    (tmp_path / "recipe.yaml").write_text("mine")
    for recipe, words in ((tmp_path / "recipe.yaml", "is there already"), (tmp_path / "no" / "r.yaml", "no folder")):
        with pytest.raises(UsageError, match=words):
            require_new(recipe)
    require_new(tmp_path / "new.yaml")


def test_warm_start_has_no_head_to_search(tmp_path):
    given = configuration.load(None, ["training.start_from=in_service"])
    with pytest.raises(UsageError, match=r"training\.start_from: backbone"):
        tune(given, [str(tmp_path)], tmp_path / "out", 2, tmp_path / "recipe.yaml")
