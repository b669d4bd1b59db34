"""`summary.json`: what a run did, read from what its steps left. docs/summary.md names the fields."""

import datetime
import importlib.metadata
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components import concerns, conversion, data_report, features, model_card, serving_check, training_concerns
from components.data_findings import ANOMALIES_FILE, DRIFT_FILE
from components.files import read_json
from components.steps import Notes

SCHEMA_VERSION = 1
# What TFX's Pusher notes of a version.
PUSHED_VERSION, PUSHED_DESTINATION = "pushed_version", "pushed_destination"
PACKAGES = ("tfx", "tensorflow", "keras", "apache-beam", "tensorflow-transform", "tensorflow-model-analysis", "numpy")


@dataclass(frozen=True)
class Produced:
    """What the steps of a run left: folders of artifacts, None for what was not reached.

    Attributes:
      catalog: of ImageExampleGen (`components.data_report`).
      examples: of ImageExampleGen; holds `Split-train` and the others.
      data_gate: of DataGate.
      model_run: of the Trainer.
      evaluation: of the gate.
      formats: of ModelFormats.
      serving_check: of ServingCheck.
      pushed: of the Pusher.
      published: path or URI of the version that was published, or None.
      refusal: why a blessed model was not published all the same, or None.
    """

    catalog: Path | None = None
    examples: Path | None = None
    data_gate: Path | None = None
    model_run: Path | None = None
    evaluation: Path | None = None
    formats: Path | None = None
    serving_check: Path | None = None
    pushed: Path | None = None
    published: str | None = None
    refusal: str | None = None


# Where each field of `Produced` comes from: component, output key.
OUTPUTS = {
    "catalog": ("ImageExampleGen", "catalog"),
    "examples": ("ImageExampleGen", "examples"),
    "data_gate": ("DataGate", "result"),
    "model_run": ("Trainer", "model_run"),
    "evaluation": ("GatedEvaluator", "evaluation"),
    "formats": ("ModelFormats", "formats"),
    "serving_check": ("ServingCheck", "infra_blessing"),
    "pushed": ("AtomicPusher", "pushed_model"),
}


def produced(artifacts: dict[str, dict[str, Any]]) -> Produced:
    """From artifacts of ML Metadata by component and output key; a step that is missing was not reached."""
    found = {name: artifacts.get(component, {}).get(key) for name, (component, key) in OUTPUTS.items()}
    pushed = found["pushed"]
    return Produced(
        **{name: Path(artifact.uri) for name, artifact in found.items() if artifact},
        published=text(pushed, PUSHED_DESTINATION) if pushed else None,
        refusal=text(pushed, features.REFUSAL) if pushed else None,
    )


def text(artifact: Any, name: str) -> str | None:
    """A custom property of an artifact of ML Metadata that is a text; None where it has none."""
    properties = artifact.custom_properties
    return (properties[name].string_value or None) if name in properties else None


@dataclass(frozen=True)
class About:
    """What is known of a run before anything runs.

    Attributes:
      images: folders and manifests that were given, absolute paths or URIs.
      digest: of paths, labels and contents of the images.
      code: digest of the source.
      configuration: the whole of it, `auto` resolved.
    """

    images: list[str] = field(default_factory=list)
    digest: str | None = None
    code: str | None = None
    configuration: dict[str, Any] = field(default_factory=dict)


def collect(
    left: Produced,
    about: About,
    notes: Notes,
    error: str | None = None,
    exit_code: int | None = None,
    advice: str | None = None,
    may_pass: bool = False,
) -> dict[str, Any]:
    """The summary of a run that ended, with what there is of it.

    Args:
      left: by the steps.
      about: what was to be run.
      notes: of the runner.
      error: the sentence that the person saw, if the run failed.
      exit_code: of a run that failed.
      advice: what the person was told to try, if anything.
      may_pass: whether the same run may go well a while later.
    """
    data = read_json(left.catalog, data_report.CATALOG_FILE, {})
    training = read_json(left.model_run, features.TRAINING_FILE, {})
    decision = read_json(left.evaluation, features.DECISION_FILE, {})
    served = serving_check.read_result(left.serving_check) if left.serving_check else {}
    if error is not None:
        status, code = "failed", exit_code or 1
    else:
        status, code = ("published", 0) if left.published else ("refused", 4)
    model = about.configuration.get("model", {})
    return {
        "schema_version": SCHEMA_VERSION,
        "status": status,
        "exit_code": code,
        "run_id": notes.run_id,
        "started": None if notes.began is None else timestamp(notes.began),
        "seconds": None if notes.began is None else round(time.time() - notes.began, 1),
        "reason": notes.reason,
        # On a cluster nobody looked at the images, or chose spans of them, before ingestion did.
        "images": data.pop("places", None) or about.images,
        "data": data | {"digest": about.digest or data.get("digest")},
        "model": {
            "backbone": model.get("backbone"),
            "weights": model.get("weights"),
            "parameters": training.get("parameters"),
            "path": left.published,
        },
        "drift": drifted(read_json(left.data_gate, DRIFT_FILE, [])),
        "training": {name: model_card.without_curves(training.get(name)) for name in ("frozen", "fine_tune")}
        # Only where there are two, as whoever goes through `training` expects phases.
        | ({"starts": training["starts"]} if training.get("starts") else {}),
        "metrics": {"test": decision.get("metrics")},
        "gate": {
            "blessed": decision.get("blessed", False) and served.get("problem") is None,
            "baseline_version": decision.get("baseline_version"),
            "baseline_status": decision.get("baseline_status"),
            "baseline_reason": decision.get("baseline_reason"),
            "detectable_drop": decision.get("detectable_drop"),
            "refusal": left.refusal,
            "checks": decision.get("checks", []) + served.get("checks", []),
        },
        "serving": {name: served.get(name) for name in ("problem", "latency_ms", "load_seconds", "images", "odd")},
        "formats": read_json(left.formats, conversion.RESULT_FILE, {}).get("formats", {}),
        "timings": notes.timings,
        "cached": notes.cached,
        "warnings": notes.warnings,
        "configuration": about.configuration,
        "code": about.code,
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "step": notes.step if error is not None else None,
        "error": error,
        "advice": advice,
        "may_pass": may_pass if error is not None else None,
    }


def drifted(distances: list[dict[str, Any]]) -> list[str]:
    """Names of the features whose distance from the images of the model in service is over the threshold."""
    return [row["feature"] for row in distances if row["value"] > row["threshold"]]


def warned_of(left: Produced, about: About) -> list[str]:
    """What the steps warned of, as far as what they left tells: for a run that nobody listened to, as on a cluster."""
    found: list[str] = []
    if catalog := read_json(left.catalog, data_report.CATALOG_FILE):
        found += data_report.concerns_of(catalog)
    found += concerns.of_anomalies(read_json(left.data_gate, ANOMALIES_FILE, []))
    if training := read_json(left.model_run, features.TRAINING_FILE):
        found += training_concerns.of_training(training)
    if decision := read_json(left.evaluation, features.DECISION_FILE):
        found += concerns.of_decision(decision, about.configuration["evaluation"])
    return found


def timestamp(seconds: float) -> str:
    """ISO 8601 in UTC."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")
