"""Slices: losses on lines and planes through a checkpoint, and on the line between two."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from grokscope.errors import GrokscopeError
from grokscope.landscape.directions import Direction, direction
from grokscope.landscape.objective import Objective, loss_scan, objectives
from grokscope.model.forward import Parameters
from grokscope.series import LabelledArrays
from grokscope.trajectory import Trajectory


def slices(
    trajectory: Trajectory,
    steps: Sequence[int],
    *,
    along: Sequence[Direction] = ("random",) * 5,
    reach: float = 1.0,
    n_points: int = 31,
    seed: int = 0,
    dtype: str = "float32",
) -> LabelledArrays:
    """Return losses at w + α d for α = −reach … reach around each checkpoint w, over `step`, `direction`, `alpha`.

    By default along five filter-normalised random directions (Li et al. 2018), whose spread over `direction` says
    what a single one is worth; the same random numbers at every step. `along` may name others, `direction` in
    `grokscope.landscape` says which; α is in lengths of the weights, so along the gradient or the top eigenvector a
    much smaller reach shows the curvature. A wide valley is a flat minimum only as far as random directions tell:
    of 10⁵ there are few steep ones, and they miss them. The centre, α = 0, is the checkpoint's own loss, to the bit
    where `dtype` is the checkpoint's.

    Costs steps × directions × n_points forward passes over all equations. Raise GrokscopeError for an even
    `n_points`, which has no centre, a reach that is not above 0, and as `direction` does.
    """
    alpha = _around(reach, n_points)
    if not along or not len(steps):
        raise GrokscopeError("steps and along: allowed: at least one step and one direction.")
    axes = {"step": np.array(steps), "direction": np.array(_labels(along)), "alpha": alpha}

    def models() -> Iterator[Parameters]:
        for step in steps:
            objective = _at(trajectory, step, dtype)
            for d in _directions(objective, along, seed):
                for a in alpha.tolist():
                    yield moved(objective, a * d)

    return loss_scan(trajectory, axes, models())


def surface(
    trajectory: Trajectory,
    step: int,
    *,
    along: Sequence[Direction] = ("random", "random"),
    reach: float = 1.0,
    n_points: int = 25,
    seed: int = 0,
    dtype: str = "float32",
) -> LabelledArrays:
    """Return losses at w + α d + β e around one checkpoint, over the axes `alpha` and `beta`, each −reach … reach.

    d and e are two directions as in `slices`, by default two filter-normalised random ones, which in so many
    dimensions are nearly orthogonal; others are taken as they are given. Costs n_points² forward passes. Raise
    GrokscopeError as `slices` does, and unless there are two directions.
    """
    alpha = _around(reach, n_points)
    if len(along) != 2:
        raise GrokscopeError(f"along: {len(along)} directions; allowed: two.")
    objective = _at(trajectory, step, dtype)
    d, e = _directions(objective, along, seed)
    places = ((a, b) for a in alpha.tolist() for b in alpha.tolist())
    return loss_scan(
        trajectory, {"alpha": alpha, "beta": alpha}, (moved(objective, a * d + b * e) for a, b in places)
    )


def interpolate(
    trajectory: Trajectory, first: int, second: int, *, other: Trajectory | None = None, n_points: int = 25
) -> LabelledArrays:
    """Return losses at w(t) = (1 − t) w_A + t w_B for t = 0 … 1, over the axis `t` (Goodfellow et al. 2015).

    A is the checkpoint at step `first`, B that at step `second`, of `other` if it is given, which must have the same
    architecture; the task and the split are those of the first. A barrier between them is a maximum of the loss
    above both ends. Networks from different initializations differ by permutations of neurons too, which no line
    undoes: a barrier between them is no evidence of different solutions. Parameters stay in the precision of the
    checkpoints; each point costs one forward pass over all equations.
    """
    if n_points < 2:
        raise GrokscopeError(f"n_points: {n_points}; allowed: from 2.")
    ends = trajectory, trajectory if other is None else other
    if ends[0].model != ends[1].model:
        raise GrokscopeError(
            f"The two runs have other architectures, so there is no line between their weights: "
            f"{ends[0].model} and {ends[1].model}."
        )
    a, b = (one.at(step).parameters for one, step in zip(ends, (first, second), strict=True))
    t = np.linspace(0, 1, n_points)
    models = ({name: (1 - x) * a[name] + x * b[name] for name in a} for x in t.tolist())
    return loss_scan(trajectory, {"t": t}, models)


def moved(objective: Objective, by: Float[Tensor, " n"]) -> Parameters:
    """Return a checkpoint's parameters with the trained ones moved by a flat vector."""
    return {**objective.parameters, **objective.unflat(objective.point + by)}


def _at(trajectory: Trajectory, step: int, dtype: str) -> Objective:
    ((_, objective),) = objectives(trajectory.select([step]), dtype=dtype)
    return objective


def _directions(objective: Objective, along: Sequence[Direction], seed: int) -> list[Float[Tensor, " n"]]:
    # A gradient or a Hessian works out its own graph; nothing else here needs one.
    with torch.no_grad():
        return [direction(objective, kind, seed, index) for index, kind in enumerate(along)]


def _labels(along: Sequence[Direction]) -> list[str]:
    return [f"{kind if isinstance(kind, str) else 'given'} {index}" for index, kind in enumerate(along)]


def _around(reach: float, n_points: int) -> Float[np.ndarray, " n_points"]:
    """Return places from −reach to reach, the middle one exactly 0."""
    if n_points < 3 or n_points % 2 == 0 or not 0 < reach < np.inf:
        raise GrokscopeError(
            f"n_points: {n_points}, allowed: an odd number from 3, so that the checkpoint is a point; "
            f"reach: {reach}, allowed: above 0."
        )
    half = n_points // 2
    return reach * np.arange(-half, half + 1) / half
