"""The measure `fourier` on planted weights: spectra of W_E, W_U and W_L, and the rules of key frequencies."""

import math

import numpy as np
import pytest
import torch
from support.circuits import cosines, lookup, reader, sizes

from grokscope import measures
from grokscope.config import TaskConfig
from grokscope.errors import GrokscopeError

P = 11


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    """Return standard normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def waves(ks: list[int], n: int = P) -> torch.Tensor:
    """Return cosine and sine of each frequency as columns."""
    angle = 2 * math.pi * torch.arange(n, dtype=torch.float64)[:, None] * torch.tensor(ks) / n
    return torch.stack([angle.cos(), angle.sin()], -1).flatten(1)


def gini(values: np.ndarray) -> float:
    """Return the mean absolute difference of two values over twice their mean."""
    return float(np.abs(values[:, None] - values).mean() / (2 * values.mean()))


def dense_components(values: np.ndarray) -> np.ndarray:
    """Return the norm of each Fourier component over the columns, by explicit waves."""
    n = len(values)
    rows = []
    for k in range(1, n // 2 + 1):
        for row in (np.cos(2 * np.pi * k * np.arange(n) / n), np.sin(2 * np.pi * k * np.arange(n) / n)):
            if (size := np.linalg.norm(row)) > 1e-9:
                rows.append(np.linalg.norm(row / size @ values))
    return np.array(rows)


@pytest.mark.parametrize("name", ["addition", "division"])
def test_spectra_equal_explicit_sums(plant, name):
    start = plant({0: {}}, name=name)
    parameters = {name: noise(*shape, seed=i) for i, (name, shape) in enumerate(start.model.shapes.items())}
    trajectory = plant({0: {}, 3: parameters}, name=name)
    series = measures.evaluate("fourier", trajectory)
    tokens = trajectory.task.circle
    W_L = parameters["blocks.0.mlp.W_out"] @ parameters["unembed.W_U"]
    maps = {"W_E": parameters["embed.W_E"][tokens], "W_U": parameters["unembed.W_U"].T[tokens], "W_L": W_L.T[tokens]}
    for W, values in maps.items():
        components = dense_components(values.numpy())
        assert series[f"{W}_gini"][1] == pytest.approx(gini(components), rel=1e-9)
        pairs = np.pad(components**2, (0, len(components) % 2)).reshape(-1, 2).sum(1)
        np.testing.assert_allclose(series[f"{W}_norms"][1], np.sqrt(pairs), rtol=1e-9)
        error = series[f"{W}_gini_shuffled_stderr"][1]
        assert abs(series[f"{W}_gini_shuffled"][1] - series[f"{W}_gini"][1]) < 5 * math.sqrt(16) * error
    centred = maps["W_L"] - maps["W_L"].mean(0)
    expected = torch.linalg.svdvals(centred)[: len(tokens) - 1]
    np.testing.assert_allclose(series["W_L_singular_values"][1], expected, rtol=1e-7)
    rest = 1 - (expected**2).cumsum(0) / (expected**2).sum()
    assert series["W_L_rank"][1] == int((rest > 0.01).sum()) + 1


def test_shuffled_gini_is_that_of_reordered_tokens(plant):
    """The measure uses inner products; the oracle reorders the tokens."""
    W_E = noise(P + 1, 16)
    trajectory = plant({0: {"embed.W_E": W_E}})
    series = measures.evaluate("fourier", trajectory, n_shuffles=3, seed=5)
    generator = torch.Generator().manual_seed(5)
    drawn = [gini(dense_components(W_E[torch.randperm(P, generator=generator)].numpy())) for _ in range(3)]
    assert series["W_E_gini_shuffled"][0] == pytest.approx(np.mean(drawn), rel=1e-9)
    assert series["W_E_gini_shuffled_stderr"][0] == pytest.approx(np.std(drawn, ddof=1) / 3**0.5, rel=1e-7)


def test_planted_cosines_give_two_directions_per_frequency(plant):
    table = cosines(TaskConfig(p=P), {2: 3.0, 5: 1.5})
    series = measures.evaluate("fourier", plant({0: {}, 9: lookup(table)}, p=P, **sizes(P, P * P)))
    norms = series["W_L_norms"][1]
    np.testing.assert_allclose(norms / norms[1], [0, 1, 0, 0, 0.5], atol=1e-12)
    assert series["W_L_rank"].tolist()[1] == 4 < series["W_L_rank"][0]
    np.testing.assert_allclose(series["W_L_singular_values"][1, 4:], 0, atol=1e-6)
    # Four of the ten components are not zero; their sizes are 2, 2, 1, 1.
    assert series["W_L_gini"][1] == pytest.approx(gini(np.array([2, 2, 1, 1, 0, 0, 0, 0, 0, 0])))
    assert series["W_L_gini_shuffled"][1] < series["W_L_gini"][1]
    assert series["W_L_gini_initialization"] == series["W_L_gini"][0]


def test_key_frequencies_are_named_by_a_rule_and_by_removal(plant):
    """The neurons and W_L contain frequencies 3 and 4, but the logits have waves of frequency 4 only."""
    read, out = waves([3, 4]), waves([3, 4])
    # The neurons of frequency 3 are linear in a and b, so they do not make a wave of a + b. Those of 4 are rectified.
    bias = torch.tensor([9.0, 9.0, 0.0, 0.0], dtype=torch.float64)
    parameters = reader(P, read, read, bias, torch.cat([out[:, :2], 3 * out[:, 2:]], 1).T)
    series = measures.evaluate("fourier", plant({0: parameters}, p=P, **sizes(P, 4)))
    assert series["key_frequencies_neuron_logits"].tolist() == [3, 4]
    assert 3 in series["key_frequencies_neurons"]
    assert 3 not in series["key_frequencies_removal"]
    assert 3 not in series["key_frequencies"]
    for k in series["key_frequencies"].tolist():
        named = {k in series[f"key_frequencies_{rule}"] for rule in ("embedding", "neuron_logits", "neurons")}
        assert True in named and k in series["key_frequencies_removal"]


def test_untrained_model_has_no_key_frequency(plant):
    series = measures.evaluate("fourier", plant({0: {}}, p=59))
    assert len(series["key_frequencies_embedding"]) > 20 and len(series["key_frequencies_neuron_logits"]) > 20
    assert series["key_frequencies_removal"].tolist() == series["key_frequencies"].tolist() == []
    np.testing.assert_allclose(series["loss_without_frequency"], series["loss"], rtol=0.01)


@pytest.mark.parametrize("tolerance", [-0.1, 1.0])
def test_rank_tolerance_out_of_range_is_rejected(plant, tolerance):
    with pytest.raises(GrokscopeError, match="rank_tolerance"):
        measures.evaluate("fourier", plant({0: {}}), rank_tolerance=tolerance)


def test_rank_grows_as_the_tolerance_falls(plant):
    trajectory = plant({0: {}})
    ranks = [measures.evaluate("fourier", trajectory, rank_tolerance=t)["W_L_rank"][0] for t in (0.5, 0.1, 0.01, 0.0)]
    assert ranks == sorted(ranks) and ranks[-1] == P - 1
