"""What to tell a person of a training that began from the backbone and from the model in service (`both`)."""

from typing import Any


def told(starts: list[dict[str, Any]] | None) -> str | None:
    """Which of the two is used and why, in a few words; None where there was no choice.

    Args:
      starts: of `training.json`.
    """
    if not starts:
        return None
    chosen, *others = sorted(starts, key=lambda row: not row["chosen"])
    if not others:
        return "from the backbone alone, as nothing in service could be begun from"
    (other,) = others
    return f"chosen by the eval split: {_start(chosen)} over {_start(other)}"


def _start(row: dict[str, Any]) -> str:
    begun = f"version {row['start_from']}" if row["start_from"] else "the backbone"
    return f"{begun} (accuracy {row['eval_accuracy']:.3f}, loss {row['eval_calibrated_loss']:.3f})"
