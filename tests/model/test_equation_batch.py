"""The shared tokens of a batch of equations."""

import pytest
import torch

from grokscope.model.equation_batch import Equations


@pytest.mark.parametrize(
    ("tokens", "n_shared", "has_constant_end"),
    [
        ([[0, 1, 9], [2, 1, 9]], 2, True),
        ([[0, 1, 9], [2, 3, 9]], 1, True),
        ([[0, 7, 1, 9], [2, 7, 3, 9], [2, 7, 0, 9]], 2, True),
        ([[0, 7, 1, 9], [2, 7, 3, 8]], 2, False),
        ([[0, 6, 1, 9], [2, 7, 1, 9]], 1, True),
    ],
    ids=["same b", "two differ", "same operator", "last differs", "operator differs"],
)
def test_batch_and_subset_know_their_shared_tokens(tokens: list[list[int]], n_shared: int, has_constant_end: bool):
    equations = Equations.from_tokens(torch.tensor(tokens), 10, 2)
    assert (equations.n_shared, equations.has_constant_end) == (n_shared, has_constant_end)
    subset = equations[torch.tensor([1])]
    assert (subset.n_shared, subset.has_constant_end, subset.tokens.tolist()) == (
        n_shared,
        has_constant_end,
        tokens[1:2],
    )
