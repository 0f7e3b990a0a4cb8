"""A planted log to draw."""

import numpy as np

from grokscope.series import Series

STEPS = np.array([0, 10, 100, 1000, 4000])


def log() -> Series:
    return Series(
        "log",
        STEPS,
        {
            "train_loss": np.geomspace(4, 1e-7, 5),
            "test_loss": np.geomspace(4, 1e-3, 5),
            "train_accuracy": np.array([0.1, 0.5, 1.0, 1.0, 1.0]),
            "test_accuracy": np.array([0.1, 0.1, 0.2, 0.99, 1.0]),
        },
        {"gaps": np.empty((0, 2), np.int64)},
    )
