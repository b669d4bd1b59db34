"""Two runs side by side: what differs in configuration, data, code, metrics and decision."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.data_report import IMAGES_FILE
from components.errors import UsageError
from components.files import read_json_lines
from components.gate_wording import failed_names
from components.prediction_lines import CANDIDATE, read_predictions
from components.run_summary import About
from components.steps import STEPS
from pipeline import lineage
from pipeline.again import about, with_summary
from pipeline.run_folder import Run, find_folder, read_run
from pipeline.settings import differences

# What reading a file that is gone or damaged raises.
DAMAGED = (OSError, ValueError, LookupError, TypeError)
METRICS = ("accuracy", "loss", "calibration_error", "examples")


@dataclass
class Side:
    """One of the two runs.

    Attributes:
      run: what lies in its folder.
      steps: its executions by component; empty where ML Metadata cannot be asked.
      about: what ML Metadata was told of it: for summaries of earlier releases, which say less.
      problems: sentences about what could not be read.
    """

    run: Run
    steps: dict[str, lineage.Execution] = field(default_factory=dict)
    about: About = field(default_factory=About)
    problems: list[str] = field(default_factory=list)

    def known(self, name: str) -> Any:
        """A field of `About`, from the summary if it says it."""
        keys = {"digest": ("data", "digest")}.get(name, (name,))
        return self.run.part(*keys) or getattr(self.about, name) or None

    @property
    def test(self) -> dict[str, Any]:
        return self.run.part("metrics", "test") or {}

    def artifact(self, component: str, key: str) -> Path | None:
        """The folder of what a component left; None where it is gone."""
        return lineage.folder_of(self.steps, component, key, self.run.output.artifacts)

    def images(self) -> dict[str, dict[str, str]] | None:
        """The images of the data set by SHA-256; None where the list is gone or damaged, or was never written."""
        catalog = self.artifact("ImageExampleGen", "catalog")
        try:
            return {row["sha256"]: row for row in read_json_lines(catalog / IMAGES_FILE)} if catalog else None
        except DAMAGED:
            return None

    def answers(self) -> dict[str, tuple[str, str]] | None:
        """(true class, predicted class) of each test image by SHA-256; None where the answers are gone or damaged."""
        evaluation = self.artifact("GatedEvaluator", "evaluation")
        names = list(self.test.get("per_class") or {})
        try:
            rows = read_predictions(evaluation) if evaluation else []
            return {row["key"]: (names[row["label"]], names[row[CANDIDATE]["id"]]) for row in rows} or None
        except DAMAGED:
            return None


def read_side(given: Path) -> Side:
    """One of two runs.

    Args:
      given: as `find_folder` takes it.

    Raises:
      UsageError: there is no such run.
    """
    side = Side(read_run(find_folder(given)))
    try:
        with lineage.of(side.run.output) as history:
            side.steps = history.run(side.run.run_id)
    except UsageError as error:
        side.problems.append(str(error))
    side.about, side.run = about(side.steps), with_summary(side.run, side.steps)
    return side


def compare(a: Side, b: Side) -> dict[str, Any]:
    """Everything that differs between two runs, as `graft diff --json` prints it. Pairs are of `a`, then `b`."""
    return {
        "runs": [_run(side) for side in (a, b)],
        "configuration": _configuration(a.known("configuration"), b.known("configuration")),
        "data": _data(a, b),
        "code": {
            "digest": [a.known("code"), b.known("code")],
            "steps": _steps(a, b),
            "libraries": _libraries(a.run.part("versions"), b.run.part("versions")),
        },
        "metrics": {name: [side.test.get(name) for side in (a, b)] for name in METRICS},
        "test_images": _test_images(a.answers(), b.answers()),
        "per_class": _per_class(a.test.get("per_class") or {}, b.test.get("per_class") or {}),
        "gate": [_gate(side.run) for side in (a, b)],
        "problems": list(dict.fromkeys([*a.problems, *b.problems])),
    }


def _run(side: Side) -> dict[str, Any]:
    run = side.run
    return {
        "run_id": run.run_id,
        "folder": str(run.folder),
        "status": run.state,
        "step": run.step,
        "seconds": run.part("seconds"),
        "version": run.version,
        "cached": run.part("cached"),
        "error": run.part("error"),
    }


def _configuration(a: dict[str, Any] | None, b: dict[str, Any] | None) -> dict[str, list[Any]] | None:
    """None where it is not known of both; of a run that was killed, ML Metadata knows some sections only."""
    sections = (a or {}).keys() & (b or {}).keys()
    if not sections:
        return None
    return differences(*({name: side[name] for name in sections} for side in (a, b)))


def _libraries(a: dict[str, str] | None, b: dict[str, str] | None) -> dict[str, list[Any]]:
    return differences(a, b) if a and b else {}


def _steps(a: Side, b: Side) -> dict[str, list[str]]:
    """Digests of the code of those components that ran other code."""
    digests = {name: [side.steps[name].code if name in side.steps else None for side in (a, b)] for name in STEPS}
    return {name: both for name, both in digests.items() if None not in both and both[0] != both[1]}


# ---- data -----------------------------------------------------------------------------------------------------------


def _data(a: Side, b: Side) -> dict[str, Any]:
    counts = [side.run.part("data", "classes") or {} for side in (a, b)]
    known = all(counts)
    return {
        "sources": [a.known("images"), b.known("images")],
        "digest": [a.known("digest"), b.known("digest")],
        "images": [side.run.part("data", "images") for side in (a, b)],
        "quarantined": [side.run.part("data", "quarantined") for side in (a, b)],
        "classes": {
            name: [counts[0].get(name), counts[1].get(name)]
            for name in sorted({*counts[0], *counts[1]})
            if known and counts[0].get(name) != counts[1].get(name)
        },
        "files": _files(a.images(), b.images()),
    }


def _files(a: dict[str, dict[str, str]] | None, b: dict[str, dict[str, str]] | None) -> dict[str, Any] | None:
    """Which images came and went, and which of those that stayed have another class, split or name; by content."""
    if a is None or b is None:
        return None
    stayed = sorted(a.keys() & b.keys(), key=lambda key: b[key]["path"])

    def changed(what: str) -> list[dict[str, Any]]:
        return [
            {"path": b[key]["path"], "was": a[key][what], "is": b[key][what]}
            for key in stayed
            if a[key][what] != b[key][what]
        ]

    return {
        "came": sorted(b[key]["path"] for key in b.keys() - a.keys()),
        "went": sorted(a[key]["path"] for key in a.keys() - b.keys()),
        "stayed": len(stayed),
        "class": changed("class"),
        "split": changed("split"),
        "renamed": changed("path"),
    }


# ---- metrics --------------------------------------------------------------------------------------------------------


def _test_images(a: dict[str, tuple[str, str]] | None, b: dict[str, tuple[str, str]] | None) -> dict[str, Any] | None:
    """How two models answer the test images that both runs have, by content; None where the answers are gone."""
    if a is None or b is None:
        return None
    both = [key for key in a.keys() & b.keys() if a[key][0] == b[key][0]]
    right = [(a[key][0] == a[key][1], b[key][0] == b[key][1]) for key in both]
    only_a, only_b = right.count((True, False)), right.count((False, True))
    return {
        "same": a.keys() == b.keys() and len(both) == len(a),
        "in_both": len(both),
        "only_in": [len(a.keys() - b.keys()), len(b.keys() - a.keys())],
        "relabelled": len(a.keys() & b.keys()) - len(both),
        "both_right": right.count((True, True)),
        "one_right": [only_a, only_b],
        "both_wrong": right.count((False, False)),
        "p_value": sign_test(only_a, only_b),
    }


def sign_test(a: int, b: int) -> float:
    """How likely models that are equally good differ on `a + b` images at least as unevenly: McNemar's exact test.

    Args:
      a: images that only the one has right.
      b: images that only the other has right.

    Returns:
      The two-sided p-value, in (0, 1].
    """
    count, total, ways = a + b, 0, 1
    for hits in range(min(a, b) + 1):
        total += ways
        ways = ways * (count - hits) // (hits + 1)
    return min(1.0, 2 * total / 2**count)


def _per_class(a: dict[str, dict[str, Any]], b: dict[str, dict[str, Any]]) -> dict[str, dict[str, list[Any]]]:
    """Recall, precision and test images of each class in both, the class that lost most recall first."""
    found = {
        name: {what: [side.get(name, {}).get(what) for side in (a, b)] for what in ("recall", "precision", "examples")}
        for name in {*a, *b}
    }

    def change(name: str) -> tuple[float, str]:
        before, after = found[name]["recall"]
        return (0.0 if before is None or after is None else after - before), name

    return {name: found[name] for name in sorted(found, key=change)}


def _gate(run: Run) -> dict[str, Any]:
    return {
        "blessed": run.part("gate", "blessed"),
        "baseline_version": run.part("gate", "baseline_version"),
        "baseline_reason": run.part("gate", "baseline_reason"),
        "refusal": run.part("gate", "refusal"),
        "failed": failed_names(run.part("gate", "checks") or []),
    }
