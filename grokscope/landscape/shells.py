"""Shells: the loss against the norm of the weights, along rays from the origin and at its lowest on each sphere."""

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


@dataclass(frozen=True, eq=False)
class Lowest:
    """The lowest value of a function that was seen on a sphere around the origin, and where."""

    value: float
    point: Float[Tensor, " n"]
    residual: float
    """The norm of the tangential gradient there, 0 at a stationary point of the sphere."""


def rays(
    trajectory: Trajectory,
    steps: Sequence[int],
    *,
    weight_norms: Sequence[float] | None = None,
    n_points: int = 25,
    dtype: str = "float32",
) -> LabelledArrays:
    """Return losses at R w/‖w‖ for each checkpoint w and each norm R, over the axes `step` and `weight_norm`.

    (Liu et al. 2022, "Omnigrok".) w are the trained weights; by default R goes from half the smallest to twice the
    largest norm of these checkpoints. Accuracies do not change along a ray where the logits are homogeneous in the
    weights; biases, LayerNorm and attention make them not quite so. Costs steps × n_points forward passes over all
    equations. Raise GrokscopeError for a norm that is not above 0, and for weights that are all zero.
    """
    chosen = trajectory.select(steps)
    norms = _norms(chosen, weight_norms, n_points, dtype)

    def models() -> Iterator[dict[str, Tensor]]:
        for _, objective in objectives(chosen, dtype=dtype):
            for norm in norms.tolist():
                yield {**objective.parameters, **objective.unflat(_on_sphere(objective.point, norm))}

    return loss_scan(chosen, {"step": chosen.steps, "weight_norm": norms}, models())


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
    """Return the lowest train loss that is found on each sphere ‖w‖ = R, and the test loss there.

    ("Omnigrok", Liu et al. 2022, section 2: the reduced landscape l(R) = min over ‖w‖ = R of the train loss, an L;
    the test loss there, a U.) `lowest_on_sphere` goes from each checkpoint of `starts`, scaled to each of the norms R
    (by default from half the smallest to twice the largest of theirs): step 0 is the initialization scaled, a late
    one stays with its own solution where it can. Axes `start` and `weight_norm`; besides the losses and accuracies:

    - `residual`: R times the tangential gradient's norm, in nats per radian: near 0 where the minimisation is over;
    - `start_train_loss`, that of the scaled checkpoint, which the lowest is never above.

    A sphere has many minima of nearly no train loss, which generalise or not: the test loss is that of the one
    found, by this minimiser, from this start, in `n_steps`. A short search finds the memorizing ones, as training
    does. Costs starts × n_points × n_steps gradients of the train loss. Raise GrokscopeError for an option out of
    range, weights that are all zero, and a loss that is not finite.
    """
    if n_steps < 0 or not 0 < lr < math.inf:
        raise GrokscopeError(f"n_steps: {n_steps}, allowed: from 0; lr: {lr}, allowed: above 0.")
    chosen = trajectory.select(starts)
    norms = _norms(chosen, weight_norms, n_points, dtype)
    residuals, before = [], []

    def models() -> Iterator[dict[str, Tensor]]:
        for _, objective in objectives(chosen, dtype=dtype):
            for norm in norms.tolist():
                start = _on_sphere(objective.point, norm)
                before.append(objective.value(start))
                found = lowest_on_sphere(objective.value_and_gradient, start, norm, n_steps=n_steps, lr=lr)
                residuals.append(found.residual * norm)
                yield {**objective.parameters, **objective.unflat(found.point)}

    scan = loss_scan(chosen, {"start": chosen.steps, "weight_norm": norms}, models())
    shape = scan["train_loss"].shape
    more = {"residual": np.array(residuals).reshape(shape), "start_train_loss": np.array(before).reshape(shape)}
    return LabelledArrays(scan.axes, {**scan.arrays, **more})


def lowest_on_sphere(
    function: Function, start: Float[Tensor, " n"], radius: float, *, n_steps: int, lr: float = 0.03
) -> Lowest:
    """Minimise f on the sphere ‖x‖ = radius from `start`, by Adam on the tangential gradient, back on it each step.

    `function` gives f and its gradient. Adam's step is `lr`, falling linearly to 0, in root mean square lengths of a
    coordinate, so the same on spheres of any size. The lowest point seen is returned, so never one above the start.
    The method is local: a sphere can have other minima below. Raise GrokscopeError where f is not finite.
    """
    x = _on_sphere(start, radius)
    unit = lr * radius / math.sqrt(len(x))
    # Late in a run gradients are far below Adam's usual 1e-8, which would then be its step.
    optimizer = torch.optim.Adam([x], lr=unit, betas=(0.9, 0.98), eps=1e-20)
    lowest = None
    for done in range(n_steps + 1):
        value, gradient = function(x)
        tangential = gradient - (gradient @ x) / (x @ x) * x
        residual = float(torch.linalg.vector_norm(tangential))
        if not (math.isfinite(value) and math.isfinite(residual)):
            raise GrokscopeError("The loss or its gradient is not finite on the sphere, so it has no lowest point.")
        if lowest is None or value < lowest.value:
            lowest = Lowest(value, x.clone(), residual)
        if done < n_steps:
            x.grad = tangential
            optimizer.param_groups[0]["lr"] = unit * (1 - done / n_steps)
            optimizer.step()
            x.copy_(_on_sphere(x, radius))
    assert lowest is not None
    return lowest


def _on_sphere(x: Float[Tensor, " n"], radius: float) -> Float[Tensor, " n"]:
    return x * (radius / torch.linalg.vector_norm(x.double())).to(x)


def _norms(
    trajectory: Trajectory, given: Sequence[float] | None, n_points: int, dtype: str
) -> Float[np.ndarray, " norms"]:
    own = [float(torch.linalg.vector_norm(one.point.double())) for _, one in objectives(trajectory, dtype=dtype)]
    if not all(0 < norm < math.inf for norm in own):
        raise GrokscopeError("The weights of a checkpoint are all zero, or not finite: they lie on no sphere.")
    if given is None:
        if n_points < 1:
            raise GrokscopeError(f"n_points: {n_points}; allowed: from 1.")
        return np.geomspace(min(own) / 2, max(own) * 2, n_points)
    if not len(given) or not all(0 < norm < math.inf for norm in given):
        raise GrokscopeError(f"weight_norms: {list(given)}; allowed: numbers above 0.")
    return np.array(given, np.float64)
