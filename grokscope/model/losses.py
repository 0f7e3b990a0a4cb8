"""Losses: cross-entropy in the precision that grokking needs, over a model's logits."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grokscope.config import RunConfig
from grokscope.model.equation_batch import Equations
from grokscope.model.forward import Parameters
from grokscope.model.transformer import Model

AT_ONCE = 32_768
"""How many equations are evaluated at once, so that a large p fits in memory."""


def log_probabilities(
    logits: Float[Tensor, "batch d_vocab_out"], dtype: str = "float64", function: str = "softmax"
) -> Float[Tensor, "batch d_vocab_out"]:
    """Return log p of every answer, computed in `dtype`.

    p is softmax(logits), or with the `function` "stablemax" s(x)/Σ s with s(x) = x + 1 for x ≥ 0 and 1/(1 − x)
    below (Prieto et al. 2025, eq. 5), which grows linearly and so cannot collapse.
    """
    x = logits.to(getattr(torch, dtype))
    if function == "stablemax":
        log_s = _log_stablemax_terms(x)
        return log_s - log_s.exp().sum(-1, keepdim=True).log()
    return x.log_softmax(-1)


def cross_entropy(
    logits: Float[Tensor, "batch d_vocab_out"],
    labels: Int[Tensor, " batch"],
    dtype: str = "float64",
    function: str = "softmax",
) -> Float[Tensor, " batch"]:
    """Return each example's cross-entropy −log p[label] in nats, p as in `log_probabilities`, computed in `dtype`.

    After memorization losses are about 1e-7, where 1 − softmax cancels in float32 (both Nanda et al. 2023 and Prieto
    et al. take float64 here).
    """
    return -log_probabilities(logits, dtype, function).gather(1, labels[:, None])[:, 0]


def has_collapsed(
    logits: Float[Tensor, "batch d_vocab_out"],
    labels: Int[Tensor, " batch"],
    dtype: str = "float32",
    function: str = "softmax",
) -> Bool[Tensor, " batch"]:
    """Return of each example whether Σ_k s_k = s_label to the last bit of `dtype`: softmax collapse.

    s_k = e^(z_k − max z) in `dtype`, or stablemax's s(z_k). The other terms are absorbed in the sum, the loss is
    exactly 0 and so is its gradient by the right answer's logit, while that by the others is not (Prieto et al. 2025,
    section 3). Of two terms the smaller is absorbed where the logits are ln 2⁸ = 5.5 apart in bfloat16, ln 2²⁴ = 16.6
    in float32, ln 2⁵³ = 36.7 in float64. torch adds up bfloat16 in float32 and rounds the sum once.
    """
    x = logits.to(getattr(torch, dtype))
    terms = (_log_stablemax_terms(x) if function == "stablemax" else x - x.amax(-1, keepdim=True)).exp()
    return terms.sum(-1) == terms.gather(1, labels[:, None])[:, 0]


def _log_stablemax_terms(x: Float[Tensor, "batch d_vocab_out"]) -> Float[Tensor, "batch d_vocab_out"]:
    # Written so that the derivative at exactly zero is the one there is, 1.
    return torch.where(x >= 0, x.clamp_min(0).log1p(), -(-x.clamp_max(0)).log1p())


def mean_loss(
    model: Model,
    parameters: Parameters,
    inputs: Equations | Int[Tensor, "n_examples n_ctx"],
    labels: Int[Tensor, " n_examples"],
    config: RunConfig,
) -> Float[Tensor, ""]:
    """Return the mean over some equations of the config's `loss`, taken in its `loss_dtype`; it has a gradient."""
    return cross_entropy(model.logits(parameters, inputs), labels, config.loss_dtype, config.loss).mean()


@torch.no_grad()
def evaluate(
    model: Model,
    parameters: Parameters,
    inputs: Equations | Int[Tensor, "n_examples n_ctx"],
    labels: Int[Tensor, " n_examples"],
    dtype: str = "float64",
    function: str = "softmax",
) -> tuple[Float[Tensor, " n_examples"], Bool[Tensor, " n_examples"]]:
    """Return every example's loss and whether its answer is right (the largest logit is the label's)."""
    equations = model.equations(inputs) if isinstance(inputs, Tensor) else inputs
    found = []
    for part, its_labels in zip(equations.parts(AT_ONCE), labels.split(AT_ONCE), strict=True):
        logits = model.logits(parameters, part)
        found.append((cross_entropy(logits, its_labels, dtype, function), logits.argmax(-1) == its_labels))
    return torch.cat([loss for loss, _ in found]), torch.cat([right for _, right in found])
