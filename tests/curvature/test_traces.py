"""Stochastic traces and norms of matrices with known spectra."""

import statistics

import numpy as np
import pytest
import torch
from support.matrices import matrix, rotation

from grokscope import curvature


def test_trace_of_diagonal_matrix_is_exact():
    diagonal = torch.linspace(-3, 8, 40).double()
    estimate = curvature.hutchinson(lambda v: diagonal * v, 40, n_probes=5)
    assert estimate.value == pytest.approx(float(diagonal.sum()), rel=1e-12)
    assert estimate.stderr == pytest.approx(0, abs=1e-12)
    assert estimate.n_probes == 5


def test_trace_is_unbiased_with_true_standard_error():
    """Over 300 seeds, the errors divided by their standard errors have mean 0 and a deviation of about 1."""
    H = matrix(torch.linspace(-1, 3, 60).double())
    z_scores = []
    for seed in range(300):
        estimate = curvature.hutchinson(lambda v: H @ v, 60, n_probes=30, seed=seed)
        z_scores.append((estimate.value - float(H.trace())) / estimate.stderr)
    assert abs(np.mean(z_scores)) < 4 / 300**0.5
    assert 0.85 < np.std(z_scores) < 1.2


def test_estimate_is_mean_and_stderr_of_its_probes():
    H, samples = matrix(torch.linspace(-1, 3, 60).double()), []

    def product(v: torch.Tensor) -> torch.Tensor:
        assert v.abs().tolist() == [1] * 60
        samples.append(float(v @ H @ v))
        return H @ v

    estimate = curvature.hutchinson(product, 60, n_probes=3)
    assert estimate.value == pytest.approx(statistics.mean(samples), rel=1e-12)
    assert estimate.stderr == pytest.approx(statistics.stdev(samples) / 3**0.5, rel=1e-12)


def test_variance_of_a_probe_agrees_with_formula():
    H = matrix(torch.linspace(-1, 3, 60).double())
    estimate = curvature.hutchinson(lambda v: H @ v, 60, n_probes=4000)
    variance = 2 * float(H.square().sum() - H.diagonal().square().sum())
    assert estimate.stderr**2 * estimate.n_probes == pytest.approx(variance, rel=0.1)


@pytest.mark.parametrize("function", [curvature.lanczos, curvature.hutchinson])
def test_seed_decides_without_a_global_generator(function):
    H = matrix(torch.linspace(-1, 3, 60).double())
    state = torch.get_rng_state()
    first, repeated, changed = (function(lambda v: H @ v, 60, seed=seed) for seed in (0, 0, 1))
    assert first.value == repeated.value != changed.value
    assert torch.equal(torch.get_rng_state(), state)


def test_known_eigenpairs_reduce_variance_without_bias():
    eigenvalues = torch.cat([torch.linspace(-1, 1, 197), torch.tensor([30.0, 60.0, 100.0])]).double()
    H = matrix(eigenvalues)
    known = curvature.eigenpairs(lambda v: H @ v, 200, n_top=3)
    rest = H - known.vectors.T * torch.from_numpy(known.values) @ known.vectors
    estimate = curvature.hutchinson(lambda v: H @ v, 200, n_probes=2000, known=known)
    assert abs(estimate.value - float(H.trace())) < 4 * estimate.stderr
    variance = 2 * float(rest.square().sum() - rest.diagonal().square().sum())
    assert estimate.stderr**2 * 2000 == pytest.approx(variance, rel=0.15)
    assert estimate.stderr < curvature.hutchinson(lambda v: H @ v, 200, n_probes=2000).stderr / 5


def test_wrong_known_eigenpairs_do_not_bias():
    H = matrix(torch.linspace(-1, 3, 60).double())
    wrong = curvature.Eigenpairs(np.array([2.0, 0.5]), rotation(60)[:2], np.zeros(2), 0)
    samples = curvature.samples(lambda v: H @ v, 60, n_probes=4000, sizes=[20, 40], known=wrong)
    expected = torch.stack([H.diagonal()[:20].sum(), H.diagonal()[20:].sum()]).numpy()
    error = samples.traces.mean(0) - expected
    assert (np.abs(error) < 4 * samples.traces.std(0) / 4000**0.5).all()
    squares = curvature.Estimate.of(samples.squares)
    assert abs(squares.value - float(H.square().sum())) < 4 * squares.stderr


def test_stderr_of_ratio_is_its_spread_over_draws():
    """Numerators and denominators vary together, so the ratio is more certain than either mean."""
    generator = np.random.default_rng(0)
    ratios, errors = [], []
    for _ in range(400):
        denominators = 5 + generator.standard_normal(50)
        numerators = 0.9 * denominators + 0.1 * generator.standard_normal(50)
        estimate = curvature.ratio(numerators, denominators)
        ratios.append(estimate.value)
        errors.append(estimate.stderr)
    assert np.mean(ratios) == pytest.approx(0.9, abs=float(4 * np.std(ratios) / 20))
    assert np.std(ratios) == pytest.approx(np.mean(errors), rel=0.15)


def test_root_of_estimate_propagates_the_error():
    root = curvature.Estimate(9.0, 0.6, 10).root()
    assert (root.value, root.stderr) == (3.0, pytest.approx(0.1))
    assert curvature.Estimate(0.0, 0.0, 10).root().stderr == 0
