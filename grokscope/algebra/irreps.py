"""Real irreducible representations of finite groups: matrices, characters, isotypic subspaces of the functions.

Over the real numbers an irreducible representation ρ of dimension d commutes with a field of dimension s: with the
real numbers (s = 1, of "real" type: it stays irreducible over the complex numbers), with the complex ones (s = 2: it
is σ + σ̄ for a complex σ of dimension d/2 that is not equivalent to its conjugate), or with the quaternions (s = 4:
it is σ + σ). s is the mean of χ(g)², Σ_ρ d²/s is the group's order, and d²/s the dimension of ρ's isotypic subspace:
the functions on the group that its matrix entries span. (Serre 1977, "Linear Representations", section 13.2.)
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np
import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from grokscope.algebra import groups
from grokscope.algebra.groups import Group

_TYPES = {1: "real", 2: "complex", 4: "quaternionic"}
_SAME = 1e-7
"""Eigenvalues of a random matrix that lie nearer to each other than this, relative to the largest, are one."""


@dataclass(frozen=True, eq=False)
class Representation:
    """A real irreducible representation by orthogonal matrices, one for each element of a group."""

    name: str
    """Such as "trivial", "sign", "standard", "(3, 2)" or "2-dim. k=1"."""
    matrices: Float[Tensor, "n d d"]
    """matrices[x] is ρ(x), in float64; ρ(x·y) = ρ(x) ρ(y)."""

    @property
    def dimension(self) -> int:
        """The dimension d over the real numbers."""
        return self.matrices.shape[-1]

    @cached_property
    def character(self) -> Float[Tensor, " n"]:
        """χ(x) = Tr ρ(x)."""
        return torch.diagonal(self.matrices, dim1=-2, dim2=-1).sum(-1)

    @cached_property
    def commutant(self) -> int:
        """The dimension s of what commutes with the representation: 1, 2 or 4."""
        return round(float(self.character.square().mean()))

    @property
    def type(self) -> str:
        """What commutes with it: "real", "complex" or "quaternionic" numbers."""
        return _TYPES[self.commutant]

    @property
    def isotypic_dimension(self) -> int:
        """The dimension d²/s of the functions on the group that its matrix entries span."""
        return self.dimension**2 // self.commutant

    @cached_property
    def isotypic_basis(self) -> Float[Tensor, "isotypic n"]:
        """An orthonormal basis, one function a row, of the span of the matrix entries x ↦ ρ(x)_ij.

        Of the real type √(d/n)·ρ_ij are orthonormal as they are (Schur); of the others the d² entries are dependent,
        and the basis is that of their leading singular vectors.
        """
        entries = rearrange(self.matrices, "n i j -> (i j) n") * (self.dimension / len(self.matrices)) ** 0.5
        if self.commutant == 1:
            return entries
        return torch.linalg.svd(entries, full_matrices=False).Vh[: self.isotypic_dimension]


def irreducible(group: Group) -> list[Representation]:
    """Return all real irreducible representations of a group, the trivial one first.

    S_n's are named by partitions ("trivial", "sign", "standard" for (n − 1, 1), "standard × sign" for its product
    with the sign), by Young's orthogonal form. A_n's are theirs restricted: λ and its transpose give the same one,
    named by the larger, and of those that are their own transposes two, "… +" and "… −", except where they are
    complex conjugates of each other (A3, A4: one of complex type). D_n's and C_n's are "2-dim. k=1", …: rotations by
    2πk/n, with "trivial", "sign" (C_n: −1 to the power of the element, its frequency n/2; D_n: −1 on each
    reflection), "sign of r" and "sign × sign of r". A product's are the products "σ ⊗ τ", in two parts "… +" and
    "… −" where both factors are of complex type.

    Any other table of a group has the irreducible parts of its regular representation, named "d-dim. 1", … and found
    numerically, to about 1e-12. All are orthogonal and in float64. They are at most 2n² numbers in all; for S6 they
    take 4 MB and a third of a second.
    """
    if groups.is_name(group.name) and np.array_equal(groups.group(group.name).table, group.table):
        return reduce(_product, [_of_factor(name) for name in group.name.split("x")])
    return _of_table(group)


def split(matrices: Float[Tensor, "n d d"]) -> list[Float[Tensor, "n part part"]]:
    """Return the irreducible parts of a real orthogonal representation, equivalent ones as often as they occur.

    The eigenspaces of a random symmetric matrix averaged over the group, mean_x ρ(x) X ρ(x)ᵀ, which commutes with
    every ρ(x), are invariant, and irreducible with probability 1 (Dixon 1970). X is the same at every call.
    """
    d = matrices.shape[-1]
    X = torch.randn(d, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    commuting = (matrices @ (X + X.T) @ matrices.mT).mean(0)
    return [basis.T @ matrices @ basis for basis in _eigenspaces(commuting)]


def _of_table(group: Group) -> list[Representation]:
    """Return the irreducible parts of the regular representation, (ρ(x)f)(y) = f(x⁻¹y), one of each class."""
    inverse, table = torch.from_numpy(group.inverse), torch.from_numpy(group.table)
    f = torch.randn(len(group), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moved = table[inverse]
    found: list[Tensor] = []
    # The matrix f(x⁻¹y) commutes with the regular representation; with f(x) = f(x⁻¹) it is symmetric.
    for basis in _eigenspaces((f + f[inverse])[moved]):
        matrices = einsum(basis, basis[moved], "y i, x y j -> x i j")
        character = torch.diagonal(matrices, dim1=-2, dim2=-1).sum(-1)
        if not any(torch.allclose(character, torch.diagonal(m, dim1=-2, dim2=-1).sum(-1), atol=1e-6) for m in found):
            found.append(matrices)
    found.sort(key=lambda one: (one.shape[-1], -float(one.sum())))
    counts = itertools.count(1)
    names = ["trivial", *(f"{one.shape[-1]}-dim. {next(counts)}" for one in found[1:])]
    return [Representation(name, one) for name, one in zip(names, found, strict=True)]


def _eigenspaces(symmetric: Float[Tensor, "d d"]) -> Iterator[Float[Tensor, "d k"]]:
    values, vectors = torch.linalg.eigh(symmetric)
    apart = values.diff() > _SAME * values.abs().max()
    bounds = [0, *(torch.nonzero(apart)[:, 0] + 1).tolist(), len(values)]
    for first, last in itertools.pairwise(bounds):
        yield vectors[:, first:last]


def _product(ones: list[Representation], others: list[Representation]) -> list[Representation]:
    found = []
    for one, other in itertools.product(ones, others):
        matrices = einsum(one.matrices, other.matrices, "x i j, y k l -> x y i k j l")
        matrices = rearrange(matrices, "x y i k j l -> (x y) (i k) (j l)")
        trivial = (one.name, other.name) == ("trivial", "trivial")
        name = "trivial" if trivial else f"{one.name} ⊗ {other.name}"
        if one.commutant == other.commutant == 2:
            found += _in_parts(name, matrices)
        else:
            found.append(Representation(name, matrices))
    return found


def _in_parts(name: str, matrices: Float[Tensor, "n d d"]) -> list[Representation]:
    """Return a representation's parts, the one of the larger character where they first differ as "+"."""
    parts = [Representation(name, one) for one in split(matrices)]
    if len(parts) == 1:
        return parts
    rounded = [(one.character * 1e6).round().tolist() for one in parts]
    order = sorted(range(len(parts)), key=rounded.__getitem__, reverse=True)
    return [Representation(f"{name} {sign}", parts[i].matrices) for i, sign in zip(order, "+−", strict=True)]


def _of_factor(name: str) -> list[Representation]:
    kind, n = name[0], int(name[1:])
    return {"S": _symmetric, "A": _alternating, "D": _dihedral, "C": _cyclic}[kind](n)


def _cyclic(n: int) -> list[Representation]:
    found = [Representation("trivial", torch.ones(n, 1, 1, dtype=torch.float64))]
    found += [Representation(f"2-dim. k={k}", _rotations(n, k)) for k in range(1, (n + 1) // 2)]
    if n % 2 == 0:
        found.append(_of_signs("sign", 1 - 2 * (torch.arange(n) % 2)))
    return found


def _dihedral(n: int) -> list[Representation]:
    # The elements are rᵏ, then rᵏs.
    turn, flip = torch.arange(2 * n) % n, torch.arange(2 * n) // n
    of_s, of_r = 1 - 2 * flip, 1 - 2 * (turn % 2)
    found = [_of_signs("trivial", torch.ones(2 * n)), _of_signs("sign", of_s)]
    if n % 2 == 0:
        found += [_of_signs("sign of r", of_r), _of_signs("sign × sign of r", of_s * of_r)]
    reflection = torch.diag(torch.tensor([1.0, -1.0], dtype=torch.float64))
    for k in range(1, (n + 1) // 2):
        rotations = _rotations(n, k)
        found.append(Representation(f"2-dim. k={k}", torch.cat([rotations, rotations @ reflection])))
    return found


def _rotations(n: int, k: int) -> Float[Tensor, "n 2 2"]:
    # Reduced modulo n before the division, the angle is exact to the last bit.
    angle = (k * torch.arange(n) % n).double() * (2 * torch.pi / n)
    c, s = angle.cos(), angle.sin()
    return rearrange([c, -s, s, c], "(i j) n -> n i j", i=2)


def _of_signs(name: str, signs: Tensor) -> Representation:
    return Representation(name, signs.double()[:, None, None])


def _symmetric(n: int) -> list[Representation]:
    group = groups.group(f"S{n}")
    swaps = [group.index(f"({i} {i + 1})") for i in range(n - 1)]
    return [
        Representation(_named(shape), _generated(group, swaps, _young(shape)))
        for shape in sorted(_partitions(n), reverse=True)
    ]


def _alternating(n: int) -> list[Representation]:
    whole_group = groups.group(f"S{n}")
    even = [whole_group.index(element) for element in groups.group(f"A{n}").elements]
    found = []
    for shape, whole in zip(sorted(_partitions(n), reverse=True), _symmetric(n), strict=True):
        if shape > _transposed(shape):
            found.append(Representation(whole.name, whole.matrices[even]))
        elif shape == _transposed(shape):
            found += _in_parts(_named(shape), whole.matrices[even])
    return found


def _generated(group: Group, generators: list[int], matrices: list[Float[Tensor, "d d"]]) -> Float[Tensor, "n d d"]:
    """Return ρ of every element from ρ of generators, by ρ(x·g) = ρ(x) ρ(g)."""
    d = matrices[0].shape[-1]
    found = {group.identity: torch.eye(d, dtype=torch.float64)}
    waiting = [group.identity]
    for x in waiting:
        for g, matrix in zip(generators, matrices, strict=True):
            y = int(group.table[x, g])
            if y not in found:
                found[y] = found[x] @ matrix
                waiting.append(y)
    return torch.stack([found[x] for x in range(len(group))])


def _young(shape: tuple[int, ...]) -> list[Float[Tensor, "d d"]]:
    """Return Young's orthogonal form of the transpositions of i and i + 1 on the standard tableaux of a shape.

    With r the content (column − row) of i + 1's place less that of i's, the swap sends a tableau T to
    T/r + √(1 − 1/r²)·T', T' being T with both exchanged (James and Kerber 1981, section 3.4).
    """
    tableaux = list(_tableaux(shape))
    place = {tableau: j for j, tableau in enumerate(tableaux)}
    matrices = []
    for i in range(sum(shape) - 1):
        matrix = torch.zeros(len(tableaux), len(tableaux), dtype=torch.float64)
        for tableau, j in place.items():
            (row, column), (next_row, next_column) = tableau[i], tableau[i + 1]
            distance = (next_column - next_row) - (column - row)
            matrix[j, j] = 1 / distance
            if abs(distance) > 1:
                swapped = (*tableau[:i], tableau[i + 1], tableau[i], *tableau[i + 2 :])
                matrix[place[swapped], j] = (1 - 1 / distance**2) ** 0.5
        matrices.append(matrix)
    return matrices


def _tableaux(shape: tuple[int, ...]) -> Iterator[tuple[tuple[int, int], ...]]:
    """Yield the standard tableaux of a shape, each as the places (row, column) of 0, 1, …."""
    if not sum(shape):
        yield ()
    for row, length in enumerate(shape):
        below = shape[row + 1] if row + 1 < len(shape) else 0
        if length > below:
            smaller = (*shape[:row], length - 1, *shape[row + 1 :])
            yield from ((*tableau, (row, length - 1)) for tableau in _tableaux(smaller))


def _partitions(n: int, largest: int | None = None) -> Iterator[tuple[int, ...]]:
    if n == 0:
        yield ()
    for first in range(min(n, largest or n), 0, -1):
        yield from ((first, *rest) for rest in _partitions(n - first, first))


def _transposed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sum(length > column for length in shape) for column in range(shape[0]))


def _named(shape: tuple[int, ...]) -> str:
    n = sum(shape)
    # Of S3 the standard representation is its own product with the sign, of S2 it is the sign: the later names count.
    names = {(2, *(1,) * (n - 2)): "standard × sign", (n - 1, 1): "standard", (1,) * n: "sign", (n,): "trivial"}
    return names.get(shape, str(shape))
