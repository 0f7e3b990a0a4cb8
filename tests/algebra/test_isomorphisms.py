"""Isomorphisms: the image of every product is the product of the images."""

import numpy as np
import pytest

from grokscope.algebra.groups import group
from grokscope.algebra.isomorphisms import isomorphism


@pytest.mark.parametrize("name", ["S4", "A5", "D7", "C12", "C2xC2xC2"])
def test_renumbered_group_is_mapped_to_itself(name: str):
    own = group(name)
    order = np.random.default_rng(0).permutation(len(own))
    table = np.argsort(order)[own.table[np.ix_(order, order)]]
    mapping = isomorphism(table, own)
    assert mapping is not None and sorted(mapping) == list(range(len(own)))
    for x in range(len(own)):
        for y in range(len(own)):
            assert mapping[table[x, y]] == own.table[mapping[x], mapping[y]]


def test_reversed_product_is_isomorphic_to_the_group():
    own = group("S4")
    assert isomorphism(own.table.T, own) is not None


def test_other_group_of_the_same_order_has_no_isomorphism():
    assert isomorphism(group("C6").table, group("S3")) is None
    assert isomorphism(group("D4").table, group("C2xC2xC2")) is None


def test_table_with_one_wrong_product_has_no_isomorphism():
    table = group("S4").table.copy()
    table[7, 11] = (table[7, 11] + 1) % 24
    assert isomorphism(table, group("S4")) is None
