"""Read tables of binary operations as arrays."""

import numpy as np
from jaxtyping import Int

from grokscope.algebra.table_text import TABLE_ALLOWED as TABLE_ALLOWED
from grokscope.algebra.table_text import table_faults, table_rows
from grokscope.algebra.table_text import tabulate as tabulate
from grokscope.errors import GrokscopeError


def read_table(text: str) -> Int[np.ndarray, "n n"]:
    """Return the table in a text; raise one GrokscopeError that names its faults.

    Args:
        text: Rows separated by ";" or line ends; entries separated by spaces, tabs or commas.

    Returns:
        The answer to each pair of operands, from 0 to n − 1, or −1 without an equation.
    """
    faults = table_faults(text)
    if faults:
        raise GrokscopeError(f"The text is not a table of a binary operation: {'; '.join(faults)}.")
    return np.array([[-1 if entry == "." else int(entry) for entry in row] for row in table_rows(text)])
