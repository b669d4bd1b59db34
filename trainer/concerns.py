"""What a person should be warned of before a training begins: a sentence each, and none where all is well."""

from typing import Any


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
