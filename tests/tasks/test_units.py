"""Units modulo n and their circles, by brute force."""

import itertools
import math

import pytest
import torch

from grokscope.tasks.units import inverses, powers, unit_torus, units

MODULI = [*range(2, 41), 49, 64, 100, 120, 125, 128, 1001]


@pytest.mark.parametrize("n", MODULI)
def test_torus_contains_each_unit_once_and_adds_positions(n: int):
    torus = unit_torus(n)
    assert sorted(torus.flatten().tolist()) == [i for i in range(n) if math.gcd(i, n) == 1]
    position = {int(torus[index]): index for index in itertools.product(*map(range, torus.shape))}
    pairs = list(itertools.product(position, repeat=2))[:: max(1, len(position) ** 2 // 3000)]
    for a, b in pairs:
        sums = tuple((i + j) % size for i, j, size in zip(position[a], position[b], torus.shape, strict=True))
        assert position[a * b % n] == sums


def test_torus_has_the_known_shapes():
    """C2 × C20 for 100, C2 × C2 × C2 for 24, C2 × C16 for 64, and one circle where a primitive root exists."""
    shapes = {100: (2, 20), 24: (2, 2, 2), 64: (2, 16), 15: (2, 4), 35: (4, 6), 2: (1,), 3: (2,), 4: (2,), 50: (20,)}
    assert {n: tuple(unit_torus(n).shape) for n in shapes} == shapes


@pytest.mark.parametrize("n", [3, 4, 9, 18, 27, 50, 113])
def test_powers_use_the_smallest_primitive_root(n: int):
    order = powers(n).tolist()
    g = order[1]
    assert order == [pow(g, j, n) for j in range(len(units(n)))] and sorted(order) == units(n).tolist()
    assert all(len({pow(h, j, n) for j in range(n)}) < len(order) for h in range(2, g) if math.gcd(h, n) == 1)
    assert torch.equal(unit_torus(n), powers(n))


@pytest.mark.parametrize("n", [2, 8, 12, 15])
def test_modulus_without_a_primitive_root_is_refused(n: int):
    with pytest.raises(ValueError, match=f"^n: {n} has no primitive root"):
        powers(n)


@pytest.mark.parametrize("n", [2, 12, 97])
def test_inverses_multiply_to_one(n: int):
    for i, inverse in enumerate(inverses(n).tolist()):
        assert (i * inverse % n == 1 % n) if math.gcd(i, n) == 1 else inverse == 0
