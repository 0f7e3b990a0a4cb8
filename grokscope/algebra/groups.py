"""Finite groups as multiplication tables: S_n, A_n, D_n, C_n and their products.

The elements of a group are numbered 0 … n − 1. Permutations act from the left: (x·y)(i) = x(y(i)).
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int

from grokscope.algebra.group_names import ALLOWED_NAMES as ALLOWED_NAMES
from grokscope.algebra.group_names import LARGEST_ORDER as LARGEST_ORDER
from grokscope.algebra.group_names import group_order as group_order
from grokscope.algebra.group_names import is_group_name as is_group_name
from grokscope.errors import GrokscopeError


@dataclass(frozen=True, eq=False)
class Group:
    """A finite group, given by its multiplication table. `group` creates one by name."""

    name: str
    """The name, such as "S5", "D7" or "C3xC5"."""
    table: Int[np.ndarray, "n n"]
    """The multiplication table: table[x, y] is the element x·y."""
    elements: tuple[str, ...]
    """The notation of each element. A permutation is written in cycles, such as "(0 3)(1 4)", the identity "()"."""

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def identity(self) -> int:
        """The identity e: e·x = x for all x."""
        return int(np.flatnonzero((self.table == np.arange(len(self))).all(1))[0])

    @cached_property
    def inverse(self) -> Int[np.ndarray, " n"]:
        """The inverse of each element."""
        return np.argmax(self.table == self.identity, axis=1)

    @cached_property
    def is_abelian(self) -> bool:
        """Whether x·y = y·x for all x and y."""
        return bool((self.table == self.table.T).all())

    @cached_property
    def conjugates(self) -> Int[np.ndarray, "n n"]:
        """The conjugates: conjugates[x, y] is x·y·x⁻¹."""
        return self.table[self.table, self.inverse[:, None]]

    @cached_property
    def conjugacy_classes(self) -> Int[np.ndarray, " n"]:
        """The number of each element's conjugacy class. The classes are ordered by their smallest elements."""
        return _class_numbers(self.conjugates.min(0))

    @cached_property
    def cycle(self) -> Int[np.ndarray, " n"] | None:
        """The powers g⁰, g¹, … of the smallest generator g, or None for a group that is not cyclic."""
        for g in range(len(self)):
            powers = self._powers(g)
            if len(powers) == len(self):
                return np.array(powers)
        return None

    def index(self, element: str) -> int:
        """Return the number of the element with this notation; raise GrokscopeError for an unknown element."""
        if element not in self.elements:
            examples = ", ".join(self.elements[:6])
            raise GrokscopeError(f"{self.name} has no element {element!r}; its elements are {examples}, …")
        return self.elements.index(element)

    def subgroup(self, generators: Iterable[int]) -> Int[np.ndarray, " m"]:
        """Return the subgroup that the generators generate, as increasing element numbers.

        Raises:
            GrokscopeError: A generator is not an element number.
        """
        generators = list(generators)
        if not all(0 <= g < len(self) for g in generators):
            raise GrokscopeError(
                f"generators {generators} in {self.name}; allowed: numbers from 0 to {len(self) - 1}."
            )
        subgroup, newest = {self.identity}, {self.identity}
        while newest:
            newest = {int(self.table[x, g]) for x in newest for g in generators} - subgroup
            subgroup |= newest
        return np.array(sorted(subgroup))

    def conjugate_subgroups(self, subgroup: Int[np.ndarray, " m"]) -> list[Int[np.ndarray, " m"]]:
        """Return the distinct subgroups x·H·x⁻¹ of a subgroup H, including H itself."""
        conjugates = {tuple(np.sort(self.conjugates[x, subgroup]).tolist()) for x in range(len(self))}
        return [np.array(elements) for elements in sorted(conjugates)]

    def left_cosets(self, subgroup: Int[np.ndarray, " m"]) -> Int[np.ndarray, " n"]:
        """Return the number of the left coset x·H of each element x. The cosets are ordered by smallest element."""
        return _class_numbers(self.table[:, subgroup].min(1))

    def right_cosets(self, subgroup: Int[np.ndarray, " m"]) -> Int[np.ndarray, " n"]:
        """Return the number of the right coset H·x of each element x. The cosets are ordered by smallest element."""
        return _class_numbers(self.table[subgroup].min(0))

    def _powers(self, g: int) -> list[int]:
        """Return the distinct powers g⁰, g¹, …."""
        powers, power = [self.identity], g
        while power != self.identity:
            powers.append(power)
            power = int(self.table[power, g])
        return powers


def group(name: str) -> Group:
    """Return the group with this name.

    The order of the elements is:

    - S_n and A_n: the permutations in lexicographic order of their images;
    - D_n: rᵏ for k = 0 … n − 1, then rᵏs, with s·r = r⁻¹·s;
    - C_n: the residues 0 … n − 1 under addition;
    - a product: the tuples of elements. The last factor varies fastest.

    Args:
        name: One of `ALLOWED_NAMES`, such as "S5", "D7" or "C3xC5".

    Raises:
        GrokscopeError: The name is not allowed.
    """
    if not is_group_name(name):
        raise GrokscopeError(f"{name!r} is not a group; allowed: {ALLOWED_NAMES}.")
    (table, elements), *further_factors = [_factor(factor) for factor in name.split("x")]
    for factor_table, factor_elements in further_factors:
        n = len(factor_table)
        table = (table[:, None, :, None] * n + factor_table[None, :, None, :]).reshape(len(table) * n, -1)
        elements = [f"{x}, {y}" for x in elements for y in factor_elements]
    return Group(name, table, tuple(elements))


def _factor(name: str) -> tuple[Int[np.ndarray, "n n"], list[str]]:
    """Return the table and the elements of S_n, A_n, D_n or C_n."""
    kind, n = name[0], int(name[1:])
    if kind == "C":
        k = np.arange(n)
        return (k[:, None] + k) % n, [str(i) for i in range(n)]
    if kind == "D":
        return _dihedral_table(n), [f"r{i}" for i in range(n)] + [f"r{i}s" for i in range(n)]
    permutations = [x for x in itertools.permutations(range(n)) if kind == "S" or _is_even(x)]
    images = np.array(permutations)
    # Read as a number in base n, each permutation is larger than the one before it in lexicographic order.
    place_values = n ** np.arange(n)[::-1]
    table = np.searchsorted(images @ place_values, images[:, images] @ place_values)
    return table, [_cycle_notation(x) for x in permutations]


def _dihedral_table(n: int) -> Int[np.ndarray, "two_n two_n"]:
    """Return the table of D_n: element k + n·f is rᵏsᶠ."""
    x = np.arange(2 * n)
    turn, flip = x % n, x // n
    turns = (turn[:, None] + np.where(flip, -1, 1)[:, None] * turn) % n
    return turns + n * (flip[:, None] ^ flip)


def _is_even(permutation: tuple[int, ...]) -> bool:
    """Return whether the number of inversions is even."""
    return sum(x > y for x, y in itertools.combinations(permutation, 2)) % 2 == 0


def _cycle_notation(permutation: tuple[int, ...]) -> str:
    """Return a permutation of 0 … n − 1 in cycles, without fixed points."""
    cycles, visited = [], set()
    for start in range(len(permutation)):
        cycle, i = [], start
        while i not in visited:
            visited.add(i)
            cycle.append(i)
            i = permutation[i]
        if len(cycle) > 1:
            cycles.append(f"({' '.join(map(str, cycle))})")
    return "".join(cycles) or "()"


def _class_numbers(representatives: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Return the number of each element's class, given the smallest element of its class."""
    return np.unique(representatives, return_inverse=True)[1]
