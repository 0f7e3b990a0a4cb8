"""Subgroups up to conjugacy against known counts and against all sets of two or three generators."""

import itertools

import numpy as np
import pytest

from grokscope.algebra import groups, subgroups
from grokscope.errors import GrokscopeError

# The numbers of classes and of subgroups: OEIS A000638, A005432 for S_n; A029726, A029725 for A_n; divisor sums.
KNOWN = [
    ("S2", 2, 2), ("S3", 4, 6), ("S4", 11, 30), ("S5", 19, 156), ("A3", 2, 2), ("A4", 5, 10), ("A5", 9, 59),
    ("A6", 22, 501), ("C12", 6, 6), ("C7", 2, 2), ("D4", 8, 10), ("D5", 4, 8), ("C2xC2xC2", 16, 16),
]  # fmt: skip


@pytest.mark.parametrize(("name", "n_classes", "n_subgroups"), KNOWN)
def test_class_and_subgroup_counts_match_the_literature(name, n_classes, n_subgroups):
    classes = subgroups.conjugacy_classes(groups.group(name))
    assert (len(classes), sum(map(len, classes))) == (n_classes, n_subgroups)


@pytest.mark.parametrize("name", ["S3", "S4", "A4", "D6", "C2xC4"])
def test_classes_contain_all_generated_subgroups(name):
    group = groups.group(name)
    # Two generators suffice for every subgroup of these groups. Two of the groups also try three.
    n_generators = (1, 2, 3) if name in ("D6", "S4") else (1, 2)
    expected = {
        tuple(group.subgroup(generators))
        for n in n_generators
        for generators in itertools.combinations(range(len(group)), n)
    }
    classes = subgroups.conjugacy_classes(group)
    assert {tuple(subgroup) for conjugates in classes for subgroup in conjugates} == expected
    orders = [len(conjugates[0]) for conjugates in classes]
    assert orders == sorted(orders)
    for conjugates in classes:
        expected_class = {tuple(np.sort(group.conjugates[x, conjugates[0]])) for x in range(len(group))}
        assert {tuple(subgroup) for subgroup in conjugates} == expected_class


@pytest.mark.parametrize("name", ["S4", "C12", "D6"])
def test_formatted_generators_generate_the_subgroup(name):
    group = groups.group(name)
    for subgroup, *_ in subgroups.conjugacy_classes(group):
        names = subgroups.format_generators(group, subgroup).strip("⟨⟩").split(", ")
        generated = group.subgroup([group.index(element) for element in names if element])
        assert generated.tolist() == subgroup.tolist()
        assert len(names) <= 3


@pytest.mark.parametrize(("name", "match"), [("C727", "727 elements.*720"), ("C2xC2xC2xC2xC2", "more than 200")])
def test_too_large_group_is_an_error(name, match):
    with pytest.raises(GrokscopeError, match=match):
        subgroups.conjugacy_classes(groups.group(name))
