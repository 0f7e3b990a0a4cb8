"""Tables of binary operations: round trips, separators, and the faults of invalid text."""

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grokscope.algebra.tables import read_table, table_faults, tabulate
from grokscope.errors import GrokscopeError

ANSWERS = st.integers(2, 6).flatmap(
    lambda n: st.lists(st.lists(st.none() | st.integers(0, n - 1), min_size=n, max_size=n), min_size=n, max_size=n)
)


@given(ANSWERS)
def test_tabulated_operation_is_read_back(rows: list[list[int | None]]):
    text = tabulate(lambda a, b: rows[a][b], len(rows))
    assert table_faults(text) == []
    assert read_table(text).tolist() == [[-1 if c is None else c for c in row] for row in rows]


def test_tabulate_writes_readable_rows():
    assert tabulate(lambda a, b: a ^ b, 4) == "0 1 2 3; 1 0 3 2; 2 3 0 1; 3 2 1 0"
    assert tabulate(lambda a, b: (a * pow(b, -1, 3)) % 3 if b else None, 3) == ". 0 0; . 1 2; . 2 1"
    assert tabulate(lambda a, b: a < b, 2) == "0 1; 0 0"
    assert tabulate(lambda a, b: np.int64(a), 2) == "0 0; 1 1"  # pyright: ignore[reportArgumentType]


def test_fractional_answer_is_an_error():
    """Otherwise a / b, mistyped for a // b, would silently train on a different operation."""
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
    ("text", "patterns"),
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
def test_table_faults_name_row_and_entry(text: str, patterns: list[str]):
    faults = table_faults(text)
    assert len(faults) == len(patterns)
    for fault, pattern in zip(faults, patterns, strict=True):
        assert re.search(pattern, fault), fault
    with pytest.raises(GrokscopeError) as refusal:
        read_table(text)
    assert all(fault in str(refusal.value) for fault in faults) and "\n" not in str(refusal.value)


def test_table_of_more_than_2003_rows_is_an_error():
    row = "0 " * 30
    assert table_faults(f"{row};" * 2004)[0].startswith("2004 rows; allowed: ")
    # 2,003 rows are allowed; only their lengths are wrong.
    first, second, third, rest = table_faults(f"{row};" * 2003)
    assert first == "row 0 has 30 entries; allowed: 2003, one for each row" and rest == "and 2000 more faults"


ENTRIES = st.sampled_from(["0 1", "1, 0", ".\t1", "0 2", "1"])


@pytest.mark.parametrize(
    ("texts", "n_tables"),
    [(st.text(), 0), (st.text("01.,; \n-", max_size=9), 0), (st.lists(ENTRIES, max_size=3).map(";".join), 5)],
    ids=["any text", "table characters", "rows"],
)
def test_random_text_is_a_table_or_an_error(texts: st.SearchStrategy[str], n_tables: int):
    outcomes: Counter[bool] = Counter()

    @given(texts)
    def check(text: str):
        faults = table_faults(text)
        outcomes[bool(faults)] += 1
        if faults:
            with pytest.raises(GrokscopeError, match="not a table"):
                read_table(text)
        else:
            table = read_table(text)
            assert table.shape == (len(table), len(table)) and len(table) >= 2
            assert table.min() >= -1 and table.max() < len(table)

    check()
    assert outcomes[True] > 20 and outcomes[False] >= n_tables, "the texts must cover both outcomes"
