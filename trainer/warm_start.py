"""Weights of the model in service as the beginning of the next one."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from components.errors import UsageError

ADVICE = "set training.start_from to backbone for one run, or the configuration back to what made that model."


class OtherNetwork(UsageError):
    """What is in service is another network than the one that is to be trained."""


def load(classifier: keras.Model, version: Path, class_names: list[str]) -> bool:
    """Takes over the weights of a published model: numbers only, nothing in the model is executed.

    The rows of the head's last layer are carried over by class name; those of new classes stay as they are.

    Args:
      classifier: backbone and head; changed in place.
      version: folder of a SavedModel that `export.export` wrote.
      class_names: of the classifier, by id.

    Returns:
      Whether the classes are the same.

    Raises:
      OtherNetwork: the model in service is another network.
    """
    reader = tf.train.load_checkpoint(str(version / "variables" / "variables"))

    def value(name: str) -> np.ndarray:
        return reader.get_tensor(f"{name}/.ATTRIBUTES/VARIABLE_VALUE")

    earlier = [name.decode() for name in value("class_names").tolist()]
    # Export keeps them in the order of `Model.variables`.
    count = sum(name.startswith("weights/") for name in reader.get_variable_to_shape_map())
    values = [value(f"weights/{number}") for number in range(count)]
    last = {id(variable) for variable in classifier.get_layer("head").get_layer("probabilities").variables}
    variables = classifier.variables
    problem = f"training.start_from: version {version.name} in service is another network than the configuration's; "
    if len(values) != len(variables):
        raise OtherNetwork(f"{problem}it has {len(values)} variables and not {len(variables)}: {ADVICE}")
    for variable, old in zip(variables, values, strict=True):
        # The last axis of the last layer is that of the classes.
        ends = -1 if id(variable) in last else None
        if tuple(variable.shape)[:ends] != old.shape[:ends]:
            raise OtherNetwork(
                f"{problem}{variable.path} has the shape {old.shape} there and {tuple(variable.shape)} here: {ADVICE}"
            )
    both = [(new, earlier.index(name)) for new, name in enumerate(class_names) if name in earlier]
    here, there = ([pair[side] for pair in both] for side in (0, 1))
    for variable, old in zip(variables, values, strict=True):
        if id(variable) in last:
            new = variable.numpy()
            new[..., here] = old[..., there]
            old = new
        variable.assign(old)
    return class_names == earlier
