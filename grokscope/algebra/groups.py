"""Finite groups, and binary operations as tables. Knows nothing of training.

An element is a number 0 … n − 1, an operation the n × n table of its answers. Permutations act from the left:
(x·y)(i) = x(y(i)).
"""

import itertools
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int

from grokscope.errors import GrokscopeError

LARGEST_ORDER = 2003
ALLOWED = (
    "S2 to S6, A3 to A6, D3 to D1001 (of 2n elements), C2 to C2003, or a product of them such as 'C3xC5', "
    f"of at most {LARGEST_ORDER:,} elements"
)


@dataclass(frozen=True, eq=False)
class Group:
    """A finite group by its multiplication table."""

    name: str
    """Such as "S5", "D7" or "C3xC5"."""
    table: Int[np.ndarray, "n n"]
    """table[x, y] is the element x·y."""
    elements: tuple[str, ...]
    """How each element is written: a permutation by its cycles, such as "(0 3)(1 4)", the identity "()"."""

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def identity(self) -> int:
        """The element e with e·x = x."""
        return int(np.flatnonzero((self.table == np.arange(len(self))).all(1))[0])

    @cached_property
    def inverse(self) -> Int[np.ndarray, " n"]:
        """Each element's inverse."""
        return np.argmax(self.table == self.identity, axis=1)

    @cached_property
    def is_abelian(self) -> bool:
        """Whether x·y = y·x for all x and y."""
        return bool((self.table == self.table.T).all())

    @cached_property
    def conjugates(self) -> Int[np.ndarray, "n n"]:
        """conjugates[x, y] is x·y·x⁻¹."""
        return self.table[self.table, self.inverse[:, None]]

    @cached_property
    def conjugacy_classes(self) -> Int[np.ndarray, " n"]:
        """Each element's conjugacy class, numbered in the order of their smallest elements."""
        return _numbered(self.conjugates.min(0))

    @cached_property
    def cycle(self) -> Int[np.ndarray, " n"] | None:
        """The powers g⁰, g¹, … of the smallest g that generates the group; None if it is not cyclic."""
        for g in range(len(self)):
            powers = self._powers(g)
            if len(powers) == len(self):
                return np.array(powers)
        return None

    def index(self, element: str) -> int:
        """Return the number of an element as `elements` writes it; raise GrokscopeError if there is none."""
        if element not in self.elements:
            shown = ", ".join(self.elements[:6])
            raise GrokscopeError(f"{self.name} has no element {element!r}; its elements are {shown}, …")
        return self.elements.index(element)

    def subgroup(self, generators: Iterable[int]) -> Int[np.ndarray, " m"]:
        """Return the elements of the subgroup ⟨generators⟩, increasing; raise GrokscopeError for no element."""
        generators, found, fresh = list(generators), {self.identity}, [self.identity]
        if not all(0 <= g < len(self) for g in generators):
            raise GrokscopeError(f"{generators} are no elements of {self.name}; allowed: 0 to {len(self) - 1}.")
        while fresh:
            fresh = [y for y in {int(self.table[x, g]) for x in fresh for g in generators} if y not in found]
            found |= set(fresh)
        return np.array(sorted(found))

    def conjugate_subgroups(self, subgroup: Int[np.ndarray, " m"]) -> list[Int[np.ndarray, " m"]]:
        """Return the distinct subgroups x·H·x⁻¹, the subgroup H itself among them."""
        found = {tuple(np.sort(self.conjugates[x, subgroup]).tolist()) for x in range(len(self))}
        return [np.array(one) for one in sorted(found)]

    def left_cosets(self, subgroup: Int[np.ndarray, " m"]) -> Int[np.ndarray, " n"]:
        """Return the number of the coset x·H that each element x lies in, in order of their smallest elements."""
        return _numbered(self.table[:, subgroup].min(1))

    def right_cosets(self, subgroup: Int[np.ndarray, " m"]) -> Int[np.ndarray, " n"]:
        """Return the number of the coset H·x that each element x lies in, in order of their smallest elements."""
        return _numbered(self.table[subgroup].min(0))

    def _powers(self, g: int) -> list[int]:
        powers, power = [self.identity], g
        while power != self.identity:
            powers.append(power)
            power = int(self.table[power, g])
        return powers


def is_name(name: str) -> bool:
    """Return whether `name` is a group's: S_n, A_n, D_n, C_n or a product, small enough."""
    factors = [_order(factor) for factor in name.split("x")]
    return all(factors) and math.prod(factors) <= LARGEST_ORDER


def order(name: str) -> int:
    """Return how many elements the group of that name has, 0 if there is none."""
    return math.prod(_order(factor) for factor in name.split("x"))


def group(name: str) -> Group:
    """Return the group of that name; raise GrokscopeError if there is none.

    S_n and A_n hold the permutations in lexicographic order of their images, D_n the elements rᵏ, then rᵏs (with
    s·r = r⁻¹·s), C_n the residues under addition, and a product the tuples, the last factor running fastest.
    """
    if not is_name(name):
        raise GrokscopeError(f"{name!r} is no group; allowed: {ALLOWED}.")
    first, *others = [_factor(factor) for factor in name.split("x")]
    table, elements = first
    for other, names in others:
        n = len(other)
        table = (table[:, None, :, None] * n + other[None, :, None, :]).reshape(len(table) * n, -1)
        elements = [f"{x}, {y}" for x in elements for y in names]
    return Group(name, table, tuple(elements))


def _order(factor: str) -> int:
    """Return the order of S_n, A_n, D_n or C_n, or 0 if there is no such group or it is too large."""
    match = re.fullmatch(r"([SADC])([1-9][0-9]{0,3})", factor)
    if not match:
        return 0
    kind, n = match[1], int(match[2])
    smallest = {"S": 2, "A": 3, "D": 3, "C": 2}[kind]
    if n < smallest or (kind in "SA" and n > 6):
        return 0
    return {"S": math.factorial, "A": lambda n: math.factorial(n) // 2, "D": lambda n: 2 * n, "C": int}[kind](n)


def _factor(name: str) -> tuple[Int[np.ndarray, "n n"], list[str]]:
    kind, n = name[0], int(name[1:])
    k = np.arange(n)
    if kind == "C":
        return (k[:, None] + k) % n, [str(i) for i in range(n)]
    if kind == "D":
        x = np.arange(2 * n)
        turn, flipped = x % n, x // n
        turned = (turn[:, None] + np.where(flipped, -1, 1)[:, None] * turn) % n
        return turned + n * (flipped[:, None] ^ flipped), [f"r{i}{'s' * f}" for f in (0, 1) for i in range(n)]
    permutations = [x for x in itertools.permutations(range(n)) if kind == "S" or _is_even(x)]
    images = np.array(permutations)
    # Read as numbers in base n, permutations in lexicographic order increase.
    place = n ** np.arange(n)[::-1]
    return np.searchsorted(images @ place, images[:, images] @ place), [_cycles(x) for x in permutations]


def _is_even(permutation: tuple[int, ...]) -> bool:
    return sum(x > y for x, y in itertools.combinations(permutation, 2)) % 2 == 0


def _cycles(permutation: tuple[int, ...]) -> str:
    cycles, seen = [], set()
    for start in range(len(permutation)):
        cycle, i = [], start
        while i not in seen:
            seen.add(i)
            cycle.append(i)
            i = permutation[i]
        if len(cycle) > 1:
            cycles.append(f"({' '.join(map(str, cycle))})")
    return "".join(cycles) or "()"


def _numbered(representative: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    return np.unique(representative, return_inverse=True)[1]
