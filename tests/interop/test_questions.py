"""What import asks about settings that the files do not name."""

from collections.abc import Mapping
from typing import Any

import pytest

from grokscope.errors import GrokscopeError
from grokscope.interop.questions import Trial, settle

CANDIDATES = {"act_fn": ("relu", "gelu", "quadratic")}


def question(accuracies: Mapping[str, float]) -> str:
    """Return what is asked if each activation gives this accuracy, and quadratic the lowest loss."""
    losses = {"relu": 1e-6, "gelu": 2e-6, "quadratic": 0.0}

    def evaluate(values: Mapping[str, Any]) -> Trial:
        return Trial(accuracies[values["act_fn"]], losses[values["act_fn"]])

    with pytest.raises(GrokscopeError) as error:
        settle(CANDIDATES, None, evaluate)
    return str(error.value)


def test_activations_that_all_fit_are_listed_without_a_best():
    message = question({"relu": 1.0, "gelu": 0.98, "quadratic": 1.0})
    assert "cannot tell which" in message and "fits best" not in message
    assert all(name in message for name in CANDIDATES["act_fn"])


def test_only_activation_that_fits_is_named():
    message = question({"relu": 1.0, "gelu": 0.3, "quadratic": 0.1})
    assert "--model.act-fn relu fits best" in message and "cannot tell" not in message
