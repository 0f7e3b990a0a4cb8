"""Functions on a finite group, decomposed by irreducible representation."""

from dataclasses import dataclass
from functools import cached_property

import torch
from einops import einsum, reduce
from jaxtyping import Float, Int
from torch import Tensor

from grokscope.algebra.groups import Group
from grokscope.algebra.irreps import Representation

_NUMBERS_AT_ONCE = 2**22
"""The largest number of values that `IsotypicBasis.pair_powers` transforms at once."""


@dataclass(frozen=True, eq=False)
class IsotypicBasis:
    """An orthonormal basis of the functions on a group. Each basis function lies in one isotypic subspace.

    The methods exclude the constant functions, the subspace of the trivial representation, so shares are shares of
    variance. For C_n the other subspaces are the Fourier frequencies.
    """

    basis: Float[Tensor, "n n"]
    """The orthonormal functions, one per row."""
    owner: Int[Tensor, " n"]
    """The number of each row's representation: 0 for the trivial one, then 1 … k."""

    @classmethod
    def from_representations(cls, representations: list[Representation]) -> "IsotypicBasis":
        """Return the basis for all irreducible representations of a group, with the trivial one first."""
        basis = torch.cat([representation.isotypic_basis for representation in representations])
        sizes = torch.tensor([representation.isotypic_dimension for representation in representations])
        return cls(basis, torch.repeat_interleave(sizes))

    def powers(self, values: Float[Tensor, "*batch n d"]) -> Float[Tensor, "*batch k d"]:
        """Return the squared norm of the projection of each column on the subspace of each representation."""
        components = einsum(self.basis, values, "row n, ... n d -> ... row d")
        return self._sum_by_representation(components.square())[..., 1:, :]

    def shares(self, values: Float[Tensor, "*batch n d"]) -> Float[Tensor, "*batch k"]:
        """Return the share of each representation in the variance of the values.

        - The shares sum to 1, or are all 0 for constant values.
        - Over random orders of the n points the mean share is (d²/s)/(n − 1), the relative dimension of the subspace.
        """
        power = self.powers(values).sum(-1)
        return power / power.sum(-1, keepdim=True).clamp_min(torch.finfo(power.dtype).tiny)

    def pair_powers(self, values: Float[Tensor, "n n d"]) -> tuple[Float[Tensor, "k d"], Float[Tensor, "k d"]]:
        """Return the squared norms of the projections of d functions of (a, b) on each representation's subspaces.

        The subspaces V_ρ(a) ⊕ V_ρ(b) and V_ρ(a) ⊗ V_ρ(b) together are the block (1 ⊕ V_ρ) ⊗ (1 ⊕ V_ρ) without the
        constant. For C_n it is the block {1, cos, sin} ⊗ {1, cos, sin} of Nanda et al. 2023.

        Cost: n³d operations.

        Returns:
            The squared norms in V_ρ(a) ⊕ V_ρ(b), the functions of a single operand, and in V_ρ(a) ⊗ V_ρ(b), the
            functions of both. The functions of a·b, V_ρ(a·b), belong to the second.
        """
        of_one_operand, of_both = [], []
        for columns in values.split(max(1, _NUMBERS_AT_ONCE // len(values) ** 2), dim=-1):
            half = einsum(self.basis, columns, "row a, a b d -> row b d")
            of_b = self._sum_by_representation(einsum(self.basis, half[0], "row b, b d -> row d").square())
            of_a = self._sum_by_representation(einsum(self.basis[0], half, "b, row b d -> row d").square())
            of_one_operand.append((of_a + of_b)[1:])
            powers = []
            for number in range(1, int(self.owner[-1]) + 1):
                rows = self.owner == number
                block = einsum(self.basis[rows], half[rows], "column b, row b d -> row column d")
                powers.append(reduce(block.square(), "row column d -> d", "sum"))
            of_both.append(torch.stack(powers))
        return torch.cat(of_one_operand, -1), torch.cat(of_both, -1)

    def _sum_by_representation(self, power: Float[Tensor, "*batch n d"]) -> Float[Tensor, "*batch k_and_trivial d"]:
        """Return the sum of the rows of each representation."""
        n_representations = int(self.owner[-1]) + 1
        sums = power.new_zeros(*power.shape[:-2], n_representations, power.shape[-1])
        return sums.index_add(-2, self.owner, power)


@dataclass(frozen=True, eq=False)
class Characters:
    """The characters χ_ρ of irreducible representations of a group, as functions of logits."""

    group: Group
    """The group with n elements."""
    representations: list[Representation]
    """The k representations ρ."""

    @cached_property
    def table(self) -> Float[Tensor, "k n"]:
        """The character of each representation at each element."""
        return torch.stack([representation.character for representation in self.representations])

    @cached_property
    def commutants(self) -> Float[Tensor, " k"]:
        """The mean square s of each character."""
        return self.table.square().mean(-1)

    @cached_property
    def quotients(self) -> Int[Tensor, "n n"]:
        """The quotients: quotients[x, c] is x·c⁻¹."""
        return torch.from_numpy(self.group.table[:, self.group.inverse])

    def coefficients(self, by_product: Float[Tensor, "n n"]) -> Float[Tensor, " k"]:
        """Return the coefficients κ_ρ = Σ_g χ_ρ(g) h(g)/(n s) of the projection of the logits on the characters.

        Args:
            by_product: The mean logit of each answer c over the pairs with product x, by x and c. h(g) is the mean of
                by_product[g·c, c] over c.
        """
        n = len(by_product)
        h = by_product.new_zeros(n).index_add(0, self.quotients.flatten(), by_product.flatten()) / n
        return self.table @ h / (n * self.commutants)

    def similarity(self, coefficients: Float[Tensor, " k"], mean_square: Float[Tensor, ""]) -> Float[Tensor, " k"]:
        """Return the cosine κ_ρ √s / √mean_square between the logits and each χ_ρ(a·b·c⁻¹) over all (a, b, c).

        - Logits proportional to one character have cosine 1 or −1 with it; zero logits have cosine 0.
        - The squares sum to the share of the logits' mean square that the characters explain, at most 1.

        Args:
            coefficients: The `coefficients` κ_ρ of the logits.
            mean_square: The mean square of the logits over all (a, b, c).
        """
        return coefficients * self.commutants.sqrt() / mean_square.sqrt().clamp_min(torch.finfo(torch.float64).tiny)

    def logits(self, coefficients: Float[Tensor, " k"]) -> Float[Tensor, "n n"]:
        """Return the logits Σ_ρ κ_ρ χ_ρ(x·c⁻¹) for each product x and answer c."""
        return (coefficients @ self.table)[self.quotients]
