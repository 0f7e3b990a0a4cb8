"""The measure `sharpness` against the dense float64 Hessian of a small transformer.

The dense Hessian is torch's own, over HookedTransformer's forward pass and `F.cross_entropy`. It shares no code with
the model, the loss and the products of the measure.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.sparse.linalg import aslinearoperator, eigsh
from support.dense import TINY, dense_hessian, memorized

from grokscope import Snapshot, curvature, measures
from grokscope.errors import GrokscopeError
from grokscope.model import losses


@pytest.fixture(scope="module", params=["plain", "normalized"])
def measured(request, plant_once):
    """A tiny run with dense Hessians: untrained, memorized, and long after memorization, when the loss is tiny."""
    form, ahead = {
        "plain": ({"biases": "mlp"}, 1.2),
        "normalized": (
            {"biases": "all", "normalization_type": "LN", "act_fn": "gelu", "n_layers": 2, "d_mlp": 4},
            2.0,
        ),
    }[request.param]
    start = plant_once({0: {}}, **TINY | form)
    steps = {0: {}, 25: memorized(start, 25), 400: memorized(start, 200, ahead)}
    trajectory = plant_once(steps, **TINY | form)
    return trajectory, [dense_hessian(trajectory, i) for i in range(3)]


def test_late_loss_is_tiny(measured):
    """Only a tiny loss shows the errors of float32."""
    _, dense = measured
    losses_by_step = [loss for loss, _ in dense]
    assert losses_by_step[0] > 1 > losses_by_step[1] > 1e-5 > 1e-6 > losses_by_step[2] > 1e-9


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sharpness_is_the_top_eigenvalue_of_the_dense_hessian(measured, dtype):
    trajectory, dense = measured
    series = measures.evaluate("sharpness", trajectory, dtype=dtype)
    for i, (_, H) in enumerate(dense):
        largest = np.linalg.eigvalsh(H.numpy())[-1]
        assert series["sharpness"][i] == pytest.approx(largest, rel=1e-3)
        assert 0 <= series["sharpness_residual"][i] <= 1e-3 * series["sharpness"][i]


def test_default_precision_is_accurate_at_a_tiny_loss(measured):
    """The rounding of float32 logits must not exceed the stated residual, and the error is far below it."""
    trajectory, dense = measured
    series = measures.evaluate("sharpness", trajectory)
    for i, (_, H) in enumerate(dense):
        error = abs(series["sharpness"][i] - np.linalg.eigvalsh(H.numpy())[-1])
        assert error <= series["sharpness_residual"][i]
        assert error <= 1e-7 * series["sharpness"][i]


def test_trace_equals_the_dense_hessians_within_its_error(measured):
    trajectory, dense = measured
    series = measures.evaluate("sharpness", trajectory, n_probes=50, dtype="float64")
    for i, (_, H) in enumerate(dense):
        error, stderr = series["hessian_trace"][i] - H.trace().item(), series["hessian_trace_stderr"][i]
        assert abs(error) < 4 * stderr
        # The variance of one probe is 2·Σ_{i≠j} H_ij².
        expected = (2 * (H.square().sum() - H.diagonal().square().sum()).item() / 50) ** 0.5
        assert stderr == pytest.approx(expected, rel=0.5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_equal_the_dense_hessians_at_a_tiny_loss(measured, dtype):
    trajectory, dense = measured
    names, train = trajectory.model.trained, trajectory.split.train
    inputs, labels = trajectory.task.inputs[train], trajectory.task.labels[train]
    for snapshot, (_, H) in zip(trajectory, dense, strict=True):
        parameters = {name: tensor.to(getattr(torch, dtype)) for name, tensor in snapshot.parameters.items()}
        leaves = [parameters[name].requires_grad_() for name in names]
        loss = losses.cross_entropy(trajectory.model.logits(parameters, inputs), labels).mean()
        product, n = curvature.hvp(loss, leaves)
        assert n == len(H)
        top = torch.linalg.eigh(H).eigenvectors[:, -1]
        generator = torch.Generator().manual_seed(0)
        for vector in (top, torch.randn(n, generator=generator, dtype=torch.float64)):
            expected = H @ vector
            error = (product(vector).double() - expected).norm() / expected.norm()
            assert error < (1e-3 if dtype == "float32" else 1e-7)


def test_larger_transformer_agrees_with_arpack(plant):
    """ARPACK's implicitly restarted Lanczos shares only the products, which are tested above."""
    start = plant({0: {}})
    trajectory = plant({0: {}, 40: memorized(start, 40)})
    series = measures.evaluate("sharpness", trajectory, dtype="float64", tolerance=1e-5)
    train = trajectory.split.train

    def largest(snapshot: Snapshot) -> float:
        parameters = {name: tensor.double() for name, tensor in snapshot.parameters.items()}
        leaves = [parameters[name].requires_grad_() for name in trajectory.model.trained]
        logits = trajectory.model.logits(parameters, trajectory.task.inputs[train])
        product, n = curvature.hvp(F.cross_entropy(logits, trajectory.task.labels[train]), leaves)
        operator = aslinearoperator(
            SimpleNamespace(shape=(n, n), dtype=float, matvec=lambda v: product(torch.from_numpy(v.ravel())).numpy())
        )
        return eigsh(operator, k=1, which="LA", v0=np.random.default_rng(0).standard_normal(n))[0][0]

    assert series["sharpness"].tolist() == pytest.approx([largest(snapshot) for snapshot in trajectory], rel=1e-7)


def test_only_trained_parameters_are_directions(plant):
    """The biases of attention and unembedding change the eigenvalue if they are trained."""
    mlp_biases, all_biases = (
        measures.evaluate("sharpness", plant({0: {}}, biases=b, **TINY)) for b in ("mlp", "all")
    )
    assert all_biases["sharpness"][0] > mlp_biases["sharpness"][0] * 1.001


def test_probes_are_the_same_at_every_step(plant):
    """Equal checkpoints have equal traces, so differences along a run are not due to the probes."""
    series = measures.evaluate("sharpness", plant({0: {}, 10: {}}, **TINY))
    for name in ("hessian_trace", "hessian_trace_stderr"):
        assert series[name][0] == series[name][1], name
    assert series["sharpness"][0] == pytest.approx(series["sharpness"][1], rel=1e-6)


@pytest.fixture
def products(monkeypatch) -> list[int]:
    """The number of products of each Lanczos run."""
    counted, lanczos = [], curvature.lanczos

    def counting(*arguments, **options):
        pair = lanczos(*arguments, **options)
        counted.append(pair.n_products)
        return pair

    monkeypatch.setattr(curvature, "lanczos", counting)
    return counted


def test_warm_start_does_not_change_the_eigenvalue(measured):
    """The two checkpoints differ as much as neighbours can."""
    trajectory, _ = measured
    together = measures.evaluate("sharpness", trajectory[1:], dtype="float64")
    alone = [measures.evaluate("sharpness", trajectory[i : i + 1], dtype="float64") for i in (1, 2)]
    for i, cold in enumerate(alone):
        assert together["sharpness"][i] == pytest.approx(cold["sharpness"][0], rel=1e-6)
        assert together["hessian_trace"][i] == cold["hessian_trace"][0]


def test_warm_start_saves_products(plant, products):
    start = plant({0: {}})
    late = memorized(start, 40)
    moved = {name: tensor * 1.001 for name, tensor in late.items()}
    options = {"dtype": "float64", "tolerance": 1e-10}
    measures.evaluate("sharpness", plant({0: late, 1: moved}), **options)
    measures.evaluate("sharpness", plant({1: moved}), **options)
    _, warm, cold = products
    assert warm < cold


def test_loose_tolerance_disables_the_warm_start(plant):
    """A warm start could end on the second eigenvalue, if that was the first at the previous checkpoint."""
    series = measures.evaluate("sharpness", plant({0: {}, 10: {}}, **TINY), tolerance=1e-4)
    assert series["sharpness"][0] == series["sharpness"][1]


def test_seed_changes_the_trace_but_not_the_eigenvalue(plant):
    trajectory = plant({0: {}}, **TINY)
    first, second = (measures.evaluate("sharpness", trajectory, seed=seed) for seed in (0, 1))
    assert first["hessian_trace"][0] != second["hessian_trace"][0]
    assert first["sharpness"][0] == pytest.approx(second["sharpness"][0], rel=1e-3)


@pytest.mark.parametrize("n_layers", [1, 2])
def test_disabled_gradients_do_not_change_the_result(plant, n_layers):
    """Notebooks that explore a model with TransformerLens start by disabling gradients."""
    trajectory = plant({0: {}}, **TINY, n_layers=n_layers)
    expected = measures.evaluate("sharpness", trajectory)
    with torch.no_grad():
        series = measures.evaluate("sharpness", trajectory)
    assert series["sharpness"].tolist() == expected["sharpness"].tolist()


@pytest.mark.parametrize("option", [{"dtype": "float16"}, {"n_probes": 0}, {"n_probes": 1}, {"tolerance": -1.0}])
def test_option_out_of_range_is_rejected_by_name(plant, option):
    """One probe has no standard error, and a residual is never below zero."""
    with pytest.raises(GrokscopeError, match=next(iter(option))):
        measures.evaluate("sharpness", plant({0: {}}, **TINY), **option)
