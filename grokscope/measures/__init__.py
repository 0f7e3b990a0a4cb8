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

COSTLY = {"sharpness": 24}
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


def saved(name: str, trajectory: Trajectory, **options: Any) -> Series:
    """Return a measure of a run, from RUN/measures if the same was measured there before, else evaluated.

    What is evaluated is saved there. The same means the same checkpoints, bit for bit, and the same options.
    """
    if trajectory.path is None:
        raise GrokscopeError("A trajectory in memory has no folder to save measures in; use `evaluate`.")
    path = trajectory.path / "measures" / f"{name}.safetensors"
    if path.exists():
        try:
            series = Series.load(path)
            given = _with_defaults(name, plugins.load("measures", name), options)
            if series.digest == trajectory.digest and series.options == given:
                return series
        except GrokscopeError:
            pass  # A damaged result is no loss: it is measured again.
    series = evaluate(name, trajectory, **options)
    files.make_folder(path.parent)
    series.save(path)
    return series


def usual_steps(name: str, trajectory: Trajectory) -> Trajectory:
    """Return the checkpoints at which a measure is evaluated unless somebody asks for others."""
    return trajectory.thin(COSTLY[name]) if name in COSTLY else trajectory


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
