"""Average-case sharpness: how far Gaussian noise on the weights raises the train loss, and how much they bear."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from grokscope import rng
from grokscope.curvature import Estimate
from grokscope.errors import GrokscopeError
from grokscope.landscape.objective import Objective, objectives
from grokscope.series import Series, by_checkpoint
from grokscope.trajectory import Trajectory

SMALLEST, LARGEST = 1e-6, 1e3
"""The σ between which a perturbation radius is looked for."""
_AT_ONCE = 8
"""How many sets of noisy weights are evaluated side by side."""

Samples = Float[np.ndarray, " n_pairs"]


@dataclass(frozen=True)
class Radius:
    """Where the mean of a falling curve crosses a level."""

    value: float
    """Between the ends of `interval`, linear in log σ."""
    stderr: float
    """Half of what lies between the crossings of level ± the mean's standard error there."""
    interval: tuple[float, float]
    """The largest σ found at or above the level below the crossing, and the smallest one found below the level."""


def crossing(curve: Callable[[float], Samples], level: float, *, start: float, tolerance: float = 0.05) -> Radius:
    """Return the σ at which the mean of `curve(σ)` falls below `level`.

    From `start` σ is quadrupled or quartered until the mean crosses, then bisected on a logarithmic scale until the
    upper end is at most 1 + `tolerance` times the lower. Of several crossings it finds one. A curve that does not
    cross between 1e-6 and 1e3 is given the limit, without an error.
    """
    seen: dict[float, Estimate] = {}

    def holds(sigma: float) -> bool:
        seen[sigma] = Estimate.of(curve(sigma))
        return seen[sigma].value >= level

    grows = holds(start)
    factor, limit = (4.0, LARGEST) if grows else (0.25, SMALLEST)
    last, following = start, min(max(start * factor, SMALLEST), LARGEST)
    while following != last and holds(following) == grows:
        last, following = following, min(max(following * factor, SMALLEST), LARGEST)
    if following == last:
        return Radius(limit, 0.0, (limit, limit))
    low, high = min(last, following), max(last, following)
    while high > (1 + tolerance) * low:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if holds(middle) else (low, middle)
    sigmas = sorted(seen)
    means = np.minimum.accumulate([seen[sigma].value for sigma in sigmas])
    stderr = max(seen[low].stderr, seen[high].stderr)

    def at(height: float) -> float:
        return float(np.exp(np.interp(-height, -means, np.log(sigmas))))

    share = (seen[low].value - level) / (seen[low].value - seen[high].value)
    return Radius(low * (high / low) ** share, (at(level - stderr) - at(level + stderr)) / 2, (low, high))


@by_checkpoint
def average_sharpness(
    trajectory: Trajectory,
    *,
    sigma: float = 0.01,
    adaptive_sigma: float = 0.1,
    share_kept: float = 0.9,
    n_pairs: int = 4,
    tolerance: float = 0.05,
    seed: int = 0,
    dtype: str = "float32",
) -> Series:
    """Measure E[L(w + ε)] − L(w) for Gaussian noise ε, and the noise under which the answers stay right.

    L is the mean train loss in nats, w the trained parameters. ε is N(0, σ²), or adaptive, N(0, σ² |w|²) elementwise
    with `adaptive_sigma` (Andriushchenko et al. 2023, eqs. 1 and 2). Each of the `n_pairs` noise directions, the same
    at every step and of both kinds, is taken with both signs: that drops the odd terms of the expansion in σ, whose
    second-order term is σ²/2 · tr H, or σ²/2 · Σ w_i² H_ii. Before memorization the odd terms are most of the error
    (without them it was a quarter); later the error is up to a third larger than that of as many independent
    directions. Arrays over steps, each plain and with the prefix `adaptive_`:

    - `average_sharpness` with `average_sharpness_stderr`, over the pairs;
    - `perturbation_radius`: the largest σ at which the mean train accuracy under that noise is at least `share_kept`
      of the accuracy without it (0.9: the accuracy may fall by 10%, as in Jiang et al. 2020, appendix C; their
      magnitude-aware radius adds a constant to |w|, ours none). It lies in `perturbation_radius_interval` (2), to
      which it was bisected (`tolerance`), and has a `perturbation_radius_stderr` from the accuracy's standard error.
      Where no noise does it is 1000, or 1e-6 where any does. Before memorization it means little: what is a guess
      stays one.

    And `train_loss` and `train_accuracy` at w. Large sharpness is sharp, a large radius is flat. The plain values are
    invariant to the order of neurons and heads, to a rotation of the residual stream or within a head and to what is
    added to all logits, within their standard errors, since the noise has axes; not to rescaling a layer against the
    next. The adaptive ones are invariant to that, exactly so, and to orders, but to no rotation or shift. Parameters
    and logits are in `dtype`. Costs 2 · n_pairs forward passes over the train equations for each of about 8 σ, twice.
    Raise GrokscopeError for an option out of range, and where the loss is not finite.
    """
    sigmas = {"": sigma, "adaptive_": adaptive_sigma}
    if not all(SMALLEST <= one <= LARGEST for one in sigmas.values()) or n_pairs < 2:
        raise GrokscopeError(
            f"sigma: {sigma}, adaptive_sigma: {adaptive_sigma}, allowed: 1e-6 to 1000; n_pairs: {n_pairs}, "
            f"allowed: from 2."
        )
    if not 0 < share_kept < 1 or not tolerance > 1e-6:
        raise GrokscopeError(
            f"share_kept: {share_kept}, allowed: between 0 and 1; tolerance: {tolerance}, allowed: above 1e-6."
        )
    rows, noise = [], None
    for _, train_loss in objectives(trajectory, dtype=dtype):
        w = train_loss.point
        if noise is None:
            generator = rng.generator("average sharpness", seed, 0)
            noise = torch.randn(n_pairs, len(w), generator=generator, dtype=torch.float64).to(w)
        here = _noisy(train_loss, torch.zeros_like(noise[:1]), 0.0)
        loss, accuracy = (float(one[0]) for one in here)
        row: dict[str, float | tuple[float, float]] = {"train_loss": loss, "train_accuracy": accuracy}
        for prefix, its_sigma in sigmas.items():
            kind = f"{prefix}average_sharpness", f"{prefix}perturbation_radius"
            directions = noise * w.abs() if prefix else noise
            rise = Estimate.of(_noisy(train_loss, directions, its_sigma)[0] - loss)
            row[kind[0]], row[f"{kind[0]}_stderr"] = rise.value, rise.stderr
            level, curve = share_kept * accuracy, functools.partial(_accuracies, train_loss, directions)
            radius = crossing(curve, level, start=its_sigma, tolerance=tolerance)
            row |= {
                kind[1]: radius.value,
                f"{kind[1]}_stderr": radius.stderr,
                f"{kind[1]}_interval": radius.interval,
            }
        rows.append(row)
    return Series.of_rows("average_sharpness", trajectory.steps, rows)


def _accuracies(objective: Objective, directions: Float[Tensor, "n_pairs n"], sigma: float) -> Samples:
    return _noisy(objective, directions, sigma)[1]


def _noisy(objective: Objective, directions: Float[Tensor, "n_pairs n"], sigma: float) -> tuple[Samples, Samples]:
    """Return the mean loss and accuracy of each pair w ± σz; a loss that is not finite is refused."""

    def at(x: Float[Tensor, " n"]) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        losses, right = objective.examples(x)
        return losses.mean(), right.double().mean()

    # Side by side as many as fit in memory: it spares small models most of their time.
    w, moved = objective.point, sigma * torch.cat([directions, -directions])
    found = torch.func.vmap(at, chunk_size=_AT_ONCE)(w + moved)
    losses, accuracies = (one.double().numpy().reshape(2, -1).mean(0) for one in found)
    if not np.isfinite(losses).all():
        raise GrokscopeError(f"The train loss is not finite under noise of σ = {sigma:.3g}, so it has no mean.")
    return losses, accuracies
