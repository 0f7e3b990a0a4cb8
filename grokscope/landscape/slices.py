"""Slices: losses on lines and planes through a checkpoint, and on the line between two checkpoints."""

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
    """Return losses at w + α d on lines through each checkpoint w.

    - At α = 0 the loss is that of the checkpoint, exactly if `dtype` is the dtype of the checkpoint.
    - Random directions do not prove that a minimum is flat: of 10⁵ directions only a few are steep, and random ones
      miss them.
    - Cost: steps × directions × n_points forward passes over all equations.

    Args:
        trajectory: The checkpoints, the task and the split.
        steps: The steps of the checkpoints.
        along: The directions d, as in `direction`. By default five filter-normalised random directions with the same
            random numbers at every step; the spread over them shows how far a single one can be trusted.
        reach: The largest α, above 0. The unit is the length of the weights. Along the gradient or the eigenvector, a
            much smaller reach than the default shows the curvature.
        n_points: The number of points on each line, odd and at least 3, so that one point is the checkpoint.
        seed: The seed of the random directions.
        dtype: The precision of parameters and logits.

    Returns:
        Losses and accuracies over the axes `step`, `direction` and `alpha`.

    Raises:
        GrokscopeError: An option is out of range, there are no steps or directions, or `direction` refuses one.

    References:
        Li et al. 2018, section 4.
    """
    alpha = _centred_range(reach, n_points)
    if not along or not len(steps):
        raise GrokscopeError("steps, along: empty. Allowed: at least one step and one direction.")
    axes = {"step": np.array(steps), "direction": np.array(_labels(along)), "alpha": alpha}

    def models() -> Iterator[Parameters]:
        for step in steps:
            objective = _objective_at(trajectory, step, dtype)
            for d in _directions(objective, along, seed):
                for a in alpha.tolist():
                    yield moved_parameters(objective, a * d)

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
    """Return losses at w + α d + β e on a plane through one checkpoint w.

    The cost is n_points² forward passes over all equations.

    Args:
        trajectory: The checkpoints, the task and the split.
        step: The step of the checkpoint.
        along: The two directions d and e, as in `slices`. Random directions in so many dimensions are nearly
            orthogonal; other directions are not made orthogonal.
        reach: The largest α and β, above 0, in lengths of the weights.
        n_points: The number of points along each axis, odd and at least 3.
        seed: The seed of the random directions.
        dtype: The precision of parameters and logits.

    Returns:
        Losses and accuracies over the axes `alpha` and `beta`.

    Raises:
        GrokscopeError: An option is out of range, there are not two directions, or `direction` refuses one.

    References:
        Li et al. 2018, section 4.
    """
    alpha = _centred_range(reach, n_points)
    if len(along) != 2:
        raise GrokscopeError(f"along: {len(along)} directions. Allowed: two.")
    objective = _objective_at(trajectory, step, dtype)
    d, e = _directions(objective, along, seed)
    models = (moved_parameters(objective, a * d + b * e) for a in alpha.tolist() for b in alpha.tolist())
    return loss_scan(trajectory, {"alpha": alpha, "beta": alpha}, models)


def interpolate(
    trajectory: Trajectory, first: int, second: int, *, other: Trajectory | None = None, n_points: int = 25
) -> LabelledArrays:
    """Return losses at (1 − t) w_A + t w_B for t from 0 to 1.

    - A barrier is a maximum of the loss above both ends.
    - Networks from different initializations also differ by permutations of neurons, which a line does not undo. A
      barrier between them is therefore not evidence of different solutions.
    - Cost: n_points forward passes over all equations.

    Args:
        trajectory: The run of checkpoint A. Its task and split evaluate all models.
        first: The step of checkpoint A.
        second: The step of checkpoint B.
        other: The run of checkpoint B, with the same architecture; by default the same run.
        n_points: The number of points, at least 2.

    Returns:
        Losses and accuracies over the axis `t`, in the precision of the checkpoints.

    Raises:
        GrokscopeError: `n_points` is out of range, a step has no checkpoint, or the architectures differ.

    References:
        Goodfellow et al. 2015.
    """
    if n_points < 2:
        raise GrokscopeError(f"n_points: {n_points}. Allowed: from 2.")
    runs = trajectory, trajectory if other is None else other
    if runs[0].model != runs[1].model:
        raise GrokscopeError(
            f"other: the architectures of the two runs differ, so their weights cannot be interpolated: "
            f"{runs[0].model} and {runs[1].model}. Allowed: a run with the same architecture."
        )
    a, b = (run.at(step).parameters for run, step in zip(runs, (first, second), strict=True))
    t = np.linspace(0, 1, n_points)
    models = ({name: (1 - x) * a[name] + x * b[name] for name in a} for x in t.tolist())
    return loss_scan(trajectory, {"t": t}, models)


def moved_parameters(objective: Objective, displacement: Float[Tensor, " n"]) -> Parameters:
    """Return the parameters of a checkpoint with a vector added to the trained ones."""
    return {**objective.parameters, **objective.to_tensors(objective.point + displacement)}


def _objective_at(trajectory: Trajectory, step: int, dtype: str) -> Objective:
    """Return the train loss as a function of the weights, at one checkpoint."""
    ((_, objective),) = objectives(trajectory.select([step]), dtype=dtype)
    return objective


def _directions(objective: Objective, along: Sequence[Direction], seed: int) -> list[Float[Tensor, " n"]]:
    """Return the directions at a checkpoint."""
    # Only the gradient and the Hessian need a graph, and they enable it themselves.
    with torch.no_grad():
        return [direction(objective, kind, seed, index) for index, kind in enumerate(along)]


def _labels(along: Sequence[Direction]) -> list[str]:
    """Return a label for each direction, such as "random 0"."""
    return [f"{kind if isinstance(kind, str) else 'given'} {index}" for index, kind in enumerate(along)]


def _centred_range(reach: float, n_points: int) -> Float[np.ndarray, " n_points"]:
    """Return points from −reach to reach; the middle one is exactly 0."""
    if n_points < 3 or n_points % 2 == 0 or not 0 < reach < np.inf:
        raise GrokscopeError(
            f"n_points: {n_points}. Allowed: an odd number from 3, so that one point is the checkpoint. "
            f"reach: {reach}. Allowed: above 0."
        )
    half = n_points // 2
    return reach * np.arange(-half, half + 1) / half
