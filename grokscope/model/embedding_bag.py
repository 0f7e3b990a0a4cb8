"""Weighted sums of table rows, cheap forward and backward and differentiable any number of times.

Attention mixes value vectors in this way. Example n has j entries, each with a row of the table and a weight. The
trilinear form

    f(S, T, G) = Σ_n Σ_j S[n, j] ⟨G[n], T[rows[n, j]]⟩

has three partial derivatives:

- ∂f/∂G is the weighted sum itself, `mix`;
- ∂f/∂T is its transpose;
- ∂f/∂S contains the inner products of G[n] with the rows.

The derivative of each of them consists of the other two. All three can therefore be differentiated any number of
times, and vmapped. On a CPU each touches only the rows it needs: 8 entries of 512 columns cost a quarter of the
128 × 512 matrix product that they replace.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


class Entries(NamedTuple):
    """The table row of each entry of each example, and the same relation sorted by row."""

    rows: Int[Tensor, "*batch n j"]
    order: Int[Tensor, "*batch entries"]
    """The entries, numbered in row-major order of `rows`, sorted by their row of the table."""
    starts: Int[Tensor, "*batch n_rows"]
    """The index in `order` of the first entry of each row."""

    @property
    def examples(self) -> Int[Tensor, "*batch entries"]:
        """The example of each entry, in the order of `order`."""
        return self.order // self.rows.shape[-1]


def sort_entries(rows: Int[Tensor, "n j"], n_rows: int) -> Entries:
    """Return the entries of a table of `n_rows` rows, sorted by row for the transpose."""
    flat = rows.flatten()
    counts = torch.zeros(n_rows, dtype=torch.long, device=rows.device).scatter_add(0, flat, torch.ones_like(flat))
    return Entries(rows, flat.argsort(stable=True), counts.cumsum(0) - counts)


def mix(
    weights: Float[Tensor, "n j"], table: Float[Tensor, "n_rows columns"], entries: Entries
) -> Float[Tensor, "n columns"]:
    """Return Σ_j weights[n, j] · table[rows[n, j]], differentiable any number of times and under vmap."""
    return _Mix.apply(weights, table, *entries)


def weighted_sums(
    weights: Float[Tensor, "n j"], table: Float[Tensor, "n_rows columns"], rows: Int[Tensor, "n j"]
) -> Float[Tensor, "n columns"]:
    """Return ∂f/∂G, the value of `mix`, without derivatives."""
    return F.embedding_bag(rows, table, per_sample_weights=weights.contiguous(), mode="sum")


def inner_products(
    gradient: Float[Tensor, "n columns"], table: Float[Tensor, "n_rows columns"], rows: Int[Tensor, "n j"]
) -> Float[Tensor, "n j"]:
    """Return ∂f/∂S, the inner product of each example's G with each of its rows, without derivatives."""
    starts, bags = _bags(*rows.shape, rows.device)
    products = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        gradient, table, rows.flatten(), starts, bags, 0
    )
    return products.view(rows.shape)


@lru_cache(maxsize=16)
def _bags(n: int, j: int, device: torch.device) -> tuple[Int[Tensor, " n"], Int[Tensor, " entries"]]:
    """Return the first entry of each of n examples, and the example of each entry, for j entries per example."""
    bags = torch.arange(n, device=device)
    return bags * j, bags.repeat_interleave(j)


class _Trilinear(torch.autograd.Function):
    """The common part of the three derivatives: tensors to save, and vmap as one stacked problem."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @classmethod
    def apply_stacked(cls, n_models: int, in_dims: tuple[int | None, ...], arguments: tuple[Tensor, ...]) -> Tensor:
        """Apply the function to all models at once, with their tables and examples stacked along the rows."""
        first, second, rows, order, starts = (
            argument.expand(n_models, *argument.shape) if dim is None else argument.movedim(dim, 0)
            for argument, dim in zip(arguments, in_dims, strict=True)
        )
        model = torch.arange(n_models, device=rows.device)[:, None]
        stacked = Entries(
            (rows + model[..., None] * starts.shape[1]).flatten(0, 1),
            (order + model * order.shape[1]).flatten(),
            (starts + model * order.shape[1]).flatten(),
        )
        outputs = cls.apply(first.flatten(0, 1), second.flatten(0, 1), *stacked)
        return outputs.unflatten(0, (n_models, -1))


class _Mix(_Trilinear):
    """∂f/∂G: the weighted sum of each example's rows."""

    @staticmethod
    def forward(weights: Tensor, table: Tensor, rows: Tensor, order: Tensor, starts: Tensor) -> Tensor:
        return weighted_sums(weights, table, rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weights, table, *entries = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        return (
            _Inner.apply(gradient, table, *entries),
            _Transpose.apply(weights, gradient, *entries),
            None,
            None,
            None,
        )

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Tensor) -> tuple[Tensor, int]:
        return _Mix.apply_stacked(info.batch_size, in_dims, arguments), 0


class _Transpose(_Trilinear):
    """∂f/∂T: for each row, the sum of weights times G over its entries."""

    @staticmethod
    def forward(weights: Tensor, gradient: Tensor, rows: Tensor, order: Tensor, starts: Tensor) -> Tensor:
        examples = order // rows.shape[1]
        return F.embedding_bag(examples, gradient, starts, per_sample_weights=weights.flatten()[order], mode="sum")

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weights, gradient, *entries = ctx.saved_tensors
        table = gradients[0].contiguous()
        return _Inner.apply(gradient, table, *entries), _Mix.apply(weights, table, *entries), None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Tensor) -> tuple[Tensor, int]:
        return _Transpose.apply_stacked(info.batch_size, in_dims, arguments), 0


class _Inner(_Trilinear):
    """∂f/∂S: the inner product of each example's G with each of its rows."""

    @staticmethod
    def forward(gradient: Tensor, table: Tensor, rows: Tensor, order: Tensor, starts: Tensor) -> Tensor:
        return inner_products(gradient, table, rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gradient, table, *entries = ctx.saved_tensors
        weights = gradients[0].contiguous()
        return _Mix.apply(weights, table, *entries), _Transpose.apply(weights, gradient, *entries), None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Tensor) -> tuple[Tensor, int]:
        return _Inner.apply_stacked(info.batch_size, in_dims, arguments), 0
