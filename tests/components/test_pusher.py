"""The Pusher's executor: what goes into a version, and what keeps it from going out."""

import json

import pytest
from tfx.dsl.components.base import base_executor
from tfx.proto import pusher_pb2
from tfx.types import standard_artifacts
from tfx.utils import json_utils, proto_utils

from components.errors import GraftError
from components.formats import FormatFiles
from components.ingestion import ImageCatalog
from components.publishing import newest, rollback, versions
from components.pusher import Executor


def artifact(kind, folder, files=()):
    made = kind()
    made.uri = str(folder)
    folder.mkdir(parents=True)
    for name, content in dict(files).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return made


class Push:
    """The inputs of one execution; `go` executes."""

    def __init__(self, folder, serving, in_service=None, weights="weights", blessed=True):
        self.serving, self.folder, self.tries = serving, folder, 0
        decision = {"blessed": True, "metrics": {"accuracy": 0.9}, "in_service_version": in_service}
        blessing = artifact(standard_artifacts.ModelBlessing, folder / "blessing")
        blessing.set_int_custom_property("blessed", int(blessed))
        files = {"Format-Serving/saved_model.pb": weights, "Format-Serving/assets/labels.txt": "cat\n"}
        self.inputs = {
            "model": [artifact(standard_artifacts.Model, folder / "model", files)],
            "model_blessing": [blessing],
            "evaluation": [artifact(standard_artifacts.ModelEvaluation, folder / "e", {"decision.json": decision})],
            "model_run": [
                artifact(standard_artifacts.ModelRun, folder / "run", {"training.json": {"classes": ["cat"]}})
            ],
            "catalog": [artifact(ImageCatalog, folder / "catalog", {"catalog.json": {"images": 3}})],
        }

    def go(self):
        self.tries += 1
        pushed = artifact(standard_artifacts.PushedModel, self.folder / f"pushed {self.tries}")
        place = pusher_pb2.PushDestination.Filesystem(base_directory=str(self.serving))
        properties = {
            "push_destination": proto_utils.proto_to_json(pusher_pb2.PushDestination(filesystem=place)),
            "custom_config": json_utils.dumps({"keep": 5, "about": {"name": "pets", "digest": "d1"}}),
        }
        context = base_executor.BaseExecutor.Context(pipeline_run_id=f"run {self.folder.name}")
        Executor(context).Do(self.inputs, {"pushed_model": [pushed]}, properties)
        return {name: pushed.get_custom_property(name) for name in ("pushed", "pushed_version", "refusal")}


@pytest.fixture
def serving(tmp_path):
    return tmp_path / "serving"


def card_of(version) -> dict:
    return json.loads((version / "model_card.json").read_text())


def test_version_holds_the_model_its_card_and_the_other_formats(tmp_path, serving):
    push = Push(tmp_path / "1", serving)
    checked = artifact(
        standard_artifacts.InfraBlessing, tmp_path / "check", {"serving_check.json": {"latency_ms": 3}, "log": "x"}
    )
    checked.set_int_custom_property("blessed", 1)
    rows = {"tflite": {"file": "model.tflite", "passed": True}, "onnx": {"file": "model.onnx", "passed": False}}
    formats = {"model.tflite": "tflite", "formats.json": {"blessed": True, "formats": rows}}
    push.inputs |= {
        "infra_blessing": [checked],
        "formats": [artifact(FormatFiles, tmp_path / "formats", formats)],
    }
    pushed = push.go()
    version = newest(serving)
    assert (pushed["pushed"], pushed["pushed_version"]) == (1, version.name)
    assert {str(path.relative_to(version)) for path in version.rglob("*") if path.is_file()} == {
        "saved_model.pb",
        "assets/labels.txt",
        "model.tflite",
        "model_card.json",
        "checksums.sha256",
    }
    card = card_of(version)
    assert card["version"] == int(version.name)
    assert (card["name"], card["run_id"], card["data"]["digest"], card["data"]["images"]) == ("pets", "run 1", "d1", 3)
    assert (card["classes"], card["metrics"], card["serving_check"]) == (
        ["cat"],
        {"accuracy": 0.9},
        {"latency_ms": 3},
    )
    assert card["formats"] == rows
    assert card["versions"]["keras"]


@pytest.mark.parametrize("by", ["gate", "serving check"])
def test_model_that_is_not_blessed_is_not_pushed(tmp_path, serving, by):
    push = Push(tmp_path / "1", serving, blessed=by != "gate")
    if by == "serving check":
        refused = artifact(standard_artifacts.InfraBlessing, tmp_path / "check")
        refused.set_int_custom_property("blessed", 0)
        push.inputs["infra_blessing"] = [refused]
    assert push.go()["pushed"] == 0
    assert versions(serving) == []


def test_model_that_was_compared_with_another_than_the_one_in_service_is_not_pushed(tmp_path, serving):
    Push(tmp_path / "1", serving).go()
    with pytest.raises(GraftError, match=r"changed from nothing to version .* run again"):
        Push(tmp_path / "2", serving, in_service=None).go()
    assert len(versions(serving)) == 1


def test_step_that_was_killed_after_it_published_publishes_nothing_more(tmp_path, serving):
    push = Push(tmp_path / "1", serving)
    assert push.go() == push.go()
    assert len(versions(serving)) == 1


def test_another_run_of_the_same_id_has_not_published_what_this_one_did(tmp_path, serving):
    """Two output folders with one destination, whose runs began in the same second."""
    Push(tmp_path / "a" / "1", serving, weights="of a").go()
    with pytest.raises(GraftError, match=r"changed from nothing to version .* run again"):
        Push(tmp_path / "b" / "1", serving, weights="of b").go()
    assert len(versions(serving)) == 1


def test_model_that_was_rolled_back_from_is_not_pushed_again_for_changed_code_or_settings(tmp_path, serving):
    first = Push(tmp_path / "1", serving, weights="good").go()["pushed_version"]
    bad = Push(tmp_path / "2", serving, in_service=int(first), weights="bad").go()["pushed_version"]
    done = rollback(serving)
    pushed = Push(tmp_path / "3", serving, in_service=done.version, weights="bad").go()
    assert pushed["pushed"] == 0
    assert f"version {bad}, which was rolled back from" in pushed["refusal"]
    assert pushed["refusal"].endswith(f"graft rollback {serving} --to {bad}")
    assert versions(serving)[-1] == done.version
    assert Push(tmp_path / "4", serving, in_service=done.version, weights="better").go()["pushed"] == 1
