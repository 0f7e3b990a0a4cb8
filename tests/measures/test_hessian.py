"""The measures `hessian` and `hessian_spectrum` against dense float64 matrices of small transformers."""

from typing import Any

import numpy as np
import pytest
import torch
from support.dense import TINY, dense_gauss_newton, dense_hessian, memorized

from grokscope import Trajectory, measures
from grokscope.errors import GrokscopeError
from grokscope.landscape.objective import objectives
from grokscope.model.components import group_by_component
from grokscope.series import Series

TIGHT = {"n_top": 5, "n_probes": 24, "tolerance": 1e-8, "bottom_tolerance": 1e-8}


def columns(trajectory: Trajectory, names: list[str]) -> list[int]:
    """Return the indices of some parameters in the flat vector of all trained parameters."""
    indices, first = [], 0
    for name in trajectory.model.trained:
        size = int(np.prod(trajectory.model.shapes[name]))
        indices += range(first, first + size) if name in names else []
        first += size
    return indices


@pytest.fixture(scope="module")
def measured(plant_once) -> tuple[Trajectory, list[torch.Tensor], list[torch.Tensor]]:
    """A tiny run with dense Hessians and Gauss–Newton matrices: untrained, memorized, and long after."""
    start = plant_once({0: {}}, **TINY)
    trajectory = plant_once({0: {}, 25: memorized(start, 25), 400: memorized(start, 200, 1.2)}, **TINY)
    return (
        trajectory,
        [dense_hessian(trajectory, i)[1] for i in range(3)],
        [dense_gauss_newton(trajectory, i) for i in range(3)],
    )


@pytest.fixture(scope="module")
def series(measured) -> Series:
    """The measure of the tiny run at tight tolerances."""
    return measures.evaluate("hessian", measured[0], dtype="float64", **TIGHT)


def test_both_ends_equal_those_of_the_dense_hessian(measured, series):
    for i, H in enumerate(measured[1]):
        expected = np.linalg.eigvalsh(H.numpy())
        np.testing.assert_allclose(series["eigenvalues"][i], expected[:-6:-1], rtol=1e-9, atol=1e-9 * expected[-1])
        assert series["bottom_eigenvalue"][i] == pytest.approx(expected[0], rel=1e-6)
        for name in ("eigenvalues", "bottom_eigenvalue"):
            assert (series[f"{name}_residual"][i] <= 1e-8 * expected[-1]).all()


def test_float32_eigenvalues_are_accurate_at_a_tiny_loss(measured):
    options = {"n_top": 5, "n_probes": 2, "blocks": ()}
    single = measures.evaluate("hessian", measured[0], **options)
    expected = np.stack([np.linalg.eigvalsh(H.numpy())[:-6:-1] for H in measured[1]])
    errors = np.abs(single["eigenvalues"] - expected)
    assert (errors <= 1e-7 * expected[:, :1]).all() and (errors <= single["eigenvalues_residual"]).all()
    assert single["block_traces"].shape == (3, 0)
    for i, G in enumerate(measured[2]):
        assert single["gauss_newton_eigenvalue"][i] == pytest.approx(np.linalg.eigvalsh(G.numpy())[-1], rel=1e-7)


def test_traces_and_norms_equal_dense_ones_within_errors(measured, series):
    trajectory, hessians, gauss_newtons = measured
    parts = [columns(trajectory, names) for names in group_by_component(trajectory.model.trained).values()]
    assert series.words("blocks") == ["embedding", "positions", "attention", "mlp", "unembedding"]
    assert series["block_sizes"].tolist() == [len(part) for part in parts]
    for i, (H, G) in enumerate(zip(hessians, gauss_newtons, strict=True)):
        expected = {
            "trace": H.trace(),
            "frobenius_norm": H.norm(),
            "gauss_newton_trace": G.trace(),
            "gauss_newton_share": G.trace() / H.trace(),
            "block_traces": torch.stack([H.diagonal()[part].sum() for part in parts]),
            "block_gauss_newton_traces": torch.stack([G.diagonal()[part].sum() for part in parts]),
        }
        for name, value in expected.items():
            error, stderr = series[name][i] - value.numpy(), series[f"{name}_stderr"][i]
            assert (np.abs(error) < 4.5 * stderr).all(), (name, i)
            assert (stderr < 0.3 * np.abs(value.numpy()).max()).all(), "a huge error lets any value pass"
        np.testing.assert_allclose(series["block_traces"][i].sum(), series["trace"][i], rtol=1e-10)


def test_removed_eigenvectors_lower_the_error_of_the_trace(measured):
    """Without the eigenvectors, the same probes vary several times as much."""
    trajectory, hessians, _ = measured
    series = measures.evaluate(
        "hessian", trajectory[:2], dtype="float64", **{**TIGHT, "bottom_tolerance": 0.1, "n_top": 20, "blocks": ()}
    )
    for i, H in enumerate(hessians[:2]):
        expected = (2 * (H.square().sum() - H.diagonal().square().sum()).item() / 24) ** 0.5
        assert series["trace_stderr"][i] < expected / 2


def test_block_and_gauss_newton_eigenvalues_equal_dense_ones(measured, series):
    trajectory, hessians, gauss_newtons = measured
    parts = [columns(trajectory, names) for names in group_by_component(trajectory.model.trained).values()]
    for i, (H, G) in enumerate(zip(hessians, gauss_newtons, strict=True)):
        assert series["gauss_newton_eigenvalue"][i] == pytest.approx(np.linalg.eigvalsh(G.numpy())[-1], rel=1e-8)
        expected = [np.linalg.eigvalsh(H[part][:, part].numpy())[-1] for part in parts]
        np.testing.assert_allclose(series["block_eigenvalues"][i], expected, rtol=1e-8)
        assert (series["block_eigenvalues_residual"][i] <= 1e-8 * np.array(expected) * 1.001).all()


def test_overlaps_are_shares_in_the_dense_eigenvectors(measured, series):
    trajectory, hessians, _ = measured
    tops = [torch.linalg.eigh(H).eigenvectors[:, -5:] for H in hessians]
    loss_functions = [objective for _, objective in objectives(trajectory)]
    points = [objective.point for objective in loss_functions]
    gradients = [objective.value_and_gradient(objective.point)[1] for objective in loss_functions]

    def share(V: torch.Tensor, vector: torch.Tensor) -> float:
        return float((V.T @ vector).norm() ** 2 / vector.norm() ** 2)

    updates = [points[1] - points[0], points[2] - points[1], points[2] - points[1]]
    between = [1.0, *(float((tops[i].T @ tops[i + 1]).norm() ** 2 / 5) for i in range(2))]
    np.testing.assert_allclose(series["gradient_overlap"], list(map(share, tops, gradients)), rtol=1e-5)
    np.testing.assert_allclose(series["update_overlap"], list(map(share, tops, updates)), rtol=1e-4)
    np.testing.assert_allclose(series["eigenspace_overlap"], between, rtol=1e-4)
    np.testing.assert_allclose(series["gradient_norm"], [float(gradient.norm()) for gradient in gradients])
    assert series["chance_overlap"] == pytest.approx(5 / len(points[0]))


def test_zero_update_has_overlap_0(plant):
    small = {"n_top": 2, "n_probes": 2, "tolerance": 1e-3, "bottom_tolerance": 0.1, "blocks": ()}
    series = measures.evaluate("hessian", plant({0: {}, 5: {}}, **TINY), **small)
    assert series["update_overlap"].tolist() == [0, 0]
    assert series["eigenspace_overlap"] == pytest.approx([1, 1], rel=1e-6)


@pytest.mark.parametrize("loss", ["softmax", "stablemax"])
@pytest.mark.parametrize(
    "form", [{}, {"normalization_type": "LN", "act_fn": "gelu", "n_layers": 2, "d_mlp": 4, "biases": "all"}]
)
def test_gauss_newton_product_equals_the_dense_one(plant, loss, form):
    trajectory = plant({0: {}}, run={"loss": loss}, **TINY | form)
    ((_, objective),) = objectives(trajectory)
    dense = dense_gauss_newton(trajectory, 0)
    product, n = objective.gauss_newton()
    vector = torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(product(vector), dense @ vector, rtol=1e-9, atol=1e-12)
    names = group_by_component(trajectory.model.trained)["mlp"]
    indices = columns(trajectory, names)
    block, m = objective.gauss_newton(names)
    assert m == len(indices)
    torch.testing.assert_close(
        block(vector[indices]), dense[indices][:, indices] @ vector[indices], rtol=1e-9, atol=1e-12
    )


def test_test_loss_has_its_own_hessian(plant):
    trajectory = plant({0: {}}, **TINY)
    options = {"dtype": "float64", "n_probes": 2, "n_top": 2, "bottom_tolerance": 0.1, "blocks": ()}
    for part in ("train", "test"):
        series = measures.evaluate("hessian", trajectory, part=part, **options)
        expected = np.linalg.eigvalsh(dense_hessian(trajectory, 0, part)[1].numpy())[-1]
        assert series["eigenvalues"][0, 0] == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_top": 0}, "n_top: 0. Allowed: from 1"),
        ({"n_probes": 1}, "n_probes: 1. Allowed: from 2"),
        ({"bottom_tolerance": 0.0}, "bottom_tolerance: 0.0. Allowed: above 0"),
        ({"n_top": 10**6}, "n_top: 1000000"),
        ({"blocks": ("mpl",)}, "blocks: mpl. Allowed: embedding, positions"),
    ],
)
def test_option_of_the_hessian_out_of_range_is_rejected(plant, options: dict[str, Any], message):
    with pytest.raises(GrokscopeError, match=message):
        measures.evaluate("hessian", plant({0: {}}, **TINY), **options)


def test_spectrum_has_the_dense_hessians_moments_and_ends(measured):
    trajectory, hessians, _ = measured
    series = measures.evaluate("hessian_spectrum", trajectory[1:], n_probes=8, n_products=20, dtype="float64")
    grid, step = series["grid"], series["grid"][1] - series["grid"][0]
    np.testing.assert_allclose(
        np.sign(grid) * np.log10(1 + np.abs(series["eigenvalue_grid"]) / 1e-6), grid, atol=1e-9
    )
    assert series["n_parameters"] == len(hessians[0])
    for i, H in enumerate(hessians[1:]):
        eigenvalues = np.linalg.eigvalsh(H.numpy())
        assert series["density"][i].sum() * step == pytest.approx(1, rel=1e-6)
        assert series["weights"][i].sum(-1) == pytest.approx(np.ones(8))
        moments = [(eigenvalues**k).mean() for k in range(1, 5)]
        assert (np.abs(series["moments"][i] - moments) < 5 * series["moments_stderr"][i]).all()
        assert series["nodes"][i].max() == pytest.approx(eigenvalues[-1], rel=1e-4)
        assert series["nodes"][i].min() > eigenvalues[0] * 1.0001


@pytest.mark.parametrize("option", [{"n_probes": 1}, {"n_products": 1}, {"linear_below": 200.0}, {"width": 0.0}])
def test_option_of_the_spectrum_out_of_range_is_rejected(plant, option: dict[str, Any]):
    with pytest.raises(GrokscopeError, match=next(iter(option))):
        measures.evaluate("hessian_spectrum", plant({0: {}}, **TINY), **option)
