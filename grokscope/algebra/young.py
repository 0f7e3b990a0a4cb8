"""Partitions, standard Young tableaux and Young's orthogonal form of the symmetric groups."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor


def orthogonal_form(shape: tuple[int, ...]) -> list[Float[Tensor, "d d"]]:
    """Return the matrices of the transpositions (i i+1) in the irreducible representation of S_n with this shape.

    The standard tableaux of the shape are the basis. (i i+1) maps a tableau T to T/r + √(1 − 1/r²)·T′. T′ is T with i
    and i + 1 exchanged. r is the content, column − row, of the cell of i + 1 minus that of the cell of i.

    Args:
        shape: A partition of n, in decreasing order.

    Returns:
        A symmetric orthogonal matrix for each i = 0 … n − 2, in float64.

    References:
        James and Kerber 1981, "The Representation Theory of the Symmetric Group", section 3.4.
    """
    tableaux = list(_tableaux(shape))
    rows = {tableau: j for j, tableau in enumerate(tableaux)}
    matrices = []
    for i in range(sum(shape) - 1):
        matrix = torch.zeros(len(tableaux), len(tableaux), dtype=torch.float64)
        for tableau, j in rows.items():
            (row, column), (next_row, next_column) = tableau[i], tableau[i + 1]
            distance = (next_column - next_row) - (column - row)
            matrix[j, j] = 1 / distance
            if abs(distance) > 1:
                swapped = (*tableau[:i], tableau[i + 1], tableau[i], *tableau[i + 2 :])
                matrix[rows[swapped], j] = (1 - 1 / distance**2) ** 0.5
        matrices.append(matrix)
    return matrices


def _tableaux(shape: tuple[int, ...]) -> Iterator[tuple[tuple[int, int], ...]]:
    """Yield the standard tableaux of a shape, each as the cells (row, column) of 0, 1, …."""
    if not sum(shape):
        yield ()
    for row, length in enumerate(shape):
        below = shape[row + 1] if row + 1 < len(shape) else 0
        if length > below:
            smaller = (*shape[:row], length - 1, *shape[row + 1 :])
            yield from ((*tableau, (row, length - 1)) for tableau in _tableaux(smaller))


def partitions(n: int, largest: int | None = None) -> Iterator[tuple[int, ...]]:
    """Yield the partitions of n into parts of at most `largest`, each in decreasing order."""
    if n == 0:
        yield ()
    for first in range(min(n, largest or n), 0, -1):
        yield from ((first, *rest) for rest in partitions(n - first, first))


def transpose(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the conjugate partition."""
    return tuple(sum(length > column for length in shape) for column in range(shape[0]))


def partition_name(shape: tuple[int, ...]) -> str:
    """Return the name of the representation of S_n with this partition."""
    n = sum(shape)
    # For S2 and S3 several names share a partition; the last name in this order is the conventional one.
    names = {(2, *(1,) * (n - 2)): "standard × sign", (n - 1, 1): "standard", (1,) * n: "sign", (n,): "trivial"}
    return names.get(shape, str(shape))
