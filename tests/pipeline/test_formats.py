"""The formats that a configuration asks for: refused before any compute, and told in the step's line."""

import json
import sys
from types import SimpleNamespace

import pytest

from components.errors import UsageError
from pipeline import check, local, summary
from pipeline.config import load


def test_formats_are_a_list_of_known_names_each_once():
    assert load(None, []).push.formats == ["keras"]
    assert load(None, ["push.formats=[]"]).push.formats == []
    assert load(None, ["push.formats=[onnx, tflite, onnx]"]).push.formats == ["onnx", "tflite"]
    with pytest.raises(UsageError, match=r"push\.formats\.0: there is no 'tflit'; did you mean tflite\?"):
        load(None, ["push.formats=[tflit]"])


def test_run_and_check_refuse_onnx_without_its_packages_before_they_look_at_anything(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    config = load(None, ["push.formats=[keras, onnx]"])
    for refused in (
        lambda: local.run(config, [str(tmp_path / "images")], tmp_path / "out"),
        lambda: check.check(config, [str(tmp_path / "images")]),
    ):
        with pytest.raises(UsageError, match=r"onnx needs onnxruntime.*graft-pipeline\[onnx\]"):
            refused()
    assert not (tmp_path / "out").exists()


def test_line_of_the_step_says_what_each_format_loses(tmp_path):
    passed = {"accuracy_difference": -0.0041, "examples": 97, "bytes": 612_000, "passed": True}
    formats = {"tflite_int8": passed, "tflite": passed | {"passed": False}, "onnx": {"error": "KeyError: 'x'"}}
    outputs = {"formats": SimpleNamespace(uri=str(tmp_path))}
    (tmp_path / "formats.json").write_text(json.dumps({"blessed": True, "formats": formats}))
    assert summary.note("ModelFormats", outputs).split("; ") == [
        "tflite_int8: accuracy -0.004, 0.6 MB",
        "tflite: accuracy -0.004, 0.6 MB (fails its check)",
        "onnx: KeyError: 'x'",
    ]
    (tmp_path / "formats.json").write_text(json.dumps({"blessed": False, "formats": {}}))
    assert "refused" in summary.note("ModelFormats", outputs)
