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
from grokscope.measures._declaration import measure
from grokscope.measures._ranges import check_ranges
from grokscope.series import Series
from grokscope.trajectory import Trajectory
from grokscope.variable import Variable, with_companions

Vector = Float[np.ndarray, " n"]
Function = Callable[[Vector], tuple[float, Vector]]

MOST_DIMENSIONS = 1000
"""The most dimensions of a random subspace. With 227,000 parameters its basis takes 1.8 GB."""
_START_SLOPE = 1e3
"""The root mean square slope of the scaled objective at the start, over a cube with sides of length 2."""


@dataclass(frozen=True)
class Maximum:
    """The largest value of an objective that the search saw in a box, and its position."""

    value: float
    at_centre: float
    """f(x), which `value` is never below."""
    point: Vector
    """The displacement y from the centre, with |y_i| ≤ ε(|x_i| + 1) to the bit."""
    residual: float
    """The further rise in the box if f were linear at the point: ∇f·(z − y) at the best corner z."""
    n_iterations: int
    """The number of iterations of L-BFGS-B."""


def box(x: Vector, epsilon: float) -> Vector:
    """Return the half sides ε(|x_i| + 1) of the box C around x."""
    return epsilon * (np.abs(x) + 1)


def largest_in_box(
    objective: Function, x: Vector, *, epsilon: float, n_iterations: int = 10, start: Vector | None = None
) -> Maximum:
    """Return the largest f(x + y) that L-BFGS-B on −f sees in the box C = {|y_i| ≤ ε(|x_i| + 1)}.

    y = 0 always counts, so the result is at least f(x). One iteration maximises a linear f, at y_i = sign(g_i)
    ε(|x_i| + 1). It also maximises a separable convex f if no g_i is zero.

    The box is scaled to a cube, and f to a steep slope. Both are necessary. SciPy's defaults stop at once if the
    gradient is below 1e-5, which it is everywhere after memorization. On the raw scale of a loss of 1e-7 the first
    steps, as long as the gradient, do not move.

    Args:
        objective: The function that returns f and its gradient.
        x: The centre of the box.
        epsilon: ε, above 0.
        n_iterations: The most iterations of L-BFGS-B, from 1.
        start: The start, as shares from −1 to 1 of the half sides; y = 0 by default.

    Returns:
        The maximum.

    Raises:
        GrokscopeError: f or its gradient is not finite in the box.
    """
    sides = box(x, epsilon)

    def evaluate(u: Vector) -> tuple[float, Vector]:
        value, gradient = objective(x + sides * u)
        if not (math.isfinite(value) and np.isfinite(gradient).all()):
            raise GrokscopeError("The train loss or its gradient is not finite in the box: the maximum is undefined.")
        return value, gradient * sides

    best = np.zeros_like(x)
    at_centre, best_slope = evaluate(best)
    best_value, scale = at_centre, 1.0

    def negated(u: Vector) -> tuple[float, Vector]:
        nonlocal best, best_value, best_slope
        u = np.clip(u, -1, 1)
        value, slope = evaluate(u)
        if value > best_value:
            best, best_value, best_slope = u.copy(), value, slope
        return (at_centre - value) * scale, -slope * scale

    start_slope = best_slope if start is None else negated(start)[1]
    steepness, n_done = float(np.sqrt(np.mean(start_slope**2))), 0
    if steepness > 0:
        scale = _START_SLOPE / steepness
        result = minimize(
            negated,
            np.zeros_like(x) if start is None else start,
            jac=True,
            method="L-BFGS-B",
            bounds=[(-1.0, 1.0)] * len(x),
            options={"maxiter": n_iterations, "maxfun": 25 * n_iterations, "ftol": 0.0, "gtol": 0.0},
        )
        n_done = int(result.nit)
    residual = float((np.abs(best_slope) - best_slope * best).sum())
    return Maximum(best_value, at_centre, sides * best, residual, n_done)


def subspace(n: int, n_dimensions: int, seed: int) -> Float[np.ndarray, "n n_dimensions"]:
    """Return orthonormal columns that span a uniformly random subspace: Q of A = QR, with A Gaussian."""
    generator = rng.generator("keskar subspace", seed, n_dimensions)
    gaussian = torch.randn(n, n_dimensions, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(gaussian).Q.numpy()


def restricted_to_subspace(objective: Function, x: Vector, A: Float[np.ndarray, "n n_dimensions"]) -> Function:
    """Return c ↦ f(x + A(c − Aᵀx)) with its gradient: f on the subspace through x, with x at c = Aᵀx."""
    origin = A.T @ x

    def evaluate(c: Vector) -> tuple[float, Vector]:
        value, gradient = objective(x + A @ (c - origin))
        return value, A.T @ gradient

    return evaluate


_VARIABLES = with_companions(
    {
        "keskar_sharpness": Variable("Keskar's φ of the {loss} train loss", "%", is_logarithmic=True),
        "keskar_sharpness_by_start": Variable(
            "Keskar's φ of the {loss} train loss from each start", "%", ("start",), is_logarithmic=True
        ),
        "train_loss": Variable("{loss} train loss", "nats", is_logarithmic=True),
    },
    residual=("keskar_sharpness",),
)


@measure(n_checkpoints=12, by_checkpoint=True, variables=_VARIABLES)
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
    """Compute φ = 100 · (max_{z∈C} f(x + Az) − f(x)) / (1 + f(x)) with C = {|z_i| ≤ ε(|(A⁺x)_i| + 1)}.

    f is the mean train loss and x the trained parameters. φ is about 100 times a difference of losses in nats; 0 is
    flat. A is the identity, or spans a random subspace. The paper does not state the scale of A's columns. Here they
    are orthonormal and the subspace is uniformly random, so A⁺ = Aᵀ and z is a length in the space of weights.

    Args:
        trajectory: The checkpoints to measure.
        epsilon: ε, above 0. The default 1e-3 is the paper's.
        n_iterations: The most iterations of L-BFGS-B per start, from 1. The default 10 is the paper's.
        n_starts: The number of starts, from 1: y = 0, then random points of the box, which also leave a point with
            zero gradient. The default 2 is the smallest number that shows a spread.
        n_dimensions: The dimensions of the random subspace, from 1 to 1000, or 0 for the full space; the paper also
            uses 100. A slice contains far less than the full box, so compare φ at one value only.
        seed: The seed of the subspace and of the random starts. All steps share both.
        dtype: The precision of parameters and logits, "float32" or "float64". float32 halves the time. The default is
            float64, because float32 moved φ by up to 2% if the maximiser had not converged.

    Returns:
        Series with arrays over the steps.

        - `keskar_sharpness` (steps): the largest φ over the starts. It is a lower bound of the maximum, which cannot
          be certified: the loss has several local maxima in the box.
        - `keskar_sharpness_by_start` (steps, n_starts): φ from each start. The spread tells how far to trust φ.
        - `keskar_sharpness_residual` (steps), in units of φ: the further rise if the loss were linear at the maximum.
          It is 0 at a local maximum, and large if more iterations would still raise φ.
        - `train_loss` (steps), in nats: f(x).

    Raises:
        GrokscopeError: An option is out of range, or the loss is not finite.

    References:
        - Keskar et al. 2016, equations 3 and 4.
        - Power et al. 2022: φ of many S5 runs against their test accuracy.

    Invariances:
        - The order of neurons and heads.
        - Not a rotation of the residual stream, rescaled layers or a shift of all logits, because the box has axes
          and sides. Larger models have larger boxes.

    Cost:
        - About n_starts · (n_iterations + 2) gradients per checkpoint.
        - A subspace of 100 dimensions among 227,000 parameters takes 180 MB, and seconds at the start.
    """
    n = sum(math.prod(trajectory.model.shapes[name]) for name in trajectory.model.trained)
    most_dimensions = min(MOST_DIMENSIONS, n)
    check_ranges(
        ("epsilon", epsilon, 0 < epsilon < math.inf, "above 0"),
        ("n_iterations", n_iterations, n_iterations >= 1, "from 1"),
        ("n_starts", n_starts, n_starts >= 1, "from 1"),
        (
            "n_dimensions",
            n_dimensions,
            0 <= n_dimensions <= most_dimensions,
            f"0 (the full space) to {most_dimensions}",
        ),
    )
    A = subspace(n, n_dimensions, seed) if n_dimensions else None
    rows = []
    for _, train_loss in objectives(trajectory, dtype=dtype):
        objective, x = _in_numpy(train_loss), train_loss.point.double().numpy()
        if A is not None:
            objective, x = restricted_to_subspace(objective, x, A), A.T @ x
        maxima = [
            largest_in_box(objective, x, epsilon=epsilon, n_iterations=n_iterations, start=start)
            for start in _starts(len(x), n_starts, seed)
        ]
        highest = max(maxima, key=lambda maximum: maximum.value)
        unit = 100 / (1 + highest.at_centre)
        row = {
            "keskar_sharpness": unit * (highest.value - highest.at_centre),
            "keskar_sharpness_by_start": [unit * (maximum.value - maximum.at_centre) for maximum in maxima],
            "keskar_sharpness_residual": unit * highest.residual,
            "train_loss": highest.at_centre,
        }
        rows.append(row)
    return Series.of_rows("keskar_sharpness", trajectory.steps, rows)


def _starts(n: int, n_starts: int, seed: int) -> list[Vector | None]:
    """Return the centre (None), then points drawn uniformly from the box."""
    drawn = (rng.integers("keskar", seed, i, n) / 2.0**63 - 1 for i in range(1, n_starts))
    return [None, *drawn]


def _in_numpy(objective: Objective) -> Function:
    """Return the function from a NumPy vector to the objective's value and gradient."""

    def evaluate(x: Vector) -> tuple[float, Vector]:
        value, gradient = objective.value_and_gradient(torch.from_numpy(x))
        return value, gradient.double().numpy()

    return evaluate
