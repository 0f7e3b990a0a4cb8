"""The results of a sweep in two tables: a row for each cell, and a row for each setting over its seeds."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from grokscope import phases
from grokscope.disk import atomic
from grokscope.errors import GrokscopeError
from grokscope.sweep import sweep_folder
from grokscope.sweep.plan import Sweep
from grokscope.trajectory import Trajectory

EVENTS = ("memorized", "generalised")
N_RESAMPLES = 2000

Row = dict[str, Any]


def table(plan: Sweep, folder: Path) -> list[Row]:
    """Return a row for each cell: its settings, its state, and what its log says.

    `memorized` and `generalised` are the first evaluated steps with train and test accuracy of at least 99%; the
    event lies in the interval (`…_after`, `…`], between two evaluations. Both are infinite where it did not happen
    within `steps`, the last step evaluated: the cell is censored there. `phase` is Liu et al.'s.
    """
    rows = []
    for cell in plan.cells:
        state = sweep_folder.state(cell, folder)
        row = {"cell": cell.name, **cell.settings, "state": state.status, "reason": state.reason}
        if state.step or state.status == "finished":
            try:
                row |= _outcome(Trajectory.open(folder / cell.name))
            except GrokscopeError as error:
                row |= {"state": "failed", "reason": str(error)}
        rows.append(row)
    return rows


def summary(rows: Iterable[Row], axes: list[str]) -> list[Row]:
    """Return a row for each combination of settings, over its seeds, finished cells only.

    For each event `…_median` is the median step over the seeds with a 95% percentile bootstrap interval
    `…_low` … `…_high` (Efron 1979; `bootstrap_median`). A seed without the event counts as later than any step,
    so a median may be infinite: later than the budget. `n` is the number of seeds, `n_…` of those with the event.
    """
    by = [axis for axis in axes if axis != "seed"]
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row["state"] == "finished":
            # Settings may be lists, which are no keys; their text is.
            groups.setdefault(repr([row.get(axis) for axis in by]), []).append(row)
    found = []
    for group in groups.values():
        merged: Row = {axis: group[0].get(axis) for axis in by} | {"n": len(group)}
        for event in EVENTS:
            steps = np.array([row[event] for row in group], float)
            median, low, high = bootstrap_median(steps)
            merged |= {
                f"n_{event}": int(np.isfinite(steps).sum()),
                f"{event}_median": median,
                f"{event}_low": low,
                f"{event}_high": high,
            }
        for name in ("test_accuracy", "best_test_accuracy"):
            merged[f"{name}_median"] = float(np.median([row[name] for row in group]))
        found.append(merged)
    return found


def bootstrap_median(
    values: Float[np.ndarray, " n"], level: float = 0.95, seed: int = 0
) -> tuple[float, float, float]:
    """Return the median and its percentile bootstrap interval, from 2,000 resamples; infinite values are allowed.

    With few values the interval is coarse: with three to five it is simply their range, which covers the true median
    with a probability of 1 − 2^(1−n): 75% for three, 94% for five.
    """
    drawn = np.random.default_rng(seed).choice(values, (N_RESAMPLES, len(values)))
    low, high = np.quantile(_median(drawn), [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return float(_median(values[None])[0]), float(low), float(high)


def write(rows: list[Row], axes: list[str], folder: Path) -> list[Path]:
    """Write a sweep's table and its summary into its folder as CSV and return their paths."""
    import pandas

    written = []
    for name, found in (("results", rows), ("summary", summary(rows, axes))):
        text = io.StringIO()
        pandas.DataFrame(found).to_csv(text, index=False)
        written.append(folder / f"{name}.csv")
        atomic.write_atomic(written[-1], text.getvalue().encode())
    return written


def _outcome(trajectory: Trajectory) -> Row:
    log = trajectory.log
    if not len(log):
        raise GrokscopeError(f"{trajectory.path} has no readable log.")
    found: Row = {"steps": int(log.steps[-1])}
    for event, crossing in zip(EVENTS, (phases.memorization_step(log), phases.generalisation_step(log)), strict=True):
        found |= {
            f"{event}_after": np.inf if crossing is None else crossing.after,
            event: np.inf if crossing is None else crossing.step,
        }
    found |= {name: float(array[-1]) for name, array in log.arrays.items()}
    found["best_test_accuracy"] = float(log["test_accuracy"].max())
    found["phase"] = phases.liu_phase(log)
    return found


def _median(values: Float[np.ndarray, "samples n"]) -> Float[np.ndarray, " samples"]:
    # NumPy's median of two infinite values is not a number: ∞ − ∞ in its interpolation.
    ordered, n = np.sort(values, axis=1), values.shape[1]
    return (ordered[:, (n - 1) // 2] + ordered[:, n // 2]) / 2
