"""Average-case sharpness: how far Gaussian noise on the weights raises the train loss, and how much is tolerable."""

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
from grokscope.measures._declaration import measure
from grokscope.measures._ranges import check_ranges
from grokscope.model.losses import mean_over_targets
from grokscope.series import Series
from grokscope.trajectory import Trajectory
from grokscope.variable import Variable, with_companions

SMALLEST, LARGEST = 1e-6, 1e3
"""The range of σ in which a perturbation radius is searched."""
_PAIRS_PER_BATCH = 4
"""The number of pairs of noisy models that are evaluated side by side, which saves small models most of the time."""
_CONFIDENCE = 0.95
"""The confidence level of the interval of the mean rise."""

Samples = Float[np.ndarray, " n_pairs"]


@dataclass(frozen=True)
class Radius:
    """The σ at which the mean of a falling curve crosses a level."""

    value: float
    """The crossing, interpolated in log σ between the ends of `interval`."""
    stderr: float
    """Half of the distance between the crossings of level ± the standard error of the mean."""
    interval: tuple[float, float]
    """The largest σ seen at or above the level before the crossing, and the smallest σ seen below the level."""


def skewed_interval(samples: Samples, confidence: float = _CONFIDENCE) -> tuple[float, float]:
    """Return a confidence interval of the mean of skewed samples.

    Let x = t/√n − γ/6n for a quantile t of Student's distribution, and γ the skewness of the samples. A bound is the
    mean minus std · 3/γ · ((1 + γx)^(1/3) − 1). For γ = 0 this is the usual interval. A long tail on the right moves
    both bounds to the right, because a sample without the rare large values has too small a mean and too small an
    error.

    Args:
        samples: The samples, at least two.
        confidence: The probability that the interval contains the mean, from 0 to 1.

    References:
        Hall 1992, "On the removal of skewness by transformation", transformation 2.
    """
    # Imported here because the import takes a third of a second, and reading a saved measure does not need it.
    from scipy.stats import t as student

    n, mean, std = len(samples), float(np.mean(samples)), float(np.std(samples, ddof=1))
    if std == 0:
        return mean, mean
    skewness = float(np.mean((samples - mean) ** 3)) / std**3
    quantile = float(student.ppf((1 + confidence) / 2, n - 1))

    def bound(t: float) -> float:
        x = t / math.sqrt(n) - skewness / (6 * n)
        # For a small skewness, the transformed value is x, and the formula would cancel.
        shift = x if abs(skewness) < 1e-6 else 3 * (math.cbrt(1 + skewness * x) - 1) / skewness
        return mean - std * shift

    return bound(quantile), bound(-quantile)


def crossing(curve: Callable[[float], Samples], level: float, *, start: float, tolerance: float = 0.05) -> Radius:
    """Return the σ at which the mean of `curve(σ)` falls below `level`.

    σ is multiplied or divided by 4 until the mean crosses the level. Then the interval is bisected on a logarithmic
    scale. Of several crossings it finds one.

    Args:
        curve: The function that returns one sample per pair at a σ.
        level: The level that the mean crosses.
        start: The σ to begin from.
        tolerance: The largest relative width of the final interval: its upper end is at most 1 + `tolerance` times
            its lower end.

    Returns:
        The crossing. A curve that does not cross between 1e-6 and 1e3 gets the limit as value, with a standard error
        of 0.
    """
    estimates: dict[float, Estimate] = {}

    def is_above(sigma: float) -> bool:
        estimates[sigma] = Estimate.of(curve(sigma))
        return estimates[sigma].value >= level

    start_is_above = is_above(start)
    factor, limit = (4.0, LARGEST) if start_is_above else (0.25, SMALLEST)
    sigma, next_sigma = start, min(max(start * factor, SMALLEST), LARGEST)
    while next_sigma != sigma and is_above(next_sigma) == start_is_above:
        sigma, next_sigma = next_sigma, min(max(next_sigma * factor, SMALLEST), LARGEST)
    if next_sigma == sigma:
        return Radius(limit, 0.0, (limit, limit))
    low, high = min(sigma, next_sigma), max(sigma, next_sigma)
    while high > (1 + tolerance) * low:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if is_above(middle) else (low, middle)
    sigmas = sorted(estimates)
    means = np.minimum.accumulate([estimates[sigma].value for sigma in sigmas])
    stderr = max(estimates[low].stderr, estimates[high].stderr)

    def sigma_at(height: float) -> float:
        return float(np.exp(np.interp(-height, -means, np.log(sigmas))))

    share = (estimates[low].value - level) / (estimates[low].value - estimates[high].value)
    half_width = (sigma_at(level - stderr) - sigma_at(level + stderr)) / 2
    return Radius(low * (high / low) ** share, half_width, (low, high))


_VARIABLES = with_companions(
    {
        "average_sharpness": Variable("mean rise of the {loss} train loss under noise", "nats", is_logarithmic=True),
        "perturbation_radius": Variable("perturbation radius", "σ", is_logarithmic=True),
        "adaptive_average_sharpness": Variable(
            "mean rise of the {loss} train loss under adaptive noise", "nats", is_logarithmic=True
        ),
        "adaptive_perturbation_radius": Variable("adaptive perturbation radius", "σ", is_logarithmic=True),
        "train_loss": Variable("{loss} train loss", "nats", is_logarithmic=True),
        "train_accuracy": Variable("train accuracy"),
    },
    stderr=(
        *("average_sharpness", "perturbation_radius"),
        *("adaptive_average_sharpness", "adaptive_perturbation_radius"),
    ),
    interval=(
        *("average_sharpness", "perturbation_radius"),
        *("adaptive_average_sharpness", "adaptive_perturbation_radius"),
    ),
)


@measure(version=2, n_checkpoints=24, by_checkpoint=True, variables=_VARIABLES)
def average_sharpness(
    trajectory: Trajectory,
    *,
    sigma: float = 0.01,
    adaptive_sigma: float = 0.1,
    share_kept: float = 0.9,
    n_pairs: int = 64,
    n_radius_pairs: int = 4,
    tolerance: float = 0.05,
    seed: int = 0,
    dtype: str = "float32",
) -> Series:
    """Compute E[L(w + ε)] − L(w) for Gaussian noise ε, and the largest noise under which the answers stay right.

    L is the mean train loss in nats and w the trained parameters. ε is N(0, σ²), or in the adaptive form N(0, σ²
    |w|²) elementwise. Each noise direction is used with both signs, which cancels the odd terms of the expansion in
    σ. The second-order term is σ²/2 · tr H, or adaptively σ²/2 · Σ w_i² H_ii. Large sharpness is sharp; a large
    radius is flat.

    Args:
        trajectory: The checkpoints to measure.
        sigma: σ of the plain form, in units of weight, from 1e-6 to 1000.
        adaptive_sigma: σ of the adaptive form, as a share of each weight, from 1e-6 to 1000.
        share_kept: The share of the noiseless accuracy that a perturbation radius keeps, between 0 and 1. The default
            0.9 allows a fall of 10%, as Jiang et al. do.
        n_pairs: The number of noise directions for the mean rise, from 2, because the standard error is over the
            pairs. All steps and both forms share the directions. 256 make the interval hold for heavy tails too (see
            below), at three times the cost of the default 64.
        n_radius_pairs: The number of these directions for the radii, from 2. The accuracy is bounded, so a few pairs
            suffice, and a radius needs about 8 σ.
        tolerance: The relative width to which a radius is bisected, above 1e-6. The default is 5%.
        seed: The seed of the noise.
        dtype: The precision of parameters and logits, "float32" or "float64".

    Returns:
        Series with arrays over the steps. Each array but the last two has an adaptive form with the prefix
        `adaptive_`.

        - `average_sharpness`, `average_sharpness_stderr` (steps), in nats. Both signs together leave a quarter of the
          error before memorization. Later the error is up to a third larger than with as many independent directions.
          After memorization, the rise has a heavy tail: a few pairs flip an answer and carry the mean. Most draws
          then give too small a mean with too small a standard error.
        - `average_sharpness_interval` (steps, 2): a 95% confidence interval, corrected for this skewness
          (`skewed_interval`). In 20 trials on memorized networks of 5 to 13 elements, it contained the mean for 85 to
          96% of the draws in 17, and for 70 to 80% in the three with the heaviest tails. Two standard errors of 4
          pairs contained it for 16 to 84%. With 256 pairs, the interval contained it for 85 to 96% in all 20.
        - `perturbation_radius` (steps), in units of σ: the largest σ at which the mean train accuracy is at least
          `share_kept` of the accuracy without noise. It is 1000 if every σ keeps it, and 1e-6 if none does. Before
          memorization it means little: a guess stays a guess.
        - `perturbation_radius_stderr` (steps): from the standard error of the accuracy.
        - `perturbation_radius_interval` (steps, 2): the interval to which the radius was bisected.
        - `train_loss`, `train_accuracy` (steps): at w.

    Raises:
        GrokscopeError: An option is out of range, or the loss is not finite.

    References:
        - Andriushchenko et al. 2023, equations 1 and 2: both forms.
        - Jiang et al. 2020, appendix C: perturbation radii. Their magnitude-aware radius adds a constant to |w|.
        - Hall 1992: the interval of a skewed mean.

    Invariances:
        - Plain, within the standard errors, because the noise has axes: the order of neurons and heads, a rotation of
          the residual stream or within a head, and a shift of all logits.
        - Plain: not rescaled layers.
        - Adaptive: rescaled layers, exactly; the order of neurons and heads, within the standard errors. Not
          rotations or shifts.

    Cost:
        - 2 · `n_pairs` forward passes over the train equations per checkpoint, and 2 · `n_radius_pairs` for each of
          about 8 σ of a radius, in both forms.
    """
    sigmas = {"": sigma, "adaptive_": adaptive_sigma}
    check_ranges(
        ("sigma", sigma, SMALLEST <= sigma <= LARGEST, "1e-6 to 1000"),
        ("adaptive_sigma", adaptive_sigma, SMALLEST <= adaptive_sigma <= LARGEST, "1e-6 to 1000"),
        ("share_kept", share_kept, 0 < share_kept < 1, "between 0 and 1"),
        ("n_pairs", n_pairs, n_pairs >= 2, "from 2"),
        ("n_radius_pairs", n_radius_pairs, n_radius_pairs >= 2, "from 2"),
        ("tolerance", tolerance, tolerance > 1e-6, "above 1e-6"),
    )
    rows, noise = [], None
    for _, train_loss in objectives(trajectory, dtype=dtype):
        w = train_loss.point
        if noise is None:
            generator = rng.generator("average sharpness", seed, 0)
            n_directions = max(n_pairs, n_radius_pairs)
            noise = torch.randn(n_directions, len(w), generator=generator, dtype=torch.float64).to(w)
        noiseless = _losses_and_accuracies(train_loss, torch.zeros_like(noise[:1]), 0.0)
        loss, accuracy = (float(values[0]) for values in noiseless)
        row: dict[str, float | tuple[float, float]] = {"train_loss": loss, "train_accuracy": accuracy}
        for prefix, form_sigma in sigmas.items():
            directions = noise * w.abs() if prefix else noise
            rises = _losses_and_accuracies(train_loss, directions[:n_pairs], form_sigma)[0] - loss
            rise = Estimate.of(rises)
            curve = functools.partial(_accuracies, train_loss, directions[:n_radius_pairs])
            radius = crossing(curve, share_kept * accuracy, start=form_sigma, tolerance=tolerance)
            row |= {
                f"{prefix}average_sharpness": rise.value,
                f"{prefix}average_sharpness_stderr": rise.stderr,
                f"{prefix}average_sharpness_interval": skewed_interval(rises),
                f"{prefix}perturbation_radius": radius.value,
                f"{prefix}perturbation_radius_stderr": radius.stderr,
                f"{prefix}perturbation_radius_interval": radius.interval,
            }
        rows.append(row)
    return Series.of_rows("average_sharpness", trajectory.steps, rows)


def _accuracies(objective: Objective, directions: Float[Tensor, "n_pairs n"], sigma: float) -> Samples:
    """Return the mean accuracy of each pair w ± σz."""
    return _losses_and_accuracies(objective, directions, sigma)[1]


def _losses_and_accuracies(
    objective: Objective, directions: Float[Tensor, "n_pairs n"], sigma: float
) -> tuple[Samples, Samples]:
    """Return the mean loss and the mean accuracy of each pair w ± σz; raise GrokscopeError for a loss not finite."""

    def evaluate(x: Float[Tensor, " n"]) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        losses, is_right = objective.evaluate_examples(x)
        return mean_over_targets(losses, objective.labels), mean_over_targets(is_right, objective.labels)

    parts = []
    for part in directions.split(_PAIRS_PER_BATCH):
        evaluated = torch.func.vmap(evaluate)(objective.point + sigma * torch.cat([part, -part]))
        parts.append(torch.stack([values.double().unflatten(0, (2, -1)).mean(0) for values in evaluated]))
    losses, accuracies = torch.cat(parts, 1).numpy()
    if not np.isfinite(losses).all():
        raise GrokscopeError(f"The train loss is not finite under noise of σ = {sigma:.3g}. Take a smaller sigma.")
    return losses, accuracies
