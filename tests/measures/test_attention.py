"""The measure `attention` against HookedTransformer's cache and a network with known attention."""

import numpy as np
import pytest
import torch

from grokscope import measures
from grokscope.errors import GrokscopeError


@pytest.mark.parametrize("model", [{}, {"n_layers": 2, "normalization_type": "LN"}])
def test_patterns_over_all_equations_equal_transformerlens(model, plant):
    generator = torch.Generator().manual_seed(0)
    trajectory = plant({0: {"embed.W_E": torch.randn(12, 16, generator=generator) * 2}}, **model)
    series = measures.evaluate("attention", trajectory, n_partners=11)
    assert series["n_equations"] == 121 and not series["attention_stderr"].any()
    snapshot, task = trajectory.first, trajectory.task
    _, cache = snapshot.model.run_with_cache(task.inputs)
    for layer in range(trajectory.config.model.n_layers):
        patterns = cache[f"blocks.{layer}.attn.hook_pattern"][:, :, -1].double()
        np.testing.assert_allclose(series["attention"][0, layer], patterns.mean(0), atol=1e-6)
        for a in range(11):
            by_first = patterns[task.operands[:, 0] == a].mean(0)
            np.testing.assert_allclose(series["attention_by_first"][0, layer, :, a], by_first, atol=1e-6)


def test_attention_without_queries_is_uniform(plant):
    trajectory = plant({0: {"blocks.0.attn.W_Q": torch.zeros(2, 16, 8)}})
    series = measures.evaluate("attention", trajectory)
    np.testing.assert_allclose(series["attention"], 1 / 3, atol=1e-7)
    np.testing.assert_allclose(series["attention_stderr"], 0, atol=1e-7)


def test_stderr_of_a_sample_covers_the_mean_of_all_equations(plant):
    generator = torch.Generator().manual_seed(1)
    trajectory = plant({0: {"embed.W_E": torch.randn(12, 16, generator=generator) * 2}})
    whole = measures.evaluate("attention", trajectory, n_partners=11)["attention"]
    for seed in range(3):
        sample = measures.evaluate("attention", trajectory, n_partners=4, seed=seed)
        assert sample["n_equations"] == 44
        assert (np.abs(sample["attention"] - whole) < 6 * sample["attention_stderr"] + 1e-6).all()
        assert sample["attention_stderr"].max() > 1e-4


def test_zero_partners_are_rejected(plant):
    with pytest.raises(GrokscopeError, match="n_partners: 0"):
        measures.evaluate("attention", plant({0: {}}), n_partners=0)
