"""The functions on a finite group by isotypic subspaces: how much of some values lies in each representation."""

from dataclasses import dataclass
from functools import cached_property

import torch
from einops import einsum, reduce
from jaxtyping import Float, Int
from torch import Tensor

from grokscope.algebra.groups import Group
from grokscope.algebra.irreps import Representation

_NUMBERS_AT_ONCE = 2**22


@dataclass(frozen=True, eq=False)
class Isotypic:
    """An orthonormal basis of the functions on a group, by the representation in whose subspace each one lies.

    The constant functions, which are those of the trivial representation, come first and are left out of all that
    is returned: the shares are those of variance. For C_n the others are the Fourier frequencies.
    """

    basis: Float[Tensor, "n n"]
    """One function a row, orthonormal."""
    owner: Int[Tensor, " n"]
    """The number of each row's representation: 0 for the trivial one, then 1 … k."""

    @classmethod
    def of(cls, representations: list[Representation]) -> "Isotypic":
        """Return the basis for all irreducible representations of a group, the trivial one first."""
        basis = torch.cat([one.isotypic_basis for one in representations])
        sizes = torch.tensor([one.isotypic_dimension for one in representations])
        return cls(basis, torch.repeat_interleave(sizes))

    def powers(self, values: Float[Tensor, "*batch n d"]) -> Float[Tensor, "*batch k d"]:
        """Return the squared norm of each column's projection on each representation's subspace."""
        return self._summed(einsum(self.basis, values, "row n, ... n d -> ... row d").square())[..., 1:, :]

    def shares(self, values: Float[Tensor, "*batch n d"]) -> Float[Tensor, "*batch k"]:
        """Return each representation's share of the values' variance; they sum to 1, or are 0 where all is zero.

        With the n points in random orders the mean is (d²/s)/(n − 1), the subspace's dimension among all.
        """
        power = self.powers(values).sum(-1)
        return power / power.sum(-1, keepdim=True).clamp_min(torch.finfo(power.dtype).tiny)

    def pair_powers(self, values: Float[Tensor, "n n d"]) -> tuple[Float[Tensor, "k d"], Float[Tensor, "k d"]]:
        """Return how much of functions of (a, b) lies in each representation: of one operand, and of both.

        The first are the squared norms of the projections on V_ρ(a) ⊕ V_ρ(b), the second on V_ρ(a) ⊗ V_ρ(b), in which
        V_ρ(a·b) lies too. Together they are ρ's block (1 ⊕ V_ρ) ⊗ (1 ⊕ V_ρ) without the constant, for C_n the block
        {1, cos, sin} ⊗ {1, cos, sin} of Nanda et al. 2023. Costs n³ d.
        """
        operand, both = [], []
        for some in values.split(max(1, _NUMBERS_AT_ONCE // len(values) ** 2), dim=-1):
            half = einsum(self.basis, some, "row a, a b d -> row b d")
            of_b = self._summed(einsum(self.basis, half[0], "row b, b d -> row d").square())
            of_a = self._summed(einsum(self.basis[0], half, "b, row b d -> row d").square())
            operand.append((of_a + of_b)[1:])
            blocks = []
            for one in range(1, int(self.owner[-1]) + 1):
                own = self.owner == one
                block = einsum(self.basis[own], half[own], "column b, row b d -> row column d")
                blocks.append(reduce(block.square(), "row column d -> d", "sum"))
            both.append(torch.stack(blocks))
        return torch.cat(operand, -1), torch.cat(both, -1)

    def _summed(self, power: Float[Tensor, "*batch n d"]) -> Float[Tensor, "*batch k_and_trivial d"]:
        n_representations = int(self.owner[-1]) + 1
        summed = power.new_zeros(*power.shape[:-2], n_representations, power.shape[-1])
        return summed.index_add(-2, self.owner, power)


@dataclass(frozen=True, eq=False)
class Characters:
    """The characters of some irreducible representations of a group."""

    group: Group
    representations: list[Representation]

    @cached_property
    def table(self) -> Float[Tensor, "k n"]:
        """Each representation's character at each element."""
        return torch.stack([one.character for one in self.representations])

    @cached_property
    def commutants(self) -> Float[Tensor, " k"]:
        """Each character's mean square s."""
        return self.table.square().mean(-1)

    @cached_property
    def quotients(self) -> Int[Tensor, "n n"]:
        """quotients[x, c] is x·c⁻¹."""
        return torch.from_numpy(self.group.table[:, self.group.inverse])

    def coefficients(self, by_product: Float[Tensor, "n n"]) -> Float[Tensor, " k"]:
        """Return each character's coefficient in the logits' projection on all of them, κ_ρ = Σ_g χ_ρ(g) h(g)/(n s).

        by_product[x, c] is the mean of the logit of c over the pairs of product x; h(g) that of by_product[g·c, c]
        over c.
        """
        n = len(by_product)
        h = by_product.new_zeros(n).index_add(0, self.quotients.flatten(), by_product.flatten()) / n
        return self.table @ h / (n * self.commutants)

    def similarity(self, coefficients: Float[Tensor, " k"], mean_square: Float[Tensor, ""]) -> Float[Tensor, " k"]:
        """Return the cosine between the logits and each χ_ρ(a·b·c⁻¹), as vectors over all (a, b, c).

        κ_ρ √s / √(the logits' mean square): 1 where they are that character alone; 0 for logits that are all zero.
        The squares sum to the share of the logits' square that the characters explain together, at most 1.
        """
        return coefficients * self.commutants.sqrt() / mean_square.sqrt().clamp_min(torch.finfo(torch.float64).tiny)

    def logits(self, coefficients: Float[Tensor, " k"]) -> Float[Tensor, "n n"]:
        """Return Σ_ρ κ_ρ χ_ρ(x·c⁻¹) for each product x and answer c."""
        return (coefficients @ self.table)[self.quotients]
