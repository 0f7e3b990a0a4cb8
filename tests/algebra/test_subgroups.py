"""Subgroups up to conjugacy against known counts and a search over all sets of generators."""

import itertools

import numpy as np
import pytest

from grokscope.algebra import groups, subgroups
from grokscope.errors import GrokscopeError

# Numbers of classes and of subgroups (OEIS A000638, A005432 for S_n; A029726, A029725 for A_n; sums of divisors).
KNOWN = [
    ("S2", 2, 2), ("S3", 4, 6), ("S4", 11, 30), ("S5", 19, 156), ("A3", 2, 2), ("A4", 5, 10), ("A5", 9, 59),
    ("A6", 22, 501), ("C12", 6, 6), ("C7", 2, 2), ("D4", 8, 10), ("D5", 4, 8), ("C2xC2xC2", 16, 16),
]  # fmt: skip


@pytest.mark.parametrize(("name", "n_classes", "n_subgroups"), KNOWN)
def test_there_are_as_many_as_is_known(name, n_classes, n_subgroups):
    found = subgroups.conjugacy_classes(groups.group(name))
    assert (len(found), sum(map(len, found))) == (n_classes, n_subgroups)


@pytest.mark.parametrize("name", ["S3", "S4", "A4", "D6", "C2xC4"])
def test_they_are_all_that_two_or_three_elements_generate(name):
    group = groups.group(name)
    expected = {tuple(group.subgroup(some)) for some in itertools.combinations(range(len(group)), 2)}
    expected |= {tuple(group.subgroup([g])) for g in range(len(group))}
    if name in ("D6", "S4"):  # The Klein group times another needs three.
        expected |= {tuple(group.subgroup(some)) for some in itertools.combinations(range(len(group)), 3)}
    found = subgroups.conjugacy_classes(group)
    assert {tuple(one) for conjugates in found for one in conjugates} == expected
    assert [len(conjugates[0]) for conjugates in found] == sorted(len(conjugates[0]) for conjugates in found)
    for conjugates in found:
        expected_class = {tuple(np.sort(group.conjugates[x, conjugates[0]])) for x in range(len(group))}
        assert {tuple(one) for one in conjugates} == expected_class


@pytest.mark.parametrize("name", ["S4", "C12", "D6"])
def test_a_subgroup_is_written_by_elements_that_generate_it(name):
    group = groups.group(name)
    for subgroup, *_ in subgroups.conjugacy_classes(group):
        names = subgroups.format_generators(group, subgroup).strip("⟨⟩").split(", ")
        generated = group.subgroup([group.index(one) for one in names if one])
        assert generated.tolist() == subgroup.tolist()
        assert len(names) <= 3


@pytest.mark.parametrize(("name", "match"), [("C727", "727 elements.*720"), ("C2xC2xC2xC2xC2", "more than 200")])
def test_too_many_are_refused(name, match):
    with pytest.raises(GrokscopeError, match=match):
        subgroups.conjugacy_classes(groups.group(name))
