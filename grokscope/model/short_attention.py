"""Attention from the last positions of short examples, as elementwise products and sums.

A batch has hundreds of examples, each with a few keys. As one small matrix product per example and head, attention
takes several times as long forward and backward. With S = q·k, P = softmax(S) and z = Σ_k P v, the gradients are

    ∂P = ∂z·v,    ∂S = P (∂P − Σ_k P ∂P),    ∂q = Σ_k ∂S k,    ∂k = Σ_q ∂S q,    ∂v = Σ_q P ∂z.

They are written out, because autograd would make a tensor of (example, query, key, head, d_head) for each.
"""

from typing import Any

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

_MOST_KEYS = 8
"""Beyond this number of keys, matrix products are used, whose memory does not grow with queries × keys × d_head."""


def attend(
    queries: Float[Tensor, "n query d_model"], keys_values: Float[Tensor, "n key 2*d_model"], n_heads: int
) -> Float[Tensor, "n query d_model"]:
    """Return the mixed values of causal attention from the last positions; it has derivatives of any order.

    Args:
        queries: The queries of the last positions, head by head.
        keys_values: The keys of all positions, head by head, and after them the values.
        n_heads: The number of heads.
    """
    queries = (queries * (queries.shape[2] // n_heads) ** -0.5).unflatten(2, (n_heads, -1))
    keys, values = (part.unflatten(2, (n_heads, -1)) for part in keys_values.chunk(2, 2))
    if keys.shape[1] <= _MOST_KEYS:
        z, _ = _ShortAttention.apply(queries, keys, values)
    else:
        scores = einsum(queries, keys, "n query head d_head, n key head d_head -> n query key head")
        z = einsum(_pattern(scores), values, "n query key head, n key head d_head -> n query head d_head")
    return z.flatten(2)


def _pattern(scores: Float[Tensor, "n query key head"]) -> Float[Tensor, "n query key head"]:
    """Return the softmax over the keys that each of the last queries sees."""
    n_queries, n_keys = scores.shape[1:3]
    if n_queries > 1:
        is_visible = torch.ones(n_queries, n_keys, dtype=torch.bool, device=scores.device).tril(n_keys - n_queries)
        scores = scores.masked_fill(~is_visible[..., None], -torch.inf)
    return scores.softmax(2)


class _ShortAttention(torch.autograd.Function):
    """The mixed values and the pattern. The gradient reads the pattern as an output, so it has gradients itself."""

    generate_vmap_rule = True

    @staticmethod
    def forward(queries: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        pattern = _pattern(_inner(queries, keys))
        return _sum_over_keys(pattern, values), pattern

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs, output[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        queries, keys, values, pattern = ctx.saved_tensors
        by_z, by_output_pattern = gradients
        by_pattern = _inner(by_z, values) + by_output_pattern
        weighted = pattern * by_pattern
        by_scores = weighted - pattern * weighted.sum(2, keepdim=True)
        return (
            _sum_over_keys(by_scores, keys),
            _sum_over_queries(by_scores, queries),
            _sum_over_queries(pattern, by_z),
        )


def _inner(
    x: Float[Tensor, "n query head d_head"], y: Float[Tensor, "n key head d_head"]
) -> Float[Tensor, "n query key head"]:
    """Return the inner product of each query with each key."""
    return (x[:, :, None] * y[:, None]).sum(-1)


def _sum_over_keys(
    weights: Float[Tensor, "n query key head"], y: Float[Tensor, "n key head d_head"]
) -> Float[Tensor, "n query head d_head"]:
    """Return Σ_key weights · y. One key after another needs no tensor with both a key and a query."""
    total = weights[:, :, 0, :, None] * y[:, None, 0]
    for key in range(1, weights.shape[2]):
        total = torch.addcmul(total, weights[:, :, key, :, None], y[:, None, key])
    return total


def _sum_over_queries(
    weights: Float[Tensor, "n query key head"], x: Float[Tensor, "n query head d_head"]
) -> Float[Tensor, "n key head d_head"]:
    """Return Σ_query weights · x."""
    return _sum_over_keys(weights.transpose(1, 2), x)
