"""Measures: a formula plus one function `measure(trajectory, *, option=…) -> Series`, one file a family.

A new measure costs one file, one line in `grokscope.plugins`, and one test of its formula. It takes the whole
trajectory, because many need its end (key frequencies) or its start (distance from initialization).
"""

import dataclasses
import hashlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from grokscope import environment, plugins
from grokscope.disk import atomic
from grokscope.errors import DamagedError, GrokscopeError
from grokscope.measures._options import complete
from grokscope.series import Series
from grokscope.trajectory import Trajectory

COSTLY = {
    "sharpness": 24,
    "hessian": 12,
    "hessian_spectrum": 12,
    "keskar_sharpness": 12,
    "sam_sharpness": 12,
    "average_sharpness": 24,
    "fisher_rao_norm": 100,
    "relative_flatness": 100,
    "unembedding": 6,
    "ablations": 24,
    "neurons": 100,
    "representations": 48,
    "numerics": 48,
    "matrix_norms": 100,
    "local_learning_coefficient": 6,
    "attention": 120,
    "example_loss": 60,
}
"""Measures that take long, or much room, at each checkpoint, and at how many `grokscope measure` evaluates them."""
WHEN_NAMED = ("local_learning_coefficient",)
"""Measures that `grokscope measure` takes only when they are named: they need an extra, and long."""
FORMULAS: dict[str, int] = {"embedding": 2, "unembedding": 2, "weight_norm": 2}
"""The version of each measure's formula, 1 if it is not here. Raise it when the formula gives other numbers, or more
of them, than before: what was saved by another version is measured anew."""

_ABANDONED = 3600.0
"""The seconds after which a file that nobody has written to is taken for one that its writer has left behind."""


def names() -> list[str]:
    """Return the names of all measures, sorted."""
    return plugins.names("measures")


def usual() -> list[str]:
    """Return the names of the measures that are taken where none is named."""
    return [name for name in names() if name not in WHEN_NAMED]


def evaluate(name: str, trajectory: Trajectory, /, **options: Any) -> Series:
    """Return a measure of a trajectory; nothing is written.

    Checkpoints that turn out to be damaged are left out, which a warning says, and so do the series' gaps.
    Raise GrokscopeError for an unknown measure or option, for an option that is not of its kind, and where a measure
    refuses a task.
    """
    given = _complete(name, options)
    environment.keep_memory()
    measure = plugins.load("measures", name)
    try:
        series = measure(trajectory, **given)
    except DamagedError as error:
        leave_out(trajectory, error)
        series = measure(trajectory, **given)
    return dataclasses.replace(
        series,
        constants={**series.constants, "gaps": gaps_of(trajectory)},
        options=given,
        digest=trajectory.digest,
        version=FORMULAS.get(name, 1),
    )


def leave_out(trajectory: Trajectory, error: DamagedError) -> list[int]:
    """Leave out of a trajectory what is damaged, warn, and return the steps; raise `error` if nothing is left."""
    trajectory.check()
    if not len(trajectory):
        raise error
    steps = sorted(trajectory.lost)
    shown = ", ".join(f"{step:,}" for step in steps[:10]) + " …" * (len(steps) > 10)
    warnings.warn(
        f"Left out, since damaged: the checkpoint{'s' * (len(steps) > 1)} at {shown}. {error}", stacklevel=3
    )
    return steps


def check(name: str, /, **options: Any) -> None:
    """Raise GrokscopeError for an unknown measure, an option that it lacks, or a value that is not of its kind."""
    _complete(name, options)


def saved(name: str, trajectory: Trajectory, /, thin: int | None = None, **options: Any) -> Series:
    """Return a measure of a run from RUN/measures if it is there (`found`), else evaluate it and `keep` it there.

    It is evaluated at `thin` checkpoints, or, without it, at all of them, a costly measure at a few. Raise
    GrokscopeError as `evaluate` does, and for a trajectory in memory, which has no folder.
    """
    there = found(name, trajectory, thin, **options)
    if there is not None:
        return there
    series = evaluate(name, wanted(name, trajectory, thin), **options)
    if len(series) < len(wanted(name, trajectory, thin)):
        # Of a few checkpoints one was damaged, and others are wanted without it.
        series = evaluate(name, wanted(name, trajectory, thin), **options)
    return keep(series, trajectory)


def wanted(name: str, trajectory: Trajectory, thin: int | None = None) -> Trajectory:
    """Return the checkpoints that `saved` would measure."""
    return trajectory.thin(COSTLY.get(name, len(trajectory)) if thin is None else thin)


def found(name: str, trajectory: Trajectory, /, thin: int | None = None, **options: Any) -> Series | None:
    """Return the saved series that answers for these checkpoints and options, or None.

    A saved series counts only if it has these very options, was measured on these very checkpoints, bit for bit, by
    the present formula, and names the gaps that the run has now. Without `thin` one with more checkpoints, up to the
    last, will do. Raise GrokscopeError as `saved` does.
    """
    given = _complete(name, options)
    for i in range(2):
        path = _places(name, trajectory, given, wanted(name, trajectory, thin).digest)[i]
        there = _valid(path, name, trajectory, given)
        # Not sooner: where a series says that a checkpoint is damaged, it may turn out to be.
        asked = wanted(name, trajectory, thin)
        if there is not None and (there.digest == asked.digest or (thin is None and _is_whole(there, asked))):
            return there
    return None


def kept(trajectory: Trajectory) -> list[Series]:
    """Return every series in RUN/measures that was measured on checkpoints of this very run, with any options.

    Left out is what `found` would not take either: what is damaged, of other bits, of another version of its formula,
    or names other gaps. They come in the order of their files' names; a trajectory in memory has none.
    """
    if trajectory.path is None:
        return []
    there = []
    for path in sorted(folder(trajectory.path).glob("*.safetensors")):
        try:
            series = Series.load(path)
        except GrokscopeError:
            continue  # No loss: it can be measured again.
        if is_of(series, trajectory):
            there.append(_without_damaged(series, trajectory))
    # One may have shown that a checkpoint is damaged which another, before it, has.
    return [_without_damaged(series, trajectory) for series in there]


def keep(series: Series, trajectory: Trajectory) -> Series:
    """Save a measured series in RUN/measures and return it.

    Its place is NAME.safetensors, or NAME-KEY.safetensors with a key of the options that are not the defaults. What
    stands there with more checkpoints stays: this one then lies beside it, under a key of its checkpoints too.
    """
    usual, own = _places(series.measure, trajectory, series.options, series.digest)
    there = _valid(usual, series.measure, trajectory, series.options)
    is_taken = there is not None and (len(there) > len(series) or _is_whole(there, series))
    atomic.make_folder(usual.parent)
    atomic.remove_temporary(usual.parent, older_than=_ABANDONED)
    series.save(own if is_taken else usual)
    return series


def _is_whole(there: Series, asked: Series | Trajectory) -> bool:
    """Whether a series has as many checkpoints as are asked for, or more, and the same last one."""
    return len(there) >= len(asked) and bool(there.steps[-1] == asked.steps[-1])


def _complete(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    return complete(plugins.load("measures", name), name, options)


def _places(name: str, trajectory: Trajectory, options: Mapping[str, Any], digest: str) -> tuple[Path, Path]:
    """Return where a series with these options lies, and where if one with more checkpoints has that place."""
    if trajectory.path is None:
        raise GrokscopeError("A trajectory in memory has no folder to save measures in; use `evaluate`.")
    there, said = folder(trajectory.path), _plain(options)
    key = "" if said == _plain(_complete(name, {})) else f"-{_key(said)}"
    return there / f"{name}{key}.safetensors", there / f"{name}-{_key(said + digest)}.safetensors"


def _valid(path: Path, name: str, trajectory: Trajectory, options: Mapping[str, Any]) -> Series | None:
    """Return the series in a file if it is this measure of these checkpoints with these options, else None."""
    if not path.exists():
        return None
    try:
        series = Series.load(path)
    except GrokscopeError:
        return None  # Damaged: no loss, it is measured again.
    is_asked = (series.measure, _plain(series.options)) == (name, _plain(options))
    return _without_damaged(series, trajectory) if is_asked and is_of(series, trajectory) else None


def is_of(series: Series, trajectory: Trajectory) -> bool:
    """Return whether a series is of checkpoints of this very run, by the present formula, with the run's gaps."""
    if series.version != FORMULAS.get(series.measure, 1):
        return False
    try:
        return _has_gaps(series, trajectory) and trajectory.digest_of(series.steps) == series.digest
    except GrokscopeError:
        return False  # Of checkpoints that the run does not have.


def _without_damaged(series: Series, trajectory: Trajectory) -> Series:
    """Return a series without the checkpoints that were found damaged since it was measured."""
    is_there = ~np.isin(series.steps, list(trajectory.lost))
    if is_there.all() or not is_there.any():
        return series
    return dataclasses.replace(
        series,
        steps=series.steps[is_there],
        arrays={name: array[is_there] for name, array in series.arrays.items()},
        constants={**series.constants, "gaps": gaps_of(trajectory)},
        digest=trajectory.digest_of(series.steps[is_there]),
    )


def _has_gaps(series: Series, trajectory: Trajectory) -> bool:
    """Whether a series names the gaps that a run has; a checkpoint that it says is damaged is read, to see."""
    gaps = series.constants.get("gaps", np.empty(0))
    if gaps.dtype != np.int64 or gaps.shape[1:] != (2,):
        return False
    said = set(map(tuple, gaps.tolist()))
    if steps := {first for first, last in said if first == last} & set(trajectory.steps.tolist()):
        trajectory.select(steps).check()
    lost = {(step, step) for step in trajectory.lost}
    return set(trajectory.gaps) - lost <= said <= set(trajectory.gaps)


def gaps_of(trajectory: Trajectory) -> Int[np.ndarray, "gaps 2"]:
    """Return the gaps of a trajectory as a series has them among its constants."""
    return np.array(trajectory.gaps, np.int64).reshape(-1, 2)


def _plain(options: Mapping[str, Any]) -> str:
    """Return options as a text that is the same before and after a file, which keeps a tuple as a list."""
    return json.dumps(dict(options), sort_keys=True)


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def folder(trajectory_path: Path) -> Path:
    """Return where a run's measures are saved."""
    return trajectory_path / "measures"
