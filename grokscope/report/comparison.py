"""The page of several runs: their curves side by side, a table of their outcomes, and their phase diagram."""

import math
import os
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from grokscope import measures, phases, plugins
from grokscope.config import RunConfig, TaskConfig
from grokscope.config.dotted_settings import flatten_settings
from grokscope.errors import GrokscopeError
from grokscope.report import page
from grokscope.report.data import thinned_rows
from grokscope.report.encoding import pack
from grokscope.report.quantities import name_of
from grokscope.series import Series
from grokscope.sweep import sweep_folder
from grokscope.thinning import spread_evenly
from grokscope.trajectory import Trajectory

_SEEDS = ("split_seed", "init_seed", "training_seed")
_NEUTRAL_SETTINGS = ("checkpoints", "max_checkpoints", "evaluate_every", "device", "n_steps")
"""Settings that do not change what a run has learned at a given step."""
_MAX_ROWS = 60_000
"""The largest number of log rows on a page, over all runs."""
_LEAST_ROWS = 60
"""The number of rows that each run keeps, however many runs there are."""
_LONGEST_SETTING = 40
_CURVES = {
    "weight_norm": ("weight_norm", "distance_from_initialization"),
    "sharpness": ("sharpness", "hessian_trace"),
    "embedding": ("circularity", "key_frequency_share", "effective_dimension"),
    "progress": ("restricted_loss", "excluded_loss"),
}
"""The arrays of saved measures that are compared, by measure; the log is always compared."""


@dataclass(frozen=True)
class Entry:
    """One run of a comparison."""

    name: str
    folder: Path
    settings: Mapping[str, Any]
    """The settings that differ between the runs, by dotted name; "seed" represents all three seeds."""
    trajectory: Trajectory | None
    """None if the run cannot be read; `reason` states why."""
    reason: str = ""


def open_runs(folders: Sequence[Path]) -> list[Entry]:
    """Return the runs in some folders; raise GrokscopeError for a folder that is not a run."""
    trajectories = [Trajectory.open(folder) for folder in folders]
    settings = _differing_settings([trajectory.config for trajectory in trajectories])
    return [
        Entry(folder.name, folder, own_settings, trajectory)
        for folder, own_settings, trajectory in zip(folders, settings, trajectories, strict=True)
    ]


def open_sweep(folder: Path) -> tuple[list[Entry], str]:
    """Return the cells of a sweep and its own description; raise GrokscopeError if the folder is not a sweep."""
    plan = sweep_folder.load(folder)
    entries = []
    for cell in plan.cells:
        state = sweep_folder.cell_state(cell, folder)
        trajectory, reason = None, f"{state.condition}: {state.reason}" if state.reason else ""
        if (folder / cell.name).is_dir():
            try:
                trajectory = Trajectory.open(folder / cell.name)
            except GrokscopeError as error:
                reason = str(error)
        entries.append(Entry(cell.name, folder / cell.name, cell.settings, trajectory, reason))
    return entries, plan.about


def render(entries: Sequence[Entry], about: str, path: Path, sweep: Path | None = None) -> bytes:
    """Return the page of several runs.

    Args:
        entries: The runs.
        about: A description of the runs; may be empty.
        path: Where the page will be written. It links to the runs' own pages relative to this path.
        sweep: The folder of the sweep, if the runs are its cells.

    Raises:
        GrokscopeError: None of the runs has a readable log.
    """
    rows = [_row(entry, path.parent) for entry in entries]
    axes = list(dict.fromkeys(name for entry in entries for name in entry.settings))
    readable = [
        (row, entry.trajectory)
        for row, entry in zip(rows, entries, strict=True)
        if entry.trajectory is not None and entry.trajectory.has_split and len(entry.trajectory.log)
    ]
    if not readable:
        raise GrokscopeError(f"{path.parent} has no run with a readable log to compare.")
    n_max = max(_LEAST_ROWS, _MAX_ROWS // len(readable))
    name = " · ".join(entry.name for entry in entries[:4]) if sweep is None else sweep.resolve().name
    return page.render(
        "comparison.html",
        ["comparison"],
        {"name": name, "axes": axes, "runs": [row | _curves(run, n_max) for row, run in readable]},
        title=name,
        about=about,
        summary=summary(rows),
        rows=rows,
        axes=axes,
        n_linked=sum(bool(row["link"]) for row in rows),
        loss=" or ".join(sorted({run.config.loss for _, run in readable})),
        command="grokscope report RUN" if sweep is None else f"grokscope report {shlex.quote(name)} --cells",
        is_sweep=sweep is not None,
    )


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return how many finished runs ended in each of Liu et al.'s phases, and how long generalisation took."""
    counts = Counter(row["phase"] for row in rows if row["phase"])
    n_runs = f"{len(rows):,} {'run' if len(rows) == 1 else 'runs'}"
    n_other = len(rows) - counts.total()
    clauses = [f"{n:,} {phase}" for phase, n in counts.most_common()]
    clauses += [f"{n_other:,} without a phase (diverged, unfinished or unreadable)"] if n_other else []
    sentence = f"{n_runs}: {', '.join(clauses)}."
    ratios = [row["generalised"] / row["memorized"] for row in rows if row["generalised"] and row["memorized"]]
    if not ratios:
        return sentence
    times = f"{np.median(ratios):.3g} times as many steps as memorization"
    if len(ratios) == 1:
        return f"{sentence} Generalisation took {times}."
    return f"{sentence} Generalisation took a median of {times} ({min(ratios):.3g} to {max(ratios):.3g})."


def _row(entry: Entry, base: Path) -> dict[str, Any]:
    """Return a run's row of the table. None represents an event that was not reached, or not after the log began."""
    settings = {name: _shortened(value) for name, value in entry.settings.items()}
    row: dict[str, Any] = {"name": entry.name, "settings": settings, "link": _link(entry.folder, base)}
    row |= {"phase": "", "steps": 0, "reason": entry.reason, "half": None, "memorized": None, "generalised": None}
    if entry.trajectory is None or not len(entry.trajectory.log):
        return row
    log = entry.trajectory.log
    if not entry.trajectory.has_split:
        return row | {"steps": int(log.steps[-1]), "reason": "training set unknown"}
    crossings = {
        "memorized": phases.memorization_step(log),
        "generalised": phases.generalisation_step(log),
        "half": phases.first_crossing(log, "test_accuracy", 0.5),
    }
    last, n_steps = int(log.steps[-1]), entry.trajectory.end_step
    is_unfinished = last < n_steps
    stopped = str(entry.trajectory.stopped) if entry.trajectory.stopped else ""
    reason = entry.reason or (f"unfinished: {last:,} of {n_steps:,} steps" if is_unfinished else stopped)
    return row | {
        **{name: crossing.step if crossing and crossing.is_seen else None for name, crossing in crossings.items()},
        "phase": "" if is_unfinished else phases.liu_phase(log),
        "reason": reason,
        "steps": last,
        "test_accuracy": float(log["test_accuracy"][-1]),
        "test_loss": _finite(log["test_loss"][-1]),
    }


def _curves(trajectory: Trajectory, n_max: int) -> dict[str, Any]:
    """Return a run's log and the saved measures that are compared, each thinned to `n_max` rows."""
    log = trajectory.log
    rows = thinned_rows(log, n_max)
    curves = {f"log.{name}": _curve(log, name, rows) for name in log.arrays}
    for series in measures.kept(trajectory):
        if name_of(series) == series.measure:
            names = [name for name in _CURVES.get(series.measure, ()) if name in series]
            rows = spread_evenly(series.steps, n_max)
            curves |= {f"{series.measure}.{name}": _curve(series, name, rows) for name in names}
    return {"curves": curves}


def _curve(series: Series, name: str, rows: np.ndarray) -> dict[str, Any]:
    return {
        "title": series.variable(name).label,
        "steps": pack(series.steps[rows]),
        "values": pack(series[name][rows]),
    }


def _differing_settings(configs: Sequence[RunConfig]) -> list[dict[str, Any]]:
    """Return the settings in which some configs differ, without those that a run's task does not use.

    The three seeds become one setting "seed" if they are equal in every run.
    """
    all_settings = [flatten_settings(config.to_dict()) for config in configs]
    used = [
        {name: values[name] for name in values if name not in _unused_settings(values["task.name"])}
        for values in all_settings
    ]
    names = [name for name in all_settings[0] if name not in _NEUTRAL_SETTINGS]
    names = [name for name in names if any(values.get(name) != used[0].get(name) for values in used)]
    # A refinement of some tasks, such as the number of operands, is worth a column only where a run changes it.
    primary = {f"task.{family.settings[0]}" for family in plugins.TASK_FAMILIES}
    refinements = {f"task.{name}" for name in plugins.all_task_settings()} - primary
    defaults = {f"task.{name}": value for name, value in vars(TaskConfig()).items()}
    changed = {name for name, value in defaults.items() if any(own.get(name, value) != value for own in used)}
    names = [name for name in names if name not in refinements or name in changed]
    seeds = [name for name in names if name in _SEEDS]
    if any(len({values[name] for name in seeds}) > 1 for values in used):
        seeds = []
    settings = [{name: values[name] for name in names if name in values and name not in seeds} for values in used]
    if not seeds:
        return settings
    return [own | {"seed": values[seeds[0]]} for own, values in zip(settings, used, strict=True)]


def _unused_settings(task: str) -> set[str]:
    """Return the settings of other kinds of task; none for a third party's task."""
    used = plugins.task_settings(task)
    settings = {f"task.{name}" for name in plugins.all_task_settings()}
    return settings - {f"task.{name}" for name in used} if used else set()


def _shortened(value: Any) -> Any:
    """Return a setting for the page: a number unchanged, any other value as a short text."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    text = "none" if value is None else str(value)
    return text if len(text) <= _LONGEST_SETTING else text[: _LONGEST_SETTING - 1] + "…"


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _link(folder: Path, base: Path) -> str:
    """Return the relative address of a run's own page, or nothing if it has none."""
    target = folder / "report.html"
    return quote(Path(os.path.relpath(target, base)).as_posix()) if target.is_file() else ""
