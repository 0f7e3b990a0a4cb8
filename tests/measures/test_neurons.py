"""The measure `neurons` on planted neurons and heads."""

import math

import numpy as np
import pytest
import torch
from support.circuits import reader, sizes

from grokscope import measures

P = 11


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    """Return standard normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def wave(k: int, phase: float = 0.0, n: int = P) -> torch.Tensor:
    """Return a cosine of frequency k over the n points."""
    return (2 * math.pi * k * torch.arange(n, dtype=torch.float64) / n + phase).cos()


# The functions of a and b that each planted neuron reads, and its bias.
READ = torch.stack([wave(2), wave(5, 0.7), 0 * wave(1), wave(3), wave(1) + wave(4)], 1)
BIAS = torch.tensor([3.0, 5.0, -1.0, 0.0, 5.0], dtype=torch.float64)


@pytest.fixture
def series(plant):
    """The measure of an untrained model and the planted neurons."""
    parameters = reader(P, READ, READ.roll(3, 0), BIAS, noise(5, P))
    return measures.evaluate("neurons", plant({0: {}, 9: parameters}, p=P, **sizes(P, 5)))


def test_planted_neurons_have_their_frequency_and_share(series):
    """Two neurons always fire, so they are linear in their waves; one never fires; one reads two frequencies."""
    assert series["neuron_share"].shape == (2, 1, 5)
    np.testing.assert_allclose(series["neuron_share"][1, 0, [0, 1, 2, 4]], [1, 1, 0, 0.5], atol=1e-12)
    assert series["neuron_frequency"][1, 0].tolist() == [2, 5, 1, 3, 1]
    assert series["constant_share"][1].tolist() == [0.2]
    assert series["mean_neuron_share"][1, 0] == pytest.approx(series["neuron_share"][1, 0].mean())


def test_clusters_contain_neurons_above_the_papers_threshold(series):
    clear = series["neuron_share"][1, 0] >= 0.85
    assert series["clustered_share"][1].tolist() == [pytest.approx(clear.mean())]
    sizes_of = [int((clear & (series["neuron_frequency"][1, 0] == k)).sum()) for k in series["frequencies"]]
    assert series["cluster_sizes"][1, 0].tolist() == sizes_of
    assert sizes_of[1] == sizes_of[4] == 1


def test_rectified_wave_has_the_share_of_a_least_squares_fit(series):
    t = 2 * np.pi * 3 * np.arange(P) / P
    post = np.maximum(0, np.cos(t)[:, None] + np.roll(np.cos(t), 3)).ravel()
    three = [np.ones(P), np.cos(t), np.sin(t)]
    nine = np.stack([np.outer(f, g).ravel() for f in three for g in three], 1)
    rest = post - nine @ np.linalg.lstsq(nine, post, rcond=None)[0]
    share = 1 - (rest**2).sum() / ((post - post.mean()) ** 2).sum()
    assert 0.5 < share < 0.999
    assert series["neuron_share"][1, 0, 3] == pytest.approx(share, rel=1e-9)


def test_planted_neurons_in_random_orders_have_small_shares(series):
    assert series["mean_neuron_share_shuffled"][1, 0] < 0.6 * series["mean_neuron_share"][1, 0]
    assert series["mean_neuron_share_initialization"].tolist() == series["mean_neuron_share"][0].tolist()


@pytest.mark.parametrize("name", ["subtraction", "division"])
def test_frequencies_are_along_the_tasks_circle(plant, name):
    """A neuron that reads positions has its frequency along the circle's order."""
    trajectory = plant({0: {}}, p=P, name=name, **sizes(P, 5))
    tokens = trajectory.task.circle
    W = torch.zeros(P, 5, dtype=torch.float64)
    W[tokens] = wave(3, n=len(tokens))[:, None].expand(-1, 5)
    parameters = reader(P, W, W, BIAS.new_full((5,), 4.0), noise(5, P))
    series = measures.evaluate("neurons", plant({0: parameters}, p=P, name=name, **sizes(P, 5)))
    np.testing.assert_allclose(series["neuron_share"][0, 0], 1, rtol=1e-12)
    assert series["neuron_frequency"][0, 0].tolist() == [3] * 5


def test_head_with_wave_scores_follows_their_frequency(plant):
    """The attention to a is a softmax of small scores, so it is nearly linear in them."""
    parameters = reader(P, READ, READ, BIAS, noise(5, P))
    W_K, small = parameters["blocks.0.attn.W_K"], 1e-3
    W_K.zero_()
    for head, k in enumerate((2, 4)):
        W_K[head, :P, 0] = small * wave(k)
    series = measures.evaluate("neurons", plant({0: parameters}, p=P, **sizes(P, 5)))
    assert series["head_frequency"][0, 0].tolist() == [2, 4]
    np.testing.assert_allclose(series["head_share"][0, 0], 1, atol=1e-4)
    assert series["mean_head_share_shuffled"][0, 0] < 0.8
