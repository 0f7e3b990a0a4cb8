"""Attention from the last positions of short examples, as elementwise products and sums.

A batch has hundreds of examples, each with a few keys. As one small matrix product per example and head, attention
takes twice as long forward and backward.
"""

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

_MOST_KEYS = 8
"""Beyond this number of keys, matrix products are used, whose memory does not grow with queries × keys × d_head."""


def attend(
    queries: Float[Tensor, "n query d_model"], keys_values: Float[Tensor, "n key 2*d_model"], n_heads: int
) -> Float[Tensor, "n query d_model"]:
    """Return the mixed values of causal attention from the last positions; it can be differentiated twice.

    Args:
        queries: The queries of the last positions, head by head.
        keys_values: The keys of all positions, head by head, and after them the values.
        n_heads: The number of heads.
    """
    n_queries, n_keys = queries.shape[1], keys_values.shape[1]
    queries = (queries * (queries.shape[2] // n_heads) ** -0.5).unflatten(2, (n_heads, -1))
    keys, values = keys_values.unflatten(2, (2, n_heads, -1)).unbind(2)
    if n_keys <= _MOST_KEYS:
        scores = (queries[:, :, None] * keys[:, None]).sum(-1)
    else:
        scores = einsum(queries, keys, "n query head d_head, n key head d_head -> n query key head")
    if n_queries > 1:
        is_visible = torch.ones(n_queries, n_keys, dtype=torch.bool, device=keys.device).tril(n_keys - n_queries)
        scores = scores.masked_fill(~is_visible[..., None], -torch.inf)
    pattern = scores.softmax(2)
    if n_keys <= _MOST_KEYS:
        z = (pattern[..., None] * values[:, None]).sum(2)
    else:
        z = einsum(pattern, values, "n query key head, n key head d_head -> n query head d_head")
    return z.flatten(2)
