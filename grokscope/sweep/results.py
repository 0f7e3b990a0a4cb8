"""The results of a sweep in two tables: a row for each cell, and a row for each setting over its seeds."""

import io
import json
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from grokscope import phases
from grokscope.disk import atomic
from grokscope.errors import GrokscopeError, unknown_name
from grokscope.sweep import sweep_folder
from grokscope.sweep.plan import Sweep
from grokscope.trajectory import Trajectory

if TYPE_CHECKING:
    import pandas

EVENTS = ("memorized", "generalised")
N_RESAMPLES = 2000

Row = dict[str, Any]


def cell_rows(plan: Sweep, folder: Path) -> list[Row]:
    """Return a row for each cell: its settings, its state, and the results in its log.

    - `memorized`, `generalised`: the first evaluated step with a train or test accuracy of at least 99%. The event
      happened between two evaluations, in the interval (`…_after`, `…`].
    - `steps`: the last evaluated step. A cell without an event by then is censored: both ends are infinite.
    - `state`: "finished", "unfinished", "running", "new", "failed", or "diverged" if a number was not finite.
    - `reason`: why a cell failed or diverged.
    - `stopped_by`: the condition of the rule `stop` that ended the cell at `steps`, such as "test loss < 1e-05";
      otherwise "". A cell without an event is censored at `steps`: by its rule, or else by its budget `n_steps`.
    - `phase`: the label of Liu et al. 2022 (`phases.liu_phase`) of a finished cell, otherwise "".
    - The last value of every column of the log, and `best_test_accuracy`, its maximum.

    Args:
        plan: The sweep.
        folder: The sweep's folder. A cell whose log cannot be read gets the state "failed" and a reason.
    """
    rows = []
    for cell in plan.cells:
        state = sweep_folder.cell_state(cell, folder)
        row = {"cell": cell.name, **cell.settings, "state": state.condition, "reason": state.reason}
        if state.step or state.status == "finished":
            try:
                row |= _outcome(Trajectory.open(folder / cell.name))
            except GrokscopeError as error:
                row |= {"state": "failed", "reason": str(error)}
            # A cell that diverged or is unfinished might still have reached another phase.
            if row["state"] != "finished":
                row["phase"] = ""
        rows.append(row)
    return rows


def summarize(rows: Iterable[Row], axes: list[str]) -> list[Row]:
    """Return a row for each combination of settings, with medians over its seeds; only finished cells count.

    - `n`: the number of seeds.
    - `n_memorized`, `n_generalised`: the number of seeds with the event.
    - `n_stopped`: the number of seeds whose run the rule `stop` ended before `n_steps`.
    - `…_median`, `…_low`, `…_high`: the median step of the event over the seeds, and its 95% percentile bootstrap
      interval (`bootstrap_median`). A seed without the event counts as later than any step, so a median may be
      infinite: later than the budget.
    - `test_accuracy_median`, `best_test_accuracy_median`: medians over the seeds.

    Args:
        rows: The rows that `cell_rows` returns.
        axes: The sweep's axes (`Sweep.axes`); "seed" is the axis that is summarized.
    """
    setting_names = [axis for axis in axes if axis != "seed"]
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row["state"] == "finished":
            # A setting may be a list, which is not hashable; its text is.
            groups.setdefault(repr([row.get(name) for name in setting_names]), []).append(row)
    medians = []
    for group in groups.values():
        merged: Row = {name: group[0].get(name) for name in setting_names} | {"n": len(group)}
        merged["n_stopped"] = sum(bool(row.get("stopped_by")) for row in group)
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
        medians.append(merged)
    return medians


def bootstrap_median(
    values: Float[np.ndarray, " n"], level: float = 0.95, seed: int = 0
) -> tuple[float, float, float]:
    """Return the median and its percentile bootstrap interval, from 2,000 resamples.

    The interval of few values is coarse. For three to five values it is their range, which covers the true median
    with probability 1 − 2^(1−n): 75% for three, 94% for five.

    Args:
        values: Independent values; infinite values are allowed.
        level: The nominal coverage of the interval, between 0 and 1.
        seed: The seed of the resampling.

    Returns:
        The median, and the lower and upper end of the interval.

    References:
        Efron 1979, "Bootstrap methods: another look at the jackknife".
    """
    drawn = np.random.default_rng(seed).choice(values, (N_RESAMPLES, len(values)))
    low, high = np.quantile(_median(drawn), [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return float(_median(values[None])[0]), float(low), float(high)


def write_tables(rows: list[Row], axes: list[str], folder: Path) -> list[Path]:
    """Write the cells' rows and the medians over seeds into a folder, and return the paths.

    results.parquet contains the cells' rows for pandas, duckdb and others, results.csv the same rows as text, and
    summary.csv the medians.
    """
    import pandas

    written = []
    for name, lines in (("results", rows), ("summary", summarize(rows, axes))):
        text = io.StringIO()
        pandas.DataFrame(lines).to_csv(text, index=False)
        written.append(folder / f"{name}.csv")
        atomic.write_atomic(written[-1], text.getvalue().encode())
    content = io.BytesIO()
    frame(rows).to_parquet(content, index=False)
    written.append(folder / "results.parquet")
    atomic.write_atomic(written[-1], content.getvalue())
    return written


def frame(rows: list[Row]) -> "pandas.DataFrame":
    """Return rows as a table in which each column has one type.

    A setting that has several types, or is a list, becomes JSON text.
    """
    import pandas

    table = pandas.DataFrame(rows)
    for name in table.columns:
        kinds = {type(value) for value in table[name] if not _is_missing(value)}
        if list in kinds or tuple in kinds or len(kinds - {int, float}) > 1 or (str in kinds and len(kinds) > 1):
            table[name] = [None if _is_missing(value) else json.dumps(value) for value in table[name]]
    return table


def query(rows: list[Row], where: str = "", columns: Iterable[str] = ()) -> "pandas.DataFrame":
    """Return the rows that fulfil a condition, by SQL over a table in memory.

    Args:
        rows: The rows that `cell_rows` returns.
        where: An SQL condition of SQLite, such as ``test_accuracy > 0.99 AND "optimizer.lr" < 0.01``; "" selects all.
            A name with a dot is quoted. Infinity, a step that was not reached, is larger than any number.
        columns: The columns to return; by default all.

    Raises:
        GrokscopeError: The condition is not SQL, or names an unknown column. The message lists the columns.
    """
    import pandas

    table = frame(rows)
    names = list(columns) or list(table.columns)
    if unknown := [name for name in names if name not in table.columns]:
        raise GrokscopeError(unknown_name("column", unknown[0], list(table.columns)))
    selected = ", ".join(f'"{name}"' for name in names)
    with closing(sqlite3.connect(":memory:")) as database:
        table.to_sql("cells", database, index=False)
        try:
            return pandas.read_sql(f"SELECT {selected} FROM cells" + (f" WHERE {where}" if where else ""), database)
        except (pandas.errors.DatabaseError, sqlite3.Error) as error:
            reason = error.__cause__ or error
            raise GrokscopeError(
                f"where: {where!r} is not a condition: {reason}. Columns: {', '.join(table.columns)}. "
                "A name with a dot needs double quotes."
            ) from error.__cause__  # pandas' own error is an OSError, which a wrong condition is not.


def _is_missing(value: object) -> bool:
    """Return whether a value is None or NaN."""
    return value is None or value != value


def _outcome(trajectory: Trajectory) -> Row:
    """Return the columns of a cell's row that its log determines."""
    log = trajectory.log
    if not len(log):
        raise GrokscopeError(f"{trajectory.path} has no readable log.")
    stopped = trajectory.stopped
    outcome: Row = {"steps": int(log.steps[-1])}
    outcome["stopped_by"] = stopped.reason if stopped and stopped.step == outcome["steps"] else ""
    for event, crossing in zip(EVENTS, (phases.memorization_step(log), phases.generalisation_step(log)), strict=True):
        outcome |= {
            f"{event}_after": np.inf if crossing is None else crossing.after,
            event: np.inf if crossing is None else crossing.step,
        }
    outcome |= {name: float(array[-1]) for name, array in log.arrays.items()}
    outcome["best_test_accuracy"] = float(log["test_accuracy"].max())
    outcome["phase"] = phases.liu_phase(log)
    return outcome


def _median(values: Float[np.ndarray, "samples n"]) -> Float[np.ndarray, " samples"]:
    # NumPy's median of two infinite values is NaN, because its interpolation computes ∞ − ∞.
    ordered, n = np.sort(values, axis=1), values.shape[1]
    return (ordered[:, (n - 1) // 2] + ordered[:, n // 2]) / 2
