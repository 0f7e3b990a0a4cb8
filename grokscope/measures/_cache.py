"""Measured series in RUN/measures: finding those that are still valid, and keeping new ones."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from grokscope.disk import atomic
from grokscope.errors import GrokscopeError
from grokscope.measures._declaration import declaration_of
from grokscope.measures._request import MeasureRequest, gaps_of, options_text
from grokscope.series import Series
from grokscope.trajectory import Trajectory

_ABANDONED = 3600.0
"""The age in seconds from which an unfinished file counts as left behind by a writer that died."""


def saved(name: str, trajectory: Trajectory, /, thin: int | None = None, **options: Any) -> Series:
    """Return a measure of a run from RUN/measures if it is valid, else evaluate it and save it there.

    Args:
        name: The measure's name.
        trajectory: The run's trajectory, opened from its folder.
        thin: The number of checkpoints to measure, from 1; by default all of them, and for a costly measure the
            number that it declares.
        **options: Options of the measure; the others keep their defaults.

    Returns:
        The series. Without `thin`, a saved series with more checkpoints than the default is returned as it is.

    Raises:
        GrokscopeError: As `evaluate`; and for a trajectory in memory, which has no folder.
    """
    return find_or_evaluate(MeasureRequest.thinned(name, trajectory, options, thin))


def find_or_evaluate(request: MeasureRequest) -> Series:
    """Return the saved series that answers a request, else evaluate it and save the result."""
    series = find(request)
    return keep(request.evaluate(), request.trajectory) if series is None else series


def found(name: str, trajectory: Trajectory, /, thin: int | None = None, **options: Any) -> Series | None:
    """Return the saved series that `saved` would return, or None if it would have to evaluate the measure."""
    return find(MeasureRequest.thinned(name, trajectory, options, thin))


def find(request: MeasureRequest) -> Series | None:
    """Return the saved series that answers a request, or None.

    A saved series is valid if it has these options, was measured on these checkpoints, bit for bit, by the present
    version of the formula, and names the present gaps of the run. A request that is not exact accepts more
    checkpoints up to the last one. Raise GrokscopeError for a trajectory in memory.
    """
    for path in _paths(request, request.digest):
        series = _load(path, request.trajectory)
        if series is None or (series.measure, options_text(series.options)) != (request.name, request.options_text):
            continue
        sound = sound_trajectory(series, request.trajectory)
        if sound is None:
            continue
        series = _trimmed(series, sound)
        wanted = dataclasses.replace(request, trajectory=sound).checkpoints
        if series.digest == wanted.digest or (not request.is_exact and _covers(series, wanted)):
            return series
    return None


def keep(series: Series, trajectory: Trajectory) -> Series:
    """Save a measured series in RUN/measures, and return it.

    Its file is NAME.safetensors, or NAME-KEY.safetensors with a key of the options that are not at their defaults. A
    valid series with more checkpoints keeps that file; then the new one gets a key of its checkpoints in addition.
    """
    request = MeasureRequest(series.measure, series.options, trajectory)
    usual, own = _paths(request, series.digest)
    present = _load(usual, trajectory)
    if (
        present is not None
        and (present.measure, options_text(present.options)) == (request.name, request.options_text)
        and (sound := sound_trajectory(present, trajectory)) is not None
    ):
        present = _trimmed(present, sound)
        is_taken = len(present) > len(series) or _covers(present, series)
    else:
        is_taken = False
    atomic.make_folder(usual.parent)
    atomic.remove_temporary_files(usual.parent, older_than=_ABANDONED)
    series.save(own if is_taken else usual)
    return series


def kept(trajectory: Trajectory) -> list[Series]:
    """Return every valid series in RUN/measures, with any options, in the order of their file names.

    A trajectory in memory has none.
    """
    if trajectory.path is None:
        return []
    valid = []
    for path in sorted(folder(trajectory.path).glob("*.safetensors")):
        series = _load(path, trajectory)
        sound = None if series is None else sound_trajectory(series, trajectory)
        if series is not None and sound is not None:
            trajectory = sound
            valid.append(series)
    # A later series may have shown that a checkpoint of an earlier one is damaged.
    return [_trimmed(series, trajectory) for series in valid]


def is_valid(series: Series, trajectory: Trajectory) -> bool:
    """Return whether a series is of checkpoints of this run, by the present formula, with the run's gaps."""
    return sound_trajectory(series, trajectory) is not None


def sound_trajectory(series: Series, trajectory: Trajectory) -> Trajectory | None:
    """Return the trajectory without the checkpoints that a series names as damaged, or None if it is not valid.

    A checkpoint that only the series names as damaged is read: if it is readable now, the series is not valid.
    """
    if series.version != _version_of(series.measure):
        return None
    gaps = series.constants.get("gaps", np.empty(0))
    if gaps.dtype != np.int64 or gaps.shape[1:] != (2,):
        return None
    stretches = set(map(tuple, gaps.tolist()))
    single = {first for first, last in stretches if first == last} & set(trajectory.steps.tolist())
    try:
        sound = trajectory.without_damaged(single) if single else trajectory
        lost = {(step, step) for step in sound.lost}
        has_gaps = set(sound.gaps) - lost <= stretches <= set(sound.gaps)
        return sound if has_gaps and sound.digest_of(series.steps) == series.digest else None
    except GrokscopeError:
        return None  # The run lacks some of these checkpoints, or has none that is undamaged.


def folder(run: Path) -> Path:
    """Return the folder that a run's measures are saved in."""
    return run / "measures"


def _version_of(measure: str) -> int:
    try:
        return declaration_of(measure).version
    except GrokscopeError:
        return 1  # The measure of a package that is not installed here.


def _covers(series: Series, wanted: Series | Trajectory) -> bool:
    """Return whether a series has at least as many checkpoints as are wanted, and the same last one."""
    return len(series) >= len(wanted) and bool(series.steps[-1] == wanted.steps[-1])


def _paths(request: MeasureRequest, digest: str) -> tuple[Path, Path]:
    """Return the default path for a request's options, and the fallback when a longer series already occupies it."""
    if request.trajectory.path is None:
        raise GrokscopeError("A trajectory in memory has no folder to save measures in; use `evaluate`.")
    parent, name = folder(request.trajectory.path), request.name
    key = "" if request.has_default_options else f"-{_key(request.options_text)}"
    return parent / f"{name}{key}.safetensors", parent / f"{name}-{_key(request.options_text + digest)}.safetensors"


def _load(path: Path, trajectory: Trajectory) -> Series | None:
    """Return the series of a file, or None if there is no file or it is damaged: it can be measured again.

    It has the labels that its measure declares today, which a file may have in an older wording.
    """
    if not path.exists():
        return None
    try:
        series = Series.load(path)
    except GrokscopeError:
        return None
    try:
        declared = declaration_of(series.measure).variables
    except GrokscopeError:
        declared = {}
    variables = {**series.variables, **{name: declared[name] for name in declared if name in series}}
    return dataclasses.replace(series, variables=variables, loss=trajectory.config.loss)


def _trimmed(series: Series, trajectory: Trajectory) -> Series:
    """Return a series without the checkpoints that were found damaged since it was measured."""
    is_sound = ~np.isin(series.steps, list(trajectory.lost))
    if is_sound.all() or not is_sound.any():
        return series
    return dataclasses.replace(
        series,
        steps=series.steps[is_sound],
        arrays={name: array[is_sound] for name, array in series.arrays.items()},
        constants={**series.constants, "gaps": gaps_of(trajectory)},
        digest=trajectory.digest_of(series.steps[is_sound]),
    )


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
