"""The real irreducible representations of finite groups: matrices, characters and isotypic subspaces.

Let ρ be a real irreducible representation of dimension d. The matrices that commute with ρ form an algebra of
dimension s, the mean of χ(g)² over the group. There are three types:

- real, s = 1: ρ is irreducible over the complex numbers;
- complex, s = 2: ρ is σ ⊕ σ̄ for a complex σ of dimension d/2 that is not equivalent to its conjugate;
- quaternionic, s = 4: ρ is σ ⊕ σ over the complex numbers.

The matrix entries of ρ span its isotypic subspace of the functions on the group. The subspace has dimension d²/s, and
Σ_ρ d²/s is the order of the group.

References:
    Serre 1977, "Linear Representations of Finite Groups", section 13.2.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np
import torch
from einops import einsum, rearrange
from jaxtyping import Float, Shaped
from torch import Tensor

from grokscope.algebra import groups, young
from grokscope.algebra.groups import Group

_TYPES = {1: "real", 2: "complex", 4: "quaternionic"}
_EIGENVALUE_TOLERANCE = 1e-7
"""Eigenvalues of a random matrix with a smaller difference, relative to the largest eigenvalue, count as equal."""


@dataclass(frozen=True, eq=False)
class Representation:
    """A real irreducible representation ρ of a group. `irreducible_representations` creates all of a group's."""

    name: str
    """The name, such as "trivial", "sign", "standard", "(3, 2)" or "2-dim. k=1"."""
    matrices: Float[Tensor, "n d d"]
    """The orthogonal matrix ρ(x) of each element x, in float64: ρ(x·y) = ρ(x) ρ(y)."""

    @property
    def dimension(self) -> int:
        """The dimension d over the real numbers."""
        return self.matrices.shape[-1]

    @cached_property
    def character(self) -> Float[Tensor, " n"]:
        """The character χ(x) = Tr ρ(x) of each element x."""
        return _trace(self.matrices)

    @cached_property
    def commutant(self) -> int:
        """The dimension s of the algebra that commutes with ρ: 1, 2 or 4."""
        return round(float(self.character.square().mean()))

    @property
    def type(self) -> str:
        """The type of the algebra that commutes with ρ: "real", "complex" or "quaternionic"."""
        return _TYPES[self.commutant]

    @property
    def isotypic_dimension(self) -> int:
        """The dimension d²/s of the isotypic subspace."""
        return self.dimension**2 // self.commutant

    @cached_property
    def isotypic_basis(self) -> Float[Tensor, "isotypic n"]:
        """An orthonormal basis of the isotypic subspace, the span of the functions x ↦ ρ(x)_ij, one function per row.

        For the real type the basis is √(d/n)·ρ_ij, by Schur orthogonality. For the other types these d² functions are
        linearly dependent, and the basis consists of their leading right singular vectors.
        """
        entries = rearrange(self.matrices, "n i j -> (i j) n") * (self.dimension / len(self.matrices)) ** 0.5
        if self.commutant == 1:
            return entries
        return torch.linalg.svd(entries, full_matrices=False).Vh[: self.isotypic_dimension]


def irreducible_representations(group: Group) -> list[Representation]:
    """Return all real irreducible representations of a group, the trivial one first.

    The construction and the names depend on the group:

    - S_n: Young's orthogonal form, named by partition: "(3, 2)". (n) is "trivial", (1, …, 1) "sign", (n − 1, 1)
      "standard" and (2, 1, …, 1) "standard × sign".
    - A_n: the restrictions from S_n. A partition and its transpose restrict to the same representation, named by the
      larger partition. A self-transpose partition gives "… +" and "… −", or a single representation of complex type
      where the two are complex conjugates (A3, A4).
    - C_n: "trivial", the rotations "2-dim. k=1", … by 2πkx/n, and for even n "sign", (−1)ˣ.
    - D_n: "trivial", "sign" (−1 on reflections), for even n "sign of r" and "sign × sign of r", and "2-dim. k=1", ….
    - A product: the tensor products "σ ⊗ τ". Two factors of complex type give the two parts "… +" and "… −".
    - Any other table: the irreducible parts of the regular representation, "d-dim. 1", …, accurate to about 1e-12.

    Cost: at most 2n² numbers; for S6 4 MB and a third of a second.

    Args:
        group: The group. Its name selects the construction only if the table agrees with that name.
    """
    if groups.is_group_name(group.name) and np.array_equal(groups.group(group.name).table, group.table):
        return reduce(_tensor_products, [_factor_representations(name) for name in group.name.split("x")])
    return _parts_of_regular_representation(group)


def decompose(matrices: Float[Tensor, "n d d"]) -> list[Float[Tensor, "n part part"]]:
    """Return the irreducible parts of a real orthogonal representation ρ, with multiplicity.

    The parts are the eigenspaces of mean_x ρ(x) X ρ(x)ᵀ for a random symmetric X. The mean commutes with every ρ(x),
    so its eigenspaces are invariant; with probability 1 they are irreducible. X is the same in every call.

    References:
        Dixon 1970, "Computing irreducible representations of groups".
    """
    d = matrices.shape[-1]
    X = torch.randn(d, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    commuting = (matrices @ (X + X.T) @ matrices.mT).mean(0)
    return [basis.T @ matrices @ basis for basis in _eigenspaces(commuting)]


def _parts_of_regular_representation(group: Group) -> list[Representation]:
    """Return the irreducible parts of the regular representation (ρ(x)f)(y) = f(x⁻¹y), one per equivalence class."""
    inverse, table = torch.from_numpy(group.inverse), torch.from_numpy(group.table)
    f = torch.randn(len(group), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    quotients = table[inverse]
    parts: list[Tensor] = []
    # The matrix f(x⁻¹y) commutes with the regular representation; with f(x) = f(x⁻¹) it is symmetric.
    for basis in _eigenspaces((f + f[inverse])[quotients]):
        matrices = einsum(basis, basis[quotients], "y i, x y j -> x i j")
        if not any(torch.allclose(_trace(matrices), _trace(part), atol=1e-6) for part in parts):
            parts.append(matrices)
    parts.sort(key=lambda part: (part.shape[-1], -float(part.sum())))
    names = ["trivial", *(f"{part.shape[-1]}-dim. {number}" for number, part in enumerate(parts[1:], 1))]
    return [Representation(name, part) for name, part in zip(names, parts, strict=True)]


def _trace(matrices: Float[Tensor, "n d d"]) -> Float[Tensor, " n"]:
    """Return the trace of each matrix."""
    return torch.diagonal(matrices, dim1=-2, dim2=-1).sum(-1)


def _eigenspaces(symmetric: Float[Tensor, "d d"]) -> Iterator[Float[Tensor, "d k"]]:
    """Yield an orthonormal basis of each eigenspace, in the order of the eigenvalues."""
    values, vectors = torch.linalg.eigh(symmetric)
    are_distinct = values.diff() > _EIGENVALUE_TOLERANCE * values.abs().max()
    bounds = [0, *(torch.nonzero(are_distinct)[:, 0] + 1).tolist(), len(values)]
    for first, last in itertools.pairwise(bounds):
        yield vectors[:, first:last]


def _tensor_products(left: list[Representation], right: list[Representation]) -> list[Representation]:
    """Return the irreducible representations of a direct product from those of its two factors."""
    products = []
    for sigma, tau in itertools.product(left, right):
        matrices = einsum(sigma.matrices, tau.matrices, "x i j, y k l -> x y i k j l")
        matrices = rearrange(matrices, "x y i k j l -> (x y) (i k) (j l)")
        is_trivial = sigma.name == tau.name == "trivial"
        name = "trivial" if is_trivial else f"{sigma.name} ⊗ {tau.name}"
        if sigma.commutant == tau.commutant == 2:
            products += _signed_parts(name, matrices)
        else:
            products.append(Representation(name, matrices))
    return products


def _signed_parts(name: str, matrices: Float[Tensor, "n d d"]) -> list[Representation]:
    """Return the one or two irreducible parts; "+" has the larger character where the two first differ."""
    parts = [Representation(name, part) for part in decompose(matrices)]
    if len(parts) == 1:
        return parts
    rounded = [(part.character * 1e6).round().tolist() for part in parts]
    order = sorted(range(len(parts)), key=rounded.__getitem__, reverse=True)
    return [Representation(f"{name} {sign}", parts[i].matrices) for i, sign in zip(order, "+−", strict=True)]


def _factor_representations(name: str) -> list[Representation]:
    """Return the irreducible representations of S_n, A_n, D_n or C_n."""
    kind, n = name[0], int(name[1:])
    return {"S": _symmetric, "A": _alternating, "D": _dihedral, "C": _cyclic}[kind](n)


def _cyclic(n: int) -> list[Representation]:
    """Return the irreducible representations of C_n."""
    representations = [Representation("trivial", torch.ones(n, 1, 1, dtype=torch.float64))]
    representations += [Representation(f"2-dim. k={k}", _rotations(n, k)) for k in range(1, (n + 1) // 2)]
    if n % 2 == 0:
        representations.append(_sign_representation("sign", 1 - 2 * (torch.arange(n) % 2)))
    return representations


def _dihedral(n: int) -> list[Representation]:
    """Return the irreducible representations of D_n, whose elements are rᵏ, then rᵏs."""
    turn, flip = torch.arange(2 * n) % n, torch.arange(2 * n) // n
    sign_of_s, sign_of_r = 1 - 2 * flip, 1 - 2 * (turn % 2)
    signs = {"trivial": torch.ones(2 * n), "sign": sign_of_s}
    if n % 2 == 0:
        signs |= {"sign of r": sign_of_r, "sign × sign of r": sign_of_s * sign_of_r}
    representations = [_sign_representation(name, values) for name, values in signs.items()]
    reflection = torch.diag(torch.tensor([1.0, -1.0], dtype=torch.float64))
    for k in range(1, (n + 1) // 2):
        rotations = _rotations(n, k)
        representations.append(Representation(f"2-dim. k={k}", torch.cat([rotations, rotations @ reflection])))
    return representations


def _rotations(n: int, k: int) -> Float[Tensor, "n 2 2"]:
    """Return the rotations by 2πkx/n for x = 0 … n − 1."""
    # Reduced modulo n before the division, the angle is exact to the last bit.
    angle = (k * torch.arange(n) % n).double() * (2 * torch.pi / n)
    c, s = angle.cos(), angle.sin()
    return rearrange([c, -s, s, c], "(i j) n -> n i j", i=2)


def _sign_representation(name: str, signs: Shaped[Tensor, " n"]) -> Representation:
    """Return the one-dimensional representation with these signs."""
    return Representation(name, signs.double()[:, None, None])


def _symmetric(n: int) -> list[Representation]:
    """Return the irreducible representations of S_n, in decreasing order of their partitions."""
    group = groups.group(f"S{n}")
    swaps = [group.index(f"({i} {i + 1})") for i in range(n - 1)]
    return [
        Representation(young.partition_name(shape), _generate(group, swaps, young.orthogonal_form(shape)))
        for shape in sorted(young.partitions(n), reverse=True)
    ]


def _alternating(n: int) -> list[Representation]:
    """Return the irreducible representations of A_n."""
    symmetric_group = groups.group(f"S{n}")
    even = [symmetric_group.index(element) for element in groups.group(f"A{n}").elements]
    representations = []
    for shape, symmetric in zip(sorted(young.partitions(n), reverse=True), _symmetric(n), strict=True):
        if shape > young.transpose(shape):
            representations.append(Representation(symmetric.name, symmetric.matrices[even]))
        elif shape == young.transpose(shape):
            representations += _signed_parts(young.partition_name(shape), symmetric.matrices[even])
    return representations


def _generate(group: Group, generators: list[int], matrices: list[Float[Tensor, "d d"]]) -> Float[Tensor, "n d d"]:
    """Return ρ of every element from ρ of the generators, by ρ(x·g) = ρ(x) ρ(g)."""
    d = matrices[0].shape[-1]
    by_element = {group.identity: torch.eye(d, dtype=torch.float64)}
    queue = [group.identity]
    for x in queue:
        for g, matrix in zip(generators, matrices, strict=True):
            y = int(group.table[x, g])
            if y not in by_element:
                by_element[y] = by_element[x] @ matrix
                queue.append(y)
    return torch.stack([by_element[x] for x in range(len(group))])
