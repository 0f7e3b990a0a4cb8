"""The Fourier basis against closed forms and against NumPy's FFT, which is other code for the same sums."""

import math

import numpy as np
import pytest
import torch

from grokscope.fourier import cyclic

SIZES = [2, 3, 4, 5, 6, 7, 10, 58, 59, 96, 97, 112, 113]


def waves(n: int, frequency: int, phase: float = 0.0) -> torch.Tensor:
    """Return the cosine and the sine of one frequency over n points, as two columns."""
    angle = 2 * math.pi * frequency * torch.arange(n, dtype=torch.float64) / n + phase
    return torch.stack([angle.cos(), angle.sin()], dim=1)


def orthonormal(d: int, k: int, seed: int = 0) -> torch.Tensor:
    """Return k random orthonormal directions in d dimensions, one a row."""
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(d, k, generator=generator, dtype=torch.float64)).Q.T


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("n", SIZES)
def test_every_frequency_up_to_half_of_n_is_there_and_no_other(n):
    assert cyclic.frequencies(n).tolist() == [k for k in range(1, n) if 2 * k <= n]


@pytest.mark.parametrize("n", SIZES)
def test_the_basis_is_orthonormal_and_complete(n):
    basis = cyclic.fourier_basis(n)
    assert basis.shape == (n, n) and basis.dtype == torch.float64
    torch.testing.assert_close(basis @ basis.T, torch.eye(n, dtype=torch.float64), rtol=0, atol=1e-13)


@pytest.mark.parametrize("n", SIZES)
def test_the_rows_are_a_constant_then_cosine_and_sine_of_each_frequency(n):
    expected = [torch.full((n,), n**-0.5, dtype=torch.float64)]
    for k in range(1, n // 2 + 1):
        cosine, sine = waves(n, k).T
        expected += [cosine / math.sqrt(n)] if 2 * k == n else [cosine * (2 / n) ** 0.5, sine * (2 / n) ** 0.5]
    torch.testing.assert_close(cyclic.fourier_basis(n), torch.stack(expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", SIZES)
def test_norms_are_those_of_the_fast_fourier_transform(n):
    values = noise(n, 5, seed=n)
    power = (np.abs(np.fft.rfft(values.numpy(), axis=0)) ** 2).sum(1)[1:] * 2 / n
    if n % 2 == 0:
        power[-1] /= 2
    np.testing.assert_allclose(cyclic.fourier_norms(values).numpy(), np.sqrt(power), rtol=1e-11)


@pytest.mark.parametrize("n", SIZES)
def test_squared_norms_sum_to_the_centred_values_squared_norm(n):
    values = noise(n, 4, seed=n) + 3
    total = (values - values.mean(0)).square().sum()
    torch.testing.assert_close(cyclic.fourier_norms(values).square().sum(), total)
    torch.testing.assert_close(cyclic.frequency_shares(values).sum(), torch.ones((), dtype=torch.float64))


@pytest.mark.parametrize("n", [6, 7])
def test_leading_axes_are_treated_one_by_one(n):
    values = noise(2, 3, n, 4)
    for i in range(2):
        for j in range(3):
            one = values[i, j]
            torch.testing.assert_close(cyclic.fourier_norms(values)[i, j], cyclic.fourier_norms(one))
            torch.testing.assert_close(cyclic.frequency_plane(values, 2)[i, j], cyclic.frequency_plane(one, 2))
            for batched, alone in zip(cyclic.circularity(values), cyclic.circularity(one), strict=True):
                torch.testing.assert_close(batched[i, j], alone)


def test_float32_values_keep_their_dtype():
    values = noise(7, 4).float()
    assert cyclic.fourier_norms(values).dtype == torch.float32
    assert cyclic.frequency_plane(values, 2).dtype == torch.float32


def test_values_without_variance_have_no_share_in_any_frequency():
    assert cyclic.frequency_shares(torch.zeros(6, 3)).tolist() == [0, 0, 0]


def test_a_frequency_is_key_if_its_norm_exceeds_a_quarter_of_the_largest():
    norms = torch.tensor([[1.0, 4.0, 1.001], [0.0, 0.5, 2.0]])
    assert cyclic.key_frequencies(norms).tolist() == [[False, True, True], [False, False, True]]


@pytest.mark.parametrize(("n", "frequency"), [(59, 1), (59, 17), (59, 29), (96, 7), (96, 47), (12, 4)])
def test_the_plane_of_a_planted_circle_shows_it_round_and_in_order(n, frequency):
    values = 2.5 * waves(n, frequency, phase=0.4) @ orthonormal(8, 2) + 7
    plane = cyclic.frequency_plane(values, frequency)
    torch.testing.assert_close(plane.norm(dim=1), torch.full((n,), 2.5, dtype=torch.float64))
    angle = torch.atan2(plane[:, 1], plane[:, 0])
    turn = (angle - angle[0] - (angle[1] - angle[0]) * torch.arange(n)) / (2 * math.pi)
    torch.testing.assert_close(turn, turn.round(), rtol=0, atol=1e-9)


def test_the_plane_separates_two_frequencies_of_equal_radius():
    values = torch.cat([waves(59, 5), waves(59, 22)], 1) @ orthonormal(8, 4)
    for frequency in (5, 22):
        radius = cyclic.frequency_plane(values, frequency).norm(dim=1)
        torch.testing.assert_close(radius, torch.ones(59, dtype=torch.float64))


def test_an_ellipse_keeps_its_shape():
    values = waves(31, 3) * torch.tensor([3.0, 1.0]) @ orthonormal(6, 2)
    plane = cyclic.frequency_plane(values, 3)
    torch.testing.assert_close(torch.cdist(plane, plane), torch.cdist(values, values))


@pytest.mark.parametrize("seed", range(3))
def test_a_wave_along_one_direction_appears_as_a_line(seed):
    """Its sine and cosine components are parallel: what is left of one beside the other is rounding alone."""
    values = waves(31, 4, phase=0.3 + seed)[:, :1] @ orthonormal(8, 1, seed)
    plane = cyclic.frequency_plane(values, 4)
    torch.testing.assert_close(plane[:, 0].abs(), values.norm(dim=1))
    torch.testing.assert_close(plane[:, 1], torch.zeros(31, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("n", "frequency"), [(7, 1), (7, 3), (8, 1), (8, 3), (8, 4)])
def test_a_plane_is_an_orthogonal_projection(n, frequency):
    """So no two points are farther apart in it than they are in d dimensions."""
    values = noise(n, 6, seed=frequency)
    plane = cyclic.frequency_plane(values, frequency)
    assert (torch.cdist(plane, plane) <= torch.cdist(values, values) + 1e-12).all()


def test_the_frequency_half_of_n_has_a_line_for_a_plane():
    signs = (-1.0) ** torch.arange(10, dtype=torch.float64)
    plane = cyclic.frequency_plane(signs[:, None] * torch.tensor([[3.0, 0.0, 4.0]]), 5)
    torch.testing.assert_close(plane, torch.stack([5 * signs, torch.zeros(10, dtype=torch.float64)], 1))


@pytest.mark.parametrize("n", SIZES)
def test_a_pure_wave_has_circularity_one_at_its_frequency(n):
    for frequency in cyclic.frequencies(n).tolist():
        wave = waves(n, frequency, phase=0.3)[:, :1] * -4 + 2
        value, where = cyclic.circularity(wave)
        assert where.tolist() == [frequency]
        torch.testing.assert_close(value, torch.ones(1, dtype=torch.float64))


@pytest.mark.parametrize(("n", "frequency"), [(59, 9), (58, 9), (58, 29)])
@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
def test_circularity_is_the_share_of_the_largest_wave(n, frequency, ratio):
    """Noise that has been cleaned of the wave's frequency adds its own energy and nothing else."""
    wave = waves(n, frequency)[:, 0]
    rows = cyclic.fourier_basis(n)[[0, 2 * frequency - 1, *range(2 * frequency, min(2 * frequency + 1, n))]]
    other = noise(n)
    other = other - rows.T @ (rows @ other)
    mixed = wave / wave.norm() + other / other.norm() * ratio**0.5
    value, where = cyclic.circularity(mixed[:, None])
    assert where.item() == frequency
    assert value.item() == pytest.approx(1 / (1 + ratio), rel=1e-12)


def test_noise_has_the_circularity_that_chance_gives():
    """The m = (n − 1)/2 shares of a Gaussian vector are uniform on the simplex; their largest has mean H_m/m."""
    n, n_samples = 113, 4000
    m = (n - 1) // 2
    value, where = cyclic.circularity(noise(n, n_samples))
    stderr = value.std() / n_samples**0.5
    assert abs(value.mean() - sum(1 / j for j in range(1, m + 1)) / m) < 4 * stderr
    assert set(where.tolist()) == set(range(1, m + 1))


@pytest.mark.parametrize("n", [96, 97])
def test_circularity_does_not_see_scale_sign_place_or_start(n):
    components = noise(n, 3)
    value, where = cyclic.circularity(components)
    for changed in (components * -2.5, components + 7, components.roll(11, 0), components.flip(0)):
        same_value, same_where = cyclic.circularity(changed)
        torch.testing.assert_close(same_value, value)
        assert same_where.tolist() == where.tolist()


def test_counting_in_other_steps_moves_the_frequency_alone():
    components = noise(59, 3)
    value, where = cyclic.circularity(components)
    stretched = cyclic.circularity(components[torch.arange(59) * 7 % 59])
    torch.testing.assert_close(stretched[0], value)
    assert stretched[1].tolist() == [min(7 * k % 59, 59 - 7 * k % 59) for k in where.tolist()]


@pytest.mark.parametrize("n", [6, 7])
@pytest.mark.parametrize("level", [0.0, 0.1])
def test_a_component_without_variance_has_circularity_zero(n, level):
    value, _ = cyclic.circularity(torch.full((n, 1), level, dtype=torch.float64))
    assert value.item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("n", [11, 12])
def test_kept_frequencies_are_those_of_the_values_and_their_mean(n: int):
    values = torch.randn(3, n, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    spectrum = torch.fft.rfft(values, dim=-2)
    for kept in ([], [2], [1, n // 2], list(range(1, n // 2 + 1))):
        masked = torch.zeros_like(spectrum)
        masked[:, [0, *kept]] = spectrum[:, [0, *kept]]
        expected = torch.fft.irfft(masked, n=n, dim=-2)
        found = cyclic.keep_frequencies(values, torch.tensor(kept, dtype=torch.int64))
        torch.testing.assert_close(found, expected)
