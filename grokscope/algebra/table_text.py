"""Tables of binary operations as text. A config checks them without importing NumPy."""

import re
from collections.abc import Callable

from grokscope.algebra.group_names import LARGEST_ORDER
from grokscope.errors import GrokscopeError

TABLE_ALLOWED = (
    f"rows of numbers, separated by ';' or line ends: n rows of n entries (n from 2 to {LARGEST_ORDER:,}), "
    f"each entry a number from 0 to n - 1, or '.' for no equation"
)


def n_equations(text: str) -> int:
    """Return the number of entries of a valid table that are not "."."""
    return sum(entry != "." for row in table_rows(text) for entry in row)


def table_faults(text: str) -> list[str]:
    """Return the faults that make a text invalid as a table, one clause each, at most three of each kind."""
    rows = table_rows(text)
    n = len(rows)
    if not 2 <= n <= LARGEST_ORDER:
        return [f"{n} rows; allowed: {TABLE_ALLOWED}"]
    lengths = [
        f"row {i} has {len(row)} entries; allowed: {n}, one for each row"
        for i, row in enumerate(rows)
        if len(row) != n
    ]
    entries = [
        f"row {i} has {entry[:20]!r}; allowed: 0 to {n - 1}, or '.'"
        for i, row in enumerate(rows)
        for entry in row
        if entry != "." and not (re.fullmatch("[0-9]{1,4}", entry) and int(entry) < n)
    ]
    first_faults = [*lengths[:3], *entries[:3]]
    n_more = len(lengths) + len(entries) - len(first_faults)
    return first_faults + ([f"and {n_more} more faults"] if n_more else [])


def tabulate(operation: Callable[[int, int], int | None], n: int) -> str:
    """Return the table of a binary operation as text for the task "table".

    Any operation becomes a task: ``TaskConfig(name="table", table=tabulate(lambda a, b: a ^ b, 32))``.

    Args:
        operation: The answer to two operands, each from 0 to n − 1, or None for no equation. The task allows answers
            from 0 to n − 1.
        n: The number of elements, from 2 to 2,003.

    Raises:
        GrokscopeError: An answer is not a whole number. It is not rounded: a mistyped `/` would go unnoticed.
    """
    answers = [[operation(a, b) for b in range(n)] for a in range(n)]
    for a, row in enumerate(answers):
        for b, answer in enumerate(row):
            if answer is not None and not hasattr(answer, "__index__"):
                raise GrokscopeError(
                    f"The operation gives {answer!r} for ({a}, {b}); allowed: a whole number, or None."
                )
    return "; ".join(" ".join("." if answer is None else str(int(answer)) for answer in row) for row in answers)


def table_rows(text: str) -> list[list[str]]:
    """Return the entries of each row, without empty rows."""
    # A spreadsheet may write a byte-order mark before the first row and a comma after each row.
    rows = [re.split(r"[\s,]+", row.strip("\ufeff, \t\r")) for row in re.split(r"[;\n]", text)]
    return [row for row in rows if row != [""]]
