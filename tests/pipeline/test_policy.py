"""When a tick trains: decisions on what is known, and on output folders made by hand."""

import dataclasses
import json
import shutil
import subprocess
import sys
import time

import pytest

from components import model_card
from components.image_files import Digest
from components.publishing import publish
from components.sources import Sources
from pipeline import config as configuration
from pipeline.inputs import Inputs, Started, read_started
from pipeline.local import MARK_FILE, _inputs, _looked_at, _mark, _Memory, _Run, _situation
from pipeline.output import write_json
from pipeline.rollback import rollback
from pipeline.schedule.attempt import _of_summary
from pipeline.schedule.places import Places
from pipeline.schedule.policy import DAY, Decision, Last, Situation, decide, of_drift
from tests.conftest import ROOT

TINY = ["model.backbone=graft_tiny", "model.weights=bundled"]
NOW = 1_800_000_000.0
YESTERDAY = "20270114-080000"
BEFORE = Inputs(
    ["/w/1"], "d1", {"training": {"seed": 1}}, "c", files=40, classes=["a", "b"], spans=[("/w/{SPAN}", [1])]
)


def policy(**values) -> configuration.ScheduleConfig:
    return configuration.ScheduleConfig(**values)


def situation(today: Inputs = BEFORE, last: dict | None = None, **values) -> Situation:
    """Today after a run that read `BEFORE`."""
    same = {"same_inputs": today.fingerprint == BEFORE.fingerprint, "inputs": BEFORE}
    ended = Last(**{"run_id": YESTERDAY} | same | (last or {}))
    return Situation(**{"today": today, "now": NOW, "last": ended, "in_service": int(NOW - DAY)} | values)


def new(**values) -> Inputs:
    return dataclasses.replace(BEFORE, **values)


MORE = new(digest="d2", files=160)
SPAN = new(digest="d2", places=["/w/2"], spans=[("/w/{SPAN}", [2])])
OTHER_SPAN_GONE = new(digest="d0", places=["/w/0"], spans=[("/w/{SPAN}", [0])])


# ---- triggers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train_on", "today", "why"),
    [
        ("new_data", MORE, "new data: 120 files more"),
        ("new_data", new(digest="d2", files=39), "new data: 1 file fewer"),
        ("new_data", new(digest="d2"), "new data: other contents"),
        ("new_data", new(digest="d2", classes=["b", "c\n"]), r"new data: new class c\n, without class a"),
        ("new_data", new(places=["/elsewhere"]), "new data: other sources"),
        ("new_span", SPAN, "span 2"),
        ("new_configuration", new(configuration={"training": {"seed": 2}}), "new configuration: training.seed"),
        ("new_configuration", new(code="d", packages=["onnx"]), "new code, new packages"),
        ("new_configuration", new(weights="w"), "new weights"),
    ],
)
def test_trains_for_what_is_asked_for_and_says_what_it_is(train_on, today, why):
    assert decide(policy(train_on=[train_on]), situation(today)) == Decision(True, why)
    others = {"new_data", "new_span", "new_configuration"} - {train_on}
    if train_on != "new_span":  # It brings new data.
        found = decide(policy(train_on=sorted(others)), situation(today))
        assert found == Decision(False, f"nothing to train for ({why})")


def test_any_of_several_triggers_is_enough_and_all_that_hold_are_named():
    both = policy(train_on=["new_span", "new_data"])
    assert decide(both, situation(SPAN)).why == "span 2; new data: other contents"
    assert decide(both, situation(MORE)).why == "new data: 120 files more"


def test_older_or_same_span_is_no_new_one():
    assert not decide(policy(train_on=["new_span"]), situation(OTHER_SPAN_GONE)).train
    assert not decide(policy(train_on=["new_span"]), situation(MORE)).train


def test_nothing_new_is_nothing_to_train_for():
    assert decide(policy(), situation()) == Decision(False, "nothing new")


def test_edited_schema_counts_as_configuration():
    at = situation(last={"same_schema": False})
    assert decide(policy(), at) == Decision(True, "schema/ was changed")
    assert not decide(policy(train_on=["new_data"]), at).train


@pytest.mark.parametrize("train_on", ["new_data", "new_span", "new_configuration"])
def test_run_of_an_earlier_release_counts_as_new_in_everything_that_it_did_not_note(train_on):
    at = situation(MORE, last={"inputs": None})
    assert "did not note what it read" in decide(policy(train_on=[train_on]), at).why
    assert decide(policy(train_on=[train_on]), situation(last={"inputs": None})) == Decision(False, "nothing new")


@pytest.mark.parametrize(
    ("at", "why"),
    [
        (Situation(BEFORE, NOW), "no run has finished here yet"),
        (situation(last={"noted": False}), f"what run {YESTERDAY} had read was not noted"),
        (situation(MORE, in_service=None), "nothing is in service"),
        (situation(last={"same_service": False}), f"what is in service is not what run {YESTERDAY} left there"),
    ],
)
def test_what_must_be_made_or_judged_anew_is_so_whatever_the_policy(at, why):
    assert decide(policy(train_on=["drift"]), at) == Decision(True, why)


def test_refused_first_model_is_not_trained_again_though_nothing_is_in_service():
    assert decide(policy(), situation(in_service=None)) == Decision(False, "nothing new")


# ---- a run that did not finish --------------------------------------------------------------------------------------


def test_run_that_did_not_finish_is_made_again_as_it_was_begun():
    started = Started(MORE, "model in service is 31 days old", "20270115-000000")
    found = decide(policy(train_on=["drift"]), situation(MORE, unfinished=("20270115-000000", started)))
    why = "run 20270115-000000 did not finish (model in service is 31 days old)"
    assert found == Decision(True, why, resumes=started)


def test_run_that_did_not_finish_is_forgotten_when_its_images_are():
    assert not decide(policy(), situation(unfinished=("20270115-000000", Started(MORE)))).train


# ---- always, and age ------------------------------------------------------------------------------------------------


def test_always_trains_afresh_where_nothing_is_new_and_for_what_is_new_otherwise():
    always = policy(train_on=["always", "new_data"])
    assert decide(always, situation()) == Decision(True, "schedule.train_on has always", afresh=True)
    assert decide(always, situation(MORE)) == Decision(True, "new data: 120 files more")


def test_model_over_its_age_is_trained_afresh_and_a_younger_one_is_not():
    month = policy(max_age_days=30)
    old = {"in_service": int(NOW - 31.5 * DAY), "last": {"run_id": "20261201-000000"}}
    assert decide(month, situation(**old)) == Decision(True, "model in service is 31 days old", afresh=True)
    assert not decide(policy(), situation(**old)).train
    assert not decide(month, situation(in_service=int(NOW - 29 * DAY), last={"run_id": "20261201-000000"})).train


def test_model_that_was_refused_for_its_age_is_not_trained_again_and_again_but_for_something_new():
    month = policy(train_on=["new_span"], max_age_days=30)
    old = {"in_service": int(NOW - 100 * DAY)}
    assert not decide(month, situation(**old)).train
    assert decide(month, situation(MORE, **old)).train


def test_clock_that_was_set_back_makes_no_model_old():
    assert not decide(policy(max_age_days=1), situation(in_service=int(NOW + 100 * DAY))).train


# ---- drift ----------------------------------------------------------------------------------------------------------

DRIFT = policy(train_on=["drift"])


def test_statistics_are_asked_only_for_images_that_no_finished_run_has_read():
    assert decide(DRIFT, situation(MORE)) == Decision(None, "new data: 120 files more")
    assert decide(DRIFT, situation()).train is False
    assert decide(DRIFT, situation(new(code="d"))).train is False
    assert decide(policy(train_on=["drift", "new_data"]), situation(MORE)).train is True


def test_verdict_on_the_same_images_is_remembered():
    assert decide(DRIFT, situation(MORE, no_drift=True)) == Decision(False, "no drift (new data: 120 files more)")


def test_another_set_of_classes_is_drift_without_any_statistics():
    at = situation(new(digest="d2", classes=["a", "c"]), classes=["a", "b"])
    found = decide(DRIFT, at)
    assert found == Decision(True, "drift: new class c, without class b", drift=("image/class/text",))


def test_unknown_images_of_the_model_in_service_mean_training():
    found = decide(DRIFT, situation(MORE, images_known=False))
    assert found.train and "cannot be seen" in found.why


def test_distance_over_its_threshold_is_drift_and_named_with_both_numbers():
    asked = decide(DRIFT, situation(MORE))
    rows = [{"feature": "image/width", "value": 0.312, "threshold": 0.15, "measure": ""}]
    rows += [{"feature": "image/height", "value": 0.15, "threshold": 0.15, "measure": ""}]
    found = of_drift(rows, asked)
    assert found == Decision(True, "drift in image/width, 0.31 over 0.15", drift=("image/width",))
    assert of_drift(rows[1:], asked) == Decision(False, "no drift (new data: 120 files more)")


# ---- from what lies in an output folder -----------------------------------------------------------------------------


class Life:
    """An output folder, and configuration and images that may change."""

    def __init__(self, output, model):
        self.output, self.model, self.digest = output, model, "d1"
        self.config = configuration.load(None, TINY)

    @property
    def inputs(self) -> Inputs:
        return _inputs(self.config, Sources(["/images"]), Digest(self.digest, frozenset(), 4, 9, ("a", "b")))

    def finished(self, run_id: str, status: str) -> None:
        """What a run leaves that ends so."""
        folder = self.output.runs / run_id
        folder.mkdir()
        if status == "published":
            card = dict.fromkeys(model_card.FIELDS) | {"classes": ["a", "b"]}
            place = publish(
                self.model, self.output.serving, 5, {model_card.CARD_FILE: lambda n: model_card.dump(card, n)}
            )
            statistics = self.output.schema / "published_statistics" / f"{place.name}.pb"
            statistics.parent.mkdir(exist_ok=True)
            statistics.touch()
        write_json(folder / "summary.json", {"status": status, "run_id": run_id})
        Started(self.inputs).write(folder)
        if status != "failed":
            (folder / MARK_FILE).write_text(_mark(self.output, self.inputs.fingerprint, None, status == "published"))

    def decide(self, **values) -> Decision:
        chosen = policy(**values)
        return decide(chosen, _situation(self.config, self.output, self.inputs, chosen))


@pytest.fixture
def life(output, model):
    return Life(output, model)


def test_finished_run_stands_until_images_or_settings_change(life):
    assert life.decide().why == "no run has finished here yet"
    life.finished("20260101-000000", "published")
    assert life.decide() == Decision(False, "nothing new")
    life.config = configuration.load(None, [*TINY, "training.seed=2"])
    assert life.decide().why == "new configuration: training.seed"


def test_schedule_and_runner_are_no_new_configuration(life):
    life.finished("20260101-000000", "published")
    life.config = configuration.load(
        None,
        [*TINY, "schedule.retries=5", "runner.beam=processes"],
    )
    assert life.decide() == Decision(False, "nothing new")


def test_run_that_failed_is_made_again(life):
    life.finished("20260101-000000", "published")
    life.digest = "d2"
    life.finished("20260102-000000", "failed")
    assert life.decide(train_on=["new_span"]).why == "run 20260102-000000 did not finish"
    life.digest = "d1"
    assert life.decide(train_on=["new_span"]) == Decision(False, "nothing new")


def test_splits_that_ingestion_added_for_a_look_or_a_run_that_failed_are_no_reason_to_train(life):
    splits = life.output.schema / "splits.jsonl"

    def ingested(run_id: str, text: str) -> None:
        memory = _Memory(life.output, life.digest, run_id)
        splits.write_text(text)
        memory.keep()

    ingested("20260101-000000", "1\n")
    life.finished("20260101-000000", "published")
    life.digest = "d2"
    ingested("20260102-000000", "1\n2\n")
    ingested("20260103-000000", "1\n2\n3\n")
    life.digest = "d1"
    assert life.decide() == Decision(False, "nothing new")
    splits.write_text("1\n3\n")
    assert life.decide().why == "schema/ was changed"
    # What came after it does not hide it.
    life.digest = "d2"
    ingested("20260104-000000", "1\n3\n4\n")
    life.digest = "d1"
    assert life.decide().why == "schema/ was changed"


def test_failed_first_run_is_made_again(life):
    life.finished("20260101-000000", "failed")
    assert life.decide(train_on=["new_span"]).train


def test_rollback_holds_after_a_publication_and_means_another_comparison_after_a_refusal(life, capsys):
    life.finished("20260101-000000", "published")
    life.finished("20260102-000000", "published")
    second = max(int(path.name) for path in life.output.serving.glob("[0-9]*"))
    rollback(str(life.output.serving), None)
    assert life.decide() == Decision(False, "nothing new")
    life.digest = "d2"
    life.finished("20260103-000000", "refused")
    assert life.decide() == Decision(False, "nothing new")
    rollback(str(life.output.serving), second)
    assert life.decide().why == "what is in service is not what run 20260103-000000 left there"


def test_model_that_was_taken_out_of_service_is_made_again(life):
    life.finished("20260101-000000", "published")
    shutil.rmtree(life.output.serving)
    assert life.decide(train_on=["new_span"]).why == "nothing is in service"


def test_age_is_that_of_the_model_and_not_of_the_rollback_to_it(life, monkeypatch, capsys):
    monkeypatch.setattr(time, "time", lambda: NOW - 40 * DAY)
    life.finished("20261206-000000", "published")
    monkeypatch.setattr(time, "time", lambda: NOW - 39 * DAY)
    life.finished("20261207-000000", "published")
    monkeypatch.setattr(time, "time", lambda: NOW)
    rollback(str(life.output.serving), None)
    assert life.decide(max_age_days=30).why == "model in service is 40 days old"
    assert not life.decide(max_age_days=45).train


def test_verdict_of_no_drift_is_for_those_images_and_that_model(life):
    life.finished("20260101-000000", "published")
    life.digest = "d2"
    assert life.decide(train_on=["drift"]).train is None
    Places(life.output).prepare()
    (version,) = (int(path.name) for path in life.output.serving.glob("[0-9]*"))
    write_json(Places(life.output).looked, _looked_at(life.inputs, version))
    assert life.decide(train_on=["drift"]).train is False
    life.digest = "d3"
    assert life.decide(train_on=["drift"]).train is None
    (life.output.schema / "published_statistics" / f"{version}.pb").unlink()
    assert life.decide(train_on=["drift"]).train is True


def test_what_a_run_noted_is_read_as_it_was_and_a_damaged_note_counts_as_none(tmp_path):
    started = Started(SPAN, "span 2", "20270115-000000")
    started.write(tmp_path)
    assert read_started(tmp_path) == started
    (tmp_path / "inputs.json").write_text('{"inputs": {}}')
    assert read_started(tmp_path) is None


def test_s2_decision_needs_neither_tfx_nor_tensorflow():
    script = "import sys, pipeline.local; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", f"import json; {script}"], cwd=ROOT, capture_output=True, text=True)
    assert not {"tfx", "tensorflow", "ml_metadata", "apache_beam", "keras"} & set(json.loads(done.stdout))


# ---- what the run that trains does ----------------------------------------------------------------------------------


@pytest.fixture
def begun(life):
    """A run that notes why it began."""

    def begin(decision: Decision) -> tuple[str, Started, str | None]:
        folder = life.output.runs / f"2026010{len(list(life.output.runs.glob('2*'))) + 1}-000000"
        folder.mkdir()
        digest = Digest(life.digest, frozenset())
        run = _Run(life.config, Sources(["/images"]), digest, life.output, folder, NOW)
        run.decision, run.started = decision, Started(life.inputs)
        run._note_started()
        return folder.name, read_started(folder), run.notes.reason

    return begin


def test_training_afresh_is_named_after_the_run_that_began_it_and_keeps_the_name_when_it_goes_on(begun):
    first, started, reason = begun(Decision(True, "model in service is 31 days old", afresh=True))
    assert (started.afresh, reason) == (first, "model in service is 31 days old")
    why = f"run {first} did not finish ({reason})"
    second, again, reason = begun(Decision(True, why, resumes=started))
    assert second != first and (again.afresh, reason) == (first, why)
    # However often it is killed, it says what it was begun for.
    assert again.reason == "model in service is 31 days old"
    assert begun(Decision(True, "new data: 1 file more"))[1].afresh is None


def test_statistics_that_show_drift_make_it_a_run_and_others_leave_nothing(life, tmp_path):
    life.finished("20260101-000000", "published")
    life.digest = "d2"
    folder = life.output.new_run()
    run = _Run(life.config, Sources(["/images"]), Digest("d2", frozenset()), life.output, folder, NOW)
    run.decision, run.started = life.decide(train_on=["drift"]), Started(life.inputs)
    row = {"feature": "image/width", "value": 0.1, "threshold": 0.15, "measure": ""}
    write_json(tmp_path / "drift.json", [row])
    run._decide(tmp_path)
    assert run.decision.train is False and read_started(folder) is None
    run._forget()
    assert not folder.exists()
    assert life.decide(train_on=["drift"]) == Decision(False, "no drift (new data: other contents)")
    folder.mkdir()
    run.decision = Decision(None, "new data: other contents")
    write_json(tmp_path / "drift.json", [row | {"value": 0.2}])
    run._decide(tmp_path)
    assert run.decision.train and read_started(folder).reason == "drift in image/width, 0.20 over 0.15"


def test_answer_of_an_attempt_says_why_and_in_what_the_images_differ():
    summary = {"status": "published", "exit_code": 0, "run_id": "r", "reason": "span 14", "drift": ["image/width"]}
    said = _of_summary(summary | {"model": {"path": "/serving/7"}})
    assert (said.why, said.drift, said.version) == ("span 14", ("image/width",), "7")
