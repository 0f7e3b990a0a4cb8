"""Groups against their axioms and sympy's permutations, and tables of operations against what they were made of."""

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
from grokscope.algebra.tables import read_table, table_faults, tabulate
from grokscope.errors import GrokscopeError

PERMUTATIONS = ["S2", "S3", "S4", "S5", "A3", "A4", "A5"]
SMALL = [*PERMUTATIONS, "D3", "D4", "D7", "C2", "C12", "C2xC2", "C3xC5", "A4xS3", "D3xC2xC3"]


def image(element: str, n: int) -> tuple[int, ...]:
    """Return the permutation of 0 … n − 1 that is written by its cycles."""
    images = list(range(n))
    for cycle in re.findall(r"\(([^()]*)\)", element):
        points = [int(point) for point in cycle.split()]
        for here, there in zip(points, points[1:] + points[:1], strict=True):
            images[here] = there
    return tuple(images)


def images(group: Group) -> list[tuple[int, ...]]:
    """Return S_n's, A_n's or D_n's elements as permutations; D_n turns by r: i ↦ i + 1 and flips by s: i ↦ −i."""
    n = int(group.name[1:])
    if group.name[0] != "D":
        return [image(element, n) for element in group.elements]
    found = []
    for element in group.elements:
        turn, flip = re.fullmatch(r"r(\d+)(s?)", element).groups()  # pyright: ignore[reportOptionalMemberAccess]
        found.append(tuple((int(turn) + (-i if flip else i)) % n for i in range(n)))
    return found


def after(x: tuple[int, ...], y: tuple[int, ...]) -> tuple[int, ...]:
    """Return the permutation that does y, then x."""
    return tuple(x[i] for i in y)


def in_sympy(group: Group) -> Any:
    kind = {"S": SymmetricGroup, "A": AlternatingGroup, "D": DihedralGroup}[group.name[0]]
    return kind(int(group.name[1:]))


def numbers(group: Group, *elements: str) -> list[int]:
    return [group.index(element) for element in elements]


@pytest.mark.parametrize("name", [*SMALL, "S6", "A6", "D50", "C113"])
def test_the_axioms_of_a_group_hold(name: str):
    group = groups.group(name)
    n, e, everything = len(group), group.identity, np.arange(len(group))
    assert group.table.shape == (n, n) and len(set(group.elements)) == len(group.elements) == n
    # Every element once in each row and each column.
    assert (np.sort(group.table, axis=0) == everything[:, None]).all()
    assert (np.sort(group.table, axis=1) == everything).all()
    assert (group.table[e] == everything).all() and (group.table[:, e] == everything).all()
    assert (group.table[everything, group.inverse] == e).all()
    assert (group.table[group.inverse, everything] == e).all()
    # All z at once; of x and y the first 150, which are all in all but the largest.
    for x in range(min(n, 150)):
        assert (group.table[group.table[x, :150]] == group.table[x, group.table[:150]]).all()


@pytest.mark.parametrize("name", [*PERMUTATIONS, "S6", "A6", "D3", "D4", "D7", "D12"])
def test_permutations_are_those_of_sympy_each_once(name: str):
    group, theirs = groups.group(name), in_sympy(groups.group(name))
    ours = images(group)
    assert len(group) == theirs.order()
    assert set(ours) == {tuple(one.array_form) for one in theirs.elements}
    if name[0] in "SA":
        assert ours == sorted(ours)


@pytest.mark.parametrize("name", [*PERMUTATIONS, "D3", "D4", "D7", "D12"])
def test_a_product_applies_the_right_factor_first(name: str):
    group = groups.group(name)
    elements = images(group)
    for x, y in itertools.product(range(len(group)), repeat=2):
        assert elements[group.table[x, y]] == after(elements[x], elements[y])
    if not group.is_abelian:
        # The control: the other order is another product.
        assert any(
            elements[group.table[x, y]] != after(elements[y], elements[x])
            for x, y in itertools.product(range(len(group)), repeat=2)
        )


def test_a_product_written_out_by_hand():
    """(0 1)·(1 2) sends 2 to 1 to 0, 0 to 1, and 1 to 2."""
    group = groups.group("S3")
    x, y = numbers(group, "(0 1)", "(1 2)")
    assert group.elements[group.table[x, y]] == "(0 1 2)"
    assert group.elements[group.table[y, x]] == "(0 2 1)"
    # And in the largest, where sympy's product p*q does p first.
    large = groups.group("S6")
    drawn = np.random.default_rng(0).integers(len(large), size=(200, 2)).tolist()
    for x, y in drawn:
        p, q = (Permutation(list(image(large.elements[one], 6))) for one in (x, y))
        product: Any = q * p
        assert image(large.elements[large.table[x, y]], 6) == tuple(product.array_form)


def test_the_dihedral_relations_hold():
    group = groups.group("D7")
    r, s, reflected = numbers(group, "r1", "r0s", "r6s")
    assert group.table[s, r] == reflected and group.table[r, s] == group.index("r1s")
    assert group.elements == tuple(f"r{i}" for i in range(7)) + tuple(f"r{i}s" for i in range(7))


@pytest.mark.parametrize("n", [2, 3, 12, 97])
def test_a_cyclic_group_adds_residues(n: int):
    group = groups.group(f"C{n}")
    assert group.table.tolist() == [[(a + b) % n for b in range(n)] for a in range(n)]
    assert group.elements == tuple(map(str, range(n)))


@pytest.mark.parametrize("name", ["C2xC2", "C3xC5", "S3xC4", "A4xS3", "D3xC2xC3"])
def test_a_product_of_groups_multiplies_each_factor_by_itself(name: str):
    group = groups.group(name)
    factors = [groups.group(factor) for factor in name.split("x")]
    tuples = list(itertools.product(*(range(len(factor)) for factor in factors)))
    place = {one: i for i, one in enumerate(tuples)}
    assert len(group) == math.prod(map(len, factors))
    for x, y in itertools.product(tuples, repeat=2):
        answer = tuple(int(factor.table[a, b]) for factor, a, b in zip(factors, x, y, strict=True))
        assert group.table[place[x], place[y]] == place[answer]
    expected = [", ".join(factor.elements[i] for factor, i in zip(factors, one, strict=True)) for one in tuples]
    assert list(group.elements) == expected


@pytest.mark.parametrize(
    ("name", "abelian"),
    [("S2", True), ("A3", True), ("C12", True), ("C3xC5", True), ("C2xC2", True)]
    + [("S3", False), ("A4", False), ("D3", False), ("D4", False), ("S3xC2", False), ("C2xS3", False)],
)
def test_it_is_known_which_groups_are_abelian(name: str, abelian: bool):
    assert groups.group(name).is_abelian is abelian


@pytest.mark.parametrize("name", ["S3", "S4", "S5", "A4", "A5", "D4", "D7"])
def test_conjugates_are_those_of_the_permutations(name: str):
    group = groups.group(name)
    elements = images(group)
    backwards = [tuple(np.argsort(x).tolist()) for x in elements]
    for x, y in itertools.product(range(len(group)), repeat=2):
        assert elements[group.conjugates[x, y]] == after(after(elements[x], elements[y]), backwards[x])


@pytest.mark.parametrize("name", ["S2", "S3", "S4", "S5", "A3", "A4", "A5", "D3", "D4", "D7", "D12"])
def test_conjugacy_classes_are_those_of_sympy(name: str):
    group = groups.group(name)
    elements = images(group)
    ours: dict[int, set[tuple[int, ...]]] = {}
    for element, number in zip(elements, group.conjugacy_classes.tolist(), strict=True):
        ours.setdefault(number, set()).add(element)
    theirs = {frozenset(tuple(x.array_form) for x in one) for one in in_sympy(group).conjugacy_classes()}
    assert {frozenset(one) for one in ours.values()} == theirs
    # Numbered as they are first met.
    assert list(ours) == list(range(len(theirs)))


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
def test_conjugacy_classes_have_the_sizes_in_the_books(name: str, sizes: list[int]):
    assert sorted(Counter(groups.group(name).conjugacy_classes.tolist()).values()) == sizes


@pytest.mark.parametrize("name", ["S4", "S5", "A5", "S6"])
def test_the_subgroup_of_a_few_generators_is_sympy_s(name: str):
    group, n = groups.group(name), int(name[1:])
    found = []
    for generators in np.random.default_rng(1).integers(len(group), size=(12, 2)).tolist():
        generators = generators[: 1 + generators[0] % 2]
        elements = [image(group.elements[g], n) for g in generators]
        subgroup = group.subgroup(generators)
        theirs: Any = PermutationGroup([Permutation(list(x)) for x in elements])
        assert {image(group.elements[x], n) for x in subgroup.tolist()} == {
            tuple(x.array_form) for x in theirs.elements
        }
        assert (np.diff(subgroup) > 0).all()
        found.append(len(subgroup))
    assert len(set(found)) >= 3, "these generators try too little"


def test_subgroups_of_products_and_of_nothing():
    group = groups.group("C3xC5")
    assert group.subgroup([]).tolist() == group.subgroup([group.identity]).tolist() == [0]
    assert group.subgroup(numbers(group, "0, 1")).tolist() == [0, 1, 2, 3, 4]
    assert group.subgroup(numbers(group, "1, 0")).tolist() == [0, 5, 10]
    assert group.subgroup(x for x in numbers(group, "1, 0", "0, 3")).tolist() == list(range(15))


NORMAL = {"A4 in S4": ("S4", ["(0 1 2)", "(1 2 3)"]), "V4 in S4": ("S4", ["(0 1)(2 3)", "(0 2)(1 3)"])}
NORMAL |= {"A5 in S5": ("S5", ["(0 1 2)", "(2 3 4)"]), "turns in D7": ("D7", ["r1"]), "in C12": ("C12", ["3"])}
NOT_NORMAL = {"a flip in S3": ("S3", ["(0 1)"]), "D5 in S5": ("S5", ["(0 3)(1 4)", "(1 2)(3 4)"])}
NOT_NORMAL |= {"S4 in S5": ("S5", ["(0 1)", "(0 1 2 3)"]), "a flip in D7": ("D7", ["r2s"])}


@pytest.mark.parametrize(("name", "generators"), (NORMAL | NOT_NORMAL).values(), ids=NORMAL | NOT_NORMAL)
def test_cosets_are_the_translates_of_the_subgroup_in_equal_parts(name: str, generators: list[str]):
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
def test_left_and_right_cosets_of_a_normal_subgroup_agree(name: str, generators: list[str]):
    group = groups.group(name)
    subgroup = group.subgroup(numbers(group, *generators))
    assert (group.left_cosets(subgroup) == group.right_cosets(subgroup)).all()
    (only,) = group.conjugate_subgroups(subgroup)
    assert only.tolist() == subgroup.tolist()


@pytest.mark.parametrize(("name", "generators"), NOT_NORMAL.values(), ids=NOT_NORMAL)
def test_left_and_right_cosets_of_another_subgroup_differ(name: str, generators: list[str]):
    group = groups.group(name)
    subgroup = group.subgroup(numbers(group, *generators))
    assert (group.left_cosets(subgroup) != group.right_cosets(subgroup)).any()
    assert len(group.conjugate_subgroups(subgroup)) > 1


def test_the_subgroup_of_power_s_figure_is_one_of_six_conjugates_of_ten_elements():
    """A copy of D5: S5 has six Sylow 5-subgroups, and it is a part of the normaliser of one of them."""
    group = groups.group("S5")
    subgroup = group.subgroup(numbers(group, "(0 3)(1 4)", "(1 2)(3 4)"))
    theirs: Any = PermutationGroup([Permutation([3, 4, 2, 0, 1]), Permutation([0, 2, 1, 4, 3])])
    assert len(subgroup) == theirs.order() == 10
    elements = [Permutation(list(x)) for x in images(group)]
    # sympy's h ^ x is x⁻¹·h·x with x⁻¹ applied first; over all x that is every conjugate in either convention.
    expected = {frozenset(tuple((h ^ x).array_form) for h in theirs.elements) for x in elements}
    conjugates = group.conjugate_subgroups(subgroup)
    found = [frozenset(image(group.elements[x], 5) for x in one.tolist()) for one in conjugates]
    assert len(found) == len(expected) == 6 and set(found) == expected
    assert any(one.tolist() == subgroup.tolist() for one in conjugates)


@pytest.mark.parametrize("name", ["C2", "C12", "C97", "C3xC5", "C4xC3xC5", "S2", "A3", "S2xA3"])
def test_a_cyclic_group_is_the_powers_of_its_smallest_generator(name: str):
    group = groups.group(name)
    cycle = group.cycle
    assert cycle is not None
    g, n = int(cycle[1]), len(group)
    assert sorted(cycle.tolist()) == list(range(n)) and cycle[0] == group.identity
    assert [int(group.table[x, g]) for x in cycle] == np.roll(cycle, -1).tolist()
    assert all(len(group.subgroup([h])) < n for h in range(g))


def test_a_cyclic_group_of_residues_turns_in_their_order():
    for n in (2, 3, 10, 113):
        cycle = groups.group(f"C{n}").cycle
        assert cycle is not None and cycle.tolist() == list(range(n))


@pytest.mark.parametrize("name", ["C2xC2", "C2xC4", "C6xC4", "S3", "S5", "A4", "D3", "D4", "S3xC5"])
def test_another_group_has_no_cycle(name: str):
    assert groups.group(name).cycle is None


def test_an_element_is_found_by_how_it_is_written():
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
def test_the_largest_and_smallest_groups_are_there(name: str, order: int):
    group = groups.group(name)
    assert is_group_name(name) and (group.name, len(group)) == (name, order)


@pytest.mark.parametrize(
    "name",
    ["S1", "S7", "A2", "A7", "D2", "D1002", "C1", "C0", "C2004", "S6xC3", "C2003xC2", "s5", "S05", "S", "5", "E8"]
    + ["", "x", "S5x", "xS5", "S5xx", "S5 ", " S5", "S5\n", "S5xC2\n", "S5×C2", "C٣", "C-5", "C99999", "S5*C2"],
)
def test_what_is_no_group_is_refused_with_what_is_allowed(name: str):
    assert not is_group_name(name)
    with pytest.raises(GrokscopeError, match=re.escape(f"{name!r} is not a group; allowed: S2 to S6, A3 to A6")):
        groups.group(name)


@given(st.one_of(st.text(), st.text("SADCx123", max_size=5)))
def test_any_text_is_a_group_or_is_refused(text: str):
    if is_group_name(text):
        assert len(groups.group(text)) <= groups.LARGEST_ORDER
    else:
        with pytest.raises(GrokscopeError):
            groups.group(text)


answers = st.integers(2, 6).flatmap(
    lambda n: st.lists(st.lists(st.none() | st.integers(0, n - 1), min_size=n, max_size=n), min_size=n, max_size=n)
)


@given(answers)
def test_a_tabulated_operation_is_read_back(rows: list[list[int | None]]):
    text = tabulate(lambda a, b: rows[a][b], len(rows))
    assert table_faults(text) == []
    assert read_table(text).tolist() == [[-1 if c is None else c for c in row] for row in rows]


def test_a_table_is_written_as_a_person_would_write_it():
    assert tabulate(lambda a, b: a ^ b, 4) == "0 1 2 3; 1 0 3 2; 2 3 0 1; 3 2 1 0"
    assert tabulate(lambda a, b: (a * pow(b, -1, 3)) % 3 if b else None, 3) == ". 0 0; . 1 2; . 2 1"
    assert tabulate(lambda a, b: a < b, 2) == "0 1; 0 0"
    assert tabulate(lambda a, b: np.int64(a), 2) == "0 0; 1 1"  # pyright: ignore[reportArgumentType]


def test_an_answer_that_is_no_whole_number_is_not_cut_down_to_one():
    """A forgotten second slash in a / b would otherwise train on another operation without a word."""
    with pytest.raises((GrokscopeError, TypeError)):
        tabulate(lambda a, b: a / (b + 1), 3)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "text",
    [
        "0 1 2; 1 . 0; 2 0 1",
        "0,1,2;1,.,0;2,0,1",
        "0, 1, 2\n1, ., 0\n2, 0, 1\n",
        "0 1 2\r\n1 . 0\r\n2 0 1\r\n",
        "\n\n 0\t1  2 ;; 1 .,0 \n; 2 00 0001\n;\n",
    ],
)
def test_separators_are_spaces_commas_semicolons_and_line_ends(text: str):
    assert table_faults(text) == []
    assert read_table(text).tolist() == [[0, 1, 2], [1, -1, 0], [2, 0, 1]]


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("", [r"^0 rows; allowed: rows of numbers"]),
        ("0", [r"^1 rows; allowed: .*\(n from 2 to 2,003\)"]),
        (" ;\n;", [r"^0 rows"]),
        ("0 1; 1", [r"^row 1 has 1 entries; allowed: 2"]),
        ("0 1 1; 1 0", [r"^row 0 has 3 entries; allowed: 2"]),
        ("0 1; 1 2", [r"^row 1 has '2'; allowed: 0 to 1, or '\.'$"]),
        ("0 -1; 1 x", [r"^row 0 has '-1'; allowed: 0 to 1", r"^row 1 has 'x'; allowed: 0 to 1"]),
        ("0 1.0; ١ 0", [r"^row 0 has '1\.0'", r"^row 1 has '١'"]),
        ("0 .. ; 1 1e0", [r"^row 0 has '\.\.'", r"^row 1 has '1e0'"]),
        ("0 1; 0 " + "9" * 5000, [r"^row 1 has '9{20}'; allowed: 0 to 1"]),
        (
            "0; 1 7; 2 2 9 9",
            [r"^row 0 has 1 ", r"^row 1 has 2 ", r"^row 2 has 4 ", "^row 1 has '7'"] + ["^row 2.*9"] * 2,
        ),
        ("5 5; 5 5", [r"^row 0 has '5'", r"^row 0 has '5'", r"^row 1 has '5'", r"^and 1 more fault"]),
    ],
)
def test_faults_of_a_table_name_row_and_entry(text: str, faults: list[str]):
    found = table_faults(text)
    assert len(found) == len(faults)
    for one, said in zip(found, faults, strict=True):
        assert re.search(said, one), one
    with pytest.raises(GrokscopeError) as refused:
        read_table(text)
    assert all(one in str(refused.value) for one in found) and "\n" not in str(refused.value)


def test_a_table_of_too_many_elements_is_refused_and_a_table_of_the_most_is_not():
    row = "0 " * 30
    assert table_faults(f"{row};" * 2004)[0].startswith("2004 rows; allowed: ")
    # 2,003 rows are not too many: only their lengths are wrong.
    first, second, third, rest = table_faults(f"{row};" * 2003)
    assert first == "row 0 has 30 entries; allowed: 2003, one for each row" and rest == "and 2000 more faults"


ENTRIES = st.sampled_from(["0 1", "1, 0", ".\t1", "0 2", "1"])


@pytest.mark.parametrize(
    ("texts", "n_tables"),
    [(st.text(), 0), (st.text("01.,; \n-", max_size=9), 0), (st.lists(ENTRIES, max_size=3).map(";".join), 5)],
    ids=["anything", "signs", "rows"],
)
def test_any_text_is_a_table_or_is_refused(texts: st.SearchStrategy[str], n_tables: int):
    outcomes: Counter[bool] = Counter()

    @given(texts)
    def judge(text: str):
        found = table_faults(text)
        outcomes[bool(found)] += 1
        if found:
            with pytest.raises(GrokscopeError, match="not a table"):
                read_table(text)
        else:
            table = read_table(text)
            assert table.shape == (len(table), len(table)) and len(table) >= 2
            assert table.min() >= -1 and table.max() < len(table)

    judge()
    assert outcomes[True] > 20 and outcomes[False] >= n_tables, "the texts try one outcome only"
