"""Gradient filters, which change the gradient before the optimizer uses it.

A filter is called as `filter(config, gradients, parameters, state, u)`:

- config: The optimizer's settings.
- gradients: The gradient of each trained parameter by name; the filter does not change it.
- parameters: The trained parameters by name; the filter does not change them.
- state: The filter's own state, a tensor per parameter, which the filter changes in place. Resume states contain it.
- u: The number of the update, from 0.

It returns the filtered gradient of each parameter.
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
    """Return g + λμ with μ ← αμ + (1 − α)g, which amplifies the slow components of the gradient.

    α is `filter_alpha`, λ is `filter_lambda`, and μ starts as the first gradient. The state contains μ. Arguments are
    those of every filter (see the module).

    References:
        Lee et al. 2024, Grokfast-EMA, algorithm 2 and its code.
    """
    for name, gradient in gradients.items():
        # A fork may start with this filter at any step, without an average.
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
    """Return g + λ · mean of the last w gradients, including g; return g itself until there are w gradients.

    w is `filter_window` and λ is `filter_lambda`. The state is a ring of w gradients per parameter. Arguments are
    those of every filter (see the module).

    References:
        Lee et al. 2024, Grokfast-MA, algorithm 1 and its code.
    """
    filtered = {}
    for name, gradient in gradients.items():
        if u == 0 or name not in state:
            # NaN marks the empty entries of a ring that a fork starts at a later step.
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
    """Return g⊥ |g|/|g⊥| with g⊥ = g − (w·g / w·w) w for each tensor: ⊥Grad, which cannot scale the weights.

    - If w is zero, the result is g.
    - If g is parallel to w, the result is zero.
    - The state stays empty.

    Arguments are those of every filter (see the module).

    References:
        Prieto et al. 2025, section 5; the rescaling to |g| is in its code.
    """
    filtered = {}
    for name, gradient in gradients.items():
        weight, tiny = parameters[name].detach(), torch.finfo(gradient.dtype).tiny
        square = weight.square().sum().clamp_min(tiny)
        across = gradient - (weight * gradient).sum() / square * weight
        norm, norm_across = torch.linalg.vector_norm(gradient), torch.linalg.vector_norm(across)
        # The remainder of a parallel gradient is rounding, which must not be scaled up to the gradient's norm.
        is_rounding = norm_across <= 10 * torch.finfo(gradient.dtype).eps * norm
        # A second projection removes the rounding that the first one leaves along the weight.
        across = across - (weight * across).sum() / square * weight
        norm_across = torch.linalg.vector_norm(across)
        filtered[name] = torch.where(is_rounding, 0.0, across * (norm / norm_across.clamp_min(tiny)))
    return filtered


FILTERS: dict[str, Filter] = {
    "grokfast_ema": grokfast_ema,
    "grokfast_ma": grokfast_ma,
    "orthogonal": orthogonal,
}
