"""Norms and ranks of matrices against closed forms and numpy, head by head and of products."""

import math

import numpy as np
import pytest
import torch

from grokscope import measures
from grokscope.measures import matrix_norms as module

BLOCK = "blocks.0.attn."


def of(series, name: str, matrix: str, step: int = 0) -> float:
    return float(series[name][step, series.words("matrices").index(matrix)])


def test_planted_singular_values_give_the_formulas_by_hand(plant):
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
        assert of(series, name, "embed.W_E") == pytest.approx(value, rel=1e-6)
        assert of(series, name, "embed.W_E", 1) == 0


def test_an_orthogonal_matrix_has_every_rank_and_an_outer_product_one():
    Q = torch.linalg.qr(torch.randn(9, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q
    for A, rank in ((5 * Q, 9), (torch.outer(Q[0], Q[1]) * 2, 1), (Q[:, :4] * 0.1, 4)):
        found = module.norms_and_ranks(module.singular_values(A))
        assert found["stable_rank"].item() == pytest.approx(rank, rel=1e-12)
        assert found["effective_rank"].item() == pytest.approx(rank, rel=1e-9)


@pytest.mark.parametrize("shape", [((16, 8), (8, 16)), ((3, 8), (8, 5)), ((16, 1), (1, 16))])
def test_a_products_singular_values_are_numpys_of_the_whole_product(shape):
    generator = torch.Generator().manual_seed(0)
    A, B = (torch.randn(one, generator=generator, dtype=torch.float64) for one in shape)
    found = module.product_singular_values(A, B).numpy()
    whole = np.linalg.svd((A @ B).numpy(), compute_uv=False)
    np.testing.assert_allclose(found, whole[: len(found)], rtol=1e-10)
    assert whole[len(found) :].max(initial=0) < 1e-12


@pytest.mark.parametrize("n_layers", [1, 2])
def test_every_matrix_and_each_heads_is_numpys(plant, n_layers):
    trajectory = plant({0: {}}, n_layers=n_layers)
    series, w = measures.evaluate("matrix_norms", trajectory), trajectory.first.parameters
    every = {name: one.numpy() for name, one in w.items() if ".W_" in name and ".attn." not in name}
    for layer in range(n_layers):
        attn = f"blocks.{layer}.attn."
        W_Q, W_K, W_V, W_O = (w[f"{attn}W_{one}"].double().numpy() for one in "QKVO")
        for head in range(2):
            every |= {f"{attn}W_{one}.{head}": W[head] for one, W in zip("QKVO", (W_Q, W_K, W_V, W_O), strict=True)}
            every[f"{attn}QK.{head}"] = W_Q[head] @ W_K[head].T
            every[f"{attn}OV.{head}"] = W_V[head] @ W_O[head]
    assert set(series.words("matrices")) == set(every)
    for name, A in every.items():
        found = {key: of(series, key, name) for key in series.arrays}
        assert found["spectral_norm"] == pytest.approx(np.linalg.norm(A, 2), rel=1e-5)
        assert found["nuclear_norm"] == pytest.approx(np.linalg.norm(A, "nuc"), rel=1e-5)
        assert found["frobenius_norm"] == pytest.approx(np.linalg.norm(A), rel=1e-5)
        assert 1 <= found["stable_rank"] <= found["effective_rank"] * (1 + 1e-9)
        assert found["effective_rank"] <= series["largest_rank"][series.words("matrices").index(name)]


def test_the_untrained_model_stands_beside(plant):
    trajectory = plant({0: {}, 9: {"unembed.W_U": torch.ones(16, 11)}})
    series = measures.evaluate("matrix_norms", trajectory)
    for name in series.arrays:
        assert series[f"{name}_initialization"].tolist() == series[name][0].tolist()
    assert of(series, "effective_rank", "unembed.W_U", 1) == pytest.approx(1, rel=1e-6)
