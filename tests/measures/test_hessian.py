"""Everything that is measured of the Hessian against the dense matrices of small transformers in float64."""

from typing import Any

import numpy as np
import pytest
import torch
from support.dense import TINY, dense_gauss_newton, dense_hessian, memorized

from grokscope import Trajectory, measures
from grokscope.errors import GrokscopeError
from grokscope.landscape.objective import objectives
from grokscope.model.components import by_component
from grokscope.series import Series

EXACTLY = {"n_top": 5, "n_probes": 24, "tolerance": 1e-8, "bottom_tolerance": 1e-8}


def columns(trajectory: Trajectory, names: list[str]) -> list[int]:
    """Return where in the flat vector of the trained parameters some of them lie."""
    found, first = [], 0
    for name in trajectory.model.trained:
        size = int(np.prod(trajectory.model.shapes[name]))
        found += range(first, first + size) if name in names else []
        first += size
    return found


@pytest.fixture(scope="module")
def measured(plant_once) -> tuple[Trajectory, list[torch.Tensor], list[torch.Tensor]]:
    """A tiny run: untrained, memorized, and far beyond; with dense Hessians and Gauss–Newton matrices."""
    start = plant_once({0: {}}, **TINY)
    trajectory = plant_once({0: {}, 25: memorized(start, 25), 400: memorized(start, 200, 1.2)}, **TINY)
    return (
        trajectory,
        [dense_hessian(trajectory, i)[1] for i in range(3)],
        [dense_gauss_newton(trajectory, i) for i in range(3)],
    )


@pytest.fixture(scope="module")
def series(measured) -> Series:
    return measures.evaluate("hessian", measured[0], dtype="float64", **EXACTLY)


def test_both_ends_are_those_of_the_dense_hessian(measured, series):
    for i, H in enumerate(measured[1]):
        expected = np.linalg.eigvalsh(H.numpy())
        np.testing.assert_allclose(series["eigenvalues"][i], expected[:-6:-1], rtol=1e-9, atol=1e-9 * expected[-1])
        assert series["bottom_eigenvalue"][i] == pytest.approx(expected[0], rel=1e-6)
        for name in ("eigenvalues", "bottom_eigenvalue"):
            assert (series[f"{name}_residual"][i] <= 1e-8 * expected[-1]).all()


def test_float32_finds_them_too_where_the_loss_is_tiny(measured):
    single = measures.evaluate("hessian", measured[0], **{**EXACTLY, "n_probes": 2, "blocks": ()})
    expected = [np.linalg.eigvalsh(H.numpy())[:-6:-1] for H in measured[1]]
    np.testing.assert_allclose(single["eigenvalues"], expected, rtol=1e-3)
    assert single["block_traces"].shape == (3, 0)


def test_sizes_are_the_dense_matrices_within_their_errors(measured, series):
    trajectory, hessians, gauss_newtons = measured
    parts = [columns(trajectory, names) for names in by_component(trajectory.model.trained).values()]
    assert series.words("blocks") == ["embedding", "positions", "attention", "mlp", "unembedding"]
    assert series["block_sizes"].tolist() == [len(one) for one in parts]
    for i, (H, G) in enumerate(zip(hessians, gauss_newtons, strict=True)):
        expected = {
            "trace": H.trace(),
            "frobenius_norm": H.norm(),
            "gauss_newton_trace": G.trace(),
            "gauss_newton_share": G.trace() / H.trace(),
            "block_traces": torch.stack([H.diagonal()[its].sum() for its in parts]),
            "block_gauss_newton_traces": torch.stack([G.diagonal()[its].sum() for its in parts]),
        }
        for name, value in expected.items():
            error, stderr = series[name][i] - value.numpy(), series[f"{name}_stderr"][i]
            assert (np.abs(error) < 4.5 * stderr).all(), (name, i)
            assert (stderr < 0.3 * np.abs(value.numpy()).max()).all(), "an error of any size would pass"
        np.testing.assert_allclose(series["block_traces"][i].sum(), series["trace"][i], rtol=1e-10)


def test_the_eigenvectors_found_make_the_trace_more_certain(measured):
    """The same probes without them are several times as far spread."""
    trajectory, hessians, _ = measured
    found = measures.evaluate(
        "hessian", trajectory[:2], dtype="float64", **{**EXACTLY, "bottom_tolerance": 0.1, "n_top": 20, "blocks": ()}
    )
    for i, H in enumerate(hessians[:2]):
        alone = (2 * (H.square().sum() - H.diagonal().square().sum()).item() / 24) ** 0.5
        assert found["trace_stderr"][i] < alone / 2


def test_blocks_and_gauss_newton_have_the_dense_matrices_top_eigenvalues(measured, series):
    trajectory, hessians, gauss_newtons = measured
    parts = [columns(trajectory, names) for names in by_component(trajectory.model.trained).values()]
    for i, (H, G) in enumerate(zip(hessians, gauss_newtons, strict=True)):
        assert series["gauss_newton_eigenvalue"][i] == pytest.approx(np.linalg.eigvalsh(G.numpy())[-1], rel=1e-8)
        expected = [np.linalg.eigvalsh(H[its][:, its].numpy())[-1] for its in parts]
        np.testing.assert_allclose(series["block_eigenvalues"][i], expected, rtol=1e-8)
        assert (series["block_eigenvalues_residual"][i] <= 1e-8 * np.array(expected) * 1.001).all()


def test_overlaps_are_shares_of_the_dense_eigenvectors(measured, series):
    trajectory, hessians, _ = measured
    tops = [torch.linalg.eigh(H).eigenvectors[:, -5:] for H in hessians]
    each = [one for _, one in objectives(trajectory)]
    gradients, points = [one.value_and_gradient(one.point)[1] for one in each], [one.point for one in each]

    def share(V: torch.Tensor, vector: torch.Tensor) -> float:
        return float((V.T @ vector).norm() ** 2 / vector.norm() ** 2)

    ways = [points[1] - points[0], points[2] - points[1], points[2] - points[1]]
    between = [1.0, *(float((tops[i].T @ tops[i + 1]).norm() ** 2 / 5) for i in range(2))]
    np.testing.assert_allclose(series["gradient_overlap"], list(map(share, tops, gradients)), rtol=1e-5)
    np.testing.assert_allclose(series["update_overlap"], list(map(share, tops, ways)), rtol=1e-4)
    np.testing.assert_allclose(series["eigenspace_overlap"], between, rtol=1e-4)
    np.testing.assert_allclose(series["gradient_norm"], [float(one.norm()) for one in gradients])
    assert series["chance_overlap"] == pytest.approx(5 / len(points[0]))


def test_a_way_of_no_length_overlaps_with_nothing(plant):
    small = {"n_top": 2, "n_probes": 2, "tolerance": 1e-3, "bottom_tolerance": 0.1, "blocks": ()}
    found = measures.evaluate("hessian", plant({0: {}, 5: {}}, **TINY), **small)
    assert found["update_overlap"].tolist() == [0, 0]
    assert found["eigenspace_overlap"] == pytest.approx([1, 1], rel=1e-6)


@pytest.mark.parametrize("loss", ["softmax", "stablemax"])
@pytest.mark.parametrize(
    "form", [{}, {"normalization_type": "LN", "act_fn": "gelu", "n_layers": 2, "d_mlp": 4, "biases": "all"}]
)
def test_a_product_with_gauss_newton_is_the_dense_matrixs(plant, loss, form):
    trajectory = plant({0: {}}, run={"loss": loss}, **TINY | form)
    ((_, objective),) = objectives(trajectory)
    dense = dense_gauss_newton(trajectory, 0)
    product, n = objective.gauss_newton()
    vector = torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(product(vector), dense @ vector, rtol=1e-9, atol=1e-12)
    names = by_component(trajectory.model.trained)["mlp"]
    its = columns(trajectory, names)
    block, m = objective.gauss_newton(names)
    assert m == len(its)
    torch.testing.assert_close(block(vector[its]), dense[its][:, its] @ vector[its], rtol=1e-9, atol=1e-12)


def test_the_test_loss_has_a_hessian_of_its_own(plant):
    trajectory = plant({0: {}}, **TINY)
    options = {"dtype": "float64", "n_probes": 2, "n_top": 2, "bottom_tolerance": 0.1, "blocks": ()}
    for part in ("train", "test"):
        found = measures.evaluate("hessian", trajectory, part=part, **options)
        expected = np.linalg.eigvalsh(dense_hessian(trajectory, 0, part)[1].numpy())[-1]
        assert found["eigenvalues"][0, 0] == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n_top": 0}, "n_top: 0, allowed: from 1"),
        ({"n_probes": 1}, "n_probes: 1, allowed: from 2"),
        ({"bottom_tolerance": 0.0}, "bottom_tolerance: 0.0, allowed: above 0"),
        ({"n_top": 10**6}, "n_top: 1000000"),
        ({"blocks": ("mpl",)}, "blocks: mpl; allowed: embedding, positions"),
    ],
)
def test_an_option_of_the_hessian_out_of_range_is_refused(plant, options: dict[str, Any], said):
    with pytest.raises(GrokscopeError, match=said):
        measures.evaluate("hessian", plant({0: {}}, **TINY), **options)


def test_the_spectrum_has_the_dense_hessians_moments_and_ends(measured):
    trajectory, hessians, _ = measured
    found = measures.evaluate("hessian_spectrum", trajectory[1:], n_probes=8, n_products=20, dtype="float64")
    grid, step = found["grid"], found["grid"][1] - found["grid"][0]
    np.testing.assert_allclose(np.sign(grid) * np.log10(1 + np.abs(found["eigenvalue_grid"]) / 1e-6), grid, atol=1e-9)
    assert found["n_parameters"] == len(hessians[0])
    for i, H in enumerate(hessians[1:]):
        eigenvalues = np.linalg.eigvalsh(H.numpy())
        assert found["density"][i].sum() * step == pytest.approx(1, rel=1e-6)
        assert found["weights"][i].sum(-1) == pytest.approx(np.ones(8))
        moments = [(eigenvalues**k).mean() for k in range(1, 5)]
        assert (np.abs(found["moments"][i] - moments) < 5 * found["moments_stderr"][i]).all()
        assert found["nodes"][i].max() == pytest.approx(eigenvalues[-1], rel=1e-4)
        assert found["nodes"][i].min() > eigenvalues[0] * 1.0001


@pytest.mark.parametrize("option", [{"n_probes": 1}, {"n_products": 1}, {"linear_below": 200.0}, {"width": 0.0}])
def test_an_option_of_the_spectrum_out_of_range_is_refused(plant, option: dict[str, Any]):
    with pytest.raises(GrokscopeError, match=next(iter(option))):
        measures.evaluate("hessian_spectrum", plant({0: {}}, **TINY), **option)
