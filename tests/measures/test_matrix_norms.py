"""The measure `matrix_norms` against closed forms and numpy, for each head and for products."""

import math

import numpy as np
import pytest
import torch

from grokscope import measures
from grokscope.measures import matrix_norms as module

BLOCK = "blocks.0.attn."


def value_of(series, name: str, matrix: str, step: int = 0) -> float:
    """Return a quantity of one matrix at one step."""
    return float(series[name][step, series.words("matrices").index(matrix)])


def test_planted_singular_values_give_norms_by_hand(plant):
    U, V = (
        torch.linalg.qr(torch.randn(n, n, generator=torch.Generator().manual_seed(n))).Q.double() for n in (12, 16)
    )
    sigma = torch.tensor([4.0, 3.0, 0.0, *[0.0] * 9], dtype=torch.float64)
    W_E = U @ torch.diag(sigma) @ V[:12]
    series = measures.evaluate("matrix_norms", plant({0: {"embed.W_E": W_E}, 5: {"embed.W_E": torch.zeros(12, 16)}}))
    entropy = -(4 / 7 * math.log(4 / 7) + 3 / 7 * math.log(3 / 7))
    expected = {
        "spectral_norm": 4, "nuclear_norm": 7, "frobenius_norm": 5, "stable_rank": 25 / 16,
        "effective_rank": math.exp(entropy),
    }  # fmt: skip
    for name, value in expected.items():
        assert value_of(series, name, "embed.W_E") == pytest.approx(value, rel=1e-6)
        assert value_of(series, name, "embed.W_E", 1) == 0


def test_orthogonal_matrices_and_outer_products_have_known_ranks():
    Q = torch.linalg.qr(torch.randn(9, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q
    for A, rank in ((5 * Q, 9), (torch.outer(Q[0], Q[1]) * 2, 1), (Q[:, :4] * 0.1, 4)):
        ranks = module.norms_and_ranks(module.singular_values(A))
        assert ranks["stable_rank"].item() == pytest.approx(rank, rel=1e-12)
        assert ranks["effective_rank"].item() == pytest.approx(rank, rel=1e-9)


@pytest.mark.parametrize("shape", [((16, 8), (8, 16)), ((3, 8), (8, 5)), ((16, 1), (1, 16))])
def test_singular_values_of_a_product_equal_numpys(shape):
    generator = torch.Generator().manual_seed(0)
    A, B = (torch.randn(size, generator=generator, dtype=torch.float64) for size in shape)
    sigma = module.product_singular_values(A, B).numpy()
    whole = np.linalg.svd((A @ B).numpy(), compute_uv=False)
    np.testing.assert_allclose(sigma, whole[: len(sigma)], rtol=1e-10)
    assert whole[len(sigma) :].max(initial=0) < 1e-12


@pytest.mark.parametrize("n_layers", [1, 2])
def test_norms_of_all_matrices_and_heads_equal_numpys(plant, n_layers):
    trajectory = plant({0: {}}, n_layers=n_layers)
    series, w = measures.evaluate("matrix_norms", trajectory), trajectory.first.parameters
    matrices = {name: W.numpy() for name, W in w.items() if ".W_" in name and ".attn." not in name}
    for layer in range(n_layers):
        attn = f"blocks.{layer}.attn."
        W_Q, W_K, W_V, W_O = (w[f"{attn}W_{letter}"].double().numpy() for letter in "QKVO")
        for head in range(2):
            matrices |= {
                f"{attn}W_{letter}.{head}": W[head] for letter, W in zip("QKVO", (W_Q, W_K, W_V, W_O), strict=True)
            }
            matrices[f"{attn}QK.{head}"] = W_Q[head] @ W_K[head].T
            matrices[f"{attn}OV.{head}"] = W_V[head] @ W_O[head]
    assert set(series.words("matrices")) == set(matrices)
    for name, A in matrices.items():
        norms = {key: value_of(series, key, name) for key in series.arrays}
        assert norms["spectral_norm"] == pytest.approx(np.linalg.norm(A, 2), rel=1e-5)
        assert norms["nuclear_norm"] == pytest.approx(np.linalg.norm(A, "nuc"), rel=1e-5)
        assert norms["frobenius_norm"] == pytest.approx(np.linalg.norm(A), rel=1e-5)
        assert 1 <= norms["stable_rank"] <= norms["effective_rank"] * (1 + 1e-9)
        assert norms["effective_rank"] <= series["largest_rank"][series.words("matrices").index(name)]


def test_control_is_the_untrained_model(plant):
    trajectory = plant({0: {}, 9: {"unembed.W_U": torch.ones(16, 11)}})
    series = measures.evaluate("matrix_norms", trajectory)
    for name in series.arrays:
        assert series[f"{name}_initialization"].tolist() == series[name][0].tolist()
    assert value_of(series, "effective_rank", "unembed.W_U", 1) == pytest.approx(1, rel=1e-6)
