"""Arithmetic expressions in the operands a, b, c, …, such as "a*b + c", and the operands' sizes. No torch here."""

import ast
from collections.abc import Sequence
from typing import Any

LETTERS = "abcdef"
"""The names of the operands, so an expression has at most six."""
_LARGEST_EXPONENT, _LARGEST_NUMBER, _LONGEST, LARGEST_SIZE = 100, 10**6, 500, 2003
ALLOWED = (
    "an expression in the operands a, b, … f without gaps, with whole numbers, +, -, *, parentheses, and ** or ^ "
    f"with an exponent up to {_LARGEST_EXPONENT}, such as 'a*b + c'"
)
SIZES_ALLOWED = f"a number from 2 to {LARGEST_SIZE} for each operand, such as '7 11 13', or nothing"
_OPERATORS: dict[type, str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Pow: "**"}


def expression_faults(text: str) -> list[str]:
    """Return the faults that make a text invalid as an expression, one clause each."""
    try:
        letters = _letters(_parsed(text))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return [f"{text[:60]!r}; allowed: {ALLOWED}"]
    if not letters or letters != set(LETTERS[: len(letters)]):
        return [f"{text[:60]!r} has the operands {', '.join(sorted(letters)) or 'none'}; allowed: {ALLOWED}"]
    return []


def n_operands(text: str) -> int:
    """Return the number of operands of a valid expression."""
    return len(_letters(_parsed(text)))


def evaluate(text: str, operands: Sequence[Any], modulus: int) -> Any:
    """Return the value of a valid expression modulo a number, for arrays or numbers as operands.

    Every intermediate result is reduced, so int64 arrays cannot overflow.

    Args:
        text: The expression.
        operands: The values of a, b, c, ….
        modulus: The modulus.
    """

    def value(node: ast.AST) -> Any:
        if isinstance(node, ast.BinOp):
            left = value(node.left)
            if isinstance(node.op, ast.Pow):
                power = left * 0 + 1
                for _ in range(node.right.value):  # pyright: ignore[reportAttributeAccessIssue]
                    power = power * left % modulus
                return power
            right = value(node.right)
            if isinstance(node.op, ast.Mult):
                return left * right % modulus
            return (left + right if isinstance(node.op, ast.Add) else left - right) % modulus
        if isinstance(node, ast.UnaryOp):
            return -value(node.operand) % modulus
        if isinstance(node, ast.Name):
            return operands[LETTERS.index(node.id)] % modulus
        assert isinstance(node, ast.Constant) and isinstance(node.value, int)
        return node.value % modulus

    return value(_parsed(text))


def sizes_faults(text: str, n: int) -> list[str]:
    """Return the faults of a text with the sizes of n operands; the empty text is valid."""
    entries = text.replace(",", " ").split()
    is_valid = all(entry.isascii() and entry.isdecimal() and len(entry) < 6 for entry in entries)
    if is_valid and len(entries) in (0, n) and all(2 <= int(entry) <= LARGEST_SIZE for entry in entries):
        return []
    return [f"{text[:60]!r} for {n} operands; allowed: {SIZES_ALLOWED}"]


def sizes(text: str) -> list[int]:
    """Return the sizes in a valid text."""
    return [int(entry) for entry in text.replace(",", " ").split()]


def _parsed(text: str) -> ast.AST:
    """Return the syntax tree of an expression; raise ValueError or SyntaxError for an invalid one."""
    if len(text) > _LONGEST or "\n" in text:
        raise ValueError("too long")
    tree = ast.parse(text.strip().replace("^", "**"), mode="eval").body
    _check(tree)
    return tree


def _check(node: ast.AST) -> None:
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        _check(node.left)
        _check(node.right)
        exponent = getattr(node.right, "value", None)
        if isinstance(node.op, ast.Pow) and not (type(exponent) is int and 0 <= exponent <= _LARGEST_EXPONENT):
            raise ValueError("exponent")
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        _check(node.operand)
    elif isinstance(node, ast.Constant) and type(node.value) is int and node.value <= _LARGEST_NUMBER:
        pass
    elif not (isinstance(node, ast.Name) and node.id in LETTERS):
        raise ValueError("not arithmetic")


def _letters(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
