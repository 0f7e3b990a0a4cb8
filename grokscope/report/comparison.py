"""Several runs beside each other: their curves aligned, a table of what became of each, and their phase diagram."""

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
from grokscope.config import RunConfig
from grokscope.errors import GrokscopeError
from grokscope.report import page
from grokscope.report.data import kept_rows
from grokscope.report.encoding import packed
from grokscope.report.quantities import name_of, title
from grokscope.series import Series
from grokscope.sweep import sweep_folder
from grokscope.training import fork
from grokscope.trajectory import Trajectory

_SEEDS = ("split_seed", "init_seed", "training_seed")
_NO_AXES = ("checkpoints", "max_checkpoints", "evaluate_every", "device", "n_steps")
"""Settings that do not change what a run learns up to a step."""
_ROWS = 60_000
"""How many rows of all logs together a page keeps."""
_CURVES = {
    "weight_norm": ("weight_norm", "distance_from_initialization"),
    "sharpness": ("sharpness", "hessian_trace"),
    "embedding": ("circularity", "key_frequency_share", "effective_dimension"),
    "progress": ("restricted_loss", "excluded_loss"),
}
"""What is compared besides the log, where any run has it saved: measure, arrays."""


@dataclass(frozen=True)
class Entry:
    """One run among several."""

    name: str
    folder: Path
    settings: Mapping[str, Any]
    """What tells it from the others, by dotted name; "seed" stands for all three seeds."""
    trajectory: Trajectory | None
    """None where there is nothing to read yet, or no more; `reason` says why."""
    reason: str = ""


def of_folders(folders: Sequence[Path]) -> tuple[list[Entry], str]:
    """Return the runs in some folders, with what tells them apart, and a sentence about them.

    Raise GrokscopeError for a folder that is no run.
    """
    trajectories = [Trajectory.open(folder) for folder in folders]
    settings = _settings([one.config for one in trajectories])
    return [
        Entry(folder.name, folder, its, one) for folder, its, one in zip(folders, settings, trajectories, strict=True)
    ], ""


def of_sweep(folder: Path) -> tuple[list[Entry], str]:
    """Return the cells of a sweep, and what it says of itself; raise GrokscopeError if the folder holds none."""
    plan = sweep_folder.load(folder)
    entries = []
    for cell in plan.cells:
        trajectory, reason = None, sweep_folder.state(cell, folder).reason
        if (folder / cell.name).is_dir():
            try:
                trajectory = Trajectory.open(folder / cell.name)
            except GrokscopeError as error:
                reason = str(error)
        entries.append(Entry(cell.name, folder / cell.name, cell.settings, trajectory, reason))
    return entries, plan.about


def write(entries: Sequence[Entry], about: str, path: Path, cells_of: Path | None = None) -> bytes:
    """Return the page of several runs that is to lie at `path`, from where it links to their own pages.

    `cells_of` is the folder of the sweep whose cells they are, if they are.
    """
    rows = [_row(entry, path.parent) for entry in entries]
    axes = list(dict.fromkeys(name for entry in entries for name in entry.settings))
    drawn = [i for i, entry in enumerate(entries) if entry.trajectory is not None and len(entry.trajectory.log)]
    if not drawn:
        raise GrokscopeError(f"{path.parent} has no run with a readable log to compare.")
    name = " · ".join(entry.name for entry in entries[:4]) if cells_of is None else cells_of.resolve().name
    numbers = {
        "name": name,
        "axes": axes,
        "runs": [{**rows[i], **_curves(entries[i].trajectory, _ROWS // len(drawn))} for i in drawn],
    }
    return page.render(
        "comparison.html",
        numbers,
        title=name,
        about=about,
        summary=summary(rows),
        rows=rows,
        axes=axes,
        linked=sum(bool(row["link"]) for row in rows),
        command="grokscope report RUN" if cells_of is None else f"grokscope report {shlex.quote(name)} --cells",
        is_sweep=cells_of is not None,
        version=page.__version__,
    )


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say how many runs ended in which of Liu et al.'s phases, and how late they generalised after memorization."""
    counts = Counter(row["phase"] for row in rows if row["phase"])
    said = f"{len(rows):,} runs: " + ", ".join(f"{n:,} in {name}" for name, n in counts.most_common()) + "."
    delays = [row["generalised"] / row["memorized"] for row in rows if row["generalised"] and row["memorized"]]
    if delays:
        said += f" Where both happened, generalisation came at {np.median(delays):.3g} times the step of memorization"
        said += f", from {min(delays):.3g} to {max(delays):.3g}." if len(delays) > 1 else "."
    return said


def _row(entry: Entry, base: Path) -> dict[str, Any]:
    """Return what the table says of a run; None stands for what did not happen, or not after its log began."""
    shown = {name: _shown(value) for name, value in entry.settings.items()}
    row: dict[str, Any] = {"name": entry.name, "settings": shown, "link": _link(entry.folder, base)}
    row |= {"phase": "", "steps": 0, "reason": entry.reason, "half": None, "memorized": None, "generalised": None}
    if entry.trajectory is None or not len(entry.trajectory.log):
        return row
    log = entry.trajectory.log
    crossings = {
        "memorized": phases.memorization_step(log),
        "generalised": phases.generalisation_step(log),
        "half": phases.first_crossing(log, "test_accuracy", 0.5),
    }
    return row | {
        **{name: at.step if at and at.is_seen else None for name, at in crossings.items()},
        "phase": phases.liu_phase(log),
        "steps": int(log.steps[-1]),
        "test_accuracy": float(log["test_accuracy"][-1]),
        "test_loss": _finite(log["test_loss"][-1]),
        "train_loss": _finite(log["train_loss"][-1]),
    }


def _curves(trajectory: Trajectory | None, most: int) -> dict[str, Any]:
    """Return a run's log, thinned, and what was measured of it and is compared."""
    assert trajectory is not None
    log = trajectory.log
    kept = kept_rows(log, max(60, most))
    found = {f"log.{name}": _curve(log, name, kept) for name in log.arrays}
    for series in measures.kept(trajectory):
        if name_of(series) == series.measure:
            arrays = [name for name in _CURVES.get(series.measure, ()) if name in series]
            every = np.unique(np.linspace(0, len(series) - 1, min(len(series), max(60, most))).astype(int))
            found |= {f"{series.measure}.{name}": _curve(series, name, every) for name in arrays}
    return {"curves": found, "gaps": log["gaps"].tolist()}


def _curve(series: Series, name: str, kept: np.ndarray) -> dict[str, Any]:
    return {"title": title(name), "steps": packed(series.steps[kept]), "values": packed(series[name][kept])}


def _settings(configs: Sequence[RunConfig]) -> list[dict[str, Any]]:
    """Return in what some configs differ from each other; seeds that move together are one.

    What a run's task does not use is not among what is said of it.
    """
    every = [fork.flat(config.to_dict()) for config in configs]
    flat = [{name: one[name] for name in one if name not in _unused(one["task.name"])} for one in every]
    names = [name for name in every[0] if name not in _NO_AXES]
    names = [name for name in names if any(one.get(name) != flat[0].get(name) for one in flat)]
    seeds = [name for name in names if name in _SEEDS]
    if any(len({one[name] for name in seeds}) > 1 for one in flat):
        seeds = []
    found = [{name: one[name] for name in names if name in one and name not in seeds} for one in flat]
    return [its | {"seed": one[seeds[0]]} if seeds else its for its, one in zip(found, flat, strict=True)]


def _unused(task: str) -> set[str]:
    """Return the settings that a task, being of another kind, does not use; of a third party's none are known."""
    setting = plugins.domain_setting(task)
    settings = {f"task.{family.setting}" for family in plugins.TASK_FAMILIES}
    return settings - {f"task.{setting}"} if setting else set()


def _shown(value: Any) -> Any:
    """Return a setting as the page shows it: a number as it is, all else as a short text."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    text = "none" if value is None else str(value)
    return value if is_number else text if len(text) <= 40 else text[:39] + "…"


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _link(folder: Path, base: Path) -> str:
    """Return the way from a page's folder to a run's own page, or nothing where there is none."""
    target = folder / "report.html"
    return quote(Path(os.path.relpath(target, base)).as_posix()) if target.is_file() else ""
