"""What a training should warn a person of, although the run goes on: a sentence each, and none where all is well."""

from typing import Any


def of_training(result: dict[str, Any]) -> list[str]:
    """About what came of it.

    Args:
      result: what `training.json` holds.
    """
    tuned = result["fine_tune"]
    if tuned and not tuned["kept"]:
        before = "the frozen phase" if result["frozen"] else "the model that it began with"
        return [f"Fine-tuning made the eval split no better and was undone; the model is that of {before}."]
    return []
