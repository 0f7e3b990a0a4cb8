"""What attention heads look at in sequences: the token before, and the token after an earlier occurrence."""

import torch
from einops import einsum
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grokscope.tasks import NO_TARGET


def matching_positions(
    inputs: Int[Tensor, "n position"], labels: Int[Tensor, "n position"]
) -> Bool[Tensor, "n query key"]:
    """Return the keys that follow an earlier occurrence of the query's token, for the queries with a target.

    An induction head attends to them: there stands what followed the same token before.

    Args:
        inputs: The tokens of each sequence.
        labels: The target at each position, NO_TARGET without one.

    References:
        Olsson et al. 2022, "prefix matching".
    """
    is_equal_before = torch.zeros(*inputs.shape, inputs.shape[1], dtype=torch.bool)
    is_equal_before[:, :, 1:] = inputs[:, :, None] == inputs[:, None, :-1]
    return is_equal_before.tril() & (labels != NO_TARGET)[:, :, None]


def prefix_matching(
    pattern: Float[Tensor, "n head query key"], matching: Bool[Tensor, "n query key"]
) -> Float[Tensor, " head"]:
    """Return each head's attention to the matching positions, the mean over the queries that have one."""
    attended = einsum(pattern, matching.to(pattern), "n head query key, n query key -> head")
    return attended / matching.any(-1).sum()


def previous_token(pattern: Float[Tensor, "n head query key"]) -> Float[Tensor, " head"]:
    """Return each head's attention to the position before the query, the mean over all queries but the first."""
    return pattern.diagonal(offset=-1, dim1=-2, dim2=-1).mean((0, 2))
