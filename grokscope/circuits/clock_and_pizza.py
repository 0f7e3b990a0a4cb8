"""Clock or pizza: formulas that separate the two ways to add on a circle (Zhong et al. 2023).

Notation: i and j are the positions of the operands on the task's circle of n points. s = i + sign·j is the position
of the answer and d = i − sign·j the distance of the operands; for a difference, sign is −1. w = 2πk/n is the angular
frequency.

- A clock multiplies. From cos and sin of both operands' angles it computes cos and sin of their sum. Its logit of the
  answer l is therefore cos(w(s − l)) for any distance.
- A pizza adds the two embeddings. Their sum points to half the angle w·s and has length |cos(w·d/2)|, so its logit is
  |cos(w·d/2)| cos(w(s − l)). It vanishes for operands on opposite sides of the circle.

References:
    Zhong et al. 2023, "The Clock and the Pizza".
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokscope.series import Series

SYMMETRICITY_THRESHOLD, IRRELEVANCE_THRESHOLD = 0.66, 0.51
"""The gradient symmetricity and the distance irrelevance half-way between the paper's pizza and its clock."""
EXPLAINED_THRESHOLD = 0.9
"""The least share of a circle's logit variance that its formula explains. The other formula explains 0.81."""

_KINDS = ("clock", "pizza", "either", "neither")


def gradient_symmetricity(
    by_first: Float[Tensor, "n_triples d_model"], by_second: Float[Tensor, "n_triples d_model"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return the mean of cos(∂Q_abc/∂E_a, ∂Q_abc/∂E_b) over triples (a, b, c), and its standard error.

    Q_abc is the logit of c; E_a and E_b are the embeddings of the operands. The value is 1 for any function of
    E_a + E_b, so for a pizza, and lower for a clock. A gradient of zero counts as 0.

    Args:
        by_first: The gradients by the first operand's embedding, one triple per row.
        by_second: The gradients by the second operand's embedding.

    References:
        Zhong et al. 2023, section 4.1.
    """
    cosines = torch.cosine_similarity(by_first, by_second, dim=-1)
    return cosines.mean(), cosines.std() / len(cosines) ** 0.5


def distance_irrelevance(correct: Float[Tensor, "*batch n n"], sign: int) -> Float[Tensor, "*batch"]:
    """Return (1/n) Σ_d std_s M[s, d] / std M, where M[s, d] is the logit of the correct answer.

    The value is 0 if the distance alone decides the logit, as in a pizza. It is near 1 if the distance does not
    matter, as in a clock or an untrained network. It is 1 if the logit is constant. For each distance, the standard
    deviation covers the n equations of this distance; for odd n they have every s once.

    Args:
        correct: The logit of the correct answer for operands at positions (i, j).
        sign: 1 if the operation adds positions, −1 if it subtracts them.

    References:
        Zhong et al. 2023, section 4.2.
    """
    n = correct.shape[-1]
    i = torch.arange(n)
    j = sign * (i - i[:, None]) % n
    by_distance = correct[..., i.expand(n, n), j]
    total_std = correct.flatten(-2).std(-1, correction=0)
    is_constant = total_std <= 1e-12 * correct.abs().amax((-2, -1))
    mean_std = by_distance.std(-1, correction=0).mean(-1)
    return torch.where(is_constant, 1.0, mean_std / torch.where(is_constant, 1.0, total_std))


def clock_logits(
    n: int, frequency: int, total: Int[Tensor, " n_pairs"], distance: Int[Tensor, " n_pairs"]
) -> Float[Tensor, "n_pairs n"]:
    """Return the logits cos(w(s − l)) of a clock at every answer l.

    Args:
        n: The number of points on the circle.
        frequency: The frequency k of the clock, from 1 to n // 2.
        total: The answer's position s of each pair, not necessarily reduced modulo n.
        distance: Not used; the formulas share one signature.

    References:
        Zhong et al. 2023, section 3.
    """
    return _angle(n, frequency * (total[:, None] - torch.arange(n))).cos()


def pizza_logits(
    n: int, frequency: int, total: Int[Tensor, " n_pairs"], distance: Int[Tensor, " n_pairs"]
) -> Float[Tensor, "n_pairs n"]:
    """Return the logits |cos(w·d/2)| cos(w(s − l)) of a pizza at every answer l.

    Args:
        n: The number of points on the circle.
        frequency: The frequency k of the pizza, from 1 to n // 2.
        total: The answer's position s of each pair, not necessarily reduced modulo n.
        distance: The distance d of the operands of each pair.

    References:
        Zhong et al. 2023, section 3.
    """
    length = (_angle(n, frequency * distance) / 2).cos().abs()
    return length[:, None] * clock_logits(n, frequency, total, distance)


def explained_variance(
    logits: Float[Tensor, "n_pairs n"], formula: Float[Tensor, "n_pairs n"], n_all: int
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
    """Return the share ⟨Q, F⟩² / (|Q|²|F|²) of the logits' variance that a formula explains.

    A least-squares multiple of F leaves 1 minus the share unexplained. Q and F are the logits and the formula after
    two subtractions. The first is the mean over the answers of each equation, which a softmax ignores. The second is
    the mean over the equations of each answer, which does not depend on the operands.

    A pizza explains 8/π² ≈ 0.81 of a clock, and a clock the same share of a pizza. A share of 0.81 is therefore not
    evidence for one formula if the share of the other is 1.

    Args:
        logits: The logits of equations that were drawn at random without replacement.
        formula: The formula's logits for the same equations.
        n_all: The number of equations to draw from.

    Returns:
        share: The explained share, from 0 to 1; 0 if all logits are zero.
        standard error: The first-order error of this ratio for the random draw; 0 if all equations were drawn.
        variance: The mean square of Q.
    """
    q, f = (x - x.mean(-1, keepdim=True) for x in (logits, formula))
    q, f = (x - x.mean(-2, keepdim=True) for x in (q, f))
    tiny = torch.finfo(q.dtype).tiny
    products, logit_squares, formula_squares = ((a * b).mean(-1) for a, b in ((q, f), (q, q), (f, f)))
    mean, denominator = products.mean(), (logit_squares.mean() * formula_squares.mean()).clamp_min(tiny)
    share = mean.square() / denominator
    # The differential of the share, one equation's part each: Δ(A²/BC) = 2A ΔA/BC − share (ΔB/B + ΔC/C).
    parts = 2 * mean * products / denominator
    parts = parts - share * sum(x / x.mean().clamp_min(tiny) for x in (logit_squares, formula_squares))
    not_drawn = max(1 - len(q) / n_all, 0.0)
    return share, parts.std() * (not_drawn / len(q)) ** 0.5, logit_squares.mean()


@dataclass(frozen=True)
class Verdict:
    """The algorithm by which a network adds on a circle, and the evidence for it."""

    algorithm: str
    """"clock", "pizza" or "undecided"."""
    circles: Mapping[int, str]
    """The kind of each isolated circle by frequency: "clock", "pizza", "either" or "neither"."""
    sentence: str
    """The algorithm with its evidence and the values of the untrained model."""


def verdict(series: Series) -> Verdict:
    """Judge the last step of the measure `algorithm` by three criteria that must agree.

    - Pizza: gradient symmetricity above 0.66, distance irrelevance below 0.51, and the pizza's formula explains more
      of the logits on isolated circles than the clock's. The shares are averaged over the circles, weighted by their
      logit variance.
    - Clock: the opposite of all three.
    - Undecided: otherwise.

    Both thresholds are half-way between the paper's networks: the pizza at (0.99, 0.17), the clock at (0.33, 0.85).
    An untrained network is near (1, 1), so it is undecided.

    A circle is of the kind whose formula explains more of it, if that share is at least 0.9. It is "either" if two
    standard errors do not separate the formulas, and at frequency n/2, where they are equal. A network can have both
    kinds of circles; the sentence then reports it.

    Args:
        series: The measure `algorithm`.

    References:
        Zhong et al. 2023, section 4.
    """
    names = ("gradient_symmetricity", "distance_irrelevance")
    symmetricity, irrelevance = (float(series[name][-1]) for name in names)
    untrained = [float(series[f"{name}_initialization"]) for name in names]
    circles = _kinds_of_circles(series)
    clock, pizza = (_mean_explained_variance(series, name) for name in ("clock", "pizza"))
    if symmetricity > SYMMETRICITY_THRESHOLD and irrelevance < IRRELEVANCE_THRESHOLD and pizza > clock:
        algorithm = "pizza"
    elif symmetricity < SYMMETRICITY_THRESHOLD and irrelevance > IRRELEVANCE_THRESHOLD and clock > pizza:
        algorithm = "clock"
    else:
        algorithm = "undecided"
    frequencies = {kind: [str(k) for k, circle in circles.items() if circle == kind] for kind in _KINDS}
    if algorithm == "undecided":
        conclusion = "The criteria for clock and pizza disagree"
    elif frequencies["pizza" if algorithm == "clock" else "clock"]:
        conclusion = f"The network adds by a {algorithm}, but not on all circles"
    else:
        conclusion = f"The network adds by a {algorithm}"
    by_kind = "; ".join(f"{kind} at {', '.join(numbers)}" for kind, numbers in frequencies.items() if numbers)
    return Verdict(
        algorithm,
        circles,
        f"{conclusion}. Gradient symmetricity: {symmetricity:.2f} (untrained {untrained[0]:.2f}). Distance "
        f"irrelevance: {irrelevance:.2f} (untrained {untrained[1]:.2f}). Logit variance explained on isolated "
        f"circles: {clock:.0%} by the clock, {pizza:.0%} by the pizza. Circles by frequency: {by_kind}.",
    )


def _mean_explained_variance(series: Series, formula: str) -> float:
    """Return the share that a formula explains at the last step, averaged with the circles' logit variance."""
    shares, weights = series[f"{formula}_explained_variance"][-1], series["circle_logit_variance"][-1]
    return float((shares * weights).sum() / max(weights.sum(), np.finfo(float).tiny))


def _kinds_of_circles(series: Series) -> dict[int, str]:
    """Return the kind of each isolated circle at the last step, by frequency."""
    clock, pizza = (series[f"{name}_explained_variance"][-1] for name in ("clock", "pizza"))
    stderrs = np.add(*(series[f"{name}_explained_variance_stderr"][-1] for name in ("clock", "pizza")))
    kinds = {}
    for i, frequency in enumerate(series["circle_frequencies"]):
        formulas_are_equal = 2 * frequency == series["n_positions"]
        kinds[int(frequency)] = _kind(clock[i], pizza[i], np.inf if formulas_are_equal else 2 * stderrs[i])
    return kinds


def _kind(clock: float, pizza: float, error: float) -> str:
    """Return which of _KINDS a circle is, given the shares that the two formulas explain of it."""
    is_explained = clock >= EXPLAINED_THRESHOLD or pizza >= EXPLAINED_THRESHOLD
    if abs(clock - pizza) <= error and (is_explained or error == np.inf):
        return "either"
    if not is_explained:
        return "neither"
    return "clock" if clock > pizza else "pizza"


def _angle(n: int, turns: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Return the angle 2π·turns/n in float64."""
    # Reduced modulo 2n instead of n, so that half of the angle is exact too.
    return (turns % (2 * n)).double() * (2 * math.pi / n)
