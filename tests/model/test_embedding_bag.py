"""Weighted sums of table rows against the equivalent dense matrix product."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from grokscope.model import embedding_bag

VMAP = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


def random_arguments(seed: int, n: int = 11, j: int = 3, n_rows: int = 7, columns: int = 5):
    """Return weights, a table and rows. One row of the table is unused, and one example uses a row twice."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(0, n_rows - 1, (n, j), generator=generator)
    rows[0, 1] = rows[0, 0]
    weights = torch.randn(n, j, generator=generator, dtype=torch.float64)
    table = torch.randn(n_rows, columns, generator=generator, dtype=torch.float64)
    return weights.requires_grad_(), table.requires_grad_(), rows


def dense_mix(weights: torch.Tensor, table: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return the same sums as the product of a dense matrix of weights with the table."""
    matrix = weights.new_zeros(len(rows), len(table))
    return matrix.scatter_add(1, rows, weights) @ table


def test_mix_agrees_with_dense_product():
    weights, table, rows = random_arguments(0)
    torch.testing.assert_close(
        embedding_bag.mix(weights, table, embedding_bag.sort_entries(rows, 7)), dense_mix(weights, table, rows)
    )


def test_derivatives_agree_with_finite_differences():
    weights, table, rows = random_arguments(1)
    entries = embedding_bag.sort_entries(rows, 7)

    def cubed(weights: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        return embedding_bag.mix(weights, table, entries) ** 3  # The cube makes every second derivative nonzero.

    assert torch.autograd.gradcheck(cubed, (weights, table))
    assert torch.autograd.gradgradcheck(cubed, (weights, table))


def test_third_derivative_agrees_with_dense_product():
    weights, table, rows = random_arguments(2)
    entries = embedding_bag.sort_entries(rows, 7)
    thirds = []
    for result in (embedding_bag.mix(weights, table, entries), dense_mix(weights, table, rows)):
        derivative = (result**4).sum()
        for order in range(3):
            parts = torch.autograd.grad(derivative, (weights, table), create_graph=True)
            derivative = torch.stack([((order + 2) * part**2).sum() for part in parts]).sum()
        thirds.append(parts)
    for ours, theirs in zip(*thirds, strict=True):
        torch.testing.assert_close(ours, theirs)


@VMAP
@pytest.mark.parametrize("in_dims", [(0, 0, 0), (0, None, 0), (None, 0, 0), (0, 0, None), (1, 0, 0)])
def test_vmapped_mixes_agree_with_single_mixes(in_dims):
    weights, table, rows = (torch.stack(part).detach() for part in zip(*map(random_arguments, range(3)), strict=True))
    entries = [embedding_bag.sort_entries(member_rows, 7) for member_rows in rows]
    stacked = embedding_bag.Entries(*(torch.stack(part) for part in zip(*entries, strict=True)))

    def loss(weights: torch.Tensor, table: torch.Tensor, entries: embedding_bag.Entries) -> torch.Tensor:
        return (embedding_bag.mix(weights, table, entries) ** 3).sum()

    arguments = [
        tensor[0] if dim is None else tensor.movedim(0, dim)
        for tensor, dim in zip((weights, table), in_dims[:2], strict=True)
    ]
    gradient: Callable[..., Any] = torch.func.grad(loss, argnums=(0, 1))
    vmapped = torch.func.vmap(gradient, in_dims=in_dims)(*arguments, entries[0] if in_dims[2] is None else stacked)
    for i in range(3):
        single = [
            tensor if dim is None else tensor.select(dim, i)
            for tensor, dim in zip(arguments, in_dims[:2], strict=True)
        ]
        expected = gradient(*single, entries[0 if in_dims[2] is None else i])
        for ours, theirs in zip(vmapped, expected, strict=True):
            torch.testing.assert_close(ours[i], theirs)
