"""Tables of binary operations: reading and writing them as text."""

import re
from collections.abc import Callable

import numpy as np
from jaxtyping import Int

from grokscope.algebra.groups import LARGEST_ORDER
from grokscope.errors import GrokscopeError

TABLE_ALLOWED = (
    f"rows of numbers, separated by ';' or line ends, as many in a row as there are rows (2 to {LARGEST_ORDER:,}), "
    f"each from 0 to below that, or '.' for no equation"
)


def read_table(text: str) -> Int[np.ndarray, "n n"]:
    """Return the table that a text writes, −1 where there is no equation; raise GrokscopeError naming its faults."""
    found = table_faults(text)
    if found:
        raise GrokscopeError(f"This is no table of a binary operation: {'; '.join(found)}.")
    return np.array([[-1 if entry == "." else int(entry) for entry in row] for row in _rows(text)])


def table_faults(text: str) -> list[str]:
    """Say what keeps a text from being a table, one clause each, the first few of each kind."""
    rows = _rows(text)
    n = len(rows)
    if not 2 <= n <= LARGEST_ORDER:
        return [f"{n} rows; allowed: {TABLE_ALLOWED}"]
    found = [
        f"row {i} has {len(row)} entries; allowed: {n}, one for each row"
        for i, row in enumerate(rows)
        if len(row) != n
    ]
    wrong = [
        f"row {i} has {entry[:20]!r}; allowed: 0 to {n - 1}, or '.'"
        for i, row in enumerate(rows)
        for entry in row
        if entry != "." and not (re.fullmatch("[0-9]{1,4}", entry) and int(entry) < n)
    ]
    few = [*found[:3], *wrong[:3]]
    n_more = len(found) + len(wrong) - len(few)
    return few + ([f"and {n_more} faults more"] if n_more else [])


def tabulate(operation: Callable[[int, int], int | None], n: int) -> str:
    """Return the table of `operation` over 0 … n − 1 as the task "table" takes it; None stands for no equation.

    So a binary operation is a task in one line: ``TaskConfig(name="table", table=tabulate(lambda a, b: a ^ b, 32))``.
    """
    answers = [[operation(a, b) for b in range(n)] for a in range(n)]
    wrong = [(a, b) for a in range(n) for b in range(n) if not _is_answer(answers[a][b])]
    if wrong:
        a, b = wrong[0]
        raise GrokscopeError(
            f"The operation gives {answers[a][b]!r} for ({a}, {b}); allowed: a whole number, or None."
        )
    return "; ".join(" ".join("." if answer is None else str(int(answer)) for answer in row) for row in answers)


def _is_answer(value: object) -> bool:
    return value is None or hasattr(value, "__index__")


def _rows(text: str) -> list[list[str]]:
    # A spreadsheet may begin a file with a byte-order mark and end a row with a comma.
    rows = [re.split(r"[\s,]+", row.strip("\ufeff, \t\r")) for row in re.split(r"[;\n]", text)]
    return [row for row in rows if row != [""]]
