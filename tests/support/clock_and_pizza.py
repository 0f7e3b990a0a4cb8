"""Series of the measure `algorithm` with chosen values, and the share that clock and pizza explain of each other."""

import math

import numpy as np

from grokscope.series import Series


def share_of_other_formula(n: int, frequency: int) -> float:
    """Return the share that a pizza explains of a clock: (mean |cos(πkd/n)|)² / mean cos²(πkd/n) over d.

    Σ_d |cos(πd/m)| is 1/sin(π/2m) for odd m and cot(π/2m) for even m.
    """
    m = n // math.gcd(n, frequency)
    total = 1 / math.sin(math.pi / (2 * m)) if m % 2 else 1 / math.tan(math.pi / (2 * m))
    return (total / m) ** 2 / 0.5


def algorithm_series(
    symmetricity: float, irrelevance: float, clock: list[float], pizza: list[float], n: int = 59
) -> Series:
    """Return the measure `algorithm` with ones at step 0, these values at step 10, and three circles (4, 23, 6)."""

    def from_one(value: float | list[float]) -> np.ndarray:
        return np.stack([np.ones_like(np.array(value)), np.array(value)])

    arrays = {
        "gradient_symmetricity": from_one(symmetricity),
        "gradient_symmetricity_stderr": np.array([0.0, 0.01]),
        "distance_irrelevance": from_one(irrelevance),
        "distance_irrelevance_shuffled": np.ones(2),
        "clock_explained_variance": from_one(clock),
        "pizza_explained_variance": from_one(pizza),
        "clock_explained_variance_stderr": from_one([0.004] * 3),
        "pizza_explained_variance_stderr": from_one([0.004] * 3),
        "circle_logit_variance": from_one([3.0, 1.0, 1.0]),
    }
    constants = {
        "circle_frequencies": np.array([4, 23, 6]),
        "n_positions": np.array(n),
        "gradient_symmetricity_initialization": np.array(1.0),
        "distance_irrelevance_initialization": np.array(1.0),
    }
    return Series("algorithm", np.array([0, 10]), arrays, constants)
