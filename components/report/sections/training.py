"""How training went."""

from typing import Any

from components import training_starts
from components.report import charts
from components.report.facts import Facts
from components.report.wording import count, counted, digits, loss, number, percent, seconds

PHASES = {"frozen": "frozen", "fine_tune": "fine-tuning"}
TITLES = {"frozen": "Frozen backbone", "fine_tune": "Fine-tuning"}


def view(facts: Facts) -> dict[str, Any]:
    training = facts.training or facts.summary.get("training") or {}
    found = {name: training[name] for name in PHASES if training.get(name)}
    settings = (facts.summary.get("configuration") or {}).get("training") or {}
    return {
        "reached": bool(found),
        "notes": _notes(training, found) if found else [],
        "phases": [_phase(name, phase) for name, phase in found.items()],
        "charts": _charts(found),
        "smoothed": bool(settings.get("label_smoothing")),
        "calibration": _calibration(training.get("calibration") or {}),
    }


def _notes(training: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """What the curves do not say."""
    notes = []
    if version := training.get("start_from"):
        notes.append(f"Training began with the weights of version {version}.")
    if both := training_starts.told(training.get("starts")):
        notes.append(f"With start_from: both, training was {both}.")
    if "frozen" not in found:
        notes.append("There was no frozen phase: the head had learnt these classes already.")
    tuned = found.get("fine_tune")
    if tuned is None:
        notes.append("The backbone was not fine-tuned: the frozen phase is all there was.")
    elif _undone(tuned):
        before = "of the frozen phase" if "frozen" in found else "that it began with"
        notes.append(
            f"Fine-tuning was undone: no epoch of it made the eval split better, so the weights {before} are used."
        )
    for name, phase in found.items():
        if after := phase.get("resumed_after"):
            notes.append(f"The {PHASES[name]} phase was interrupted and resumed after epoch {after}.")
    return notes


def _undone(phase: dict[str, Any]) -> bool:
    return phase.get("kept") is False


def _phase(name: str, phase: dict[str, Any]) -> dict[str, Any]:
    kept = phase.get("kept_epoch") or 0
    ran = phase.get("epochs") or 0
    return {
        "title": TITLES[name],
        "rows": [
            ("Epochs", count(ran)),
            ("Kept", "none: undone" if _undone(phase) else f"epoch {kept}" if kept else "the weights it began with"),
            ("Training accuracy", percent(phase.get("accuracy"))),
            ("Eval accuracy", percent(phase.get("eval_accuracy"))),
            ("Eval loss", loss(phase.get("eval_loss"))),
            ("Eval loss, scaled", loss(phase.get("eval_calibrated_loss"))),
            ("Took", seconds(phase.get("seconds"))),
            ("Images a second", count(phase.get("images_per_second"))),
        ],
    }


def _charts(found: dict[str, Any]) -> dict[str, Any]:
    histories = {name: phase["history"] for name, phase in found.items() if (phase.get("history") or {}).get("loss")}
    if not histories:
        return {}
    phases = charts.Phases(
        [len(history["loss"]) for history in histories.values()],
        [PHASES[name] + (", undone" if _undone(found[name]) else "") for name in histories],
        [0 if _undone(found[name]) else found[name].get("kept_epoch") or 0 for name in histories],
    )

    def joined(key: str) -> list[float | None]:
        """Of all phases; a phase that lacks it leaves a gap."""
        rows = []
        for history in histories.values():
            values = [number(value) for value in history.get(key) or []][: len(history["loss"])]
            rows += values + [None] * (len(history["loss"]) - len(values))
        return rows

    losses = [charts.Curve("train", joined("loss"), "quiet"), charts.Curve("eval", joined("val_loss"), "accent", True)]
    marked = "eval"
    if any(value is not None for value in joined("val_calibrated_loss")):
        losses.append(charts.Curve("eval, scaled", joined("val_calibrated_loss"), "accent"))
        marked = "eval, scaled"
    accuracy = [
        charts.Curve("train", joined("accuracy"), "quiet"),
        charts.Curve("eval", joined("val_accuracy"), "accent"),
    ]
    told = f"over {counted(sum(phases.epochs), 'epoch')}"
    kept = " and ".join(
        f"epoch {epoch} of the {title} phase" for epoch, title in zip(phases.kept, phases.titles, strict=True) if epoch
    )
    told += f", kept: {kept}" if kept else ""
    rates = [charts.Curve("learning rate", joined("learning_rate"), "accent")]
    return {
        "loss": charts.curves("loss", phases, losses, marked, "loss", f"Loss {told}"),
        "accuracy": charts.curves("accuracy", phases, accuracy, "eval", "share", f"Accuracy {told}"),
        "rate": charts.curves("rate", phases, rates, None, "rate", f"Learning rate {told}"),
        "scaled": marked != "eval",
        "marks": bool(phases.kept_places),
    }


def _calibration(calibration: dict[str, Any]) -> str | None:
    """What became of the scores."""
    temperature = number(calibration.get("temperature"))
    if temperature is None:
        return None
    if temperature == 1:
        return "Scores are as the network gives them (temperature 1)."
    how = "surer" if temperature < 1 else "less sure"
    told = f"A temperature of {digits(float(temperature))} makes the scores {how} than the network gives them"
    before, after = number(calibration.get("loss")), number(calibration.get("scaled_loss"))
    if before is None or after is None:
        return told + "."
    return f"{told}: the loss on the eval split goes from {loss(before)} to {loss(after)}. The answers stay the same."
