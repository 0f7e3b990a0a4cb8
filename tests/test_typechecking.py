"""The tests check the shapes of arrays at run time, of a function that is called often only now and then."""

from contextlib import suppress

import numpy as np
import pytest
from jaxtyping import Float, TypeCheckError, jaxtyped
from typechecking import CHECK_EVERY, N_CHECKED, sparing, typechecked

from grokscope.fourier import cyclic


def test_functions_of_the_package_are_checked():
    with pytest.raises(TypeCheckError):
        # Other tests have called it before, so perhaps only one of the next calls is checked.
        for _ in range(CHECK_EVERY):
            with suppress(AttributeError):
                cyclic.gini(np.ones(3))  # pyright: ignore[reportArgumentType]


def test_wrong_shape_is_refused_at_first_and_then_at_intervals():
    @sparing
    @jaxtyped(typechecker=typechecked)
    def dot(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> float:
        return float((a[:1] * b[:1]).sum())

    refused = []
    for call in range(N_CHECKED + 2 * CHECK_EVERY):
        try:
            dot(np.ones(3), np.ones(2))
        except TypeCheckError:
            refused.append(call)
    assert refused == [*range(N_CHECKED), N_CHECKED, N_CHECKED + CHECK_EVERY]
