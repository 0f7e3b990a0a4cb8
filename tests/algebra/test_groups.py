"""Groups against their axioms, sympy's permutation groups, and values from the literature."""

import itertools
import math
import re
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sympy.combinatorics import Permutation, PermutationGroup
from sympy.combinatorics.named_groups import AlternatingGroup, DihedralGroup, SymmetricGroup

from grokscope.algebra import groups
from grokscope.algebra.groups import Group, is_group_name
from grokscope.errors import GrokscopeError

PERMUTATIONS = ["S2", "S3", "S4", "S5", "A3", "A4", "A5"]
SMALL = [*PERMUTATIONS, "D3", "D4", "D7", "C2", "C12", "C2xC2", "C3xC5", "A4xS3", "D3xC2xC3"]


def image(element: str, n: int) -> tuple[int, ...]:
    """Return the permutation of 0 … n − 1 with this cycle notation."""
    images = list(range(n))
    for cycle in re.findall(r"\(([^()]*)\)", element):
        points = [int(point) for point in cycle.split()]
        for point, next_point in zip(points, points[1:] + points[:1], strict=True):
            images[point] = next_point
    return tuple(images)


def images(group: Group) -> list[tuple[int, ...]]:
    """Return the elements of S_n, A_n or D_n as permutations. In D_n, r is i ↦ i + 1 and s is i ↦ −i."""
    n = int(group.name[1:])
    if group.name[0] != "D":
        return [image(element, n) for element in group.elements]
    permutations = []
    for element in group.elements:
        turn, flip = re.fullmatch(r"r(\d+)(s?)", element).groups()  # pyright: ignore[reportOptionalMemberAccess]
        permutations.append(tuple((int(turn) + (-i if flip else i)) % n for i in range(n)))
    return permutations


def compose(x: tuple[int, ...], y: tuple[int, ...]) -> tuple[int, ...]:
    """Return the permutation that applies y, then x."""
    return tuple(x[i] for i in y)


def in_sympy(group: Group) -> Any:
    """Return sympy's S_n, A_n or D_n."""
    kind = {"S": SymmetricGroup, "A": AlternatingGroup, "D": DihedralGroup}[group.name[0]]
    return kind(int(group.name[1:]))


def numbers(group: Group, *elements: str) -> list[int]:
    """Return the numbers of the elements with this notation."""
    return [group.index(element) for element in elements]


@pytest.mark.parametrize("name", [*SMALL, "S6", "A6", "D50", "C113"])
def test_group_satisfies_the_axioms(name: str):
    group = groups.group(name)
    n, e, elements = len(group), group.identity, np.arange(len(group))
    assert group.table.shape == (n, n) and len(set(group.elements)) == len(group.elements) == n
    # Each row and each column contains every element once.
    assert (np.sort(group.table, axis=0) == elements[:, None]).all()
    assert (np.sort(group.table, axis=1) == elements).all()
    assert (group.table[e] == elements).all() and (group.table[:, e] == elements).all()
    assert (group.table[elements, group.inverse] == e).all()
    assert (group.table[group.inverse, elements] == e).all()
    # Associativity for all z and for the first 150 x and y.
    for x in range(min(n, 150)):
        assert (group.table[group.table[x, :150]] == group.table[x, group.table[:150]]).all()


@pytest.mark.parametrize("name", [*PERMUTATIONS, "S6", "A6", "D3", "D4", "D7", "D12"])
def test_elements_are_the_permutations_of_sympy(name: str):
    group, expected = groups.group(name), in_sympy(groups.group(name))
    permutations = images(group)
    assert len(group) == expected.order()
    assert set(permutations) == {tuple(permutation.array_form) for permutation in expected.elements}
    if name[0] in "SA":
        assert permutations == sorted(permutations)


@pytest.mark.parametrize("name", [*PERMUTATIONS, "D3", "D4", "D7", "D12"])
def test_product_applies_the_right_factor_first(name: str):
    group = groups.group(name)
    elements = images(group)
    for x, y in itertools.product(range(len(group)), repeat=2):
        assert elements[group.table[x, y]] == compose(elements[x], elements[y])
    if not group.is_abelian:
        # Control: the opposite order gives different products.
        assert any(
            elements[group.table[x, y]] != compose(elements[y], elements[x])
            for x, y in itertools.product(range(len(group)), repeat=2)
        )


def test_product_agrees_with_hand_calculation_and_sympy():
    """(0 1)·(1 2) maps 2 to 1 to 0, 0 to 1, and 1 to 2."""
    group = groups.group("S3")
    x, y = numbers(group, "(0 1)", "(1 2)")
    assert group.elements[group.table[x, y]] == "(0 1 2)"
    assert group.elements[group.table[y, x]] == "(0 2 1)"
    # sympy's product p*q applies p first.
    large = groups.group("S6")
    for x, y in np.random.default_rng(0).integers(len(large), size=(200, 2)).tolist():
        p, q = (Permutation(list(image(large.elements[element], 6))) for element in (x, y))
        product: Any = q * p
        assert image(large.elements[large.table[x, y]], 6) == tuple(product.array_form)


def test_dihedral_group_satisfies_its_relations():
    group = groups.group("D7")
    r, s, reflected = numbers(group, "r1", "r0s", "r6s")
    assert group.table[s, r] == reflected and group.table[r, s] == group.index("r1s")
    assert group.elements == tuple(f"r{i}" for i in range(7)) + tuple(f"r{i}s" for i in range(7))


@pytest.mark.parametrize("n", [2, 3, 12, 97])
def test_cyclic_group_adds_residues(n: int):
    group = groups.group(f"C{n}")
    assert group.table.tolist() == [[(a + b) % n for b in range(n)] for a in range(n)]
    assert group.elements == tuple(map(str, range(n)))


@pytest.mark.parametrize("name", ["C2xC2", "C3xC5", "S3xC4", "A4xS3", "D3xC2xC3"])
def test_direct_product_multiplies_factor_by_factor(name: str):
    group = groups.group(name)
    factors = [groups.group(factor) for factor in name.split("x")]
    tuples = list(itertools.product(*(range(len(factor)) for factor in factors)))
    index = {element: i for i, element in enumerate(tuples)}
    assert len(group) == math.prod(map(len, factors))
    for x, y in itertools.product(tuples, repeat=2):
        answer = tuple(int(factor.table[a, b]) for factor, a, b in zip(factors, x, y, strict=True))
        assert group.table[index[x], index[y]] == index[answer]
    expected = [", ".join(factor.elements[i] for factor, i in zip(factors, x, strict=True)) for x in tuples]
    assert list(group.elements) == expected


@pytest.mark.parametrize(
    ("name", "abelian"),
    [("S2", True), ("A3", True), ("C12", True), ("C3xC5", True), ("C2xC2", True)]
    + [("S3", False), ("A4", False), ("D3", False), ("D4", False), ("S3xC2", False), ("C2xS3", False)],
)
def test_is_abelian_is_correct_for_known_groups(name: str, abelian: bool):
    assert groups.group(name).is_abelian is abelian


@pytest.mark.parametrize("name", ["S3", "S4", "S5", "A4", "A5", "D4", "D7"])
def test_conjugates_match_the_permutations(name: str):
    group = groups.group(name)
    elements = images(group)
    inverses = [tuple(np.argsort(x).tolist()) for x in elements]
    for x, y in itertools.product(range(len(group)), repeat=2):
        assert elements[group.conjugates[x, y]] == compose(compose(elements[x], elements[y]), inverses[x])


@pytest.mark.parametrize("name", ["S2", "S3", "S4", "S5", "A3", "A4", "A5", "D3", "D4", "D7", "D12"])
def test_conjugacy_classes_match_sympy(name: str):
    group = groups.group(name)
    elements = images(group)
    classes: dict[int, set[tuple[int, ...]]] = {}
    for element, number in zip(elements, group.conjugacy_classes.tolist(), strict=True):
        classes.setdefault(number, set()).add(element)
    expected = {frozenset(tuple(x.array_form) for x in class_) for class_ in in_sympy(group).conjugacy_classes()}
    assert {frozenset(members) for members in classes.values()} == expected
    # The numbers follow the smallest elements.
    assert list(classes) == list(range(len(expected)))


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("S5", [1, 10, 15, 20, 20, 24, 30]),
        ("A5", [1, 12, 12, 15, 20]),
        ("S6", [1, 15, 15, 40, 40, 45, 90, 90, 120, 120, 144]),
        ("A6", [1, 40, 40, 45, 72, 72, 90]),
        ("A4", [1, 3, 4, 4]),
        ("D6", [1, 1, 2, 2, 3, 3]),
        ("C3xC5", [1] * 15),
        ("S3xC2", [1, 1, 2, 2, 3, 3]),
    ],
)
def test_conjugacy_classes_have_known_sizes(name: str, sizes: list[int]):
    assert sorted(Counter(groups.group(name).conjugacy_classes.tolist()).values()) == sizes


@pytest.mark.parametrize("name", ["S4", "S5", "A5", "S6"])
def test_generated_subgroup_matches_sympy(name: str):
    group, n = groups.group(name), int(name[1:])
    orders = []
    for generators in np.random.default_rng(1).integers(len(group), size=(12, 2)).tolist():
        generators = generators[: 1 + generators[0] % 2]
        elements = [image(group.elements[g], n) for g in generators]
        subgroup = group.subgroup(generators)
        expected: Any = PermutationGroup([Permutation(list(x)) for x in elements])
        permutations = {image(group.elements[x], n) for x in subgroup.tolist()}
        assert permutations == {tuple(x.array_form) for x in expected.elements}
        assert (np.diff(subgroup) > 0).all()
        orders.append(len(subgroup))
    assert len(set(orders)) >= 3, "the generators cover too few subgroups"


def test_subgroups_of_products_and_without_generators():
    group = groups.group("C3xC5")
    assert group.subgroup([]).tolist() == group.subgroup([group.identity]).tolist() == [0]
    assert group.subgroup(numbers(group, "0, 1")).tolist() == [0, 1, 2, 3, 4]
    assert group.subgroup(numbers(group, "1, 0")).tolist() == [0, 5, 10]
    assert group.subgroup(x for x in numbers(group, "1, 0", "0, 3")).tolist() == list(range(15))


NORMAL = {"A4 in S4": ("S4", ["(0 1 2)", "(1 2 3)"]), "V4 in S4": ("S4", ["(0 1)(2 3)", "(0 2)(1 3)"])}
NORMAL |= {"A5 in S5": ("S5", ["(0 1 2)", "(2 3 4)"]), "C7 in D7": ("D7", ["r1"]), "C4 in C12": ("C12", ["3"])}
NOT_NORMAL = {"C2 in S3": ("S3", ["(0 1)"]), "D5 in S5": ("S5", ["(0 3)(1 4)", "(1 2)(3 4)"])}
NOT_NORMAL |= {"S4 in S5": ("S5", ["(0 1)", "(0 1 2 3)"]), "C2 in D7": ("D7", ["r2s"])}


@pytest.mark.parametrize(("name", "generators"), (NORMAL | NOT_NORMAL).values(), ids=NORMAL | NOT_NORMAL)
def test_cosets_are_translates_of_equal_size(name: str, generators: list[str]):
    group = groups.group(name)
    subgroup = group.subgroup(numbers(group, *generators))
    index = len(group) // len(subgroup)
    assert 1 < len(subgroup) < len(group) and index * len(subgroup) == len(group)
    for cosets, translates in (
        (group.left_cosets(subgroup), [{int(group.table[x, h]) for h in subgroup} for x in range(len(group))]),
        (group.right_cosets(subgroup), [{int(group.table[h, x]) for h in subgroup} for x in range(len(group))]),
    ):
        for x, translate in enumerate(translates):
            assert set(np.flatnonzero(cosets == cosets[x]).tolist()) == translate
        assert Counter(cosets.tolist()) == dict.fromkeys(range(index), len(subgroup))
        first = [int(np.flatnonzero(cosets == number)[0]) for number in range(index)]
        assert first == sorted(first)


@pytest.mark.parametrize(("name", "generators"), NORMAL.values(), ids=NORMAL)
def test_left_and_right_cosets_of_normal_subgroup_agree(name: str, generators: list[str]):
    group = groups.group(name)
    subgroup = group.subgroup(numbers(group, *generators))
    assert (group.left_cosets(subgroup) == group.right_cosets(subgroup)).all()
    (conjugate,) = group.conjugate_subgroups(subgroup)
    assert conjugate.tolist() == subgroup.tolist()


@pytest.mark.parametrize(("name", "generators"), NOT_NORMAL.values(), ids=NOT_NORMAL)
def test_left_and_right_cosets_of_other_subgroups_differ(name: str, generators: list[str]):
    group = groups.group(name)
    subgroup = group.subgroup(numbers(group, *generators))
    assert (group.left_cosets(subgroup) != group.right_cosets(subgroup)).any()
    assert len(group.conjugate_subgroups(subgroup)) > 1


def test_subgroup_in_power2022_has_six_conjugates():
    """The subgroup is a copy of D5. S5 has six Sylow 5-subgroups, each of which is in one conjugate."""
    group = groups.group("S5")
    subgroup = group.subgroup(numbers(group, "(0 3)(1 4)", "(1 2)(3 4)"))
    sympy_group: Any = PermutationGroup([Permutation([3, 4, 2, 0, 1]), Permutation([0, 2, 1, 4, 3])])
    assert len(subgroup) == sympy_group.order() == 10
    elements = [Permutation(list(x)) for x in images(group)]
    # sympy's h ^ x is x⁻¹·h·x with x⁻¹ applied first. Over all x both conventions give the same conjugates.
    expected = {frozenset(tuple((h ^ x).array_form) for h in sympy_group.elements) for x in elements}
    conjugates = group.conjugate_subgroups(subgroup)
    permutations = [frozenset(image(group.elements[x], 5) for x in members.tolist()) for members in conjugates]
    assert len(permutations) == len(expected) == 6 and set(permutations) == expected
    assert any(members.tolist() == subgroup.tolist() for members in conjugates)


@pytest.mark.parametrize("name", ["C2", "C12", "C97", "C3xC5", "C4xC3xC5", "S2", "A3", "S2xA3"])
def test_cycle_is_the_powers_of_the_smallest_generator(name: str):
    group = groups.group(name)
    cycle = group.cycle
    assert cycle is not None
    g, n = int(cycle[1]), len(group)
    assert sorted(cycle.tolist()) == list(range(n)) and cycle[0] == group.identity
    assert [int(group.table[x, g]) for x in cycle] == np.roll(cycle, -1).tolist()
    assert all(len(group.subgroup([h])) < n for h in range(g))


def test_cycle_of_residues_is_in_their_order():
    for n in (2, 3, 10, 113):
        cycle = groups.group(f"C{n}").cycle
        assert cycle is not None and cycle.tolist() == list(range(n))


@pytest.mark.parametrize("name", ["C2xC2", "C2xC4", "C6xC4", "S3", "S5", "A4", "D3", "D4", "S3xC5"])
def test_group_that_is_not_cyclic_has_no_cycle(name: str):
    assert groups.group(name).cycle is None


def test_index_finds_an_element_by_its_notation():
    for name in ("S4", "A4", "D5", "C7", "C3xC5", "S3xC2"):
        group = groups.group(name)
        assert [group.index(element) for element in group.elements] == list(range(len(group)))
    assert groups.group("S5").elements[groups.group("S5").identity] == "()"
    for wrong in ("(3 0)", "(0 5)", "", "r1"):
        with pytest.raises(GrokscopeError, match=re.escape(f"S5 has no element {wrong!r}")):
            groups.group("S5").index(wrong)


@pytest.mark.parametrize(
    ("name", "order"),
    [("S2", 2), ("S6", 720), ("A3", 3), ("A6", 360), ("D3", 6), ("D1001", 2002), ("C2", 2), ("C2003", 2003)]
    + [("S6xC2", 1440), ("C2xC2xC2xC2xC2xC2xC2xC2xC2xC2", 1024)],
)
def test_smallest_and_largest_groups_are_allowed(name: str, order: int):
    group = groups.group(name)
    assert is_group_name(name) and (group.name, len(group)) == (name, order)


@pytest.mark.parametrize(
    "name",
    ["S1", "S7", "A2", "A7", "D2", "D1002", "C1", "C0", "C2004", "S6xC3", "C2003xC2", "s5", "S05", "S", "5", "E8"]
    + ["", "x", "S5x", "xS5", "S5xx", "S5 ", " S5", "S5\n", "S5xC2\n", "S5×C2", "C٣", "C-5", "C99999", "S5*C2"],
)
def test_invalid_group_name_lists_the_allowed_names(name: str):
    assert not is_group_name(name)
    with pytest.raises(GrokscopeError, match=re.escape(f"{name!r} is not a group; allowed: S2 to S6, A3 to A6")):
        groups.group(name)


@given(st.one_of(st.text(), st.text("SADCx123", max_size=5)))
def test_random_text_is_a_group_or_an_error(text: str):
    if is_group_name(text):
        assert len(groups.group(text)) <= groups.LARGEST_ORDER
    else:
        with pytest.raises(GrokscopeError):
            groups.group(text)
