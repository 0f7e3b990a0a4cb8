"""Irreducible representations: homomorphisms, Schur's relations, and character tables from the literature."""

import math

import numpy as np
import pytest
import torch

from grokscope.algebra import groups
from grokscope.algebra.groups import Group
from grokscope.algebra.irreps import Representation, decompose, irreducible_representations

NAMES = ["C2", "C7", "C12", "D3", "D4", "D5", "D6", "S2", "S3", "S4", "S5", "A3", "A4", "A5"]
NAMES += ["C3xC5", "C2xC2", "S3xC3", "A4xC3", "C4xC3xC2"]
PHI = (1 + 5**0.5) / 2


def quaternions() -> Group:
    """Return the group of ±1, ±i, ±j, ±k: the smallest with a representation of quaternionic type."""
    i = np.array([[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, -1], [0, 0, 1, 0]])
    j = np.array([[0, 0, -1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, -1, 0, 0]])
    units = [sign * one for one in (np.eye(4, dtype=int), i, j, i @ j) for sign in (1, -1)]
    find = {one.tobytes(): x for x, one in enumerate(units)}
    table = np.array([[find[(x @ y).tobytes()] for y in units] for x in units])
    return Group("Q8", table, ("1", "-1", "i", "-i", "j", "-j", "k", "-k"))


def relabelled(group: Group, name: str) -> Group:
    """Return the group with its elements numbered in another order."""
    order = np.random.default_rng(0).permutation(len(group))
    back = np.argsort(order)
    return Group(name, back[group.table[order][:, order]], tuple(group.elements[x] for x in order))


def assert_irreducible_and_complete(group: Group, found: list[Representation]) -> None:
    """Assert what Schur and Frobenius say of all real irreducible representations of a group."""
    n, table, inverse = len(group), torch.from_numpy(group.table), torch.from_numpy(group.inverse)
    assert found[0].name == "trivial" and len({one.name for one in found}) == len(found)
    for one in found:
        products = torch.einsum("xij,yjk->xyik", one.matrices, one.matrices)
        torch.testing.assert_close(products, one.matrices[table], rtol=0, atol=1e-10)
        identity = torch.eye(one.dimension, dtype=torch.float64).expand_as(one.matrices)
        torch.testing.assert_close(one.matrices @ one.matrices.mT, identity, rtol=0, atol=1e-10)
        basis = one.isotypic_basis
        torch.testing.assert_close(basis @ basis.T, torch.eye(len(basis), dtype=torch.float64), rtol=0, atol=1e-10)
        # The entries lie in the subspace, all of them.
        entries = one.matrices.flatten(1).T
        torch.testing.assert_close(entries @ basis.T @ basis, entries, rtol=0, atol=1e-10)
    characters = torch.stack([one.character for one in found])
    sizes = torch.tensor([float(one.commutant) for one in found], dtype=torch.float64)
    torch.testing.assert_close(characters @ characters.T / n, torch.diag(sizes), rtol=0, atol=1e-10)
    assert sum(one.isotypic_dimension for one in found) == n
    bases = torch.cat([one.isotypic_basis for one in found])
    torch.testing.assert_close(bases @ bases.T, torch.eye(n, dtype=torch.float64), rtol=0, atol=1e-10)
    # As many as there are classes of elements, an element and its inverse counted as one.
    classes = group.conjugacy_classes
    assert len(found) == len({frozenset((classes[x], classes[y])) for x, y in enumerate(inverse)})
    # Frobenius and Schur: the mean of χ(x²) is 1, 0 and −2 times … for real, complex and quaternionic type.
    indicators = characters[:, table.diagonal()].mean(1)
    expected = {"real": 1.0, "complex": 0.0, "quaternionic": -2.0}
    np.testing.assert_allclose(indicators, [expected[one.type] for one in found], atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_they_are_orthogonal_irreducible_and_all(name):
    assert_irreducible_and_complete(groups.group(name), irreducible_representations(groups.group(name)))


def test_matrix_entries_are_orthogonal():
    """Schur: mean_x ρ_ij(x) σ_kl(x) = δ_ρσ δ_ik δ_jl / d for real types."""
    found = irreducible_representations(groups.group("S4"))
    entries = torch.cat([one.matrices.flatten(1) for one in found], 1)
    expected = torch.tensor(
        [1 / one.dimension for one in found for _ in range(one.dimension**2)], dtype=torch.float64
    )
    torch.testing.assert_close(entries.T @ entries / 24, torch.diag(expected), rtol=0, atol=1e-12)


def test_s6_has_eleven_of_known_dimensions():
    group = groups.group("S6")
    found = irreducible_representations(group)
    assert [one.dimension for one in found] == [1, 5, 9, 10, 5, 16, 10, 5, 9, 5, 1]
    x, y = np.random.default_rng(0).integers(720, size=(2, 300))
    for one in found:
        products = one.matrices[x] @ one.matrices[y]
        torch.testing.assert_close(products, one.matrices[group.table[x, y]], rtol=0, atol=1e-10)


def characters(name: str, elements: list[str]) -> dict[str, list[float]]:
    group = groups.group(name)
    places = [group.index(element) for element in elements]
    return {one.name: one.character[places].tolist() for one in irreducible_representations(group)}


def test_s5_has_its_character_table():
    """Fulton and Harris 1991, section 3.1."""
    elements = ["()", "(0 1)", "(0 1 2)", "(0 1 2 3)", "(0 1 2 3 4)", "(0 1)(2 3)", "(0 1)(2 3 4)"]
    expected = {
        "trivial": [1, 1, 1, 1, 1, 1, 1],
        "sign": [1, -1, 1, -1, 1, 1, -1],
        "standard": [4, 2, 1, 0, -1, 0, -1],
        "standard × sign": [4, -2, 1, 0, -1, 0, 1],
        "(3, 1, 1)": [6, 0, 0, 0, 1, -2, 0],
        "(3, 2)": [5, 1, -1, -1, 0, 1, 1],
        "(2, 2, 1)": [5, -1, -1, 1, 0, 1, -1],
    }
    found = characters("S5", elements)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-12, err_msg=name)


def test_a5_has_its_character_table():
    """Fulton and Harris 1991, section 3.2: two of dimension 3, which differ on the two classes of 5-cycles."""
    elements = ["()", "(0 1 2)", "(0 1)(2 3)", "(0 1 2 3 4)", "(0 1 2 4 3)"]
    found = characters("A5", elements)
    assert set(found) == {"trivial", "standard", "(3, 2)", "(3, 1, 1) +", "(3, 1, 1) −"}
    np.testing.assert_allclose(found["standard"], [4, 1, 0, -1, -1], atol=1e-12)
    np.testing.assert_allclose(found["(3, 2)"], [5, -1, 1, 0, 0], atol=1e-12)
    threes = [found["(3, 1, 1) +"], found["(3, 1, 1) −"]]
    np.testing.assert_allclose(
        sorted(threes, key=lambda row: row[3]), [[3, 0, -1, 1 - PHI, PHI], [3, 0, -1, PHI, 1 - PHI]], atol=1e-12
    )


@pytest.mark.parametrize(
    ("name", "types"),
    [
        ("C5", {"trivial": "real", "2-dim. k=1": "complex", "2-dim. k=2": "complex"}),
        ("C4", {"trivial": "real", "2-dim. k=1": "complex", "sign": "real"}),
        ("A4", {"trivial": "real", "standard": "real", "(2, 2)": "complex"}),
        ("S2", {"trivial": "real", "sign": "real"}),
        ("S3", {"trivial": "real", "standard": "real", "sign": "real"}),
        ("D4", dict.fromkeys(["trivial", "sign", "sign of r", "sign × sign of r", "2-dim. k=1"], "real")),
    ],
)
def test_names_and_types(name, types):
    assert {one.name: one.type for one in irreducible_representations(groups.group(name))} == types


def test_the_standard_representation_counts_fixed_points():
    group = groups.group("S4")
    (standard,) = [one for one in irreducible_representations(group) if one.name == "standard"]
    (sign,) = [one for one in irreducible_representations(group) if one.name == "sign"]
    for element, character, parity in zip(group.elements, standard.character, sign.character, strict=True):
        cycles = [part.split() for part in element.strip("()").split(")(")] if element != "()" else []
        assert math.isclose(float(character), 4 - sum(map(len, cycles)) - 1, abs_tol=1e-12)
        assert math.isclose(float(parity), (-1) ** sum(len(cycle) - 1 for cycle in cycles), abs_tol=1e-12)


def test_a_turn_of_a_cyclic_group_is_a_rotation():
    (one,) = [one for one in irreducible_representations(groups.group("C12")) if one.name == "2-dim. k=5"]
    angles = torch.atan2(one.matrices[:, 1, 0], one.matrices[:, 0, 0])
    np.testing.assert_allclose((angles / (2 * math.pi) * 12 % 12).round(decimals=9) % 12, np.arange(12) * 5 % 12)


def test_the_quaternions_have_one_of_quaternionic_type():
    found = irreducible_representations(quaternions())
    assert_irreducible_and_complete(quaternions(), found)
    assert [(one.dimension, one.type) for one in found] == [(1, "real")] * 4 + [(4, "quaternionic")]


@pytest.mark.parametrize("name", ["S4", "A4", "C7", "D5"])
def test_a_table_of_its_own_has_the_same_characters(name):
    """Also where it bears a group's name but numbers the elements otherwise."""
    group = groups.group(name)
    other = relabelled(group, name)
    found = irreducible_representations(other)
    assert_irreducible_and_complete(other, found)
    place = [other.elements.index(element) for element in group.elements]
    rows = sorted((one.character[place].round(decimals=8) + 0.0).tolist() for one in found)
    expected = sorted((one.character.round(decimals=8) + 0.0).tolist() for one in irreducible_representations(group))
    np.testing.assert_allclose(rows, expected, atol=1e-7)


def test_a_reducible_representation_is_split_into_its_parts():
    """The permutations of four points are the trivial and the standard representation; twice over, two of each."""
    every = irreducible_representations(groups.group("S4"))
    turn = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).Q
    whole = torch.stack([torch.block_diag(*[one.matrices[x] for one in every[:2] * 2]) for x in range(24)])
    found = decompose(turn @ whole @ turn.T)
    assert sorted(one.shape[-1] for one in found) == [1, 1, 3, 3]
    for one in found:
        character = torch.diagonal(one, dim1=-2, dim2=-1).sum(-1)
        torch.testing.assert_close(character, every[one.shape[-1] > 1].character, rtol=0, atol=1e-10)
