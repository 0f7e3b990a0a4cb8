"""Waves over pairs against explicit sums, and Gini and participation ratios against closed forms."""

import numpy as np
import pytest
import torch

from grokscope.fourier import cyclic, cyclic_2d

SIZES = [5, 6, 11]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def answers(n: int, sign: int) -> torch.Tensor:
    i = torch.arange(n)
    return (i[:, None] + sign * i) % n


def nine(n: int, k: int) -> np.ndarray:
    """Return the functions 1, cos, sin of i times those of j, one a column, over all pairs."""
    t = 2 * np.pi * k * np.arange(n) / n
    three = [np.ones(n), np.cos(t), np.sin(t)]
    return np.stack([np.outer(one, other).ravel() for one in three for other in three], 1)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("sign", [1, -1])
def test_the_waves_of_all_frequencies_and_the_class_means_are_what_the_answer_decides(n, sign):
    logits = noise(n, n, 7)
    means = cyclic_2d.answer_means(logits, answers(n, sign))
    for m in range(n):
        pairs = [logits[i, j] for i in range(n) for j in range(n) if (i + sign * j - m) % n == 0]
        torch.testing.assert_close(means[m], torch.stack(pairs).mean(0))
    parts = cyclic_2d.answer_waves(means, cyclic.frequencies(n))
    torch.testing.assert_close(parts.sum(0) + logits.mean((0, 1)), means)


@pytest.mark.parametrize("n", SIZES)
def test_blocks_hold_what_a_least_squares_fit_of_the_nine_functions_does(n):
    values = noise(n, n, 4) + 0.7
    blocks = cyclic_2d.pair_blocks(values)
    shares = cyclic_2d.block_shares(blocks, values)
    flat = values.flatten(0, 1).numpy()
    for k in range(1, n // 2 + 1):
        fit = nine(n, k) @ np.linalg.lstsq(nine(n, k), flat, rcond=None)[0]
        expected = ((fit - flat.mean(0)) ** 2).sum(0) / ((flat - flat.mean(0)) ** 2).sum(0)
        np.testing.assert_allclose(shares[k - 1], expected, rtol=1e-9)
        found = cyclic_2d.block_functions(blocks, torch.full((4,), k), n)
        np.testing.assert_allclose(found.flatten(0, 1), fit, atol=1e-9)


def test_each_function_is_projected_on_its_own_frequency():
    values = noise(11, 11, 3)
    blocks = cyclic_2d.pair_blocks(values)
    mixed = cyclic_2d.block_functions(blocks, torch.tensor([2, 5, 2]), 11)
    for column, k in enumerate((2, 5, 2)):
        alone = cyclic_2d.block_functions(blocks[..., column : column + 1], torch.tensor([k]), 11)
        torch.testing.assert_close(mixed[..., column : column + 1], alone)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_constant_over_the_pairs_follows_no_frequency(dtype):
    values = torch.tensor([0.0, 0.1, 1e4], dtype=dtype).expand(11, 11, 3)
    shares = cyclic_2d.block_shares(cyclic_2d.pair_blocks(values), values)
    assert shares.tolist() == [[0.0] * 3] * 5
    largest, frequency = cyclic_2d.largest_share(shares)
    assert largest.tolist() == [0.0] * 3 and frequency.tolist() == [1] * 3


def test_of_equal_shares_the_lowest_frequency_is_taken():
    """A neuron that fires on one pair alone has them all alike."""
    values = torch.zeros(11, 11, 1, dtype=torch.float64)
    values[3, 4] = 1
    shares = cyclic_2d.block_shares(cyclic_2d.pair_blocks(values), values)
    torch.testing.assert_close(shares, torch.full_like(shares, 8 / 120))
    assert cyclic_2d.largest_share(shares)[1].tolist() == [1]


def test_what_all_classes_have_in_common_is_no_variance_of_the_logits():
    logits = noise(6, 6, 5)
    moved = logits + 100 * noise(6, 6, 1, seed=1)
    expected = (logits - logits.mean(-1, keepdim=True)).square().mean()
    torch.testing.assert_close(cyclic_2d.logit_variance(logits), expected)
    torch.testing.assert_close(cyclic_2d.logit_variance(moved), expected)


@pytest.mark.parametrize("n", [1, 2, 7, 112])
def test_gini_is_0_for_equals_and_1_less_1_over_n_for_a_single_one(n):
    assert cyclic.gini(torch.full((n,), 3.0, dtype=torch.float64)).item() == pytest.approx(0, abs=1e-12)
    assert cyclic.gini(torch.zeros(n, dtype=torch.float64)).item() == 0
    single = torch.zeros(n, dtype=torch.float64)
    single[n // 2] = 5.0
    assert cyclic.gini(single).item() == pytest.approx(1 - 1 / n)


def test_gini_is_the_mean_difference_of_two_values_over_twice_their_mean():
    """The definition of the economists, over all pairs: other code for the same number."""
    values = noise(4, 13).abs()
    for row in values:
        expected = (row[:, None] - row).abs().mean() / (2 * row.mean())
        assert cyclic.gini(row).item() == pytest.approx(expected.item(), rel=1e-12)
    torch.testing.assert_close(cyclic.gini(values * 7), torch.stack([cyclic.gini(row) for row in values]))


def test_component_norms_are_the_fourier_norms_parts():
    for n in SIZES:
        values = noise(n, 3)
        squares = cyclic.component_norms(values).square()
        assert squares.shape == (n - 1,)
        pairs = torch.nn.functional.pad(squares, (0, (n - 1) % 2)).view(-1, 2).sum(1)
        torch.testing.assert_close(pairs.sqrt(), cyclic.fourier_norms(values))


@pytest.mark.parametrize("k", [1, 3, 8])
def test_as_many_take_part_as_are_equal(k):
    shares = torch.zeros(8, dtype=torch.float64)
    shares[:k] = 1 / k
    assert cyclic.inverse_participation_ratio(shares).item() == pytest.approx(1 / k)
