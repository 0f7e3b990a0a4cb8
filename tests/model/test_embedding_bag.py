"""Sums of looked-up rows against the dense product that they stand for."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from grokscope.model import embedding_bag

VMAP = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


def drawn(seed: int, n: int = 11, j: int = 3, n_rows: int = 7, columns: int = 5):
    """Return weights, a table and rows of which one is never used and one is used twice by one example."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(0, n_rows - 1, (n, j), generator=generator)
    rows[0, 1] = rows[0, 0]
    weights = torch.randn(n, j, generator=generator, dtype=torch.float64)
    table = torch.randn(n_rows, columns, generator=generator, dtype=torch.float64)
    return weights.requires_grad_(), table.requires_grad_(), rows


def dense(weights: torch.Tensor, table: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return the same by a matrix that has the weights where the rows say."""
    matrix = weights.new_zeros(len(rows), len(table))
    return matrix.scatter_add(1, rows, weights) @ table


def test_a_mix_is_a_sparse_matrix_product():
    weights, table, rows = drawn(0)
    torch.testing.assert_close(
        embedding_bag.mix(weights, table, embedding_bag.entries(rows, 7)), dense(weights, table, rows)
    )


def test_its_first_and_second_derivatives_are_those_of_differences():
    weights, table, rows = drawn(1)
    of = embedding_bag.entries(rows, 7)

    def cubed(weights: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        return embedding_bag.mix(weights, table, of) ** 3  # So that no second derivative is zero.

    assert torch.autograd.gradcheck(cubed, (weights, table))
    assert torch.autograd.gradgradcheck(cubed, (weights, table))


def test_its_third_derivative_is_the_dense_product_s():
    weights, table, rows = drawn(2)
    of = embedding_bag.entries(rows, 7)
    thirds = []
    for result in (embedding_bag.mix(weights, table, of), dense(weights, table, rows)):
        derivative = (result**4).sum()
        for order in range(3):
            parts = torch.autograd.grad(derivative, (weights, table), create_graph=True)
            derivative = torch.stack([((order + 2) * part**2).sum() for part in parts]).sum()
        thirds.append(parts)
    for ours, theirs in zip(*thirds, strict=True):
        torch.testing.assert_close(ours, theirs)


@VMAP
@pytest.mark.parametrize("in_dims", [(0, 0, 0), (0, None, 0), (None, 0, 0), (0, 0, None), (1, 0, 0)])
def test_many_mixes_at_once_are_each_alone(in_dims):
    weights, table, rows = (torch.stack(part).detach() for part in zip(*map(drawn, range(3)), strict=True))
    of = [embedding_bag.entries(one, 7) for one in rows]
    stacked = embedding_bag.Entries(*(torch.stack(part) for part in zip(*of, strict=True)))

    def loss(weights: torch.Tensor, table: torch.Tensor, of: embedding_bag.Entries) -> torch.Tensor:
        return (embedding_bag.mix(weights, table, of) ** 3).sum()

    arguments = [
        one[0] if at is None else one.movedim(0, at) for one, at in zip((weights, table), in_dims[:2], strict=True)
    ]
    given = of[0] if in_dims[2] is None else stacked
    gradient: Callable[..., Any] = torch.func.grad(loss, argnums=(0, 1))
    found = torch.func.vmap(gradient, in_dims=in_dims)(*arguments, given)
    for i in range(3):
        alone = [one if at is None else one.select(at, i) for one, at in zip(arguments, in_dims[:2], strict=True)]
        expected = gradient(*alone, of[0] if in_dims[2] is None else of[i])
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours[i], theirs)
