"""Measures: a formula plus one function `measure(trajectory, *, option=…) -> Series`, one file per family.

Every file without a leading underscore is a measure. A new measure is one file, one line in `grokscope.plugins`, and
one test of its formula. It takes the whole trajectory, because many measures need its end (key frequencies) or its
start (distance from initialization).
"""

from typing import Any

from grokscope import plugins
from grokscope.errors import GrokscopeError
from grokscope.measures._cache import (
    find,
    find_or_evaluate,
    folder,
    found,
    is_valid,
    keep,
    kept,
    saved,
    sound_trajectory,
)
from grokscope.measures._declaration import Declaration, Panel, declaration_of, measure
from grokscope.measures._request import MeasureRequest, completed_options, is_refusal
from grokscope.series import Series
from grokscope.trajectory import Trajectory

__all__ = [
    "Declaration",
    "MeasureRequest",
    "Panel",
    "check",
    "completed_options",
    "declaration_of",
    "evaluate",
    "find",
    "find_or_evaluate",
    "folder",
    "found",
    "is_refusal",
    "is_valid",
    "keep",
    "kept",
    "measure",
    "names",
    "saved",
    "sound_trajectory",
    "usual",
]


def names() -> list[str]:
    """Return the names of all measures, sorted."""
    return plugins.names("measures")


def usual() -> list[str]:
    """Return the names of the measures that `grokscope measure` evaluates when none is named.

    A measure that cannot be loaded is among them, so that the command reports it.
    """
    return [name for name in names() if not _is_only_when_named(name)]


def evaluate(name: str, trajectory: Trajectory, /, **options: Any) -> Series:
    """Return a measure of a trajectory; nothing is written.

    Args:
        name: The measure's name, one of `names()`.
        trajectory: The checkpoints to measure, all of them; `trajectory.thin(n)` chooses fewer.
        **options: Options of the measure; the others keep their defaults.

    Returns:
        The series. Damaged checkpoints are left out with a warning, and are among the series' gaps.

    Raises:
        GrokscopeError: The measure or an option is unknown, the value of an option is of the wrong type, or the
            measure refuses the task.
        DamagedError: No undamaged checkpoint is left.
    """
    return MeasureRequest.of(name, trajectory, options).evaluate()


def check(name: str, /, **options: Any) -> None:
    """Raise GrokscopeError for an unknown measure, an unknown option, or a value of the wrong type."""
    completed_options(name, options)


def _is_only_when_named(name: str) -> bool:
    try:
        return declaration_of(name).only_when_named
    except GrokscopeError:
        return False
