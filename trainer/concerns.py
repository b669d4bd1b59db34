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


def without_gpu(training: dict[str, Any]) -> list[str]:
    """About settings that only a GPU makes faster; nothing fails for want of one.

    Args:
      training: that section of the configuration.
    """
    usual = {"precision": "float32", "devices": "one"}
    asked = [f"training.{name} is {training[name]}" for name in usual if training[name] != usual[name]]
    if not asked:
        return []
    return [f"{' and '.join(asked)}, and TensorFlow finds no GPU: on a CPU that is no faster, and may be slower."]
