"""Keskar's sharpness: how far the train loss can rise in a small box around the parameters, or in a random slice."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize

from grokscope import rng
from grokscope.errors import GrokscopeError
from grokscope.landscape.objective import Objective, objectives
from grokscope.series import Series, by_checkpoint
from grokscope.trajectory import Trajectory

Vector = Float[np.ndarray, " n"]
Function = Callable[[Vector], tuple[float, Vector]]

MOST_DIMENSIONS = 1000
"""The largest random subspace: of 227,000 parameters its basis takes 1.8 GB."""
_SLOPE = 1e3
"""The root mean square slope, along box sides of length 2, that the objective is scaled to at the start."""


@dataclass(frozen=True)
class Maximum:
    """The largest value of an objective that was seen in a box, and where."""

    value: float
    at_centre: float
    """f(x), which the maximum is never below."""
    point: Vector
    """The displacement y from the centre, |y_i| ≤ ε(|x_i| + 1) to the bit."""
    residual: float
    """What a linear objective of the same gradient would still gain in the box, ∇f·(z − y) at the best corner z."""
    n_iterations: int


def box(x: Vector, epsilon: float) -> Vector:
    """Return the half sides ε(|x_i| + 1) of the box C around x."""
    return epsilon * (np.abs(x) + 1)


def largest_in_box(
    objective: Function, x: Vector, *, epsilon: float, n_iterations: int = 10, start: Vector | None = None
) -> Maximum:
    """Return the largest f(x + y) that `n_iterations` of L-BFGS-B on −f see in C = {|y_i| ≤ ε(|x_i| + 1)}.

    `objective` gives f and its gradient. `start` is where in the box to start, as shares from −1 to 1 of its half
    sides (default: y = 0). y = 0 itself always counts, so the result is at least f(x). A linear f is maximised in one
    iteration, y_i = sign(g_i) ε(|x_i| + 1), and a separable convex one where no g_i is zero.

    The box is scaled to a cube and f to a steep slope. Both matter: SciPy's defaults stop at once where the gradient
    is below 1e-5, which it is everywhere after memorization, and on the raw scale of a loss of 1e-7 its first steps,
    of the gradient's own length, go nowhere. Raise GrokscopeError where f is not finite.
    """
    sides = box(x, epsilon)

    def at(u: Vector) -> tuple[float, Vector]:
        value, gradient = objective(x + sides * u)
        if not (math.isfinite(value) and np.isfinite(gradient).all()):
            raise GrokscopeError("The train loss or its gradient is not finite in the box, so it has no maximum.")
        return value, gradient * sides

    best = np.zeros_like(x)
    at_centre, slope = at(best)
    value, scale = at_centre, 1.0

    def descended(u: Vector) -> tuple[float, Vector]:
        nonlocal best, value, slope
        u = np.clip(u, -1, 1)
        found, its_slope = at(u)
        if found > value:
            best, value, slope = u.copy(), found, its_slope
        return (at_centre - found) * scale, -its_slope * scale

    first = slope if start is None else descended(start)[1]
    steepness, n_done = float(np.sqrt(np.mean(first**2))), 0
    if steepness > 0:
        scale = _SLOPE / steepness
        found = minimize(
            descended,
            np.zeros_like(x) if start is None else start,
            jac=True,
            method="L-BFGS-B",
            bounds=[(-1.0, 1.0)] * len(x),
            options={"maxiter": n_iterations, "maxfun": 25 * n_iterations, "ftol": 0.0, "gtol": 0.0},
        )
        n_done = int(found.nit)
    residual = float((np.abs(slope) - slope * best).sum())
    return Maximum(value, at_centre, sides * best, residual, n_done)


def subspace(n: int, n_dimensions: int, seed: int) -> Float[np.ndarray, "n n_dimensions"]:
    """Return orthonormal columns that span a uniformly random subspace: Q of A = QR, A Gaussian."""
    generator = rng.generator("keskar subspace", seed, n_dimensions)
    drawn = torch.randn(n, n_dimensions, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(drawn).Q.numpy()


def within(objective: Function, x: Vector, A: Float[np.ndarray, "n n_dimensions"]) -> Function:
    """Return c ↦ f(x + A(c − Aᵀx)), f on the subspace through x in the coordinates c = Aᵀx + z, with its gradient."""
    origin = A.T @ x

    def at(c: Vector) -> tuple[float, Vector]:
        value, gradient = objective(x + A @ (c - origin))
        return value, A.T @ gradient

    return at


@by_checkpoint
def keskar_sharpness(
    trajectory: Trajectory,
    *,
    epsilon: float = 1e-3,
    n_iterations: int = 10,
    n_starts: int = 2,
    n_dimensions: int = 0,
    seed: int = 0,
    dtype: str = "float64",
) -> Series:
    """Measure φ = 100 · (max_{z∈C} f(x + Az) − f(x)) / (1 + f(x)), C = {|z_i| ≤ ε(|(A⁺x)_i| + 1)}.

    f is the mean train loss, x the trained parameters (Keskar et al. 2016, eqs. 3 and 4, there with 10 iterations of
    L-BFGS-B and ε = 1e-3; Power et al. 2022). With `n_dimensions` 0, A is the identity and C a box in full space.
    Otherwise A spans a random subspace of that many dimensions, the same at every step (the paper takes 100). The
    paper does not say how the columns of A are scaled; here they are orthonormal and the subspace is uniformly random
    (the Q of a Gaussian matrix), so that A⁺ = Aᵀ and z is a length in the space of weights. A slice holds far less
    than the full box: compare φ at one `n_dimensions` only. Arrays over steps:

    - `keskar_sharpness`: the largest φ over the starts. It is a lower bound of the maximum, which nothing can
      certify: the loss has several local maxima in the box;
    - `keskar_sharpness_by_start` (n_starts): φ from y = 0, then from random points of the box (`seed`, the same at
      every step), which also leave a point where the gradient vanishes. Their spread says how far to trust it;
    - `keskar_sharpness_residual`: the rise still to be had at the point found if the loss were linear there, in φ's
      units: 0 at a local maximum, and large where more `n_iterations` would still raise φ;
    - `train_loss`, f(x).

    φ is about 100 × a difference of losses in nats: 0 flat. It is invariant to the order of neurons and heads, but
    not to a rotation of the residual stream or to rescaling layers, since the box has axes and sides; and larger
    models have larger boxes. Parameters and logits are in `dtype`; float32 takes half the time, and moved φ by up
    to 2% where the maximiser had not converged. Costs about n_starts · (n_iterations + 2) gradients a checkpoint; a
    subspace of 100 dimensions among 227,000 also costs 180 MB and seconds at the start. Raise GrokscopeError for an
    option out of range, and where the loss is not finite.
    """
    if not 0 < epsilon < math.inf or n_iterations < 1 or n_starts < 1:
        raise GrokscopeError(
            f"epsilon: {epsilon}, allowed: above 0; n_iterations: {n_iterations}, allowed: from 1; "
            f"n_starts: {n_starts}, allowed: from 1."
        )
    n = sum(math.prod(trajectory.model.shapes[name]) for name in trajectory.model.trained)
    most = min(MOST_DIMENSIONS, n)
    if not 0 <= n_dimensions <= most:
        raise GrokscopeError(f"n_dimensions: {n_dimensions}; allowed: 0 (the full space) to {most}.")
    A = subspace(n, n_dimensions, seed) if n_dimensions else None
    rows = []
    for _, train_loss in objectives(trajectory, dtype=dtype):
        objective, x = _in_numpy(train_loss), train_loss.point.double().numpy()
        if A is not None:
            objective, x = within(objective, x, A), A.T @ x
        found = [
            largest_in_box(objective, x, epsilon=epsilon, n_iterations=n_iterations, start=start)
            for start in _starts(len(x), n_starts, seed)
        ]
        highest = max(found, key=lambda one: one.value)
        unit = 100 / (1 + highest.at_centre)
        row = {
            "keskar_sharpness": unit * (highest.value - highest.at_centre),
            "keskar_sharpness_by_start": [unit * (one.value - one.at_centre) for one in found],
            "keskar_sharpness_residual": unit * highest.residual,
            "train_loss": highest.at_centre,
        }
        rows.append(row)
    return Series.of_rows("keskar_sharpness", trajectory.steps, rows)


def _starts(n: int, n_starts: int, seed: int) -> list[Vector | None]:
    """Return the centre, then points drawn uniformly from the box."""
    drawn = (rng.integers("keskar", seed, i, n) / 2.0**63 - 1 for i in range(1, n_starts))
    return [None, *drawn]


def _in_numpy(objective: Objective) -> Function:
    def at(x: Vector) -> tuple[float, Vector]:
        value, gradient = objective.value_and_gradient(torch.from_numpy(x))
        return value, gradient.double().numpy()

    return at
