"""Clock or pizza: how a network adds on a circle, by the measures of Zhong et al. 2023, "The Clock and the Pizza".

A clock multiplies: from cos and sin of both operands' angles it makes those of their sum, so its logits are
cos(w(s − l)) at answer l, w = 2πk/n, whatever the operands' distance. A pizza adds the two embeddings: their sum
points to half the angle w·s and has length |cos(w·d/2)|, so its logits are |cos(w·d/2)| cos(w(s − l)) and vanish for
operands that face each other. Throughout i and j are the operands' positions on the task's circle, s = i + sign·j is
the answer's and d = i − sign·j their distance, so that all of it holds of differences too.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokscope.series import Series

HALF_SYMMETRIC, HALF_IRRELEVANT = 0.66, 0.51
"""Half-way between the paper's pizza and its clock in gradient symmetricity and in distance irrelevance."""
EXPLAINED = 0.9
"""The share of its logits' variance that a formula must explain of a circle of its kind; the other's gets 0.81."""


def gradient_symmetricity(
    by_first: Float[Tensor, "n_triples d_model"], by_second: Float[Tensor, "n_triples d_model"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return the mean over triples (a, b, c) of cos(∂Q_abc/∂E_a, ∂Q_abc/∂E_b), and its standard error.

    Q_abc is the logit of c, E_a and E_b the two operands' embeddings (Zhong et al. 2023, section 4.1). 1 for any
    function of E_a + E_b, so for a pizza; lower for a clock, which multiplies. A gradient of zero counts as 0.
    """
    cosines = torch.cosine_similarity(by_first, by_second, dim=-1)
    return cosines.mean(), cosines.std() / len(cosines) ** 0.5


def distance_irrelevance(correct: Float[Tensor, "*batch n n"], sign: int) -> Float[Tensor, "*batch"]:
    """Return (1/n) Σ_d std_s M[s, d] / std M, where M[s, d] is the logit of the right answer (ibid., section 4.2).

    `correct[i, j]` is that logit at the operands' positions. 0: the distance alone decides it, as in a pizza; near
    1: it does not matter, as in a clock, in an untrained network, and where the logit is always the same. For each
    distance the spread is that over all n equations of this distance, which for odd n have every s once.
    """
    n = correct.shape[-1]
    i = torch.arange(n)
    j = sign * (i - i[:, None]) % n
    of_distance = correct[..., i.expand(n, n), j]
    whole = correct.flatten(-2).std(-1, correction=0)
    is_constant = whole <= 1e-12 * correct.abs().amax((-2, -1))
    spread = of_distance.std(-1, correction=0).mean(-1)
    return torch.where(is_constant, 1.0, spread / torch.where(is_constant, 1.0, whole))


def clock_logits(
    n: int, frequency: int, total: Int[Tensor, " n_pairs"], distance: Int[Tensor, " n_pairs"]
) -> Float[Tensor, "n_pairs n"]:
    """Return the logits cos(w(s − l)) of a clock's circle at every answer l (ibid., section 3)."""
    return _angle(n, frequency * (total[:, None] - torch.arange(n))).cos()


def pizza_logits(
    n: int, frequency: int, total: Int[Tensor, " n_pairs"], distance: Int[Tensor, " n_pairs"]
) -> Float[Tensor, "n_pairs n"]:
    """Return the logits |cos(w·d/2)| cos(w(s − l)) of a pizza's circle at every answer l (ibid., section 3)."""
    length = (_angle(n, frequency * distance) / 2).cos().abs()
    return length[:, None] * clock_logits(n, frequency, total, distance)


def explained_variance(
    logits: Float[Tensor, "n_pairs n"], formula: Float[Tensor, "n_pairs n"], n_all: int
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
    """Return the share ⟨Q, F⟩² / (|Q|²|F|²) of the logits' variance that a formula explains, its standard error, and
    that variance itself, the mean square of Q.

    One minus the share is what a least-squares scale of F leaves unexplained. Q and F are taken without their means
    over the answers of each equation, which softmax does not see, and without those over the equations of each
    answer, which say nothing of the operands. A pizza explains 8/π² ≈ 0.81 of a clock and a clock as much of a pizza,
    so 0.81 for one is no evidence of it where the other has 1. The equations are a random draw from `n_all` without
    replacement; the error is that of the ratio to first order, and 0 if all were drawn. Logits that are all zero
    have share 0.
    """
    q, f = (x - x.mean(-1, keepdim=True) for x in (logits, formula))
    q, f = (x - x.mean(-2, keepdim=True) for x in (q, f))
    tiny = torch.finfo(q.dtype).tiny
    product, of_logits, of_formula = ((a * b).mean(-1) for a, b in ((q, f), (q, q), (f, f)))
    mean, whole = product.mean(), (of_logits.mean() * of_formula.mean()).clamp_min(tiny)
    share = mean.square() / whole
    # The share's differential, each equation's part of it: Δ(A²/BC) = 2A ΔA/BC − share (ΔB/B + ΔC/C).
    part = 2 * mean * product / whole
    part = part - share * sum(x / x.mean().clamp_min(tiny) for x in (of_logits, of_formula))
    left_out = max(1 - len(q) / n_all, 0.0)
    return share, part.std() * (left_out / len(q)) ** 0.5, of_logits.mean()


@dataclass(frozen=True)
class Verdict:
    """Whether a network adds by a clock or a pizza, and the sentence that says on what evidence."""

    algorithm: str
    """"clock", "pizza" or "undecided"."""
    circles: Mapping[int, str]
    """What each of the isolated circles does, by frequency: "clock", "pizza", "either" or "neither"."""
    sentence: str
    """The verdict with its numbers and those of the untrained model."""


def verdict(series: Series) -> Verdict:
    """Judge the last step of the measure `algorithm` by three signs that must agree.

    Pizza: gradient symmetricity above 0.66, distance irrelevance below 0.51, and the pizza's formula explains the
    logits of the isolated circles better, the mean over them weighted by their logits' variance. Clock: below,
    above, and the clock's formula. Undecided otherwise. The two thresholds lie half-way between the paper's own
    networks, pizza at (0.99, 0.17) and clock at (0.33, 0.85) (Zhong et al. 2023, section 4); an untrained network,
    near (1, 1), is neither. One circle is of the kind whose formula explains it better, and at least 0.9 of it; it
    may be of either where two standard errors do not tell them apart, and at frequency n/2, where the formulas are
    the same. A network may hold both kinds, and then the sentence says so.
    """
    names = ("gradient_symmetricity", "distance_irrelevance")
    (symmetricity, irrelevance), untrained = (
        [float(series[name][-1]) for name in names],
        [float(series[f"{name}_initialization"]) for name in names],
    )
    weights = series["circle_logit_variance"][-1]
    shares = {name: series[f"{name}_explained_variance"][-1] for name in ("clock", "pizza")}
    errors = np.add(*(series[f"{name}_explained_variance_stderr"][-1] for name in shares))
    circles = {}
    for i, frequency in enumerate(series["circle_frequencies"]):
        is_same = 2 * frequency == series["n_positions"]
        circles[int(frequency)] = _kind(shares["clock"][i], shares["pizza"][i], np.inf if is_same else 2 * errors[i])
    clock, pizza = (
        float((one * weights).sum() / max(weights.sum(), np.finfo(float).tiny)) for one in shares.values()
    )
    if symmetricity > HALF_SYMMETRIC and irrelevance < HALF_IRRELEVANT and pizza > clock:
        found = "pizza"
    elif symmetricity < HALF_SYMMETRIC and irrelevance > HALF_IRRELEVANT and clock > pizza:
        found = "clock"
    else:
        found = "undecided"
    kinds = {kind: [str(one) for one, its in circles.items() if its == kind] for kind in _KINDS}
    if found == "undecided":
        said = "The signs of clock and pizza do not agree"
    elif kinds["pizza" if found == "clock" else "clock"]:
        said = f"By its signs it adds by a {found}, but not on all its circles"
    else:
        said = f"It adds by a {found}"
    by_circle = "; ".join(f"{kind} at {', '.join(one)}" for kind, one in kinds.items() if one)
    return Verdict(
        found,
        circles,
        f"{said}: gradient symmetricity {symmetricity:.2f} (untrained {untrained[0]:.2f}), distance irrelevance "
        f"{irrelevance:.2f} (untrained {untrained[1]:.2f}), and of the logits' variance on isolated circles the "
        f"clock's formula explains {clock:.0%}, the pizza's {pizza:.0%}. Circles by frequency: {by_circle}.",
    )


_KINDS = ("clock", "pizza", "either", "neither")


def _kind(clock: float, pizza: float, error: float) -> str:
    """Return which of _KINDS a circle is, by what the two formulas explain of it."""
    explains = clock >= EXPLAINED or pizza >= EXPLAINED
    if abs(clock - pizza) <= error and (explains or error == np.inf):
        return "either"
    if not explains:
        return "neither"
    return "clock" if clock > pizza else "pizza"


def _angle(n: int, turns: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    # Reduced modulo 2n, so that half of the angle is exact as well.
    return (turns % (2 * n)).double() * (2 * math.pi / n)
