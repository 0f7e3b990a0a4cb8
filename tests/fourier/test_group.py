"""Isotypic shares: the Fourier frequencies for cyclic groups, chance for noise, and planted representations."""

import numpy as np
import pytest
import torch

from grokscope.algebra import groups
from grokscope.algebra.groups import Group
from grokscope.algebra.irreps import irreducible_representations
from grokscope.fourier import cyclic
from grokscope.fourier.group import IsotypicBasis


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def isotypic(name: str) -> IsotypicBasis:
    return IsotypicBasis.from_representations(irreducible_representations(groups.group(name)))


@pytest.mark.parametrize("n", [2, 3, 7, 12, 59])
def test_a_cyclic_groups_shares_are_those_of_the_frequencies(n):
    values = noise(3, n, 5)
    torch.testing.assert_close(isotypic(f"C{n}").shares(values), cyclic.frequency_shares(values))


@pytest.mark.parametrize("name", ["S4", "A4", "D5", "C3xC5", "A5"])
def test_the_shares_sum_to_one_and_a_shift_or_scale_does_nothing(name):
    one = isotypic(name)
    values = noise(len(one.basis), 6)
    shares = one.shares(values)
    torch.testing.assert_close(shares.sum(), torch.tensor(1.0, dtype=torch.float64))
    torch.testing.assert_close(one.shares(3 * values + noise(6)), shares)


@pytest.mark.parametrize("which", range(1, 7))
def test_what_is_planted_in_one_representation_is_found_there(which):
    found = irreducible_representations(groups.group("S5"))
    values = found[which].matrices.flatten(1) @ noise(found[which].dimension ** 2, 3)
    shares = IsotypicBasis.from_representations(found).shares(values)
    assert shares[which - 1] > 1 - 1e-12


@pytest.mark.parametrize("name", ["S4", "A4", "C12"])
def test_translations_inversion_and_automorphisms_leave_the_shares(name):
    """Of values moved by x ↦ g·x, x·g and x⁻¹ the subspaces are the same; by a conjugation too."""
    group, one = groups.group(name), isotypic(name)
    values = noise(len(group), 4)
    for moved in (group.table[3], group.table[:, 3], group.inverse, group.conjugates[3]):
        torch.testing.assert_close(one.shares(values[torch.from_numpy(moved.copy())]), one.shares(values))


def test_elements_numbered_otherwise_have_the_same_shares():
    group = groups.group("S4")
    order = np.random.default_rng(0).permutation(24)
    renumbered = Group("mine", np.argsort(order)[group.table[order][:, order]], tuple(group.elements))
    values = noise(24, 4)
    shares = IsotypicBasis.from_representations(irreducible_representations(renumbered)).shares(values[order])
    np.testing.assert_allclose(sorted(shares.tolist()), sorted(isotypic("S4").shares(values).tolist()), rtol=1e-9)


def test_noise_has_each_subspaces_dimension():
    found = irreducible_representations(groups.group("S5"))
    shares = IsotypicBasis.from_representations(found).shares(noise(200, 120, 8))
    expected = torch.tensor([one.isotypic_dimension for one in found[1:]]) / 119
    error = shares.std(0) / 200**0.5
    assert ((shares.mean(0) - expected).abs() < 4 * error).all()


@pytest.mark.parametrize("name", ["S3", "A4", "C5", "C6"])
def test_powers_over_pairs_are_those_of_projections_written_out(name):
    """The projector on V_ρ is (d/(s n)) χ(x⁻¹y), and those of pairs are Kronecker products of it."""
    group, found = groups.group(name), irreducible_representations(groups.group(name))
    n, values = len(group), noise(len(group), len(group), 3)
    operand, both = IsotypicBasis.from_representations(found).pair_powers(values)
    mean = torch.full((n, n), 1 / n, dtype=torch.float64)
    for i, one in enumerate(found[1:]):
        quotient = torch.from_numpy(group.table[group.inverse])
        P = one.dimension / (one.commutant * n) * one.character[quotient]
        flat = values.flatten(0, 1)
        expected = [(torch.kron(first, second) @ flat).square().sum(0) for first, second in ((P, mean), (mean, P))]
        torch.testing.assert_close(operand[i], expected[0] + expected[1])
        torch.testing.assert_close(both[i], (torch.kron(P, P) @ flat).square().sum(0))


def test_pairs_in_parts_are_the_same(monkeypatch):
    values, one = noise(24, 24, 5), isotypic("S4")
    whole = one.pair_powers(values)
    monkeypatch.setattr("grokscope.fourier.group._NUMBERS_AT_ONCE", 1200)
    for part, expected in zip(one.pair_powers(values), whole, strict=True):
        torch.testing.assert_close(part, expected)


def test_functions_of_the_product_lie_in_both_operands():
    group, one = groups.group("S4"), isotypic("S4")
    of_product = irreducible_representations(group)[1].matrices.flatten(1)[torch.from_numpy(group.table)]
    operand, both = one.pair_powers(of_product)
    torch.testing.assert_close(both[0], of_product.square().sum((0, 1)))
    assert operand.abs().max() < 1e-20 and both[1:].abs().max() < 1e-20
