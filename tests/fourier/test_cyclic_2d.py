"""Functions of pairs against explicit sums and least-squares fits."""

import numpy as np
import pytest
import torch

from grokscope.fourier import cyclic, cyclic_2d

SIZES = [5, 6, 11]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def answers(n: int, sign: int) -> torch.Tensor:
    """Return i ± j mod n for each pair."""
    i = torch.arange(n)
    return (i[:, None] + sign * i) % n


def products(n: int, k: int) -> np.ndarray:
    """Return the nine products of 1, cos, sin of i and 1, cos, sin of j over all pairs, one per column."""
    t = 2 * np.pi * k * np.arange(n) / n
    functions = [np.ones(n), np.cos(t), np.sin(t)]
    return np.stack([np.outer(left, right).ravel() for left in functions for right in functions], 1)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("sign", [1, -1])
def test_answer_waves_and_class_means_sum_to_answer_means(n, sign):
    logits = noise(n, n, 7)
    means = cyclic_2d.answer_means(logits, answers(n, sign))
    for m in range(n):
        pairs = [logits[i, j] for i in range(n) for j in range(n) if (i + sign * j - m) % n == 0]
        torch.testing.assert_close(means[m], torch.stack(pairs).mean(0))
    waves = cyclic_2d.answer_waves(means, cyclic.frequencies(n))
    torch.testing.assert_close(waves.sum(0) + logits.mean((0, 1)), means)


@pytest.mark.parametrize("n", SIZES)
def test_blocks_match_a_least_squares_fit(n):
    values = noise(n, n, 4) + 0.7
    blocks = cyclic_2d.pair_blocks(values)
    shares = cyclic_2d.block_shares(blocks, values)
    flat = values.flatten(0, 1).numpy()
    for k in range(1, n // 2 + 1):
        fit = products(n, k) @ np.linalg.lstsq(products(n, k), flat, rcond=None)[0]
        expected = ((fit - flat.mean(0)) ** 2).sum(0) / ((flat - flat.mean(0)) ** 2).sum(0)
        np.testing.assert_allclose(shares[k - 1], expected, rtol=1e-9)
        projections = cyclic_2d.block_functions(blocks, torch.full((4,), k), n)
        np.testing.assert_allclose(projections.flatten(0, 1), fit, atol=1e-9)


def test_functions_are_projected_on_their_own_frequency():
    values = noise(11, 11, 3)
    blocks = cyclic_2d.pair_blocks(values)
    mixed = cyclic_2d.block_functions(blocks, torch.tensor([2, 5, 2]), 11)
    for column, k in enumerate((2, 5, 2)):
        single = cyclic_2d.block_functions(blocks[..., column : column + 1], torch.tensor([k]), 11)
        torch.testing.assert_close(mixed[..., column : column + 1], single)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constant_functions_have_zero_shares(dtype):
    values = torch.tensor([0.0, 0.1, 1e4], dtype=dtype).expand(11, 11, 3)
    shares = cyclic_2d.block_shares(cyclic_2d.pair_blocks(values), values)
    assert shares.tolist() == [[0.0] * 3] * 5
    largest, frequency = cyclic_2d.largest_share(shares)
    assert largest.tolist() == [0.0] * 3 and frequency.tolist() == [1] * 3


def test_lowest_frequency_wins_among_equal_shares():
    """A neuron that fires on a single pair has the same share in every frequency."""
    values = torch.zeros(11, 11, 1, dtype=torch.float64)
    values[3, 4] = 1
    shares = cyclic_2d.block_shares(cyclic_2d.pair_blocks(values), values)
    torch.testing.assert_close(shares, torch.full_like(shares, 8 / 120))
    assert cyclic_2d.largest_share(shares)[1].tolist() == [1]


def test_logit_variance_ignores_the_mean_over_classes():
    logits = noise(6, 6, 5)
    shifted = logits + 100 * noise(6, 6, 1, seed=1)
    expected = (logits - logits.mean(-1, keepdim=True)).square().mean()
    torch.testing.assert_close(cyclic_2d.logit_variance(logits), expected)
    torch.testing.assert_close(cyclic_2d.logit_variance(shifted), expected)
