"""The plane of a path: where training went, in the two directions in which it went farthest."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from einops import einsum, rearrange, reduce
from jaxtyping import Float
from torch import Tensor

from grokscope import rng
from grokscope.errors import GrokscopeError
from grokscope.landscape.objective import loss_scan, objectives
from grokscope.landscape.slices import moved
from grokscope.series import LabelledArrays
from grokscope.trajectory import Trajectory

Steps = Callable[[str], Float[Tensor, "steps n"]]
_AT_ONCE = 16_384
"""How many coordinates are drawn, or read, for all steps at a time."""


@dataclass(frozen=True, eq=False)
class PathPlane:
    """The plane through the last checkpoint that a run's first two principal components span, and what is in it."""

    grid: LabelledArrays
    """Losses and accuracies in the plane, over the axes `first` and `second`, in the units of the weights."""
    path: LabelledArrays
    """The checkpoints, over the axis `step`: `first`, `second`, the `distance` from the plane, and their own losses
    and accuracies, which are not those of their shadows in the plane."""
    components: LabelledArrays
    """Over the axis `component`, from 1: `explained_variance_ratio`, and that of a random walk of the same number of
    parameters and steps, each as long as the run's: `explained_variance_ratio_random_walk`."""


def path_plane(
    trajectory: Trajectory,
    *,
    n_checkpoints: int = 100,
    n_points: int = 21,
    margin: float = 0.2,
    n_components: int = 10,
    seed: int = 0,
    dtype: str = "float32",
) -> PathPlane:
    """Return losses in the plane w_T + x v_1 + y v_2, v_i the principal components of w_t − w_T over the steps t.

    (Li et al. 2018, section 7.2; Lorch 2016.) The weights are the trained ones, at `n_checkpoints` of the
    checkpoints spread evenly over them; each counts the same, so that where they are dense the path counts for more.
    The grid spans the path's coordinates and `margin` of their range on each side. The sign of v_i is such that the
    largest coordinate of the path is positive.

    Two components always hold much: a random walk of many steps in many dimensions has
    6/(π² i²) of its variance on the i-th, 61% and 15%, and draws a neat arc in their plane (Antognini and
    Sohl-Dickstein 2018). So beside the run's stands a random walk's with its step lengths, drawn by `seed`. What the
    run has beyond it says that it kept its direction. The loss at a shadow differs from the checkpoint's own where
    `distance` is not small.

    Memory: the largest parameter at all of the checkpoints, in float64. Costs n_points² + n_checkpoints forward
    passes over all equations, and a few reads of every checkpoint. Raise GrokscopeError for fewer than three
    checkpoints, and for a path that does not move.
    """
    if n_checkpoints < 3 or n_points < 2 or n_components < 2 or not 0 <= margin < np.inf:
        raise GrokscopeError(
            f"n_checkpoints: {n_checkpoints}, allowed: from 3; n_points: {n_points}, allowed: from 2; "
            f"n_components: {n_components}, allowed: from 2; margin: {margin}, allowed: from 0."
        )
    run = trajectory.thin(n_checkpoints)
    if len(run) < 3:
        raise GrokscopeError(f"There are {len(run)} checkpoints; a plane needs three.")
    gram = sum((_products(x) for x in _displacements(run)), torch.zeros(len(run), len(run), dtype=torch.float64))
    if not 0 < float(gram.diagonal().max()) < torch.inf:
        raise GrokscopeError("The weights do not move, or are not finite, so their path spans no plane.")
    variances, left = _principal(gram)
    lengths = (gram.diagonal()[1:] + gram.diagonal()[:-1] - 2 * gram.diagonal(1)).clamp_min(0).sqrt()
    walk = _principal(random_walk(lengths, sum(run.first.parameters[n].numel() for n in run.model.trained), seed))[0]

    # Coordinates of w_t − w_T itself, not of its difference from the mean: the plane goes through the end.
    weights = left[:, :2] / variances[:2].clamp_min(torch.finfo(torch.float64).tiny).sqrt()
    coordinates = gram @ (weights - weights.mean(0))
    weights, coordinates = (one * torch.where(_largest(coordinates) < 0, -1.0, 1.0) for one in (weights, coordinates))
    v = torch.cat(
        [einsum(x - x.mean(0), weights, "step n, step k -> k n") for x in _displacements(run)], 1
    )  # In the order of Model.trained, as Objective.flat.
    distance = (gram.diagonal() - coordinates.square().sum(1)).clamp_min(0).sqrt()

    ((_, end),) = objectives(run.select(run.steps[-1:]), dtype=dtype)
    axes = {name: _span(coordinates[:, i].numpy(), margin, n_points) for i, name in enumerate(("first", "second"))}
    v = v.to(end.point)
    grid = loss_scan(
        run, axes, (moved(end, x * v[0] + y * v[1]) for x in axes["first"].tolist() for y in axes["second"].tolist())
    )
    own = loss_scan(run, {"step": run.steps}, (one.parameters for _, one in objectives(run, dtype=dtype)))
    places = {"first": coordinates[:, 0].numpy(), "second": coordinates[:, 1].numpy(), "distance": distance.numpy()}
    k = min(n_components, len(run) - 1)
    shares = {
        "explained_variance_ratio": (variances / variances.sum())[:k].numpy(),
        "explained_variance_ratio_random_walk": (walk / walk.sum())[:k].numpy(),
    }
    return PathPlane(
        grid,
        LabelledArrays(own.axes, {**places, **own.arrays}),
        LabelledArrays({"component": np.arange(1, k + 1)}, shares),
    )


def random_walk(lengths: Float[Tensor, " moves"], n: int, seed: int = 0) -> Float[Tensor, "steps steps"]:
    """Return the inner products of a random walk's places in n dimensions, from its end, a step for each length.

    Each step is Gaussian, of that root mean square length. Memory: the walk in some coordinates at a time.
    """
    generator = rng.generator("random walk", seed, 0)
    gram = torch.zeros(len(lengths) + 1, len(lengths) + 1, dtype=torch.float64)
    for first in range(0, n, _AT_ONCE):
        drawn = torch.randn(len(lengths), min(_AT_ONCE, n - first), generator=generator, dtype=torch.float64)
        places = torch.cat([torch.zeros(1, drawn.shape[1]), (drawn * lengths[:, None] * n**-0.5).cumsum(0)])
        gram += _products(places - places[-1])
    return gram


def _displacements(run: Trajectory) -> Iterator[Float[Tensor, "steps n"]]:
    """Yield w_t − w_T over the steps t, one trained parameter after the other."""
    for name in run.model.trained:
        values = rearrange(run.parameter(name), "step ... -> step (...)").double()
        yield values - values[-1]


def _products(x: Float[Tensor, "steps n"]) -> Float[Tensor, "steps steps"]:
    return einsum(x, x, "i n, j n -> i j")


def _principal(gram: Float[Tensor, "steps steps"]) -> tuple[Float[Tensor, " steps"], Float[Tensor, "steps steps"]]:
    """Return the variances on the principal components, descending, and the components in the centred points' span.

    From inner products alone: those of the centred points are C G C with C = 1 − 1/steps (principal coordinates).
    """
    centred = gram - reduce(gram, "i j -> 1 j", "mean") - reduce(gram, "i j -> i 1", "mean") + gram.mean()
    variances, vectors = torch.linalg.eigh(centred)
    return variances.flip(0).clamp_min(0), vectors.flip(1)


def _largest(columns: Float[Tensor, "steps k"]) -> Float[Tensor, "1 k"]:
    return columns.gather(0, columns.abs().argmax(0, keepdim=True))


def _span(values: Float[np.ndarray, " steps"], margin: float, n_points: int) -> Float[np.ndarray, " n_points"]:
    low, high = values.min(), values.max()
    # A straight path has no second coordinate; the plane has one.
    more = margin * (high - low) or 1e-3 * max(abs(high), abs(low), 1.0)
    return np.linspace(low - more, high + more, n_points)
