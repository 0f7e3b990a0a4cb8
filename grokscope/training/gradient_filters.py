"""Gradient filters: what a gradient passes through before the optimizer sees it.

A filter takes and returns each parameter's gradient; what it remembers is in `state`, a tensor a parameter, which
is saved with the run. `u` is the number of the update, from 0.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from grokscope.config import OptimizerConfig

Filter = Callable[
    [OptimizerConfig, Mapping[str, Tensor], Mapping[str, Tensor], dict[str, Tensor], int], dict[str, Tensor]
]


def grokfast_ema(
    config: OptimizerConfig,
    gradients: Mapping[str, Tensor],
    parameters: Mapping[str, Tensor],
    state: dict[str, Tensor],
    u: int,
) -> dict[str, Tensor]:
    """Return g + λμ with μ ← αμ + (1 − α)g, which amplifies what is slow in the gradient.

    μ starts at the first gradient (Lee et al. 2024, Grokfast-EMA, algorithm 2 and its code).
    """
    for name, gradient in gradients.items():
        # A fork that begins with this filter has no average yet, whatever its step.
        if u == 0 or name not in state:
            state[name] = gradient.clone()
        else:
            state[name].mul_(config.filter_alpha).add_(gradient, alpha=1 - config.filter_alpha)
    return {name: gradient.add(state[name], alpha=config.filter_lambda) for name, gradient in gradients.items()}


def grokfast_ma(
    config: OptimizerConfig,
    gradients: Mapping[str, Tensor],
    parameters: Mapping[str, Tensor],
    state: dict[str, Tensor],
    u: int,
) -> dict[str, Tensor]:
    """Return g + λ · the mean of the last w gradients, this one among them; g itself until there are w.

    (Lee et al. 2024, Grokfast-MA, algorithm 1 and its code.) The state is a ring of w gradients a parameter.
    """
    filtered = {}
    for name, gradient in gradients.items():
        if u == 0 or name not in state:
            # A ring that begins later, in a fork, is no number where it holds no gradient yet.
            state[name] = gradient.new_full((config.filter_window, *gradient.shape), math.nan if u else 0.0)
        state[name][u % config.filter_window] = gradient
        if u + 1 >= config.filter_window:
            mean = state[name].mean(0)
            filtered[name] = gradient.add(torch.where(mean.isnan(), 0.0, mean), alpha=config.filter_lambda)
        else:
            filtered[name] = gradient
    return filtered


def orthogonal(
    config: OptimizerConfig,
    gradients: Mapping[str, Tensor],
    parameters: Mapping[str, Tensor],
    state: dict[str, Tensor],
    u: int,
) -> dict[str, Tensor]:
    """Return each tensor's g − (w·g / w·w) w, scaled back to the norm of g: ⊥Grad, which cannot scale the weights.

    (Prieto et al. 2025, section 5 and, for the scale, its code.) Where w is zero, g is returned; where g lies
    along w, zero.
    """
    filtered = {}
    for name, gradient in gradients.items():
        weight, tiny = parameters[name].detach(), torch.finfo(gradient.dtype).tiny
        square = weight.square().sum().clamp_min(tiny)
        across = gradient - (weight * gradient).sum() / square * weight
        # What is left of a gradient along the weight is rounding, which must not be blown up to its norm.
        size, left = torch.linalg.vector_norm(gradient), torch.linalg.vector_norm(across)
        is_rounding = left <= 10 * torch.finfo(gradient.dtype).eps * size
        # Where little is left, rounding is a part of it: taken out once more, the rest is orthogonal.
        across = across - (weight * across).sum() / square * weight
        left = torch.linalg.vector_norm(across)
        filtered[name] = torch.where(is_rounding, 0.0, across * (size / left.clamp_min(tiny)))
    return filtered


FILTERS: dict[str, Filter] = {
    "grokfast_ema": grokfast_ema,
    "grokfast_ma": grokfast_ma,
    "orthogonal": orthogonal,
}
