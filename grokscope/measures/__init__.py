"""Measures: a formula plus one function `measure(trajectory, *, option=…) -> Series`, one file a family.

A new measure costs one file, one line in `grokscope.plugins`, and one test of its formula. It takes the whole
trajectory, because many need its end (key frequencies) or its start (distance from initialization).
"""

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import numpy as np

from grokscope import files, plugins
from grokscope.errors import GrokscopeError
from grokscope.series import Series
from grokscope.trajectory import Trajectory

COSTLY = {"sharpness": 24, "keskar_sharpness": 12, "unembedding": 6}
"""Measures that take seconds a checkpoint, and at how many checkpoints `grokscope measure` evaluates them."""


def names() -> list[str]:
    """Return the names of all measures, sorted."""
    return plugins.names("measures")


def evaluate(name: str, trajectory: Trajectory, **options: Any) -> Series:
    """Return a measure of a trajectory; nothing is written.

    Raise GrokscopeError for an unknown measure or option, and where a measure refuses a task.
    """
    measure = plugins.load("measures", name)
    given = _with_defaults(name, measure, options)
    series = measure(trajectory, **given)
    gaps = np.array(trajectory.gaps, np.int64).reshape(-1, 2)
    return dataclasses.replace(
        series, constants={**series.constants, "gaps": gaps}, options=given, digest=trajectory.digest
    )


def saved(name: str, trajectory: Trajectory, thin: int | None = None) -> Series:
    """Return a measure of a run with its default options, from RUN/measures if it is there, else save it there.

    It is evaluated at `thin` checkpoints, or, without it, at all of them, a costly measure at a few; then also a
    saved series with more of them will do. A saved series counts only if it was measured on these very
    checkpoints, bit for bit, and is never replaced by one with fewer of them. Raise GrokscopeError for a trajectory
    in memory, which has no folder.
    """
    if trajectory.path is None:
        raise GrokscopeError("A trajectory in memory has no folder to save measures in; use `evaluate`.")
    wanted = trajectory.thin(thin or COSTLY.get(name, len(trajectory)))
    path = folder(trajectory.path) / f"{name}.safetensors"
    there = _valid(path, name, trajectory)
    is_whole = there is not None and len(there) >= len(wanted) and there.steps[-1] == trajectory.steps[-1]
    if there is not None and (there.digest == wanted.digest or (is_whole and thin is None)):
        return there
    series = evaluate(name, wanted)
    if not is_whole:
        files.make_folder(path.parent)
        series.save(path)
    return series


def _valid(path: Path, name: str, trajectory: Trajectory) -> Series | None:
    """Return the series in a file if it is this measure of these checkpoints with default options, else None."""
    if not path.exists():
        return None
    try:
        series = Series.load(path)
        of_these = trajectory.select(series.steps).digest == series.digest
        return (
            series
            if of_these and series.options == _with_defaults(name, plugins.load("measures", name), {})
            else None
        )
    except GrokscopeError:
        return None  # Damaged, or of other checkpoints: no loss, it is measured again.


def folder(trajectory_path: Path) -> Path:
    """Return where a run's measures are saved."""
    return trajectory_path / "measures"


def _with_defaults(name: str, measure: Any, options: dict[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(measure).parameters
    allowed = {key: one.default for key, one in parameters.items() if one.kind is one.KEYWORD_ONLY}
    for option in options:
        if option not in allowed:
            raise GrokscopeError(plugins.unknown(f"option of the measure {name!r}", option, list(allowed)))
    return {**allowed, **options}
