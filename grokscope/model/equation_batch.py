"""Batches of equations in tokens, with the structure that saves the forward pass work."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Int
from torch import Tensor

from grokscope.model.embedding_bag import Entries, sort_entries


class Layout(NamedTuple):
    """A table of tokens at positions, and the rows of it that the equations of a batch contain."""

    tokens: Int[Tensor, " rows"]
    """The token of each row."""
    positions: Int[Tensor, " rows"]
    """The position of each row."""
    prefixes: Int[Tensor, "d_vocab n_shared"]
    """The rows of the shared prefix that begins with each token."""
    examples: Int[Tensor, "n n_ctx"]
    """The rows of each equation."""


class Bags(NamedTuple):
    """The examples of each row of a table, for sums over them."""

    order: Int[Tensor, " entries"]
    """The entries, numbered in row-major order of (example, position, head), sorted by their row."""
    examples: Int[Tensor, " entries"]
    """The example of each of them."""
    starts: Int[Tensor, " n_rows"]
    """The index in `order` of the first entry of each row."""


@dataclass(frozen=True, eq=False)
class Equations:
    """A batch of equations, one per row, such as "a b =" or "a ∘ b =", and the tokens that they share.

    A causal transformer computes the same activations for every equation that begins with the same tokens, and its
    first attention depends on tokens and positions only. `grokscope.model.forward` computes both only once.
    `from_tokens` builds a batch.
    """

    tokens: Int[Tensor, "n n_ctx"]
    d_vocab: int
    n_heads: int
    n_shared: int
    """The number of leading positions that the first token determines: all after the first are constant."""
    has_constant_end: bool
    """Whether all equations have the same token at the last position, where the answer is read."""
    precomputed_entries: Entries | None = None
    """The value of `entries`, if the caller has already computed it."""

    @classmethod
    def from_tokens(cls, tokens: Int[Tensor, "n n_ctx"], d_vocab: int, n_heads: int) -> "Equations":
        """Return a batch, after a comparison of the tokens of all its equations."""
        if not len(tokens):
            return cls(tokens, d_vocab, n_heads, 1, False)
        # One read from the device. Tensor.tolist fails inside torch.func.grad before torch 2.7.
        _, *inner, has_constant_end = map(bool, (tokens == tokens[0]).all(0).cpu())
        return cls(tokens, d_vocab, n_heads, 1 + [*inner, False].index(False), has_constant_end)

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, examples: Int[Tensor, " m"] | slice) -> "Equations":
        """Return a subset of the equations; it shares at least the tokens that the whole batch shares."""
        return replace(self, tokens=self.tokens[examples], precomputed_entries=None)

    def parts(self, n: int) -> list["Equations"]:
        """Return the equations in parts of at most n. Parts are cached, and with them their entries."""
        if len(self) <= n:
            return [self]
        if n not in self._parts:
            self._parts[n] = [self[slice(start, start + n)] for start in range(0, len(self), n)]
        return self._parts[n]

    @cached_property
    def _parts(self) -> dict[int, list["Equations"]]:
        return {}

    @property
    def rows(self) -> Int[Tensor, "n position"]:
        """The row of each earlier position's token in a table over position · d_vocab + token."""
        n_before = self.tokens.shape[1] - 1
        return self.tokens[:, :-1] + torch.arange(n_before, device=self.tokens.device) * self.d_vocab

    @cached_property
    def layout(self) -> Layout:
        """The rows of a table that contains each token at each position once; a constant position has one row."""
        tokens, n_shared, n_ctx = self.tokens, self.n_shared, self.tokens.shape[1]
        every = torch.arange(self.d_vocab, device=tokens.device)
        columns, of_rows, positions, n_rows = [], [], [], 0
        for position in range(n_ctx):
            is_constant = 0 < position < n_shared or (self.has_constant_end and position == n_ctx - 1)
            of_rows.append(tokens[:1, position] if is_constant else every)
            columns.append(torch.full_like(tokens[:, 0], n_rows) if is_constant else tokens[:, position] + n_rows)
            positions.append(torch.full_like(of_rows[-1], position))
            n_rows += len(of_rows[-1])
        starts = [torch.full_like(every, column) for column in range(self.d_vocab, self.d_vocab + n_shared - 1)]
        return Layout(
            torch.cat(of_rows), torch.cat(positions), torch.stack([every, *starts], 1), torch.stack(columns, 1)
        )

    @cached_property
    def entries(self) -> Entries:
        """The value rows that attention mixes at the last position: one per earlier position and head, heads last.

        Row head · n_rows + position · d_vocab + token contains the value of a token at a position for a head.
        """
        return self.precomputed_entries or sort_entries(self.entry_rows, self.n_heads * self._n_rows)

    @cached_property
    def entry_rows(self) -> Int[Tensor, "n entries"]:
        """The row of each of `entries`."""
        heads = torch.arange(self.n_heads, device=self.tokens.device) * self._n_rows
        return rearrange(self.rows[..., None] + heads, "n position head -> n (position head)")

    @cached_property
    def bags(self) -> Bags:
        """The same entries, sorted by row for the rows in another order: row · n_heads + head.

        The heads' rows of a token belong to the same examples. A sum over the examples of each row then reads an
        example once from memory, and for the other heads from the cache.
        """
        heads = torch.arange(self.n_heads, device=self.tokens.device)
        rows = rearrange(self.rows[..., None] * self.n_heads + heads, "n position head -> n (position head)")
        entries = sort_entries(rows, self.n_heads * self._n_rows)
        return Bags(entries.order, entries.examples, entries.starts)

    @property
    def _n_rows(self) -> int:
        """The number of rows of a table over position · d_vocab + token."""
        return (self.tokens.shape[1] - 1) * self.d_vocab
