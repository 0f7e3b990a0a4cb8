"""Muon: momentum whose update is made orthogonal, for the weight matrices inside a network."""

from collections.abc import Iterable

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""The coefficients (a, b, c) of the polynomial p(s) = a s + b s³ + c s⁵, which moves s in (0, 1] towards 1."""
N_ITERATIONS = 5
_SMALLEST_NORM = 1e-7


class Muon(torch.optim.Optimizer):
    """Nesterov momentum whose update is made orthogonal, with decoupled weight decay.

    With gradient g, momentum μ, learning rate η and weight decay λ, each update of an m × n matrix is

    - B ← μB + (1 − μ)g and G = (1 − μ)g + μB,
    - W ← W − ηλW − η · 0.2 √max(m, n) · orthogonalized(G).

    The factor 0.2 √max(m, n) gives the update the size of an Adam update, so AdamW can share its learning rate (Liu
    et al. 2025). torch.optim.Muon makes the same updates with `adjust_lr_fn="match_rms_adamw"`, in bfloat16; here the
    iteration has the precision of the weights.

    Args:
        params: Weights with at least two axes. A third axis counts attention heads, whose matrices `as_matrix` joins.
        lr: The learning rate η.
        momentum: The momentum μ.
        weight_decay: The decay λ.

    References:
        Jordan et al. 2024, "Muon: an optimizer for hidden layers"; Liu et al. 2025, "Muon is scalable for LLM
        training", equations 1 to 4.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float, weight_decay: float):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Make one update of every weight with its `grad`."""
        for group in self.param_groups:
            lr, momentum = group["lr"], group["momentum"]
            for weight in group["params"]:
                state = self.state[weight]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(weight)
                buffer = state["momentum_buffer"]
                buffer.lerp_(weight.grad, 1 - momentum)
                update = orthogonalized(as_matrix(weight.grad.lerp(buffer, momentum)))
                weight.mul_(1 - lr * group["weight_decay"])
                weight.sub_(from_matrix(update, weight.shape), alpha=lr * 0.2 * max(update.shape) ** 0.5)


def orthogonalized(matrix: Float[Tensor, "m n"]) -> Float[Tensor, "m n"]:
    """Return U p(…p(p(S))) Vᵀ for G/‖G‖ = U S Vᵀ, which is near the orthogonal U Vᵀ.

    The polynomial p of `COEFFICIENTS` is applied five times, by matrix products alone (a Newton-Schulz iteration).
    Singular values that are not tiny then lie between about 0.7 and 1.2.

    Args:
        matrix: The matrix G.

    References:
        Jordan et al. 2024.
    """
    a, b, c = COEFFICIENTS
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if is_tall else matrix
    x = x / torch.linalg.vector_norm(x).clamp_min(_SMALLEST_NORM)
    for _ in range(N_ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if is_tall else x


def as_matrix(weight: Float[Tensor, "..."]) -> Float[Tensor, "m n"]:
    """Return a weight as one matrix; all heads of an attention weight are joined along d_head.

    Of the two axes after the heads, d_head is the shorter one. More axes are joined with the second.
    """
    if weight.ndim != 3:
        return weight.flatten(1)
    form = "h a b -> a (h b)" if _is_d_head_last(weight.shape) else "h a b -> (h a) b"
    return rearrange(weight, form)


def from_matrix(matrix: Float[Tensor, "m n"], shape: torch.Size) -> Float[Tensor, "..."]:
    """Return a matrix that `as_matrix` made in its original shape."""
    if len(shape) != 3:
        return matrix.reshape(shape)
    form = "a (h b) -> h a b" if _is_d_head_last(shape) else "(h a) b -> h a b"
    return rearrange(matrix, form, h=shape[0])


def _is_d_head_last(shape: torch.Size) -> bool:
    return shape[2] <= shape[1]
