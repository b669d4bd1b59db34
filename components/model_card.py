"""`model_card.json`: what a published version is, where it came from and why it was let out."""

import datetime
import json
import time
from typing import Any

CARD_FILE = "model_card.json"
SCHEMA_VERSION = 1
FIELDS = (
    "schema_version",
    "version",
    "published",
    "name",
    "run_id",
    "license",
    "classes",
    "input",
    "data",
    "code",
    "configuration",
    "training",
    "metrics",
    "gate",
    "serving_check",
    "formats",
    "versions",
    "python",
    "rollback",
)
CURVES = "history"


def build(
    *,
    about: dict[str, Any],
    catalog: dict[str, Any] | None,
    training: dict[str, Any] | None,
    decision: dict[str, Any] | None,
    serving_check: dict[str, Any] | None = None,
    formats: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The card of a candidate; `dump` adds the version. What is not known is null.

    Args:
      about: the fields that are known before anything runs: `name`, `license`, `input`, `code`, `configuration`, and
        `digest` of the data; `run_id`, `versions` and `python` of the process that publishes.
      catalog: what ingestion counted (`components.data_report`).
      training: what the Trainer left (`training.json`).
      decision: the gate's, with the test split's metrics.
      serving_check: what the serving check found.
      formats: the other formats that are published.
    """
    about, catalog, training, decision = dict(about), catalog or {}, training or {}, decision or {}
    digest = about.pop("digest", None) or catalog.get("digest")
    data = {"digest": digest} | {key: catalog.get(key) for key in ("images", "classes")}
    known = {
        "classes": training.get("classes"),
        "data": data,
        "training": _training(training) if training else None,
        "metrics": decision.get("metrics"),
        "gate": {key: value for key, value in decision.items() if key != "metrics"} or None,
        "serving_check": serving_check,
        "formats": formats,
    }
    return dict.fromkeys(FIELDS) | {"schema_version": SCHEMA_VERSION} | about | known


def _training(training: dict[str, Any]) -> dict[str, Any]:
    phases = {name: without_curves(training.get(name)) for name in ("frozen", "fine_tune")}
    calibration = training.get("calibration") or {}
    rest = {key: training.get(key) for key in ("start_from", "parameters")}
    return phases | {"temperature": calibration.get("temperature")} | rest


def without_curves(phase: dict[str, Any] | None) -> dict[str, Any] | None:
    """A phase of `training.json` without its per-epoch history, which stays with the run."""
    return None if phase is None else {key: value for key, value in phase.items() if key != CURVES}


def dump(card: dict[str, Any], version: int) -> bytes:
    """The file's content once the version is known; the time is now."""
    published = datetime.datetime.fromtimestamp(time.time(), datetime.UTC).isoformat(timespec="seconds")
    return (json.dumps(card | {"version": version, "published": published}, indent=1) + "\n").encode()


def load(content: bytes | None) -> dict[str, Any]:
    """A card that was read; one without known fields where there is none, or where it is no card."""
    try:
        card = json.loads(content or b"")
    except ValueError:
        card = None
    return dict.fromkeys(FIELDS) | {"schema_version": SCHEMA_VERSION} | (card if isinstance(card, dict) else {})


# ---- rollbacks ------------------------------------------------------------------------------------------------------


def rolled_back(card: dict[str, Any], *, of: int, instead_of: int, stands_for: int) -> dict[str, Any]:
    """The card of a copy of an earlier version.

    Args:
      card: of that version.
      of: the version in which the model first went out.
      instead_of: what was in service until now.
      stands_for: the newest version that a run had published by then; a run that would publish that again, because
        nothing changed since, has nothing to do.
    """
    return card | {"rollback": {"of": of, "instead_of": instead_of, "stands_for": stands_for}}


def rollback_of(card: dict[str, Any]) -> dict[str, int] | None:
    """What the card says of a rollback; None for a version that a run published."""
    rollback = card.get("rollback")
    if not isinstance(rollback, dict):
        return None
    numbers = {key: rollback.get(key) for key in ("of", "instead_of", "stands_for")}
    return numbers if all(isinstance(number, int) for number in numbers.values()) else None
