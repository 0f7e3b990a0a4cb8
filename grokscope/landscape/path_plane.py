"""The plane of a path: the two directions in which training moved farthest, and the losses in their plane."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from einops import einsum, rearrange, reduce
from jaxtyping import Float
from torch import Tensor

from grokscope import rng
from grokscope.errors import GrokscopeError
from grokscope.landscape.objective import loss_scan, objectives
from grokscope.landscape.slices import moved_parameters
from grokscope.series import LabelledArrays
from grokscope.trajectory import Trajectory

_COORDINATES_AT_ONCE = 16_384
"""The number of coordinates of a random walk that are drawn at once, for all steps."""


@dataclass(frozen=True, eq=False)
class PathPlane:
    """The losses and the checkpoints in the plane that a run's first two principal components span."""

    grid: LabelledArrays
    """Losses and accuracies over the axes `first` and `second`, the coordinates in the units of the weights."""
    path: LabelledArrays
    """The checkpoints over the axis `step`: the coordinates `first` and `second` of their projections on the plane,
    their `distance` from it, and their own losses and accuracies."""
    components: LabelledArrays
    """`explained_variance_ratio` over the axis `component`, from 1. The control,
    `explained_variance_ratio_random_walk`, is that of a random walk with the same number of parameters and the same
    step lengths."""


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
    """Return losses in the plane w_T + x v_1 + y v_2, where v_i are the principal components of w_t − w_T over t.

    - Two components always explain most of a long path. A random walk of many steps in many dimensions has 6/(π² i²)
      of its variance on component i, so 61% and 15%. It also draws a smooth arc in their plane. Only a share above
      that of the random walk shows that the run kept its direction.
    - The loss at a projection differs from that of its checkpoint unless `distance` is small.
    - Every checkpoint has the same weight, so parts of the run with dense checkpoints count for more.
    - Memory: the largest parameter at all of the checkpoints, in float64.
    - Cost: n_points² + n_checkpoints forward passes over all equations, and a few reads of every checkpoint.

    Args:
        trajectory: The run. The weights are its trained parameters.
        n_checkpoints: The largest number of checkpoints, from 3; they are spread evenly over those of the run.
        n_points: The number of grid points along each axis, from 2.
        margin: The part of the path's range that the grid adds on each side, from 0.
        n_components: The largest number of components in the result, from 2.
        seed: The seed of the random walk.
        dtype: The precision of parameters and logits in the losses. The components are computed in float64.

    Returns:
        The grid, the path and the components. The sign of v_i makes the largest coordinate of the path in magnitude
        positive.

    Raises:
        GrokscopeError: An option is out of range, there are fewer than three checkpoints, or the weights do not move
            or are not finite.

    References:
        Li et al. 2018, section 7.2; Lorch 2016; Antognini and Sohl-Dickstein 2018 for the random walk.
    """
    if n_checkpoints < 3 or n_points < 2 or n_components < 2 or not 0 <= margin < np.inf:
        raise GrokscopeError(
            f"n_checkpoints: {n_checkpoints}. Allowed: from 3. n_points: {n_points}. Allowed: from 2. "
            f"n_components: {n_components}. Allowed: from 2. margin: {margin}. Allowed: from 0."
        )
    run = trajectory.thin(n_checkpoints)
    if len(run) < 3:
        raise GrokscopeError(f"The run has {len(run)} checkpoints. Allowed: from 3, because they must span a plane.")
    gram = sum((_inner_products(x) for x in _displacements(run)), torch.zeros(len(run), len(run)).double())
    if not 0 < float(gram.diagonal().max()) < torch.inf:
        raise GrokscopeError("The weights do not move or are not finite, so their path spans no plane.")
    variances, components = _principal_coordinates(gram)
    lengths = (gram.diagonal()[1:] + gram.diagonal()[:-1] - 2 * gram.diagonal(1)).clamp_min(0).sqrt()
    n_parameters = sum(run.first.parameters[name].numel() for name in run.model.trained)
    walk_variances, _ = _principal_coordinates(random_walk_gram(lengths, n_parameters, seed))

    # Coordinates of w_t − w_T, not of its difference from the mean, because the plane contains the last checkpoint.
    weights = components[:, :2] / variances[:2].clamp_min(torch.finfo(torch.float64).tiny).sqrt()
    coordinates = gram @ (weights - weights.mean(0))
    signs = torch.where(_largest_in_magnitude(coordinates) < 0, -1.0, 1.0)
    weights, coordinates = weights * signs, coordinates * signs
    # In the order of Model.trained, like the vectors of an Objective.
    v = torch.cat([einsum(x - x.mean(0), weights, "step n, step k -> k n") for x in _displacements(run)], 1)
    distance = (gram.diagonal() - coordinates.square().sum(1)).clamp_min(0).sqrt()

    ((_, end),) = objectives(run.select(run.steps[-1:]), dtype=dtype)
    v = v.to(end.point)
    first, second = (_grid_axis(column.numpy(), margin, n_points) for column in coordinates.T)
    grid = loss_scan(
        run,
        {"first": first, "second": second},
        (moved_parameters(end, x * v[0] + y * v[1]) for x in first.tolist() for y in second.tolist()),
    )
    losses = loss_scan(
        run, {"step": run.steps}, (objective.parameters for _, objective in objectives(run, dtype=dtype))
    )
    x, y = coordinates.T.numpy()
    positions = {"first": x, "second": y, "distance": distance.numpy()}
    k = min(n_components, len(run) - 1)
    ratios = {
        "explained_variance_ratio": (variances / variances.sum())[:k].numpy(),
        "explained_variance_ratio_random_walk": (walk_variances / walk_variances.sum())[:k].numpy(),
    }
    return PathPlane(
        grid,
        LabelledArrays(losses.axes, {**positions, **losses.arrays}, losses.loss),
        LabelledArrays({"component": np.arange(1, k + 1)}, ratios),
    )


def random_walk_gram(lengths: Float[Tensor, " moves"], n: int, seed: int = 0) -> Float[Tensor, "steps steps"]:
    """Return the inner products of the positions of a random walk in n dimensions, relative to its end.

    The walk is drawn a block of coordinates at a time, so its memory does not grow with n.

    Args:
        lengths: The root mean square length of each Gaussian step.
        n: The number of dimensions.
        seed: The seed of the steps.

    Returns:
        A matrix over len(lengths) + 1 positions; the last row is zero.
    """
    generator = rng.generator("random walk", seed, 0)
    gram = torch.zeros(len(lengths) + 1, len(lengths) + 1, dtype=torch.float64)
    for start in range(0, n, _COORDINATES_AT_ONCE):
        n_drawn = min(_COORDINATES_AT_ONCE, n - start)
        moves = torch.randn(len(lengths), n_drawn, generator=generator, dtype=torch.float64)
        positions = torch.cat([torch.zeros(1, n_drawn), (moves * lengths[:, None] * n**-0.5).cumsum(0)])
        gram += _inner_products(positions - positions[-1])
    return gram


def _displacements(run: Trajectory) -> Iterator[Float[Tensor, "steps n"]]:
    """Yield w_t − w_T over the steps t, one trained parameter at a time."""
    for name in run.model.trained:
        values = rearrange(run.parameter(name), "step ... -> step (...)").double()
        yield values - values[-1]


def _inner_products(x: Float[Tensor, "steps n"]) -> Float[Tensor, "steps steps"]:
    """Return the inner products of all pairs of rows."""
    return einsum(x, x, "i n, j n -> i j")


def _principal_coordinates(
    gram: Float[Tensor, "steps steps"],
) -> tuple[Float[Tensor, " steps"], Float[Tensor, "steps steps"]]:
    """Return the variances on the principal components, descending, and the components over the points as columns.

    The inner products of the centred points are C G C with C = 1 − 11ᵀ/steps, so the points are not needed.
    """
    centred = gram - reduce(gram, "i j -> 1 j", "mean") - reduce(gram, "i j -> i 1", "mean") + gram.mean()
    variances, vectors = torch.linalg.eigh(centred)
    return variances.flip(0).clamp_min(0), vectors.flip(1)


def _largest_in_magnitude(columns: Float[Tensor, "steps k"]) -> Float[Tensor, "1 k"]:
    """Return the entry of each column that is largest in magnitude, with its sign."""
    return columns.gather(0, columns.abs().argmax(0, keepdim=True))


def _grid_axis(values: Float[np.ndarray, " steps"], margin: float, n_points: int) -> Float[np.ndarray, " n_points"]:
    """Return points over the range of the values and a margin on each side."""
    low, high = values.min(), values.max()
    # A straight path has no extent along the second component, but the grid needs one.
    extra = margin * (high - low) or 1e-3 * max(abs(high), abs(low), 1.0)
    return np.linspace(low - extra, high + extra, n_points)
