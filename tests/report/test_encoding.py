"""The encoding of arrays on a page: exact, or quantised within half a level."""

import numpy as np
from support.pages import unpack

from grokscope.report import encoding

VALUES = np.random.default_rng(0).normal(size=(5, 3))


def test_packed_numbers_are_float32_and_integers_exact():
    assert np.array_equal(unpack(encoding.pack(VALUES)), VALUES.astype(np.float32))
    integers = np.array([[0, -7], [2**31 - 1, 5]])
    assert np.array_equal(unpack(encoding.pack(integers)), integers)


def test_quantised_numbers_are_within_half_a_level():
    for n_bits in (8, 16):
        packed = encoding.quantise(VALUES, n_bits)
        assert packed["type"] == f"u{n_bits // 8}"
        assert np.abs(unpack(packed) - VALUES).max() <= packed["scale"] * 0.5001
    assert unpack(encoding.quantise(np.full(4, 2.5))).tolist() == [2.5] * 4


def test_numbers_that_are_not_finite_are_not_quantised():
    numbers = np.array([1.0, np.nan, np.inf])
    np.testing.assert_array_equal(unpack(encoding.quantise(numbers)), numbers)
