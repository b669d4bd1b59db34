"""The last step, as a cluster runs it: no notes of a runner, no folder of a run."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from tfx.dsl.components.base.base_executor import BaseExecutor
from tfx.types import standard_artifacts

from components import run_summary
from components.gate import GateRules
from components.report import component
from components.run_summary import About
from tests.components.finished import NAMES, whole_run

RUN_ID = "run-on-a-cluster"
CONFIGURATION = {"model": {"backbone": "graft_tiny"}, "evaluation": asdict(GateRules(min_class_recall=0.5))}


@pytest.fixture
def inputs(tmp_path) -> dict:
    """The step's input artifacts."""
    left = whole_run(tmp_path)
    found = {}
    for field, (_, key) in run_summary.OUTPUTS.items():
        artifact = component.ReportSpec.INPUTS[key].type()
        artifact.uri = str(getattr(left, field))
        found[key] = [artifact]
    pushed = found["pushed_model"][0]
    assert isinstance(pushed, standard_artifacts.PushedModel)
    pushed.set_string_custom_property("pushed_destination", left.published)
    return found


def execute(inputs: dict, folder: Path) -> dict:
    """Runs the step; what it says happened."""
    artifact = component.RunReport()
    artifact.uri = str(folder)
    folder.mkdir()
    context = BaseExecutor.Context(tmp_dir=str(folder / "tmp"), unique_id="1", pipeline_run_id=RUN_ID)
    about = About(images=["gs://bucket/images"], digest="d", configuration=CONFIGURATION)
    properties = {"about": json.dumps(asdict(about)), "notes": ""}
    component.Executor(context).Do(inputs, {"report": [artifact]}, properties)
    return json.loads((folder / "summary.json").read_text())


def test_report_and_summary_lie_in_the_artifact(inputs, tmp_path):
    summary = execute(inputs, tmp_path / "report")
    assert (summary["run_id"], summary["status"], summary["images"]) == (RUN_ID, "published", ["gs://bucket/images"])
    assert (summary["started"], summary["seconds"], summary["timings"]) == (None, None, {})
    assert set(summary["data"]["classes"]) == set(NAMES)
    assert summary["model"]["path"] == str(tmp_path / "serving" / "17")
    text = (tmp_path / "report" / "report.html").read_text()
    assert RUN_ID in text
    assert NAMES[0] not in text, "names are escaped"


def test_what_the_steps_warned_of_is_told_although_nobody_listened_to_them(inputs, tmp_path):
    training = {"frozen": {"history": {"loss": [1.0]}}, "fine_tune": {"history": {"loss": [1.0]}, "kept": False}}
    Path(inputs["model_run"][0].uri, "training.json").write_text(json.dumps(training))
    anomaly, undone = execute(inputs, tmp_path / "report")["warnings"]
    assert anomaly == "The images are unlike earlier ones in image/height: too far"
    assert undone.startswith("Fine-tuning made the eval split no better")


def test_publication_stands_although_its_report_cannot_be_drawn(inputs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("components.report.write.render", lambda facts: 1 / 0)
    assert execute(inputs, tmp_path / "report")["status"] == "published"
    assert not (tmp_path / "report" / "report.html").exists()
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_publication_stands_although_what_a_step_left_cannot_be_read(inputs, tmp_path, capsys):
    Path(inputs["model_run"][0].uri, "training.json").write_text("{")
    with pytest.raises(FileNotFoundError, match=r"summary\.json"):
        execute(inputs, tmp_path / "report")
    assert "JSONDecodeError" in capsys.readouterr().err
