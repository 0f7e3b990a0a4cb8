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
from grokscope.series import Series, by_checkpoint
from grokscope.trajectory import Trajectory

Vector = Float[Tensor, " n"]
Function = Callable[[Vector], tuple[float, Vector]]

_ENOUGH = 1e-4
"""The share of its linear promise that a step must keep (Armijo's rule)."""
_FAR = 4.0
"""The step, in radii, beyond which it is as good as infinite."""
_STILL = 1e-12
"""The share of the gradient that, left to gain, is rounding."""


@dataclass(frozen=True)
class Maximum:
    """The largest value of an objective that was seen in a ball, and where."""

    value: float
    at_centre: float
    """f(x), which the maximum is never below."""
    first: float
    """f at the first point that was looked at: from the centre, that of the one gradient step."""
    point: Vector
    """The displacement e from the centre, ‖e / scale‖ ≤ radius to rounding."""
    residual: float
    """What a linear objective of the same gradient would still gain in the ball, radius·‖scale·∇f‖ − ∇f·e."""


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
    """Return the largest f(x + e), ‖e / scale‖ ≤ radius, that projected gradient ascent sees at `n_iterations`
    points.

    `objective` gives f and its gradient, `centre` both at x if they are known. Where `scale` (default: ones) is zero
    there is no direction. In u = e / (radius · scale), of the unit ball, the gradient is d = radius · scale · ∇f, and
    a step goes to Π(u + t d), Π the projection on the ball. It begins with t = ∞, at d/‖d‖ itself: so the first point
    from the centre is e = radius · scale² ∇f / ‖scale · ∇f‖, SAM's and ASAM's own, and a convex f never falls. Where
    f rises too little t is halved, and doubled again where it rises. `start` is another u to begin from, which counts
    as a point. e = 0 always counts, so the result is at least f(x). Raise GrokscopeError where f is not finite.
    """
    sides = radius * (torch.ones_like(x) if scale is None else scale)

    def at(u: Vector) -> tuple[float, Vector]:
        value, gradient = objective(x + sides * u)
        return _finite(value, sides * gradient)

    at_centre, gradient = objective(x) if centre is None else centre
    seen = [(*_finite(at_centre, sides * gradient), torch.zeros_like(x))]
    if start is not None:
        seen.append((*at(start), start))
    best, (f, d, u) = max(seen, key=lambda one: one[0]), seen[-1]
    first, step, n_done = seen[-1][0], math.inf, len(seen) - 1
    while n_done < n_iterations and float(d.norm() - d @ u) > _STILL * float(d.norm()):
        length = float(d.norm())
        moved = d / length if step * length > _FAR else u + step * d
        moved = moved / moved.norm().clamp_min(1)
        value, slope = at(moved)
        first = value if n_done == 0 else first
        if value > best[0]:
            best = value, slope, moved
        if value >= f + _ENOUGH * float(d @ (moved - u)):
            f, d, u = value, slope, moved
            step *= 2
        else:
            step = min(step, 2 / length) / 2
        n_done += 1
    highest, d, u = best
    return Maximum(highest, at_centre, first, sides * u, float(d.norm() - d @ u))


@by_checkpoint
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
    """Measure max L(w + e) − L(w) over ‖e‖ ≤ ρ (Foret et al. 2021), and over ‖e / |w|‖ ≤ ρ (Kwon et al. 2021).

    L is the mean train loss in nats, w the trained parameters. The second, adaptive form divides each e_i by |w_i|
    (the paper's T_w, elementwise, without its η); its radius is `adaptive_radius`, the default of either radius the
    paper's own. Arrays over steps, each plain and with the prefix `adaptive_`:

    - `sam_sharpness`: the largest rise over the starts, by projected gradient ascent (`largest_in_ball`). It is a
      lower bound of the maximum, which nothing can certify;
    - `sam_sharpness_step`: the rise after the one gradient step that the optimizer SAM takes, e = ρ g / ‖g‖ (Foret et
      al., eq. 2) and e = ρ w² g / ‖w g‖ (Kwon et al., section 4). After memorization, where the gradient says little,
      it may be a thousandth of the maximum;
    - `sam_sharpness_by_start` (n_starts): the rise from e = 0, then from random points of the sphere (`seed`, the
      same at every step). Their spread says how far to trust it;
    - `sam_sharpness_residual`: the rise still to be had at the point found if the loss were linear there: 0 at a
      local maximum.

    And `train_loss`, L(w). 0 is flat. Both are invariant to the order of neurons and heads. The plain one is also to
    what turns or shifts weight space (a rotation of the residual stream or within a head, the same added to all
    logits), but not to rescaling a layer against the next, by which it can be made any number (Dinh et al. 2017). The
    adaptive one is invariant to rescaling neurons, or W_V against W_O and W_Q against W_K, but to no rotation or
    shift. Parameters and logits are in `dtype`: float32 takes half the time and moved the values by up to 1e-4 of
    them. Costs about 2 · n_starts · n_iterations gradients a checkpoint. Raise GrokscopeError for an option out of
    range, and where the loss is not finite.
    """
    radii = {"": radius, "adaptive_": adaptive_radius}
    if not all(0 < one < math.inf for one in radii.values()) or n_iterations < 1 or n_starts < 1:
        raise GrokscopeError(
            f"radius: {radius}, adaptive_radius: {adaptive_radius}, allowed: above 0; n_iterations: {n_iterations}, "
            f"allowed: from 1; n_starts: {n_starts}, allowed: from 1."
        )
    rows = []
    for _, train_loss in objectives(trajectory, dtype=dtype):
        w, f = train_loss.point, train_loss.value_and_gradient
        centre = f(w)
        row: dict[str, float | list[float]] = {"train_loss": centre[0]}
        for prefix, its_radius in radii.items():
            scale = w.abs() if prefix else None
            found = [
                largest_in_ball(
                    f, w, radius=its_radius, scale=scale, n_iterations=n_iterations, start=start, centre=centre
                )
                for start in _starts(w, n_starts, seed)
            ]
            highest = max(found, key=lambda one: one.value)
            row |= {
                f"{prefix}sam_sharpness": highest.value - highest.at_centre,
                f"{prefix}sam_sharpness_step": found[0].first - highest.at_centre,
                f"{prefix}sam_sharpness_by_start": [one.value - one.at_centre for one in found],
                f"{prefix}sam_sharpness_residual": highest.residual,
            }
        rows.append(row)
    return Series.of_rows("sam_sharpness", trajectory.steps, rows)


def _starts(like: Vector, n_starts: int, seed: int) -> list[Vector | None]:
    """Return the centre, then points drawn uniformly from the unit sphere."""
    drawn = (
        torch.randn(len(like), generator=rng.generator("sam", seed, i), dtype=torch.float64).to(like)
        for i in range(1, n_starts)
    )
    return [None, *(one / one.norm() for one in drawn)]


def _finite(value: float, gradient: Vector) -> tuple[float, Vector]:
    if not (math.isfinite(value) and bool(torch.isfinite(gradient).all())):
        raise GrokscopeError("The train loss or its gradient is not finite in the ball, so it has no maximum.")
    return value, gradient
