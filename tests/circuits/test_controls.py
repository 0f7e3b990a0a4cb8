"""Random orders, their statistics, and the names of the controls."""

import numpy as np
import pytest
import torch

from grokscope.circuits import controls
from grokscope.errors import GrokscopeError


def test_random_orders_are_permutations_of_one_stream():
    generator = torch.Generator().manual_seed(7)
    expected = torch.stack([torch.randperm(11, generator=generator) for _ in range(3)])
    assert torch.equal(controls.random_orders(11, 3, 7), expected)
    assert not torch.equal(controls.random_orders(11, 3, 8), expected)
    following = torch.randperm(11, generator=generator)
    generator = torch.Generator().manual_seed(7)
    assert torch.equal(controls.random_orders(11, 3, generator), expected)
    assert torch.equal(torch.randperm(11, generator=generator), following)


@pytest.mark.parametrize("n_shuffles", [1, 0, -1])
def test_fewer_than_two_orders_are_refused(n_shuffles):
    with pytest.raises(GrokscopeError, match=rf"^n_shuffles: {n_shuffles}\. Allowed: from 2"):
        controls.random_orders(5, n_shuffles, 0)


def test_shuffled_control_is_mean_and_standard_error():
    values = torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    control = controls.shuffled_control([{"gini": sample, "share": sample[0, 0]} for sample in values])
    assert list(control) == ["gini_shuffled", "gini_shuffled_stderr", "share_shuffled", "share_shuffled_stderr"]
    np.testing.assert_allclose(control["gini_shuffled"], values.numpy().mean(0))
    np.testing.assert_allclose(control["gini_shuffled_stderr"], values.numpy().std(0, ddof=1) / 2)
    assert control["share_shuffled"].shape == ()


def test_shuffled_control_without_samples_is_empty():
    assert controls.shuffled_control([]) == {}


def test_untrained_control_omits_shuffled_controls():
    gini = torch.ones(())
    quantities = {"gini": gini, "gini_shuffled": 2 * gini, "gini_shuffled_stderr": 3 * gini}
    assert controls.untrained_control(quantities) == {"gini_initialization": gini}
