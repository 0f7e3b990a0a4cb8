"""Which of many steps to keep: for a costly measure, a figure, a page or a live view."""

import numpy as np
from jaxtyping import Int


def spread_by_step(steps: Int[np.ndarray, " n_steps"], n: int) -> Int[np.ndarray, " kept"]:
    """Return the places of at most `n` of increasing steps, the first and last among them; of `n` = 1 the last.

    They are spread evenly over the mean of the place in the list and of the logarithm of the step, since a run
    memorizes early, where checkpoints taken every so many steps are few, and generalises late.
    """
    if n == 1 or len(steps) == 1:
        return np.array([len(steps) - 1])
    logs = np.log1p(steps - steps[0])
    places = np.linspace(0, 1, len(steps)) + logs / logs[-1]
    middles, kept = (places[1:] + places[:-1]) / 2, np.array([0, len(steps) - 1])
    # Several points may be nearest to one place, so more points than `n` may be wanted.
    for n_points in range(n, 4 * n):
        nearest = np.unique(np.searchsorted(middles, np.linspace(0, 2, n_points)))
        if len(nearest) > n:
            break
        kept = nearest
    return kept


def spread_by_log_step(steps: Int[np.ndarray, " steps"], n_frames: int) -> Int[np.ndarray, " frames"]:
    """Return at most `n_frames` rows of the steps, spread over the step's logarithm, where grokking has its pace.

    The first and the last are among them.
    """
    wanted = [0, *np.geomspace(1, max(steps[-1], 2), max(n_frames - 1, 1))]
    return np.unique([np.abs(steps - step).argmin() for step in wanted])


def spread_evenly(n_steps: int, n_numbers: int, most_numbers: int, most: int = 600) -> Int[np.ndarray, " frames"]:
    """Return which of `n_steps` to keep, evenly, the first and last among them, for so many numbers a step."""
    n = int(np.clip(most_numbers // max(n_numbers, 1), 2, most))
    return np.unique(np.linspace(0, n_steps - 1, min(n, n_steps)).round().astype(np.int64))


def spread_by_stride(n: int, most: int) -> list[int]:
    """Return at most `most` + 1 of the first `n` indices: 0, k, 2k, … for the smallest power of two k, and the last.

    When n grows, all but the last of them stay among them or drop out; so what was measured there stays useful.
    """
    stride = 1
    while -(-n // stride) > most:
        stride *= 2
    return sorted({*range(0, n, stride), n - 1})
