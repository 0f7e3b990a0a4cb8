"""The results of a sweep in two tables: a row for each cell, and a row for each setting over its seeds."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from grokscope import files, phases, sweep
from grokscope.errors import GrokscopeError
from grokscope.sweep import Sweep
from grokscope.trajectory import Trajectory

EVENTS = ("memorized", "generalised")
N_RESAMPLES = 2000


def table(plan: Sweep, folder: Path) -> pd.DataFrame:
    """Return a row for each cell: its settings, its state, and what its log says.

    `memorized` and `generalised` are the first evaluated steps with train and test accuracy of at least 99%; the
    event lies in the interval (`…_after`, `…`], between two evaluations. Both are missing where it did not happen
    within `steps`, the last step evaluated: the cell is censored there. `phase` is Liu et al.'s.
    """
    rows = []
    for cell in plan.cells:
        state = sweep.state(cell, folder)
        row = {"cell": cell.name, **cell.settings, "state": state.status, "reason": state.reason}
        if state.step or state.status == "finished":
            try:
                row |= _outcome(Trajectory.open(folder / cell.name))
            except GrokscopeError as error:
                row |= {"state": "failed", "reason": str(error)}
        rows.append(row)
    return pd.DataFrame(rows)


def summary(cells: pd.DataFrame, axes: list[str]) -> pd.DataFrame:
    """Return a row for each combination of settings, over its seeds, finished cells only.

    For each event `…_median` is the median step over the seeds with a 95% percentile bootstrap interval
    `…_low` … `…_high` (Efron 1979; `bootstrap_median`). A seed without the event counts as later than any step,
    so a median may be infinite: later than the budget. `n` is the number of seeds, `n_…` of those with the event.
    """
    done = cells[cells["state"] == "finished"]
    by = [axis for axis in axes if axis != "seed"]
    rows = []
    for values, group in done.groupby(by, sort=False, dropna=False) if by else [((), done)]:
        row = dict(zip(by, values, strict=True)) | {"n": len(group)}
        for event in EVENTS:
            steps = group[event].fillna(np.inf).to_numpy(float)
            median, low, high = bootstrap_median(steps)
            row |= {
                f"n_{event}": int(np.isfinite(steps).sum()),
                f"{event}_median": median,
                f"{event}_low": low,
                f"{event}_high": high,
            }
        row["test_accuracy_median"] = group["test_accuracy"].median()
        row["best_test_accuracy_median"] = group["best_test_accuracy"].median()
        rows.append(row)
    return pd.DataFrame(rows)


def bootstrap_median(
    values: Float[np.ndarray, " n"], level: float = 0.95, seed: int = 0
) -> tuple[float, float, float]:
    """Return the median and its percentile bootstrap interval, from 2,000 resamples; infinite values are allowed.

    With few values the interval is coarse: with three, it can only reach from the smallest to the largest.
    """
    drawn = np.random.default_rng(seed).choice(values, (N_RESAMPLES, len(values)))
    low, high = np.quantile(_median(drawn), [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return float(_median(values[None])[0]), float(low), float(high)


def write(plan: Sweep, folder: Path) -> list[Path]:
    """Write both tables into the sweep's folder as CSV and return their paths."""
    cells = table(plan, folder)
    written = []
    for name, frame in (("results", cells), ("summary", summary(cells, plan.axes))):
        text = io.StringIO()
        frame.to_csv(text, index=False)
        written.append(folder / f"{name}.csv")
        files.write_atomic(written[-1], text.getvalue().encode())
    return written


def _outcome(trajectory: Trajectory) -> dict[str, float | str]:
    log = trajectory.log
    found: dict[str, float | str] = {"steps": int(log.steps[-1])}
    for event, crossing in zip(EVENTS, (phases.memorization_step(log), phases.generalisation_step(log)), strict=True):
        found |= {
            f"{event}_after": np.nan if crossing is None else crossing.after,
            event: np.nan if crossing is None else crossing.step,
        }
    found |= {name: float(array[-1]) for name, array in log.arrays.items()}
    found["best_test_accuracy"] = float(log["test_accuracy"].max())
    found["phase"] = phases.liu_phase(log)
    return found


def _median(values: Float[np.ndarray, "samples n"]) -> Float[np.ndarray, " samples"]:
    # NumPy's median of two infinite values is not a number: ∞ − ∞ in its interpolation.
    ordered, n = np.sort(values, axis=1), values.shape[1]
    return (ordered[:, (n - 1) // 2] + ordered[:, n // 2]) / 2
