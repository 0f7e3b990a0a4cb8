"""Isomorphisms between a multiplication table and a group: another numbering of its elements."""

import itertools
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int

from grokscope.algebra.groups import Group

_MOST_TRIALS = 200_000
"""The most images of the generators that are tried."""


def isomorphism(table: Int[np.ndarray, "n n"], group: Group) -> Int[np.ndarray, " n"] | None:
    """Return φ with φ(table[x, y]) = φ(x)·φ(y) in a group; None if the table is not that of this group.

    φ is unique up to automorphisms of the group. The first in the order of the elements is returned, if it is among
    the first `_MOST_TRIALS` images of the generators.

    Args:
        table: The table of an operation on 0 … n − 1.
        group: A group.
    """
    elements = np.arange(len(table))
    identity = [x for x in elements if (table[x] == elements).all() and (table[:, x] == elements).all()]
    if len(table) != len(group) or len(identity) != 1:
        return None
    orders, group_orders = (_orders(t, e) for t, e in ((table, int(identity[0])), (group.table, group.identity)))
    if sorted(orders) != sorted(group_orders):
        return None
    generators = _generators(table, int(identity[0]), orders)
    images = [[y for y in elements.tolist() if group_orders[y] == orders[x]] for x in generators]
    for chosen in itertools.islice(itertools.product(*images), _MOST_TRIALS):
        mapping = _extended(table, group, int(identity[0]), dict(zip(generators, chosen, strict=True)))
        if mapping is not None:
            return mapping
    return None


def _orders(table: Int[np.ndarray, "n n"], identity: int) -> list[int]:
    """Return the order of each element; n + 1 for an element that has none."""
    orders = np.full(len(table), len(table) + 1)
    power = np.arange(len(table))
    for order in range(1, len(table) + 1):
        orders[(power == identity) & (orders > order)] = order
        power = table[power, np.arange(len(table))]
    return orders.tolist()


def _generators(table: Int[np.ndarray, "n n"], identity: int, orders: list[int]) -> list[int]:
    """Return a small set of elements that generates all: a pair if there is one with a largest element."""
    largest = int(np.argmax(np.where(np.array(orders) <= len(table), orders, 0)))
    for further in range(len(table)):
        if len(_closure(table, identity, [largest, further])) == len(table):
            return [largest, further]
    generators: list[int] = []
    while len(closed := _closure(table, identity, generators)) < len(table):
        generators.append(next(x for x in range(len(table)) if x not in closed))
    return generators


def _closure(table: Int[np.ndarray, "n n"], identity: int, generators: list[int]) -> set[int]:
    return {identity, *(product for _, _, product in _products(table, identity, generators))}


def _products(table: Int[np.ndarray, "n n"], identity: int, generators: list[int]) -> Iterator[tuple[int, int, int]]:
    """Yield x, generator and product for every x that the generators reach from the identity."""
    reached, waiting = {identity}, [identity]
    while waiting:
        x = waiting.pop()
        for generator in generators:
            product = int(table[x, generator])
            yield x, generator, product
            if product not in reached:
                reached.add(product)
                waiting.append(product)


def _extended(
    table: Int[np.ndarray, "n n"], group: Group, identity: int, images: dict[int, int]
) -> Int[np.ndarray, " n"] | None:
    """Return the isomorphism with these images of generators; None if they do not extend to one."""
    mapping = {identity: group.identity}
    for x, generator, product in _products(table, identity, list(images)):
        image = int(group.table[mapping[x], images[generator]])
        if mapping.setdefault(product, image) != image:
            return None
    if len(set(mapping.values())) != len(table):
        return None
    result = np.array([mapping[x] for x in range(len(table))])
    # The products with generators do not tell whether the whole table is associative.
    is_whole = np.array_equal(result[table], group.table[np.ix_(result, result)])
    return result if is_whole else None
