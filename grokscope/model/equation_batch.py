"""Equations in tokens, with what their tokens alone say of the work that a model has with them."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Int
from torch import Tensor

from grokscope.model.embedding_bag import Entries, entries


@dataclass(frozen=True, eq=False)
class Equations:
    """A batch of equations, such as "a b =" or "a ∘ b =", one a row, and how alike their tokens are.

    A causal transformer knows after "a ∘" what it knows in every equation that begins so, and its first attention
    sees tokens and positions alone. `grokscope.forward` computes such things once.
    """

    tokens: Int[Tensor, "n n_ctx"]
    d_vocab: int
    n_heads: int
    n_shared: int
    """How many leading positions the first token decides: from the second on they have one token throughout."""
    same_end: bool
    """Whether the last position, where the answer is read, has one token throughout."""
    given: Entries | None = None
    """The `entries`, if they are known already."""

    @classmethod
    def of(cls, tokens: Int[Tensor, "n n_ctx"], d_vocab: int, n_heads: int) -> "Equations":
        """Look at the tokens of a batch."""
        if not len(tokens):
            return cls(tokens, d_vocab, n_heads, 1, False)
        _, *inner, same_end = (tokens == tokens[0]).all(0).tolist()
        return cls(tokens, d_vocab, n_heads, 1 + [*inner, False].index(False), same_end)

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, chosen: Int[Tensor, " m"] | slice) -> "Equations":
        """Return some of the equations; what holds throughout all holds throughout these."""
        return replace(self, tokens=self.tokens[chosen], given=None)

    def parts(self, n: int) -> list["Equations"]:
        """Return the same equations in parts of at most n, the same objects each time."""
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
        """Which value rows each equation mixes at its last position: one for each earlier position and each head.

        The rows are numbered (position, head, token).
        """
        if self.given:
            return self.given
        n_groups = (self.tokens.shape[1] - 1) * self.n_heads
        group = torch.arange(n_groups, device=self.tokens.device) * self.d_vocab
        rows = self.tokens[:, :-1].repeat_interleave(self.n_heads, dim=1) + group
        return entries(rows, n_groups * self.d_vocab)
