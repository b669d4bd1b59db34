"""A small model, exported as the Trainer does."""

from pathlib import Path

import keras
import numpy as np

from trainer.export import export


def exported(folder: Path, names: list[str]) -> Path:
    """One of at least three classes, whose first three are the strongest channel's: red, green, blue."""
    classes = len(names)
    inputs = keras.Input((8, 8, 3))
    outputs = keras.layers.Dense(classes, activation="softmax")(keras.layers.GlobalAveragePooling2D()(inputs))
    network = keras.Model(inputs, outputs)
    network.set_weights([np.eye(3, classes, dtype=np.float32), np.zeros(classes, np.float32)])
    constants = (np.arange(3), np.full(3, 4 / 255, np.float32), np.zeros(3, np.float32))
    export(network, names, {"size": 8, "mode": "stretch", "storage": "png"}, constants, folder)
    return folder
