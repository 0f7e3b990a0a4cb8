"""The Fourier basis of Z_n against closed forms, and against NumPy's FFT as an independent implementation."""

import math

import numpy as np
import pytest
import torch

from grokscope.fourier import cyclic

SIZES = [2, 3, 4, 5, 6, 7, 10, 58, 59, 96, 97, 112, 113]


def waves(n: int, frequency: int, phase: float = 0.0) -> torch.Tensor:
    """Return the cosine and the sine of one frequency at n points, as two columns."""
    angle = 2 * math.pi * frequency * torch.arange(n, dtype=torch.float64) / n + phase
    return torch.stack([angle.cos(), angle.sin()], dim=1)


def orthonormal(d: int, k: int, seed: int = 0) -> torch.Tensor:
    """Return k random orthonormal directions in d dimensions, one per row."""
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(d, k, generator=generator, dtype=torch.float64)).Q.T


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("n", SIZES)
def test_frequencies_are_1_to_half_of_n(n):
    assert cyclic.frequencies(n).tolist() == [k for k in range(1, n) if 2 * k <= n]


@pytest.mark.parametrize("n", SIZES)
def test_basis_is_orthonormal_and_complete(n):
    basis = cyclic.fourier_basis(n)
    assert basis.shape == (n, n) and basis.dtype == torch.float64
    torch.testing.assert_close(basis @ basis.T, torch.eye(n, dtype=torch.float64), rtol=0, atol=1e-13)


@pytest.mark.parametrize("n", SIZES)
def test_basis_rows_are_constant_then_cosines_and_sines(n):
    expected = [torch.full((n,), n**-0.5, dtype=torch.float64)]
    for k in range(1, n // 2 + 1):
        cosine, sine = waves(n, k).T
        expected += [cosine / math.sqrt(n)] if 2 * k == n else [cosine * (2 / n) ** 0.5, sine * (2 / n) ** 0.5]
    torch.testing.assert_close(cyclic.fourier_basis(n), torch.stack(expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", SIZES)
def test_norms_match_the_fast_fourier_transform(n):
    values = noise(n, 5, seed=n)
    power = (np.abs(np.fft.rfft(values.numpy(), axis=0)) ** 2).sum(1)[1:] * 2 / n
    if n % 2 == 0:
        power[-1] /= 2
    np.testing.assert_allclose(cyclic.fourier_norms(values).numpy(), np.sqrt(power), rtol=1e-11)


@pytest.mark.parametrize("n", SIZES)
def test_squared_norms_sum_to_the_centred_squared_norm(n):
    values = noise(n, 4, seed=n) + 3
    total = (values - values.mean(0)).square().sum()
    torch.testing.assert_close(cyclic.fourier_norms(values).square().sum(), total)
    torch.testing.assert_close(cyclic.frequency_shares(values).sum(), torch.ones((), dtype=torch.float64))


@pytest.mark.parametrize("n", [6, 7])
def test_batch_axes_are_independent(n):
    batch = noise(2, 3, n, 4)
    for i in range(2):
        for j in range(3):
            values = batch[i, j]
            torch.testing.assert_close(cyclic.fourier_norms(batch)[i, j], cyclic.fourier_norms(values))
            torch.testing.assert_close(cyclic.frequency_plane(batch, 2)[i, j], cyclic.frequency_plane(values, 2))
            for batched, single in zip(cyclic.circularity(batch), cyclic.circularity(values), strict=True):
                torch.testing.assert_close(batched[i, j], single)


def test_float32_values_keep_their_dtype():
    values = noise(7, 4).float()
    assert cyclic.fourier_norms(values).dtype == torch.float32
    assert cyclic.frequency_plane(values, 2).dtype == torch.float32


def test_constant_values_have_zero_shares():
    assert cyclic.frequency_shares(torch.zeros(6, 3)).tolist() == [0, 0, 0]


def test_key_frequencies_exceed_a_quarter_of_the_largest():
    norms = torch.tensor([[1.0, 4.0, 1.001], [0.0, 0.5, 2.0]])
    assert cyclic.key_frequencies(norms).tolist() == [[False, True, True], [False, False, True]]


@pytest.mark.parametrize(("n", "frequency"), [(59, 1), (59, 17), (59, 29), (96, 7), (96, 47), (12, 4)])
def test_plane_of_planted_circle_is_round_and_in_order(n, frequency):
    values = 2.5 * waves(n, frequency, phase=0.4) @ orthonormal(8, 2) + 7
    plane = cyclic.frequency_plane(values, frequency)
    torch.testing.assert_close(plane.norm(dim=1), torch.full((n,), 2.5, dtype=torch.float64))
    angle = torch.atan2(plane[:, 1], plane[:, 0])
    turn = (angle - angle[0] - (angle[1] - angle[0]) * torch.arange(n)) / (2 * math.pi)
    torch.testing.assert_close(turn, turn.round(), rtol=0, atol=1e-9)


def test_plane_separates_frequencies_of_equal_radius():
    values = torch.cat([waves(59, 5), waves(59, 22)], 1) @ orthonormal(8, 4)
    for frequency in (5, 22):
        radius = cyclic.frequency_plane(values, frequency).norm(dim=1)
        torch.testing.assert_close(radius, torch.ones(59, dtype=torch.float64))


def test_plane_keeps_the_shape_of_an_ellipse():
    values = waves(31, 3) * torch.tensor([3.0, 1.0]) @ orthonormal(6, 2)
    plane = cyclic.frequency_plane(values, 3)
    torch.testing.assert_close(torch.cdist(plane, plane), torch.cdist(values, values))


@pytest.mark.parametrize("seed", range(3))
def test_wave_along_one_direction_is_a_line(seed):
    """Its sine and cosine components are parallel, so their difference is rounding error."""
    values = waves(31, 4, phase=0.3 + seed)[:, :1] @ orthonormal(8, 1, seed)
    plane = cyclic.frequency_plane(values, 4)
    torch.testing.assert_close(plane[:, 0].abs(), values.norm(dim=1))
    torch.testing.assert_close(plane[:, 1], torch.zeros(31, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("n", "frequency"), [(7, 1), (7, 3), (8, 1), (8, 3), (8, 4)])
def test_plane_is_an_orthogonal_projection(n, frequency):
    """An orthogonal projection increases no distance."""
    values = noise(n, 6, seed=frequency)
    plane = cyclic.frequency_plane(values, frequency)
    assert (torch.cdist(plane, plane) <= torch.cdist(values, values) + 1e-12).all()


def test_plane_of_frequency_half_of_n_is_a_line():
    signs = (-1.0) ** torch.arange(10, dtype=torch.float64)
    plane = cyclic.frequency_plane(signs[:, None] * torch.tensor([[3.0, 0.0, 4.0]]), 5)
    torch.testing.assert_close(plane, torch.stack([5 * signs, torch.zeros(10, dtype=torch.float64)], 1))


@pytest.mark.parametrize("n", SIZES)
def test_pure_wave_has_circularity_one_at_its_frequency(n):
    for frequency in cyclic.frequencies(n).tolist():
        wave = waves(n, frequency, phase=0.3)[:, :1] * -4 + 2
        value, attained_at = cyclic.circularity(wave)
        assert attained_at.tolist() == [frequency]
        torch.testing.assert_close(value, torch.ones(1, dtype=torch.float64))


@pytest.mark.parametrize(("n", "frequency"), [(59, 9), (58, 9), (58, 29)])
@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
def test_circularity_is_the_share_of_the_largest_wave(n, frequency, ratio):
    """The noise does not contain the frequency of the wave, so it only adds energy."""
    wave = waves(n, frequency)[:, 0]
    rows = cyclic.fourier_basis(n)[[0, 2 * frequency - 1, *range(2 * frequency, min(2 * frequency + 1, n))]]
    rest = noise(n)
    rest = rest - rows.T @ (rows @ rest)
    mixed = wave / wave.norm() + rest / rest.norm() * ratio**0.5
    value, attained_at = cyclic.circularity(mixed[:, None])
    assert attained_at.item() == frequency
    assert value.item() == pytest.approx(1 / (1 + ratio), rel=1e-12)


def test_circularity_of_noise_matches_theory():
    """The m = (n − 1)/2 shares of a Gaussian vector are uniform on the simplex. The largest has mean H_m/m."""
    n, n_samples = 113, 4000
    m = (n - 1) // 2
    value, attained_at = cyclic.circularity(noise(n, n_samples))
    stderr = value.std() / n_samples**0.5
    assert abs(value.mean() - sum(1 / j for j in range(1, m + 1)) / m) < 4 * stderr
    assert set(attained_at.tolist()) == set(range(1, m + 1))


@pytest.mark.parametrize("n", [96, 97])
def test_circularity_is_invariant_under_affine_maps_and_shifts(n):
    components = noise(n, 3)
    value, attained_at = cyclic.circularity(components)
    for changed in (components * -2.5, components + 7, components.roll(11, 0), components.flip(0)):
        changed_value, changed_frequency = cyclic.circularity(changed)
        torch.testing.assert_close(changed_value, value)
        assert changed_frequency.tolist() == attained_at.tolist()


def test_multiplied_points_change_only_the_frequency():
    components = noise(59, 3)
    value, attained_at = cyclic.circularity(components)
    stretched_value, stretched_frequency = cyclic.circularity(components[torch.arange(59) * 7 % 59])
    torch.testing.assert_close(stretched_value, value)
    assert stretched_frequency.tolist() == [min(7 * k % 59, 59 - 7 * k % 59) for k in attained_at.tolist()]


@pytest.mark.parametrize("n", [6, 7])
@pytest.mark.parametrize("level", [0.0, 0.1])
def test_constant_component_has_circularity_zero(n, level):
    value, _ = cyclic.circularity(torch.full((n, 1), level, dtype=torch.float64))
    assert value.item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("n", [11, 12])
def test_keep_frequencies_matches_a_masked_fft(n: int):
    values = torch.randn(3, n, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    spectrum = torch.fft.rfft(values, dim=-2)
    for kept in ([], [2], [1, n // 2], list(range(1, n // 2 + 1))):
        masked = torch.zeros_like(spectrum)
        masked[:, [0, *kept]] = spectrum[:, [0, *kept]]
        expected = torch.fft.irfft(masked, n=n, dim=-2)
        projection = cyclic.keep_frequencies(values, torch.tensor(kept, dtype=torch.int64))
        torch.testing.assert_close(projection, expected)


@pytest.mark.parametrize("n", [1, 2, 7, 112])
def test_gini_is_0_for_equal_and_largest_for_single_values(n):
    assert cyclic.gini(torch.full((n,), 3.0, dtype=torch.float64)).item() == pytest.approx(0, abs=1e-12)
    assert cyclic.gini(torch.zeros(n, dtype=torch.float64)).item() == 0
    single = torch.zeros(n, dtype=torch.float64)
    single[n // 2] = 5.0
    assert cyclic.gini(single).item() == pytest.approx(1 - 1 / n)


def test_gini_matches_the_mean_absolute_difference():
    """The independent definition over all pairs: E|x − y| / 2E[x]."""
    values = noise(4, 13).abs()
    for row in values:
        expected = (row[:, None] - row).abs().mean() / (2 * row.mean())
        assert cyclic.gini(row).item() == pytest.approx(expected.item(), rel=1e-12)
    torch.testing.assert_close(cyclic.gini(values * 7), torch.stack([cyclic.gini(row) for row in values]))


def test_component_norms_add_up_to_fourier_norms():
    for n in (5, 6, 11):
        values = noise(n, 3)
        squares = cyclic.component_norms(values).square()
        assert squares.shape == (n - 1,)
        pairs = torch.nn.functional.pad(squares, (0, (n - 1) % 2)).view(-1, 2).sum(1)
        torch.testing.assert_close(pairs.sqrt(), cyclic.fourier_norms(values))


@pytest.mark.parametrize("k", [1, 3, 8])
def test_inverse_participation_ratio_of_k_equal_shares_is_1_k(k):
    shares = torch.zeros(8, dtype=torch.float64)
    shares[:k] = 1 / k
    assert cyclic.inverse_participation_ratio(shares).item() == pytest.approx(1 / k)
