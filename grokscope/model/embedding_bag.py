"""Sums of looked-up rows, such as attention makes of value tables: cheap forward, backward and backward again.

An example n has a few entries j, each a row of a table and a weight. The trilinear form

    f(S, T, G) = Σ_n Σ_j S[n, j] ⟨G[n], T[rows[n, j]]⟩

has three partial derivatives, `mix` = ∂f/∂G, its transpose ∂f/∂T and the inner products ∂f/∂S, and the derivative
of each is made of the other two. So they can be differentiated as often as one likes, and vmapped. On a processor
each reads and writes what it must and no more: 8 entries of 512 columns cost a quarter of the 128 × 512 product
that they replace.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


class Entries(NamedTuple):
    """Which row of the table each entry of each example is, and the same seen from the rows."""

    rows: Int[Tensor, "*batch n j"]
    order: Int[Tensor, "*batch entries"]
    """The entries, numbered n·j + j, in the order of their rows."""
    starts: Int[Tensor, "*batch n_rows"]
    """Where each row's entries begin in `order`."""


def entries(rows: Int[Tensor, "n j"], n_rows: int) -> Entries:
    """Return the entries of a table of `n_rows` rows, sorted for the transpose."""
    flat = rows.flatten()
    counts = torch.zeros(n_rows, dtype=torch.long, device=rows.device).scatter_add(0, flat, torch.ones_like(flat))
    return Entries(rows, flat.argsort(stable=True), counts.cumsum(0) - counts)


def mix(
    weights: Float[Tensor, "n j"], table: Float[Tensor, "n_rows columns"], of: Entries
) -> Float[Tensor, "n columns"]:
    """Return Σ_j weights[n, j] · table[rows[n, j]]; it can be differentiated any number of times, and vmapped."""
    return _Mix.apply(weights, table, *of)


class _Trilinear(torch.autograd.Function):
    """What the three have in common: tensors are saved whole, and vmap makes one big problem of many."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @classmethod
    def many(cls, n_models: int, in_dims: tuple[int | None, ...], arguments: tuple[Tensor, ...]) -> Tensor:
        """Apply to the models of a batch as to one, whose tables and examples stand one below the other."""
        first, second, rows, order, starts = (
            one.expand(n_models, *one.shape) if at is None else one.movedim(at, 0)
            for one, at in zip(arguments, in_dims, strict=True)
        )
        model = torch.arange(n_models, device=rows.device)[:, None]
        shifted = Entries(
            (rows + model[..., None] * starts.shape[1]).flatten(0, 1),
            (order + model * order.shape[1]).flatten(),
            (starts + model * order.shape[1]).flatten(),
        )
        found = cls.apply(first.flatten(0, 1), second.flatten(0, 1), *shifted)
        return found.unflatten(0, (n_models, -1))


class _Mix(_Trilinear):
    @staticmethod
    def forward(weights: Tensor, table: Tensor, rows: Tensor, order: Tensor, starts: Tensor) -> Tensor:
        return F.embedding_bag(rows, table, per_sample_weights=weights.contiguous(), mode="sum")

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weights, table, *of = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        return _Inner.apply(gradient, table, *of), _Transpose.apply(weights, gradient, *of), None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Tensor) -> tuple[Tensor, int]:
        return _Mix.many(info.batch_size, in_dims, arguments), 0


class _Transpose(_Trilinear):
    """∂f/∂T: each row's sum of weights times G over its entries."""

    @staticmethod
    def forward(weights: Tensor, gradient: Tensor, rows: Tensor, order: Tensor, starts: Tensor) -> Tensor:
        examples = order // rows.shape[1]
        return F.embedding_bag(examples, gradient, starts, per_sample_weights=weights.flatten()[order], mode="sum")

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weights, gradient, *of = ctx.saved_tensors
        table = gradients[0].contiguous()
        return _Inner.apply(gradient, table, *of), _Mix.apply(weights, table, *of), None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Tensor) -> tuple[Tensor, int]:
        return _Transpose.many(info.batch_size, in_dims, arguments), 0


class _Inner(_Trilinear):
    """∂f/∂S: the inner product of each example's G with each of its rows."""

    @staticmethod
    def forward(gradient: Tensor, table: Tensor, rows: Tensor, order: Tensor, starts: Tensor) -> Tensor:
        n, j = rows.shape
        bags = torch.arange(n, device=rows.device)
        found = torch.ops.aten._embedding_bag_per_sample_weights_backward(
            gradient, table, rows.flatten(), bags * j, bags.repeat_interleave(j), 0
        )
        return found.view(n, j)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gradient, table, *of = ctx.saved_tensors
        weights = gradients[0].contiguous()
        return _Mix.apply(weights, table, *of), _Transpose.apply(weights, gradient, *of), None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Tensor) -> tuple[Tensor, int]:
        return _Inner.many(info.batch_size, in_dims, arguments), 0
