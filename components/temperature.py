"""What a temperature does to probabilities (Guo et al. 2017, https://arxiv.org/abs/1706.04599)."""

import numpy as np

SMALLEST = 1e-12


def scaled(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities at another temperature, float64 [examples, classes]: above 1 less sure, below 1 surer.

    `trainer.export` does the same inside the exported model.
    """
    logs = np.log(np.maximum(probabilities.astype(np.float64), SMALLEST)) / temperature
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
