"""Expressions, against Python's own arithmetic."""

import itertools

import numpy as np
import pytest

from grokscope.config import expressions


@pytest.mark.parametrize("text", ["a*b + c", "a + b + c", "-a**3 + 2*(b - c)*a", "a^2 + b", "7 - a", "a*a*a*a*a*a"])
@pytest.mark.parametrize("modulus", [2, 10, 2003])
def test_value_agrees_with_python(text: str, modulus: int):
    assert expressions.expression_faults(text) == []
    n = expressions.n_operands(text)
    values = np.array(list(itertools.product([0, 1, 3, 1999], repeat=n)), np.int64).T
    expected = [
        eval(text.replace("^", "**"), {}, dict(zip("abc", map(int, row), strict=False))) % modulus for row in values.T
    ]
    assert np.broadcast_to(expressions.evaluate(text, list(values), modulus), len(expected)).tolist() == expected


@pytest.mark.parametrize(
    "text",
    ["", "a +", "a + c", "3", "a / b", "a // b", "x + y", "a**b", "a**101", "f(a)", "a.b", "a if b else a", "a\n+ b"]
    + ["__import__('os')", "a + 1.5", "a + True", "(" * 400 + "a", "a" * 501, "a, b", "[a]", "a ** (1+1)"],
)
def test_other_text_is_refused(text: str):
    (fault,) = expressions.expression_faults(text)
    assert "allowed: an expression in the operands" in fault


def test_sizes_are_one_number_per_operand():
    assert not any(expressions.sizes_faults(text, 2) for text in ("", "3 4", "3,4"))
    assert all(expressions.sizes_faults(text, 2) for text in ("3", "3 4 5", "1 4", "3 x", "3 2004"))
