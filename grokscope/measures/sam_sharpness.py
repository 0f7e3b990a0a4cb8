"""Worst-case sharpness: how far the train loss can rise in a ball around the parameters, plain and adaptive."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from grokscope import rng
from grokscope.errors import GrokscopeError
from grokscope.landscape.objective import objectives
from grokscope.measures._declaration import measure
from grokscope.measures._ranges import check_ranges
from grokscope.series import Series
from grokscope.trajectory import Trajectory
from grokscope.variable import Variable, with_companions

Vector = Float[Tensor, " n"]
Function = Callable[[Vector], tuple[float, Vector]]

_ARMIJO_SHARE = 1e-4
"""The least share of the rise promised by the slope that an accepted step must reach (Armijo's rule)."""
_FULL_STEP = 4.0
"""The step length, in radii, from which on the gradient's own direction is taken."""
_ROUNDING = 1e-12
"""The share of the gradient below which a remaining rise is rounding."""


@dataclass(frozen=True)
class Maximum:
    """The largest value of an objective that the search saw in a ball, and its position."""

    value: float
    at_centre: float
    """f(x), which `value` is never below."""
    first: float
    """f at the first point after the centre: without a `start`, after one gradient step."""
    point: Vector
    """The displacement e from the centre, with ‖e / scale‖ ≤ radius up to rounding."""
    residual: float
    """The further rise in the ball if f were linear at the point: radius·‖scale·∇f‖ − ∇f·e."""


def largest_in_ball(
    objective: Function,
    x: Vector,
    *,
    radius: float,
    scale: Vector | None = None,
    n_iterations: int = 10,
    start: Vector | None = None,
    centre: tuple[float, Vector] | None = None,
) -> Maximum:
    """Return the largest f(x + e) that projected gradient ascent sees in the ball ‖e / scale‖ ≤ radius.

    In u = e / (radius · scale), a point of the unit ball, the gradient is d = radius · scale · ∇f. A step goes to Π(u
    + t d), with Π the projection on the ball. It begins with t = ∞, at d/‖d‖. So the first point from the centre is e
    = radius · scale² ∇f / ‖scale · ∇f‖, the step of SAM and ASAM. A convex f never falls. t is halved after a step
    that rises too little, and doubled after a step that is accepted. e = 0 always counts, so the result is at least
    f(x).

    Args:
        objective: The function that returns f and its gradient.
        x: The centre of the ball.
        radius: The radius, above 0.
        scale: The stretch of the ball along each axis; ones by default. A zero excludes the axis.
        n_iterations: The number of points that are evaluated, from 1.
        start: Another u to begin from, which counts as a point; the centre by default.
        centre: f and its gradient at x, if they are already computed.

    Returns:
        The maximum.

    Raises:
        GrokscopeError: f or its gradient is not finite in the ball.
    """
    sides = radius * (torch.ones_like(x) if scale is None else scale)

    def evaluate(u: Vector) -> tuple[float, Vector]:
        value, gradient = objective(x + sides * u)
        return _checked_finite(value, sides * gradient)

    at_centre, gradient = objective(x) if centre is None else centre
    points = [(*_checked_finite(at_centre, sides * gradient), torch.zeros_like(x))]
    if start is not None:
        points.append((*evaluate(start), start))
    best, (f, d, u) = max(points, key=lambda point: point[0]), points[-1]
    first, step, n_done = points[-1][0], math.inf, len(points) - 1
    while n_done < n_iterations and float(d.norm() - d @ u) > _ROUNDING * float(d.norm()):
        length = float(d.norm())
        next_u = d / length if step * length > _FULL_STEP else u + step * d
        next_u = next_u / next_u.norm().clamp_min(1)
        next_f, next_d = evaluate(next_u)
        first = next_f if n_done == 0 else first
        if next_f > best[0]:
            best = next_f, next_d, next_u
        if next_f >= f + _ARMIJO_SHARE * float(d @ (next_u - u)):
            f, d, u = next_f, next_d, next_u
            step *= 2
        else:
            step = min(step, 2 / length) / 2
        n_done += 1
    highest, d, u = best
    return Maximum(highest, at_centre, first, sides * u, float(d.norm() - d @ u))


_VARIABLES = with_companions(
    {
        "sam_sharpness": Variable("SAM sharpness of the {loss} train loss", "nats", is_logarithmic=True),
        "sam_sharpness_step": Variable(
            "SAM sharpness of the {loss} train loss, one step", "nats", is_logarithmic=True
        ),
        "sam_sharpness_by_start": Variable(
            "SAM sharpness of the {loss} train loss from each start", "nats", ("start",), is_logarithmic=True
        ),
        "adaptive_sam_sharpness": Variable(
            "adaptive SAM sharpness of the {loss} train loss", "nats", is_logarithmic=True
        ),
        "adaptive_sam_sharpness_step": Variable(
            "adaptive SAM sharpness of the {loss} train loss, one step", "nats", is_logarithmic=True
        ),
        "adaptive_sam_sharpness_by_start": Variable(
            "adaptive SAM sharpness of the {loss} train loss from each start", "nats", ("start",), is_logarithmic=True
        ),
        "train_loss": Variable("{loss} train loss", "nats", is_logarithmic=True),
    },
    residual=("sam_sharpness", "adaptive_sam_sharpness"),
)


@measure(n_checkpoints=12, by_checkpoint=True, variables=_VARIABLES)
def sam_sharpness(
    trajectory: Trajectory,
    *,
    radius: float = 0.05,
    adaptive_radius: float = 0.5,
    n_iterations: int = 10,
    n_starts: int = 2,
    seed: int = 0,
    dtype: str = "float32",
) -> Series:
    """Compute max L(w + e) − L(w) over the ball ‖e‖ ≤ ρ, and over the adaptive ball ‖e / |w|‖ ≤ ρ.

    L is the mean train loss in nats and w the trained parameters. The adaptive form divides each e_i by |w_i|. It is
    the paper's elementwise T_w without its η. 0 is flat.

    Args:
        trajectory: The checkpoints to measure.
        radius: ρ of the plain form, in units of weight, above 0. The default 0.05 is Foret et al.'s.
        adaptive_radius: ρ of the adaptive form, above 0. The default 0.5 is Kwon et al.'s.
        n_iterations: The number of points of each ascent, from 1. One point is SAM's own step.
        n_starts: The number of ascents, from 1: from e = 0, then from random points of the sphere. The default 2 is
            the smallest number that shows a spread.
        seed: The seed of the random starts. All steps share them.
        dtype: The precision of parameters and logits, "float32" or "float64". The default float32 halves the time,
            and moved the values by up to 1e-4 of them.

    Returns:
        Series with arrays over the steps, in nats. Each array but `train_loss` has an adaptive form with the prefix
        `adaptive_`.

        - `sam_sharpness` (steps): the largest rise over the starts. It is a lower bound of the maximum, which cannot
          be certified.
        - `sam_sharpness_step` (steps): the rise after SAM's one gradient step, e = ρ g / ‖g‖, or adaptively e = ρ w²
          g / ‖w g‖. After memorization the gradient says little, and this may be a thousandth of the maximum.
        - `sam_sharpness_by_start` (steps, n_starts): the rise from each start. The spread tells how far to trust the
          maximum.
        - `sam_sharpness_residual` (steps): the further rise if the loss were linear at the maximum; 0 at a local
          maximum.
        - `train_loss` (steps): L(w).

    Raises:
        GrokscopeError: An option is out of range, or the loss is not finite.

    References:
        - Foret et al. 2021, equation 2.
        - Kwon et al. 2021, section 4.
        - Dinh et al. 2017: rescaling layers gives the plain form any value.

    Invariances:
        - Both: the order of neurons and heads.
        - Plain: a rotation of the residual stream or within a head, and a shift of all logits. Not rescaled layers.
        - Adaptive: rescaled neurons, W_V against W_O, and W_Q against W_K. Not rotations or shifts.

    Cost:
        - About 2 · n_starts · n_iterations gradients per checkpoint.
    """
    radii = {"": radius, "adaptive_": adaptive_radius}
    check_ranges(
        ("radius", radius, 0 < radius < math.inf, "above 0"),
        ("adaptive_radius", adaptive_radius, 0 < adaptive_radius < math.inf, "above 0"),
        ("n_iterations", n_iterations, n_iterations >= 1, "from 1"),
        ("n_starts", n_starts, n_starts >= 1, "from 1"),
    )
    rows = []
    for _, train_loss in objectives(trajectory, dtype=dtype):
        w, f = train_loss.point, train_loss.value_and_gradient
        centre = f(w)
        row: dict[str, float | list[float]] = {"train_loss": centre[0]}
        for prefix, rho in radii.items():
            scale = w.abs() if prefix else None
            maxima = [
                largest_in_ball(f, w, radius=rho, scale=scale, n_iterations=n_iterations, start=start, centre=centre)
                for start in _starts(w, n_starts, seed)
            ]
            highest = max(maxima, key=lambda maximum: maximum.value)
            row |= {
                f"{prefix}sam_sharpness": highest.value - highest.at_centre,
                f"{prefix}sam_sharpness_step": maxima[0].first - highest.at_centre,
                f"{prefix}sam_sharpness_by_start": [maximum.value - maximum.at_centre for maximum in maxima],
                f"{prefix}sam_sharpness_residual": highest.residual,
            }
        rows.append(row)
    return Series.of_rows("sam_sharpness", trajectory.steps, rows)


def _starts(like: Vector, n_starts: int, seed: int) -> list[Vector | None]:
    """Return the centre (None), then points drawn uniformly from the unit sphere."""
    gaussians = (
        torch.randn(len(like), generator=rng.generator("sam", seed, i), dtype=torch.float64).to(like)
        for i in range(1, n_starts)
    )
    return [None, *(gaussian / gaussian.norm() for gaussian in gaussians)]


def _checked_finite(value: float, gradient: Vector) -> tuple[float, Vector]:
    """Return the value and the gradient; raise GrokscopeError if one of them is not finite."""
    if not (math.isfinite(value) and bool(torch.isfinite(gradient).all())):
        raise GrokscopeError("The train loss or its gradient is not finite in the ball: the maximum is undefined.")
    return value, gradient
