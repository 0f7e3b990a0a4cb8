"""Batches of equations in tokens, with the structure that saves the forward pass work."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Int
from torch import Tensor

from grokscope.model.embedding_bag import Entries, sort_entries


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
        _, *inner, has_constant_end = (tokens == tokens[0]).all(0).tolist()
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

    @cached_property
    def entries(self) -> Entries:
        """The value rows that attention mixes at the last position: one per earlier position and head.

        Row (position · n_heads + head) · d_vocab + token contains the value of a token at a position for a head.
        """
        if self.precomputed_entries:
            return self.precomputed_entries
        n_groups = (self.tokens.shape[1] - 1) * self.n_heads
        offsets = torch.arange(n_groups, device=self.tokens.device) * self.d_vocab
        rows = self.tokens[:, :-1].repeat_interleave(self.n_heads, dim=1) + offsets
        return sort_entries(rows, n_groups * self.d_vocab)
