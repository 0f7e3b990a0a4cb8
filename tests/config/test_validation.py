"""The walks over a config tree: faults of any value, and plain values put into a base."""

import math
from typing import Any

import numpy as np
import pytest
from support.configs import FIELDS, construct, nested

from grokscope.config import RunConfig, from_dict
from grokscope.errors import GrokscopeError

WRONG_TYPES = {
    "none": None,
    "a text": "x",
    "empty text": "",
    "bytes": b"x",
    "true": True,
    "a fraction": 0.5,
    "negative": -1,
    "NaN": math.nan,
    "infinity": math.inf,
    "too large for a float": 10**400,
    "a list": [],
    "a table": {"x": 1},
    "a set": {1},
    "complex": 1j,
    "an object": object(),
    "a type": int,
    "an array": np.arange(3.0),
    "a NumPy integer": np.int64(3),
}


@pytest.mark.parametrize("value", WRONG_TYPES.values(), ids=WRONG_TYPES)
def test_construction_and_faults_never_raise(value: Any):
    errors = {}
    for name in [*FIELDS, "task", "model", "optimizer"]:
        try:
            faults = construct({name: value}).faults()
            assert all(isinstance(fault, str) for fault in faults)
        except Exception as error:
            errors[name] = repr(error)
    assert not errors


def test_text_none_means_none_where_none_is_allowed():
    base = construct({"batch_size": 5, "model.normalization_type": "LN"})
    changed = from_dict({"batch_size": "none", "model": {"normalization_type": "none", "biases": "none"}}, base)
    assert changed.batch_size is None and changed.model.normalization_type is None
    assert changed.model.biases == "none"
    filtered = construct({"optimizer.gradient_filter": "orthogonal"})
    assert from_dict({"optimizer": {"gradient_filter": "none"}}, filtered) == RunConfig()
    for name in ("checkpoints", "device", "task.name", "task.group", "optimizer.decay_centre"):
        with pytest.raises(GrokscopeError, match=f"{name}: .*'none'"):
            from_dict(nested({name: "none"}))


def test_values_change_only_the_named_settings():
    base = construct({"model.d_mlp": 99, "n_steps": 7})
    assert from_dict({"model": {"n_layers": 3}}, base) == construct(
        {"model.d_mlp": 99, "n_steps": 7, "model.n_layers": 3}
    )
