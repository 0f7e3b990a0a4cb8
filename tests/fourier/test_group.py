"""Isotypic shares against Fourier frequencies, chance for noise, planted representations and explicit projectors."""

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
def test_shares_of_a_cyclic_group_match_frequency_shares(n):
    values = noise(3, n, 5)
    torch.testing.assert_close(isotypic(f"C{n}").shares(values), cyclic.frequency_shares(values))


@pytest.mark.parametrize("name", ["S4", "A4", "D5", "C3xC5", "A5"])
def test_shares_sum_to_one_and_ignore_shift_and_scale(name):
    basis = isotypic(name)
    values = noise(len(basis.basis), 6)
    shares = basis.shares(values)
    torch.testing.assert_close(shares.sum(), torch.tensor(1.0, dtype=torch.float64))
    torch.testing.assert_close(basis.shares(3 * values + noise(6)), shares)


@pytest.mark.parametrize("number", range(1, 7))
def test_planted_representation_has_the_whole_share(number):
    representations = irreducible_representations(groups.group("S5"))
    rho = representations[number]
    values = rho.matrices.flatten(1) @ noise(rho.dimension**2, 3)
    shares = IsotypicBasis.from_representations(representations).shares(values)
    assert shares[number - 1] > 1 - 1e-12


@pytest.mark.parametrize("name", ["S4", "A4", "C12"])
def test_symmetries_of_the_group_keep_the_shares(name):
    """The maps x ↦ g·x, x·g, x⁻¹ and g·x·g⁻¹ map each isotypic subspace to itself."""
    group, basis = groups.group(name), isotypic(name)
    values = noise(len(group), 4)
    for image in (group.table[3], group.table[:, 3], group.inverse, group.conjugates[3]):
        torch.testing.assert_close(basis.shares(values[torch.from_numpy(image.copy())]), basis.shares(values))


def test_renumbered_elements_have_the_same_shares():
    group = groups.group("S4")
    order = np.random.default_rng(0).permutation(24)
    renumbered = Group("mine", np.argsort(order)[group.table[order][:, order]], tuple(group.elements))
    values = noise(24, 4)
    shares = IsotypicBasis.from_representations(irreducible_representations(renumbered)).shares(values[order])
    np.testing.assert_allclose(sorted(shares.tolist()), sorted(isotypic("S4").shares(values).tolist()), rtol=1e-9)


def test_shares_of_noise_are_the_relative_dimensions():
    representations = irreducible_representations(groups.group("S5"))
    shares = IsotypicBasis.from_representations(representations).shares(noise(200, 120, 8))
    expected = torch.tensor([rho.isotypic_dimension for rho in representations[1:]]) / 119
    error = shares.std(0) / 200**0.5
    assert ((shares.mean(0) - expected).abs() < 4 * error).all()


@pytest.mark.parametrize("name", ["S3", "A4", "C5", "C6"])
def test_pair_powers_match_explicit_projectors(name):
    """The projector on V_ρ is (d/(s n)) χ(x⁻¹y). The projectors over pairs are its Kronecker products."""
    group, representations = groups.group(name), irreducible_representations(groups.group(name))
    n, values = len(group), noise(len(group), len(group), 3)
    operand, both = IsotypicBasis.from_representations(representations).pair_powers(values)
    mean = torch.full((n, n), 1 / n, dtype=torch.float64)
    for i, rho in enumerate(representations[1:]):
        quotient = torch.from_numpy(group.table[group.inverse])
        P = rho.dimension / (rho.commutant * n) * rho.character[quotient]
        flat = values.flatten(0, 1)
        expected = [(torch.kron(first, second) @ flat).square().sum(0) for first, second in ((P, mean), (mean, P))]
        torch.testing.assert_close(operand[i], expected[0] + expected[1])
        torch.testing.assert_close(both[i], (torch.kron(P, P) @ flat).square().sum(0))


def test_pair_powers_do_not_depend_on_the_chunk_size(monkeypatch):
    values, basis = noise(24, 24, 5), isotypic("S4")
    whole = basis.pair_powers(values)
    monkeypatch.setattr("grokscope.fourier.group._NUMBERS_AT_ONCE", 1200)
    for part, expected in zip(basis.pair_powers(values), whole, strict=True):
        torch.testing.assert_close(part, expected)


def test_functions_of_the_product_depend_on_both_operands():
    group, basis = groups.group("S4"), isotypic("S4")
    of_product = irreducible_representations(group)[1].matrices.flatten(1)[torch.from_numpy(group.table)]
    operand, both = basis.pair_powers(of_product)
    torch.testing.assert_close(both[0], of_product.square().sum((0, 1)))
    assert operand.abs().max() < 1e-20 and both[1:].abs().max() < 1e-20
