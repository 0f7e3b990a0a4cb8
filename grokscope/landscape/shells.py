"""Shells: losses against the weight norm, along rays from the origin and at the lowest point of each sphere."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from grokscope.errors import GrokscopeError
from grokscope.landscape.objective import loss_scan, objectives
from grokscope.series import LabelledArrays
from grokscope.trajectory import Trajectory

Function = Callable[[Float[Tensor, " n"]], tuple[float, Float[Tensor, " n"]]]
"""A function f of a vector that returns f(x) and ∇f(x)."""


@dataclass(frozen=True, eq=False)
class LowestPoint:
    """The lowest point of a function that a search on a sphere around the origin visited."""

    value: float
    point: Float[Tensor, " n"]
    residual: float
    """The norm of the tangential gradient, 0 at a stationary point of the sphere."""


def rays(
    trajectory: Trajectory,
    steps: Sequence[int],
    *,
    weight_norms: Sequence[float] | None = None,
    n_points: int = 25,
    dtype: str = "float32",
) -> LabelledArrays:
    """Return losses at R w/‖w‖ for each checkpoint w and each norm R.

    - w are the trained weights.
    - Accuracies are constant along a ray if the logits are homogeneous in the weights. With biases, LayerNorm and
      attention they are only approximately homogeneous.
    - Cost: steps × norms forward passes over all equations.

    Args:
        trajectory: The checkpoints, the task and the split.
        steps: The steps of the checkpoints.
        weight_norms: The norms R, above 0; by default `n_points` norms in geometric progression, from half the
            smallest to twice the largest norm of the checkpoints.
        n_points: The number of default norms, from 1.
        dtype: The precision of parameters and logits.

    Returns:
        Losses and accuracies over the axes `step` and `weight_norm`.

    Raises:
        GrokscopeError: An option is out of range, or the weights of a checkpoint are all zero or not finite.

    References:
        Liu et al. 2022, "Omnigrok".
    """
    checkpoints = trajectory.select(steps)
    norms = _norms(checkpoints, weight_norms, n_points, dtype)

    def models() -> Iterator[dict[str, Tensor]]:
        for _, objective in objectives(checkpoints, dtype=dtype):
            for norm in norms.tolist():
                yield {**objective.parameters, **objective.to_tensors(_scaled_to(objective.point, norm))}

    return loss_scan(checkpoints, {"step": checkpoints.steps, "weight_norm": norms}, models())


def shells(
    trajectory: Trajectory,
    starts: Sequence[int],
    *,
    weight_norms: Sequence[float] | None = None,
    n_points: int = 7,
    n_steps: int = 1000,
    lr: float = 0.03,
    dtype: str = "float32",
) -> LabelledArrays:
    """Return the reduced landscape l(R) = min over ‖w‖ = R of the train loss, and the test loss at the minimum.

    In the paper l(R) has the shape of an L, and the test loss that of a U. `lowest_on_sphere` searches each sphere
    from each start, scaled to the sphere. Step 0 is the scaled initialization; a late start mostly stays at its own
    solution.

    - A sphere has many minima with nearly no train loss; some generalise and some do not. The test loss is that of
      the minimum that this search finds from this start in `n_steps`. A short search finds memorizing minima, as
      training does.
    - Cost: starts × norms × n_steps gradients of the train loss.

    Args:
        trajectory: The checkpoints, the task and the split.
        starts: The steps of the checkpoints from which the search starts.
        weight_norms: The norms R, above 0; by default `n_points` norms in geometric progression, from half the
            smallest to twice the largest norm of the checkpoints.
        n_points: The number of default norms, from 1.
        n_steps: The number of steps of each search, from 0.
        lr: The length of the first step, as in `lowest_on_sphere`, above 0.
        dtype: The precision of parameters and logits.

    Returns:
        Over the axes `start` and `weight_norm`: losses and accuracies; `residual`, R times the norm of the tangential
        gradient in nats per radian, which is near 0 if the search converged; and `start_train_loss`, that of the
        scaled checkpoint, which is never below `train_loss`.

    Raises:
        GrokscopeError: An option is out of range, the weights of a checkpoint are all zero or not finite, or a loss
            is not finite.

    References:
        Liu et al. 2022, "Omnigrok", section 2.
    """
    if n_steps < 0 or not 0 < lr < math.inf:
        raise GrokscopeError(f"n_steps: {n_steps}. Allowed: from 0. lr: {lr}. Allowed: above 0.")
    checkpoints = trajectory.select(starts)
    norms = _norms(checkpoints, weight_norms, n_points, dtype)
    residuals, start_losses = [], []

    def models() -> Iterator[dict[str, Tensor]]:
        for _, objective in objectives(checkpoints, dtype=dtype):
            for norm in norms.tolist():
                start = _scaled_to(objective.point, norm)
                start_losses.append(objective.value(start))
                lowest = lowest_on_sphere(objective.value_and_gradient, start, norm, n_steps=n_steps, lr=lr)
                residuals.append(lowest.residual * norm)
                yield {**objective.parameters, **objective.to_tensors(lowest.point)}

    scan = loss_scan(checkpoints, {"start": checkpoints.steps, "weight_norm": norms}, models())
    shape = scan["train_loss"].shape
    searches = {
        "residual": np.array(residuals).reshape(shape),
        "start_train_loss": np.array(start_losses).reshape(shape),
    }
    return LabelledArrays(scan.axes, {**scan.arrays, **searches}, scan.loss)


def lowest_on_sphere(
    function: Function, start: Float[Tensor, " n"], radius: float, *, n_steps: int, lr: float = 0.03
) -> LowestPoint:
    """Minimise f on the sphere ‖x‖ = radius by Adam on the tangential gradient, with a projection after each step.

    The search is local: the sphere can have lower minima elsewhere. The cost is n_steps + 1 gradients.

    Args:
        function: Returns f(x) and ∇f(x).
        start: The first point; it is scaled to the sphere.
        radius: The radius of the sphere, above 0.
        n_steps: The number of steps, from 0.
        lr: The learning rate in units of a coordinate's root mean square, so that it means the same on spheres of any
            size. It falls linearly to 0.

    Returns:
        The lowest point visited, which is never above the start.

    Raises:
        GrokscopeError: f or its gradient is not finite at a visited point.
    """
    x = _scaled_to(start, radius)
    initial_lr = lr * radius / math.sqrt(len(x))
    # Late gradients are far below Adam's usual epsilon of 1e-8, which would then limit the steps.
    optimizer = torch.optim.Adam([x], lr=initial_lr, betas=(0.9, 0.98), eps=1e-20)
    lowest = None
    for step in range(n_steps + 1):
        value, gradient = function(x)
        tangential = gradient - (gradient @ x) / (x @ x) * x
        residual = float(torch.linalg.vector_norm(tangential))
        if not (math.isfinite(value) and math.isfinite(residual)):
            raise GrokscopeError(
                f"The loss or its gradient is not finite on the sphere of radius {radius:.6g}. Use a smaller lr or "
                f"other weight_norms."
            )
        if lowest is None or value < lowest.value:
            lowest = LowestPoint(value, x.clone(), residual)
        if step < n_steps:
            x.grad = tangential
            optimizer.param_groups[0]["lr"] = initial_lr * (1 - step / n_steps)
            optimizer.step()
            x.copy_(_scaled_to(x, radius))
    assert lowest is not None
    return lowest


def _scaled_to(x: Float[Tensor, " n"], norm: float) -> Float[Tensor, " n"]:
    """Return the vector scaled to a norm."""
    return x * (norm / torch.linalg.vector_norm(x.double())).to(x)


def _norms(
    checkpoints: Trajectory, weight_norms: Sequence[float] | None, n_points: int, dtype: str
) -> Float[np.ndarray, " norms"]:
    """Return the given norms, or the default ones around the norms of the checkpoints."""
    own_norms = [
        float(torch.linalg.vector_norm(objective.point.double()))
        for _, objective in objectives(checkpoints, dtype=dtype)
    ]
    if not all(0 < norm < math.inf for norm in own_norms):
        raise GrokscopeError(f"weight norms of the checkpoints: {own_norms}. Allowed: finite norms above 0.")
    if weight_norms is None:
        if n_points < 1:
            raise GrokscopeError(f"n_points: {n_points}. Allowed: from 1.")
        return np.geomspace(min(own_norms) / 2, max(own_norms) * 2, n_points)
    if not len(weight_norms) or not all(0 < norm < math.inf for norm in weight_norms):
        raise GrokscopeError(f"weight_norms: {list(weight_norms)}. Allowed: at least one number above 0.")
    return np.array(weight_norms, np.float64)
