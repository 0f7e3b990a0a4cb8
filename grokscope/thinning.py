"""Choose which rows of a long series of steps to use: for a costly measure, a figure, a page or a live view.

Rows are indices into the steps. The rules have one form, `spread_…(steps, n_max) -> rows`. Their rows increase
without repeats, and include the first and the last. `nearest_row` finds a single row.
"""

import numpy as np
from jaxtyping import Int


def spread_by_step(steps: Int[np.ndarray, " n_steps"], n_max: int) -> Int[np.ndarray, " rows"]:
    """Return rows spread evenly over the mean of the row number and the logarithm of the step.

    A run memorizes early, where a regular schedule has few checkpoints, and generalises late. The mean covers both.

    Args:
        steps: The increasing steps to choose from.
        n_max: The largest number of rows, at least 1. With 1 the result is the last row alone.
    """
    last = len(steps) - 1
    if n_max == 1 or last == 0:
        return np.array([last])
    logs = np.log1p(steps - steps[0])
    positions = np.linspace(0, 1, len(steps)) + logs / logs[-1]
    midpoints, rows = (positions[1:] + positions[:-1]) / 2, np.array([0, last])
    # Several grid points may be nearest to the same row, so a finer grid can still give at most `n_max` rows.
    for n_points in range(n_max, 4 * n_max):
        nearest = np.unique(np.searchsorted(midpoints, np.linspace(0, 2, n_points)))
        if len(nearest) > n_max:
            break
        rows = nearest
    return rows


def spread_by_log_step(steps: Int[np.ndarray, " n_steps"], n_max: int) -> Int[np.ndarray, " rows"]:
    """Return rows spread evenly over the logarithm of the step, the time scale of grokking.

    Args:
        steps: The increasing steps to choose from.
        n_max: The largest number of rows, at least 3.
    """
    targets = [0, *np.geomspace(1, max(steps[-1], 2), max(n_max - 1, 1))]
    return np.unique([np.abs(steps - target).argmin() for target in targets])


def spread_evenly(steps: Int[np.ndarray, " n_steps"], n_max: int) -> Int[np.ndarray, " rows"]:
    """Return rows spread evenly over the row number.

    Args:
        steps: The increasing steps to choose from. Only their number counts.
        n_max: The largest number of rows, at least 2.
    """
    n_steps = len(steps)
    return np.unique(np.linspace(0, n_steps - 1, min(n_max, n_steps)).round().astype(np.int64))


def spread_by_stride(steps: Int[np.ndarray, " n_steps"], n_max: int) -> Int[np.ndarray, " rows"]:
    """Return rows 0, k, 2k, … for the smallest power of two k that is large enough, and the last row.

    While a run grows, a dropped row never returns, so earlier results for the remaining rows stay useful.

    Args:
        steps: The increasing steps to choose from. Only their number counts.
        n_max: The largest number of rows, at least 2.
    """
    n_steps, stride = len(steps), 1
    while -(-n_steps // stride) > n_max - 1:
        stride *= 2
    return np.unique([*range(0, n_steps, stride), n_steps - 1])


def nearest_row(steps: Int[np.ndarray, " n_steps"], step: float) -> int:
    """Return the row of the step nearest to `step`, the earlier of two equally near ones.

    Args:
        steps: The increasing steps to choose from.
        step: Any number, also beyond the first or the last step.
    """
    return int(np.abs(steps - step).argmin())
