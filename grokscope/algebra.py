"""Finite groups, and binary operations as tables. Knows nothing of training.

An element is a number 0 … n − 1, an operation the n × n table of its answers. Permutations act from the left:
(x·y)(i) = x(y(i)).
"""

import itertools
import math
import re
from collections.abc import Callable, Iterable
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
TABLE_ALLOWED = (
    f"rows of numbers, separated by ';' or line ends, as many in a row as there are rows (2 to {LARGEST_ORDER:,}), "
    f"each from 0 to below that, or '.' for no equation"
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


def read_table(text: str) -> Int[np.ndarray, "n n"]:
    """Return the table that a text writes, −1 where there is no equation; raise GrokscopeError naming its faults."""
    found = table_faults(text)
    if found:
        raise GrokscopeError(f"This is no table of a binary operation: {'; '.join(found)}.")
    return np.array([[-1 if entry == "." else int(entry) for entry in row] for row in _rows(text)])


def table_faults(text: str) -> list[str]:
    """Say what keeps a text from being a table, one clause each, the first few of each kind."""
    rows = _rows(text)
    n = len(rows)
    if not 2 <= n <= LARGEST_ORDER:
        return [f"{n} rows; allowed: {TABLE_ALLOWED}"]
    found = [
        f"row {i} has {len(row)} entries; allowed: {n}, one for each row"
        for i, row in enumerate(rows)
        if len(row) != n
    ]
    wrong = [
        f"row {i} has {entry[:20]!r}; allowed: 0 to {n - 1}, or '.'"
        for i, row in enumerate(rows)
        for entry in row
        if entry != "." and not (re.fullmatch("[0-9]{1,4}", entry) and int(entry) < n)
    ]
    few = [*found[:3], *wrong[:3]]
    n_more = len(found) + len(wrong) - len(few)
    return few + ([f"and {n_more} faults more"] if n_more else [])


def tabulate(operation: Callable[[int, int], int | None], n: int) -> str:
    """Return the table of `operation` over 0 … n − 1 as the task "table" takes it; None stands for no equation.

    So a binary operation is a task in one line: ``TaskConfig(name="table", table=tabulate(lambda a, b: a ^ b, 32))``.
    """
    answers = [[operation(a, b) for b in range(n)] for a in range(n)]
    wrong = [(a, b) for a in range(n) for b in range(n) if not _is_answer(answers[a][b])]
    if wrong:
        a, b = wrong[0]
        raise GrokscopeError(
            f"The operation gives {answers[a][b]!r} for ({a}, {b}); allowed: a whole number, or None."
        )
    return "; ".join(" ".join("." if answer is None else str(int(answer)) for answer in row) for row in answers)


def _is_answer(value: object) -> bool:
    return value is None or hasattr(value, "__index__")


def _rows(text: str) -> list[list[str]]:
    # A spreadsheet may begin a file with a byte-order mark and end a row with a comma.
    rows = [re.split(r"[\s,]+", row.strip("\ufeff, \t\r")) for row in re.split(r"[;\n]", text)]
    return [row for row in rows if row != [""]]


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
