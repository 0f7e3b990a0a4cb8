"""The names of the groups and their orders. A config checks them without importing NumPy."""

import math
import re

LARGEST_ORDER = 2003
ALLOWED_NAMES = (
    "S2 to S6, A3 to A6, D3 to D1001 (of 2n elements), C2 to C2003, or a product of them such as 'C3xC5', "
    f"with at most {LARGEST_ORDER:,} elements"
)


def is_group_name(name: str) -> bool:
    """Return whether `name` denotes an allowed group (`ALLOWED_NAMES`)."""
    factors = [_order(factor) for factor in name.split("x")]
    return all(factors) and math.prod(factors) <= LARGEST_ORDER


def group_order(name: str) -> int:
    """Return the number of elements of the group with this name, or 0 for an unknown name."""
    return math.prod(_order(factor) for factor in name.split("x"))


def _order(factor: str) -> int:
    """Return the order of S_n, A_n, D_n or C_n, or 0 for any other name and for a group that is too large."""
    match = re.fullmatch(r"([SADC])([1-9][0-9]{0,3})", factor)
    if not match:
        return 0
    kind, n = match[1], int(match[2])
    smallest = {"S": 2, "A": 3, "D": 3, "C": 2}[kind]
    if n < smallest or (kind in "SA" and n > 6):
        return 0
    if kind == "S":
        return math.factorial(n)
    if kind == "A":
        return math.factorial(n) // 2
    return 2 * n if kind == "D" else n
