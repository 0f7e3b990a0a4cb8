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
    """Return the group of ±1, ±i, ±j, ±k, the smallest one with a representation of quaternionic type."""
    i = np.array([[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, -1], [0, 0, 1, 0]])
    j = np.array([[0, 0, -1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, -1, 0, 0]])
    units = [sign * unit for unit in (np.eye(4, dtype=int), i, j, i @ j) for sign in (1, -1)]
    index = {unit.tobytes(): x for x, unit in enumerate(units)}
    table = np.array([[index[(x @ y).tobytes()] for y in units] for x in units])
    return Group("Q8", table, ("1", "-1", "i", "-i", "j", "-j", "k", "-k"))


def relabelled(group: Group, name: str) -> Group:
    """Return the group with its elements in random order."""
    order = np.random.default_rng(0).permutation(len(group))
    inverse_order = np.argsort(order)
    return Group(name, inverse_order[group.table[order][:, order]], tuple(group.elements[x] for x in order))


def assert_irreducible_and_complete(group: Group, representations: list[Representation]) -> None:
    """Assert the theorems of Schur and Frobenius on all real irreducible representations of a group."""
    n, table, inverse = len(group), torch.from_numpy(group.table), torch.from_numpy(group.inverse)
    assert representations[0].name == "trivial"
    assert len({rho.name for rho in representations}) == len(representations)
    for rho in representations:
        products = torch.einsum("xij,yjk->xyik", rho.matrices, rho.matrices)
        torch.testing.assert_close(products, rho.matrices[table], rtol=0, atol=1e-10)
        identity = torch.eye(rho.dimension, dtype=torch.float64).expand_as(rho.matrices)
        torch.testing.assert_close(rho.matrices @ rho.matrices.mT, identity, rtol=0, atol=1e-10)
        basis = rho.isotypic_basis
        torch.testing.assert_close(basis @ basis.T, torch.eye(len(basis), dtype=torch.float64), rtol=0, atol=1e-10)
        # The isotypic subspace contains all matrix entries.
        entries = rho.matrices.flatten(1).T
        torch.testing.assert_close(entries @ basis.T @ basis, entries, rtol=0, atol=1e-10)
    characters = torch.stack([rho.character for rho in representations])
    commutants = torch.tensor([float(rho.commutant) for rho in representations], dtype=torch.float64)
    torch.testing.assert_close(characters @ characters.T / n, torch.diag(commutants), rtol=0, atol=1e-10)
    assert sum(rho.isotypic_dimension for rho in representations) == n
    bases = torch.cat([rho.isotypic_basis for rho in representations])
    torch.testing.assert_close(bases @ bases.T, torch.eye(n, dtype=torch.float64), rtol=0, atol=1e-10)
    # There is one representation per conjugacy class, if the class of x and the class of x⁻¹ count as one.
    classes = group.conjugacy_classes
    assert len(representations) == len({frozenset((classes[x], classes[y])) for x, y in enumerate(inverse)})
    # Frobenius and Schur: the mean of χ(x²) is 1 for the real, 0 for the complex, −2 for the quaternionic type.
    indicators = characters[:, table.diagonal()].mean(1)
    expected = {"real": 1.0, "complex": 0.0, "quaternionic": -2.0}
    np.testing.assert_allclose(indicators, [expected[rho.type] for rho in representations], atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_representations_are_irreducible_and_complete(name):
    assert_irreducible_and_complete(groups.group(name), irreducible_representations(groups.group(name)))


def test_matrix_entries_are_orthogonal():
    """Schur: mean_x ρ_ij(x) σ_kl(x) = δ_ρσ δ_ik δ_jl / d for real types."""
    representations = irreducible_representations(groups.group("S4"))
    entries = torch.cat([rho.matrices.flatten(1) for rho in representations], 1)
    expected = torch.tensor(
        [1 / rho.dimension for rho in representations for _ in range(rho.dimension**2)], dtype=torch.float64
    )
    torch.testing.assert_close(entries.T @ entries / 24, torch.diag(expected), rtol=0, atol=1e-12)


def test_s6_has_eleven_representations_of_known_dimension():
    group = groups.group("S6")
    representations = irreducible_representations(group)
    assert [rho.dimension for rho in representations] == [1, 5, 9, 10, 5, 16, 10, 5, 9, 5, 1]
    x, y = np.random.default_rng(0).integers(720, size=(2, 300))
    for rho in representations:
        products = rho.matrices[x] @ rho.matrices[y]
        torch.testing.assert_close(products, rho.matrices[group.table[x, y]], rtol=0, atol=1e-10)


def characters(name: str, elements: list[str]) -> dict[str, list[float]]:
    """Return the character of each representation at these elements."""
    group = groups.group(name)
    numbers = [group.index(element) for element in elements]
    return {rho.name: rho.character[numbers].tolist() for rho in irreducible_representations(group)}


def test_s5_has_its_character_table():
    """See Fulton and Harris 1991, section 3.1."""
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
    table = characters("S5", elements)
    assert table.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(table[name], values, atol=1e-12, err_msg=name)


def test_a5_has_its_character_table():
    """See Fulton and Harris 1991, section 3.2. The two of dimension 3 differ on the two classes of 5-cycles."""
    elements = ["()", "(0 1 2)", "(0 1)(2 3)", "(0 1 2 3 4)", "(0 1 2 4 3)"]
    table = characters("A5", elements)
    assert set(table) == {"trivial", "standard", "(3, 2)", "(3, 1, 1) +", "(3, 1, 1) −"}
    np.testing.assert_allclose(table["standard"], [4, 1, 0, -1, -1], atol=1e-12)
    np.testing.assert_allclose(table["(3, 2)"], [5, -1, 1, 0, 0], atol=1e-12)
    of_dimension_3 = sorted([table["(3, 1, 1) +"], table["(3, 1, 1) −"]], key=lambda row: row[3])
    np.testing.assert_allclose(of_dimension_3, [[3, 0, -1, 1 - PHI, PHI], [3, 0, -1, PHI, 1 - PHI]], atol=1e-12)


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
def test_names_and_types_are_the_conventional_ones(name, types):
    assert {rho.name: rho.type for rho in irreducible_representations(groups.group(name))} == types


def test_standard_character_counts_fixed_points():
    group = groups.group("S4")
    by_name = {rho.name: rho.character for rho in irreducible_representations(group)}
    for element, character, parity in zip(group.elements, by_name["standard"], by_name["sign"], strict=True):
        cycles = [part.split() for part in element.strip("()").split(")(")] if element != "()" else []
        assert math.isclose(float(character), 4 - sum(map(len, cycles)) - 1, abs_tol=1e-12)
        assert math.isclose(float(parity), (-1) ** sum(len(cycle) - 1 for cycle in cycles), abs_tol=1e-12)


def test_cyclic_representation_is_a_rotation():
    by_name = {rho.name: rho.matrices for rho in irreducible_representations(groups.group("C12"))}
    rotations = by_name["2-dim. k=5"]
    angles = torch.atan2(rotations[:, 1, 0], rotations[:, 0, 0])
    np.testing.assert_allclose((angles / (2 * math.pi) * 12 % 12).round(decimals=9) % 12, np.arange(12) * 5 % 12)


def test_quaternions_have_one_representation_of_their_type():
    representations = irreducible_representations(quaternions())
    assert_irreducible_and_complete(quaternions(), representations)
    assert [(rho.dimension, rho.type) for rho in representations] == [(1, "real")] * 4 + [(4, "quaternionic")]


@pytest.mark.parametrize("name", ["S4", "A4", "C7", "D5"])
def test_relabelled_table_has_the_same_characters(name):
    """The table has the name of a group, but its elements are in a different order."""
    group = groups.group(name)
    shuffled = relabelled(group, name)
    representations = irreducible_representations(shuffled)
    assert_irreducible_and_complete(shuffled, representations)
    numbers = [shuffled.elements.index(element) for element in group.elements]
    rows = sorted((rho.character[numbers].round(decimals=8) + 0.0).tolist() for rho in representations)
    expected = sorted((rho.character.round(decimals=8) + 0.0).tolist() for rho in irreducible_representations(group))
    np.testing.assert_allclose(rows, expected, atol=1e-7)


def test_reducible_representation_is_decomposed():
    """Two copies of the trivial and of the standard representation are mixed by a random orthogonal matrix."""
    trivial, standard, *_ = irreducible_representations(groups.group("S4"))
    mixing = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).Q
    copies = [trivial, standard, trivial, standard]
    blocks = torch.stack([torch.block_diag(*[rho.matrices[x] for rho in copies]) for x in range(24)])
    parts = decompose(mixing @ blocks @ mixing.T)
    assert sorted(part.shape[-1] for part in parts) == [1, 1, 3, 3]
    for part in parts:
        character = torch.diagonal(part, dim1=-2, dim2=-1).sum(-1)
        expected = trivial.character if part.shape[-1] == 1 else standard.character
        torch.testing.assert_close(character, expected, rtol=0, atol=1e-10)
