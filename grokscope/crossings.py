"""Crossings: the step at which a curve changes, with the interval in which the change happened."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from grokscope.series import Series

LEVEL = 0.99
"""The accuracy that counts as memorized (on train) or generalised (on test)."""


@dataclass(frozen=True)
class Crossing:
    """The first evaluated step at which a condition holds. The change happened in the interval (`after`, `step`].

    The log of a fork, or of a run whose first segment is lost, begins after step 0. If the condition already holds at
    the first row of such a log, the change may have happened earlier.
    """

    step: int
    """The first evaluated step at which the condition holds."""
    after: int
    """The last evaluated step before `step`, or −1 if the condition holds at the first row."""

    @property
    def is_seen(self) -> bool:
        """Whether the change happened at step 0 or between two rows, not before the first row."""
        return self.after >= 0 or self.step == 0

    def __str__(self) -> str:
        if self.after < 0:
            return "0" if self.is_seen else f"{self.step:,} (or before)"
        return f"{self.step:,} (after {self.after:,})"


def first_crossing(series: Series, name: str, level: float = LEVEL) -> Crossing | None:
    """Return the first step at which `series[name]` is at least `level`, or None if it never is (censored).

    Args:
        series: The series or log.
        name: The name of an array with one number per step.
        level: The level to reach. The default is the accuracy that counts as memorized or generalised.
    """
    rows = np.flatnonzero(series[name] >= level)
    if not len(rows):
        return None
    first = int(rows[0])
    return Crossing(int(series.steps[first]), int(series.steps[first - 1]) if first else -1)


def memorization_step(series: Series) -> Crossing | None:
    """Return the first evaluated step with a train accuracy of at least 99%, or None without such a step.

    It is also None if the training set is unknown, because then the series has no train accuracy.
    """
    return first_crossing(series, "train_accuracy") if "train_accuracy" in series else None


def generalisation_step(series: Series) -> Crossing | None:
    """Return the first evaluated step with a test accuracy of at least 99%, or None without such a step.

    It is also None if the training set is unknown, because then the series has no test accuracy.
    """
    return first_crossing(series, "test_accuracy") if "test_accuracy" in series else None


def lasting_crossing(steps: Int[np.ndarray, " steps"], holds: Bool[np.ndarray, " steps"]) -> Crossing | None:
    """Return the step from which a condition holds without a break to the end, or None if it fails at the end.

    Args:
        steps: The increasing steps.
        holds: Whether the condition holds at each step.
    """
    failing_rows = np.flatnonzero(~holds)
    first = int(failing_rows[-1]) + 1 if len(failing_rows) else 0
    return None if first == len(steps) else Crossing(int(steps[first]), int(steps[first - 1]) if first else -1)


def departure(series: Series, name: str, n_deviations: float = 4) -> Crossing | None:
    """Return the step from which a measure stays outside its control band to the end, or None if it ends inside.

    The band at each step is mean ± n_deviations · standard deviation over random orders of the tokens.

    Args:
        series: A series with the control arrays `name`_shuffled and `name`_shuffled_stderr.
        name: The name of the array.
        n_deviations: The half width of the band in standard deviations. A normal control leaves a band of four by
            chance at one step in 16,000.

    Raises:
        GrokscopeError: The measure has no such control.
    """
    mean, stderr = series[f"{name}_shuffled"], series[f"{name}_shuffled_stderr"]
    deviation = stderr * np.sqrt(series.options["n_shuffles"])
    return lasting_crossing(series.steps, np.abs(series[name] - mean) > n_deviations * deviation)


def resolved_values(series: Series, name: str) -> Float[np.ndarray, " steps"]:
    """Return `series[name]` with NaN at each step whose search failed: where `name`_interval has zero width."""
    values = np.asarray(series[name], float)
    if f"{name}_interval" not in series:
        return values
    low, high = series[f"{name}_interval"].T
    return np.where(low < high, values, np.nan)


def half_way(series: Series, name: str, since: int, least: float = 2.0) -> Crossing | None:
    """Return the step from which `series[name]` has completed half of its change, to the end.

    The change goes from the first value at or after `since` to the median of the last tenth of the checkpoints.
    Values that are not finite are skipped. If all values are positive, half of the change of the logarithm counts,
    because such quantities fall by orders of magnitude.

    Args:
        series: The series of a measure.
        name: The name of an array with one number per step.
        since: The step at which the change begins, such as memorization.
        least: The smallest factor of change, above 1. On the linear scale the change must be at least 1 − 1/least
            of the larger of the two ends.

    Returns:
        The crossing. None if the change is too small, or if the value is back within the first half at the end.
    """
    values = resolved_values(series, name)
    is_used = (series.steps >= since) & np.isfinite(values)
    steps, values = series.steps[is_used], values[is_used]
    if not len(values):
        return None
    is_positive = bool((values > 0).all())
    heights = np.log(values) if is_positive else values
    start, end = heights[0], float(np.median(heights[-max(len(series) // 10, 1) :]))
    smallest_change = np.log(least) if is_positive else (1 - 1 / least) * max(abs(start), abs(end))
    if not abs(end - start) >= smallest_change or start == end:
        return None
    return lasting_crossing(steps, (heights - start) / (end - start) >= 0.5)


def timing(at: Crossing, begun: Crossing, done: Crossing) -> str:
    """Return how one change relates in time to a process that lasts from `begun` to `done`.

    Args:
        at: The change.
        begun: The begin of the process.
        done: The end of the process.

    Returns:
        "precedes" if the change is over before the process can have begun; "follows" if it comes after the process
        has ended; "accompanies" if it falls between; "undecided" if the intervals leave the order open.
    """
    if at.step <= begun.after:
        return "precedes"
    if at.after >= done.step:
        return "follows"
    return "accompanies" if begun.step <= at.after and at.step <= done.after else "undecided"
