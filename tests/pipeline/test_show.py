"""`graft show`: what it says about a decision, and about runs without one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from components.errors import UsageError
from components.gate_wording import floor_out_of_reach
from pipeline.show import MOST_NAMED, find_run, show
from pipeline.summary import MAX_REFUSALS, print_refusal
from tests.conftest import ROOT

OVERALL = "overall"


def check(metric, where, value, bound, passed, **more) -> dict:
    return {"metric": metric, "slice": where, "value": value, "bound": bound, "passed": passed} | more


CHECKS = [
    check("test_examples", OVERALL, 500, 20, True),
    check("no_regression_accuracy", OVERALL, 0.84, 0.8712, False, baseline=0.9, relation=">=", p_value=0.001),
    check("recall", "cat", 0.91, 0.9, True, baseline=0.92, relation=">="),
    check("recall", "dog", 0.5, None, None, baseline=0.4),
    check("log_loss", OVERALL, 0.61, 0.5, False, baseline=0.4, relation="<="),
    check("serving_check_probabilities", OVERALL, 3e-7, 1e-5, True),
]


def written(folder: Path, **changes) -> Path:
    summary = {
        "run_id": "20260101-000000",
        "status": "refused",
        "error": None,
        "gate": {
            "blessed": False,
            "baseline_version": 7,
            "baseline_status": "compared",
            "baseline_reason": "compared with version 7 in service",
            "detectable_drop": 0.052,
            "checks": CHECKS,
        },
        "metrics": {"test": {"accuracy": 0.84, "examples": 500, "baseline_accuracy": 0.9}},
        "model": {"path": None},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_text(json.dumps(summary | changes))
    return folder


@pytest.fixture
def shown(tmp_path, capsys, monkeypatch):
    """The lines for a summary, at 80 columns and without a terminal."""
    monkeypatch.setenv("COLUMNS", "80")

    def lines(**changes) -> list[str]:
        show(written(tmp_path / "run", **changes), as_json=False)
        out = capsys.readouterr().out.splitlines()
        assert all(len(line) <= 80 for line in out)
        return [line.rstrip() for line in out]

    return lines


def with_checks(*checks) -> dict:
    return {"gate": {"checks": list(checks), "baseline_reason": "nothing is in service yet"}}


def test_table_has_failed_checks_first_then_passed_then_not_judged(shown):
    lines = shown()
    (head,) = (at for at, line in enumerate(lines) if line.startswith("metric"))
    assert lines[head].split() == ["metric", "slice", "candidate", "baseline", "bound", "verdict"]
    rows = [
        line.split() for line in lines[head + 1 : head + 7 + 1] if line.split()[-1] in ("refused", "passed", "judged")
    ]
    assert rows[0] == ["accuracy", "vs", "baseline", OVERALL, "0.84", "0.9", ">=", "0.8712", "refused"]
    assert rows[1] == ["log", "loss", OVERALL, "0.61", "0.4", "<=", "0.5", "refused"]
    assert [row[-1] for row in rows[2:]] == ["passed", "passed", "passed", "judged"]
    text = "\n".join(lines)
    assert "Baseline: compared with version 7 in service." in text
    assert "A drop in accuracy of 5.2 points or more" in text
    assert "Decision: refused by accuracy vs baseline (overall), log loss (overall)." in text


def test_metric_that_is_not_known_here_is_shown_all_the_same(shown):
    (row,) = (line for line in shown() if line.startswith("serving check"))
    assert row.split() == ["serving", "check", "probabilities", OVERALL, "3e-07", "-", "1e-05", "passed"]


def test_names_cannot_forge_output_or_markup(shown):
    lines = shown(**with_checks(check("recall", "[red]a\x1b[2J\nDecision: passed", 0.1, 0.5, False)))
    assert any("[red]a\\x1b[2J" in line for line in lines)
    assert not any("\x1b" in line or line.startswith("Decision: passed") for line in lines)


def test_what_was_not_judged_is_collapsed_when_there_is_much_of_it(shown):
    rare = [check("recall", f"rare{number}", 0.5, None, None) for number in range(40)]
    text = " ".join(shown(**with_checks(*CHECKS[:1], *rare)))
    assert "Not judged, for too few test images: recall of rare0, rare1" in text
    assert f"and {40 - MOST_NAMED} more" in text
    assert "rare39" not in text


def test_old_summary_is_shown_without_what_it_does_not_have(shown):
    old = [check("no_regression_p_value", "cat", 0.001, 0.05, False), check("accuracy", OVERALL, 0.9, 0.8, True)]
    lines = shown(gate={"blessed": False, "checks": old}, metrics={"test": {"accuracy": 0.9, "examples": 50}})
    assert any(line.split()[-5:] == ["cat", "0.001", "-", "0.05", "refused"] for line in lines)


def test_run_that_failed_before_the_gate_says_so_in_a_sentence(shown):
    gate = {"blessed": False, "checks": [], "baseline_version": None, "baseline_reason": None}
    lines = shown(status="failed", error="Train failed: ValueError: no", gate=gate, metrics={"test": None})
    assert lines[1:] == [
        "It failed: Train failed: ValueError: no",
        "It ended before the gate: there is no decision to explain.",
    ]


def test_summary_without_a_gate_is_no_crash(shown):
    assert "no decision to explain" in shown(gate=None)[-1]


def test_output_folder_means_its_newest_run(tmp_path):
    for name in ("20260101-000000", "20260201-000000"):
        written(tmp_path / "runs" / name)
    (tmp_path / "runs" / "latest").symlink_to("20260101-000000")
    (tmp_path / "runs" / "ticks.jsonl").touch()
    assert find_run(tmp_path).name == "20260201-000000"
    assert find_run(tmp_path / "runs" / "latest") == tmp_path / "runs" / "latest"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([], "There is no run in"),
        (["log.txt"], "still running, or was killed"),
        (["summary.json"], "cannot be read as a summary"),
        (["runs/ticks.jsonl"], "Nothing was run yet"),
    ],
)
def test_what_is_no_run_is_one_sentence(tmp_path, files, words):
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    with pytest.raises(UsageError, match=words):
        find_run(tmp_path)


def test_command_answers_without_tensorflow_and_as_json_in_full(tmp_path):
    written(tmp_path)
    script = """
import sys
class Light:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tensorflow", "tfx", "apache_beam", "keras", "scipy", "numpy"):
            raise ImportError(name + " must not be needed")
sys.meta_path.insert(0, Light())
sys.argv = ["graft", "show", sys.argv[1], "--json"]
from pipeline.cli import main
main()
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["gate"]["checks"] == CHECKS
    assert (answer["run_id"], answer["status"], answer["test"]["accuracy"]) == ("20260101-000000", "refused", 0.84)


# ---- the end of `graft run` -----------------------------------------------------------------------------------------


def test_refusal_names_metric_slice_value_bound_and_what_is_in_service_and_stays_short(capsys):
    from pipeline.console import Steps

    many = [check("recall", f"c{number}\n", 0.1, 0.5, False) for number in range(MAX_REFUSALS + 5)]
    print_refusal({"gate": {"checks": [*CHECKS, *many]}}, Steps())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "  refused by no_regression_accuracy (overall): 0.84 against 0.8712; in service 0.9"
    assert lines[2] == "  refused by recall (c0\\n): 0.1 against 0.5"
    assert lines[-1] == "  and by 7 more checks"
    assert len(lines) == MAX_REFUSALS + 1


def floor(count: int, share: float) -> list[dict]:
    return [
        check("test_examples", "overall", count, 20, True),
        check("accuracy_lower_bound", "overall", 0.9, share, False),
    ]


def test_floor_that_no_model_could_exceed_says_so_and_what_to_do():
    hint = floor_out_of_reach(floor(50, 0.95))
    assert "95% of the 50 test images" in hint and "52 at the least" in hint and "default_rules" in hint
    assert floor_out_of_reach(floor(52, 0.95)) is None
    assert "at the least" not in floor_out_of_reach(floor(1000, 1.0))
    assert floor_out_of_reach([]) is None


@pytest.mark.parametrize(("count", "share"), [(51, 0.95), (52, 0.95), (259, 0.99), (270, 0.99)])
def test_floor_is_out_of_reach_exactly_where_a_perfect_model_is_refused(count, share):
    from components.gate_statistics import wilson_lower_bound

    assert (floor_out_of_reach(floor(count, share)) is not None) == (wilson_lower_bound(count, count) <= share)
